"""Whoever asks again gets the same answer: every command, in one process and in two, however the model is run.

Dropout stands wherever it can, so that a part left in training mode shows.
"""

import copy
import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from explore import same_answer
from PIL import Image
from test_every_command import BYTES, KINDS, plain
from variants import VARIANTS, build

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import from_dict
from dragoman.decode import precision
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.verify.checks import run_checks
from dragoman.decode.verify.opening import open_run
from dragoman.model.dropout import Dropout
from dragoman.model.families import ModelConfig
from dragoman.model.lora import Lora
from dragoman.native import library as native

CACHES = ["growing", "preallocated", "paged:3+float8", "bfloat16", "int4", "window:8:2"]
"""Each layout and each storage that there is; what they share is not asked again."""
WRITERS = [
    "translate RUN lines.txt --beam 1 --format json",
    "translate RUN lines.txt --beam 3 --scores",
    "translate RUN lines.txt --sample 2 --seed 1",
    "translate RUN lines.txt --precision int8",
    "translate RUN lines.txt --precision bfloat16 --cache growing",
    *(f"translate RUN lines.txt --beam 2 --format json --cache {cache}" for cache in CACHES),
    "score RUN lines.tsv --format json",
]
GENERATES = [f"generate RUN ab --max-new-tokens 3 --seed 1 --format json --cache {cache}" for cache in CACHES]
ARRAYS = ["classify RUN NAME.npy --format json", "embed RUN NAME.npy"]
ASKED = {
    "translation": WRITERS,
    "denoising": ["translate RUN lines.txt --format json", "translate RUN lines.txt --cache growing --format json"],
    "language_model": GENERATES,
    "masked": ["embed RUN lines.txt"],
    "classifier": ["classify RUN lines.txt --format json", "embed RUN lines.txt"],
    "images": [command.replace("NAME", "images") for command in ARRAYS],
    "frames": [command.replace("NAME", "frames") for command in ARRAYS],
    "tagger": ["tag RUN lines.txt --format json", "embed RUN lines.txt"],
    "spans": ["answer RUN questions.jsonl", "embed RUN lines.txt"],
    "embedder": ["embed RUN lines.txt"],
    "towers": ["embed RUN lines.txt", "embed RUN lines.txt --tower second"],
    "captioner": ["generate RUN ab --image image.png --max-new-tokens 3 --seed 1 --format json"],
    "captions": ["embed RUN images.npy", "embed RUN lines.txt --tower second"],
}
COMMANDS = [(kind, command) for kind, commands in ASKED.items() for command in commands]


def make(kind: str, path: Path) -> None:
    """A run of this kind whose weights are large and random, with dropout 0.3 everywhere."""
    content = plain(kind)
    content["model"] = dropped(content["model"])
    torch.manual_seed(0)
    model = from_dict(ModelConfig, content["model"]).build()
    assert any(module.rate for module in model.modules() if isinstance(module, Dropout))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    run = RunDirectory.create(path, content)
    run.write_tokenizers(BYTES, BYTES)
    run.save(1, tensors={"model": model.state_dict()}, progress={"step": 1}, config=content, best=True)
    run.close()


def dropped(value):
    """The same configuration with 0.3 for every dropout."""
    if isinstance(value, list):
        return [dropped(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: 0.3 if "dropout" in name else dropped(part) for name, part in value.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    (folder / "lines.txt").write_text("a\ndog\n")  # short: these models write on to the limit
    (folder / "lines.tsv").write_text("ab\tb\ncd\td\n")
    (folder / "questions.jsonl").write_text(json.dumps({"context": "a red dog", "question": "who?"}) + "\n")
    draw = np.random.default_rng(0)
    np.save(folder / "images.npy", draw.integers(0, 255, (3, 4, 4, 3), dtype=np.uint8))
    Image.fromarray(np.load(folder / "images.npy")[0]).save(folder / "image.png")
    np.save(folder / "frames.npy", draw.standard_normal((3, 5, 3), dtype=np.float32))
    for kind in KINDS:
        make(kind, folder / kind)
    return folder


def told(folder: Path) -> dict[str, str]:
    """The answer to each command."""
    found, before = {}, Path.cwd()
    os.chdir(folder)
    try:
        for kind, command in COMMANDS:
            out = io.StringIO()
            with redirect_stdout(out), in_float32():
                assert main(command.replace("RUN", kind).split()) == 0, command
            assert out.getvalue().strip(), command
            found[f"{kind}: {command}"] = out.getvalue()
    finally:
        os.chdir(before)
    return found


@contextmanager
def in_float32():
    """Whatever this machine multiplies faster, and whatever was measured before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "cached_choice", lambda name, measure: "float32")
        yield


def unlike(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return [command for command in first | second if not same_answer(first[command], second[command])]


@pytest.fixture(params=["with kernels", "without kernels"])
def kernels(request, monkeypatch):
    if request.param == "without kernels":
        monkeypatch.setattr(precision, "unavailable", lambda: "switched off")
        monkeypatch.setenv(native.SWITCH, "off")
    return request.param


@pytest.mark.slow
def test_a_command_that_is_asked_again_says_the_same_in_this_process_and_in_another(kernels, folder):
    once = told(folder)
    assert unlike(told(folder), once) == []
    program = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest"
    program += (
        f"; import test_asked_twice as t; from pathlib import Path; print(json.dumps(t.told(Path({str(folder)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert unlike(json.loads(done.stdout.splitlines()[-1]), once) == []


def test_every_kind_of_run_is_asked():
    assert ASKED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", ["translation", "language_model", "classifier", "towers"])
def test_verify_holds_with_dropout_everywhere(kind, kernels, folder):
    searched = {"beam": 1} if kind in ("translation", "language_model") else {}
    opened = open_run(folder / kind, text=folder / "lines.txt", examples=2, device="cpu", batch=2, **searched)
    checks = [check for one in opened for check in run_checks(one.verifier)]
    assert {check.name for check in checks} >= {"repeated", "run in float32"}
    assert [check for check in checks if not check.passed] == []


# ---- the mechanism ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number_format", ["float32", "bfloat16", "int8"])
def test_whatever_is_made_ready_is_in_evaluation_mode_where_it_was_in_its_numbers(number_format, kernels):
    dtype = torch.bfloat16 if number_format == "bfloat16" and kernels == "without kernels" else torch.float32
    for name in VARIANTS:
        trained = copy.deepcopy(build(name)).float().train()
        ready = prepare_for_inference(trained, "cpu", number_format)
        assert [name for name, module in ready.named_modules() if module.training] == [], name
        kept = [p for name, p in ready.named_parameters() if p.is_floating_point()]
        assert {p.dtype for p in kept} == {dtype}, name
        assert {t.device.type for t in (*kept, *ready.buffers())} == {"cpu"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_training_mode_is_made_ready_without_dropout(kind, kernels):
    model = from_dict(ModelConfig, dropped(plain(kind)["model"])).build().train()
    ready = prepare_for_inference(model, "cpu")
    assert [name for name, module in ready.named_modules() if module.training] == []


def test_a_reader_around_a_model_that_learns_reads_without_dropout_and_leaves_it_learning():
    content = plain("classifier") | {"data": {"longest": 32}}
    model = from_dict(ModelConfig, dropped(content["model"])).build().train()
    reader = Classifier(model, BYTES, content)
    assert reader.classify(["the red dog"]) == reader.classify(["the red dog"])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_is_in_the_mode_of_the_layer_that_it_stands_around(training):
    model = copy.deepcopy(build("plain")).train(training)
    Lora(rank=2, dropout=0.3, targets=("*",)).adapt(model)
    assert {module.training for module in model.modules()} == {training}


# ---- what is measured -------------------------------------------------------------------------------


def test_a_measured_choice_is_the_same_in_every_process_until_the_machine_is_another(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert native.cached_choice("precision", lambda: "bfloat16") == "bfloat16"
    assert native.cached_choice("precision", lambda: "float32") == "bfloat16"  # as on a machine that is busy now
    assert native.cached_choice("another", lambda: "float32") == "float32"
    monkeypatch.setattr(native, "_processor", lambda: b"another one")
    assert native.cached_choice("precision", lambda: "float32") == "float32"


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_damaged_file_of_choices_is_measured_and_written_anew(content, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dragoman").mkdir()
    (tmp_path / "dragoman" / native.CHOICES).write_text(content)
    assert native.cached_choice("precision", lambda: "bfloat16") == "bfloat16"
    assert native.cached_choice("precision", lambda: "float32") == "bfloat16"


def test_where_no_choice_can_be_kept_each_process_measures(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert native.cached_choice("precision", lambda: "bfloat16") == "bfloat16"
    assert native.cached_choice("precision", lambda: "float32") == "float32"
