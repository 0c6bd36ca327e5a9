"""Explanation of many sentences, in three files: a page of causal paths, curves of sensitivity, and a script that
computes the same numbers again.

A curve is the fall of an answer's log-probability, over the place in the input at which a token is replaced, and over
the layers of which a part is taken away. Its mean and interval are over sentences and seeds.

S input tokens, T output tokens.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch

from dragoman import durable
from dragoman.errors import DataError
from dragoman.inspect.attribution import ExplainedAnswer, PartEffect, occlusion, parts
from dragoman.inspect.page.causal_path import causal_path_page
from dragoman.inspect.page.curves import draw_curves
from dragoman.inspect.subject import Subject

BINS = 10
"""Parts of an input's length in which places are counted."""
RESAMPLES = 1000
"""Bootstrap samples of an interval of 95 percent."""
FILES = ("page.html", "sensitivity.csv", "sensitivity.svg", "repeat.py")


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve: mean and interval of 95 percent."""

    curve: str
    """``input tokens``, or a part of the layers such as ``decoder feed_forward``."""
    x: float
    """Place in the input, from 0 for its beginning to 1 for its end; or the layer, counted from 0."""
    mean: float
    """Fall of the log-probability of the whole answer, in nats."""
    low: float
    high: float
    values: int
    """Number of sentences and seeds it is the mean over."""


@dataclass(frozen=True)
class ExplainedSentence:
    """One sentence, its answer, and the effect of every part of the model on it."""

    text: str
    tokens: tuple[str, ...]
    outputs: tuple[str, ...]
    log_prob: float
    parts: tuple[PartEffect, ...]


Progress = Callable[[int, int], None]
"""Called with the sentences done and their number."""


def explain(
    subject: Subject, texts: Sequence[str], *, seed: int = 1, seeds: int = 3, progress: Progress | None = None
) -> tuple[list[CurvePoint], list[ExplainedSentence]]:
    """Return the curves of sensitivity, and each sentence with the effects of the model's parts.

    Equal arguments on one machine give equal numbers.

    Args:
        subject: a translator, a language model, or an encoder of texts.
        texts: the sentences.
        seed: of the tokens that inputs are replaced by, and of the intervals.
        seeds: number of random replacements of each token.

    Raises:
        DataError: no sentence, one that the model cannot read, or a model that reads no text.
    """
    if not texts:
        raise DataError("sentences: the file has none: give one in each line")
    if subject.kind == "towers" or (subject.kind == "encoder" and subject.tokenizer is None):
        raise DataError("sentences: this model does not read single texts: use `dragoman inspect` for one input")
    falls: dict[tuple[str, float], list[float]] = {}
    explained = []
    for number, text in enumerate(texts, 1):
        answer = _answer(subject, text, number)
        for repeat in range(seeds):
            found = occlusion(answer, baseline="random", seeds=[seed + repeat])
            for place, value in _by_place(answer, found.total):
                falls.setdefault(("input tokens", place), []).append(value)
        effects = parts(answer)
        for effect in effects:
            if effect.head is None:
                falls.setdefault(_of_part(effect), []).append(effect.total)
        log_prob = float(answer.log_probabilities.sum())
        explained.append(ExplainedSentence(text, answer.tokens, answer.outputs, log_prob, tuple(effects)))
        if progress:
            progress(number, len(texts))
    return [_point(*key, values, seed) for key, values in sorted(falls.items())], explained


def _answer(subject: Subject, text: str, number: int) -> ExplainedAnswer:
    try:
        return ExplainedAnswer(subject, subject.inputs(text))
    except DataError as error:
        raise DataError(f"line {number}: {error}") from None


def _by_place(answer: ExplainedAnswer, total: np.ndarray) -> Iterable[tuple[float, float]]:
    """Yield the mean fall in each part of the input's length that has a token."""
    tokens = answer.occludable
    bins: dict[int, list[float]] = {}
    for rank, token in enumerate(tokens):
        bins.setdefault(min(BINS - 1, BINS * rank // len(tokens)), []).append(float(total[token]))
    for number, values in bins.items():
        yield (number + 0.5) / BINS, float(np.mean(values))


def _of_part(effect: PartEffect) -> tuple[str, float]:
    """Return the curve that a part belongs to, and its layer."""
    names = effect.place.split(".")
    layer = next(i for i, name in enumerate(names) if name.isdigit())
    return f"{'.'.join(names[:layer])} {names[layer + 1]}", float(names[layer])


def _point(curve: str, x: float, values: Sequence[float], seed: int) -> CurvePoint:
    draw = np.random.default_rng(seed)
    array = np.asarray(values)
    means = array[draw.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return CurvePoint(curve, x, float(array.mean()), float(low), float(high), len(array))


# ---- files --------------------------------------------------------------------------------------------


def as_csv(points: Sequence[CurvePoint]) -> str:
    """Return the curves as a table, numbers with six digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["curve", "x", "mean", "low", "high", "values"])
    for point in points:
        row = asdict(point)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
    return out.getvalue()


def write_explanation(
    folder: Path, subject: Subject, texts: Sequence[str], points: Sequence[CurvePoint],
    explained: Sequence[ExplainedSentence], *, seed: int, seeds: int,
) -> None:  # fmt: skip
    """Write the four files of ``FILES`` into a folder, which is made.

    Raises:
        DataError: the subject was opened without a run, which the script needs.
    """
    if subject.run is None:
        raise DataError("explain: open a run: the script that repeats the numbers names it")
    folder.mkdir(parents=True, exist_ok=True)
    title = subject.run.name
    contents = {
        "page.html": causal_path_page(title, explained),
        "sensitivity.csv": as_csv(points),
        "sensitivity.svg": draw_curves(points),
        "repeat.py": repeating_script(subject.run, texts, seed, seeds, subject.opened),
    }
    for name in FILES:
        durable.replace(folder / name, contents[name].encode())


_SCRIPT = Template('''"""Compute the curves of sensitivity.csv again, to the byte: python repeat.py [FILE]."""

import sys
from pathlib import Path

import torch

from dragoman.inspect.explain import as_csv, explain
from dragoman.inspect.subject import Subject

RUN = $run
TEXTS = [
$texts
]

torch.set_num_threads($threads)
points, _ = explain(Subject.open(RUN$opened), TEXTS, seed=$seed, seeds=$seeds)
if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(as_csv(points), encoding="utf-8", newline="\\n")
else:
    sys.stdout.write(as_csv(points))
''')


def repeating_script(
    run: Path, texts: Sequence[str], seed: int, seeds: int, opened: Mapping[str, Any] | None = None
) -> str:
    """Return a Python script that computes the same curves from the same run.

    Args:
        opened: further arguments of ``Subject.open``, by name.
    """
    listed = "\n".join(f"    {text!r}," for text in texts)
    values = {"run": repr(str(run.resolve())), "texts": listed, "seed": seed, "seeds": seeds}
    values |= {"opened": "".join(f", {name}={value!r}" for name, value in (opened or {}).items())}
    return _SCRIPT.substitute(values, threads=torch.get_num_threads())
