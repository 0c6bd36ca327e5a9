"""Checks of models that only read: the same output for an input in every way the model can be run.

The reference is the model as it was trained, given one input at a time. Every other way uses the model prepared for
inference, as commands prepare it (``decode/precision.py``). The outputs of the model's head are compared: scores of
labels, of tokens or of spans, or vectors.

B inputs of a batch, T tokens, patches or frames of one.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dragoman.data.material import FrameMaterial, IdMaterial, ImageMaterial, to_device
from dragoman.data.spans import ContextWindow
from dragoman.decode.precision import precision_of, prepare_for_inference
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.input_reader import InputReader
from dragoman.decode.verify.checks import (
    COMPILED,
    PADDING,
    PRECISIONS,
    Check,
    CheckQuestion,
    Verifier,
    batches,
    compiled_program,
    own_precision,
    shuffled,
    tolerance,
    within,
    written_out,
)
from dragoman.decode.verify.writing import random_rows
from dragoman.model.positions.tokens import PAD, Frames

InputRows = Sequence[np.ndarray]


class ReadingVerifier(Verifier):
    """The checks of a model that reads complete inputs.

    Args:
        reader: the model with its tokenizer; it is left in evaluation mode.
        rows: inputs as the model's material makes them; see ``rows_of`` and ``random_inputs``.
        batch: inputs read at a time, except in the reference.
        compiled: also compile the model, which takes a minute.
        searched: name of the outputs in the table.
    """

    def __init__(
        self,
        reader: InputReader,
        rows: InputRows,
        *,
        batch: int = 32,
        compiled: bool = False,
        searched: str = "outputs",
    ):
        reader.model.eval()
        self.reader, self.rows, self.batch, self.compiled, self.searched = reader, rows, batch, compiled, searched
        parameter = next(reader.model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.prepare_for_inference = cache(partial(_prepare_for_inference, reader, str(self.device)))
        self.prepared = self.prepare_for_inference(own_precision(self.dtype))

    @property
    def examples(self) -> int:
        return len(self.rows)

    def questions(self) -> list[CheckQuestion]:
        answers: dict[str, Callable[[], list[Tensor]]] = {
            f"in batches of {self.batch}": self.outputs,
            "in another order": partial(shuffled, self.rows, self.outputs),
            f"with {PADDING} more columns of padding": partial(self.outputs, extra=PADDING),
            "explicit attention": self.written_out,
        }
        if isinstance(self.reader.material, ImageMaterial):
            del answers[f"with {PADDING} more columns of padding"]  # all images have one size
        checks: dict[str, Callable[[], Check]] = {n: partial(self.compare, n, ask) for n, ask in answers.items()}
        checks |= {f"run in {name}": partial(self.run_in, name) for name in PRECISIONS}
        checks["repeated"] = self.repeated_run
        checks["compiled"] = self.compiled_forward
        return [CheckQuestion(name, self.searched, ask) for name, ask in checks.items()]

    # ---- ways of running the model ----

    def outputs(
        self,
        rows: InputRows | None = None,
        *,
        batch: int | None = None,
        extra: int = 0,
        answer: Callable[[Any], Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the model's output for each row, without the outputs on padding.

        By default the prepared model is used. ``extra`` columns of padding are added to the inputs.
        """
        found, material = [], self.reader.material
        for rows_of_batch in batches(self.rows if rows is None else rows, batch or self.batch):
            inputs = to_device(_wider(material.collate(rows_of_batch), extra), self.device)
            lengths = material.positions(np.array([len(row) for row in rows_of_batch]))
            outputs = (answer or self.prepared.answer)(inputs).double()
            if len(outputs) != len(lengths):  # outputs of another shape than the reference's, which differ from it
                outputs = outputs.new_empty(len(lengths), 0)
            found += [each[:length] if each.dim() > 1 else each for each, length in zip(outputs, lengths, strict=True)]
        return found

    def written_out(self) -> list[Tensor]:
        with written_out(self.prepared.model):
            return self.outputs()

    # ---- comparing ----

    @cached_property
    def reference(self) -> list[Tensor]:
        return self.outputs(batch=1, answer=self.reader.answer)

    def compare(
        self,
        name: str,
        ask: Callable[[], Sequence[Tensor]],
        exact: bool = True,
        wanted: Sequence[Tensor] | None = None,
    ) -> Check:
        got = ask()
        differences = [
            _largest_difference(w, g) for w, g in zip((wanted or self.reference)[: len(got)], got, strict=True)
        ]
        return within(name, self.searched, [()] * len(got), differences, tolerance(self.dtype), exact)

    def run_in(self, precision: str) -> Check:
        """Check the model as ``InputReader.load`` prepares it."""
        ask = partial(self.outputs, answer=self.prepare_for_inference(precision).answer)
        return self.compare(f"run in {precision}", ask, exact=getattr(torch, precision) == self.dtype)

    def repeated_run(self) -> Check:
        """Check that the model gives the same outputs twice, in the precision that commands choose by default."""
        precision = precision_of("auto", self.device)
        ask = partial(self.outputs, answer=self.prepare_for_inference(precision).answer)
        return self.compare("repeated", ask, wanted=ask())

    def compiled_forward(self) -> Check:
        program = compiled_program(self.compiled, self.reader.answer)
        # one batch size alone: every other one would be compiled again
        ask = partial(self.outputs, self.rows[:COMPILED], batch=COMPILED, answer=program)
        return self.compare("compiled", ask)


def _prepare_for_inference(reader: InputReader, device: str, precision: str) -> InputReader:
    return type(reader)(
        prepare_for_inference(deepcopy(reader.model), device, precision), reader.tokenizer, reader.config
    )


def _largest_difference(wanted: Tensor, got: Tensor) -> float:
    """Return the largest difference, relative to the largest number, or to 1; infinity for another shape."""
    if wanted.shape != got.shape:
        return math.inf
    difference = torch.where(wanted == got, 0.0, (wanted - got).abs())  # scores of impossible choices are infinite
    finite = wanted[wanted.isfinite()]
    return float(difference.max() / max(1.0, float(finite.abs().max()) if len(finite) else 1.0))


def _wider(inputs: Tensor | Frames, extra: int) -> Tensor | Frames:
    if not extra:
        return inputs
    if isinstance(inputs, Tensor):
        return F.pad(inputs, (0, extra), value=PAD)
    keep = torch.ones(inputs.values.shape[:2], dtype=torch.bool) if inputs.keep is None else inputs.keep
    return Frames(F.pad(inputs.values, (0, 0, 0, extra)), F.pad(keep, (0, extra), value=False))


# ---- inputs ---------------------------------------------------------------------------------------


def rows_of(reader: InputReader, texts: Sequence[str]) -> list[np.ndarray]:
    """Return texts as the model reads them; one that answers questions gets each text as context and question."""
    if isinstance(reader, Answerer):
        windows: list[ContextWindow] = [each[0] for each in reader.form.windows([(text, text) for text in texts])]
        return [np.array(window.ids) for window in windows]
    return reader.material.rows(texts, [f"text {i}" for i in range(1, 1 + len(texts))])


def random_inputs(reader: InputReader, count: int) -> list[np.ndarray]:
    """Return random texts, images or frames; the same ones every time."""
    material, draw = reader.material, np.random.default_rng(0)
    if isinstance(material, IdMaterial):
        rows = random_rows(len(material.tokenizer), count, material.longest - 2)
        return rows_of(reader, [material.tokenizer.decode(row) or "?" for row in rows])
    if isinstance(material, ImageMaterial):
        channels, height, width = material.shape
        given = [draw.standard_normal((height, width, channels)) for _ in range(count)]
    else:
        assert isinstance(material, FrameMaterial)
        most = min(30, material.longest or 30)
        lengths = draw.integers(min(2, most), most, count, endpoint=True)
        given = [draw.standard_normal((length, material.channels)) for length in lengths]
    return material.rows(given, [f"input {i}" for i in range(1, 1 + count)])
