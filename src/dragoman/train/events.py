"""Events of a run: plain values, for the terminal to show and for tests to check."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dragoman.plan.prediction import RunPrediction
from dragoman.train.budget import Budget
from dragoman.train.loop import StepReport
from dragoman.train.progress import RunProgress


@dataclass(frozen=True)
class Preparing:
    """A stage of preparation begins."""

    stage: str


@dataclass(frozen=True)
class Predicted:
    """The run's memory and time are predicted; nothing is built yet."""

    prediction: RunPrediction
    advice: str
    """Advice on the budget and the size of the model; empty where there is none."""


@dataclass(frozen=True)
class Started:
    """Training starts or resumes; everything is prepared."""

    summary: str
    """Description of the training data in words."""
    parameters: int
    learning: int
    """Number of parameters that are trained."""
    steps_per_epoch: int
    padding_share: float
    """Fraction of the positions that the model computes that are padding."""
    device: str
    precision: str
    step: int
    """Steps made before: 0 for a new run, else the step it resumes from."""
    total: int | None
    """Steps of the whole run; None while a budget of minutes still measures its speed."""
    processes: int = 1


@dataclass(frozen=True)
class StepsReported:
    """Figures of the steps since the last such report."""

    step: int
    total: int | None
    loss: float | None
    """Mean per target token or label, smoothing included; None if every step was skipped, or had none."""
    lr: float
    grad_norm: float | None
    """Mean over the steps, before clipping."""
    tokens: int
    """Target tokens (or labels) learned from since the run began."""
    padding: float
    """Fraction of padding in these batches."""
    skipped: int
    """Steps skipped since the run began, because loss or gradient was not finite."""
    sources: dict[str, int]
    """Tokens of each source, on either side, read since the run began; empty where the task does not count sources."""
    seconds: float
    """Time spent learning since the run began."""
    seconds_left: float | None
    """Time left of a budget of minutes, or the time the remaining steps will take at the speed so far."""
    cpu_seconds: float
    """Processor time of all threads since the run began: less than the machine offers where other programs use it
    too."""
    tokens_per_second: float
    """Tokens read per second, on either side, padding not counted."""
    utilisation: float | None
    """Fraction of the machine's peak spent on these tokens (utilisation.py); None where that is not known."""

    @classmethod
    def of(cls, progress: RunProgress, lr: float, utilisation: float | None) -> "StepsReported":
        """Return the report of the steps in the progress's window."""
        window = progress.window
        return cls(
            step=progress.step,
            total=progress.total,
            loss=window.mean_loss,
            lr=lr,
            grad_norm=window.mean_grad_norm,
            tokens=progress.tokens,
            padding=1 - window.real / window.cells,
            skipped=progress.skipped,
            sources=dict(progress.sources),
            seconds=progress.seconds,
            seconds_left=progress.seconds_left,
            cpu_seconds=progress.cpu_seconds,
            tokens_per_second=window.real / window.seconds,
            utilisation=utilisation,
        )


@dataclass(frozen=True)
class ValidationSample:
    """Output of the current model for one fixed example of the validation set."""

    source: str
    reference: str
    output: str


@dataclass(frozen=True)
class Validating:
    """A validation starts."""

    step: int


@dataclass(frozen=True)
class Validated:
    """A validation has finished."""

    step: int
    loss: float
    """Mean negative log-likelihood per token or label, without smoothing: the logarithm of the perplexity."""
    perplexity: float
    best: bool
    """True for the lowest cost so far."""
    scores: dict[str, float]
    """Task-specific scores, such as BLEU and chrF of ``train.scored`` sentences; empty if there are none."""
    samples: list[ValidationSample]
    cost: float
    """Value that the best checkpoint is chosen by, lower is better: the loss, or the fraction of wrong labels."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint has been written."""

    step: int
    path: Path
    best: bool


@dataclass(frozen=True)
class Notice:
    """Message worth a line that needs no action."""

    text: str

    @classmethod
    def long_warmup(cls, warmup: int, progress: RunProgress) -> Iterator["Notice"]:
        """Yield a message if the run ends before its warm-up does."""
        if progress.total is not None and progress.step < progress.total <= warmup:
            yield cls(
                f"the learning rate rises for {warmup:,} steps and the run has {progress.total:,}, so it ends before "
                "the peak: lower train.schedule.warmup, or train longer"
            )

    @classmethod
    def skipped_step(cls, done: StepReport, scale: float | None) -> "Notice":
        now = f"; the loss scale is now {scale:g}" if scale else ""
        figures = f"loss {done.loss:.4g}, gradient norm {done.grad_norm:.4g}"
        return cls(f"step {done.step}: {figures}: not finite, step skipped{now}")

    @classmethod
    def split_step(cls, done: StepReport, fitting: str) -> "Notice":
        return cls(f"step {done.step}: out of memory, computed in smaller pieces; batches that fit: {fitting}")

    @classmethod
    def uncompiled_step(cls, done: StepReport, missed: int) -> "Notice":
        counted = f"{missed} batch{'es' if missed > 1 else ''} so far"
        return cls(f"step {done.step}: the compiled program cannot take {counted}, computed without it")


@dataclass(frozen=True)
class Finished:
    """The run has stopped, and everything is saved."""

    step: int
    reason: str
    """Why the run has stopped, in words."""
    complete: bool
    """False if the run was interrupted and may be resumed as it is."""
    command: str = ""
    """Command that continues the run; empty if none does."""
    kept: str = ""
    """Checkpoints that remain, their size and their uses; empty where the run may still be resumed as it is."""

    @classmethod
    def budget_spent(cls, progress: RunProgress, budget: Budget, command: str) -> "Finished":
        if progress.forecast:
            reason = f"{_minutes(progress.seconds)} of learning are spent, {progress.step:,} steps"
        elif progress.total is not None and progress.step > progress.total:
            reason = f"{progress.step:,} steps are done, and the budget is {progress.total:,}"
        else:
            reason = f"all {progress.total:,} steps are done"
        longer = budget.longer(steps=progress.step, epochs=progress.epochs or 0.0, seconds=progress.seconds)
        return cls(progress.step, reason, True, f"{command} {longer}")

    @classmethod
    def patience_spent(cls, progress: RunProgress, patience: int, command: str) -> "Finished":
        reason = f"no better validation since step {progress.best_step}, {progress.stale} validations ago"
        return cls(progress.step, reason, True, f"{command} train.patience={2 * patience}")


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} minutes"


Event = Preparing | Predicted | Started | StepsReported | Validating | Validated | Saved | Notice | Finished
