"""Warm start: initialise a run with the weights of an earlier run or import, to fine-tune all of it, parts, or
adapters."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dragoman import durable
from dragoman.checkpoint import RunDirectory, run_and_checkpoint
from dragoman.config import CheckpointName, config
from dragoman.errors import ConfigError
from dragoman.interchange.importing import ORIGIN, origin_vocabulary
from dragoman.interchange.vocabulary import share_beginning
from dragoman.model.lora import Lora, trainable_weights
from dragoman.model.names import check_patterns, matches
from dragoman.text.chat_template_files import FILE as CHAT_TEMPLATE
from dragoman.text.tokens.extension import Kept, VocabularyConfig, decompose_new_entries
from dragoman.text.tokens.tokenizer import Tokenizer

TABLES = ("*tokens.weight", "output.*", "head.output.*")
"""Patterns of the weights that may have a row for each entry of the vocabulary."""


@config
class WarmStart:
    """Earlier run to start from, and which of its weights are reset, frozen or adapted."""

    run: str
    """Directory of the run or import whose model, tokenizers and weights this run starts from, or one of its
    checkpoints; the run file's model settings override that one's."""
    checkpoint: CheckpointName = "best"
    """Checkpoint to start from: best, last, a step, or a checkpoint's name."""
    new: tuple[str, ...] = ()
    """Weights that are initialised anew, by name, such as head.*; a * matches any text. Of a tied weight, any of its
    names."""
    frozen: tuple[str, ...] = ()
    """Weights that stay as they are, such as inputs.* or encoder.*."""
    lora: Lora | None = None
    """Low-rank adapters, trained in place of the weights; None to train everything that is not frozen."""
    vocabulary: VocabularyConfig = Kept()
    """Additional vocabulary for the tokenizers, for a new domain or language."""

    @property
    def earlier(self) -> RunDirectory:
        """The earlier run.

        Raises:
            CheckpointError: no such run.
        """
        return run_and_checkpoint(self.run, self.checkpoint)[0]

    # ---- text -------------------------------------------------------------------------------------

    def tokenizers(self, sources: Iterable[str] = (), targets: Iterable[str] = ()) -> tuple[Tokenizer, Tokenizer]:
        """Return the earlier run's tokenizers, extended from these texts if configured; one object where the run shares
        it.

        Raises:
            ConfigError: the texts yield fewer new pieces than configured.
        """
        source, target = self.earlier.tokenizers()
        if source is target:
            joint = self.vocabulary.extended(target, (text for side in (sources, targets) for text in side))
            return joint, joint
        return self.vocabulary.extended(source, sources), self.vocabulary.extended(target, targets)

    # ---- checks before the run --------------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Check that a ``model`` on the meta device fits the earlier weights; its vocabulary may grow later.

        Raises:
            ConfigError: see ``begin``.
            CheckpointError: no such run or checkpoint.
        """
        earlier, checkpoint = run_and_checkpoint(self.run, self.checkpoint)
        given = earlier.shapes(checkpoint)
        check_patterns(self.new, model.state_dict(), where="start_from.new")
        begun = self._new(model)
        for name, tensor in model.state_dict().items():
            if name not in begun:
                theirs = self._given(name, given)
                if theirs[1:] != tensor.shape[1:] or not (theirs == tensor.shape or self._may_grow(name)):
                    raise self._misfit(name, theirs, tensor.shape)
        self._limit(model)

    # ---- the model --------------------------------------------------------------------------------

    def begin(self, model: nn.Module, run: RunDirectory, *, new_run: bool) -> None:
        """Prepare ``model`` for fine-tuning: adapters and frozen weights.

        If the run is new (``new_run``), also copy the weights into the model, and into the directory of the ``run`` the
        files it has to keep of the earlier one.

        Raises:
            ConfigError: a weight that is missing or has another shape, and is not reset; a pattern that matches no
                weight; nothing left to train.
            CheckpointError: no such run or checkpoint, or a damaged one.
        """
        if new_run:
            _copy_files(self.earlier, run)
            self._fill(model, run)
        self._limit(model)
        if (vocabulary := origin_vocabulary(run)) and vocabulary.bos is None:
            share_beginning(model, vocabulary)
        if new_run and self.lora:
            own = trainable_weights(model)
            run.write_base({name: value for name, value in model.state_dict().items() if name not in own})

    @torch.no_grad()
    def _fill(self, model: nn.Module, run: RunDirectory) -> None:
        """Copy the weights, by name. Rows for new pieces are the mean of the rows of their old pieces (Gee et al.,
        arXiv:2402.09977)."""
        earlier, checkpoint = run_and_checkpoint(self.run, self.checkpoint)
        given = earlier.weights(checkpoint).tensors["model"]
        pairs = zip(earlier.tokenizers(), run.tokenizers(), strict=True) if earlier.tokenizer_files() else ()
        grown = [_Grown(old, new) for old, new in pairs if not isinstance(self.vocabulary, Kept)]
        begun = self._new(model)
        for name, tensor in model.state_dict().items():
            if name in begun:
                continue
            theirs = self._given(name, given)
            if theirs.shape != tensor.shape and grown and self._may_grow(name):
                theirs = grown[not name.startswith("source_")].rows(theirs)
            if theirs.shape != tensor.shape:
                raise self._misfit(name, theirs.shape, tensor.shape)
            tensor.copy_(theirs)

    def _new(self, model: nn.Module) -> set[str]:
        """Return the names of the weights that are initialised anew. Of a tied weight these are all its names, if any
        one matches."""
        named = model.state_dict(keep_vars=True)  # a tied weight is one object under several names
        anew = {id(tensor) for name, tensor in named.items() if matches(name, self.new)}
        return {name for name, tensor in named.items() if id(tensor) in anew}

    def _limit(self, model: nn.Module) -> None:
        """Add the adapters and freeze the frozen weights."""
        if self.lora:
            self.lora.adapt(model, also=self.new)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        check_patterns(self.frozen, parameters, where="start_from.frozen")
        begun = self._new(model)
        for name, parameter in parameters.items():
            if not matches(name, self.frozen):
                continue
            if name in begun:
                raise ConfigError(
                    f"start_from.frozen: {name} begins anew (start_from.new), as does every weight that is tied to "
                    "such a one: frozen, it would stay random"
                )
            parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise ConfigError("start_from.frozen: nothing is left to train: freeze less")

    # ---- mismatches -------------------------------------------------------------------------------

    def _may_grow(self, name: str) -> bool:
        return not isinstance(self.vocabulary, Kept) and matches(name, TABLES)

    def _given(self, name: str, given: Mapping[str, Any]) -> Any:
        if name not in given:
            raise ConfigError(f"start_from: {self.run} has no {name!r}: add it to start_from.new to initialise it anew")
        return given[name]

    def _misfit(self, name: str, theirs: Sequence[int], ours: Sequence[int]) -> ConfigError:
        return ConfigError(
            f"start_from: {name!r} has the shape {tuple(theirs)} in {self.run} and {tuple(ours)} in this model: make "
            "the model match, or add it to start_from.new to initialise it anew"
        )


class _Grown:
    """Rows of an embedding table for a tokenizer that has grown."""

    def __init__(self, old: Tokenizer, new: Tokenizer):
        self.parts = decompose_new_entries(old, new)

    def rows(self, given: Tensor) -> Tensor:
        """Return the ``given`` rows and one for each new piece."""
        exact = given.float()
        further = [exact[ids].mean(dim=0) if ids else exact.mean(dim=0) for ids in self.parts]
        return torch.cat([given, torch.stack(further).to(given.dtype)])


def _copy_files(earlier: RunDirectory, run: RunDirectory) -> None:
    """Copy the small files of an import, so that an export still has its layout, and the run's own chat template."""
    if (template := earlier.path / CHAT_TEMPLATE).is_file() and not (run.path / CHAT_TEMPLATE).exists():
        durable.replace(run.path / CHAT_TEMPLATE, template.read_bytes())
    if (earlier.path / ORIGIN).is_dir() and not (run.path / ORIGIN).exists():
        with durable.folder(run.path / ORIGIN) as partial:
            shutil.copytree(earlier.path / ORIGIN, partial, dirs_exist_ok=True)
