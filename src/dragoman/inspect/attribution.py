"""Attribution: how much each part of the input, and of the model, contributed to the probability of the answer.

Every number is a change of a natural logarithm of a probability, by running the model again: of each token of the
output, and of all of them. Occlusion takes an input away and looks; gradients predict what occlusion would see
(Simonyan et al., arXiv:1312.6034); integrated gradients add up to the whole change (Sundararajan et al.,
arXiv:1703.01365). ``faithfulness.py`` tells which of them to believe.

S inputs (tokens, patches or frames), T outputs, B variants of the input, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dragoman.errors import DataError
from dragoman.inspect.places import places
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import Writing, trace_inputs, watching
from dragoman.model.heads import ClassificationLayer, MaskedLanguageLayer, TaggingLayer
from dragoman.model.positions.tokens import Frames, Tokens

Baseline = Literal["mean", "zero", "random"]
"""Replacement of an input that is taken away: the mean of all embeddings, zeros, or those of tokens drawn
at random."""

BATCH_OUTPUTS = 2048
"""Outputs computed at a time, over all variants of the input; each has logits of the whole vocabulary."""
STEPS = 32
"""Points on the path of integrated gradients."""


@dataclass(frozen=True)
class Attribution:
    """Contribution of each input to each output."""

    method: str
    scores: Float[np.ndarray, "S T"]
    """Contribution of input i to the log-probability of output j, in nats; positive where it makes it more probable."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    total: Float[np.ndarray, " S"]
    """Contribution of each input to the log-probability of the whole answer."""
    notes: Mapping[str, float] = field(default_factory=dict)
    """Checks, such as ``completeness error`` of integrated gradients."""


class ExplainedAnswer:
    """One answer of a model, whose probability is to be explained."""

    def __init__(self, subject: Subject, inputs: Inputs):
        """
        Raises:
            DataError: a pair of two towers, or an input that is not explained token by token.
        """
        self.subject, self.given, self.model = subject, inputs, subject.model
        if subject.kind == "towers":
            raise DataError("attribution: of two towers explain one: there is no single answer to explain")
        self.side = "encoder" if subject.kind != "language model" else "decoder"
        self.place = f"{self.side}.embedding.tokens"
        self.tokens = inputs.source_tokens or inputs.tokens
        """Spelling of the inputs that are explained."""
        if not self.tokens:
            raise DataError("attribution: this input has no tokens")
        self.before = trace_inputs(self.model, inputs.arguments, [self.place])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Spelling of the outputs: tokens of a text, or the one label."""
        if self.subject.kind == "language model":
            return self.given.targets[:-1]  # the end is no token of the text
        return self.given.targets or ("answer",)

    @property
    def count(self) -> int:
        """Number of inputs S."""
        return len(self.tokens)

    @cached_property
    def occludable(self) -> list[int]:
        """Inputs that may be taken away: all but the marks around a text, and the class token of an image."""
        if self.tokens[0] == "class":
            return list(range(1, self.count))
        tokenizer = self.subject.source_tokenizer
        if tokenizer is None:
            return list(range(self.count))
        ids = self.given.arguments[-1]
        ids = ids.ids if isinstance(ids, Tokens) else ids
        plain = [i for i, token in enumerate(ids[0].tolist()) if token not in tokenizer.marks]
        return plain or list(range(self.count))

    # ---- probabilities ----

    @property
    def rows(self) -> int:
        """Number of variants of the input that are run at a time."""
        return max(1, BATCH_OUTPUTS // max(self.count, len(self.outputs)))

    def arguments(self, rows: int) -> tuple[Any, ...]:
        """Return the model's arguments, repeated ``rows`` times."""
        return tuple(_repeated(one, rows) for one in self.given.arguments)

    def log_probs(self, output: Tensor) -> Float[Tensor, "B T"]:
        """Return the log-probability of each output of the answer, from what the model returned.

        Encoders without a probability answer with the similarity of their vectors to those of the whole input.
        """
        output = output.float()
        if self.given.target_ids:
            wanted = torch.tensor(self.given.target_ids, device=output.device)
            if self.subject.kind == "language model":
                output, wanted = output[:, :-1], wanted[:-1]
            found = output.log_softmax(-1)
            return found.gather(-1, wanted.expand(len(found), -1)[..., None])[..., 0]
        return self._of_encoder(output)[:, None]

    def _of_encoder(self, output: Tensor) -> Float[Tensor, " B"]:
        whole = self.before.output.detach().float()
        if isinstance(self.model.head, MaskedLanguageLayer | ClassificationLayer | TaggingLayer):
            chosen = whole.argmax(-1, keepdim=True)
            logs = output.log_softmax(-1).gather(-1, chosen.expand(len(output), *chosen.shape[1:]))
            return logs.flatten(1).mean(-1)
        return F.cosine_similarity(output.flatten(1), whole.flatten(1).expand(len(output), -1), dim=-1)

    @cached_property
    def log_probabilities(self) -> Float[np.ndarray, " T"]:
        """Log-probability of each output with the whole input."""
        return self.log_probs(self.before.output)[0].detach().cpu().numpy()

    # ---- inputs taken away ----

    def baseline(self, kind: Baseline, seed: int = 0) -> Float[Tensor, "S D"]:
        """Return what stands for each input that is taken away."""
        x = self.before.tensors[self.place][0]
        x = torch.cat([x.new_zeros(self.count - len(x), x.shape[-1]), x]) if len(x) < self.count else x
        table = self._table()
        if kind == "zero":
            return torch.zeros_like(x)
        if kind == "mean":
            return (x if table is None else table.weight.detach().to(x)).mean(0).expand_as(x)
        draw = torch.Generator().manual_seed(seed)
        pool = x if table is None else table.weight.detach().to(x)
        return pool[torch.randint(len(pool), (self.count,), generator=draw).to(pool.device)]

    def _table(self) -> nn.Embedding | None:
        reader: Any = self.model
        for name in ("inputs",) if self.subject.kind == "encoder" else ("source_embed", "embed"):
            if hasattr(reader, name):
                found = getattr(getattr(reader, name), "tokens", None)
                return found if isinstance(found, nn.Embedding) else None
        return None

    @torch.no_grad()
    def without(
        self, taken: Bool[np.ndarray, "B S"], baseline: Float[Tensor, "S D"], extra: Mapping[str, Writing] | None = None
    ) -> Float[np.ndarray, "B T"]:
        """Return the log-probability of each output where the inputs ``taken`` are replaced, row by row."""
        found = []
        for start in range(0, len(taken), self.rows):
            mask = torch.from_numpy(taken[start : start + self.rows]).to(baseline.device)[..., None]
            found.append(self._run(len(mask), {self.place: _replacing(mask, baseline)} | dict(extra or {})))
        return np.concatenate(found)

    def _run(self, rows: int, write: Mapping[str, Writing]) -> Float[np.ndarray, "B T"]:
        output = trace_inputs(self.model, self.arguments(rows), (), write).output
        return self.log_probs(output).cpu().numpy()


def _repeated(given: Any, rows: int) -> Any:
    if isinstance(given, Tokens | Frames):
        return given._make(None if t is None else t.expand(rows, *t.shape[1:]) for t in given)
    return given.expand(rows, *given.shape[1:])


def _replacing(mask: Tensor, baseline: Tensor) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        skip = mask.shape[1] - x.shape[1]  # an image's class token has no patch
        return torch.where(mask[:, skip:], baseline[skip:], x)

    return change


# ---- occlusion ----------------------------------------------------------------------------------------


def occlusion(
    answer: ExplainedAnswer, *, baseline: Baseline = "mean", width: int = 1, seeds: Sequence[int] = (0,)
) -> Attribution:
    """Take away each input, or each ``width`` neighbouring ones, and return how much the log-probabilities fall.

    With ``random`` as baseline, return the mean over ``seeds``; the note ``spread`` is the mean of its standard errors.
    A span's effect is divided among its inputs.

    Raises:
        DataError: a width that is no positive number.
    """
    if width < 1:
        raise DataError(f"width: spans of {width} tokens: must be at least 1")
    spans = [answer.occludable[i : i + width] for i in range(max(1, len(answer.occludable) - width + 1))]
    taken = np.zeros((len(spans), answer.count), bool)
    for row, span in enumerate(spans):
        taken[row, span] = True
    drawn = seeds if baseline == "random" else seeds[:1]
    runs = [answer.log_probabilities - answer.without(taken, answer.baseline(baseline, seed)) for seed in drawn]
    fall = np.mean(runs, axis=0)
    covered = np.maximum(taken.sum(0), 1)[:, None]
    scores = (taken.T.astype(float) @ fall) / covered / width
    notes = {"baseline log-probability": float(answer.log_probabilities.sum())}
    if len(runs) > 1:
        notes["spread"] = float(np.std(runs, axis=0, ddof=1).mean() / len(runs) ** 0.5)
    return _attribution(f"occlusion ({baseline})", answer, scores, notes)


def _attribution(method: str, answer: ExplainedAnswer, scores: np.ndarray, notes: Mapping[str, float]) -> Attribution:
    if answer.subject.kind == "language model":
        S, T = scores.shape
        scores = np.where(np.arange(S)[:, None] <= np.arange(T)[None], scores, 0.0)  # nothing comes from the future
    return Attribution(method, scores, answer.tokens, answer.outputs, scores.sum(1), notes)


# ---- gradients ----------------------------------------------------------------------------------------


def gradient_x_input(answer: ExplainedAnswer, *, baseline: Baseline = "mean") -> Attribution:
    """Return gradient times (input - baseline), summed over channels: a first-order guess of occlusion."""
    x = answer.before.tensors[answer.place]
    start = answer.baseline(baseline)[answer.count - x.shape[1] :]
    gradient, _ = _gradients(answer, x)
    return _attribution("gradient x input", answer, _padded(answer, _contributions(gradient, x[0] - start)), {})


def integrated_gradients(answer: ExplainedAnswer, *, baseline: Baseline = "mean", steps: int = STEPS) -> Attribution:
    """Return the integral of the gradient along the straight line from the baseline to the input, times their
    difference.

    Attributions of one output add up to the change of its log-probability between the two. The note ``completeness
    error`` is the largest difference to that, in nats; more ``steps`` make it smaller.
    """
    x = answer.before.tensors[answer.place]
    start = answer.baseline(baseline)[answer.count - x.shape[1] :]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total: Tensor | None = None
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        gradient, _ = _gradients(answer, start + node * (x - start))
        total = weight * gradient if total is None else total + weight * gradient
    assert total is not None
    scores = _padded(answer, _contributions(total, x[0] - start))
    ends = [_gradients(answer, point)[1] for point in (start[None], x)]
    error = np.abs(scores.sum(0) - (ends[1] - ends[0]))
    notes = {"completeness error": float(error.max()), "change explained": float((ends[1] - ends[0]).sum())}
    return _attribution("integrated gradients", answer, scores, notes)


def _gradients(answer: ExplainedAnswer, point: Float[Tensor, "1 S D"]) -> tuple[Float[Tensor, "T S D"], np.ndarray]:
    """Return the gradient of each output's log-probability by the embeddings, at ``point``, and these values."""
    found, values = [], []
    training = answer.model.training
    answer.model.eval()
    try:
        for start in range(0, len(answer.outputs), answer.rows):
            rows = min(answer.rows, len(answer.outputs) - start)
            leaf = point.detach().expand(rows, *point.shape[1:]).clone().requires_grad_(True)  # a row for each output
            with torch.enable_grad(), watching(answer.model, (), {answer.place: lambda x, leaf=leaf: leaf.to(x)}):
                logs = answer.log_probs(answer.model(*answer.arguments(rows))).diagonal(start)
            found += torch.autograd.grad(logs.sum(), leaf)
            values.append(logs.detach())
    finally:
        answer.model.train(training)
    return torch.cat(found), torch.cat(values).cpu().numpy()


def _contributions(gradient: Float[Tensor, "T S D"], difference: Float[Tensor, "S D"]) -> np.ndarray:
    return (gradient * difference).sum(-1).T.cpu().numpy()


def _padded(answer: ExplainedAnswer, scores: np.ndarray) -> np.ndarray:
    """Return the scores with zeros for inputs that have no embedding, an image's class token."""
    missing = answer.count - len(scores)
    return np.concatenate([np.zeros((missing, scores.shape[1])), scores]) if missing else scores


# ---- parts of the model -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartEffect:
    """Effect of a part of the model on the answer."""

    place: str
    """Place that was ablated."""
    head: int | None
    """Head, counted from 0; None for the whole part."""
    fall: Float[np.ndarray, " T"]
    """Fall of each output's log-probability without the part."""

    @property
    def total(self) -> float:
        """Fall of the log-probability of the whole answer."""
        return float(self.fall.sum())


PARTS = ("mixer.output", "cross.output", "feed_forward.output")
"""Places that are ablated as a whole."""


def parts(answer: ExplainedAnswer, *, heads: bool = True) -> list[PartEffect]:
    """Set each layer's mixer, cross-attention, feed-forward and, with ``heads``, each head to zero; return how much
    the log-probabilities fall."""
    known = places(answer.model)
    found = [_ablated(answer, name, None) for name in known if name.endswith(PARTS)]
    if heads:
        for name in known:
            if name.endswith(".heads") and known[name].shape.startswith("B H"):
                found += [_ablated(answer, name, head) for head in range(_heads_at(answer, name))]
    return found


def _heads_at(answer: ExplainedAnswer, name: str) -> int:
    return trace_inputs(answer.model, answer.given.arguments, [name]).tensors[name].shape[1]


def _ablated(answer: ExplainedAnswer, name: str, head: int | None) -> PartEffect:
    def change(x: Tensor) -> Tensor:
        if head is None:
            return torch.zeros_like(x)
        x = x.clone()
        x[:, head] = 0
        return x

    with torch.no_grad():
        logs = answer.log_probs(trace_inputs(answer.model, answer.given.arguments, (), {name: change}).output)
    return PartEffect(name, head, answer.log_probabilities - logs[0].cpu().numpy())
