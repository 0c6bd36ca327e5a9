"""What a run tells while it goes: plain values, for the terminal to show and for tests to look at."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Preparing:
    """A stage of preparation begins."""

    stage: str


@dataclass(frozen=True)
class Started:
    """Everything is ready, and learning begins or goes on."""

    summary: str
    """What there is to learn from, in words."""
    parameters: int
    learning: int
    """Of the parameters, those that learn."""
    steps_per_epoch: int
    padding_share: float
    """Of the tokens that the model computes on, how many are padding."""
    device: str
    precision: str
    step: int
    """Steps made before: 0, or where the run goes on."""
    total: int | None
    """Steps of the whole run; None while a budget of minutes measures its speed."""
    processes: int = 1


@dataclass(frozen=True)
class Learned:
    """The steps since the last such report."""

    step: int
    total: int | None
    loss: float | None
    """Mean over what is learned (target tokens, labels), smoothing included; None if every step was skipped."""
    lr: float
    grad_norm: float | None
    """Mean over steps, before clipping."""
    tokens: int
    """Tokens (or labels) learned from since the run began."""
    padding: float
    """Share of padding in these batches."""
    skipped: int
    """Steps skipped since the run began, because loss or gradient was not finite."""
    sources: dict[str, int]
    """Tokens of each source, on either side, read since the run began; empty where the lesson tells no sources."""
    seconds: float
    """Time spent learning since the run began."""
    tokens_per_second: float
    """Tokens read, on either side, padding not counted."""
    utilisation: float | None
    """Share of the machine's peak that went into these tokens (utilisation.py); None where that is not known."""

    @property
    def seconds_left(self) -> float | None:
        """What the remaining steps will take at the speed so far."""
        return None if self.total is None else (self.total - self.step) * self.seconds / self.step


@dataclass(frozen=True)
class Sample:
    """One fixed example of the validation set, and what the model makes of it now."""

    source: str
    reference: str
    output: str


@dataclass(frozen=True)
class Validated:
    step: int
    loss: float
    """Mean negative log-likelihood of what is to be said, without smoothing: the logarithm of the perplexity."""
    perplexity: float
    best: bool
    """The lowest cost so far."""
    scores: dict[str, float]
    """The task's own figures, such as BLEU and chrF of ``train.scored`` sentences; empty if there are none."""
    samples: list[Sample]
    cost: float
    """What the best checkpoint is chosen by: the loss, or the share of wrong labels."""


@dataclass(frozen=True)
class Saved:
    step: int
    path: Path
    best: bool


@dataclass(frozen=True)
class Notice:
    """Something worth a line that needs nothing done."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The run has stopped, and everything is saved."""

    step: int
    reason: str
    """In words, with what to do to go on."""
    complete: bool
    """False if it was interrupted and may be resumed as it is."""


Event = Preparing | Started | Learned | Validated | Saved | Notice | Finished
