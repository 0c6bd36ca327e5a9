"""What a run tells while it goes: plain values, for the terminal to show and for tests to look at."""

from dataclasses import dataclass
from pathlib import Path

from dragoman.train.budget import Budget
from dragoman.train.loop import StepReport
from dragoman.train.progress import RunProgress


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
class StepsReported:
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
    seconds_left: float | None
    """What is left of a budget of minutes, or what the remaining steps will take at the speed so far."""
    cpu_seconds: float
    """Processor time of all threads, since the run began: less than the machine has where others use it too."""
    tokens_per_second: float
    """Tokens read, on either side, padding not counted."""
    utilisation: float | None
    """Share of the machine's peak that went into these tokens (utilisation.py); None where that is not known."""


@dataclass(frozen=True)
class ValidationSample:
    """One fixed example of the validation set, and what the model makes of it now."""

    source: str
    reference: str
    output: str


@dataclass(frozen=True)
class Validating:
    """A validation begins."""

    step: int


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
    samples: list[ValidationSample]
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

    @classmethod
    def skipped_step(cls, done: StepReport, scale: float | None) -> "Notice":
        now = f"; the loss scale is now {scale:g}" if scale else ""
        figures = f"loss {done.loss:.4g}, gradient norm {done.grad_norm:.4g}"
        return cls(f"step {done.step}: {figures}: not finite, step skipped{now}")

    @classmethod
    def split_step(cls, done: StepReport, fitting: str) -> "Notice":
        return cls(f"step {done.step}: out of memory, made in smaller pieces; batches that fit: {fitting}")

    @classmethod
    def uncompiled_step(cls, done: StepReport, missed: int) -> "Notice":
        counted = f"{missed} batch{'es' if missed > 1 else ''} so far"
        return cls(f"step {done.step}: the compiled program does not take {counted}, which it is computed without")


@dataclass(frozen=True)
class Finished:
    """The run has stopped, and everything is saved."""

    step: int
    reason: str
    """In words."""
    complete: bool
    """False if it was interrupted and may be resumed as it is."""
    command: str = ""
    """Goes on with it, if anything does."""
    kept: str = ""
    """The checkpoints that stay, their size, and their uses; empty where the run may still go on as it is."""

    @classmethod
    def budget_spent(cls, progress: RunProgress, budget: Budget, command: str) -> "Finished":
        if progress.forecast:
            reason = f"{_minutes(progress.seconds)} of learning are spent, {progress.step:,} steps"
        else:
            reason = f"all {progress.total:,} steps are made"
        return cls(progress.step, reason, True, f"{command} {budget.doubled}")

    @classmethod
    def patience_spent(cls, progress: RunProgress, patience: int, command: str) -> "Finished":
        reason = f"no better validation since step {progress.best_step}, {progress.stale} validations ago"
        return cls(progress.step, reason, True, f"{command} train.patience={2 * patience}")


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} minutes"


Event = Preparing | Started | StepsReported | Validating | Validated | Saved | Notice | Finished
