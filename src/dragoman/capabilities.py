"""Tasks of each kind of model and the command for each; used in the error for the wrong command."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dragoman.errors import CheckpointError
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, SpansHead, TaggingHead
from dragoman.model.inputs import FrameInput
from dragoman.model.interface import SequenceConfig
from dragoman.model.prefixed import PrefixedTransformerConfig
from dragoman.model.transformer import TransformerConfig


@dataclass(frozen=True)
class Ability:
    """Task of a model."""

    does: str
    """Description that continues "its model ..."."""
    command: str
    """Command for it."""


CONTINUES = Ability("continues text", "generate")
DESCRIBES = Ability("continues an image with text", "generate")
TRANSLATES = Ability("reads a text and writes another", "translate")
TRANSCRIBES = Ability("writes down what is said in a recording", "transcribe")
CLASSIFIES = Ability("tells the label of a whole input", "classify")
TAGS = Ability("tells the label of each word", "tag")
ANSWERS = Ability("finds the answer to a question in a text", "answer")
EMBEDS = Ability("turns what it reads into vectors", "embed")

_OF_HEADS = {ClassificationHead: CLASSIFIES, TaggingHead: TAGS, SpansHead: ANSWERS}


def ability(cfg: object) -> Ability | None:
    """Return the task of a configuration's model; None for an unknown family."""
    if isinstance(cfg, PrefixedTransformerConfig):
        return DESCRIBES
    if isinstance(cfg, TransformerConfig) and isinstance(cfg.source, FrameInput):
        return TRANSCRIBES
    if isinstance(cfg, SequenceConfig):
        return TRANSLATES if cfg.translates else CONTINUES
    if isinstance(cfg, EncoderConfig):
        return _OF_HEADS.get(type(cfg.head), EMBEDS)
    return EMBEDS if isinstance(cfg, TwoTowersConfig) else None


def wrong_command_error(run: str | Path, model: nn.Module) -> CheckpointError:
    """Return the error for a command that the model of ``run`` does not support; it names the right one."""
    found = ability(getattr(model, "cfg", None))
    return CheckpointError(
        f"{run}: its model {found.does}: use `dragoman {found.command}`"
        if found
        else f"{run}: its model does something else: choose another run"
    )


def check(run: str | Path, model: nn.Module, wanted: Ability) -> None:
    """Check that the model of ``run`` supports a command.

    Raises:
        CheckpointError: it is for another task; the message names the right command.
    """
    if ability(getattr(model, "cfg", None)) not in (wanted, None):
        raise wrong_command_error(run, model)
