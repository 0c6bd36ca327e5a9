"""Classification as a lesson: labelled texts split and tokenized; accuracy and F1 on the validation set.

runs/NAME/data/   train/   valid/ (token stores)   valid.jsonl   test.jsonl (texts and labels)   report.json
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.data.batch import Batches
from dragoman.data.labels import LabelledBatch, accuracy, collate, confusion, encode, macro_f1
from dragoman.data.tasks import Classification
from dragoman.errors import ConfigError
from dragoman.model import heads
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inputs import TokenInput
from dragoman.model.interface import EncoderModel
from dragoman.text.labelled import LabelledText, LabelledTexts
from dragoman.text.store import Store, building, chunks
from dragoman.text.tokenizer import Tokenizer
from dragoman.train.events import Notice, Preparing, Sample
from dragoman.train.lessons.lesson import FOLDER, Examination, Lesson, Seen, earlier_tokenizers, finite
from dragoman.train.lessons.translation import in_order
from dragoman.train.recipe import RunConfig, settled

CHUNK = 10_000
"""Texts in memory while they are encoded."""


class ClassificationLesson(Lesson):
    learns_from, model = (LabelledTexts,), EncoderConfig
    scores = ("accuracy", "macro F1")

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        self.tokenizer, _ = run.tokenizers()
        folder = run.path / FOLDER
        self.train, self.valid = (Store.open(folder / name) for name in ("train", "valid"))
        self.labels = tuple(json.loads((folder / "labels.json").read_bytes()))
        self.tests = (folder / "test.jsonl").read_bytes().count(b"\n")
        self.lengths = _both(self.train)

    @classmethod
    def outline(cls, cfg: RunConfig) -> EncoderModel:
        model = _encoder(cfg)
        if not isinstance(model.head, heads.Classification):
            raise ConfigError("model.head: classification takes a head of the kind classification")
        if not isinstance(model.inputs, TokenInput):
            raise ConfigError("model.inputs: texts are read by inputs of the kind token_input")
        with torch.device("meta"):
            return model.sized(vocab=model.inputs.vocab or 1000, classes=model.head.classes or 2).build()

    @classmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        if not (run.path / FOLDER).is_dir():
            yield from _prepare(cfg, run, longest=cls.outline(cfg).max_length)

    @classmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> "ClassificationLesson":
        return cls(cfg, run)

    def fill(self, cfg: RunConfig) -> RunConfig:
        assert isinstance(cfg.task, Classification), "the lesson was chosen by it"
        model, vocab = _encoder(cfg), len(self.tokenizer)
        given = (
            ("task.labels", cfg.task.labels, self.labels),
            ("model.inputs.vocab", getattr(model.inputs, "vocab", None), vocab),
            ("model.head.classes", getattr(model.head, "classes", None), len(self.labels)),
        )
        for path, value, found in given:
            if value not in (None, found):
                raise ConfigError(f"{path}: {value} given, but the text has {found}: leave it out, it is filled in")
        task = dataclasses.replace(cfg.task, labels=self.labels)
        model = model.sized(vocab=vocab, classes=len(self.labels))
        return settled(dataclasses.replace(cfg, task=task, model=model), model.dim)

    @property
    def summary(self) -> str:
        return (
            f"{len(self.train.columns['text']):,} texts to train on, {len(self.valid.columns['text']):,} to validate, "
            f"{self.tests:,} to test; {len(self.labels)} labels; vocabulary {len(self.tokenizer):,}"
        )

    def plan(self, cfg: RunConfig) -> Batches:
        return Batches(self.lengths, cfg.train.batch_tokens, cfg.train.seed, cfg.train.accumulate)

    def batch(self, rows: np.ndarray) -> LabelledBatch:
        return collate(self.train, rows)

    def size(self, rows: np.ndarray) -> tuple[int, int]:
        lengths = self.lengths[rows, 0]
        return int(lengths.sum()), int(len(rows) * lengths.max())

    def examination(self, cfg: RunConfig, device: torch.device) -> "Labelling":
        return Labelling(self, cfg, device)


def _encoder(cfg: RunConfig) -> EncoderConfig:
    assert isinstance(cfg.model, EncoderConfig), "checked before a run begins"
    return cfg.model


def _both(store: Store) -> np.ndarray:
    """Lengths as batches of pairs want them."""
    lengths = store.columns["text"].lengths
    return np.stack([lengths, lengths], axis=1)


# ---- preparing ------------------------------------------------------------------------------------


def _prepare(cfg: RunConfig, run: RunDirectory, longest: int | None) -> Iterator[Preparing | Notice]:
    data = cfg.data
    assert isinstance(data, LabelledTexts), "checked before a run begins"
    longest = min(data.longest, longest or data.longest)
    yield Preparing("reading")
    split, labels, table = data.split()
    yield Notice("; ".join(f"{what} {count:,}" for what, count in table))
    yield Preparing("training the tokenizer")
    texts = (example.text for example in split.train)
    if cfg.init:
        tokenizer = (yield from earlier_tokenizers(cfg.init, texts))[0]
    else:
        tokenizer = Tokenizer.train(cfg.tokenizer, texts)
    run.write_tokenizers(tokenizer, tokenizer)
    yield Preparing("storing the tokens")
    with durable.folder(run.path / FOLDER) as folder:
        for name, examples in (("train", split.train), ("valid", split.valid)):
            with building(folder / name, {"text": len(tokenizer), "label": len(labels)}) as store:
                for chunk in chunks(examples, CHUNK):
                    texts = encode(tokenizer, [example.text for example in chunk], longest)
                    store.write(text=texts, label=[[labels.index(example.label)] for example in chunk])
        for name, examples in (("valid", split.valid), ("test", split.test)):
            durable.write(folder / f"{name}.jsonl", _lines(examples))
        durable.write(folder / "labels.json", json.dumps(labels, ensure_ascii=False).encode())
        durable.write(folder / "report.json", json.dumps({"table": table}, indent=1).encode())


def _lines(examples: list[LabelledText]) -> bytes:
    return "".join(json.dumps(example._asdict(), ensure_ascii=False) + "\n" for example in examples).encode()


# ---- examining ------------------------------------------------------------------------------------


class Labelling(Examination):
    """The loss on all validation texts, and how many of their labels are right."""

    def __init__(self, lesson: ClassificationLesson, cfg: RunConfig, device: torch.device):
        self.lesson, self.cfg, self.device = lesson, cfg, device
        self.batches = list(in_order(_both(lesson.valid), cfg.train.batch_tokens))
        self.questions = len(self.batches)

    def look(self, model: EncoderModel, stop: Callable[[], bool]) -> Seen | None:
        found: list[torch.Tensor] = []
        for rows in self.batches:
            if stop():
                return None
            found.append(model(collate(self.lesson.valid, rows).to(self.device).ids).float().cpu())
        order = np.concatenate(self.batches)
        true = torch.from_numpy(self.lesson.valid.columns["label"].padded(order)[:, 0])
        logits = torch.cat(found)
        loss = finite(torch.nn.functional.cross_entropy(logits, true).item())
        guessed = logits.argmax(dim=1)
        matrix = confusion(true.numpy(), guessed.numpy(), len(self.lesson.labels))
        scores = {"accuracy": 100 * accuracy(matrix), "macro F1": 100 * macro_f1(matrix)}
        samples = self.samples(dict(zip(order.tolist(), guessed.tolist(), strict=True)))
        return Seen(loss, scores, samples, cost=1 - accuracy(matrix))

    def samples(self, guessed: dict[int, int]) -> list[Sample]:
        labels, store, tokenizer = self.lesson.labels, self.lesson.valid, self.lesson.tokenizer
        return [
            Sample(
                tokenizer.decode(store.columns["text"][row]), labels[int(store.columns["label"][row][0])], labels[guess]
            )
            for row, guess in islice(sorted(guessed.items()), self.cfg.train.samples)
        ]
