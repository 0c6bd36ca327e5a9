"""Roles of attention heads, what the loss loses without each, and which can be cut.

    from dragoman import inspect

    report = inspect.head_roles(subject, texts)
    for head in report.heads:
        print(head.name, head.role, head.scores, head.effect)
    report.removable                                # heads that can all be cut together

A score is the mean attention weight that a head puts where its role says. A role is given to a head whose score is
furthest above that of equal weights, if by ``MARGIN`` or more (Voita et al. 2019, arXiv:1905.09418; Olsson et al. 2022,
arXiv:2209.11895; Clark et al. 2019, arXiv:1906.04341). A role says where a head looks; the effect says whether it
matters.

H heads, Q queries, K keys.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.attribution import ExplainedAnswer, occlusion
from dragoman.inspect.interventions import Site, ablation
from dragoman.inspect.parses import ParsedSentence
from dragoman.inspect.places import Place, places
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import trace_inputs

TOLERANCE = 0.01
"""Largest rise of the loss by a cut, in nats per token, unless told otherwise."""
MARGIN = 0.2
"""Smallest distance to equal weights of a score that gives a head its role."""
DRAWS = 1000

Weights = Float[np.ndarray, "H Q K"]
Scorer = Callable[[Weights], Float[np.ndarray, " H"]]


@dataclass(frozen=True)
class HeadRole:
    """One attention head."""

    place: str
    """Place of its output."""
    head: int
    role: str
    """Name of the score that is furthest above equal weights; "none" where none is by ``MARGIN``."""
    scores: Mapping[str, float]
    """Mean weight where each role says; for alignment the part of the tokens on which the head's largest weight and
    occlusion agree, for syntax that of the words whose largest weight is on a word they belong to."""
    equal_weights: Mapping[str, float]
    """The same scores of a head with equal weights."""
    effect: float
    """Rise of the loss in nats per token when the head's output is replaced by its mean."""
    low: float
    """Interval of 95% of the effect, from a bootstrap over texts."""
    high: float

    @property
    def name(self) -> str:
        """Name of the head as a site."""
        return f"{self.place}:{self.head}"


@dataclass(frozen=True)
class HeadReport:
    """Heads of a model."""

    texts: int
    loss: float
    """Loss in nats per token with all heads."""
    heads: tuple[HeadRole, ...]
    """In the order of the forward."""
    removable: tuple[str, ...]
    """Heads that can be replaced by their means together."""
    rise: float
    """Rise of the loss without these."""
    rise_high: float
    """Upper end of its interval of 95%."""
    tolerance: float
    """Largest upper end that was allowed."""

    def plain(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        return asdict(self)


def head_roles(
    subject: Subject,
    texts: Sequence[str | Inputs],
    targets: Sequence[str] | None = None,
    parses: Sequence[ParsedSentence] = (),
    *,
    tolerance: float = TOLERANCE,
    progress: Callable[[int, int], None] | None = None,
) -> HeadReport:
    """Score every attention head, ablate each, and find those that can be cut.

    Args:
        texts: texts, or what ``Subject.inputs`` returned.
        targets: of a translator the translations whose loss is measured; None for its own. Other models: None.
        parses: parsed sentences of the language that the model reads, for syntax.
        tolerance: largest rise of the loss, in nats per token, of what may be cut.

    Raises:
        ConfigError: a model without attention heads.
        DataError: no text, or one that the model cannot read.
    """
    if not texts:
        raise DataError("texts: none are given")
    known = places(subject.model)
    found = [name for name in known if name.endswith(".heads") and known[name].shape.startswith("B H")]
    found = [name for name in found if _weights_of(name) in known]
    if not found:
        raise ConfigError("this model has no attention heads")
    read = [
        text if isinstance(text, Inputs) else subject.inputs(text, *_target(targets, i)) for i, text in enumerate(texts)
    ]
    answers = [ExplainedAnswer(subject, given) for given in read]
    scores, chance = _scores(known, found, answers, parses, subject)
    losses = _Losses(answers, found)
    heads = []
    total = sum(losses.heads.values())
    for name in found:
        for head in range(losses.heads[name]):
            rise = losses.without([Site(name, heads=(head,))]) - losses.whole
            low, high = _interval(rise)
            mine = {role: float(values[head]) for role, values in scores[name].items()}
            fair = {role: float(values[0]) for role, values in chance[name].items()}
            heads.append(HeadRole(name, head, _role(mine, fair), mine, fair, float(rise.mean()), low, high))
            if progress:
                progress(len(heads), total)
    cut, rise, high = _removable(losses, heads, tolerance)
    return HeadReport(len(texts), float(losses.whole.mean()), tuple(heads), cut, rise, high, tolerance)


def _target(targets: Sequence[str] | None, i: int) -> tuple[str, ...]:
    return () if targets is None else (targets[i],)


def _weights_of(name: str) -> str:
    return name.removesuffix(".heads") + ".weights"


def _role(scores: Mapping[str, float], chance: Mapping[str, float]) -> str:
    above = {role: value - chance[role] for role, value in scores.items() if value == value}
    best = max(above, key=lambda role: above[role], default="none")
    return best if best in above and above[best] >= MARGIN else "none"


# ---- effects ------------------------------------------------------------------------------------------


class _Losses:
    """Losses of each text, in nats per token, with some heads replaced by their means over all texts."""

    def __init__(self, answers: Sequence[ExplainedAnswer], names: Sequence[str]):
        self.answers = answers
        self.whole = np.array([-answer.log_probabilities.mean() for answer in answers])
        sums: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for answer in answers:
            seen = trace_inputs(answer.model, answer.given.arguments, names)
            for name in names:
                sums[name] = sums.get(name, 0) + seen.tensors[name].double().sum(dim=2, keepdim=True)
                counts[name] += seen.tensors[name].shape[2]
        self.means = {name: (sums[name] / counts[name]).float() for name in names}
        self.heads = {name: mean.shape[1] for name, mean in self.means.items()}

    def without(self, sites: Sequence[Site]) -> np.ndarray:
        """Return the loss of each text."""
        write = ablation(sites, self.means)
        return np.array(
            [-answer.log_probs(self._output(answer, write)).cpu().numpy().mean() for answer in self.answers]
        )

    def _output(self, answer: ExplainedAnswer, write: Mapping[str, Any]) -> Any:
        return trace_inputs(answer.model, answer.given.arguments, (), write).output


def _interval(rise: np.ndarray, seed: int = 0) -> tuple[float, float]:
    rows = np.random.default_rng(seed).integers(len(rise), size=(DRAWS, len(rise)))
    low, high = np.quantile(rise[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _removable(losses: _Losses, heads: Sequence[HeadRole], tolerance: float) -> tuple[tuple[str, ...], float, float]:
    """Cut one head after the other, those with the surest small effect first, and keep a cut if the loss of all that
    are cut together surely rises by no more than the tolerance."""
    cut: list[HeadRole] = []
    before = (0.0, 0.0)
    for head in sorted(heads, key=lambda head: head.high):
        if head.low > tolerance:
            continue
        sites = [Site(one.place, heads=(one.head,)) for one in [*cut, head]]
        rise = losses.without(sites) - losses.whole
        now = float(rise.mean()), _interval(rise)[1]
        if now[1] <= tolerance:
            cut.append(head)
            before = now
    return tuple(head.name for head in cut), *before


# ---- scores -------------------------------------------------------------------------------------------

ByPlace = dict[str, dict[str, Float[np.ndarray, " H"]]]


def _scores(
    known: Mapping[str, Place],
    names: Sequence[str],
    answers: Sequence[ExplainedAnswer],
    parses: Sequence[ParsedSentence],
    subject: Subject,
) -> tuple[ByPlace, ByPlace]:
    """Return the scores of each place's heads, and those of equal weights."""
    counts = Counter(token for answer in answers for token in _texts(answer.given))
    gathered: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    equal: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}

    def gather(name: str, weights: Weights, scorers: Mapping[str, Scorer]) -> None:
        for role, scorer in scorers.items():
            for into, given in ((gathered, weights), (equal, _equal_weights(weights))):
                into[name].setdefault(role, []).append(scorer(given))

    for answer in answers:
        seen = trace_inputs(answer.model, answer.given.arguments, [_weights_of(name) for name in names])
        agreed = occlusion(answer).scores if any(".cross." in name for name in names) else None
        for name in names:
            weights = seen[_weights_of(name)][0].astype(np.float64)
            crosses = ".cross." in name
            encodes = name.startswith("encoder") or crosses
            tokens = answer.given.source_tokens if encodes and answer.given.source_tokens else answer.given.tokens
            if len(tokens) == weights.shape[2]:
                scorers = _scorers(tokens, counts, agreed if crosses else None)
                gather(name, weights, scorers if crosses else scorers | _by_position(tokens))
    side = "decoder" if subject.kind == "language model" else "encoder"
    _add_syntax(parses, subject, [name for name in names if name.startswith(side) and ".cross." not in name], gather)
    return _means(gathered), _means(equal)


def _means(found: dict[str, dict[str, list[np.ndarray]]]) -> ByPlace:
    return {name: {role: _mean(rows) for role, rows in roles.items()} for name, roles in found.items()}


def _mean(rows: list[np.ndarray]) -> np.ndarray:
    """Return the mean over the texts in which a role can be seen."""
    seen = [row for row in rows if not np.isnan(row).any()]
    return np.mean(seen, axis=0) if seen else np.full_like(rows[0], np.nan)


def _texts(given: Inputs) -> Sequence[str]:
    return given.source_tokens or given.tokens


def _equal_weights(weights: Weights) -> Weights:
    """Return equal weights over what each query may see, one head."""
    visible = (weights > 0).any(axis=0, keepdims=True).astype(np.float64)
    return np.repeat(visible / np.maximum(visible.sum(axis=-1, keepdims=True), 1), len(weights), axis=0)


def _scorers(tokens: Sequence[str], counts: Counter[str], agreed: np.ndarray | None) -> dict[str, Scorer]:
    """Return the scores that any attention has."""
    separating = np.array([is_separator(token) for token in tokens])
    plain = np.flatnonzero(~separating)
    found: dict[str, Scorer] = {"separator": lambda w: w[:, :, separating].sum(axis=-1).mean(axis=-1)}
    if len(plain):
        rarest = plain[np.argmin([counts[tokens[i]] for i in plain.tolist()])]
        found["rare word"] = lambda w: w[:, :, rarest].mean(axis=-1)
    if agreed is not None:
        goal = agreed.argmax(axis=0)
        found["alignment"] = lambda w: _alignment(w, goal)
    return found


def is_separator(token: str) -> bool:
    """Return whether a token is a mark, such as the end of a text, or punctuation alone."""
    text = token.strip()
    return text.startswith("⟨") or (bool(text) and not any(letter.isalnum() for letter in text))


def _alignment(weights: Weights, goal: np.ndarray) -> np.ndarray:
    """Return how often the largest weight is at ``goal``; of equal weights the chance of that."""
    count = min(weights.shape[1], len(goal))
    top = weights[:, :count] >= weights[:, :count].max(axis=-1, keepdims=True) - 1e-12
    hit = np.take_along_axis(top, np.broadcast_to(goal[:count, None], (len(weights), count, 1)), axis=2)[..., 0]
    return (hit / top.sum(axis=-1)).mean(axis=-1)


def _by_position(tokens: Sequence[str]) -> dict[str, Scorer]:
    """Return the scores of self-attention."""
    rows = np.arange(len(tokens))
    earlier = (np.array(tokens)[:, None] == np.array(tokens)[None]) & (rows[None] < rows[:, None])
    after = np.zeros_like(earlier)
    after[:, 1:] = earlier[:, :-1]
    after &= rows[None] < rows[:, None]
    return {
        "previous": lambda w: _diagonal(w, -1),
        "next": lambda w: _diagonal(w, 1),
        "first": lambda w: w[:, 1:, 0].mean(axis=-1) if w.shape[1] > 1 else np.full(len(w), np.nan),
        "duplicate": lambda w: _at(w, earlier),
        "induction": lambda w: _at(w, after),
    }


def _diagonal(weights: Weights, offset: int) -> np.ndarray:
    found = np.diagonal(weights, offset, axis1=1, axis2=2)
    return found.mean(axis=-1) if found.shape[-1] else np.full(len(weights), np.nan)


def _at(weights: Weights, chosen: np.ndarray) -> np.ndarray:
    """Return the weight at the chosen keys, over the queries that have any; NaN without."""
    rows = chosen.any(axis=1)
    if not rows.any():
        return np.full(len(weights), np.nan)
    return (weights * chosen).sum(axis=-1)[:, rows].mean(axis=-1)


# ---- syntax -------------------------------------------------------------------------------------------


def _add_syntax(
    parses: Sequence[ParsedSentence],
    subject: Subject,
    names: Sequence[str],
    gather: Callable[[str, Weights, Mapping[str, Scorer]], None],
) -> None:
    from dragoman.inspect.labelled_vectors import words_of

    for sentence in parses:
        arguments, spans = words_of(subject, list(sentence.words))
        if len(spans) != len(sentence.words) or not all(spans):
            raise DataError(f"parses: {sentence.text[:60]!r}: the model reads other words")
        seen = trace_inputs(subject.model, arguments, [_weights_of(name) for name in names])
        for name in names:
            gather(name, _by_words(seen[_weights_of(name)][0], spans), {"syntactic": _syntax(sentence.related)})


def _by_words(weights: np.ndarray, spans: Sequence[Sequence[int]]) -> Weights:
    """Sum over the tokens of the word that is looked at, and average over those of the word that looks."""
    columns = np.stack([weights[:, :, list(span)].sum(axis=-1) for span in spans], axis=-1)
    return np.stack([columns[:, list(span)].mean(axis=1) for span in spans], axis=1).astype(np.float64)


def _syntax(related: Sequence[frozenset[int]]) -> Scorer:
    """Return how often a word's largest weight, or that of a word it belongs to, joins the two (itself left out)."""

    def score(weights: Weights) -> np.ndarray:
        count = weights.shape[1]
        apart = np.where(np.eye(count, dtype=bool), -1.0, weights)
        top = (apart >= apart.max(axis=-1, keepdims=True) - 1e-12) & ~np.eye(count, dtype=bool)
        share = top / np.maximum(top.sum(axis=-1, keepdims=True), 1)
        chosen = [(i, sorted(mine)) for i, mine in enumerate(related) if mine]
        if not chosen:
            return np.full(len(weights), np.nan)
        found = [np.maximum(share[:, i, mine].sum(axis=-1), share[:, mine, i].max(axis=-1)) for i, mine in chosen]
        return np.mean(found, axis=0)

    return score
