"""A step that is one compiled program learns what any other does, and is compiled once."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_run
import torch
from torch import Tensor, nn

from dragoman.config import from_dict, merge, to_dict
from dragoman.errors import ConfigError
from dragoman.train.compiling import Compiled, On, Uncompiled, example
from dragoman.train.events import Finished, Notice, Preparing
from dragoman.train.recipe import RunConfig
from dragoman.train.run import resume, start

TASKS = [
    "translation, R-Drop, adapters",
    "language modelling",
    "state spaces",
    "state spaces in both directions",
    "language modelling, linear attention",
    "language modelling, exponential gates",
    "language modelling, minGRU",
    "masked language modelling",
    "tagging",
    "question answering",
    "classification of texts, R-Drop",
    "classification of images",
    "classification of frames",
    "two towers",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What ``compiled.py`` has found, by name."""
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "compiled.py", str(folder)]
    quick = os.environ | {
        "TORCH_FAKE_TENSOR_DISPATCH_CACHE": "0",
        "SYMPY_CACHE_SIZE": "20000",
    }  # the same, traced sooner
    told = subprocess.run(
        command, cwd=Path(__file__).parent, env=quick, capture_output=True, text=True, timeout=500, check=False
    )
    assert told.returncode == 0, told.stderr
    return {row["name"]: row for row in map(json.loads, told.stdout.splitlines())}


@pytest.mark.slow
def test_these_are_all_of_them(found):
    assert found.keys() == {*TASKS, "run"}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_one_program_takes_batches_of_any_size_and_learns_the_same(found, task):
    row = found[task]
    assert (row["graphs"], row["missed"]) == (1, 0)
    assert row["apart"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_what_it_does_not_take_is_computed_without_it_and_counted(found, task):
    row = found[task]
    assert (row["graphs after"], row["missed after"]) == (1, 1)


@pytest.mark.slow
def test_a_run_that_is_compiled_stopped_and_resumed_comes_to_the_same(found):
    row = found["run"]
    assert row["differs"] == []
    assert sum("compiling the model, once" in text for text in row["said"]) == 2, "it begins twice"
    assert not any("program cannot take" in text for text in row["said"])


# ---- what is said -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return start(tiny_run.config(tiny_run.write_pairs(tmp_path / "pairs.tsv"), compile="on"), tmp_path / "run")


def test_ctrl_c_while_compiling_leaves_a_run_that_can_go_on(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Compiled, "compile", interrupted)
    *_, compiles, end = run.events()
    assert compiles == Preparing("compiling the model, once, which may take some minutes")
    assert isinstance(end, Finished) and not end.complete and "--resume" in end.command
    monkeypatch.setattr(On, "build", lambda self, loss, device: Uncompiled(loss))
    *_, end = resume(run.directory.path).events()
    assert end.complete


def test_batches_that_are_not_taken_are_told_ever_less_often(run, monkeypatch):
    class Missing(Uncompiled):
        def __call__(self, model, batch):
            self.missed += 1
            return super().__call__(model, batch)

    monkeypatch.setattr(On, "build", lambda self, loss, device: Missing(loss))
    told = [event.text for event in run.events() if isinstance(event, Notice) and "program cannot take" in event.text]
    assert [text.split("take ")[1].split(" batch")[0] for text in told] == ["2", "4", "8", "16"]


class Few(NamedTuple):
    x: Tensor


def summed(model: nn.Module, batch: Few) -> tuple[Tensor, Tensor]:
    return model(batch.x).sum(), torch.tensor(1.0)


def test_a_compiler_that_fails_is_one_line():
    def missing(graph, inputs):
        raise RuntimeError("no C++ compiler\nis installed")

    compiled = Compiled(summed, missing)
    with pytest.raises(ConfigError, match=r"train\.compile: torch cannot compile .*no C\+\+ compiler.*: use off$"):
        list(compiled.prepare(nn.Linear(3, 2), [Few(torch.ones(2, 3))], nullcontext))


def test_where_all_batches_have_one_row_nothing_is_compiled_and_that_is_said():
    compiled, model = Compiled(summed, "eager"), nn.Linear(3, 2)
    events = list(compiled.prepare(model, [Few(torch.ones(1, 3))], nullcontext))
    assert "single rows" in events[-1].text
    assert compiled(model, Few(torch.ones(5, 3)))[0].isfinite() and compiled.missed == 1


def test_an_example_says_all_that_any_batch_does():
    batches = [(torch.ones(2, 3), None), (torch.ones(1, 3), torch.ones(1)), (torch.ones(4, 3), torch.ones(4))]
    assert example(batches) is batches[2]


MIXTURE = {"kind": "mixture", "experts": 2, "expert": {"kind": "feed_forward", "hidden": 4}}
DYNAMIC = {"kind": "rotary", "scaling": {"kind": "dynamic_ntk_scaling", "trained": 4}}


@pytest.mark.parametrize(
    "part, message",
    [
        (("train", {"recompute": True}), "train.recompute: a compiled program decides by itself"),
        (("train", {"parallel": "sharded"}), "train.parallel: sharded gathers weights"),
        (("mlp", MIXTURE), "model.decoder.pattern.0.mlp: the experts that compute a token depend on the text"),
        (
            ("mixer", {"position": DYNAMIC}),
            "model.decoder.pattern.0.mixer.position.scaling: the rotation of positions depends",
        ),
    ],
    ids=["recompute", "sharded", "mixture", "dynamic"],
)
def test_what_cannot_be_compiled_is_refused_before_anything_is_begun(part, message, tmp_path):
    plain = to_dict(tiny_run.config(tmp_path / "pairs.tsv", compile="on"))
    where = plain["train"] if part[0] == "train" else plain["model"]["decoder"]["pattern"][0]
    where.update(
        part[1] if part[0] == "train" else {part[0]: merge(where[part[0]], part[1]) if part[0] == "mixer" else part[1]}
    )
    with pytest.raises(ConfigError, match=message):
        start(from_dict(RunConfig, plain), tmp_path / "run")
    assert not (tmp_path / "run").exists()
