"""Measures of studies, by name: functions of a finished run that return figures. A new one is a line here."""

from dragoman.compare.figure import Measure
from dragoman.compare.measures.further import FURTHER_MEASURES
from dragoman.compare.measures.losses import loss, perplexity
from dragoman.compare.measures.scores import task, translation

MEASURES: dict[str, Measure] = {
    "loss": loss,
    "perplexity": perplexity,
    "task": task,
    "translation": translation,
    **FURTHER_MEASURES,
}
