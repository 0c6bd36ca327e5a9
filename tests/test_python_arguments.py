"""Values that only look like the ones expected: each is refused by the name of its argument."""

import subprocess
import sys

import numpy
import pytest
import torch
from tiny_run import MODEL

from dragoman.config import from_dict
from dragoman.decode.arguments import check_items, check_pair, check_text
from dragoman.decode.request import Request, request_for
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.model.families import ModelConfig
from dragoman.text.context import SentencesBefore
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

WRONG = {
    "None": (None, "got None"),
    "a number": (3, "got int 3"),
    "bytes": (b"one", "decode it first"),
    "a string": ("one", r"for one text \[text\]"),
    "a mapping": ({"one": 1}, "got dict"),
    "a set": ({"one"}, "got set"),
    "a list with None": (["one", None], "entry 2 is None"),
    "a list with a number": ([1.5], "entry 1 is float 1.5"),
    "a list with bytes": ([b"one"], "entry 1 is bytes .decode it first"),
    "a list with a tuple": ([("one", "two")], "entry 1 is tuple"),
    "a list of lists": ([["one"]], "entry 1 is list"),
    "a tensor": (torch.tensor(1), "got Tensor"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_list_of_strings_is_refused_by_name(wrong):
    value, message = WRONG[wrong]
    with pytest.raises(TypeError, match=f"^texts: .*{message}"):
        check_items(value, "texts")


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), iter("ab"), (c for c in "ab"), dict.fromkeys("ab").keys()])
def test_whatever_has_strings_in_an_order_is_a_list_of_them(given):
    if isinstance(given, type({}.keys())):
        with pytest.raises(TypeError):  # a set, whatever order it has
            check_items(given, "texts")
    else:
        assert check_items(given, "texts") == ["a", "b"]


@pytest.mark.parametrize("wrong", [None, 1, "ab", b"ab", ("a",), ("a", None), (1, "b")])
def test_what_is_no_pair_of_strings_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^pairs: .*entry 7"):
        check_pair(wrong, "pairs", 7)
    with pytest.raises(TypeError, match=r"^prompt: a string is expected"):
        check_text(wrong if wrong != "ab" else 5, "prompt")


CALLS = """
import sys, torch
from test_every_command import make, KINDS
from dragoman.decode.generator import Generator
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.readers.tagger import Tagger
from dragoman.decode.request import Request
from dragoman.decode.translator import Translator
from pathlib import Path
folder = Path(sys.argv[1])
for kind, load, methods in [
    ("translation", Translator, ("translate", "stream", "score")),
    ("language_model", Generator, ("generate", "stream")),
    ("classifier", Classifier, ("classify",)),
    ("tagger", Tagger, ("tag",)),
    ("spans", Answerer, ("ask",)),
    ("embedder", Embedder, ("embed",)),
]:
    reader = load.load(make(kind, folder / kind))
    for method in methods:
        for wrong in (None, 3, b"one", [None], [b"one"], [("a", None)], {"one": 1}):
            try:
                for one in getattr(reader, method)(wrong) or ():
                    pass
            except TypeError as error:
                assert "expected" in str(error) or "must hold" in str(error), (method, wrong, error)
            else:
                raise AssertionError((kind, method, wrong))
"""


def test_every_class_that_answers_says_what_it_expects(tmp_path):
    """In a process of its own: here types are checked before any of our code runs."""
    code = (CALLS + ALSO).replace(
        "from test_every_command", f"sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\nfrom test_every_command"
    )
    hook = "import jaxtyping; jaxtyping.config.update('jaxtyping_disable', True)\n"
    done = subprocess.run([sys.executable, "-c", hook + code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ALSO = """
import dragoman
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import ConfigError, DataError
from dragoman.text.lines import Pair, Sourced

def refused(error, said, function, *given, **options):
    try:
        for one in function(*given, **options) or ():
            pass
    except error as found:
        assert said in str(found), (said, found)
    else:
        raise AssertionError((said, given, options))

translator = Translator.load(folder / "translation")
generator = Generator.load(folder / "language_model")
several, one = (generator.generate, ["a"]), (generator.stream, "a")
for function, given in ((translator.translate, ["a"]), (translator.stream, ["a"]), several, one):
    for wrong in ("greedy", 3, Greedy, True):
        refused(TypeError, "search: a search such as Beam(size=4) is expected, got", function, given, search=wrong)
    for wrong, said in (
        (Greedy(), "a list of rules"),
        (["x"], "entry 1 is str 'x'"),
        ("no", "a list of rules"),
        (3, "got int 3"),
    ):
        refused(TypeError, "rules: ", function, given, rules=wrong)
        refused(TypeError, said, function, given, rules=wrong)
for function, given in (several, one):
    for wrong, said in (
        (None, "got None"),
        ([None], "entry 1 is None"),
        (3, "got int 3"),
        ([b"x"], "entry 1 is bytes"),
    ):
        refused(TypeError, "stop: a list of strings is expected", function, given, stop=wrong)
        refused(TypeError, said, function, given, stop=wrong)
    for wrong in (5, None, "ab", [1.5], ["a"], [True], [None]):
        refused(TypeError, "ends: ", function, given, ends=wrong)
refused(TypeError, "seed: a whole number is expected", *one, seed="x")
two = generator.generate, ["a", "b"]
for wrong in ([1], [1, 2, 3], []):
    refused(ConfigError, f"seeds: {len(wrong)} for 2 prompts: give one for each", *two, seeds=wrong)
for wrong in (1, "12", ["1", "2"], [1.5, 2]):
    refused(TypeError, "seeds: ", *two, seeds=wrong)
for wrong in (0, -1):
    refused(ConfigError, "batch_tokens: must be at least 1", *two, batch_tokens=wrong)
refused(TypeError, "batch_tokens: a whole number", *two, batch_tokens=1.5)
for wrong in ("g.tsv", ["a"], {"a": "b"}):
    refused(TypeError, "glossary: a Glossary such as", translator.translate, ["a"], glossary=wrong)
for name, wrong in (
    ("tags", "ab"),
    ("tags", None),
    ("context", "ab"),
    ("forbidden", "ab"),
    ("required", "ab"),
    ("required", ("ab",)),
):
    refused(TypeError, f"texts: {name} of entry 2", translator.translate, ["a", Request("b", **{name: wrong})])
refused(TypeError, "tags: a list of strings is wanted", translator.check_tags, "formal")
half = chr(0xD800)
is_half = "character 1 is \\\\ud800, half of a surrogate pair"
for pair in (("a", half), (half, "a"), ("a", half, "b"), Sourced("a", half, "", "", ()), Pair(half, "a")):
    refused(DataError, "row 2: " + is_half, translator.score, [("a", "b"), pair])
for text in (half, Request("a", prefix=half), Request("a", forbidden=(half,)), Request("a", required=((half,),))):
    refused(DataError, "row 2: " + is_half, translator.translate, ["a", text])
for kind, name, method, given, where in (
    (Classifier, "classifier", "classify", ["a", half], "example 2: "),
    (Embedder, "embedder", "embed", ["a", half], "example 2: "),
    (Tagger, "tagger", "tag", [["a"], ["b", half]], "sentence 2: word 2: "),
    (Answerer, "spans", "ask", [("a", "b"), ("c", half)], "question 2: "),
    (Answerer, "spans", "ask", [("a", "b"), (half, "c")], "question 2: its context: "),
):
    refused(DataError, where + is_half, getattr(kind.load(folder / name), method), given)
refused(DataError, "test: row 2: " + is_half, dragoman.evaluate, folder / "language_model", ["a", half])
for kind, name in ((Translator, "translation"), (Generator, "language_model"), (Classifier, "classifier")):
    for wrong in (None, 1.5):
        refused(TypeError, "device: a name such as cpu or cuda:0 is expected", kind.load, folder / name, device=wrong)
for wrong in (True, False, "On", "yes", 1, None):
    said = "split_sentences: must be 'auto', 'on' or 'off', got"
    refused(ConfigError, said, Translator.load, folder / "translation", split_sentences=wrong)
"""


# ---- line ends -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translator():
    torch.manual_seed(0)
    sides = Tokenizer.train(Bytes(), [])
    model = from_dict(ModelConfig, MODEL).sized(vocab=len(sides)).build().eval()
    return Translator(model, sides, sides)


def test_a_stream_of_no_texts_at_a_time_is_refused(translator):
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match=f"^chunk: must be at least 1, got {wrong}"):
            list(translator.stream(["ab"], chunk=wrong))
    with pytest.raises(TypeError, match="chunk: a whole number is expected"):
        list(translator.stream(["ab"], chunk=1.5))
    assert len(list(translator.stream(["ab", "cd", "ef"], chunk=numpy.int64(2)))) == 3


def test_what_stands_after_a_pair_is_not_scored(translator):
    assert translator.score([("ab", "cd", "ef")]) == translator.score([("ab", "cd")])


@pytest.mark.parametrize("argument", ["beam", "nbest", "batch_tokens", "longest"])
def test_counts_are_whole_numbers_from_1_on(argument, translator):
    for wrong in (2.5, "3", True, [2]):
        with pytest.raises(TypeError, match=f"^{argument}: a whole number is expected, got"):
            translator.translate(["ab"], **{argument: wrong})
        with pytest.raises(TypeError, match=f"^{argument}: a whole number is expected, got"):
            next(translator.stream(["ab"], **{argument: wrong}))
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match=f"^{argument}: must be at least 1, got {wrong}"):
            translator.translate(["ab"], **{argument: wrong})
    assert translator.translate(["ab"], **{argument: numpy.int64(3)}) == translator.translate(["ab"], **{argument: 3})


def texts(translations):
    return [translation.text for translation in translations]


@pytest.mark.parametrize(
    "text", ["ab\ncd", "ab\r\ncd\r\n", "\n\nab\n\n\ncd", "ab\rcd", "\n", "ab\n", " \n ab \n", "ab\r\n\ncd\rab"]
)
@pytest.mark.parametrize("beam", [1, 3])
def test_each_line_of_a_text_is_translated_and_its_end_stays(text, beam, translator):
    [ab, cd] = texts(translator.translate(["ab", "cd"], beam=beam))
    expected = text.replace(" ", "").replace("ab", "<").replace("cd", ">").replace("<", ab).replace(">", cd)
    [found] = translator.translate([text], beam=beam)
    assert found.text == expected and found.source == text and len(found.candidates) == 1


def test_texts_of_one_line_are_as_if_they_stood_alone(translator):
    alone = translator.translate(["ab", "cd"], search=Greedy())
    among = translator.translate(["ab", "x\ny", "cd"], search=Greedy())
    assert texts([among[0], among[2]]) == texts(alone)
    assert [one.row for one in among] == [1, 2, 3]


def test_a_text_of_several_lines_has_the_sum_of_its_lines(translator):
    lines = translator.translate(["ab", "cd"], search=Greedy(), alignments=True)
    [whole] = translator.translate(["ab\ncd"], search=Greedy(), alignments=True)
    best = [line.candidates[0] for line in lines]
    assert whole.candidates[0].log_prob == pytest.approx(sum(c.log_prob for c in best))
    assert whole.candidates[0].tokens == best[0].tokens + best[1].tokens
    assert whole.confidence == min(line.confidence for line in lines)
    assert all(warning.startswith("row 1: ") for warning in whole.warnings)
    words = len(best[0].text.split())
    moved = tuple((s + 1, t + words) for s, t in best[1].alignment)
    assert whole.candidates[0].alignment == best[0].alignment + moved


def test_errors_and_warnings_name_the_row_of_the_text_not_of_its_line(translator):
    with pytest.raises(DataError, match=r"^row 2: character 2"):
        translator.translate(["a\nb\nc", "ab\nc\ud800"])
    found = list(translator.stream(["a\nb", "c\nd", "e"], chunk=2))
    assert [one.row for one in found] == [1, 2, 3]
    assert all(warning.startswith(f"row {one.row}: ") for one in found for warning in one.warnings)


def test_a_prefix_begins_the_first_line_that_says_something(translator):
    [found] = translator.translate([Request("\nab\ncd", prefix="q")])
    assert found.text.startswith("\nq")


def test_lines_before_are_read_as_context(translator, monkeypatch):
    monkeypatch.setattr(translator, "context", SentencesBefore(sentences=1))
    asked = []
    monkeypatch.setattr(
        "dragoman.decode.job.Job.translate_requests", lambda self, some, _: asked.extend(some) or [() for _ in some]
    )
    monkeypatch.setattr("dragoman.decode.job.Job.assemble", lambda self, row, *_: translation(row))
    translator.translate(["ab\ncd\nef"])
    assert [(one.text, one.context) for one in asked] == [("ab", ()), ("cd", ("ab",)), ("ef", ("cd",))]


def translation(row):
    from dragoman.decode.translation import Candidate, Translation

    return Translation(row, "", (Candidate("", 0.0, 0.0, (), (), truncated=False),))


def test_a_test_set_is_translated_line_by_line():
    assert request_for(Pair("one\ntwo", "x")).text == "one two"
