"""Signs that the explanation of an answer is weak: attributions that disagree, or that the source explains little.

    from dragoman import inspect

    inspect.explanation_features(subject, source, ids)     # five numbers, named in EXPLANATION_FEATURES

S source tokens, T target tokens, F features.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dragoman.inspect.attribution import ExplainedAnswer, gradient_x_input, occlusion
from dragoman.inspect.places import places
from dragoman.inspect.subject import Subject
from dragoman.inspect.trace import trace_inputs

EXPLANATION_FEATURES = (
    "disagreement of occlusion and gradient",
    "disagreement of occlusion and cross-attention",
    "spread of occlusion over the source",
    "effect of the whole source on a token",
    "lowest effect of the source on a token",
)


def explanation_features(subject: Subject, source: str, target: Sequence[int]) -> Float[np.ndarray, " F"]:
    """Return the features of a translation, scaled to about the same size.

    Args:
        target: ids of the translation, with its end.

    Raises:
        DataError: a text that the model cannot read.
    """
    answer = ExplainedAnswer(subject, subject.inputs(source, target))
    chosen = answer.occludable
    fall = occlusion(answer).scores[chosen]
    slope = gradient_x_input(answer).scores[chosen]
    attention = _cross_attention(answer)[:, chosen].T
    taken = np.zeros((1, answer.count), bool)
    taken[0, chosen] = True
    whole = answer.log_probabilities - answer.without(taken, answer.baseline("mean"))[0]
    return np.array(
        [
            disagreement(fall, slope),
            disagreement(fall, attention),
            _spread(np.maximum(fall, 0)),
            float(whole.mean()) / 8,
            float(whole.min()) / 8,
        ]
    )


def disagreement(first: Float[np.ndarray, "S T"], second: Float[np.ndarray, "S T"]) -> float:
    """Return 1 - the rank correlation of two attributions, a mean over outputs; 1 where one source token is all."""
    if len(first) < 2:
        return 1.0
    ranks = [_ranks(one) for one in (first, second)]
    centred = [one - one.mean(axis=0) for one in ranks]
    size = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
    return float(1 - ((centred[0] * centred[1]).sum(axis=0) / np.maximum(size, 1e-9)).mean())


def _ranks(scores: Float[np.ndarray, "S T"]) -> Float[np.ndarray, "S T"]:
    return scores.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").astype(np.float64)


def _spread(mass: Float[np.ndarray, "S T"]) -> float:
    """Return the entropy of a distribution over the source, as a part of the largest, a mean over outputs."""
    share = (mass + 1e-9) / (mass + 1e-9).sum(axis=0)
    return float(-(share * np.log(share)).sum(axis=0).mean() / np.log(max(2, len(mass))))


def _cross_attention(answer: ExplainedAnswer) -> Float[np.ndarray, "T S"]:
    """Return the mean weights of the last two layers that attend to the source; equal ones without any."""
    names = [name for name in places(answer.model) if name.endswith(".cross.weights")][-2:]
    if not names:
        return np.full((len(answer.outputs), answer.count), 1 / answer.count)
    seen = trace_inputs(answer.model, answer.given.arguments, names)
    return np.mean([seen[name][0].mean(axis=0) for name in names], axis=0)
