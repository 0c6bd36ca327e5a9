"""Points at which a run reports, validates, saves and stops: functions of its progress and configuration alone.

Every checkpoint holds the progress. A resumed run therefore does what the uninterrupted one would have done.
"""

from dragoman.train.events import Finished
from dragoman.train.progress import RunProgress
from dragoman.train.recipe import RunConfig, TrainConfig


def report_due(progress: RunProgress, train: TrainConfig) -> bool:
    """Return True if the steps since the last report are to be reported."""
    return progress.step % train.report_every == 0 or progress.step == progress.total


def validation_due(progress: RunProgress, cfg: RunConfig) -> bool:
    """Return True if the model is to be validated now; a warm start is also validated before its first step."""
    step = progress.step
    now = step % cfg.train.validate_every == 0 or step == progress.total
    new = progress.validated < step or (cfg.start_from is not None and progress.best_step is None)
    return now and new


def checkpoint_due(progress: RunProgress, train: TrainConfig, *, saved: tuple[int, int], end: bool) -> bool:
    """Return True if a checkpoint is to be written; ``saved`` has step and validation of the last one."""
    new = saved != (progress.step, progress.validated)
    return new and (end or progress.step % train.save_every == 0)


def finished(progress: RunProgress, train: TrainConfig, command: str) -> Finished | None:
    """Return the end of a run whose budget or patience is spent, else None; ``command`` resumes it."""
    if progress.total is not None and progress.step >= progress.total:
        return Finished.budget_spent(progress, train.budget, command)
    if train.patience and progress.stale >= train.patience:
        return Finished.patience_spent(progress, train.patience, command)
    return None
