"""Runs of every preset at toy size, to be exported: the same parts, two layers of small width, weights shaken."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import healthy
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.families import ModelConfig
from dragoman.presets import PRESETS
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

TASKS = {"classification": {"kind": "classification"}, "tagging": {"kind": "tagging"}}


def small_config(name: str, vocab: int) -> Any:
    """Return the model of a preset with small sizes."""
    cfg: Any = from_dict(ModelConfig, _with_every_layer(healthy.shrunk(PRESETS[name]()["model"])))
    sizes = {"vocab": vocab, "classes": 3}
    return cfg.sized(**{k: v for k, v in sizes.items() if k in inspect.signature(cfg.sized).parameters})


def _with_every_layer(plain: Any) -> Any:
    """Return plain data whose towers are deep enough to have each kind of layer of their pattern."""
    if isinstance(plain, dict):
        plain = {name: _with_every_layer(value) for name, value in plain.items()}
        pattern = plain.get("pattern")
        if plain.get("kind") == "gated_convolution" and isinstance(plain.get("channels"), int):
            plain["channels"] = max(16, plain["channels"] // 32)
        if isinstance(pattern, list | tuple) and "depth" in plain:
            last = max(pattern.index(layer) for layer in pattern)
            plain["depth"] = max(plain["depth"], last + 1)
    return plain


def save_run(
    cfg: Any,
    path: Path,
    *,
    tokenizer: Tokenizer | None = None,
    target: Tokenizer | None = None,
    shake: float = 0.1,
) -> RunDirectory:
    """Save a run of a model that has learned nothing, over bytes; ``target`` is another tokenizer of the target."""
    torch.manual_seed(0)
    model = cfg.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * shake)
    config = {"model": to_dict(cfg)} | _task(cfg)
    run = RunDirectory.create(path, config)
    if reads_text(cfg):
        tokenizer = tokenizer or Tokenizer.train(Bytes(), [])
        run.write_tokenizers(tokenizer, target or tokenizer)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config=config)
    run.close()
    return run


def save_preset(name: str, path: Path, **options: Any) -> RunDirectory:
    """Save a small run of a preset."""
    tokenizer = Tokenizer.train(Bytes(), [])
    return save_run(small_config(name, len(tokenizer)), path, tokenizer=tokenizer, **options)


def reads_text(cfg: Any) -> bool:
    """Return whether a model reads or writes text."""
    return "token_input" in str(to_dict(cfg)) or hasattr(cfg, "vocab")


def _task(cfg: Any) -> dict[str, Any]:
    """Return the task of a run, where it names the classes of its model."""
    head = getattr(cfg, "head", None)
    if isinstance(cfg, TwoTowersConfig) or getattr(head, "classes", None) is None:
        return {}
    kind = "tagging" if "Tagging" in type(head).__name__ else "classification"
    return {"task": {"kind": kind, "labels": ["one", "two", "three"]}}


def distinct() -> dict[str, str]:
    """Return every preset, with the first whose small model is the same."""
    first: dict[str, str] = {}
    return {name: first.setdefault(repr(dataclasses.asdict(small_config(name, 31))), name) for name in PRESETS}
