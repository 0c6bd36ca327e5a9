"""Measures of studies, by name: functions of a finished run that return figures. A new one is a line here."""

from dragoman.compare.figure import Measure
from dragoman.compare.measures.answering import answers, memorised
from dragoman.compare.measures.arithmetic import formula
from dragoman.compare.measures.curves import mistakes, steps_to_loss
from dragoman.compare.measures.longer import length_extrapolation
from dragoman.compare.measures.losses import loss, perplexity
from dragoman.compare.measures.operators import attention_cost, cache_speed, gradient_reach, score_spread
from dragoman.compare.measures.removal import brackets, layer_removal
from dragoman.compare.measures.scores import task, translation
from dragoman.compare.measures.slices import slices

MEASURES: dict[str, Measure] = {
    "answers": answers,
    "attention_cost": attention_cost,
    "brackets": brackets,
    "cache_speed": cache_speed,
    "formula": formula,
    "gradient_reach": gradient_reach,
    "layer_removal": layer_removal,
    "length_extrapolation": length_extrapolation,
    "loss": loss,
    "memorised": memorised,
    "mistakes": mistakes,
    "perplexity": perplexity,
    "score_spread": score_spread,
    "slices": slices,
    "steps_to_loss": steps_to_loss,
    "task": task,
    "translation": translation,
}
