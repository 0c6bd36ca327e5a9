"""What a trained model can be asked for, and the command that asks: said where a run is asked for something else."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dragoman.errors import CheckpointError
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, SpansHead, TaggingHead
from dragoman.model.transformer import TransformerConfig


@dataclass(frozen=True)
class Ability:
    does: str
    """What the model does, as it follows on "its model"."""
    command: str


CONTINUES = Ability("continues text", "generate")
TRANSLATES = Ability("reads a text and writes another", "translate")
CLASSIFIES = Ability("tells the label of a whole input", "classify")
TAGS = Ability("tells the label of each word", "tag")
ANSWERS = Ability("finds the answer to a question in a text", "answer")
EMBEDS = Ability("turns what it reads into vectors", "embed")

_OF_HEADS = {ClassificationHead: CLASSIFIES, TaggingHead: TAGS, SpansHead: ANSWERS}


def ability(cfg: object) -> Ability | None:
    """What the model of a configuration is for; None for one of a family that is not known here."""
    if isinstance(cfg, TransformerConfig):
        return TRANSLATES if cfg.encoder else CONTINUES
    if isinstance(cfg, EncoderConfig):
        return _OF_HEADS.get(type(cfg.head), EMBEDS)
    return EMBEDS if isinstance(cfg, TwoTowersConfig) else None


def wrong_command_error(run: str | Path, model: nn.Module) -> CheckpointError:
    """What to say where the model of ``run`` is asked for what it does not do."""
    found = ability(getattr(model, "cfg", None))
    return CheckpointError(
        f"{run}: its model {found.does}: use `dragoman {found.command}`"
        if found
        else f"{run}: its model does something else: choose another run"
    )


def check(run: str | Path, model: nn.Module, wanted: Ability) -> None:
    """
    Raises:
        CheckpointError: the model of ``run`` is for something else; the message names the command for it.
    """
    if ability(getattr(model, "cfg", None)) not in (wanted, None):
        raise wrong_command_error(run, model)
