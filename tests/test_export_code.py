"""Models that no layout of transformers holds answer as their runs do, where this package is not installed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import exported
import foreign
import pytest
import torch

from dragoman.checkpoint import load_any
from dragoman.cli import main
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.remote_code import bundle
from dragoman.interchange.remote_code.writing import write_code
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import SpansHead
from dragoman.model.inputs import PatchInput
from dragoman.text.tokens.tokenizer import BOS, EOS, INPUT_FRAME, PROMPT_FRAME, SOURCE_FRAME, Tokenizer
from dragoman.text.tokens.training import Bytes

pytest.importorskip("transformers")

NAMES = (
    # translators
    "transformer-small", "lstm-bahdanau", "lstm-luong", "lstm-sutskever", "rnn", "gnmt-small", "convs2s", "bytenet",
    "cnn-9", "mamba-translator-small",
    # language models
    "lm-hybrid-small", "lstm-lm-small", "gated-cnn-lm-small", "longformer-small", "bigbird-small",
    "sparse-transformer-small", "reformer-small", "mamba2-hybrid-small", "linear-small", "performer-small",
    "deltanet-hybrid-small", "mlstm-small", "min-gru-small", "transformer-base-lm", "chinchilla",
    # encoders
    "classifier-tiny", "lstm-tagger-small", "reader-small", "encoder-small", "towers-small", "clip-tiny", "vit-tiny",
)  # fmt: skip
TEXTS = ("Guten Tag!", "x", "two  words")
LIMIT = LengthLimit(tokens=10, ratio=0.0, extra=10)


@torch.inference_mode()
def expected(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return inputs for a model, and its answers: logits, greedy ids, ids of texts."""
    cfg: Any = model.cfg
    if isinstance(cfg, TwoTowersConfig):
        return _of_towers(model, cfg)
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.inputs, PatchInput):
        images = torch.randn(2, cfg.inputs.channels, *cfg.inputs.size)
        return {"given": {"pixel_values": images}, "answer": model(images)}
    texts = [tokenizer.encode(text) for text in TEXTS]
    if isinstance(cfg, EncoderConfig):
        rows, frame = _padded([[BOS, *ids, EOS] for ids in texts]), INPUT_FRAME
        given = {"input_ids": rows, "attention_mask": (rows != 0).long()}
        answer = model(_with_fields(rows) if isinstance(cfg.head, SpansHead) else rows)
    elif cfg.translates:
        sources, target = _padded([[*ids, EOS] for ids in texts]), torch.randint(3, cfg.vocab, (3, 4))
        given = {"input_ids": sources, "attention_mask": (sources != 0).long(), "decoder_input_ids": target}
        answer, frame = model(target, sources), SOURCE_FRAME
    else:
        rows, frame = _padded([[BOS, *ids] for ids in texts]), PROMPT_FRAME
        given, answer = {"input_ids": rows, "attention_mask": (rows != 0).long()}, model(rows)
    ids = {text: list(tokenizer.frame(frame).around(read)) for text, read in zip(TEXTS, texts, strict=True)}
    found = {"given": given, "answer": answer, "texts": ids}
    return found if isinstance(cfg, EncoderConfig) else found | {"greedy": [_greedy(model, read) for read in texts]}


def _of_towers(model: Any, cfg: TwoTowersConfig) -> dict[str, Any]:
    texts = _padded([[BOS, 40, 50, EOS], [BOS, 60, EOS]])
    given = {"input_ids": texts, "attention_mask": (texts != 0).long()}
    if isinstance(inputs := (cfg.second or cfg.first).inputs, PatchInput):
        images = torch.randn(3, inputs.channels, *inputs.size)
        return {"given": given | {"pixel_values": images}, "answer": model(texts, images)}
    return {"given": given | {"second_input_ids": texts, "second_attention_mask": given["attention_mask"]},
            "answer": model(texts, texts)}  # fmt: skip


def _with_fields(rows: torch.Tensor) -> Any:
    from dragoman.data.spans import as_fields

    return as_fields(rows)


def _greedy(model: Any, ids: list[int]) -> tuple[torch.Tensor, list[int]]:
    """Return a prompt, and what the run's search writes after it."""
    if model.cfg.translates:
        prompt = torch.tensor([[*ids, EOS]])
        return prompt, list(search(model, prompt, Greedy(limit=LIMIT))[0][0].tokens[:-1])  # the last ends it
    prompt = torch.tensor([BOS, *ids])
    return prompt[None], list(foreign.continued(model, prompt, Greedy(limit=LIMIT))[0].tokens[:-1])


def _padded(rows: list[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Export each model, and return how the answers differ in a process that cannot import this package."""
    base = tmp_path_factory.mktemp("code")
    for name in NAMES:
        run = exported.save_preset(name, base / f"{name}-run")
        assert export_huggingface(run.path, base / name, check=False) == "dragoman"
        model, tokenizer = load_any(run.path)[1], run.tokenizers()[0] if run.tokenizer_files() else None
        torch.save(expected(model, tokenizer), base / name / "expected.pt")
    found = differences([base / name for name in NAMES], base)
    return {folder.name: differing for folder, differing in found.items()}


def differences(folders: list[Path], cache: Path) -> dict[Path, dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).with_name("open_exported.py")), *map(str, folders)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "cache")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return {Path(folder): found for folder, found in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_code_answers_as_the_run_where_this_package_is_not_installed(opened, name):
    assert opened[name].pop("logits") < 1e-5
    assert not opened[name]


@pytest.mark.slow
def test_towers_that_judge_each_pair_by_itself_answer_as_the_run(tmp_path):
    plain = exported.small_config("towers-small", len(Tokenizer.train(Bytes(), [])))
    run = exported.save_run(dataclasses.replace(plain, objective="sigmoid"), tmp_path / "run")
    assert export_huggingface(run.path, tmp_path / "folder", check=False) == "dragoman"
    torch.save(expected(load_any(run.path)[1], run.tokenizers()[0]), tmp_path / "folder" / "expected.pt")
    [found] = differences([tmp_path / "folder"], tmp_path).values()
    assert found.pop("logits") < 1e-5 and not found


@pytest.mark.slow
def test_folders_of_one_name_each_run_their_own_code_in_one_process(tmp_path):
    folders = [tmp_path / name / "exported" for name in ("transformer-base-lm", "chinchilla")]
    for folder in folders:
        run = exported.save_preset(folder.parent.name, folder.parent / "run")
        assert export_huggingface(run.path, folder, check=False) == "dragoman"
        torch.save(expected(load_any(run.path)[1], run.tokenizers()[0]), folder / "expected.pt")
    found = differences(folders, tmp_path)
    assert [differing.pop("logits") < 1e-5 and not differing for differing in found.values()] == [True, True]


def test_other_code_has_another_name_and_the_same_code_the_same(tmp_path):
    """transformers keeps one module of a name, and one class of models for a class of configurations."""
    configurations, names = [], []
    for name, preset in (("one", "chinchilla"), ("again", "chinchilla"), ("other", "transformer-base-lm")):
        (tmp_path / name).mkdir()
        write_code(tmp_path / name, exported.small_config(preset, 259))
        configurations.append((tmp_path / name / "configuration_dragoman.py").read_text(encoding="utf-8"))
        names.append(next((tmp_path / name).glob("network_dragoman_*.py")).stem)
        assert f"from .{names[-1]} import" in (tmp_path / name / "modeling_dragoman.py").read_text(encoding="utf-8")
    for one, again, other in (configurations, names):
        assert one == again != other


def test_a_target_with_a_tokenizer_of_its_own_has_it_in_a_folder_below(tmp_path):
    source, target = Tokenizer.train(Bytes(), []), Tokenizer.train(Bytes(), [], marks=["⟨mask⟩"])
    plain = exported.small_config("transformer-small", len(target))
    cfg = dataclasses.replace(plain, source_vocab=len(source), tying="target")
    run = exported.save_run(cfg, tmp_path / "run", tokenizer=source, target=target)
    assert export_huggingface(run.path, tmp_path / "folder") == "dragoman"
    beside = json.loads((tmp_path / "folder" / "target_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert "⟨mask⟩" in {token["content"] for token in beside["added_tokens"]}
    assert not (tmp_path / "folder" / "target_tokenizer" / "generation_config.json").exists()


def test_code_that_cannot_leave_the_package_is_refused(monkeypatch, tmp_path, capsys):
    run = exported.save_preset("transformer-small", tmp_path / "run")
    monkeypatch.setattr(bundle, "STAYING", ("dragoman.model.attention",))
    assert main(["export", str(run.path), "--to", "huggingface", "-o", str(tmp_path / "folder")]) == 2
    assert "dragoman.model.attention cannot be part of an export" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()
