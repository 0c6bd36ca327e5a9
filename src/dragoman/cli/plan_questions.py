"""Questions that ``dragoman plan`` answers, and the options of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.errors import ConfigError

TRAINING, SERVE, FIT, RECONCILE, LAWS = "training", "--serve", "--fit", "--reconcile", "--laws"

SETTINGS = (TRAINING, SERVE, FIT)
"""Questions that take settings, PATH=VALUE."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "--data": (TRAINING,),
    "--hardware": (TRAINING, SERVE, FIT),
    "--tokens": (TRAINING,),
    "--mfu": (TRAINING,),  # a step of decoding waits for memory: it has no share of the peak that could be stated
    "--batch-tokens": (TRAINING, FIT),
    "--length": (TRAINING, FIT),
    "--users": (SERVE,),
    "--context": (SERVE,),
    "--cache": (SERVE,),
    "--beams": (SERVE,),
    "--weights": (SERVE,),
    "--predict": (LAWS,),
    "--flops": (LAWS,),
    "--plot": (TRAINING, SERVE, LAWS),
}
"""Questions that each option is for; ``--json`` is for all."""


def question_of(chosen: Mapping[str, bool]) -> str:
    """Return the question that is asked: the option that is chosen, else training.

    Raises:
        ConfigError: two are chosen.
    """
    asked = [name for name, on in chosen.items() if on]
    if len(asked) > 1:
        raise ConfigError(f"{asked[1]}: one question at a time: leave out {asked[0]}, or this")
    return asked[0] if asked else TRAINING


def check_options(question: str, options: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Check that all that is given belongs to the question.

    Args:
        question: what is asked.
        options: values by name; None where an option is not given.
        settings: settings that are given, PATH=VALUE.

    Raises:
        ConfigError: an option or a setting is for other questions; the message opens with it.
    """
    given = [(name, OPTIONS[name]) for name, value in options.items() if value is not None]
    for name, questions in [*given, *((setting, SETTINGS) for setting in settings)]:
        if question not in questions:
            hint = f"add {questions[0]}, or leave this out" if question == TRAINING else "leave one of them out"
            raise ConfigError(f"{name}: is for {_listed(questions)}, not for {question}: {hint}")


def _listed(questions: Sequence[str]) -> str:
    *others, last = questions
    return f"{', '.join(others)} or {last}" if others else last
