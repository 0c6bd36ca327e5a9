"""Opening a run for verification: its model, and examples for it.

The examples are texts that the user gives, or else the run's own test or validation set, or else random ones.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import nn

from dragoman.checkpoint import load_any
from dragoman.data.material import IdMaterial
from dragoman.decode.defaults import BEAM
from dragoman.decode.generator import Generator
from dragoman.decode.precision import on_device
from dragoman.decode.prompt import PromptAfterImage
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.input_reader import InputReader
from dragoman.decode.verify.checks import Verifier
from dragoman.decode.verify.reading import ReadingVerifier, random_inputs, rows_of
from dragoman.decode.verify.writing import WritingVerifier, random_beginnings, random_rows, translates
from dragoman.errors import ConfigError, DataError
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.inputs import TokenInput
from dragoman.model.interface import SequenceModel
from dragoman.model.prefixed import PrefixedTransformer
from dragoman.text.context import context_of_run
from dragoman.text.corpus import source_rows
from dragoman.text.formats.kinds import read_plain_lines
from dragoman.text.held_out import read_held_out
from dragoman.text.lines import Sourced
from dragoman.text.store import Column, Store
from dragoman.text.tokens.tokenizer import PROMPT_FRAME, Tokenizer

BEGINNING = 16
"""Tokens of a validation text that serve as a prompt or a source."""
HELD_OUT = ("test", "valid")
"""Sets of a run that examples are taken from, the first one that has any."""

T = TypeVar("T")


@dataclass(frozen=True)
class VerifiableRun:
    """A verifier with the texts of its examples."""

    verifier: Verifier
    texts: Sequence[str]
    """Texts of the examples, where these are text; else empty."""
    tokenizer: Tokenizer | None
    """Tokenizer of the answers; None where the model generates no text."""
    note: str = ""
    """Says how many texts are left out or cut, because they are too long for a model that writes; else empty."""


def open_run(
    run: Path,
    checkpoint: str | int = "best",
    *,
    text: Path | None,
    examples: int,
    device: str,
    beam: int | None = None,
    max_new_tokens: int | None = None,
    **options: Any,
) -> list[VerifiableRun]:
    """Return the verifier of a run's model, or one for each of two towers.

    Args:
        text: a file with one text a line; None for the run's own.
        examples: most examples.
        beam: hypotheses kept in beam search, by models that generate text; None for the usual number.
        max_new_tokens: most tokens of what they generate; None for their own limit.
        options: ``batch`` and ``compiled``, as ``WritingVerifier`` has them.

    Raises:
        CheckpointError: no such run or checkpoint, or a damaged one.
        ConfigError: no such device; texts for a model that reads none; or settings of a search for one that writes
            none.
        DataError: no text in the file, or none that is short enough.
    """
    directory, model, config = load_any(run, checkpoint)
    model = on_device(model, device)  # as it was trained: the reference must not be laid out for inference
    if isinstance(model, SequenceModel):
        tokenizers = directory.tokenizers()
        ask = _to_translate if translates(model) else _to_continue
        if isinstance(model, PrefixedTransformer):
            ask = _to_describe
        texts, rows, note = ask(model, tokenizers[0], config, directory.path / "data", text, examples)
        options |= {"beam": beam or BEAM, "max_new_tokens": max_new_tokens}
        return [VerifiableRun(WritingVerifier(model, tokenizers[1], rows, **options), texts, tokenizers[1], note)]
    for name, value in {"--beam": beam, "--max-new-tokens": max_new_tokens}.items():
        if value is not None:
            raise ConfigError(f"{name}: is for models that generate text, and this model only reads: leave it out")
    found = []
    for name, tower in _towers(model):
        tokenizer = directory.tokenizers()[0] if isinstance(tower.cfg.inputs, TokenInput) else None
        answers = config.get("task", {}).get("kind") == "question_answering"
        reader = (Answerer if answers else InputReader)(tower, tokenizer, config)
        texts, rows, note = _to_read(reader, name.split()[0], directory.path / "data", text, examples)
        found.append(VerifiableRun(ReadingVerifier(reader, rows, searched=name, **options), texts, None, note))
    return found


def _towers(model: nn.Module) -> list[tuple[str, Encoder]]:
    """Return the models that read, each with the name of what is compared."""
    if not isinstance(model, TwoTowers):
        assert isinstance(model, Encoder)
        return [("outputs", model)]
    towers = [("first tower", model.first), ("second tower", model.second)]
    return towers[:1] if model.first is model.second else towers


# ---- examples -------------------------------------------------------------------------------------


class VerifyExamples(NamedTuple):
    """Inputs of the checks."""

    texts: list[str]
    """Their texts, where they are known; else empty."""
    rows: Sequence[Any]
    """Inputs as the verifier takes them."""
    note: str = ""
    """Says how many texts are left out or cut, because they are too long for a model that writes; else empty."""


def _to_translate(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> VerifyExamples:
    longest = model.max_length
    if text is not None:
        lines = context_of_run(config).in_lines(read_plain_lines(text))
        given = (Sourced(line, "", "", context=context) for line, context in lines if line.strip())
        pairs = _first(text, given, count)
        found = _fitting(tokenizer, pairs, longest)
        if not found.rows:
            raise DataError(f"{text}: {_texts(len(pairs))} and none fits into the model's {longest:,} tokens")
        return found
    for path in (data / f"{name}.jsonl" for name in HELD_OUT):
        if path.is_file() and (found := _fitting(tokenizer, read_held_out(path)[:count], longest)).rows:
            return found
    if stored := _held_out(data, "text"):
        texts = [tokenizer.decode(stored[i][:BEGINNING]) for i in _some(stored, count)]
        return _fitting(tokenizer, [Sourced(text, "", "") for text in texts], longest)
    return VerifyExamples([], random_rows(len(tokenizer), count, longest))


def _fitting(tokenizer: Tokenizer, pairs: Sequence[Sourced], longest: int | None) -> VerifyExamples:
    """Return the sources of ``longest`` tokens or less."""
    rows = source_rows(tokenizer, pairs, longest)
    fit = [(p.source, row) for p, row in zip(pairs, rows, strict=True) if longest is None or len(row) <= longest]
    note = ""
    if left_out := len(pairs) - len(fit):
        note = f"left out: {left_out:,} of {_texts(len(pairs))}, longer than the model's {longest:,} tokens"
    return VerifyExamples([source for source, _ in fit], [row for _, row in fit], note)


def _to_continue(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> VerifyExamples:
    if text is not None:
        texts = _lines(text, count)
        prompts, note = _prompts(model, tokenizer, texts)
        return VerifyExamples(texts, prompts, note)
    if stored := _held_out(data, "text"):
        longest = min(_longest_prompt(model), BEGINNING)
        rows = [stored[i].tolist()[:longest] for i in _some(stored, count)]
        return VerifyExamples([], [row[:-1] if len(row) > 1 and row[-1] == tokenizer.eos else row for row in rows])
    return VerifyExamples([], random_beginnings(len(tokenizer), count, model.max_length))


def _longest_prompt(model: SequenceModel) -> int:
    """Return the most tokens of a prompt; the rest of what the model reads is for the continuation."""
    return max(1, (model.max_length or 2 * BEGINNING) // 2)


def _prompts(model: SequenceModel, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], str]:
    """Return the ids of prompts, cut to what leaves room for a continuation, and a note on how many are cut."""
    longest, frame = _longest_prompt(model), tokenizer.frame(PROMPT_FRAME)
    rows = [frame.around(ids) for ids in tokenizer.encode_batch(list(texts))]
    cut = sum(len(row) > longest for row in rows)
    note = f"cut: {cut:,} of {_texts(len(rows))}, after {longest:,} tokens, so that there is room to continue"
    return [row[:longest] for row in rows], note if cut else ""


def _to_describe(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> VerifyExamples:
    """Return prompts after images that the run holds out, or after random ones."""
    assert isinstance(model, PrefixedTransformer)
    material = Generator(model, tokenizer).images
    assert material is not None, "checked by Generator"
    texts = [] if text is None else _lines(text, count)
    prompts, note = _prompts(model, tokenizer, texts or [""] * count)
    if stored := _held_out(data, "image"):
        rows = [stored.raw_row(i % len(stored)) for i in range(len(prompts))]
    else:
        draw = np.random.default_rng(0)
        rows = [draw.integers(0, 256, math.prod(material.shape), dtype=np.uint8) for _ in prompts]
    both = zip(prompts, material.collate(rows), strict=True)
    return VerifyExamples(texts, [PromptAfterImage(prompt, image) for prompt, image in both], note)


def _to_read(reader: InputReader, tower: str, data: Path, text: Path | None, count: int) -> VerifyExamples:
    """Return inputs for a reader; ``tower`` names the column of those that are one of two towers."""
    if text is not None:
        if reader.tokenizer is None:
            raise ConfigError(
                f"--text: this model reads {reader.material.what}: leave it out, and those of the run are used"
            )
        texts = _lines(text, count)
        return VerifyExamples(texts, rows_of(reader, texts))
    if not (stored := _held_out(data, tower, "given", "text")):
        return VerifyExamples([], random_inputs(reader, count))
    if not isinstance(reader.material, IdMaterial):
        return VerifyExamples([], [stored.raw_row(i) for i in _some(stored, count)])
    return VerifyExamples([], [stored[i][: reader.material.longest] for i in _some(stored, count)])


def _held_out(data: Path, *names: str) -> Column | None:
    """Return the stored inputs of a set that the run holds out, the column of the first of these ``names`` that there
    is; None where there are none."""
    for folder in (data / name for name in HELD_OUT):
        if folder.is_dir():
            columns = Store.open(folder).columns
            column = next((columns[name] for name in names if name in columns), None)
            if column is not None and len(column):
                return column
    return None


def _some(stored: Column, count: int) -> range:
    return range(min(count, len(stored)))


def _lines(text: Path, count: int) -> list[str]:
    """Return the first lines of a file that are not blank.

    Raises:
        DataError: no such file, or only blank lines.
    """
    return _first(text, (line for line in read_plain_lines(text) if line.strip()), count)


def _first(text: Path, found: Iterable[T], count: int) -> list[T]:
    """Return the first ``count`` texts found in a file.

    Raises:
        DataError: there is none.
    """
    if some := list(islice(found, count)):
        return some
    raise DataError(f"{text}: no text in it")


def _texts(count: int) -> str:
    return f"{count:,} text{'s' if count != 1 else ''}"
