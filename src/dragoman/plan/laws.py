"""Scaling laws: how the loss falls with parameters and tokens, fitted to runs.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al., arXiv:2203.15556, equation 2): N parameters, D training tokens, E the loss that no size takes away.
A fit minimizes the Huber loss of the log of the predicted over the log of the measured loss, from many starts (their
appendix D.2). Intervals are those of fits to runs drawn with replacement.

R problems solved at once, K runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.errors import DataError

HUBER = 1e-3
"""Difference of logarithms from which on an error counts in proportion, not by its square."""
ROUNDS = 120
"""Steps of the fit, which converges in some tens."""
RESAMPLES = 400
"""Fits to runs drawn with replacement."""
LEVEL = 0.95
"""Confidence level of intervals."""
REACH = 10.0
"""Factor on the largest number of parameters or tokens up to which a prediction is supported."""
FEWEST = 6
"""Fewest runs of a fit: one more than the law has constants."""
APART = 4.0
"""Least ratio of the largest to the smallest number of parameters, and of tokens."""


@dataclass(frozen=True)
class LawRun:
    """Run as the law sees it."""

    name: str
    parameters: float
    """Parameters N."""
    tokens: float
    """Training tokens D."""
    loss: float
    """Loss in the end, in nats a token, on text that was not trained on."""

    @property
    def flops(self) -> float:
        """Return the training FLOPs 6 N D."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True)
class ScalingLaw:
    """Constants of a law."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the predicted loss in nats a token."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def split(self, flops: float) -> tuple[float, float]:
        """Return the parameters and tokens by which a budget of 6 N D FLOPs ends at the lowest loss (equation 4)."""
        total = self.alpha + self.beta
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        parameters = G * (flops / 6) ** (self.beta / total)
        return parameters, flops / 6 / parameters


CHINCHILLA = ScalingLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)
"""Constants as printed by Hoffmann et al., arXiv:2203.15556, appendix D.3."""
CHINCHILLA_REFITTED = ScalingLaw(E=1.8172, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658)
"""Constants fitted anew to the same runs by Besiroglu et al., arXiv:2404.10102."""


@dataclass(frozen=True)
class LawFit:
    """Law fitted to runs, with what it leaves open."""

    runs: tuple[LawRun, ...]
    law: ScalingLaw
    resampled: tuple[ScalingLaw, ...]
    """Laws fitted to runs drawn with replacement."""

    @property
    def error(self) -> float:
        """Return the mean relative error of the law on its own runs."""
        return sum(abs(self.law.loss(r.parameters, r.tokens) / r.loss - 1) for r in self.runs) / len(self.runs)

    def interval(self, name: str) -> tuple[float, float]:
        """Return the confidence interval of a constant of the law, such as ``alpha``."""
        return interval([getattr(law, name) for law in self.resampled])

    def predicted(self, parameters: float, tokens: float) -> tuple[float, float, float]:
        """Return the predicted loss with the ends of its confidence interval."""
        return self.law.loss(parameters, tokens), *interval([law.loss(parameters, tokens) for law in self.resampled])

    def unsupported(self, parameters: float, tokens: float) -> str | None:
        """Return why the runs say nothing reliable about a model of this size; None where they do."""
        for name, value, known in (
            ("parameters", parameters, [r.parameters for r in self.runs]),
            ("tokens", tokens, [r.tokens for r in self.runs]),
        ):
            if value > REACH * max(known):
                return f"{value:.3g} {name} are {value / max(known):,.0f} times the most of any run ({max(known):.3g})"
            if value < min(known) / REACH:
                return f"{value:.3g} {name} are fewer than a tenth of the fewest of any run ({min(known):.3g})"
        for name in ("alpha", "beta"):
            low, high = self.interval(name)
            if high > 3 * max(low, 1e-9):
                what = "parameters" if name == "alpha" else "tokens"
                return f"how the loss falls with {what} is open: {name} lies between {low:.2f} and {high:.2f}"
        return None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the middle ``LEVEL`` of the values."""
    cut = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(values, dtype=torch.float64), cut).tolist()
    return low, high


# ---- fitting ----------------------------------------------------------------------------------------


def fit(runs: Sequence[LawRun], *, seed: int = 0) -> LawFit:
    """Fit a law to runs.

    Raises:
        DataError: too few runs, or runs too much alike to tell the constants apart; the message says what is missing.
    """
    check(runs)
    size = torch.tensor([[math.log(r.parameters), math.log(r.tokens)] for r in runs], dtype=torch.float64)
    loss = torch.tensor([math.log(r.loss) for r in runs], dtype=torch.float64)
    every = torch.arange(len(runs)).expand(len(starts := _starts(runs)), -1)
    found, left = _solve(starts, size, loss, every)
    best = found[left.argmin()]
    drawn = torch.randint(len(runs), (RESAMPLES, len(runs)), generator=torch.Generator().manual_seed(seed))
    again, _ = _solve(best.expand(RESAMPLES, -1), size, loss, drawn)
    return LawFit(tuple(runs), _law(best), tuple(map(_law, again)))


def check(runs: Sequence[LawRun]) -> None:
    """Check that runs can tell the constants of a law apart.

    Raises:
        DataError: they cannot; the message says what is missing.
    """
    if len(runs) < FEWEST:
        raise DataError(f"{len(runs)} runs: a law has five constants: train at least {FEWEST}, of several sizes")
    for name, values in (("parameters", [r.parameters for r in runs]), ("tokens", [r.tokens for r in runs])):
        if max(values) < APART * min(values):
            raise DataError(
                f"the runs are too much alike: their {name} go from {min(values):.3g} to {max(values):.3g}, and must "
                f"span a factor of {APART:.0f} at least: add runs with more or fewer"
            )
        if len(set(values)) < 3:
            raise DataError(f"the runs have only {len(set(values))} different numbers of {name}: add a third one")


def _starts(runs: Sequence[LawRun]) -> Float[Tensor, "R 5"]:
    """Return log E, log A, alpha, log B, beta to start from; each power explains a share of the losses."""
    least, most = min(r.loss for r in runs), max(r.loss for r in runs)
    n, d = (math.log(min(getattr(r, name) for r in runs)) for name in ("parameters", "tokens"))
    found = []
    for floor in (0.2, 0.5, 0.8, 0.95):
        for share in (0.25, 0.5, 0.75):
            for alpha in (0.1, 0.3, 0.6, 1.0):
                for beta in (0.1, 0.3, 0.6, 1.0):
                    excess = most - floor * least
                    a, b = math.log(share * excess) + alpha * n, math.log((1 - share) * excess) + beta * d
                    found.append([math.log(floor * least), a, alpha, b, beta])
    return torch.tensor(found, dtype=torch.float64)


def _solve(
    start: Float[Tensor, "R 5"], size: Float[Tensor, "K 2"], loss: Float[Tensor, " K"], chosen: Int[Tensor, "R K"]
) -> tuple[Float[Tensor, "R 5"], Float[Tensor, " R"]]:
    """Minimize the Huber loss of each problem by Levenberg's and Marquardt's method on reweighted squares."""
    x, y, p = size[chosen], loss[chosen], start.clone()
    damping = torch.full((len(p), 1, 1), 1e-2, dtype=torch.float64)
    residual, slope = _residuals(p, x, y)
    left = _huber(residual)
    for _ in range(ROUNDS):
        weight = (HUBER / residual.abs().clamp_min(1e-300)).clamp_max(1.0)[..., None]
        square = slope.mT @ (weight * slope)
        scaled = damping * (
            torch.diag_embed(square.diagonal(dim1=1, dim2=2)) + 1e-12 * torch.eye(5, dtype=torch.float64)
        )
        step = torch.linalg.solve(square + scaled, slope.mT @ (weight * residual[..., None]))[..., 0]
        tried = p - step.clamp(-1.0, 1.0)
        tried[:, [2, 4]] = tried[:, [2, 4]].clamp(1e-3, 5.0)  # a loss that rises with the size is no law
        new, new_slope = _residuals(tried, x, y)
        better = (now := _huber(new)) < left
        p, left = torch.where(better[:, None], tried, p), torch.where(better, now, left)
        residual = torch.where(better[:, None], new, residual)
        slope = torch.where(better[:, None, None], new_slope, slope)
        damping = torch.where(better[:, None, None], damping / 3, damping * 4).clamp(1e-12, 1e12)
    return p, left


def _residuals(
    p: Float[Tensor, "R 5"], x: Float[Tensor, "R K 2"], y: Float[Tensor, "R K"]
) -> tuple[Float[Tensor, "R K"], Float[Tensor, "R K 5"]]:
    """Return log of the prediction - log of the loss, and its derivatives."""
    e, a, alpha, b, beta = (column[:, None] for column in p.T)
    terms = torch.stack([e.expand_as(y), a - alpha * x[..., 0], b - beta * x[..., 1]], dim=-1)
    share = terms.softmax(dim=-1)
    one, two, three = share.unbind(-1)
    slope = torch.stack([one, two, -two * x[..., 0], three, -three * x[..., 1]], dim=-1)
    return terms.logsumexp(dim=-1) - y, slope


def _huber(residual: Float[Tensor, "R K"]) -> Float[Tensor, " R"]:
    size = residual.abs()
    return torch.where(size < HUBER, size**2 / 2, HUBER * (size - HUBER / 2)).sum(dim=1)


def _law(p: Float[Tensor, " 5"]) -> ScalingLaw:
    e, a, alpha, b, beta = p.tolist()
    return ScalingLaw(E=math.exp(e), A=math.exp(a), alpha=alpha, B=math.exp(b), beta=beta)
