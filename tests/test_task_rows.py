"""Rows in memory for tasks other than translation: texts, labelled texts, tagged words, instructions."""

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import tiny_tasks

import dragoman
from dragoman.api.task_rows import INSTRUCTIONS, LABELLED, TAGGED, TEXTS, write_task_rows
from dragoman.config import to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.labelled import LabelledLines, read_labelled
from dragoman.text.formats.tagged import TaggedLines, read_tagged
from dragoman.train import recipe

WORDS = tiny_tasks.WORDS
SAID = [f"{a} {b} n{i}" for i, (a, b) in enumerate((a, b) for a in WORDS[:10] for b in WORDS[:6])]
LABELLED_ROWS = [(text, "good" if "the" in text else "bad") for text in SAID]
TAGGED_ROWS = [(text.split(), ["good" if word in WORDS else "bad" for word in text.split()]) for text in SAID]
HELD = {"hold_out": {"test": 6, "valid": 6, "near": None}}


def config(task: str, model: Any, data: dict[str, Any] | None = None) -> dict[str, Any]:
    context = {"context": 32} if task == "language_modelling" else {}
    return {
        "task": {"kind": task} | context,
        "model": model,
        "tokenizer": "bytes",
        "train": tiny_tasks.TRAIN,
        "data": data or {},
    }


WRITER, CLASSES, TAGS = tiny_tasks.WRITER, tiny_tasks.reader("classification"), tiny_tasks.reader("tagging")
RUNS: dict[str, Any] = {
    "texts": ({"texts": iter(SAID)}, config("language_modelling", WRITER)),
    "texts with validation": ({"texts": SAID, "valid": SAID[:9]}, config("language_modelling", WRITER)),
    "labelled": ({"labelled": LABELLED_ROWS}, config("classification", CLASSES, {"kind": "labelled_texts"} | HELD)),
    "labelled with both": (
        {"labelled": LABELLED_ROWS, "valid": LABELLED_ROWS[:9], "test": LABELLED_ROWS[9:20]},
        config("classification", CLASSES, {"kind": "labelled_texts", "overlap": "keep"}),
    ),
    "tagged": ({"tagged": TAGGED_ROWS}, config("tagging", TAGS, {"kind": "tagged_texts"} | HELD)),
    "instructions": (
        {"instructions": [(text, text.upper()) for text in SAID]},
        config("language_modelling", WRITER, {"kind": "instructions", "hold_out": {"valid": 6, "test": 0}}),
    ),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.mark.parametrize("name", RUNS)
def test_a_model_of_each_task_is_trained_from_rows_and_resumes_without_the_program(name, tmp_path):
    rows, given = RUNS[name]
    run = dragoman.train(**rows, config=given, run=tmp_path / "run", steps=2)
    assert run.finished is not None and run.finished.complete
    again = dragoman.resume(run, steps=3)
    assert again.finished is not None and again.finished.step == 3
    dragoman.load(run)
    assert sorted(path.name for path in (tmp_path / "run" / "given").iterdir()) == sorted(
        f"{argument}.jsonl" for argument in rows
    )


@pytest.mark.parametrize(
    ("argument", "rows", "preset"),
    [
        ("pairs", [("a", "b")], "transformer-small"),
        ("texts", SAID, "lm-tiny"),
        ("labelled", LABELLED_ROWS, "classifier-tiny"),
        ("tagged", TAGGED_ROWS, "tagger-small"),
        ("instructions", [("a", "b")], "lm-tiny"),
    ],
)
def test_without_a_config_the_preset_is_that_of_the_rows(argument, rows, preset, tmp_path, monkeypatch):
    seen = []

    def start(cfg, path):
        seen.append(cfg)
        raise ConfigError("far enough")

    monkeypatch.setattr("dragoman.api.training.start", start)
    with pytest.raises(ConfigError, match="far enough"):
        dragoman.train(**{argument: rows}, run=tmp_path / "run", steps=1)
    wanted = recipe.load({"preset": preset, "data": to_dict(seen[0].data)})
    assert (seen[0].model, seen[0].task) == (wanted.model, wanted.task)
    assert not list(tmp_path.iterdir())


# ---- forms of rows ---------------------------------------------------------------------------------------


def written(given, kind, tmp_path, **options):
    write_task_rows(given, kind, kind.argument, tmp_path / "rows.jsonl", **options)
    return [list(json.loads(line).values()) for line in (tmp_path / "rows.jsonl").read_text().split("\n")[:-1]]


def forms(columns: dict[str, list[Any]]) -> dict[str, Any]:
    pandas, polars, pyarrow, datasets = (pytest.importorskip(n) for n in ("pandas", "polars", "pyarrow", "datasets"))
    rows = list(zip(*columns.values(), strict=True))
    return {
        "tuples": rows,
        "lists": [list(row) for row in rows],
        "a generator": (row for row in rows),
        "mappings": [dict(zip(columns, row, strict=True)) for row in rows],
        "a mapping of lists": columns,
        "pandas": pandas.DataFrame(columns | {"id": [7, 8]}),
        "polars": polars.DataFrame(columns | {"id": [7, 8]}),
        "a lazy frame": polars.LazyFrame(columns),
        "pyarrow": pyarrow.table(columns),
        "a data set": datasets.Dataset.from_dict(columns | {"id": [7, 8]}),
        "a stream": datasets.Dataset.from_dict(columns).to_iterable_dataset(),
    }


COLUMNS = {
    TEXTS: {"content": ["a b", "c"]},
    LABELLED: {"review": ["a b", "c"], "sentiment": [1, 0]},
    TAGGED: {"words": [["a", "b"], ["c"]], "ner_tags": [["O", "PER"], ["O"]]},
    INSTRUCTIONS: {"prompt": ["a b", "c"], "response": ["d", "e"]},
}


@pytest.mark.parametrize("kind", COLUMNS, ids=lambda kind: kind.argument)
def test_rows_of_every_form_are_the_same_rows(kind, tmp_path):
    wanted = [list(row) for row in zip(*COLUMNS[kind].values(), strict=True)]
    for name, given in forms(COLUMNS[kind]).items():
        assert written(given, kind, tmp_path) == wanted, name


def test_texts_may_stand_alone(tmp_path):
    pandas = pytest.importorskip("pandas")
    for given in (["a", "b"], iter(["a", "b"]), [("a",), ("b",)], pandas.Series(["a", "b"])):
        assert written(given, TEXTS, tmp_path) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("kind", "columns", "chosen"),
    [
        (TEXTS, {"a": ["x"], "b": ["y"]}, ("b",)),
        (LABELLED, {"t": ["x"], "text": ["y"], "label": ["z"]}, ("t", "label")),
        (TAGGED, {"tokens": [["x"]], "pos_tags": [["A"]], "ner_tags": [["B"]]}, ("tokens", "ner_tags")),
        (INSTRUCTIONS, {"q": ["x"], "a": ["y"], "id": [1]}, ("q", "a")),
    ],
    ids=lambda value: getattr(value, "argument", ""),
)
def test_columns_may_be_named(kind, columns, chosen, tmp_path):
    assert written(columns, kind, tmp_path, columns=chosen) == [[columns[name][0] for name in chosen]]
    assert written([{k: v[0] for k, v in columns.items()}], kind, tmp_path, columns=chosen) == [
        [columns[name][0] for name in chosen]
    ]


@pytest.mark.parametrize("kind", [LABELLED, INSTRUCTIONS], ids=lambda kind: kind.argument)
def test_columns_hold_in_rows_of_every_form(kind, tmp_path):
    wanted = [["x", "y"], ["v", "w"]]
    for name, given in forms({"b": ["y", "w"], "a": ["x", "v"]}).items():
        if name not in ("tuples", "lists", "a generator"):
            assert written(given, kind, tmp_path, columns=("a", "b")) == wanted, name
    rows = [("y", "x", 1), ("w", "v", 2)]
    named = namedtuple("Row", ("b", "a", "c"))
    assert written([named(*row) for row in rows], kind, tmp_path, columns=("a", "b")) == wanted
    assert written(rows, kind, tmp_path, columns=(1, 0)) == wanted
    assert written(map(list, rows), kind, tmp_path, columns=(1, 0)) == wanted


def test_fields_of_named_tuples_tell_as_keys_of_mappings_do(tmp_path):
    turned = namedtuple("Turned", ("label", "number", "text"))
    assert written([turned("y", 1, "x")], LABELLED, tmp_path) == [["x", "y"]]
    assert written([turned("y", 1, "x")], TEXTS, tmp_path) == [["x"]]


@pytest.mark.parametrize(
    ("kind", "row", "columns", "said"),
    [
        (LABELLED, ("a", "b"), ("label", "text"), "labelled: row 1: no column 'label': its entries have no names"),
        (INSTRUCTIONS, ["a", "b"], ("answer", "prompt"), "instructions: row 1: no column 'answer'"),
        (LABELLED, ("a", "b"), (0, 2), "labelled: row 1: no column 2: it has 2 entries, counted from 0"),
        (LABELLED, ("a", "b"), (0, -1), "labelled: row 1: no column -1"),
        (LABELLED, "ab", (0, 1), "labelled: row 1: columns are given, and this has none: it is 'ab' (str)"),
        (TEXTS, "ab", ("body",), "texts: row 1: columns are given, and this has none"),
        (TEXTS, ("ab",), ("body",), "texts: row 1: no column 'body'"),
    ],
)
def test_columns_that_a_row_does_not_have_are_refused(kind, row, columns, said, tmp_path):
    with pytest.raises(DataError) as error:
        written([row], kind, tmp_path, columns=columns)
    assert said in str(error.value)


def test_a_text_is_no_list_of_columns(tmp_path):
    with pytest.raises(ConfigError, match="columns: a list of one name is expected, text, got 'body'"):
        written([{"body": "x"}], TEXTS, tmp_path, columns="body")


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (INSTRUCTIONS, {"instruction": "Translate.", "input": "the cat", "output": "die Katze"}),
        (INSTRUCTIONS, {"prompt": "x", "answer": "a", "response": "b"}),
        (TAGGED, {"tokens": ["x"], "pos_tags": ["A"], "ner_tags": ["B"]}),
        (LABELLED, {"review": "x", "body": "y", "label": "z"}),
        (TEXTS, {"content": "x", "comment": "y"}),
    ],
    ids=lambda value: getattr(value, "argument", ""),
)
def test_nothing_is_left_out_where_two_columns_may_hold_a_field(kind, row, tmp_path):
    for given in ([row], {name: [value] for name, value in row.items()}):
        with pytest.raises(DataError, match=f"{kind.argument}: .*name the columns of .*' and '.*' may be"):
            written(given, kind, tmp_path)


@pytest.mark.parametrize(
    ("kind", "row", "wanted"),
    [
        (INSTRUCTIONS, {"answer": "b", "q": "a"}, ["a", "b"]),
        (LABELLED, {"label": "b", "t": "a"}, ["a", "b"]),
        (LABELLED, {"x": "b", "text": "a"}, ["a", "b"]),
        (LABELLED, {"text": "a", "title": "t", "review": "r", "label": "b"}, ["a", "b"]),
    ],
)
def test_a_column_that_names_its_field_holds_it(kind, row, wanted, tmp_path):
    assert written([row], kind, tmp_path) == [wanted]


def test_classes_of_a_data_set_have_their_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    classes = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    assert written(rows, LABELLED, tmp_path) == [["a", "good"], ["b", "bad"]]
    listed = datasets.Sequence(classes)
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": listed})
    rows = datasets.Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [[1, 0]]}, features=features)
    assert written(rows, TAGGED, tmp_path) == [[["a", "b"], ["good", "bad"]]]


def test_what_is_written_is_what_the_formats_read(tmp_path):
    import numpy

    written([("a", True), ("b", 3), ("c", numpy.int64(4)), ("d", " x ")], LABELLED, tmp_path)
    assert [one.label for one in read_labelled(LabelledLines(path=str(tmp_path / "rows.jsonl")))] == [
        "true",
        "3",
        "4",
        "x",
    ]
    written([(numpy.array(["a", "b"]), numpy.array([1, 2]))], TAGGED, tmp_path)
    assert read_tagged(TaggedLines(path=str(tmp_path / "rows.jsonl")))[0] == (("a", "b"), ("1", "2"))
    written(["one\ntwo\u2028three", "  "], TEXTS, tmp_path)
    (found,) = Texts(files=()).read([str(tmp_path / "rows.jsonl")])
    assert found.text == "one\ntwo\u2028three"


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rows", "said"),
    [
        (TEXTS, ["a", None], "texts: row 2: the text is None: leave out rows without a text"),
        (TEXTS, ["a", float("nan")], "texts: row 2: the text is nan (float): leave out rows without a text"),
        (TEXTS, ["a", 3], "texts: row 2: the text is 3 (int): give texts"),
        (TEXTS, ["a", b"b"], "texts: row 2: the text is b'b' (bytes): give texts"),
        (TEXTS, [("a", "b")], "texts: row 1: the text is ('a', 'b') (tuple): give texts"),
        (TEXTS, ["\ud800"], "texts: row 1: the text: holds"),
        (TEXTS, [], "texts: there are no rows"),
        (TEXTS, iter([]), "texts: there are no rows (an iterator gives its rows only once)"),
        (LABELLED, [("a", "x"), ("b",)], "labelled: row 2: (text, label) is expected, and this has 1 entries"),
        (LABELLED, ["ab"], "labelled: row 1: (text, label) is expected, and this is 'ab' (str)"),
        (LABELLED, [("a", None)], "labelled: row 1: the label is None: leave out rows without a label"),
        (LABELLED, [("a", 0.5)], "the label is 0.5 (float): labels are texts, integers or booleans"),
        (LABELLED, [("a", " ")], "labelled: row 1: the label is empty"),
        (LABELLED, [("a", ["x"])], "the label is ['x'] (list): labels are texts, integers or booleans"),
        (LABELLED, [{"a": 1, "b": 2, "c": 3}], "row 1: name the columns of 'text', 'label': columns=(...); there are"),
        (LABELLED, [{"text": "a", "label": 1}, {"text": "b"}], "labelled: row 2: no 'label' among 'text'"),
        (TAGGED, [("a b", ["x", "y"])], "tagged: row 1: the tokens is 'a b' (str): a list of words is expected"),
        (TAGGED, [(["a"], ["x", "y"])], "row 1: 1 tokens and 2 labels: each word needs its own label"),
        (TAGGED, [(["a", None], ["x", "y"])], "row 1: the tokens, 2 is None: leave out rows without a text"),
        (TAGGED, [(["a", " "], ["x", "y"])], "row 1: the tokens, 2 is an empty word"),
        (TAGGED, [(["a"], [None])], "row 1: the labels, 1 is None: leave out rows without a label"),
        (INSTRUCTIONS, [("a", "b", "c")], "row 1: (source, target) is expected, and this has 3 entries"),
        (INSTRUCTIONS, [("a", 1)], "row 1: the target is 1 (int): give texts"),
    ],
    ids=lambda value: getattr(value, "argument", "-"),
)
def test_a_row_that_does_not_fit_is_named_with_its_type(kind, rows, said, tmp_path):
    with pytest.raises(DataError) as error:
        written(rows, kind, tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["text", {"a", "b"}, 3, b"text", None.__class__])
def test_what_is_no_rows_is_a_type_error(given, tmp_path):
    with pytest.raises(TypeError, match="labelled: an iterable of"):
        written(given, LABELLED, tmp_path)


def test_frames_without_the_columns_name_those_they_have(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": ["a"], "y": [1], "z": [2]})
    with pytest.raises(DataError, match=r"labelled: name the columns of 'text', 'label': columns=.*'x', 'y', 'z'"):
        written(frame, LABELLED, tmp_path)
    with pytest.raises(DataError, match=r"labelled: no column 'w': there are 'x', 'y', 'z'"):
        written(frame, LABELLED, tmp_path, columns=("x", "w"))
    for given in (frame, [{"x": "a"}], [("a", "b")]):
        with pytest.raises(ConfigError, match=r"columns: a list of two different names .* got \('x',\)"):
            written(given, LABELLED, tmp_path, columns=("x",))
    missing = pandas.DataFrame({"text": ["a", None], "label": ["x", "y"]})
    with pytest.raises(DataError, match=r"labelled: row 2: the text is (None|nan \(float\)): leave out"):
        written(missing, LABELLED, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"texts": SAID, "labelled": LABELLED_ROWS}, "texts and labelled: a run has one task: give one of them"),
        ({"pairs": [("a", "b")], "tagged": TAGGED_ROWS}, "pairs and tagged: a run has one task"),
        ({}, "nothing to train on: give pairs, or texts, labelled, tagged, ..., or a config with data"),
        ({"texts": SAID, "test": SAID}, "test: texts have no test set: give it to evaluate when the run has finished"),
        (
            {"pairs": [("a", "b")], "columns": "source"},
            "columns: a list of two different names is expected, source and",
        ),
        ({"labelled": [("a", "b")], "preset": "transformer-tiny"}, "labelled_texts"),
    ],
)
def test_arguments_that_do_not_fit_one_another_are_one_line_and_nothing_is_left(arguments, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        dragoman.train(**arguments, run=tmp_path / "run", steps=1)
    assert said in str(error.value) and not list(tmp_path.iterdir())


def test_files_may_be_given_instead(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(SAID))
    given = config("language_modelling", WRITER)
    run = dragoman.train(texts=[Path(tmp_path / "a.txt")], config=given, run=tmp_path / "run", steps=1)
    assert run.finished is not None and not (run.path / "given").exists()


def test_columns_of_files_may_be_named(tmp_path):
    (tmp_path / "a.csv").write_text(
        "n,review,stars\n" + "".join(f"{i},{t},{s}\n" for i, (t, s) in enumerate(LABELLED_ROWS))
    )
    given, columns = config("classification", CLASSES, {"kind": "labelled_texts"} | HELD), ("review", "stars")
    run = dragoman.train(labelled=tmp_path / "a.csv", columns=columns, config=given, run=tmp_path / "run", steps=1)
    [source] = run.config["data"]["train"]
    assert (source["text"], source["label"]) == columns
    wrong = {"texts": tmp_path / "a.txt", "columns": ("text",)}, {"tagged": tmp_path / "a.conll", "columns": columns}
    for arguments in wrong:
        with pytest.raises(ConfigError, match=r"columns: .*/a\..* is read as it is"):
            dragoman.train(**arguments, run=tmp_path / "other", steps=1)
    with pytest.raises(ConfigError, match="columns: a list of two different names is expected, text and label"):
        dragoman.train(labelled=tmp_path / "a.csv", columns=("review",), run=tmp_path / "other", steps=1)


def test_a_validation_text_that_ends_at_once_has_an_empty_prompt(tmp_path):
    given = config("language_modelling", WRITER)
    given = given | {"train": given["train"] | {"samples": 3}}
    run = dragoman.train(texts=SAID, valid=["a"], config=given, run=tmp_path / "run", steps=1)
    assert run.finished is not None and run.finished.complete
