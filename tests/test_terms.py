"""Terms that must and must not be said, kept by models that were never trained and would say anything."""

import itertools
import re
import unicodedata
from dataclasses import replace

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_constraints import TOKENIZERS, untrained
from test_search import Recurrent, sources, transformer
from tokenizers.models import WordLevel

from dragoman.cli import main
from dragoman.decode.constraints.banked import BankedBeam, in_banks
from dragoman.decode.constraints.characters import ALPHABETIC, APART, INDIC, NEXT, READINGS, SPACE, group, read
from dragoman.decode.constraints.completion_bound import NEVER, CompletionBound
from dragoman.decode.constraints.constrained import TermRule
from dragoman.decode.constraints.glossary import Glossary, GlossaryEntry
from dragoman.decode.constraints.terms import Automaton, Terms
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import NoPenalty
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.clean import normalise
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

VOCABULARIES = {name: SpelledVocabulary(tokenizer) for name, tokenizer in TOKENIZERS.items()}
TIGHT = LengthLimit(tokens=8, ratio=0.0, extra=8)
LOOSE = LengthLimit(tokens=30, ratio=0.0, extra=30)
SEARCHES = {
    "greedy": Greedy(limit=LOOSE),
    "beam": Beam(size=2, nbest=2, limit=LOOSE),
    "beam, no room to spare": Beam(size=2, nbest=2, limit=TIGHT),
    "diverse": DiverseBeam(size=4, groups=2, nbest=2, limit=LOOSE),
    "sample": Sample(samples=2, limit=LOOSE),
}


def letters(character):
    return group(character.encode())


def holds(text, term):
    """Whether a text holds a term as ``Terms`` has it, found by looking at each place of the text."""
    first, bare = term.startswith("^"), term.removeprefix("^").removeprefix("*").removesuffix("*")
    for match in re.finditer(f"(?={re.escape(bare)})", text):
        start, end = match.start(), match.start() + len(bare)
        before = text[start - 1] if start else " "
        after = text[end] if end < len(text) else " "
        left = term.removeprefix("^").startswith("*") or not _same_word(before, bare[0])
        right = term.endswith("*") or not _same_word(bare[-1], after)
        if left and right and (start == 0 or not first):
            return True
    return False


def _same_word(a, b):
    return letters(a) == letters(b) in (ALPHABETIC, INDIC)


# ---- characters ------------------------------------------------------------------------------------


def test_bytes_are_read_as_utf_8_and_nothing_else():
    for text in ("naïve", "日本語 ok", "¿a?", "नमस्ते", "ไทย", "😀y", "Ωж", "كتاب،", "हिन्दी।"):
        now = APART
        for byte in text.encode():
            now = read(now, byte)
            assert now is not None
        assert now == letters(text[-1])
    for broken in (b"\xc3a", b"\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc0\x80"):
        now = APART
        for byte in broken:
            now = read(now, byte) if now is not None else None
        assert now is None


def test_what_normalising_would_change_into_space_or_nothing_cannot_be_said():
    for code in (*range(0x3100), 0xFEFF, 0xFF01):
        if 0xD800 <= code < 0xE000:
            continue
        now = ALPHABETIC
        for byte in chr(code).encode():
            now = read(now, byte) if now is not None else None
        plain = normalise(f"a{chr(code)}b") == f"a{unicodedata.normalize('NFC', chr(code))}b"
        assert (now is not None) == (plain or unicodedata.combining(chr(code)) > 0), hex(code)
    assert read(SPACE, 0x20) is None and len(READINGS) == len(NEXT)


@pytest.mark.parametrize(
    "text",
    [
        *("كتاب،", "كتاب؟", "کتاب\u06d4", "हिन्दी।", "हिन्दी॥", "বই।", "उ॰", "բառ\u0589", "סוף\u05c3", "סוף\u05be"),
        *("βιβλίο\u037e", "መጽሐፍ\u1362", "წიგნი\u10fb", "བོད\u0f0b"),
    ],
)
def test_a_word_ends_at_the_punctuation_of_its_script(text):
    word, mark = text[:-1], text[-1]
    assert letters(mark) == APART and not _same_word(word[-1], mark)
    now = SPACE
    for byte in text.encode():
        now = read(now, byte)
        assert now is not None
    assert now == APART


@pytest.mark.parametrize("word", ["צה\u05f4ל", "Ո\u055eվ", "कि\u0901", "a\u0301b"])
def test_signs_inside_words_end_none(word):
    assert all(_same_word(a, b) for a, b in itertools.pairwise(word))


# ---- the automaton ---------------------------------------------------------------------------------

TERMS = ["low", "lo", "w", "battery low", "é", "日本", "*ow", "lo*", "*o*", "low battery", "y l", "^low", "ll"]


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(TERMS), max_size=3),
    st.lists(st.sampled_from(TERMS), max_size=2),
    st.lists(st.sampled_from(["low", "lo", "l", "battery", " ", "é", "日本", "y", "-"]), max_size=8),
)
def test_the_automaton_finds_what_looking_at_each_place_finds(required, forbidden, text):
    text = normalise("".join(text))
    automaton = Automaton(Terms(tuple((t,) for t in required), tuple(forbidden)), VOCABULARIES["bytes"])
    for spelt in (text.encode(), b" " + text.encode()):
        state, said = automaton.start, 0
        for byte in spelt:
            state, more = automaton.step(state, byte)
            said |= more
        may, last = automaton.at_end(state)
        assert may == (not any(holds(text, term) for term in forbidden))
        if may:
            assert said | last == sum(1 << i for i, term in enumerate(required) if holds(text, term))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_lead_where_their_bytes_do(name):
    vocabulary = VOCABULARIES[name]
    automaton = Automaton(Terms((("battery", "batteries"), ("low",)), ("is l*",)), vocabulary)
    for text in ("", " the", " the bat", " low batt", " is"):
        state = automaton.follow(text.encode())
        steps = automaton.after(state)
        for token in range(3, len(vocabulary.spellings)):
            now, said = state, 0
            for byte in vocabulary.spelling(token):
                now, more = automaton.step(now, byte)
                said |= more
            assert (steps.state[token], steps.emitted[token]) == (now, said if now else 0)
        assert not steps.state[:3].any()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_way_out_is_as_long_as_promised(name):
    vocabulary = VOCABULARIES[name]
    automaton = Automaton(Terms((("battery low",), ("y l", "baja"), ("é",)), ("low",)), vocabulary)
    assert CompletionBound(automaton).tokens(automaton.start, 0) == NEVER
    automaton = Automaton(Terms((("battery",), ("low", "baja"), ("é",)), ("y low", "battery low")), vocabulary)
    way = CompletionBound(automaton)
    for begun in ("", " bat", " battery", " battery l", " xé", " é", " low"):
        state, said = automaton.follow(begun.encode()), 0
        left = way.tokens(state, said)
        while left:
            steps = automaton.after(state)
            places = [(int(s), said | int(m)) for s, m in zip(steps.state, steps.emitted, strict=True)]
            state, said = next(p for p in places if p[0] and way.tokens(*p) == left - 1)
            left -= 1
        may, last = automaton.at_end(state)
        assert may and said | last == automaton.all


# ---- translations ----------------------------------------------------------------------------------

REQUIRED = [(), (("low",),), (("low", "baja"), ("battery",)), (("日本",), ("é",), ("a b c",)), (("^The",),)]
FORBIDDEN = [(), ("*a*", "*e*", "*o*"), ("low battery", "t*"), ("battery",)]


@pytest.mark.parametrize(("name", "search"), list(zip([*TOKENIZERS, *TOKENIZERS], SEARCHES, strict=False)))
def test_required_terms_are_always_said_and_forbidden_ones_never(name, search):
    cfg = SEARCHES[search]
    combinations = [(r, f) for r in REQUIRED for f in FORBIDDEN if (r, f) not in IMPOSSIBLE]
    asked = [Request(f"text {i}", required=r, forbidden=f) for i, (r, f) in enumerate(combinations)]
    for request, found in zip(asked, untrained(TOKENIZERS[name]).translate(asked, search=cfg), strict=True):
        for candidate in found.candidates:
            for alternatives in request.required:
                assert any(holds(candidate.text, term) for term in alternatives), (request, candidate.text)
            assert not any(holds(candidate.text, term) for term in request.forbidden), (request, candidate.text)


IMPOSSIBLE = [
    (r, f)
    for r in REQUIRED
    for f in FORBIDDEN
    if any(all(any(holds(t.removeprefix("^"), bad) for bad in f) for t in alternatives) for alternatives in r)
]


def test_a_forbidden_term_is_forbidden_in_every_tokenisation():
    tokenizer = TOKENIZERS["words"]
    [word] = tokenizer.encode("battery")
    model = Recurrent(len(tokenizer), seed=3)
    model.output.bias.data[word] = 20.0
    model.output.bias.data[tokenizer.encode("batter")] = 10.0
    model.output.bias.data[TOKENIZERS["bytes"].encode("y")] = 9.0
    [free, kept] = Translator(model, tokenizer, tokenizer).translate(
        ["x", Request("x", forbidden=("battery",))], search=Greedy(limit=TIGHT)
    )
    assert "battery" in free.text and not holds(kept.text, "battery")


def test_without_terms_a_beam_in_banks_is_the_plain_beam():
    model, batch = Recurrent(len(TOKENIZERS["bytes"]), sharpness=0.5), sources(100, 8)
    for token, spelt in enumerate(VOCABULARIES["bytes"].spellings):
        if not spelt.isalnum():  # what is not text, which terms do not allow
            model.output.bias.data[token] -= 99.0 if token != EOS else -2.0
    for size in (1, 4):
        plain = Beam(size=size, nbest=size, penalty=NoPenalty(), limit=LOOSE)
        rule = TermRule([Terms()] * 8, VOCABULARIES["bytes"], torch.device("cpu"))
        cfg = BankedBeam(size=size, nbest=size, penalty=NoPenalty(), limit=LOOSE, rule=rule)
        free, banked = search(model, batch, plain), search(model, batch, cfg, rules=[rule])
        assert [h.tokens for some in free for h in some] == [h.tokens for some in banked for h in some]
    asked = [Request("low"), "battery"]
    translator = untrained(TOKENIZERS["bpe"])
    assert translator.translate(asked, glossary=Glossary()) == translator.translate(["low", "battery"])


def test_speculation_changes_no_answer_with_required_terms():
    tokenizer = TOKENIZERS["bpe"]
    translator = Translator(transformer(len(tokenizer)), tokenizer, tokenizer)
    asked = [Request(f"text {i}", required=r) for i, r in enumerate(REQUIRED)]
    for plain in (Greedy(limit=LOOSE), Sample(samples=2, limit=LOOSE)):
        expected, found = (translator.translate(asked, search=cfg) for cfg in (plain, Speculative(search=plain)))
        assert [[c.tokens for c in t.candidates] for t in found] == [[c.tokens for c in t.candidates] for t in expected]


@pytest.mark.parametrize("other", [DiverseBeam(groups=1), CoveringBeam(beta=0.0), DiverseBeam(), CoveringBeam()])
def test_every_beam_looks_for_the_place_of_a_term_as_the_plain_beam_does(other):
    tokenizer, vocabulary = TOKENIZERS["bytes"], VOCABULARIES["bytes"]
    model, batch = transformer(vocab=len(tokenizer)), sources(len(tokenizer), 8)

    def found(cfg):
        rule = TermRule([Terms((("low",), ("battery",)))] * 8, vocabulary, torch.device("cpu"))
        return search(model, batch, in_banks(cfg, rule), rules=[rule])

    groups = other.groups if isinstance(other, DiverseBeam) else 1
    settings = {"stop": "certain", "nbest": 2, "limit": LOOSE}
    plain, others = found(Beam(size=6 // groups, **settings)), found(replace(other, size=6, **settings))
    for one, two in zip(plain, others, strict=True):
        if other in (DiverseBeam(groups=1), CoveringBeam(beta=0.0)):
            assert [h.tokens for h in one] == [h.tokens for h in two]
        elif isinstance(other, DiverseBeam):  # its first group is the plain beam
            assert two[0].score >= one[0].score - 1e-5
        for text in (tokenizer.decode(h.tokens[:-1]) for h in two):
            assert holds(text, "low") and holds(text, "battery"), text


def test_a_term_the_model_would_say_anyway_changes_nothing():
    translator = untrained(TOKENIZERS["words"], seed=1)
    cfg = Beam(size=4, limit=LOOSE)
    for free in translator.translate(["one", "two two", "low", "x y z"], search=cfg):
        words = [w for w in free.text.split() if w.isascii() and w.isalnum()]
        if words:
            [held] = translator.translate([Request(free.source, required=((words[0],),))], search=cfg)
            assert held.candidates[0].log_prob >= free.candidates[0].log_prob - 1e-4 or held.text != ""
            assert holds(held.text, words[0])


def test_a_sentence_with_terms_has_the_same_answer_in_any_batch():
    translator = untrained(TOKENIZERS["bpe"])
    asked = [
        Request("low", required=(("battery",),)),
        Request("the battery", required=(("low", "baja"),), forbidden=("*x*",)),
        Request("x", forbidden=("*a*",)),
        Request("y", prefix="the", required=(("low",), ("battery",))),
        Request("z"),
    ]
    together = translator.translate(asked, search=Beam(size=3, limit=LOOSE))
    for request, found in zip(asked, together, strict=True):
        [alone] = translator.translate([request], search=Beam(size=3, limit=LOOSE))
        assert alone.candidates[0].tokens == found.candidates[0].tokens


def test_a_prefix_and_terms_go_together():
    translator = untrained(TOKENIZERS["bytes"])
    for cfg in (Greedy(limit=TIGHT), Beam(size=2, limit=TIGHT)):
        [found] = translator.translate(
            [Request("x", prefix="the battery i", required=(("low",), ("battery",)))], search=cfg
        )
        assert found.text.startswith("the battery i") and holds(found.text, "low")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            Request("x", required=(("low",),), forbidden=("low",)),
            "row 1: the term 'low' is required, and cannot be written",
        ),
        (Request("x", required=(("a low b",),), forbidden=("*ow",)), "the term 'a low b' is required"),
        (Request("x", prefix="it is low", forbidden=("is",)), "row 1: the prefix 'it is low' holds a forbidden term"),
        (Request("x", required=((" ",),)), "row 1: ' ': a term must not be empty"),
        (Request("x", required=(("a",),) * 17), "row 1: 17 terms are required of one translation: at most 16 can be"),
    ],
)
def test_demands_that_contradict_each_other_are_refused(request_, message):
    with pytest.raises(DataError) as caught:
        untrained(TOKENIZERS["bytes"]).translate([request_])
    assert message in str(caught.value)


def test_more_terms_than_the_model_has_places_for_are_refused():
    translator = untrained(TOKENIZERS["bytes"])
    translator.model.max_length = 20
    with pytest.raises(DataError, match="row 1: its prefix and terms take up to 30 tokens, the model takes 20"):
        translator.translate([Request("x", required=(("x" * 20,),))])


# ---- glossaries ------------------------------------------------------------------------------------


def test_a_glossary_applies_to_whole_words_in_any_case_and_the_longest_entry_counts():
    entries = [
        GlossaryEntry("battery", ("batería", "baterías")),
        GlossaryEntry("battery level", ("nivel",)),
        GlossaryEntry("is", (), ("es",)),
    ]
    glossary = Glossary(entries, forbidden=("ordenador",))
    always = ("ordenador", "Ordenador", "ORDENADOR")
    assert glossary.of("Batteries, batterybox") == ((), always)
    assert glossary.of("the battery")[0] == (("batería", "^Batería", "baterías", "^Baterías"),)
    assert glossary.of("The  Battery level")[0] == (("nivel", "Nivel"),)
    assert glossary.of("BATTERY")[0] == (("batería", "^Batería", "BATERÍA", "baterías", "^Baterías", "BATERÍAS"),)
    assert glossary.of("battery: battery level is low") == (
        (("nivel", "Nivel"), ("batería", "Batería", "baterías", "Baterías")),
        (*always, "es", "Es", "ES"),
    )


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("हिन्द", "मैं हिन्दी बोलता हूँ", False),  # a vowel sign goes on with the word
        ("न्द", "मैं हिन्दी बोलता हूँ", False),  # and so does what stands before it
        ("हिन्दी", "मैं हिन्दी बोलता हूँ", True),
        ("हिन्दी", "यह हिन्दी।", True),  # a danda is a sign, not a letter
        ("বাং", "বাংলা", False),
        ("தமி", "தமிழ் மொழி", False),
        ("שלו", "שָׁלוֹם", False),
        ("كتاب", "كتاب، قلم", True),
        ("می", "می\u200cروم", False),  # a joiner is inside a word
        ("m", "m̃ here", False),
        ("m", "5 m² here", False),
        ("m", "5 µm here", False),
        ("CO", "CO₂", False),
        ("Wi-Fi", "请打开Wi-Fi设置", True),  # Chinese characters join no word
        ("IT", "本社のIT部門", True),
        ("USB", "USBケーブル", True),
        ("x x", "ax x x", True),  # of overlapping places the whole words
    ],
)
def test_terms_of_the_source_are_whole_words_in_every_script(term, text, found):
    assert bool(Glossary([GlossaryEntry(term, ("y",))]).of(text)[0]) == found


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("of_text", ["NFC", "NFD"])
def test_a_term_is_found_however_its_letters_are_composed(form, of_text):
    for term in ("café", "Ångström", "tiếng Việt", "हिन्दी", "배터리"):
        glossary = Glossary([GlossaryEntry(unicodedata.normalize(form, term), ("y",))])
        assert glossary.of(unicodedata.normalize(of_text, f"one {term} please"))[0][0][0] == "y", term


def test_a_term_without_a_character_is_one_line():
    with pytest.raises(ConfigError, match="' ': a term must not be empty"):
        Glossary([GlossaryEntry(" ", ("y",))])


def test_a_glossary_is_read_from_a_table(tmp_path):
    table = tmp_path / "terms.csv"
    table.write_text('forbidden,source,target\n"pila|pilas",battery,batería|baterías\n,low,\n')
    with pytest.raises(DataError, match=r"terms.csv:3: an entry needs a source, and a target or something forbidden"):
        Glossary.read(table)
    table.write_text('forbidden,source,target\n"pila|pilas",battery,batería|baterías\n')
    required, forbidden = Glossary.read(table).of("a battery")
    assert required == (("batería", "^Batería", "baterías", "^Baterías"),) and "Pilas" in forbidden


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("source\ttarget\n", ": no term in it, only the names of columns"),
        ("source\tsays\nx\ty\n", ":1: no column 'target': the first row of a glossary names its columns"),
        ("battery\tbatería\n", ":1: no column 'source'"),
        (
            "",
            ":1: no column 'source': the first row of a glossary names its columns, source and target; here",
        ),
    ],
)
def test_a_glossary_without_its_columns_is_one_line(tmp_path, capsys, content, said):
    table = tmp_path / "terms.tsv"
    table.write_text(content)
    assert main(["translate", str(tmp_path), "text", "--terms", str(table)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"dragoman: {table}{said}") and err.count("\n") == 1


def test_a_tokenizer_without_bytes_translates_but_cannot_be_held_to_terms():
    foreign = Tokenizer(tokenizers.Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "low": 3}, unk_token="low")))
    assert len(untrained(foreign).translate(["low"], search=Greedy(limit=TIGHT))) == 1
    with pytest.raises((ConfigError, DataError), match="not spelt in bytes"):
        untrained(foreign).translate([Request("low", forbidden=("low",))])
