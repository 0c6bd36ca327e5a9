"""Subject of ``dragoman plan``: a preset, a run file, a run, or an imported folder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.errors import ConfigError
from dragoman.model.meta_device import on_meta_device

if TYPE_CHECKING:
    from torch import nn

    from dragoman.train.recipe import RunConfig

_NO_DATA = {"data": {"train": [{"kind": "table", "path": "corpus.tsv"}]}}
"""Stands for the text that a plan does not read."""
USUAL_VOCABULARY = 8000
USUAL_LENGTH, USUAL_SENTENCE = 1024, 32
"""Tokens of a text and of a sentence of a pair, where nothing says more."""


@dataclass(frozen=True)
class PlanSubject:
    """A model, and how it is trained."""

    name: str
    cfg: "RunConfig"
    task: Any
    model: Any
    """Configuration with its vocabulary and classes."""
    trained: bool
    """True where a recipe says how the model is trained."""

    def outline(self, *, products: str = "torch") -> "nn.Module":
        """Build the model on the meta device, as training sets it up.

        Raises:
            ConfigError: sizes that do not fit one another, with the path.
        """

        from dragoman.model.layer_stack import LayerStack
        from dragoman.model.linear import multiply_by

        with on_meta_device():
            model = self.model.build()
        multiply_by(model, "torch" if products == "auto" else products)  # pyright: ignore[reportArgumentType]
        for module in model.modules():
            if isinstance(module, LayerStack):
                module.recompute = self.cfg.train.recompute
        return model

    @property
    def reads_pairs(self) -> bool:
        """True where its training text is pairs."""
        from dragoman.data.tasks import ContrastiveTask, TranslationTask

        return isinstance(self.task, TranslationTask | ContrastiveTask)

    def usual_length(self) -> int:
        """Return the tokens of a text: the task's context, the longest that the model takes, or the usual number."""
        from dragoman.plan.synthetic import longest_text

        if self.trained and (context := getattr(self.task, "context", None)):
            return context
        usual = USUAL_SENTENCE if getattr(self.model, "translates", False) else USUAL_LENGTH
        longest = longest_text(self.model)
        if longest is None:
            return usual
        return longest if not self.trained and not getattr(self.model, "translates", False) else min(usual, longest)


def find_subject(name: str, settings: Sequence[str]) -> PlanSubject:
    """Return what ``name`` names, with ``settings`` (PATH=VALUE) on top.

    Raises:
        ConfigError: nothing has that name, a file that is wrong, or sizes that do not fit.
        CheckpointError: a folder that is no run.
    """
    from dragoman.config import unknown
    from dragoman.presets import PRESETS
    from dragoman.train.recipe import load

    if os.path.isdir(name):
        return _of_run(name, settings)
    if name in PRESETS:
        return _subject(name, load({"preset": name, **_NO_DATA}, settings), "task" in PRESETS[name]())
    if os.path.exists(name) or name.endswith((".yaml", ".yml")):
        return _subject(name, load(name, settings), True)
    raise ConfigError(unknown("plan: preset, run file or run", name, PRESETS))


def _of_run(name: str, settings: Sequence[str]) -> PlanSubject:
    from dataclasses import fields

    from dragoman.checkpoint import run_config
    from dragoman.cli.options import resolve_run
    from dragoman.train.recipe import RunConfig, load

    config = run_config(resolve_run(Path(name)))
    known = {field.name for field in fields(RunConfig)} - {"start_from", "data"}
    plain = {key: value for key, value in config.items() if key in known and value is not None}
    return _subject(name, load(plain | _NO_DATA, settings), "task" in config)


def _subject(name: str, cfg: "RunConfig", trained: bool) -> PlanSubject:
    from dragoman.model.interface import SequenceConfig

    vocabulary = getattr(cfg.tokenizer, "vocab", USUAL_VOCABULARY)
    model: Any = cfg.model
    if isinstance(model, SequenceConfig):
        own = getattr(cfg.target_tokenizer, "vocab", None)
        model = model.sized(
            vocab=model.vocab or own or vocabulary,
            source_vocab=model.source_vocab or (vocabulary if own else None),
        )
    else:
        model = model.sized(vocab=None if _has_vocabulary(model) else vocabulary, classes=_classes(cfg, model))
    return PlanSubject(name, cfg, _task(cfg, model, trained), model, trained)


def _task(cfg: "RunConfig", model: Any, trained: bool) -> Any:
    """Return the task of a run, or the usual one of a model that was imported without a task of its own."""
    from dragoman.data.tasks import ContrastiveTask
    from dragoman.model.contrastive import TwoTowersConfig
    from dragoman.plan.synthetic import task_for

    own = isinstance(cfg.task, ContrastiveTask) == isinstance(model, TwoTowersConfig)
    return cfg.task if trained and own else task_for(model)


def _has_vocabulary(model: Any) -> bool:
    towers = [tower for tower in (getattr(model, "first", None), getattr(model, "second", None), model) if tower]
    return any(getattr(getattr(tower, "inputs", None), "vocab", None) is not None for tower in towers)


def _classes(cfg: "RunConfig", model: Any) -> int | None:
    if getattr(getattr(model, "head", None), "classes", 0) is not None:
        return None
    return len(getattr(cfg.task, "labels", None) or (0, 0))
