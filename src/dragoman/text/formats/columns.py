"""Names of columns: which first rows are headers, and which of the columns hold text.

A first row is a header if all its fields are common column names (source, target, English, en, id, ...), no two are the
same, and at least two name texts. So a first pair such as "Name", "Nombre" stays a pair.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


LANGUAGE_CODES = _words(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu "
    "afr amh ara ast aze bel ben bos bul cat ceb ces cym dan deu ell eng epo est eus fas fil fin fra gle glg guj hau "
    "heb hin hrv hun hye ibo ind isl ita jav jpn kan kat kaz khm kor lao lav lin lit ltz mal mar mkd mlt mon mya nld "
    "nob nor oci pan pol por pus ron rus slk slv sna som spa srp swa swe swh tam tel tgk tgl tha tur ukr urd uzb vie "
    "wol xho yor zho zul ger fre dut gre cze chi rum slo alb arm baq bur geo ice mac may per tib wel"
)
"""Language codes of ISO 639-1, and the codes of three letters that corpora use."""
LANGUAGE_NAMES = _words(
    "afrikaans albanian amharic arabic armenian azerbaijani basque belarusian bengali bosnian bulgarian burmese "
    "catalan chinese croatian czech danish dutch english esperanto estonian filipino finnish french "
    "galician georgian german "
    "greek gujarati hausa hebrew hindi hungarian icelandic igbo indonesian irish italian japanese javanese kannada "
    "kazakh khmer korean kurdish kyrgyz lao latin latvian lithuanian luxembourgish macedonian malagasy malay malayalam "
    "maltese maori marathi mongolian nepali norwegian pashto persian polish portuguese punjabi romanian "
    "russian serbian sinhala slovak slovenian somali spanish swahili swedish tagalog tajik tamil telugu "
    "thai turkish turkmen ukrainian "
    "urdu uzbek vietnamese welsh xhosa yiddish yoruba zulu "
    "deutsch englisch spanisch français francais anglais español espanol inglés italiano português portugues "
    "nederlands polski čeština русский українська svenska dansk norsk suomi magyar türkçe ελληνικά 中文 日本語 한국어"
)
_SOURCES = _words("source src original msgid prompt input question instruction")
_TARGETS = _words("target tgt trg translation translated msgstr reference answer output completion response")
_PLAIN = _words("text sentence segment string phrase lang language column value term")
_OTHERS = _words(
    "id ids uid uuid guid key keys index idx no nr num number row line pos position name code hash md5 context comment "
    "comments note notes remark remarks description document doc docid page paragraph file filename path url link "
    "domain topic category genre corpus dataset split date time timestamp created modified updated score quality "
    "alignment probability author user translator contributor license licence attribution status state approved tag "
    "tags label type kind length tokens count frequency unnamed"
)
"""Names of columns that are not text but metadata or keys."""
NOTES = ("msgctxt", "context", "comment", "comments", "description", "developer_comments", "note", "notes")
"""Names of columns, and keys, with notes on a row, in the order in which they are read."""
_AMBIGUOUS = frozenset({"id", "no"})
_TEXTS = _words("text sentence review content body tweet comment utterance query premise input title message")
_LABELS = _words("label labels class category sentiment target tag topic intent rating emotion y")

SHOWN, MOST = 30, 6
"""Characters of a field, and number of fields, that a message shows."""


class Pairing(NamedTuple):
    """Indices of two columns."""

    first: int
    second: int


def strip_names(names: Sequence[str]) -> list[str]:
    """Return the names of a header row without white space around them."""
    return [name.strip() for name in names]


def note_columns(names: Sequence[str]) -> list[int]:
    """Return the columns with notes on a row: its context, then comments."""
    plain = [name.casefold() for name in strip_names(names)]
    return [plain.index(name) for name in NOTES if plain.count(name) == 1]


def text_columns(names: Sequence[str]) -> Pairing | None:
    """Return the columns of source and target if ``names`` are a clear header: columns of these names, or the only two
    that hold text."""
    if not is_header(names):
        return None
    plain = [name.casefold() for name in strip_names(names)]
    if {"source", "target"} <= set(plain):
        return Pairing(plain.index("source"), plain.index("target"))
    texts = _texts(strip_names(names))
    if len(texts) != 2:
        return None
    return in_order(names, Pairing(*texts))


def in_order(names: Sequence[str], pair: Pairing) -> Pairing:
    """Return two columns as source and target: turned round if the first is named as a target and the second is not,
    or the second as a source and the first is not."""
    first, second = (_parts(name.casefold())[0] for name in strip_names([names[pair.first], names[pair.second]]))
    is_target = first in _TARGETS and second not in _TARGETS
    is_source = second in _SOURCES and first not in _SOURCES
    return Pairing(pair.second, pair.first) if is_target or is_source else pair


def labelled_columns(names: Sequence[str]) -> Pairing | None:
    """Return the columns of text and label if ``names`` are a clear header."""
    plain = [name.casefold() for name in strip_names(names)]
    if {"text", "label"} <= set(plain):
        return Pairing(plain.index("text"), plain.index("label"))
    texts, labels = ([i for i, name in enumerate(plain) if name in known] for known in (_TEXTS, _LABELS))
    return Pairing(texts[0], labels[0]) if len(texts) == len(labels) == 1 and texts != labels else None


def is_header(names: Sequence[str]) -> bool:
    """Return True if a first row only names the columns."""
    names = strip_names(names)
    plain = [name.casefold() for name in names]
    if {"source", "target"} <= set(plain):
        return True
    if len(set(plain)) != len(plain):
        return False
    texts = _texts(names)
    return len(texts) >= 2 and all(i in texts or _is_other(name) for i, name in enumerate(names))


def _texts(names: Sequence[str]) -> list[int]:
    """Return the columns of text. ``id`` and ``no`` are Indonesian and Norwegian only beside exactly one other text."""
    certain = [i for i, name in enumerate(names) if _is_text(name)]
    perhaps = [i for i, name in enumerate(names) if name.casefold() in _AMBIGUOUS]
    return sorted([*certain, *perhaps]) if len(certain) == len(perhaps) == 1 else certain


def unknown_columns_message(first: Sequence[str]) -> str:
    """Return the message that the columns of a table are unknown, given its first row."""
    shown = ", ".join(repr(field[:SHOWN]) for field in first[:MOST]) + (", ..." if len(first) > MOST else "")
    return (
        f"{len(first)} columns, but which two are source and target is unknown: name them, as in --columns "
        f"{'en,es' if is_header(first) else '0,1'} or with source and target in the run file; the first row is {shown}"
    )


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\s_.:/()\[\]-]+", name) if part] or [""]


def _is_text(name: str) -> bool:
    """Return True for a column name of one side or language: ``en``, ``English (US)``, ``text_de``."""
    parts = _parts(name)
    if len(parts) > 3 or _is_other(name):
        return False
    is_named = [_is_side(part) or _is_code(part) for part in parts]
    return any(is_named) and all(
        named or part.casefold() in _PLAIN or _is_region(part) for named, part in zip(is_named, parts, strict=True)
    )


def _is_side(part: str) -> bool:
    return part.casefold() in _SOURCES | _TARGETS | LANGUAGE_NAMES


def _is_code(part: str) -> bool:
    """Return True for a language code in lower or upper case; "It" and "Is" are words."""
    return part.casefold() in LANGUAGE_CODES and (part.islower() or part.isupper())


def _is_region(part: str) -> bool:
    """Return True for a region or script such as ``BR``, ``Latn``, ``419``."""
    short = len(part) == 2 and part.isupper()
    return short or (len(part) == 4 and part.istitle()) or (len(part) == 3 and part.isdigit())


def _is_other(name: str) -> bool:
    return not name or any(part in _OTHERS for part in _parts(name.casefold()))
