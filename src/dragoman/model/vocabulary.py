"""Both ends of a generating model, common to all families: weight tying, and ids that are never generated.

V vocabulary, D width.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from dragoman.errors import ConfigError
from dragoman.model.inputs import Embedding
from dragoman.model.linear import Linear

Tying = Literal["all", "target", "inputs", "none"]
"""Weight tying (Press & Wolf, arXiv:1608.05859): source embedding, target embedding and output projection share one
matrix (``all``), only the two of the target (``target``), only the two embeddings (``inputs``), or ``none``."""

SUPPRESSED_LOGIT = -1e4
"""Logit of suppressed ids: exp of it is 0 beside any other, and unlike with -inf a smoothed loss stays finite."""


def tie_vocabulary(output: Linear, target: Embedding, source: Embedding | None, tying: Tying) -> None:
    """Share the matrices that ``tying`` names.

    Raises:
        ConfigError: matrices of different sizes, which cannot be shared.
    """
    if tying in ("all", "target"):
        _check_widths(output, target, tying)
        output.weight = target.tokens.weight
    if source is not None and tying in ("all", "inputs"):
        vocab, source_vocab = len(target.tokens.weight), len(source.tokens.weight)
        if source_vocab != vocab:
            raise ConfigError(
                f"tying: '{tying}' shares one matrix between source and target, but their vocabularies "
                f"have {source_vocab} and {vocab} entries; use 'target' or a joint tokenizer"
            )
        source.tokens.weight = target.tokens.weight


def _check_widths(output: Linear, target: Embedding, tying: Tying) -> None:
    if output.weight.shape != target.tokens.weight.shape:
        raise ConfigError(
            f"tying: '{tying}' shares one matrix between embedding and output, but the embedding is "
            f"{target.tokens.weight.shape[1]} wide and the output reads {output.weight.shape[1]}; use 'inputs' or "
            "'none'"
        )


def suppress(output: Linear, ids: Sequence[int]) -> None:
    """Lower the logits of ``ids`` by a bias; one that is not trained is a buffer outside checkpoints."""
    if not ids:
        return
    if output.bias is None:
        del output.bias
        output.register_buffer("bias", output.weight.new_zeros(len(output.weight)), persistent=False)
    with torch.no_grad():
        output.bias[list(ids)] = SUPPRESSED_LOGIT
