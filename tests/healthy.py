"""Healthy models that the doctor must find no error in: small presets, families of `transformers`, PyTorch's own."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import foreign
import torch
from torch import nn

from dragoman.config import from_dict
from dragoman.model.families import ModelConfig
from dragoman.presets import PRESETS

SIZES = {
    "dim": 48, "hidden": 64, "depth": 2, "heads": 4, "kv_heads": 2, "key_heads": 2, "head_dim": 12, "vocab": 31,
    "source_vocab": 31, "rank": 4, "buckets": 8, "chunk": 16, "layers": 2, "experts": 4,
}  # fmt: skip
"""Largest value of each size in the small copy of a preset."""


def torch_models() -> dict[str, Callable[[], nn.Module]]:
    """PyTorch's own modules, with rows first and time first."""

    def layers(**options: Any) -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(16, 2, 32, **options)

    def readers(**options: Any) -> nn.TransformerDecoderLayer:
        return nn.TransformerDecoderLayer(16, 2, 32, **options)

    return {
        "nn.Transformer": lambda: nn.Transformer(16, 2, 2, 2, 32, batch_first=True),
        "nn.Transformer, time first": lambda: nn.Transformer(16, 2, 2, 2, 32),
        "nn.Transformer, norms first": lambda: nn.Transformer(16, 2, 2, 2, 32, batch_first=True, norm_first=True),
        "nn.TransformerEncoder": lambda: nn.TransformerEncoder(layers(batch_first=True), 4),
        "nn.TransformerEncoder, time first": lambda: nn.TransformerEncoder(layers(), 2),
        "nn.TransformerEncoder, norms first": lambda: nn.TransformerEncoder(
            layers(batch_first=True, norm_first=True, activation="gelu"), 4, nn.LayerNorm(16)
        ),
        "nn.TransformerEncoderLayer": lambda: layers(batch_first=True),
        "nn.TransformerDecoder": lambda: nn.TransformerDecoder(readers(batch_first=True), 2),
        "nn.TransformerDecoderLayer": lambda: readers(batch_first=True, bias=False),
        "nn.MultiheadAttention": lambda: nn.MultiheadAttention(16, 2, batch_first=True),
        "nn.MultiheadAttention, time first": lambda: nn.MultiheadAttention(16, 4),
        "nn.LSTM": lambda: nn.LSTM(8, 12, 2, batch_first=True),
        "nn.LSTM, both ways": lambda: nn.LSTM(8, 12, bidirectional=True),
        "nn.LSTM, projected": lambda: nn.LSTM(8, 12, proj_size=5, batch_first=True),
        "nn.GRU": lambda: nn.GRU(8, 12, 2, dropout=0.2),
        "nn.RNN": lambda: nn.RNN(8, 12, batch_first=True),
        "nn.Embedding": lambda: nn.Embedding(31, 8, padding_idx=0),
    }


def quietly(make: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return make()


def of_transformers(name: str, size: int) -> nn.Module:
    import transformers

    torch.manual_seed(size)
    model = (foreign.MODELS | foreign.ENCODERS)[name][size](transformers)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the fast one wants sizes that 4 divides
    return model


def small_preset(name: str) -> nn.Module:
    """A preset with two layers of small width; what else it says stays."""
    cfg: Any = from_dict(ModelConfig, shrunk(PRESETS[name]()["model"]))
    wanted = {"vocab": 31, "classes": 3}
    model = cfg.sized(**{k: v for k, v in wanted.items() if k in inspect.signature(cfg.sized).parameters}).build()
    return getattr(model, "first", model)


def shrunk(value: Any) -> Any:
    """Return plain data of a model with every size small."""
    if isinstance(value, list):
        return [shrunk(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: shrunk(each) for key, each in value.items()}
    for key, small in SIZES.items():
        if isinstance(found.get(key), int) and not isinstance(found[key], bool):
            found[key] = min(found[key], small)
    return found
