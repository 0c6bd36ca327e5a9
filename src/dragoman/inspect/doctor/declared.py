"""Facts that a model declares by its class, its configuration and its buffers."""

import inspect
import re
from typing import Any

import torch
from torch import Tensor, nn

WRITES = re.compile(r"GPT|CausalLM|LMHead|LanguageModel|Decoder|Seq2Seq|Translat|(?<!Masked)LM$")
STEPWISE = ("past_key_values", "cache_params", "kv_cache", "cache", "past", "layer_past", "state")
"""Arguments that carry a state from one token to the next: only models that write have them."""


def writes(model: nn.Module, tokens: Tensor, labels: Any, source: str | None) -> tuple[bool | None, str]:
    """Return whether outputs must not depend on later tokens, and what says so; None where nothing does."""
    if isinstance(labels, Tensor) and labels.shape == tokens.shape and _follow(labels, tokens):
        return True, "its labels are the next tokens"
    if source is not None:
        return True, "it reads a source and a target"
    if hasattr(model, "config") and hasattr(model, "save_pretrained"):
        return writes_by_configuration(model)
    name = type(model).__name__
    if WRITES.search(name) and not re.search("Mask|Encoder", name):
        return True, f"a class called {name} predicts the next token"
    taken = [name for name in inspect.signature(model.forward).parameters if name in STEPWISE]
    if taken:
        return True, f"its forward takes {taken[0]}, a state from step to step"
    for path, buffer in model.named_buffers():
        square = buffer.squeeze()
        if square.ndim == 2 and is_triangular(square):
            return True, f"the buffer {path} is a causal mask"
    return None, "nothing says so"


def writes_by_configuration(model: Any) -> tuple[bool | None, str]:
    """Return the same for a model of `transformers`."""
    can = getattr(model, "can_generate", None)
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False):
        return True, "its configuration says that it decodes"
    if can is not None and can():
        return True, "it can generate"
    encoder = getattr(model.config, "is_decoder", None) is False or "Mask" in type(model).__name__
    return (False, "an encoder by its configuration") if encoder else (None, "nothing says so")


def _follow(labels: Tensor, tokens: Tensor) -> bool:
    """Return whether labels are the next tokens."""
    ids = not tokens.is_floating_point() and tokens.ndim == 2 and tokens.shape[1] > 1
    return ids and float((labels[:, :-1] == tokens[:, 1:]).float().mean()) > 0.9


def is_triangular(square: Tensor) -> bool:
    """Return whether a matrix, a mask perhaps, tells pairs of a position and a later one from all others."""
    if not square.shape[0] == square.shape[1] > 1:
        return False
    hidden = ~torch.isfinite(square) if square.is_floating_point() and not torch.isfinite(square).all() else square == 0
    upper = torch.triu(torch.ones_like(hidden, dtype=torch.bool), 1)
    return torch.equal(hidden, upper) or torch.equal(~hidden, upper)


def padding_id(model: nn.Module) -> int | None:
    """Return the id that a model treats as padding: ``padding_idx`` of its first embedding."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return module.padding_idx
    return None
