"""Beginning with the weights of an earlier run or import: fine-tuning, of all, of parts, of adapters."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.interchange.importing import ORIGIN, origin_vocabulary
from dragoman.interchange.vocabulary import share_beginning
from dragoman.model.lora import Lora, trainable_weights
from dragoman.model.names import check_patterns, matches
from dragoman.text.tokens.extension import Kept, VocabularyConfig, parts
from dragoman.text.tokens.tokenizer import Tokenizer

TABLES = ("*tokens.weight", "output.*", "head.output.*")
"""Weights that may have a row for each entry of the vocabulary."""


@config
class WarmStart:
    run: str
    """Directory of the run or import whose model, tokenizers and weights this one begins with; what the run file says
    of the model is laid over that one's."""
    checkpoint: str = "best"
    """best, last, or the name of a checkpoint."""
    new: tuple[str, ...] = ()
    """Weights that begin anew, by name, such as head.*; a * stands for any text."""
    frozen: tuple[str, ...] = ()
    """Weights that stay as they are, such as inputs.* or encoder.*."""
    lora: Lora | None = None
    """Low-rank adapters, which learn in place of the weights; None to learn all that is not frozen."""
    vocabulary: VocabularyConfig = Kept()
    """Whether the tokenizers get further pieces, for a new domain or language."""

    # ---- text -------------------------------------------------------------------------------------

    def tokenizers(self, sources: Iterable[str] = (), targets: Iterable[str] = ()) -> tuple[Tokenizer, Tokenizer]:
        """The earlier run's, which learn from these texts if they are to grow; one object where it has one for both.

        Raises:
            ConfigError: more pieces than the texts yield.
        """
        source, target = RunDirectory.open(self.run).tokenizers()
        if source is target:
            joint = self.vocabulary.grown(target, (text for side in (sources, targets) for text in side))
            return joint, joint
        return self.vocabulary.grown(source, sources), self.vocabulary.grown(target, targets)

    # ---- before anything is begun -----------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Look for what does not fit a ``model`` that is there in shape alone; its vocabulary may yet grow.

        Raises:
            ConfigError: as ``begin``.
            CheckpointError: no such run or checkpoint.
        """
        given = RunDirectory.open(self.run).shapes(self.checkpoint)
        check_patterns(self.new, model.state_dict(), where="start_from.new")
        for name, tensor in model.state_dict().items():
            if not matches(name, self.new):
                theirs = self._given(name, given)
                if theirs[1:] != tensor.shape[1:] or not (theirs == tensor.shape or self._may_grow(name)):
                    raise self._misfit(name, theirs, tensor.shape)
        self._limit(model)

    # ---- the model --------------------------------------------------------------------------------

    def begin(self, model: nn.Module, run: RunDirectory, *, anew: bool) -> None:
        """Make ``model`` one that learns what it is to learn, and, if the run begins ``anew``, copy the weights into it
        and into the directory of the ``run`` what that has to keep of the earlier one.

        Raises:
            ConfigError: a weight that is not there or has another shape, and is not to begin anew; a pattern that is
                the name of no weight; nothing left to learn.
            CheckpointError: no such run or checkpoint, or a damaged one.
        """
        if anew:
            _hand_on(RunDirectory.open(self.run), run)
            self._fill(model, run)
        self._limit(model)
        if (vocabulary := origin_vocabulary(run)) and vocabulary.bos is None:
            share_beginning(model, vocabulary)
        if anew and self.lora:
            own = trainable_weights(model)
            run.write_base({name: value for name, value in model.state_dict().items() if name not in own})

    @torch.no_grad()
    def _fill(self, model: nn.Module, run: RunDirectory) -> None:
        """Copy the weights, by name; rows for further pieces are the mean of what they are made of (Gee et al.,
        arXiv:2402.09977)."""
        earlier = RunDirectory.open(self.run)
        given = earlier.weights(self.checkpoint).tensors["model"]
        pairs = zip(earlier.tokenizers(), run.tokenizers(), strict=True) if earlier.tokenizer_files() else ()
        grown = [_Grown(old, new) for old, new in pairs if not isinstance(self.vocabulary, Kept)]
        for name, tensor in model.state_dict().items():
            if matches(name, self.new):
                continue
            theirs = self._given(name, given)
            if theirs.shape != tensor.shape and grown and self._may_grow(name):
                theirs = grown[not name.startswith("source_")].rows(theirs)
            if theirs.shape != tensor.shape:
                raise self._misfit(name, theirs.shape, tensor.shape)
            tensor.copy_(theirs)

    def _limit(self, model: nn.Module) -> None:
        """What is to learn of it."""
        if self.lora:
            self.lora.adapt(model, also=self.new)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        check_patterns(self.frozen, parameters, where="start_from.frozen")
        for name, parameter in parameters.items():
            if matches(name, self.frozen):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise ConfigError("start_from.frozen: nothing is left to train: freeze less")

    # ---- what does not fit ------------------------------------------------------------------------

    def _may_grow(self, name: str) -> bool:
        return not isinstance(self.vocabulary, Kept) and matches(name, TABLES)

    def _given(self, name: str, given: Mapping[str, Any]) -> Any:
        if name not in given:
            raise ConfigError(
                f"start_from: {self.run} has no {name!r}: add it to start_from.new if it is to begin anew"
            )
        return given[name]

    def _misfit(self, name: str, theirs: Sequence[int], ours: Sequence[int]) -> ConfigError:
        return ConfigError(
            f"init: {name!r} has the shape {tuple(theirs)} in {self.run} and {tuple(ours)} in this model: make the "
            "model alike, or add it to start_from.new if it is to begin anew"
        )


class _Grown:
    """Rows of a table for a tokenizer that has grown."""

    def __init__(self, old: Tokenizer, new: Tokenizer):
        self.parts = parts(old, new)

    def rows(self, given: Tensor) -> Tensor:
        """Those ``given``, and one for each further piece."""
        exact = given.float()
        further = [exact[ids].mean(dim=0) if ids else exact.mean(dim=0) for ids in self.parts]
        return torch.cat([given, torch.stack(further).to(given.dtype)])


def _hand_on(earlier: RunDirectory, run: RunDirectory) -> None:
    """The small files of an import, so that an export still has its layout."""
    if (earlier.path / ORIGIN).is_dir() and not (run.path / ORIGIN).exists():
        with durable.folder(run.path / ORIGIN) as partial:
            shutil.copytree(earlier.path / ORIGIN, partial, dirs_exist_ok=True)
