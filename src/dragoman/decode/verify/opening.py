"""Opening a run for verification: its model, and examples for it.

The examples are texts that the user gives, or else the run's own test or validation text, or else random ids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dragoman.checkpoint import load_any
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
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import PROMPT_FRAME, Tokenizer

BEGINNING = 16
"""Tokens of a validation text that serve as a prompt."""


@dataclass(frozen=True)
class VerifiableRun:
    """A verifier with the texts of its examples."""

    verifier: Verifier
    texts: Sequence[str]
    """Texts of the examples, where these are text; else empty."""
    tokenizer: Tokenizer | None
    """Tokenizer of the answers; None where the model generates no text."""


def open_run(
    run: Path,
    checkpoint: str | int = "best",
    *,
    text: Path | None,
    examples: int,
    device: str,
    beam: int,
    max_new_tokens: int | None = None,
    **options: Any,
) -> list[VerifiableRun]:
    """Return the verifier of a run's model, or one for each of two towers.

    Args:
        text: a file with one text a line; None for the run's own.
        examples: most examples.
        beam: hypotheses kept in beam search, by models that generate text.
        max_new_tokens: most tokens of what they generate; None for their own limit.
        options: ``batch`` and ``compiled``, as ``WritingVerifier`` has them.

    Raises:
        CheckpointError: no such run or checkpoint, or a damaged one.
        ConfigError: no such device; or texts for a model that reads none.
        DataError: no text in the file.
    """
    directory, model, config = load_any(run, checkpoint)
    model = on_device(model, device)  # as it was trained: the reference must not be laid out for inference
    if isinstance(model, SequenceModel):
        tokenizers = directory.tokenizers()
        ask = _to_translate if translates(model) else _to_continue
        if isinstance(model, PrefixedTransformer):
            ask = _to_describe
        texts, rows = ask(model, tokenizers[0], config, directory.path / "data", text, examples)
        options |= {"beam": beam, "max_new_tokens": max_new_tokens}
        return [VerifiableRun(WritingVerifier(model, tokenizers[1], rows, **options), texts, tokenizers[1])]
    found = []
    for name, tower in _towers(model):
        tokenizer = directory.tokenizers()[0] if isinstance(tower.cfg.inputs, TokenInput) else None
        answers = config.get("task", {}).get("kind") == "question_answering"
        reader = (Answerer if answers else InputReader)(tower, tokenizer, config)
        texts, rows = _to_read(reader, text, examples)
        found.append(VerifiableRun(ReadingVerifier(reader, rows, searched=name, **options), texts, None))
    return found


def _towers(model: nn.Module) -> list[tuple[str, Encoder]]:
    """Return the models that read, each with the name of what is compared."""
    if not isinstance(model, TwoTowers):
        assert isinstance(model, Encoder)
        return [("outputs", model)]
    towers = [("first tower", model.first), ("second tower", model.second)]
    return towers[:1] if model.first is model.second else towers


VerifyExamples = tuple[list[str], list[list[int]]]
"""Texts, which may be missing, and ids."""


def _to_translate(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> VerifyExamples:
    longest = model.max_length
    if text is not None:
        before = context_of_run(config)
        pairs = [Sourced(line, "", "", context=context) for line, context in before.in_lines(_lines(text, count))]
        pairs = [pair for pair in pairs if pair.source.strip()]
    elif (data / "test.jsonl").is_file():
        pairs = read_held_out(data / "test.jsonl")[:count]
    else:
        return [], random_rows(len(tokenizer), count, longest)
    rows = source_rows(tokenizer, pairs, longest)
    fit = [(p.source, row) for p, row in zip(pairs, rows, strict=True) if longest is None or len(row) <= longest]
    return [source for source, _ in fit], [row for _, row in fit]


def _to_continue(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> VerifyExamples:
    longest = max(1, (model.max_length or 2 * BEGINNING) // 2)  # the rest is for the continuation
    if text is not None:
        texts = [line for line in _lines(text, count) if line.strip()]
        frame = tokenizer.frame(PROMPT_FRAME)
        return texts, [frame.around(ids)[:longest] for ids in tokenizer.encode_batch(texts)]
    if (data / "valid").is_dir():
        stored = Store.open(data / "valid").columns["text"]
        rows = [stored[i].tolist()[: min(longest, BEGINNING)] for i in range(min(count, len(stored)))]
        return [], [row[:-1] if len(row) > 1 and row[-1] == tokenizer.eos else row for row in rows]
    return [], random_beginnings(len(tokenizer), count, model.max_length)


def _to_describe(
    model: SequenceModel, tokenizer: Tokenizer, config: dict[str, Any], data: Path, text: Path | None, count: int
) -> tuple[list[str], list[PromptAfterImage]]:
    """Return prompts after the run's validation images, or after random ones."""
    assert isinstance(model, PrefixedTransformer)
    material = Generator(model, tokenizer).images
    assert material is not None, "checked by Generator"
    texts = [] if text is None else [line for line in _lines(text, count) if line.strip()]
    prompts = tokenizer.encode_batch(texts) or [[]] * count
    if (data / "valid").is_dir() and len(stored := Store.open(data / "valid").columns["image"]):
        rows = [stored.raw_row(i % len(stored)) for i in range(len(prompts))]
    else:
        draw = np.random.default_rng(0)
        rows = [draw.integers(0, 256, math.prod(material.shape), dtype=np.uint8) for _ in prompts]
    frame = tokenizer.frame(PROMPT_FRAME)
    return texts, [
        PromptAfterImage(frame.around(p), image) for p, image in zip(prompts, material.collate(rows), strict=True)
    ]


def _to_read(reader: InputReader, text: Path | None, count: int) -> tuple[list[str], list]:
    if text is None:
        return [], random_inputs(reader, count)
    if reader.tokenizer is None:
        raise ConfigError(f"--text: this model reads {reader.material.what}: leave it out, and random inputs are used")
    texts = [line for line in _lines(text, count) if line.strip()]
    return texts, rows_of(reader, texts)


def _lines(text: Path, count: int) -> list[str]:
    """Return the first lines of a file.

    Raises:
        DataError: no such file, or only blank lines.
    """
    lines = list(islice(read_plain_lines(text), count))
    if not any(line.strip() for line in lines):
        raise DataError(f"{text}: no text in it")
    return lines
