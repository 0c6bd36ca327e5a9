"""``preset: auto``: model, vocabulary and batch of a translator, from the size of the text, the time, and the machine.

Models of several sizes, from small to large, are timed on this machine without building them, on batches of the text's
lengths. The largest one that can still read enough tokens in the time is chosen (``sizing.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dragoman.config import kind_of, merge
from dragoman.data.batch import PairBatch
from dragoman.errors import ConfigError
from dragoman.machine import choose_device, choose_precision, choose_products, keep_memory, return_memory
from dragoman.model.linear import multiply_by
from dragoman.model.meta_device import on_meta_device
from dragoman.plan import duration, here
from dragoman.plan.replay import RecordedStep
from dragoman.plan.training import count_training
from dragoman.plan.training_memory import training_memory
from dragoman.presets.translation import MUON, recipe2026, rewritten2026
from dragoman.text.amount import count_tokens, count_words
from dragoman.text.formats.pairs import read_pairs
from dragoman.train.budget import Minutes
from dragoman.train.prediction import available_on
from dragoman.train.recipe import AUTO, PairsConfig, RunConfig, chosen_preset, load, writer
from dragoman.train.sizing import ENOUGH, hidden_parameters, tokens_for_each_parameter

MINUTES = 30.0
"""Time to learn where none is given."""
VOCABULARIES = ((0, 2000), (50_000, 4000), (1_500_000, 8000), (10_000_000, 16_000), (50_000_000, 32_000))
"""Words of a side, and the entries of a vocabulary that is learned from as many."""
DROPOUTS = ((0.0, 0.1), (15.0, 0.2), (40.0, 0.3))
"""Passes over the text, and the dropout that they call for."""
MEASURE = 1.5
"""Seconds that the operations of each model are timed for, about."""


@dataclass(frozen=True)
class ModelSize:
    """Size of a model, with the recipe that goes with it."""

    dim: int
    depth: int
    heads: int
    peak: float
    batch_tokens: int
    warmup: int

    @property
    def description(self) -> str:
        return f"width {self.dim}, {self.depth} + {self.depth} layers"

    def recipe(self, vocab: int, dropout: float = 0.1) -> dict[str, Any]:
        """Return the preset: today's Transformer of this size and its recipe."""
        model = rewritten2026(
            dim=self.dim,
            heads=self.heads,
            kv_heads=min(2, self.heads // 2),
            hidden=3 * self.dim,
            depth=self.depth,
            dropout=dropout,
        )
        return recipe2026(
            model,
            vocab=vocab,
            peak=self.peak,
            steps=10_000,
            warmup=self.warmup,
            batch_tokens=self.batch_tokens,
            optimizer=MUON,
        )


MODEL_SIZES = (
    ModelSize(dim=64, depth=2, heads=2, peak=1.3e-2, batch_tokens=1024, warmup=200),
    ModelSize(dim=128, depth=3, heads=4, peak=1e-2, batch_tokens=1024, warmup=300),  # transformer-tiny
    ModelSize(dim=192, depth=3, heads=6, peak=8e-3, batch_tokens=1024, warmup=300),
    ModelSize(
        dim=256, depth=4, heads=4, peak=7e-3, batch_tokens=2048, warmup=500
    ),  # transformer-small, smaller batches
    ModelSize(dim=384, depth=5, heads=6, peak=5e-3, batch_tokens=4096, warmup=1000),
    ModelSize(dim=512, depth=6, heads=8, peak=3e-3, batch_tokens=8192, warmup=2000),  # transformer-2026
)
"""Models from which ``preset: auto`` chooses."""


@dataclass(frozen=True)
class TextSize:
    """Amount of parallel text."""

    pairs: int
    words: int
    """Words on the side with more of them."""

    @property
    def vocab(self) -> int:
        return [vocab for least, vocab in VOCABULARIES if self.words >= least][-1]

    def tokens(self, vocab: int) -> float:
        """Return about how many tokens a side has: see ``count_tokens``."""
        return count_tokens(self.words, vocab, self.pairs)


@dataclass(frozen=True)
class ModelCandidate:
    """Training of a model of one size in the time that there is."""

    size: ModelSize
    steps: int
    epochs: float
    ratio: float
    """Tokens read for each parameter: see ``sizing.py``."""
    fits: bool
    """True if memory suffices."""


@dataclass(frozen=True)
class Chosen:
    """Settings of a run in the place of ``preset: auto``, and why."""

    given: dict[str, Any]
    reasons: tuple[str, ...]


def is_automatic(given: Mapping[str, Any], settings: Sequence[str] = ()) -> bool:
    """Return True if the last preset that is named is ``auto``."""
    return chosen_preset(given.get("preset"), settings)[0] == AUTO


def without_preset(settings: Sequence[str]) -> list[str]:
    """Return the ``settings`` that name no preset."""
    return chosen_preset(None, settings)[1]


def as_chosen(
    given: Mapping[str, Any], settings: Sequence[str], config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the run file ``given`` and the ``settings`` with what was chosen when the run began, which its ``config``
    holds, in the place of ``preset: auto``."""
    return merge(config, {name: value for name, value in given.items() if name != "preset"}), without_preset(settings)


def choose(given: Mapping[str, Any], settings: Sequence[str] = ()) -> Chosen:
    """Return the run file ``given`` with the chosen model and recipe in the place of ``preset: auto``.

    Args:
        given: content of a run file; what it sets beside the preset stays.
        settings: assignments on top; they decide the budget and the machine's settings, too.

    Raises:
        ConfigError: the task is no translation of pairs, or a model is given as well.
    """
    rest = {name: value for name, value in given.items() if name != "preset"}
    settings = without_preset(settings)
    if "model" in rest:
        raise ConfigError("preset: auto chooses the model: leave model out, or name another preset")
    if "budget" not in rest.get("train", {}):
        rest = merge(rest, {"train": {"budget": {"kind": "minutes", "minutes": MINUTES}}})
    cfg = load({"preset": "transformer-tiny", **rest}, settings)
    if not isinstance(cfg.data, PairsConfig):
        raise ConfigError(f"preset: auto is for translation, not for {kind_of(type(cfg.data))}: name another preset")
    text = measure_text(cfg.data)
    candidates = list(_candidates(cfg, text))
    chosen = _chosen(candidates)
    dropout = [value for least, value in DROPOUTS if chosen.epochs >= least][-1]
    recipe = chosen.size.recipe(text.vocab, dropout)
    return Chosen(merge(recipe, rest), tuple(_reasons(cfg, text, candidates, chosen, dropout)))


def measure_text(data: PairsConfig) -> TextSize:
    """Count the pairs and words of the training text."""
    pairs, words_of_sources, words_of_targets = 0, 0.0, 0.0
    for source in data.train:
        for pair in read_pairs(source):
            pairs += 1
            words_of_sources += count_words(pair.source)
            words_of_targets += count_words(pair.target)
    return TextSize(pairs, round(max(words_of_sources, words_of_targets)))


def _candidates(cfg: RunConfig, text: TextSize) -> list[ModelCandidate]:
    """Return what each model would do, up to the first that is too large for the time or the memory."""
    found: list[ModelCandidate] = []
    keep_memory()
    try:
        for size in MODEL_SIZES:
            found.append(_candidate(cfg, size, text))
            if found[-1].ratio < ENOUGH or not found[-1].fits:
                break
    finally:
        return_memory()
    return found


def _chosen(candidates: Sequence[ModelCandidate]) -> ModelCandidate:
    """Return the largest model that reads enough tokens and fits; the smallest where none does."""
    filled = [candidate for candidate in candidates if candidate.ratio >= ENOUGH and candidate.fits]
    return filled[-1] if filled else candidates[0]


def _candidate(cfg: RunConfig, size: ModelSize, text: TextSize) -> ModelCandidate:
    made = load(merge(size.recipe(text.vocab), {"data": {"train": []}}))
    model_config = writer(made).sized(vocab=text.vocab, source_vocab=None)
    tokens = text.tokens(text.vocab)
    length = max(2, round(tokens / max(1, text.pairs)))
    rows = max(1, made.train.batch_tokens // length)
    steps_per_epoch = max(1.0, text.pairs / rows)
    seconds, memory, available = _step(cfg, made, model_config, rows, length)
    total = cfg.train.budget.total(max(1, round(steps_per_epoch)))
    steps = max(1, round((cfg.train.budget.seconds or 0.0) / seconds)) if total is None else total
    epochs = steps / steps_per_epoch
    ratio = tokens_for_each_parameter(2 * epochs * tokens, epochs, hidden_parameters(model_config), sides=2)
    return ModelCandidate(size, steps, epochs, ratio, memory <= available)


def _step(cfg: RunConfig, made: RunConfig, model_config: Any, rows: int, length: int) -> tuple[float, int, int]:
    """Return the seconds and the memory of a step on ``rows`` pairs of ``length``, and the memory there is."""
    device = choose_device(cfg.train.device)
    precision = choose_precision(cfg.train.precision, device)
    with on_meta_device():
        model = model_config.build()
    multiply_by(model, choose_products(cfg.train.products, device, precision))
    batch, recording = PairBatch(*(torch.full((rows, length), 7) for _ in range(3))), RecordedStep.empty()
    found = count_training(
        model,
        made.task.loss,
        [batch],
        device=device,
        precision=getattr(torch, precision),
        optimizer=made.train.optimizer.build,
        observe=recording.observe,
    )
    memory = training_memory(found, averaged=made.train.average is not None).total
    if device.type != "cpu":
        return duration.predict(found.counted.operations, here.this_machine()).seconds, memory, available_on(device)
    step = here.step_here(recording, precision, within=MEASURE)
    return step.busy * (step.seconds + step.new_shapes), memory, available_on(device)


def _reasons(
    cfg: RunConfig, text: TextSize, candidates: Sequence[ModelCandidate], chosen: ModelCandidate, dropout: float
) -> list[str]:
    budget = cfg.train.budget
    time = f"{budget.minutes:g} minutes" if isinstance(budget, Minutes) else f"{kind_of(type(budget))} as given"
    lines = [f"auto: {text.pairs:,} pairs, {text.words:,} words on a side; {time} on {_machine(cfg)}"]
    for candidate in candidates:
        if candidate is chosen:
            why = "chosen"
        elif not candidate.fits:
            why = "too large for the memory"
        else:
            why = "too large for the time" if candidate.ratio < ENOUGH else "smaller than need be"
        lines.append(
            f"auto: {candidate.size.description}: {candidate.steps:,} steps, {candidate.epochs:.3g} epochs, "
            f"{candidate.ratio:.2g} tokens a parameter ({ENOUGH:g} are enough): {why}"
        )
    lines.append(
        f"auto: vocabulary {text.vocab:,}, as {text.words:,} words can teach; batches of "
        f"{chosen.size.batch_tokens:,} tokens; dropout {dropout:g} for {chosen.epochs:.3g} epochs"
    )
    return lines


def _machine(cfg: RunConfig) -> str:
    device, threads = choose_device(cfg.train.device), torch.get_num_threads()
    return "the GPU" if device.type == "cuda" else f"{threads} thread{'s' if threads > 1 else ''}"
