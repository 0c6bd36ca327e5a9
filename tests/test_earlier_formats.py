"""Runs and run files that earlier versions wrote: they open, go on and answer as ever.

``fixtures/format-2`` was written by the version before configurations took the field's names: a translator, and
low-rank adapters that began with it.
"""

import shutil
from pathlib import Path

import pytest
from tiny_run import MODEL

from dragoman import migrations
from dragoman.checkpoint import RunDirectory, load_model
from dragoman.config import load_yaml
from dragoman.decode.translator import Translator
from dragoman.train import recipe
from dragoman.train.run import resume

FIXTURES = Path(__file__).parent / "fixtures" / "format-2"


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["translation", "adapters"])
def test_a_run_of_format_2_is_what_is_called_so(runs, name):
    assert "kind: data" in (runs / name / "config.yaml").read_text()
    assert RunDirectory.open(name).checkpoints()[-1].manifest()["format"] == 2


@pytest.mark.parametrize("name", ["translation", "adapters"])
def test_a_run_of_format_2_translates(runs, name):
    model, *_ = load_model(name)
    assert model.cfg.suppressed == (5,)
    assert Translator.load(name, precision="float32").translate(["the red house"])[0].text


@pytest.mark.parametrize("name", ["translation", "adapters"])
def test_a_run_of_format_2_goes_on_and_is_then_written_as_today(runs, name):
    for _ in resume(name, overrides=["train.budget.steps=10"]).events():
        pass
    assert RunDirectory.open(name).checkpoints()[-1].manifest()["format"] == migrations.FORMAT
    config = load_yaml(runs / name / "config.yaml")
    assert config["data"]["kind"] == "pairs" and "init" not in config and "silent" not in config["model"]
    assert "decay" not in config["train"]["optimizer"] and config["train"]["optimizer"]["weight_decay"] == 0.1


def test_a_run_file_in_the_earlier_words_is_the_run_it_was(runs):
    table = [{"kind": "table", "path": "corpus.tsv"}]
    earlier = {
        "data": {"kind": "data", "train": table},
        "init": {"kind": "init", "run": "translation"},
        "model": {"silent": [5]},
    }
    today = {
        "data": {"kind": "pairs", "train": table},
        "start_from": {"run": "translation"},
        "model": {"suppressed": [5]},
    }
    assert recipe.load(earlier) == recipe.load(today)
    assert recipe.load({"data": {"train": table}, "model": MODEL}, ["model.silent=[7]"]).model.suppressed == (7,)


@pytest.mark.parametrize(
    "earlier",
    [
        ["train.optimizer={kind: muon, decay: 0.2, others: {decay: 0.3}}"],
        ["train.optimizer={kind: muon}", "train.optimizer.decay=0.2", "train.optimizer.others.decay=0.3"],
    ],
)
def test_weight_decay_may_be_called_decay_as_it_was(earlier):
    given = {"data": {"train": [{"kind": "table", "path": "corpus.tsv"}]}, "model": MODEL}
    optimizer = recipe.load(given, earlier).train.optimizer
    assert (optimizer.weight_decay, optimizer.others.weight_decay) == (0.2, 0.3)
