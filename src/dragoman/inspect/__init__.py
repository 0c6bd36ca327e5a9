"""Inspection of a model: what it looked at, why it answered as it did, and whether it is wired right.

from dragoman import inspect

seen = inspect.trace("my-run", "a dog sleeps")      # every tensor of one forward, by name
inspect.places(model)                               # the names, with shapes
"""

from dragoman.inspect.contrast import Contrast, MeasuredAnswer, Recovery
from dragoman.inspect.doubt import explanation_features
from dragoman.inspect.failures import FailureReport, grow_hard_set, trace_failures
from dragoman.inspect.head_roles import HeadReport, HeadRole, head_roles
from dragoman.inspect.interventions import Site, ablation, difference_of_means, mean_values, steering
from dragoman.inspect.patch_map import PatchMap, map_svg, patch_heads, patch_map
from dragoman.inspect.places import Place, find, places
from dragoman.inspect.probes import ProbedPlace, ProbeReport, probe
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import Recording, Trace, trace, trace_inputs, watching

__all__ = [
    "Contrast",
    "FailureReport",
    "HeadReport",
    "HeadRole",
    "Inputs",
    "MeasuredAnswer",
    "PatchMap",
    "Place",
    "ProbeReport",
    "ProbedPlace",
    "Recording",
    "Recovery",
    "Site",
    "Subject",
    "Trace",
    "ablation",
    "difference_of_means",
    "explanation_features",
    "find",
    "grow_hard_set",
    "head_roles",
    "map_svg",
    "mean_values",
    "patch_heads",
    "patch_map",
    "places",
    "probe",
    "steering",
    "trace",
    "trace_failures",
    "trace_inputs",
    "watching",
]
