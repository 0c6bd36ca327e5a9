"""Initial weights of the parts of a model, each from a run of its own: an image encoder, a language model."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from dragoman.checkpoint import load_any
from dragoman.config import kind_of
from dragoman.data.tasks import CaptioningTask
from dragoman.errors import ConfigError
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.prefixed import PrefixedTransformer
from dragoman.model.transformer import Transformer


def check_part_weights(task: CaptioningTask, model: PrefixedTransformer) -> None:
    """Check that the weights of earlier runs fit a ``model``, which may be on the meta device.

    Raises:
        ConfigError: a part is missing there or has another shape; or a frozen part brings no weights.
        CheckpointError: no such run.
    """
    for part in model.cfg.frozen:
        if part != "projector" and getattr(task, f"{part}_from") is None:
            raise ConfigError(f"model.frozen: {part} has random weights: name a run in task.{part}_from, or train it")
    for _ in _matched(task, model):
        pass


@torch.no_grad()
def copy_part_weights(task: object, model: nn.Module) -> None:
    """Copy the weights of earlier runs into the parts of a model, where the task names some.

    Raises:
        ConfigError, CheckpointError: as ``check_part_weights``.
    """
    if isinstance(task, CaptioningTask) and isinstance(model, PrefixedTransformer):
        for ours, theirs in _matched(task, model):
            ours.copy_(theirs)


def _matched(task: CaptioningTask, model: PrefixedTransformer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each weight of the parts that start from a run, with the run's."""
    for part, run in (("encoder", task.encoder_from), ("decoder", task.decoder_from)):
        if run is None:
            continue
        given = _weights(part, run, model)
        for name, ours in getattr(model, part).state_dict().items():
            if name not in given or given[name].shape != ours.shape:
                theirs = f"shape {tuple(given[name].shape)}" if name in given else "no such weight"
                raise ConfigError(
                    f"task.{part}_from: {run} has {theirs} for {name!r}, and model.{part} has {tuple(ours.shape)}: "
                    "give both the same settings (dragoman config show)"
                )
            yield ours, given[name]


def _weights(part: str, run: str, model: PrefixedTransformer) -> Mapping[str, Tensor]:
    _, theirs, _ = load_any(run, "best")
    if isinstance(theirs, TwoTowers):
        kind = type(model.cfg.encoder.inputs)
        theirs = theirs.first if isinstance(theirs.first.cfg.inputs, kind) else theirs.second
    wanted = Encoder if part == "encoder" else Transformer
    if not isinstance(theirs, wanted) or (isinstance(theirs, Transformer) and theirs.cfg.encoder is not None):
        raise ConfigError(
            f"task.{part}_from: {run} has a model of the kind {kind_of(type(theirs.cfg))}, and an encoder of images is "
            "needed"
            if part == "encoder"
            else f"task.{part}_from: {run} is no language model with a decoder alone"
        )
    return theirs.state_dict()
