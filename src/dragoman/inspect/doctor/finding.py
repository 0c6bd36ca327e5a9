"""Findings of a check, and the report of all checks."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

S = TypeVar("S")


class Severity(StrEnum):
    """Weight of a finding: an error is a mistake, a warning often is one, a note may be intended."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check has found."""

    check: str
    """Name of the check."""
    severity: Severity
    title: str
    """Symptom in one sentence."""
    evidence: str
    """Measurement in one sentence, with its numbers."""
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    """The same numbers by name."""
    cause: str
    """Likely cause."""
    remedy: str
    where: str
    """Path of the module as ``named_modules`` has it; ``(model)`` for the model itself, ``(data)`` outside it."""


@dataclasses.dataclass(frozen=True)
class SkippedCheck:
    """Check that was not made."""

    check: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """Findings of an examination, the most severe first."""

    model: str
    """Class of the model."""
    parameters: int
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    """Names of the checks that found nothing."""
    skipped: tuple[SkippedCheck, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of severity ``error``."""
        return self.of(Severity.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; a number that is not finite is None, which JSON can hold."""
        plain = dataclasses.asdict(self)
        for finding in plain["findings"]:
            numbers = finding["numbers"]
            finding["numbers"] = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return plain


class NotApplicable(Exception):
    """Raised by a check that does not apply; the message continues "left out: ..."."""


class DoctorCheck(ABC, Generic[S]):
    """One question about a model."""

    name: ClassVar[str]
    asks: ClassVar[str]
    """Question in one sentence."""
    compares: ClassVar[bool] = True
    """True where outputs are compared, which must be finite for that."""

    @abstractmethod
    def run(self, subject: S) -> Iterator[Finding]:
        """Yield what is found; nothing where all is well.

        Raises:
            NotApplicable: the check has no meaning for this model or batch.
        """

    def finding(self, severity: Severity, title: str, **rest: Any) -> Finding:
        """Return a finding of this check."""
        return Finding(check=self.name, severity=severity, title=title, **rest)
