# ruff: noqa: RUF001  (signs of many scripts)
"""Invariants of translation besides placeholders: numbers and signs; and texts with nothing to translate.

Separators of numbers may change as they do between languages: 1,234.56 and 1.234,56 are the same number, 2024-05-01 and
01.05.2024 the same date. A small number may become a word.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dragoman.text.cleaning.clean import normalise
from dragoman.text.number_matching import readings, unmatched_numbers, whole_number, without_same
from dragoman.text.placeholders import Placeholder, find_placeholders, texts_between

# ---- nothing to translate ---------------------------------------------------------------------------


def is_wordless(text: str, placeholders: Sequence[Placeholder] | None = None) -> bool:
    """Return True if a text holds no word: only numbers, signs, versions, addresses and placeholders."""
    rest = without_placeholders(text, find_placeholders(text) if placeholders is None else placeholders)
    if any(map(str.isalpha, rest)):
        rest = _LETTERED.sub(" ", rest)
    return bool(text.strip()) and not any(map(str.isalpha, rest))


def keep_verbatim(text: str) -> str:
    """Return a wordless text unchanged, or normalised if it holds characters that would break a line or a column."""
    return text if _BREAKS.search(text) is None else normalise(text)


_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def without_placeholders(text: str, placeholders: Sequence[Placeholder]) -> str:
    """Return the text with a space in place of each placeholder."""
    return " ".join(texts_between(text, placeholders))


_LETTERED = re.compile(  # tokens with letters that are not words
    r"""(?<![\w.:-])(?:
      v?\d+(?:\.\d+)+(?:[-.+]?(?:alpha|beta|rc|dev|pre|post|final|a|b)[-.]?\d*)*(?:\+[\w.]+)?   # versions
    | v\d+
    | \d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?                    # ISO 8601
    | [0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}                                     # UUIDs
    | (?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}                                                  # hardware addresses
    | (?:[0-9A-Fa-f]{1,4}:){2,7}[0-9A-Fa-f]{1,4} | (?:[0-9A-Fa-f]{1,4}:)+(?::[0-9A-Fa-f]{1,4})+ # IPv6
    | 0[xX][0-9A-Fa-f]+ | \#[0-9A-Fa-f]{3,8} | \d+(?:\.\d+)?[eE][-+]?\d+
    )(?![\w:-]|\.\w)""",
    re.VERBOSE,
)

# ---- what changed ------------------------------------------------------------------------------------


class Changes(NamedTuple):
    """Numbers and signs that source and translation do not share."""

    missing: tuple[str, ...]
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.added)

    def __str__(self) -> str:
        parts = [
            f"{verb} {', '.join(values)}"
            for verb, values in (("without", self.missing), ("with", self.added))
            if values
        ]
        return " and ".join(parts)


UNCHANGED = Changes((), ())


def find_changes(source: str, target: str) -> Changes:
    """Return the numbers and signs of ``source`` that ``target`` lacks, and the numbers that only ``target`` has.

    Not counted: different separators, leading zeros, a decimal part of zeros, hours of the 12-hour clock, numbers from
    2 to 12 and Chinese numerals written as words.
    """
    if _PLAIN.fullmatch(source) and _PLAIN.fullmatch(target):
        return UNCHANGED
    here, there = _without_dates(source, target)
    missing, added = unmatched_numbers(here, there)
    if missing and added and _HALF_DAY.search(f"{source}\n{target}"):
        missing, added = without_same(missing, added, _hour)
    words = {word.casefold() for word in _WORD.findall(target)}
    chinese = any(map(str.isnumeric, _ideographs(target)))
    missing = [n for n in missing if not (chinese or words & _NUMBER_WORDS.get(whole_number(n) or "", frozenset()))]
    if any(map(str.isnumeric, _ideographs(source))):
        added = []
    missing += [c for c in (_signs(source) - _signs(target)).elements() if not _spelt_out(c, target)]
    return Changes(tuple(missing), tuple(added)) if missing or added else UNCHANGED


def numbers_added(source: str, target: str) -> bool:
    """Return True if ``target`` has digits that ``source`` lacks."""
    return bool(find_changes(source, target).added)


def find_numbers(text: str) -> list[str]:
    """Return the numbers of a text as written (addresses, dates, times and telephone numbers as one each), then its
    signs."""
    return list(dict.fromkeys([match[0] for match in _WHOLE.finditer(text)] + list(_signs(text))))


_PLAIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿĀ-ɏ\u0370-\u03f5\u03f7-\u0481\u048a-\u052f\s.,;:!?¿¡'’\"()/-]*")
"""Texts without numbers and signs, as most are: letters of Latin, Greek and Cyrillic, spaces and common punctuation."""
_WHOLE = re.compile(  # a telephone number, or digits with separators between them and signs around them
    r"\+\d[\d ()./-]*\d|\(\d+\)[ -]?\d[\d -]*\d"
    r"|(?:[$€£¥₩₹₽] ?)?\d+(?:[-.,:/'’٫٬\u00a0\u202f]\d+| \d{3}(?!\d))*(?: ?(?:°[CF]?|[%‰$€£¥₩₹₽]))?"
)
_WORD = re.compile(r"[^\W\d_]+")


def _without_dates(source: str, target: str) -> tuple[str, str]:
    """Remove the dates that both share, whatever the order of day, month and year."""
    if not (dates := _DATE.findall(source)):
        return source, target
    known = {_parts(date): date for date in dates}
    for date in _DATE.findall(target):
        if twin := known.get(_parts(date)):
            source, target = source.replace(twin, "", 1), target.replace(date, "", 1)
    return source, target


_DATE = re.compile(r"(?<![\d.])(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d\d))(?![-./]?\d)")


def _parts(date: str) -> tuple[str, ...]:
    return tuple(sorted(readings(part)[0] for part in re.split("[-./]", date)))


def _hour(number: str) -> tuple[str, ...]:
    """Return the hour of the 12-hour clock that a number may be; nothing where it is none."""
    whole = whole_number(number)
    return (str(int(whole) % 12),) if whole is not None and len(whole) <= 2 and int(whole) <= 24 else ()


_HALF_DAY = re.compile(r"\d\s*[ap]\.?\s?m\b", re.IGNORECASE)


def _ideographs(text: str) -> list[str]:
    return [c for c in text if c in "〇零一二三四五六七八九十百千万萬億亿兆两兩"]


def _signs(text: str) -> Counter[str]:
    """Count currencies, degrees, percents, trade marks and mathematical signs beyond ASCII. Signs that a translation
    may write as words, such as & and #, are not counted."""
    return Counter(
        c for c in text if c in "%$" or (c > "\x7f" and unicodedata.category(c) in ("So", "Sc", "Sm") and c not in "№º")
    )


def _spelt_out(sign: str, text: str) -> bool:
    return any(word in text.casefold() for word in _SIGN_WORDS.get(sign, ()))


_SIGN_WORDS = {  # prefixes, in European languages
    "€": ("eur", "евро", "ευρώ"),
    "$": ("usd", "dol", "dól", "доллар", "долар"),
    "£": ("gbp", "pound", "pfund", "libra", "livre", "sterlin", "фунт"),
    "%": ("percent", "per cent", "prozent", "por ciento", "por cento", "pour cent", "per cento", "procent", "процент"),
    "°": ("degree", "grad", "grau", "degré", "градус", "stopn", "stupň"),
}
_TABLE = """
en two three four five six seven eight nine ten eleven twelve
de zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
nl twee drie vier vijf zes zeven acht negen tien elf twaalf
sv två tre fyra fem sex sju åtta nio tio elva tolv
da to tre fire fem seks syv otte ni ti elleve tolv
es dos tres cuatro cinco seis siete ocho nueve diez once doce
pt dois|duas três quatro cinco seis sete oito nove dez onze doze
fr deux trois quatre cinq six sept huit neuf dix onze douze
it due tre quattro cinque sei sette otto nove dieci undici dodici
ca dos|dues tres quatre cinc sis set vuit nou deu onze dotze
ro doi|două trei patru cinci șase șapte opt nouă zece unsprezece doisprezece
pl dwa|dwie|dwóch trzy|trzech cztery|czterech pięć|pięciu sześć siedem osiem dziewięć dziesięć jedenaście dwanaście
cs dva|dvě|dvou tři|tří čtyři|čtyř pět|pěti šest sedm osm devět deset jedenáct dvanáct
ru два|две|двух три|трёх|трех четыре|четырёх пять|пяти шесть|шести семь восемь девять десять одиннадцать двенадцать
uk два|дві|двох три|трьох чотири|чотирьох п'ять шість сім вісім дев'ять десять одинадцять дванадцять
tr iki üç dört beş altı yedi sekiz dokuz on onbir oniki
fi kaksi|kahden kolme|kolmen neljä viisi|viiden kuusi seitsemän kahdeksan yhdeksän kymmenen yksitoista kaksitoista
hu két|kettő három négy öt hat hét nyolc kilenc tíz tizenegy tizenkettő
el δύο τρεις|τρία τέσσερις|τέσσερα πέντε έξι επτά|εφτά οκτώ|οχτώ εννέα|εννιά δέκα έντεκα δώδεκα
"""


def _number_words() -> dict[str, frozenset[str]]:
    words: dict[str, set[str]] = {}
    for line in _TABLE.strip().splitlines():
        for number, forms in enumerate(line.split()[1:], 2):
            words.setdefault(str(number), set()).update(forms.split("|"))
    return {number: frozenset(forms) for number, forms in words.items()}


_NUMBER_WORDS = _number_words()
