"""The library in a few names: training from rows of any kind, models by task, results as values, nothing printed."""

import inspect
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from test_every_command import make

import dragoman
from dragoman import capabilities
from dragoman.api.models import LoadedModel
from dragoman.api.rows import check_file_columns, pair_rows
from dragoman.api.run import TASKS
from dragoman.config import to_dict
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.sample import Sample
from dragoman.errors import CheckpointError, ConfigError, DataError, StoppedEarly
from dragoman.evaluate.evaluation import ALL_METRICS
from dragoman.text.lines import Pair
from dragoman.train import events, planner, prediction
from dragoman.train.memory import OutOfMemory

WORDS = ["sun", "moon", "star", "tree", "river", "stone", "bird", "fish", "wolf", "bear"]
PAIRS = [(f"{a} {b} {c}", f"{c} {b} {a}".upper()) for a in WORDS for b in WORDS for c in WORDS[:3]]

SEEN: list[Any] = []
"""Events of the first run."""


def configuration(**train: Any) -> dict[str, Any]:
    """Return a run file of a model of some thousand parameters."""
    made = to_dict(tiny_run.config(Path("none.tsv"), **train))
    hold_out = {"test": 5, "valid": 60, "near": None}
    return {name: made[name] for name in ("tokenizer", "model", "train")} | {
        "data": {"hold_out": hold_out, "train": []}
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dragoman.Run:
    return dragoman.train(
        PAIRS, config=configuration(), run=tmp_path_factory.mktemp("api") / "run", on_event=SEEN.append
    )


@pytest.fixture(scope="module")
def translator(run) -> dragoman.Translator:
    return run.translator()


# ---- names ----------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pydantic', 'jinja2'}"
    code = f"import sys, dragoman; dir(dragoman); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", dragoman.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(dragoman, name)
    assert name in dir(dragoman)
    assert name == "__version__" or (inspect.getdoc(value) and callable(value))


def test_train_and_evaluate_are_functions_and_packages_in_whatever_order_they_are_imported():
    code = """
import inspect, os, torch
for first in "", "import dragoman.train.run", "import dragoman.evaluate.metrics", "import dragoman.api":
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, first
        continue
    exec(first)
    from dragoman import train, evaluate
    import dragoman.train.loop, dragoman.evaluate.metrics
    assert callable(train) and callable(evaluate) and dragoman.train is train
    assert "pairs" in inspect.signature(train).parameters and dragoman.train.loop.train_step
    os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'tranlsator'"):
        dragoman.tranlsator  # noqa: B018  # pyright: ignore


def test_every_kind_of_model_has_a_task_and_a_method_of_its_run():
    kinds = [value for value in vars(capabilities).values() if isinstance(value, capabilities.Ability)]
    assert kinds and set(TASKS) == set(kinds)
    for loaded in LoadedModel.__args__:
        method = getattr(dragoman.Run, loaded.__name__.lower())
        assert inspect.signature(method).return_annotation == loaded.__name__


# ---- rows -----------------------------------------------------------------------------------------------

TWO = [Pair("a", "b"), Pair("c", "d")]
TWO_TUPLES = [tuple(pair) for pair in TWO]


def tables() -> dict[str, Any]:
    pandas, polars, pyarrow, datasets = (pytest.importorskip(n) for n in ("pandas", "polars", "pyarrow", "datasets"))
    columns = {"en": ["a", "c"], "es": ["b", "d"]}
    nested = {"translation": [{"en": "a", "es": "b"}, {"en": "c", "es": "d"}]}
    return {
        "tuples": [("a", "b"), ("c", "d")],
        "lists": (["a", "b"], ["c", "d"]),
        "pairs": TWO,
        "an iterator": iter([("a", "b"), ("c", "d")]),
        "a generator": (pair for pair in TWO),
        "mappings": [{"source": "a", "target": "b", "id": 3}, {"source": "c", "target": "d", "id": 4}],
        "a mapping of lists": columns,
        "pandas": pandas.DataFrame(columns | {"id": [1, 2]}),
        "pandas with an index": pandas.DataFrame(columns, index=[7, 3]),
        "polars": polars.DataFrame(columns),
        "a lazy frame": polars.LazyFrame(columns),
        "pyarrow": pyarrow.table(columns),
        "a data set": datasets.Dataset.from_dict(columns),
        "a data set of translations": datasets.Dataset.from_dict(nested),
        "a stream": datasets.Dataset.from_dict(columns).to_iterable_dataset(),
        "numpy": np.array([["a", "b"], ["c", "d"]]).tolist(),
    }


@pytest.mark.filterwarnings("ignore")
def test_rows_of_every_kind_are_the_same_pairs():
    for name, given in tables().items():
        assert list(pair_rows(given, "pairs")) == TWO, name


@pytest.mark.filterwarnings("ignore")
def test_columns_may_be_named_and_turned_round():
    found = tables()
    for name in (
        "a mapping of lists",
        "pandas",
        "polars",
        "a lazy frame",
        "pyarrow",
        "a data set",
        "a data set of translations",
    ):
        turned = list(pair_rows(found[name], "pairs", ("es", "en")))
        assert turned == [Pair("b", "a"), Pair("d", "c")], name
    rows = [{"x": "a", "y": "b", "z": 1}]
    assert list(pair_rows(rows, "pairs", ("y", "x"))) == [Pair("b", "a")]


def test_columns_hold_in_rows_of_every_form():
    pandas, turned = pytest.importorskip("pandas"), [Pair("b", "a"), Pair("d", "c")]
    frame = pandas.DataFrame({"en": ["a", "c"], "es": ["b", "d"], "note": ["x", "y"]})
    with sqlite3.connect(":memory:") as base:
        base.row_factory = sqlite3.Row
        by_name: dict[str, Any] = {
            "mappings": frame.to_dict("records"),
            "named tuples": frame.itertuples(index=False),
            "named tuples with an index": frame.itertuples(),
            "rows of a data base": base.execute("select 'a' as en, 'b' as es union all select 'c', 'd'"),
        }
        for name, given in by_name.items():
            assert list(pair_rows(given, "pairs", ("es", "en"))) == turned, name
    base.close()
    for rows in (frame.itertuples(index=False, name=None), frame.to_numpy().tolist()):
        assert list(pair_rows(rows, "pairs", (1, 0))) == turned
    for rows in (TWO_TUPLES, [list(row) for row in TWO_TUPLES]):
        with pytest.raises(DataError, match="pairs: row 1: no column 'es': its entries have no names, so give indices"):
            list(pair_rows(rows, "pairs", ("es", "en")))
    with pytest.raises(DataError, match="pairs: row 1: no column 2: it has 2 entries"):
        list(pair_rows(TWO_TUPLES, "pairs", (0, 2)))


def test_fields_of_named_tuples_tell_the_sides_as_keys_of_mappings_do():
    turned = namedtuple("Turned", ("target", "source"))
    assert list(pair_rows([turned("b", "a"), turned("d", "c")], "pairs")) == TWO
    assert list(pair_rows([Pair("a", "b")], "pairs")) == TWO[:1]


def test_columns_of_a_file_are_names_or_indices(tmp_path):
    (tmp_path / "a.tsv").write_text("b\ta\n" * 3)
    assert check_file_columns((1, 0), ("source", "target")) == ("1", "0")
    for wrong, said in (("en", "a list of two different names"), ((1, 1), "different"), ((None, 1), "got None")):
        with pytest.raises(ConfigError, match=f"columns: .*{said}"):
            dragoman.train(tmp_path / "a.tsv", columns=wrong, run=tmp_path / "run", steps=1)


@pytest.mark.parametrize(
    "names",
    [
        ("tgt", "src"),
        ("Target", "Source"),
        ("output", "input"),
        ("id", "tgt", "src"),
        ("reference", "en"),
        ("es", "original"),
        ("target", "x"),
    ],
)
def test_sides_are_told_by_their_names_in_rows_as_in_tables(names):
    sides = {"tgt": "b", "target": "b", "output": "b", "reference": "b", "es": "b", "id": "7"}
    row = {name: sides.get(name.casefold(), "a") for name in names}
    pandas = pytest.importorskip("pandas")
    for given in ([row], pandas.DataFrame([row]), {name: [text] for name, text in row.items()}):
        assert list(pair_rows(given, "pairs")) == [Pair("a", "b")]


def bad_tables() -> dict[str, tuple[Any, Any, str]]:
    pandas, polars, datasets = (pytest.importorskip(n) for n in ("pandas", "polars", "datasets"))
    three = {"a": ["x"], "b": ["y"], "c": ["z"]}
    return {
        "NaN in pandas": (
            pandas.DataFrame({"en": ["a", None], "es": ["b", "c"]}),
            None,
            "row 2: the source is .*leave out",
        ),
        "NA in pandas": (
            pandas.DataFrame({"en": ["a", pandas.NA], "es": ["b", "c"]}),
            None,
            "row 2: the source is .*leave",
        ),
        "numbers in pandas": (pandas.DataFrame({"en": [1], "es": ["b"]}), None, r"row 1: the source is .*1.*int"),
        "a null in polars": (
            polars.DataFrame({"en": ["a", "b"], "es": ["b", None]}),
            None,
            "row 2: the target is None",
        ),
        "no such column": (pandas.DataFrame(three), ("a", "q"), "no column 'q': there are 'a', 'b', 'c'"),
        "columns of one name": (
            pandas.DataFrame([["a", "b"]], columns=["en", "en"]),
            None,
            "2 columns are named 'en'",
        ),
        "unclear columns": (polars.DataFrame(three), None, "name the columns of source and target"),
        "several data sets": (
            datasets.DatasetDict({"train": datasets.Dataset.from_dict(three)}),
            None,
            "choose one of 'train'",
        ),
        "no rows in pandas": (pandas.DataFrame({"en": [], "es": []}), None, "there are no rows"),
        "columns of different length": ({"en": ["a"], "es": []}, None, "'en' has 1 and 'es' has 0 rows"),
        "a column that is a text": ({"en": "abc", "es": "abc"}, None, "column 'en' must be a list of texts"),
    }


@pytest.mark.filterwarnings("ignore")
def test_tables_of_the_wrong_form_are_refused_by_row_or_column():
    for name, (given, columns, said) in bad_tables().items():
        with pytest.raises(DataError, match=said):
            list(pair_rows(given, "pairs", columns))
            raise AssertionError(name)


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "None": ([("a", "b"), ("c", None)], r"pairs: row 2: the target is None: leave out rows without a text"),
    "NaN": ([("a", float("nan"))], r"row 1: the target is nan \(float\): leave out"),
    "a number": ([("a", "b"), ("c", "d"), (3, "x")], r"row 3: the source is 3 \(int\): give texts"),
    "bytes": ([(b"a", "b")], r"row 1: the source is b'a' \(bytes\)"),
    "three entries": ([("a", "b", "c")], "row 1: a pair .* has 3 entries"),
    "one entry": ([("a",)], "row 1: a pair .* has 1 entries"),
    "a row that is None": ([("a", "b"), None], "row 2: a pair .* this is None"),
    "a row that is a number": ([7], r"row 1: a pair .* this is 7 \(int\)"),
    "a key that is missing": ([{"source": "a", "target": "b"}, {"source": "a", "x": "b"}], "row 2: "),
    "many keys": ([{"a": "x", "b": "y", "c": "z"}], "row 1: name the columns"),
    "half of a pair": ([("a", "\ud800")], "row 1: the target: holds .ud800"),
    "a NUL": ([("a\0", "b")], "row 1: the source: holds .u0000"),
    "nothing": ([], "there are no rows: give"),
    "an iterator that ended": (iter([]), "an iterator gives its rows only once"),
}


@pytest.mark.parametrize(("given", "said"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_rows_of_the_wrong_form_are_refused_by_number_and_type(given, said):
    with pytest.raises(DataError, match=said):
        list(pair_rows(given, "pairs"))


@pytest.mark.parametrize("given", [3, "text", b"x", {("a", "b")}, object(), 1.5])
def test_what_is_no_rows_is_a_type_error(given):
    with pytest.raises(TypeError, match="an iterable of pairs"):
        list(pair_rows(given, "pairs"))


# ---- training -------------------------------------------------------------------------------------------


def test_a_run_is_trained_from_rows_and_can_be_resumed_without_the_program(run):
    assert run.finished.complete and run.task == "translation"
    assert json.loads((run.path / "given" / "pairs.jsonl").read_text().splitlines()[0]) == dict(
        zip(("source", "target"), PAIRS[0], strict=True)
    )
    again = dragoman.resume(run, steps=13)
    assert again == run and again.checkpoints[-1] == "step-000013"


def test_a_program_may_change_on_purpose_what_a_step_does(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run", symlinks=True)
    changed = {"steps": 14, "overrides": {"train.clip": 0.5}}
    with pytest.raises(CheckpointError, match="deliberate=True"):
        dragoman.resume(tmp_path / "run", **changed)
    again = dragoman.resume(tmp_path / "run", **changed, deliberate=True)
    assert again.config["train"]["clip"] == 0.5 and again.checkpoints[-1] == "step-000014"


def test_a_program_resumes_a_run_that_memory_is_predicted_not_to_suffice_for(run, tmp_path, monkeypatch):
    shutil.copytree(run.path, tmp_path / "run", symlinks=True)
    monkeypatch.setattr(planner, "predict_run", prediction.predict_run)
    monkeypatch.setattr(prediction, "available_on", lambda device: 1000)
    with pytest.raises(OutOfMemory, match="this run needs"):
        dragoman.resume(tmp_path / "run", steps=14)
    assert dragoman.resume(tmp_path / "run", steps=14, force=True).checkpoints[-1] == "step-000014"


def test_the_same_rows_in_a_file_give_the_same_weights(run, tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    found = dragoman.train([tmp_path / "pairs.tsv"], config=configuration(), run=tmp_path / "file")
    names = "last/model.safetensors", "checkpoints/step-000012/model.safetensors"
    assert (found.path / names[0]).read_bytes() == (run.path / names[1]).read_bytes()


def test_settings_are_given_as_a_mapping_or_as_texts(tmp_path):
    overrides = {
        "train.seed": 5,
        "model.decoder.depth": 2,
        "train.schedule": {"kind": "cosine", "peak": 0.01, "warmup": 1},
    }
    found = dragoman.train(PAIRS, config=configuration(), overrides=overrides, steps=2, run=tmp_path / "a")
    assert found.config["train"]["seed"] == 5 and found.config["model"]["decoder"]["depth"] == 2
    assert found.config["train"]["budget"] == {"kind": "steps", "steps": 2}
    texts = ["train.seed=5", "train.budget.steps=1"]
    assert (
        dragoman.train(PAIRS, config=configuration(), overrides=texts, run=tmp_path / "b").config["train"]["seed"] == 5
    )


def test_values_of_other_libraries_are_plain_settings(run, monkeypatch):
    seen = []

    def start(cfg, path):
        seen.append(cfg)
        raise ConfigError("far enough")

    monkeypatch.setattr("dragoman.api.training.start", start)
    plain = {"train.seed": 3, "train.clip": 0.5, "start_from": {"run": str(run.path)}}
    theirs = {"train.seed": np.int64(3), "train.clip": np.float32(0.5), "start_from": {"run": run}}
    made = [configuration() | {"start_from": {"run": where}} for where in (str(run.path), run, run.path)]
    for given, overrides, steps in (
        (configuration(), plain, 2),
        (configuration(), theirs, np.int64(2)),
        *((some, {"train.seed": torch.tensor(3), "train.clip": 0.5}, 2) for some in made),
    ):
        given["train"] |= {"clip": np.float32(0.25)}
        for rows in (PAIRS, None):
            files = {"train": [{"kind": "json_lines", "path": run.path / "given" / "pairs.jsonl"}]}
            more = given if rows else given | {"data": given["data"] | files}
            with pytest.raises(ConfigError, match="far enough"):
                dragoman.train(rows, config=more, overrides=overrides, steps=steps, run=run.path.parent / "new")
    for part in ("train", "start_from"):
        assert all(getattr(cfg, part) == getattr(seen[0], part) for cfg in seen)


def test_a_setting_that_no_run_file_can_hold_is_named_by_its_path(tmp_path):
    made = configuration()
    for overrides, config, path in (
        ({"train.seed": {1}}, made, "train.seed"),
        ({"train": {"schedule": {"peak": b"1"}}}, made, "train.schedule.peak"),
        ({}, made | {"train": made["train"] | {"betas": [0.9, {1}]}}, "train.betas.1"),
    ):
        with pytest.raises(ConfigError, match=rf"^{path}: a text, a number, a list or a mapping is expected, got"):
            dragoman.train(PAIRS, config=config, overrides=overrides, steps=1, run=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"stop": True}, {"stop": threading.Event}, {"on_event": 3}])
def test_what_is_called_during_a_run_is_checked_before_it(wrong, run, tmp_path):
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))}: a .* is expected, got"):
        dragoman.train(PAIRS, config=configuration(), run=tmp_path / "r", **wrong)
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))}: a .* is expected, got"):
        dragoman.resume(run, steps=99, **wrong)
    assert not list(tmp_path.iterdir())


def test_given_validation_and_test_rows_are_used(tmp_path):
    found = dragoman.train(
        PAIRS[20:], valid=PAIRS[:9], test=PAIRS[9:20], config=configuration(), steps=1, run=tmp_path / "r"
    )
    assert sorted(path.name for path in (found.path / "given").iterdir()) == [
        "pairs.jsonl",
        "test.jsonl",
        "valid.jsonl",
    ]
    assert len(dragoman.evaluate(found, save=False).outputs) == 11


def test_events_are_dataclasses_in_order(run):
    kinds = [type(event) for event in SEEN]
    assert kinds.index(events.Preparing) < kinds.index(events.Started) < kinds.index(events.StepsReported)
    assert kinds[-1] is events.Finished and events.Validated in kinds and events.Saved in kinds


def test_nothing_is_printed(tmp_path):
    code = (
        "import sys, json\nfrom dragoman import train, evaluate, verify, calibrate\n"
        "pairs, config, path = json.loads(sys.argv[1])\nrun = train(pairs, config=config, run=path, steps=2)\n"
        "run.translator().translate(['sun'])\nevaluate(run, beam=1)\ncalibrate(run, beam=1)\n"
        "verify(run, sentences=2, beam=1)\n"
    )
    given = json.dumps([PAIRS, configuration(), str(tmp_path / "r")], default=str)
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_thread_stops_a_run_that_then_goes_on_to_the_same_weights(run, tmp_path):
    stop, halfway = threading.Event(), threading.Event()

    def watch(event: events.Event) -> None:
        if isinstance(event, events.StepsReported) and event.step >= 4:
            halfway.set()
            stop.wait(20)

    found: list[dragoman.Run] = []
    thread = threading.Thread(
        target=lambda: found.append(
            dragoman.train(PAIRS, config=configuration(), run=tmp_path / "a", on_event=watch, stop=stop)
        )
    )
    thread.start()
    assert halfway.wait(60)
    stop.set()
    thread.join(60)
    assert found[0].finished and not found[0].finished.complete
    assert "stopped by the program, all is saved" in found[0].finished.reason
    assert found[0].checkpoints[-1] < "step-000012"
    resumed = dragoman.resume(found[0])
    weights = [(each.path / "checkpoints/step-000012/model.safetensors").read_bytes() for each in (resumed, run)]
    assert resumed.finished.complete and weights[0] == weights[1]


def test_a_stop_before_the_first_step_leaves_nothing_or_a_run_that_goes_on(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedEarly, match="stopped before the first step"):
        dragoman.train(PAIRS, config=configuration(), run=tmp_path / "r", stop=stop)
    assert not (tmp_path / "r").exists() and not any(tmp_path.iterdir())


def test_an_error_in_a_callback_leaves_a_run_that_can_be_resumed(tmp_path):
    def fail(event: events.Event) -> None:
        if isinstance(event, events.Saved):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        dragoman.train(PAIRS, config=configuration(), run=tmp_path / "r", on_event=fail)
    assert dragoman.resume(tmp_path / "r").finished.complete


def broken_half_way() -> Iterator[tuple[str, Any]]:
    yield from PAIRS[:50]
    yield "a", None


def test_nothing_is_left_where_nothing_can_be_trained(tmp_path):
    with pytest.raises(DataError, match="row 51: the target is None"):
        dragoman.train(broken_half_way(), config=configuration(), run=tmp_path / "r")
    with pytest.raises(ConfigError, match="no 'modell' here"):
        dragoman.train(PAIRS, config=configuration() | {"modell": {}}, run=tmp_path / "r")
    with pytest.raises(DataError, match="too few"):
        dragoman.train(PAIRS[:3], config=configuration(), run=tmp_path / "r")
    with pytest.raises(ZeroDivisionError):
        dragoman.train((1 / 0 for _ in "x"), config=configuration(), run=tmp_path / "r")
    assert not any(tmp_path.iterdir())


BAD_SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, ConfigError, "nothing to train on"),
    "two budgets": ({"pairs": PAIRS, "minutes": 1, "steps": 1}, ConfigError, "minutes and steps: give one"),
    "no minutes": ({"pairs": PAIRS, "minutes": 0}, ConfigError, "minutes: a number above 0"),
    "minutes in words": ({"pairs": PAIRS, "minutes": "ten"}, ConfigError, "minutes: a number above 0"),
    "no such preset": ({"pairs": PAIRS, "preset": "transformer-smal"}, ConfigError, "transformer-small"),
    "a path that is missing": ({"pairs": "absent.tsv"}, DataError, "absent.tsv: no such file"),
    "no such override": ({"pairs": PAIRS, "overrides": {"train.sed": 1}}, ConfigError, "seed"),
    "two validation sets": ({"pairs": PAIRS, "valid": ["a.po", "b.po"]}, ConfigError, "valid: one file .* are 2 files"),
    "one override": ({"pairs": PAIRS, "overrides": "train.seed=1"}, ConfigError, "a list of settings"),
    "a number": ({"pairs": 7}, TypeError, "an iterable of pairs"),
}


@pytest.mark.parametrize(("given", "kind", "said"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_of_the_wrong_form_are_refused(given, kind, said, tmp_path):
    with pytest.raises(kind, match=said):
        dragoman.train(**given, run=tmp_path / "r")
    assert not any(tmp_path.iterdir())


def test_a_run_is_never_overwritten(run, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="there is a run here already"):
        dragoman.train(PAIRS, config=configuration(), run=run.path)
    monkeypatch.chdir(tmp_path)
    found = [dragoman.train(PAIRS, config=configuration(), steps=1).path for _ in range(2)]
    assert list(map(str, found)) == ["runs/run", "runs/run-2"]


# ---- results --------------------------------------------------------------------------------------------


def test_load_gives_the_class_of_the_task(run):
    assert type(dragoman.load(run)) is type(dragoman.load(run.path, "last")) is dragoman.Translator
    with pytest.raises(CheckpointError, match="no such run directory"):
        dragoman.load("absent")
    with pytest.raises(ConfigError, match="a path or a Run is expected"):
        dragoman.load(3)  # pyright: ignore


def test_candidates_and_alignments_are_as_many_as_wanted(translator):
    found = translator.translate(["sun moon", "bear"], nbest=3, alignments=True)
    assert all(len(each.candidates) == 3 and each.candidates[0].alignment is not None for each in found)
    assert found[0].candidates[0].text == translator.translate(["sun moon"])[0].text
    with pytest.raises(ConfigError, match="nbest: 3 candidates are wanted"):
        translator.translate(["sun"], nbest=3, search=Sample(samples=2))


def test_evaluation_returns_scores_and_stores_them_only_where_asked(run, tmp_path):
    own = dragoman.evaluate(run, beam=1)
    assert set(own.scores) >= {"bleu", "chrf"} and len(own.outputs) == 5
    assert (run.path / "evaluations" / "test" / "scores.json").exists()
    given = dragoman.evaluate(run, PAIRS[:7], beam=1)
    assert len(given.outputs) == 7 and [path.name for path in (run.path / "evaluations").iterdir()] == ["test"]
    dragoman.evaluate(run, PAIRS[:7], beam=1, name="mine")
    assert (run.path / "evaluations" / "mine" / "scores.json").exists()
    with pytest.raises(DataError, match="row 2: the target is None"):
        dragoman.evaluate(run, [("a", "b"), ("c", None)])


@pytest.mark.parametrize("name", ["", "..", "../../zz", "a/b", "/tmp/zz"])
def test_results_are_stored_in_a_folder_of_the_run(name, run, monkeypatch):
    monkeypatch.setattr("dragoman.api.results.Translator.load", lambda *_, **__: pytest.fail("it is refused before"))
    with pytest.raises(ConfigError, match="name: must be the name of one folder"):
        dragoman.evaluate(run, PAIRS[:7], name=name)


def test_one_text_is_no_list_of_metrics_or_tags(run):
    for name in ("metrics", "tags"):
        with pytest.raises(TypeError, match=f"{name}: a list of .* is wanted"):
            dragoman.evaluate(run, PAIRS[:7], beam=1, **{name: "bleu"})


def test_results_survive_pickling(run):
    found = dragoman.evaluate(run, PAIRS[:7], beam=1, metrics=list(ALL_METRICS), save=False)
    again = pickle.loads(pickle.dumps(found))
    assert again.scores == found.scores and again.outputs == found.outputs


@pytest.mark.parametrize("argument", ["sentences", "beam", "batch", "max_new_tokens"])
def test_a_verification_of_nothing_is_refused(argument, run):
    with pytest.raises(ConfigError, match=f"{argument}: must be at least 1, got 0"):
        dragoman.verify(run, **{argument: 0})
    with pytest.raises(TypeError, match=f"{argument}: a whole number is expected"):
        dragoman.verify(run, **{argument: "3"})


def test_calibration_and_verification_return_their_figures(run):
    assert 0 <= dragoman.calibrate(run, PAIRS[:60], beam=1).good <= 1
    found = dragoman.verify(run, sentences=1, beam=1)
    assert found.passed and not found.failures and "hold" in repr(found)


def test_runs_are_exported_and_imported_as_values(tmp_path):
    post = {f"model.{side}.pattern.*.placement": "post" for side in ("encoder", "decoder")}
    run = dragoman.train(PAIRS, config=configuration(), overrides=post, steps=2, run=tmp_path / "run")
    with pytest.raises(ConfigError, match="to: no 'hugginface'"):
        dragoman.export(run, "hugginface", tmp_path / "x")  # pyright: ignore
    with pytest.raises(ConfigError, match="quantization: is for ctranslate2"):
        dragoman.export(run, "onnx", tmp_path / "x", quantization="int8")
    made = dragoman.export(run, "huggingface", tmp_path / "out", check=False)
    assert "config.json" in made.files and not made.compared
    again = dragoman.import_checkpoint(made.folder, tmp_path / "again")
    texts = ["sun moon star", "bear"]
    ours, theirs = (each.translator().translate(texts, beam=1) for each in (run, again))
    assert [t.text for t in ours] == [t.text for t in theirs]


def test_inner_states_are_arrays_with_the_shapes_of_their_tokens(run):
    (found,) = dragoman.encoder_states(run, ["sun moon"])
    assert found.states.shape == (len(found.tokens), 8) and found.states.dtype == np.float32
    seen = dragoman.attention_weights(run, "sun moon", "MOON SUN")
    t, s = len(seen.tokens), len(seen.source_tokens)
    assert [layer.shape for layer in seen.cross] == [(2, t, s)] and seen.alignment.shape == (t, s)
    assert [layer.shape for layer in seen.encoder] == [(2, s, s)] and [layer.shape for layer in seen.decoder] == [
        (2, t, t)
    ]
    for layers in (seen.cross, seen.encoder, seen.decoder):
        np.testing.assert_allclose(layers[0].sum(axis=-1), 1, rtol=1e-5)


# ---- shells, notebooks, processes, threads --------------------------------------------------------------

ATTACK = "<script>alert('x')</script> & \"quotes\""


def test_representations_are_short_and_escape_what_they_show(run, translator):
    found = translator.translate([ATTACK, "sun " * 300])
    for each in (run, translator, *found, found[0].candidates[0]):
        assert len(repr(each)) < 300 and type(each).__name__ in repr(each)
    for page in (found[0]._repr_html_(), run._repr_html_()):
        assert "<script" not in page and page.count("<table>") == 1
    assert "&lt;script&gt;" in found[0]._repr_html_()


def test_a_translator_survives_pickling(translator):
    again = pickle.loads(pickle.dumps(translator))
    texts = ["sun moon star", "bear wolf", ""]
    assert again.translate(texts) == translator.translate(texts)


@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_a_translator_works_in_other_processes(run, way, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(run.path), way], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


PROGRAM = """
import multiprocessing, sys
from dragoman import Translator

TEXTS = ["sun moon star", "bear wolf", "fish"]

def translated(translator):
    return [each.text for each in translator.translate(TEXTS)]

if __name__ == "__main__":
    translator = Translator.load(sys.argv[1])
    here = translated(translator)
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        assert pool.map(translated, [translator, translator]) == [here, here]
"""


def test_a_beam_and_a_search_are_refused_together(translator):
    for ask in (translator.translate, lambda texts, **options: list(translator.stream(texts, **options))):
        with pytest.raises(ConfigError, match="beam: search is given"):
            ask(["a"], beam=2, search=Beam(size=4))


def test_threads_share_a_model(translator):
    texts = [[" ".join(WORDS[i : i + n + 1]) for n in range(4)] for i in range(8)]
    options: list[dict[str, Any]] = [{}, {"beam": 1}, {"nbest": 3}, {"alignments": True}]
    alone = [translator.translate(each, **options[i % 4]) for i, each in enumerate(texts)]
    found: dict[int, list[Any]] = {}
    ready = threading.Barrier(8)

    def work(i: int) -> None:
        ready.wait()
        found[i] = [translator.translate(texts[i], **options[i % 4]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == [alone[i]] * 3 for i in range(8))


CHOICES = {"multiple_choice": True}
ROWS_OF_ANOTHER_TASK = {
    "a label that the model does not have": (
        "classifier",
        [("red", "nolabel")],
        {},
        DataError,
        "test: row 1 has the label 'nolabel'",
    ),
    "rows for a tagger": ("tagger", [("red", "x")], {}, ConfigError, "test: a file is expected"),
    "questions for a translator": ("translation", [("a", "b")], CHOICES, ConfigError, "is for language models, and"),
    "no questions": ("language_model", 3, CHOICES, ConfigError, "multiple choice needs questions"),
    "one question alone": ("language_model", {"prompt": "a"}, CHOICES, ConfigError, "multiple choice needs questions"),
    "a beam for a language model": ("language_model", ["a"], {"beam": 2}, ConfigError, "beam: is for translators"),
    "metrics for a tagger": ("tagger", None, {"metrics": ["bleu"]}, ConfigError, "metrics: is for translators"),
    "a number among questions": ("language_model", [3], CHOICES, DataError, "test: row 1: a JSON object with prompt"),
}


@pytest.mark.parametrize("case", ROWS_OF_ANOTHER_TASK)
def test_rows_that_a_model_cannot_be_tested_on_are_named(case, tmp_path):
    kind, rows, options, error, said = ROWS_OF_ANOTHER_TASK[case]
    with pytest.raises(error, match=said):
        dragoman.evaluate(make(kind, tmp_path / "run"), rows, **options)


def test_a_classifier_is_tested_on_the_rows_that_it_could_be_trained_on(tmp_path):
    run = make("classifier", tmp_path / "run")
    labels = dragoman.load(run).labels
    rows = [("red house", labels[0]), ("a dog", f" {labels[1]} "), ("  ", labels[0])]
    wanted = dragoman.evaluate(run, rows)
    assert len(wanted.outputs) == 2
    for given in (
        [{"label": label, "review": text, "title": "x"} for text, label in rows],
        {"sentiment": [label for _, label in rows], "content": [text for text, _ in rows]},
    ):
        assert dragoman.evaluate(run, given).scores == wanted.scores
    named = [{"t": text, "l": label, "x": 1} for text, label in rows]
    assert dragoman.evaluate(run, named, columns=("t", "l")).scores == wanted.scores
    for bad, said in (([("a", 3)], "test: row 1 has the label '3'"), ([("a", None)], "test: row 1: the label is None")):
        with pytest.raises(DataError, match=said):
            dragoman.evaluate(run, bad)
    with pytest.raises(DataError, match="test: row 1: the target is None"):
        dragoman.evaluate(make("translation", tmp_path / "translator"), [("a", None)])


def test_one_text_is_no_list_of_texts(tmp_path):
    with pytest.raises(TypeError, match="texts: a list of texts is wanted"):
        dragoman.encoder_states(make("translation", tmp_path / "run"), "abc")


def test_a_setting_that_is_no_text_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"overrides: PATH=VALUE is expected.* got 3"):
        dragoman.train([("a", "b")] * 5, run=tmp_path / "run", overrides=[3])
