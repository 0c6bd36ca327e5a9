"""Inspection of a model: what it looked at, why it answered as it did, and whether it is wired right.

from dragoman import inspect

seen = inspect.trace("my-run", "a dog sleeps")      # every tensor of one forward, by name
inspect.places(model)                               # the names, with shapes
"""

from dragoman.inspect.places import Place, find, places
from dragoman.inspect.subject import Inputs, Subject
from dragoman.inspect.trace import Recording, Trace, trace, trace_inputs, watching

__all__ = [
    "Inputs",
    "Place",
    "Recording",
    "Subject",
    "Trace",
    "find",
    "places",
    "trace",
    "trace_inputs",
    "watching",
]
