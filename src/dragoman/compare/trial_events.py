"""Events of trials that run one after the other, in processes, or on a cluster."""

from dataclasses import dataclass

from dragoman.compare.study_trial import StudyTrial


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins."""

    trial: StudyTrial


@dataclass(frozen=True)
class TrialDone:
    """A trial is over, and its result on the disk."""

    trial: StudyTrial
    seconds: float
