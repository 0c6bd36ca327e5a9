"""Size of a model that a training can fill: parameters for the tokens that it will read.

With a fixed amount of compute, the loss is lowest where a model of N parameters reads some multiple of N tokens
(Hoffmann et al., arXiv:2203.15556): a larger model makes too few steps, a smaller one cannot use them. The multiple
here is that of small translators, measured in minutes (LOG.md), not that of large language models. Tokens that are read
again count less (Muennighoff et al., arXiv:2305.16264, equation 5).
"""

import math
from typing import Any

from dragoman.config import from_dict
from dragoman.data.tasks import LanguageModellingTask, TranslationTask
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.plan.parameters import count_parameters
from dragoman.plan.prediction import RunPrediction
from dragoman.presets import PRESETS
from dragoman.train.budget import Minutes
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import TaskData

ENOUGH = 2.5
"""Tokens read for each parameter between embeddings and output, on one side, from which a larger model ends better."""
REPEATS = 15.4
"""Passes over a text after which further ones teach a third of what new text would (their R_D*)."""
SMALLER = {
    TranslationTask: ("transformer-tiny", "transformer-small", "transformer-2026"),
    LanguageModellingTask: ("lm-tiny", "lm-small"),
}
"""Presets by task, smallest first."""


def effective_tokens(tokens: float, epochs: float) -> float:
    """Return the new tokens that teach as much as ``tokens`` read in a number of ``epochs``."""
    if epochs <= 1:
        return tokens
    unique, repeats = tokens / epochs, epochs - 1
    return unique * (1 + REPEATS * (1 - math.exp(-repeats / REPEATS)))


def hidden_parameters(model: Any) -> int:
    """Return the parameters of a model configuration between input layers and outputs; ``model`` has its vocabulary."""
    with on_meta_device():
        return count_parameters(model.build()).hidden


def tokens_for_each_parameter(tokens: float, epochs: float, parameters: int, *, sides: int) -> float:
    """Return the tokens of one side that a training reads for each parameter, repeated ones discounted."""
    return effective_tokens(tokens, epochs) / sides / max(1, parameters)


def advice(cfg: RunConfig, data: TaskData, prediction: RunPrediction) -> str:
    """Return whether a budget in minutes suffices for this model, and which preset would end better; empty where it
    does or is not known."""
    names = SMALLER.get(type(cfg.task), ())
    if not names or not isinstance(cfg.train.budget, Minutes):
        return ""
    parameters = count_parameters(data.outline(cfg)).hidden
    sides = 2 if isinstance(cfg.task, TranslationTask) else 1
    ratio = tokens_for_each_parameter(prediction.tokens, prediction.epochs, parameters, sides=sides)
    if ratio >= ENOUGH:
        return ""
    smaller = [name for name in names if _parameters_of(name) < 0.7 * parameters]
    if not smaller:
        return f"short for any model: {ratio:.2g} tokens a parameter, {ENOUGH:g} are better: give it more minutes"
    # time for a token is in proportion to the parameters, so the ratio grows with their square
    filled = [name for name in smaller if ratio * (parameters / _parameters_of(name)) ** 2 >= ENOUGH]
    better = filled[-1] if filled else smaller[0]
    auto = ", or preset=auto" if isinstance(cfg.task, TranslationTask) else ""
    return (
        f"short for this model: {ratio:.2g} tokens a parameter, {ENOUGH:g} are better; "
        f"a smaller model would end better: preset={better}{auto}"
    )


def _parameters_of(preset: str) -> int:
    given = PRESETS[preset]()
    return hidden_parameters(from_dict(ModelConfig, given["model"]).sized(vocab=1000, source_vocab=None))
