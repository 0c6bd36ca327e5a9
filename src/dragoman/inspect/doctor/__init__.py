"""Doctor: tests any PyTorch model for wiring mistakes by evidence.

``examine(model, batch)`` returns a ``Report``. Each file holds one family of checks; ``examination.py`` lists them.
"""

from dragoman.inspect.doctor.batch import InputBatch
from dragoman.inspect.doctor.examination import examine
from dragoman.inspect.doctor.finding import Finding, Report, Severity

__all__ = ["Finding", "InputBatch", "Report", "Severity", "examine"]
