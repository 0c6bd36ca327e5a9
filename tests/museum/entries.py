"""The bug museum: models with one planted mistake each, and what the doctor has to say about it.

An entry's model without its mistake must be found free of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from museum.ours import OURS, OurBug
from museum.strangers import (
    VOCAB,
    DeepEncoder,
    HalfRotary,
    LSTMClassifier,
    LSTMWithAttention,
    TinyGPT,
    Translator17,
)

ROWS, LENGTH = 3, 11


@dataclass(frozen=True)
class Exhibit:
    """One planted mistake."""

    bug: str
    build: Callable[[str | None], nn.Module]
    batch: Callable[[], Any]
    check: str
    """Check that has to find it."""
    where: tuple[str, ...]
    """Beginnings of the path, one of which has to be named; ``""`` for the model itself."""
    options: Callable[[str | None, nn.Module], dict[str, Any]] = field(default=lambda bug, model: {})
    """Options of ``examine``."""
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.build.__name__}: {self.bug}"


def draw(*shape: int) -> Tensor:
    return torch.randint(1, VOCAB - 6, shape, generator=torch.Generator().manual_seed(5))


def tokens() -> Tensor:
    return draw(ROWS, LENGTH)


def next_tokens() -> tuple[Tensor, Tensor]:
    ids = draw(ROWS, LENGTH + 1)
    return ids[:, :-1], ids[:, 1:]


def masked() -> dict[str, Tensor]:
    return {"idx": tokens(), "keep": torch.ones(ROWS, LENGTH)}


def masked_labels() -> dict[str, Tensor]:
    return masked() | {"labels": tokens().roll(-1, 1)}


def pairs() -> tuple[Tensor, Tensor]:
    return draw(ROWS, LENGTH + 2), tokens()


def classified() -> dict[str, Tensor]:
    return {"ids": tokens(), "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.long)}


def labelled() -> tuple[Tensor, Tensor]:
    return tokens(), torch.tensor([0, 1, 2])


ANY = ("",)
ATTENTION = ("blocks.0.attn",)
GPT_BUGS = [
    ("no_causal_mask", "future leak", ATTENTION, "error"),
    ("mask_off_by_one", "future leak", ATTENTION, "error"),
    ("mask_turned_around", "future leak", ATTENTION, "error"),
    ("mask_with_zero", "future leak", ATTENTION, "error"),
    ("mask_after_softmax", "future leak", ATTENTION, "error"),
    ("heads_by_view", "future leak", ATTENTION, "error"),
    ("norm_over_time", "future leak", ("blocks.0",), "error"),
    ("norm_over_rows", "rows", ("blocks.0",), "error"),
    ("positions_along_rows", "rows", ("(model)", "wpe"), "error"),
    ("no_positions", "positions ignored", ("blocks",), "warning"),
    ("positions_after_norm", "positions misplaced", ("(model)",), "error"),
    ("positions_inside", "positions misplaced", ("(model)",), "warning"),
    ("positions_too_loud", "positions misplaced", ("blocks",), "warning"),
    ("no_norm", "missing norm", ("blocks.0.attn",), "warning"),
    ("no_norm_before_mlp", "missing norm", ("blocks.0.mlp",), "warning"),
    ("no_final_norm", "missing norm", ("blocks",), "warning"),
    ("unscaled", "scores", ATTENTION, "warning"),
    ("saturated", "scores", ATTENTION, "warning"),
    ("softmax_over_queries", "scores", ATTENTION, "error"),
    ("dead_heads", "heads", ATTENTION, "warning"),
    ("dropout_functional", "dropout in evaluation", ATTENTION, "error"),
    ("copied_embedding", "tied embeddings", ("head",), "error"),
    ("says_tied", "tied embeddings", ("head",), "error"),
    ("detached", "gradients", ("wte", "wpe"), "error"),
    ("detached_layer", "gradients", ("blocks.1",), "error"),
    ("unused_layer", "gradients", ("extra",), "warning"),
    ("numpy_weights", "data types", ("(model)",), "warning"),
    ("short_position_table", "corners", ("(model)",), "error"),
    ("output_too_small", "vocabulary", ("wte",), "warning"),
    ("cache_positions", "cache", ("(model)", "wpe", "blocks.0"), "error"),
    ("cache_mask", "cache", ATTENTION, "error"),
]
MASK_BUGS = [
    ("no_padding_mask", "padding leak", ATTENTION, "error"),
    ("padding_mask_inverted", "padding leak", ATTENTION, "error"),
    ("minus_infinity", "corners", ATTENTION, "warning"),
]
TRANSLATOR_BUGS = [
    ("no_target_mask", "future leak", ("transformer.decoder.layers.0.self_attn",), "error"),
    ("inverted_target_mask", "future leak", ("transformer.decoder.layers.0.self_attn",), "error"),
    ("no_padding_masks", "padding leak", ("transformer.encoder.layers.0.self_attn",), "error"),
    ("no_memory_mask", "padding leak", ("transformer.decoder.layers.0.multihead_attn",), "error"),
    ("float_padding_mask", "padding leak", ("transformer.encoder.layers.0.self_attn",), "error"),
    (
        "rows_and_time_confused",
        "rows",
        ("transformer.encoder.layers.0.self_attn", "transformer.decoder.layers.0.self_attn"),
        "error",
    ),
]


Row = tuple[str, str, tuple[str, ...], str]


def exhibits(build: Callable[[str | None], nn.Module], batch: Callable[[], Any], rows: list[Row]) -> list[Exhibit]:
    return [Exhibit(bug, build, batch, check, where, severity=severity) for bug, check, where, severity in rows]


STRANGERS = [
    *exhibits(TinyGPT, next_tokens, GPT_BUGS),
    *exhibits(TinyGPT, masked, MASK_BUGS),
    *exhibits(Translator17, pairs, TRANSLATOR_BUGS),
    Exhibit("encoder_without_positions", DeepEncoder, tokens, "positions ignored", ("(model)",)),
    Exhibit("mean_over_padding", DeepEncoder, tokens, "padding leak", ("(model)",)),
    Exhibit("deep_post_norm", DeepEncoder, tokens, "growth with depth", ("encoder.layers",), severity="warning"),
    Exhibit("looks_ahead", LSTMWithAttention, tokens, "future leak", ("(model)",)),
    Exhibit("bidirectional_writer", LSTMWithAttention, tokens, "future leak", ("lstm",), lambda *_: {"causal": True}),
    Exhibit("time_first", LSTMWithAttention, tokens, "rows", ("lstm",)),
    Exhibit("frozen_embedding", LSTMWithAttention, tokens, "gradients", ("embed",)),
    Exhibit("word_dropout", LSTMWithAttention, tokens, "dropout in evaluation", ("(model)",)),
    Exhibit("state_dropped", LSTMWithAttention, tokens, "cache", ("lstm",), lambda *_: {"causal": True}),
    Exhibit("attention_over_padding", LSTMClassifier, classified, "padding leak", ("(model)",)),
    Exhibit("padding_minus_infinity", LSTMClassifier, classified, "corners", ("(model)",), severity="warning"),
    Exhibit("attention_over_rows", LSTMClassifier, classified, "rows", ("(model)",)),
    Exhibit(
        "half_positions",
        lambda bug: HalfRotary(bug).bfloat16(),
        tokens,
        "data types",
        ("(model)",),
        severity="warning",
    ),
]

# ---- training ----------------------------------------------------------------------------------------


def gpt(bug: str | None) -> nn.Module:
    """A right model: the mistake is in how it is trained."""
    return TinyGPT()


def padded_rows() -> tuple[Tensor, Tensor]:
    """Rows of unlike length, padded with 0."""
    ids = draw(ROWS, LENGTH + 1)
    ids[-1, -3:] = 0
    return ids[:, :-1], ids[:, 1:]


def shifted(bug: str | None) -> Callable[[], Any]:
    def make() -> Any:
        inputs, labels = next_tokens()
        if bug == "labels_not_shifted":
            return inputs, inputs
        if bug == "labels_shuffled":
            return inputs, labels.roll(1, 0)
        return inputs, labels

    return make


def loss_of(bug: str | None) -> Callable[[nn.Module, Any], Tensor]:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        ignored = -100 if bug == "loss_counts_padding" else 0
        logits = model(inputs)[0]
        if bug == "loss_of_labels":
            logits = logits.detach().requires_grad_()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=ignored)

    return loss


def accumulate_of(bug: str | None) -> Callable[[nn.Module, Any], None]:
    """Return a training loop's accumulation: right is one division by all tokens."""

    def accumulate(model: nn.Module, batches: Any) -> None:
        tokens = sum(int((labels != 0).sum()) for _, labels in batches)
        for inputs, labels in batches:
            logits = model(inputs)[0].flatten(0, 1)
            if bug == "mean_of_means":
                loss = F.cross_entropy(logits, labels.flatten(), ignore_index=0) / len(batches)
            else:
                loss = F.cross_entropy(logits, labels.flatten(), ignore_index=0, reduction="sum") / tokens
            loss.backward()

    return accumulate


def schedule_of(bug: str | None, model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def factor(step: int) -> float:
        warm = 1.0 if bug == "no_warm_up" else min(1.0, (step + 1) / 50)
        return warm if bug == "constant_rate" else warm * max(0.0, 1 - step / 1000)

    return {"optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}


class LowerCase:
    """A tokenizer of characters that forgets capitals."""

    def __init__(self, bug: str | None):
        self.bug = bug

    def __len__(self) -> int:
        return 20

    def encode(self, text: str) -> list[int]:
        return list((text.lower() if self.bug else text).encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode()


def overlap_of(bug: str | None, model: nn.Module) -> dict[str, Any]:
    train = [f"sentence {i}" for i in range(90)]
    return {"train": train, "test": ["sentence 5", "sentence 6"] if bug else ["another one"]}


def batches_of(bug: str | None, model: nn.Module) -> dict[str, Any]:
    def again() -> Any:
        inputs, labels = labelled()
        return inputs, labels.roll(1) if bug else labels

    return {"batches": again}


TRAINING = [
    Exhibit("labels_not_shifted", gpt, shifted("labels_not_shifted"), "labels", ("(data)",)),
    Exhibit("labels_shuffled", gpt, shifted("labels_shuffled"), "labels", ("(data)",)),
    Exhibit("labels_drawn_anew", DeepEncoder, labelled, "labels", ("(data)",), batches_of),
    Exhibit(
        "loss_counts_padding",
        gpt,
        padded_rows,
        "micro-batches",
        ("(loss)",),
        lambda bug, model: {"loss": loss_of(bug), "pad": 0},
    ),
    Exhibit(
        "loss_of_labels",
        gpt,
        next_tokens,
        "one batch",
        ("(loss)",),
        lambda bug, model: {"loss": loss_of(bug), "pad": 0},
    ),
    Exhibit(
        "mean_of_means",
        gpt,
        next_tokens,
        "micro-batches",
        ("(loss)",),
        lambda bug, model: {"accumulate": accumulate_of(bug), "pad": 0},
    ),
    Exhibit("no_warm_up", gpt, next_tokens, "learning rate", ("(optimizer)",), schedule_of, "warning"),
    Exhibit("constant_rate", gpt, next_tokens, "learning rate", ("(optimizer)",), schedule_of, "warning"),
    Exhibit("overlap", gpt, next_tokens, "train and test", ("(data)",), overlap_of),
    Exhibit(
        "lower_case",
        gpt,
        next_tokens,
        "tokenizer",
        ("(tokenizer)",),
        lambda bug, model: {"tokenizer": LowerCase(bug), "texts": ["Hello World"]},
    ),
    Exhibit(
        "ids_out_of_range",
        gpt,
        lambda: torch.full((ROWS, LENGTH), VOCAB),
        "ids in range",
        ("wte",),
    ),
]
BY_BATCH = {"labels_not_shifted", "labels_shuffled", "ids_out_of_range"}
"""Bugs that stand in the batch itself: their right twin has ``next_tokens``."""

EXHIBITS = STRANGERS + TRAINING


def healthy_batch(exhibit: Exhibit) -> Any:
    """Return the batch of an exhibit without its mistake."""
    return next_tokens() if exhibit.bug in BY_BATCH else exhibit.batch()


__all__ = ["EXHIBITS", "OURS", "Exhibit", "OurBug", "healthy_batch"]
