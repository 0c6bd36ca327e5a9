"""Runs of recurrent models: every command takes them or refuses in one line, and a resumed run equals an uninterrupted
one."""

import dataclasses
import json
import os

import pytest
import tiny_run
import torch
from tiny_run import outcome
from tiny_tasks import run_files, write_texts

from dragoman.checkpoint import RunDirectory, load_model
from dragoman.cli import main
from dragoman.config import dump_yaml, from_dict, merge
from dragoman.errors import ConfigError
from dragoman.model.families import ModelConfig
from dragoman.model.lora import Adapted
from dragoman.text.tokens.training import Bpe
from dragoman.train import recipe
from dragoman.train.events import Saved
from dragoman.train.run import resume, start

SHORT = ("--max-new-tokens", "9")

STACK = {"cell": "lstm", "depth": 2, "dropout": 0.2}
MODEL = {
    "kind": "recurrent",
    "dim": 8,
    "encoder": STACK | {"direction": "bidirectional_layers", "dropout_mask": "variational"},
    "decoder": STACK,
    "attention": "luong",
    "bridge": "project_outputs",
    "dropout": 0.1,
}
WRITER = {"kind": "recurrent", "dim": 8, "decoder": STACK | {"cell": "gru"}}
TOWER = {"kind": "recurrent_stack", "cell": "lstm", "depth": 1, "direction": "bidirectional_layers"}


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


def config(pairs, change=None, **train):
    cfg = tiny_run.config(pairs, **train)
    return dataclasses.replace(cfg, model=from_dict(ModelConfig, merge(MODEL, change or {})))


def finished(cfg, path):
    for _ in start(cfg, path).events():
        pass
    return path


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    return finished(config(pairs), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    write_texts(path)
    return path


def asked(capsys, *arguments) -> str:
    """What a command prints that succeeds."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, *arguments) -> str:
    """The one line of a command that is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"attention": "bahdanau"}], ids=["luong", "bahdanau"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(pairs, run, tmp_path, change):
    cfg = config(pairs, change)
    whole = finished(cfg, tmp_path / "whole") if change else run
    events = start(cfg, tmp_path / "run").events()
    assert any(isinstance(event, Saved) for event in events)
    events.close()
    for _ in resume(tmp_path / "run").events():
        pass
    assert outcome(tmp_path / "run") == outcome(whole)


def test_recomputing_learns_the_same(pairs, run, tmp_path):
    other = finished(config(pairs, recompute=True), tmp_path / "run")
    ours, theirs = (RunDirectory.open(path).load("last").tensors["model"] for path in (run, other))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-5)


def test_layers_nearer_to_the_input_learn_slower(pairs):
    cfg = config(pairs, rates={"kind": "layerwise", "decay": 0.5})
    model = dataclasses.replace(cfg.model, vocab=20).build()
    shares = cfg.train.rates.shares(model)
    assert shares[model.embed.tokens.weight] == 0.25
    for blocks in (model.encoder.blocks, model.decoder.blocks):
        assert [{shares[p] for p in block.parameters()} for block in blocks] == [{0.5}, {1.0}]


def test_a_compiled_program_is_refused_by_its_path(pairs, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.encoder: how far recurrent layers read .* use train\.compile=off"):
        finished(config(pairs, compile="on"), tmp_path / "run")


def test_adapters_stand_on_projections_and_attention(pairs, run, tmp_path):
    lora = {"rank": 2, "targets": ["*.readout", "*.k", "bridge.*"]}
    file = {
        "data": {"train": [{"kind": "table", "path": str(pairs)}], "hold_out": {"test": 3, "valid": 10, "near": None}},
        "start_from": {"run": str(run), "lora": lora},
        "train": {"budget": {"kind": "steps", "steps": 2}, "batch_tokens": 400, "samples": 0},
    }
    path = finished(recipe.load(file), tmp_path / "run")
    model = recipe.load(file).model.build()
    recipe.load(file).start_from.lora.adapt(model)
    assert isinstance(model.decoder.readout, Adapted)
    assert load_model(path)[0].decoder.readout.weight.shape == model.decoder.readout.weight.shape


def test_a_run_starts_from_another_with_a_larger_vocabulary(pairs, tmp_path):
    run = finished(dataclasses.replace(config(pairs), tokenizer=Bpe(vocab=280)), tmp_path / "earlier")
    file = {
        "data": {"train": [{"kind": "table", "path": str(pairs)}], "hold_out": {"test": 3, "valid": 10, "near": None}},
        "start_from": {"run": str(run), "vocabulary": {"kind": "extended", "by": 20}},
        "train": {"budget": {"kind": "steps", "steps": 2}, "batch_tokens": 400, "samples": 0},
    }
    path = finished(recipe.load(file), tmp_path / "run")
    before, after = (len(load_model(each)[0].embed.tokens.weight) for each in (run, path))
    assert after == before + 20


# ---- commands -----------------------------------------------------------------------------------------


def test_a_translator_does_all_that_a_translator_does(run, folder, capsys):
    line = asked(capsys, "translate", run, "red dog", "--beam", "2", "--format", "json", "--alignments")
    assert json.loads(line)["candidates"][0]["alignment"]
    assert asked(capsys, "translate", run, "red dog", "--sample", "2", "--seed", "1")
    assert asked(capsys, "translate", run, "red dog", "--beam", "1", "--cache", "int8")
    assert asked(capsys, "score", run, folder / "given.tsv")
    assert "BLEU" in asked(capsys, "evaluate", run, folder / "given.tsv", "--beam", "1")
    assert asked(capsys, "average", run, "--last", "2")
    assert "hold" in asked(capsys, "verify", run, "--sentences", "1", "--beam", "1", *SHORT)


def written(folder, task, model, tmp_path):
    """Run file of a task with another model."""
    plain = run_files(folder)[task] | {"model": model}
    path = tmp_path / "run.yaml"
    path.write_text(dump_yaml(plain))
    return path


def test_a_language_model_does_all_that_a_language_model_does(folder, tmp_path, capsys):
    run, file = tmp_path / "run", written(folder, "language_modelling", WRITER, tmp_path)
    asked(capsys, "train", file, "--run", run)
    whole = asked(capsys, "generate", run, "dog", "--max-new-tokens", "8", "--seed", "1")
    assert asked(capsys, "generate", run, "dog", "--max-new-tokens", "8", "--seed", "1", "--stream") == whole
    assert "perplexity" in asked(capsys, "evaluate", run)
    table = asked(capsys, "verify", run, "--sentences", "1", "--beam", "1", *SHORT, "--format", "json")
    assert "it keeps no keys and values" in table


READERS = {
    "classification": ("classify RUN given.txt", "evaluate RUN", "embed RUN given.txt"),
    "tagging": ("tag RUN given.txt", "evaluate RUN"),
    "masked": ("embed RUN given.txt",),
    "question_answering": ("answer RUN given.jsonl", "evaluate RUN"),
    "frames": ("classify RUN frames.npy", "evaluate RUN"),
}


@pytest.mark.parametrize("task", READERS)
def test_a_bilstm_is_the_tower_of_every_kind_of_reader(folder, tmp_path, capsys, task):
    run, model = tmp_path / "run", run_files(folder)[task]["model"] | {"tower": TOWER}
    asked(capsys, "train", written(folder, task, model, tmp_path), "--run", run)
    for command in READERS[task]:
        words = [str(run) if word == "RUN" else word for word in command.split()]
        asked(capsys, *(str(folder / word) if "." in word and word != str(run) else word for word in words))
    assert "hold" in asked(capsys, "verify", run, "--sentences", "1")
    if task != "frames":  # no layout takes their input
        assert "recurrent_stack" in asked(capsys, "export", run, "--to", "huggingface", "-o", tmp_path / "out")


def test_a_recurrent_model_restores_hidden_parts_of_a_text(folder, tmp_path, capsys):
    run = tmp_path / "run"
    asked(capsys, "train", written(folder, "denoising", MODEL | {"attention": "bahdanau"}, tmp_path), "--run", run)
    assert asked(capsys, "translate", run, folder / "given.txt", "--beam", "1")


@pytest.mark.parametrize("to", ["ctranslate2", "onnx"])
def test_other_formats_do_not_know_it(run, tmp_path, capsys, to):
    blamed = "model.encoder: recurrent" if to == "onnx" else "model.kind: recurrent"  # a decoder alone becomes graphs
    assert blamed in refused(capsys, "export", run, "--to", to, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "model.decoder.direction=backward": "model.decoder.direction: backward: a decoder must not see",
    "model.decoder.cell=lsmt": "model.decoder.cell: no 'lsmt' here. Did you mean 'lstm'?",
    "model.decoder.cell={kind: gru, forget_bias: 1.0}": "model.decoder.cell: no 'forget_bias' here",
    "model.attention=no_source_attention": None,
    "model.bridge=no_bridge": None,
    "model.bridge=copy_states": "model.bridge.kind: copy_states needs an encoder that reads one way",
    "model.encoder=null": "model.encoder: must be given for translation",
    "model.attention={kind: luong, score: dot}": None,
    "model.encoder.hidden=3": None,
    "model.dim=7": "model.encoder.hidden: two directions cannot share an odd width 7",
    "model.decoder.shortcut={kind: shortcut, first: 0}": "model.decoder.shortcut.first: must be greater than 0",
}  # fmt: skip


@pytest.mark.parametrize("change", MISTAKES)
def test_a_run_file_is_refused_by_its_path_or_built(folder, tmp_path, capsys, change):
    file = written(folder, "translation", MODEL, tmp_path)
    message = MISTAKES[change]
    if message is None:
        recipe.outline(recipe.load(file, [change]))
    else:
        assert message in refused(capsys, "train", file, "--run", tmp_path / "run", change)
        assert not (tmp_path / "run" / "checkpoints").exists()
