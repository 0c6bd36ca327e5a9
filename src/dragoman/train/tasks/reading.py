"""Shared base of tasks whose model reads whole examples and generates no text.

    runs/NAME/data/   train/   valid/ (stores)   valid.jsonl   test.jsonl   hard.jsonl   facts.json (labels etc.)
                      report.json

A task defines which data and which head it takes, how its examples are stored, and how predictions are scored.
"""

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dragoman import durable
from dragoman.checkpoint import RunDirectory, run_config
from dragoman.config import kind_of, to_dict
from dragoman.data.batch import Batches
from dragoman.data.example_store import ExampleStore
from dragoman.errors import ConfigError
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inputs import TokenInput
from dragoman.model.meta_device import on_meta_device
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.held_out import write_held_out
from dragoman.text.splits import SplitExamples
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import Notice, Preparing, ValidationSample
from dragoman.train.recipe import RunConfig, resolve_auto
from dragoman.train.tasks.task_data import (
    FOLDER,
    Spent,
    TaskData,
    ValidationResult,
    Validator,
    finite,
    train_tokenizer,
    warm_start_tokenizers,
)
from dragoman.train.tasks.translation import in_order


class ReaderTaskData(TaskData):
    """Data of a task whose model reads whole examples."""

    model: type = EncoderConfig
    head: type
    """Class of head that the task takes."""
    inputs: tuple[type, ...] = (TokenInput,)
    """Classes of model inputs that the task takes."""

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        self.task: Any = cfg.task
        self.tokenizer = run.tokenizers()[0] if run.tokenizer_files() else None
        self.folder = run.path / FOLDER
        self.facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_bytes())
        self.form = self.store_for(cfg, self.tokenizer, self.facts)
        self.train, self.valid = (Store.open(self.folder / name) for name in ("train", "valid"))
        self.lengths = self.form.lengths(self.train)

    # ---- checks before a run ----------------------------------------------------------------------

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        super().check(cfg)
        cls.check_inputs(cfg)

    @classmethod
    def check_inputs(cls, cfg: RunConfig) -> None:
        """Check that the model reads the kind of input that the data are.

        Raises:
            ConfigError: the model reads another kind of input.
        """
        if not isinstance(encoder(cfg).inputs, wanted := cls.input_classes(cfg)):
            kinds = " or ".join(map(kind_of, wanted))
            raise ConfigError(f"model.inputs: {kind_of(type(cfg.data))} are read by inputs of the kind {kinds}")

    @classmethod
    def outline(cls, cfg: RunConfig) -> nn.Module:
        model, task = encoder(cfg), kind_of(type(cfg.task))
        if not isinstance(model.head, cls.head):
            raise ConfigError(f"model.head: {task} takes a head of the kind {kind_of(cls.head)}")
        with on_meta_device():
            vocab, classes = (getattr(model.inputs, "vocab", None), getattr(model.head, "classes", None))
            return model.sized(vocab=vocab or 1000, classes=classes or 2).build()

    @classmethod
    def input_classes(cls, cfg: RunConfig) -> tuple[type, ...]:
        """Return the classes of model inputs that read ``cfg.data``."""
        return cls.inputs

    @classmethod
    @abstractmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> ExampleStore:
        """Return the store that encodes the examples."""

    @classmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> "ReaderTaskData":
        return cls(cfg, run)

    # ---- preparing --------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        if not (run.path / FOLDER).is_dir():
            yield from cls.build_stores(cfg, run)

    @classmethod
    def build_stores(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        yield Preparing("reading")
        found = cls.find(cfg)
        yield Notice("; ".join(f"{what} {count:,}" for what, count in found.table))
        if found.note:
            yield Notice(found.note)
        tokenizer = None
        if cls.reads_text(cfg):
            yield Preparing("training the tokenizer")
            tokenizer = yield from cls.make_tokenizer(cfg, found.split.train)
            run.write_tokenizers(tokenizer, tokenizer)
        yield Preparing("storing what was read")
        form = cls.store_for(cfg, tokenizer, found.facts)
        with durable.folder(run.path / FOLDER) as folder:
            for name, examples in (("train", found.split.train), ("valid", found.split.valid)):
                form.store(folder / name, examples)
            cls.write_held_out(folder, form, found.split)
            durable.write(folder / "facts.json", json.dumps(found.facts, ensure_ascii=False).encode())
            durable.write(folder / "report.json", json.dumps({"table": found.table}, indent=1).encode())
        yield from map(Notice, cls.notes(cfg, form, run.path / FOLDER / "train", found.split))

    @classmethod
    def notes(cls, cfg: RunConfig, form: ExampleStore, train: Path, split: PairSplit[Any]) -> Iterator[str]:
        """Yield what to know of the examples of ``split``, a sentence each; ``train`` stores those for training."""
        yield from ()

    @classmethod
    def make_tokenizer(cls, cfg: RunConfig, examples: Sequence[Any]) -> Generator[Notice, None, Tokenizer]:
        """Return a tokenizer for the texts of the examples, or that of the run that this one starts from."""
        if cfg.start_from:
            return (yield from warm_start_tokenizers(cfg.start_from, cls._texts(examples)))[0]
        return (yield from train_tokenizer(cfg.tokenizer, lambda: cls._texts(examples)))

    @classmethod
    def find(cls, cfg: RunConfig) -> SplitExamples[Any]:
        """Read and split the examples.

        Raises:
            DataError: a file cannot be read, or there are too few examples.
        """
        data: Any = cfg.data
        return data.split()

    @classmethod
    def _texts(cls, examples: Sequence[Any]) -> Iterator[str]:
        return chain.from_iterable(map(cls.texts_of, examples))

    @classmethod
    def texts_of(cls, example: Any) -> Sequence[str]:
        """Return the texts of an example, for training the tokenizer."""
        return example.texts

    @classmethod
    def reads_text(cls, cfg: RunConfig) -> bool:
        return isinstance(encoder(cfg).inputs, TokenInput)

    @classmethod
    def write_held_out(cls, folder: Path, form: ExampleStore, split: PairSplit[Any]) -> None:
        """Write the held-out examples as they were given, for validation and evaluation."""
        write_held_out(folder, split.held_out, lambda e: json.dumps(cls.record(e), ensure_ascii=False) + "\n")

    @classmethod
    def read_held_out(cls, path: Path, labels: Sequence[str]) -> Sequence[Any]:
        """Read the lines that ``write_held_out`` wrote, in tasks that hold out lines.

        Raises:
            DataError: no such file, or other lines.
        """
        raise NotImplementedError

    @classmethod
    def record(cls, example: Any) -> dict[str, Any]:
        """Return an example as a JSON object that can be read again."""
        return example._asdict()

    # ---- learning ---------------------------------------------------------------------------------

    def fill(self, cfg: RunConfig) -> RunConfig:
        for path, given, found in self.determined_sizes(cfg):
            if given not in (None, found):
                raise ConfigError(f"{path}: {_mismatch(cfg, path, given, found)}")
        model = self.sized(cfg)
        task = dataclasses.replace(cfg.task, **self.determined_fields())
        return resolve_auto(dataclasses.replace(cfg, task=task, model=model), width(model))

    def determined_sizes(self, cfg: RunConfig) -> list[tuple[str, Any, Any]]:
        """Return sizes that the data determine: path, the run file's value or None, and the required value."""
        model = encoder(cfg)
        found: list[tuple[str, Any, Any]] = []
        if self.tokenizer:
            found.append(("model.inputs.vocab", getattr(model.inputs, "vocab", None), len(self.tokenizer)))
        if labels := self.labels:
            found.append(("task.labels", getattr(cfg.task, "labels", None), labels))
            found.append(("model.head.classes", getattr(model.head, "classes", None), len(labels)))
        return found

    def determined_fields(self) -> dict[str, Any]:
        """Return the fields of the task that the data determine."""
        return {"labels": self.labels} if self.labels else {}

    def sized(self, cfg: RunConfig) -> Any:
        """Return the model with all sizes that the data determine."""
        return encoder(cfg).sized(vocab=self.vocab, classes=len(self.labels) or None)

    @property
    def vocab(self) -> int | None:
        return len(self.tokenizer) if self.tokenizer else None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.facts.get("labels", ()))

    @property
    def unit(self) -> str:
        """Return the word for the stored examples, in the plural."""
        return "examples"

    @property
    def summary(self) -> str:
        counts = f"{len(self.train):,} {self.unit} to train on, {len(self.valid):,} to validate"
        labels = f"; {len(self.labels)} labels" if self.labels else ""
        return counts + labels + (f"; vocabulary {len(self.tokenizer):,}" if self.tokenizer else "")

    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> Batches:
        return Batches(self.lengths, cfg.train.batch_tokens, cfg.train.seed, cfg.train.accumulate)

    def batch(self, rows: np.ndarray) -> Any:
        return self.form.batch(self.train, rows)

    def size(self, rows: np.ndarray) -> tuple[int, int]:
        lengths = self.lengths[rows, 0]
        return int(lengths.sum()), int(len(rows) * lengths.max())


def _mismatch(cfg: RunConfig, path: str, given: Any, found: Any) -> str:
    """Return what to do about a size that is not that of the data: it is the run file's, or that of the run whose
    weights it starts from."""
    if cfg.start_from and _value_at(run_config(cfg.start_from.run), path) == to_dict(given):
        return (
            f"{given} in {cfg.start_from.run}, but the data have {found}: for other labels set task.labels=null "
            "model.head.classes=null start_from.new='[head.output.*]'"
        )
    return f"{given} given, but the data have {found}: leave it out, it is filled in"


def _value_at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def encoder(cfg: RunConfig) -> EncoderConfig:
    assert isinstance(cfg.model, EncoderConfig), "checked before a run begins"
    return cfg.model


def width(model: Any) -> int:
    return model.dim if hasattr(model, "dim") else model.first.dim


# ---- validation -----------------------------------------------------------------------------------


class ReaderValidator(Validator):
    """Validator over the whole validation set: the loss, and the task's scores."""

    def __init__(self, task_data: ReaderTaskData, cfg: RunConfig, device: torch.device):
        self.task_data, self.shown, self.device = task_data, cfg.train.samples, device
        self.batches = list(in_order(task_data.form.lengths(task_data.valid), cfg.train.batch_tokens))
        self.num_batches = len(self.batches)

    def validate(self, model: nn.Module, stop: Callable[[], bool]) -> ValidationResult | None:
        summed, count, answers = 0.0, 0.0, {}
        for rows in self.batches:
            if stop():
                return None
            loss, n, found = self.predict(model, self.task_data.form.batch(self.task_data.valid, rows).to(self.device))
            summed, count = summed + loss.item(), count + n
            answers |= dict(zip(rows.tolist(), found, strict=True))
        scores, cost, samples = self.summarize([answers[row] for row in range(len(answers))])
        return ValidationResult(finite(summed / max(count, 1)), scores, samples, cost)

    @abstractmethod
    def predict(self, model: Any, batch: Any) -> tuple[torch.Tensor, float, Sequence[Any]]:
        """Return the summed plain loss, its count, and a prediction for each row."""

    @abstractmethod
    def summarize(self, answers: list[Any]) -> tuple[dict[str, float], float, list[ValidationSample]]:
        """Return scores of the predictions for all rows, in row order; the cost that chooses the best checkpoint, lower
        is better; and some samples."""
