"""Sentences before a sentence: those of its document and no others, the same in training and in use."""

import json
import os

import numpy as np
import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

from dragoman import cli
from dragoman.config import dump_yaml, merge, to_dict
from dragoman.data.batch import Batches, collate
from dragoman.data.noise import WordNoise
from dragoman.data.pretraining import CorruptedRows
from dragoman.decode.documents.document import translate_document
from dragoman.decode.request import Request
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.translation import Candidate, Translation
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.clean import Cleaning, clean, normalise
from dragoman.text.context import NO_CONTEXT, SEPARATOR, SentencesBefore
from dragoman.text.corpus import ParallelCorpus, source_rows
from dragoman.text.filled.opening import open_document
from dragoman.text.formats.pairs import JsonLines, Keyed, Parquet, Table, TextFiles
from dragoman.text.held_out import held_out_line, read_held_out
from dragoman.text.lines import Pair, Sourced
from dragoman.text.tokens.tokenizer import EOS, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bytes
from dragoman.train.run import start

MARKED = Tokenizer.train(Bytes(), [], [tag_mark("bt"), SEPARATOR[0]])
SEP = MARKED.mark(*SEPARATOR)
SENTENCE = st.text("ab \u00a0\t", min_size=1, max_size=6).filter(normalise)
DOCUMENTS = st.lists(st.lists(SENTENCE, min_size=1, max_size=5), max_size=5)


def ids(text):
    return MARKED.encode(text)


# ---- what stands before ------------------------------------------------------------------------------


@given(documents=DOCUMENTS, sentences=st.integers(0, 3), characters=st.integers(1, 12))
def test_what_is_read_before_a_line_is_of_its_document_and_next_to_it(documents, sentences, characters):
    lines = [line for document in documents for line in (*document, " \u00a0")]
    found = list(SentencesBefore(sentences=sentences, characters=characters).in_lines(lines))
    assert [line for line, _ in found] == lines
    rest = iter(found)
    for document in documents:
        for i, (_, before) in zip(range(len(document)), rest, strict=False):
            earlier = tuple(map(normalise, document[:i]))
            assert before == earlier[len(earlier) - len(before) :]
            assert len(before) <= sentences and sum(map(len, before)) <= characters
            more = earlier[: len(earlier) - len(before)]
            assert len(before) == sentences or not more or sum(map(len, before)) + len(more[-1]) > characters
        next(rest)


TWO = [[("one", "eins"), ("two", "zwei"), ("three", "drei")], [("four", "vier"), ("five", "fünf")]]
BEFORE = [(), ("one",), ("one", "two"), (), ("four",)]


def text_files(folder):
    for side, name in enumerate(("a.en", "a.de")):
        (folder / name).write_text("\n \n".join("\n".join(pair[side] for pair in document) for document in TWO))
    return TextFiles(source=str(folder / "a.en"), target=str(folder / "a.de"))


def table(folder):
    rows = "\n\n".join("\n".join("\t".join(pair) for pair in document) for document in TWO)
    (folder / "a.tsv").write_text(rows)
    return Table(path=str(folder / "a.tsv"))


def table_with_a_column(folder):
    rows = [",".join([name, *pair]) for name, document in zip("xy", TWO, strict=True) for pair in document]
    (folder / "a.csv").write_text("\n".join(["doc,source,target", *rows]))
    return Table(path=str(folder / "a.csv"), source="source", target="target", document="doc")


def records():
    return [{"doc": i, "source": s, "target": t} for i, document in enumerate(TWO) for s, t in document]


def json_lines(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps({"meta": row} | row) + "\n" for row in records()))
    return JsonLines(path=str(folder / "a.jsonl"), document="meta.doc")


def parquet(folder):
    import pyarrow as arrow
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist(records()), folder / "a.parquet")
    return Parquet(path=str(folder / "a.parquet"), document="doc")


def keyed(folder):
    for name, document in zip("xy", TWO, strict=True):
        for side, language in enumerate(("en", "de")):
            path = folder / name / f"{language}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({str(i): pair[side] for i, pair in enumerate(document)}))
    return Keyed(root=str(folder), source="*/en.json", target="*/de.json")


@pytest.mark.parametrize("write", [text_files, table, table_with_a_column, json_lines, parquet, keyed])
def test_every_format_tells_where_a_document_ends(write, tmp_path):
    found = list(SentencesBefore(sentences=2).in_pairs(write(tmp_path)))
    assert [before for _, before in found] == BEFORE
    assert [pair for pair, _ in found] == [Pair(*pair) for document in TWO for pair in document]


def test_rows_without_their_document_are_refused_with_their_place(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: no key 'doc' among 'source', 'target'"):
        list(SentencesBefore().in_pairs(JsonLines(path=str(tmp_path / "a.jsonl"), document="doc")))
    (tmp_path / "a.tsv").write_text("a\tb\n")
    with pytest.raises(DataError, match=r"a\.tsv:1: no column 'doc' in the header"):
        list(SentencesBefore().in_pairs(Table(path=str(tmp_path / "a.tsv"), document="doc")))


# ---- cleaning ----------------------------------------------------------------------------------------


def with_context(*pairs):
    window = SentencesBefore(sentences=1).in_lines(source for source, _ in pairs)
    return [Sourced(*pair, "x", "", before) for pair, (_, before) in zip(pairs, window, strict=True)]


def test_neighbours_are_those_of_the_file_whatever_is_removed():
    pairs = with_context(("Hello", "Hello"), ("Good-bye", "Auf Wiedersehen"), ("", ""), ("Well", "Nun"))
    kept = list(clean(pairs, Cleaning(max_deviations=9.0)))  # which lays the text aside on the disk
    assert kept == [Sourced("Good-bye", "Auf Wiedersehen", "x", "", ("Hello",)), Sourced("Well", "Nun", "x")]


def test_a_pair_is_a_duplicate_where_the_same_was_read_before_it():
    pairs = with_context(("a", "A"), ("it", "es"), ("a", "A"), ("it", "es"), ("b", "B"), ("it", "es"))
    kept = [(pair.context, pair.source) for pair in clean(pairs, Cleaning(copies="keep"))]
    assert kept == [((), "a"), (("a",), "it"), (("it",), "a"), (("it",), "b"), (("b",), "it")]


def test_what_is_held_out_keeps_its_context(tmp_path):
    pairs = with_context(("a", "A"), ("it", "es"))
    (tmp_path / "valid.jsonl").write_text("".join(map(held_out_line, pairs)))
    assert read_held_out(tmp_path / "valid.jsonl") == [pair._replace(origin="") for pair in pairs]


# ---- ids ---------------------------------------------------------------------------------------------


@given(before=st.lists(SENTENCE.map(normalise), max_size=4), text=SENTENCE.map(normalise), longest=st.integers(8, 30))
def test_whole_sentences_are_read_before_a_text_as_many_as_fit(before, text, longest):
    (row,) = source_rows(MARKED, [Sourced(text, "", "", "bt", tuple(before))], longest)
    own = [*ids(text), EOS]
    assert row[0] == MARKED.tag("bt") and row[-len(own) :] == own and len(row) <= longest
    read = row[1 : -len(own)]
    texts = [MARKED.decode(some) for some in np.split(read, np.flatnonzero(np.array(read) == SEP) + 1)[:-1]]
    assert texts == before[len(before) - len(texts) :]
    rest = before[: len(before) - len(texts)]
    assert not rest or len(row) + len(ids(rest[-1])) + 1 > longest


def test_without_sentences_before_the_batches_are_those_without_context_to_the_bit(tmp_path):
    source = table_with_a_column(tmp_path)

    def corpus(name, context):
        pairs = [Sourced(*pair, "x", "bt", before) for pair, before in context.in_pairs(source)]
        return ParallelCorpus.build(tmp_path / name, pairs, MARKED, MARKED)

    def batches(corpus):
        plan = Batches(corpus.lengths, 20, seed=1)
        rows = [some for step in range(2 * plan.steps_per_epoch) for some in plan.at(step)]
        return [[side.tolist() for side in collate(corpus, some)] for some in rows]

    none, zero = corpus("none", NO_CONTEXT), corpus("zero", SentencesBefore(sentences=0))
    assert len(batches(none)) > 2 and batches(zero) == batches(none)
    two = corpus("two", SentencesBefore(sentences=2))
    first = [i for i, before in enumerate(BEFORE) if not before]
    assert [two[i][0].tolist() for i in first] == [none[i][0].tolist() for i in first]
    assert two[2][0].tolist() == [MARKED.tag("bt"), *ids("one"), SEP, *ids("two"), SEP, *ids("three"), EOS]


def test_noise_leaves_each_sentence_in_its_place(tmp_path):
    pairs = [Sourced("one two three", "b", "x", "bt", ("four five six", "seven eight"))]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, MARKED, MARKED)
    noise = WordNoise(blank=0.0, distance=9, drop=0.0)
    noisy = noise.batch(corpus, CorruptedRows(np.array([0]), 3), 1, MARKED).source[0].tolist()
    plain = corpus[0][0].tolist()
    assert noisy != plain and noisy[0] == plain[0] == MARKED.tag("bt")

    def sentences(row):
        return [sorted(some) for some in np.split(row[1:], np.flatnonzero(np.array(row[1:]) == SEP))]

    assert [list(some) for some in sentences(noisy)] == [list(some) for some in sentences(plain)]


# ---- a run whose answers depend on the sentence before ------------------------------------------------

NOUNS = ["dog", "cat", "cow", "hen", "fox", "owl"]


def lines(words):
    return "".join(f"{word}\t{word.upper()}\nit\t{word.upper()}\n\n" for word in words)


def learnt(folder, context):
    (folder / "train.tsv").write_text(lines(NOUNS * 20))
    (folder / "test.tsv").write_text(lines(NOUNS))
    given = {"kind": "table", "path": str(folder / "test.tsv")}
    block = {"mixer": {"heads": 4}, "mlp": {"hidden": 64}, "dropout": 0.0}
    towers = {
        tower: {"pattern": [merge(one, block) for one in tiny_run.MODEL[tower]["pattern"]]}
        for tower in ("encoder", "decoder")
    }
    model = merge(tiny_run.MODEL, {"dim": 32, "dropout": 0.0} | towers)
    plain = merge(
        to_dict(tiny_run.config(folder / "train.tsv")),
        {
            "data": {"context": context, "cleaning": {"copies": "keep", "duplicates": "keep"}}
            | {"valid": given, "test": given, "overlap": "keep", "hold_out": {"valid": 0, "test": 0}},
            "tokenizer": {"kind": "words", "vocab": 259 + 13},
            "model": model,
            "task": {"kind": "translation", "label_smoothing": 0.0},
            "train": {"budget": {"kind": "steps", "steps": 70}, "validate_every": 70, "save_every": 70}
            | {"schedule": {"kind": "constant", "peak": 1e-2}, "batch_tokens": 200, "accumulate": 1, "average": None},
        },
    )
    fsync, os.fsync = os.fsync, lambda handle: None
    try:
        list(start(tiny_run.recipe.load(plain), folder / "run").events())
    finally:
        os.fsync = fsync
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return learnt(tmp_path_factory.mktemp("context"), {"kind": "sentences_before", "sentences": 1})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return learnt(tmp_path_factory.mktemp("alone"), "no_context")


def exact(run, *options, capsys):
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--beam", "1", "--metric", "exact_match", *options]) == 0
    name = "test" if not options or options[0].startswith("-") else os.path.basename(options[0]).partition(".")[0]
    return json.loads((run / "evaluations" / name / "scores.json").read_text())["scores"]["exact_match"]["value"]


def test_what_the_sentence_before_tells_is_learnt_with_it_and_cannot_be_without(run, alone, capsys):
    other = run.parent / "other.tsv"
    other.write_text(lines(reversed(NOUNS)))
    assert exact(run, capsys=capsys) == exact(run, str(other), capsys=capsys) == 100
    assert exact(alone, capsys=capsys) <= 50 + 100 / 12 + 0.1  # every noun, and one "it" by chance
    assert exact(run, "--context", "0", capsys=capsys) <= 50 + 100 / 12 + 0.1
    kept = run / "data" / "valid.jsonl"
    assert exact(run, str(kept), capsys=capsys) == 100, "what was held out brings its context"


def test_a_file_is_translated_with_its_context_line_for_line(run, tmp_path, capsys):
    text = ["dog", "it", "", "it", "", "fox", "  ", "owl", "it", ""]
    (tmp_path / "a.txt").write_text("\n".join(text) + "\n")
    command = ["translate", str(run), str(tmp_path / "a.txt"), "--beam", "1"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out.split("\n")[:-1]
    assert len(said) == len(text)
    assert said[:3] == ["DOG", "DOG", ""] and said[4:] == ["", "FOX", "", "OWL", "OWL", ""]
    assert cli.main([*command, "--context", "0"]) == 0
    without = capsys.readouterr().out.split("\n")[:-1]
    assert without[1] == without[3] == without[8] == said[3], "as where a document begins"
    assert cli.main([*command, "--prefix-column"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == said


def test_more_context_than_was_learnt_is_refused(run, alone, capsys):
    assert cli.main(["translate", str(run), "it", "--context", "2"]) == 2
    err = capsys.readouterr().err
    assert err == ("dragoman: context: 2 sentences asked for, but this run was trained with 1: ask for 0 to 1\n")
    assert cli.main(["translate", str(alone), "it", "--context", "1"]) == 2
    assert capsys.readouterr().err.startswith("dragoman: context: 1 sentences asked for, but this run was trained")
    assert cli.main(["translate", str(alone), "dog", "--context", "0"]) == 0
    with pytest.raises(ConfigError, match="was trained without context"):
        Translator.load(alone).translate([Request("it", context=("dog",))])


def test_texts_are_by_themselves_and_lines_of_a_document_are_not(run):
    translator = Translator.load(run)
    text = ["dog", "it", "", "cat", "it"]
    document = translator.translate(list(translator.document(text)), beam=1)
    assert [answer.text for answer in document] == ["DOG", "DOG", "", "CAT", "CAT"]
    by_itself = translator.translate(text, beam=1)
    assert by_itself[1].text == by_itself[4].text
    for request, answer in zip(translator.document(text), document, strict=True):
        if not request.text:
            continue
        assert translator.translate([request], beam=1)[0].candidates == answer.candidates
        scored = translator.score([request.pair._replace(target=answer.text)])[0]
        assert scored.log_prob == pytest.approx(answer.candidates[0].log_prob, abs=1e-4)
    further = Request("it", context=("owl", "hen", " ", "dog\u00a0"))
    assert translator.translate([further], beam=1)[0].text == "DOG", "as much of it as was learnt to be read"


def test_a_part_of_a_long_text_has_those_before_it_as_its_context(run):
    translator = Translator.load(run)
    job = translator._job(Greedy(), (), "growing", 4, batch_tokens=100)
    text = Request("aa. bb. cc.", context=("z",))
    parts = job.part_requests(text, job.parts(text, 1), 1)
    assert [(one.text, one.context) for one in parts] == [("aa.", ("z",)), ("bb.", ("aa.",)), ("cc.", ("bb.",))]


def test_words_are_aligned_with_those_of_the_sentence_itself(run):
    translator = Translator.load(run)
    (answer,) = translator.translate([Request("it", context=("dog",))], beam=1, alignments=True)
    assert answer.text == "DOG" and answer.candidates[0].alignment == ((0, 0),)


def test_verify_and_distil_read_the_context(run, tmp_path, capsys):
    assert cli.main(["verify", str(run), "--sentences", "4", "--beam", "1"]) == 0
    (tmp_path / "a.txt").write_text("dog\nit\n\nfox\nit\n")
    out = tmp_path / "made.tsv"
    assert cli.main(["augment", "distill", str(run), str(tmp_path / "a.txt"), "-o", str(out), "--beam", "1"]) == 0
    assert out.read_text().splitlines() == ["dog\tDOG", "it\tDOG", "fox\tFOX", "it\tFOX"]


def test_entries_of_a_document_are_read_with_those_before_them(tmp_path):
    (tmp_path / "a.po").write_text('msgid "one"\nmsgstr "eins"\n\nmsgid "two"\nmsgstr ""\n\nmsgid "three"\nmsgstr ""\n')
    asked = []

    def ask(questions, _):
        asked.extend(questions)
        return [
            Translation(1, one.text, (Candidate(one.text.upper(), 0.0, 0.0, (), (), truncated=False),))
            for one in questions
        ]

    done = translate_document(open_document(str(tmp_path / "a.po")), ask, context=SentencesBefore(sentences=2))
    assert [(one.text, one.context) for one in asked] == [("two", ("one",)), ("three", ("one", "two"))]
    assert b'msgstr "THREE"' in done.content


def test_half_of_a_surrogate_pair_before_a_text_is_refused_with_its_row(run):
    with pytest.raises(DataError, match="row 2: character 2 is"):
        Translator.load(run).translate(["dog", Request("it", context=("a\ud800",))])


def test_a_text_without_documents_is_refused_before_it_is_learnt(tmp_path, capsys):
    plain = to_dict(tiny_run.config(tmp_path / "p.tsv"))
    (tmp_path / "p.tsv").write_text("".join(f"n{i}\tm{i}\n\n" for i in range(40)))
    plain["data"]["context"] = "sentences_before"
    (tmp_path / "run.yaml").write_text(dump_yaml(plain))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "new")]) == 2
    assert "dragoman: data.context: no pair has a sentence before it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_begins_with_one_without_the_separator_is_refused(alone, tmp_path, capsys):
    (tmp_path / "p.tsv").write_text("".join(f"{a}{b}\tx{b}{a}\n" for a in "abcdef" for b in "klmnop"))
    data = {
        "train": [{"kind": "table", "path": str(tmp_path / "p.tsv")}],
        "hold_out": {"test": 0, "valid": 5, "near": None},
        "context": "sentences_before",
    }
    (tmp_path / "run.yaml").write_text(dump_yaml({"start_from": {"run": str(alone)}, "data": data}))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "new")]) == 2
    assert "data.context.tokenizer: has no ⟨sep⟩" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
