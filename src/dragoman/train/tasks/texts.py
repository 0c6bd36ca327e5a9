"""Shared base of tasks on plain text: documents, or prompts with answers, tokenized into one stream.

runs/NAME/data/   train/   valid/ (token stores)   test.jsonl   hard.jsonl (prompts with answers)   report.json
"""

import itertools
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.data.packing import PackedRow
from dragoman.text.formats.documents import Document, Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.held_out import write_held_out
from dragoman.text.lines import Pair
from dragoman.text.store import Store, chunks, create_store
from dragoman.text.tokens.tokenizer import EOS, PROMPT_FRAME, Tokenizer
from dragoman.train.events import Notice, Preparing
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.task_data import FOLDER, TaskData, train_tokenizer, warm_start_tokenizers

CHUNK = 1000
"""Documents in memory while they are encoded."""


class TextTaskData(TaskData):
    """Data of a task on text alone."""

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        self.cfg = cfg
        self.tokenizer, _ = run.tokenizers()
        self.train, self.valid = (Store.open(run.path / FOLDER / name) for name in ("train", "valid"))

    @classmethod
    def marks(cls, cfg: RunConfig) -> Sequence[str]:
        """Return the special tokens that the tokenizer must have."""
        return ()

    @classmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        if not (run.path / FOLDER).is_dir():
            yield from _prepare(cfg, run, cls.marks(cfg))

    @classmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> Self:
        return cls(cfg, run)

    @abstractmethod
    def batches(self, cfg: RunConfig, store: Store, accumulate: int = 1) -> Any:
        """Return the batches of the text in ``store``.

        Raises:
            DataError: there is none.
        """

    def validation_batches(self, cfg: RunConfig) -> list[list[PackedRow]]:
        """Return batches of the validation text, in order; none where nothing is held out."""
        return self.batches(cfg, self.valid).in_order() if len(self.valid.columns["text"]) else []

    @property
    def summary(self) -> str:
        train, valid = self.train.facts, self.valid.facts
        return (
            f"{train['tokens']:,} tokens in {_documents(train['documents'])} to train on, {valid['tokens']:,} to "
            f"validate; vocabulary {len(self.tokenizer):,}"
        )


def _documents(count: int) -> str:
    return f"{count:,} document{'s' if count != 1 else ''}"


# ---- preparing ------------------------------------------------------------------------------------


def _prepare(cfg: RunConfig, run: RunDirectory, marks: Sequence[str]) -> Iterator[Preparing | Notice]:
    data = cfg.data
    assert isinstance(data, Texts | Instructions), "checked before a run begins"
    yield Preparing("reading")
    found = data.split()
    split = found.split
    for line in (found.note, "; ".join(f"{what} {count:,}" for what, count in found.removed)):
        if line:
            yield Notice(line)
    yield Preparing("training the tokenizer")
    # documents have one text, pairs have two; the tokenizer is trained on all of them
    if cfg.start_from:
        tokenizer = (yield from warm_start_tokenizers(cfg.start_from, itertools.chain.from_iterable(split.train)))[1]
    else:
        tokenizer = yield from train_tokenizer(cfg.tokenizer, lambda: itertools.chain.from_iterable(split.train), marks)
    run.write_tokenizers(tokenizer, tokenizer)
    yield Preparing("storing the tokens")
    table = found.removed
    with durable.folder(run.path / FOLDER) as folder:
        for name, use, examples in (("train", "training", split.train), ("valid", "validation", split.valid)):
            facts = _storing_function(data)(folder / name, examples, tokenizer)
            table += [(f"{what} for {use}", count) for what, count in facts.items() if what != "bytes"]
        sets = {name: some for name, some in split.held_out.items() if name != "valid" and some}
        write_held_out(folder, sets, lambda e: json.dumps(e._asdict(), ensure_ascii=False) + "\n")
        table += [(f"documents for {name}", len(some)) for name, some in sets.items()]
        durable.write(folder / "report.json", json.dumps({"table": table}, indent=1).encode())


def _storing_function(data: Texts | Instructions) -> Callable[..., dict[str, int]]:
    return partial(store_answers, between=data.between) if isinstance(data, Instructions) else store_documents


def store_documents(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> dict[str, int]:
    """Store each document from bos to eos; return the totals."""
    facts: dict[str, int] = dict.fromkeys(("documents", "tokens", "characters", "bytes"), 0)
    before = tokenizer.frame(PROMPT_FRAME).before
    with create_store(folder, {"text": len(tokenizer)}) as store:
        for chunk in chunks(documents, CHUNK):
            encoded = tokenizer.encode_batch([document.text for document in chunk])
            rows = [[*before, *ids, EOS] for ids in encoded]
            store.write(text=rows)
            facts["documents"] += len(rows)
            facts["tokens"] += sum(map(len, rows))
            facts["characters"] += sum(len(document.text) for document in chunk)
            facts["bytes"] += sum(len(document.text.encode()) for document in chunk)
        store.facts |= facts
    return facts


def store_answers(folder: Path, pairs: Iterable[Pair], tokenizer: Tokenizer, *, between: str) -> dict[str, int]:
    """Store each pair from bos to eos, with the prompt marked as not to be learned; return the totals."""
    facts: dict[str, int] = dict.fromkeys(("documents", "tokens"), 0)
    before = tokenizer.frame(PROMPT_FRAME).before
    with create_store(folder, {"text": len(tokenizer), "counted": 2}) as store:
        for chunk in chunks(pairs, CHUNK):
            prompts = [[*before, *ids] for ids in tokenizer.encode_batch([pair.source + between for pair in chunk])]
            answers = [[*ids, EOS] for ids in tokenizer.encode_batch([pair.target for pair in chunk])]
            both = list(zip(prompts, answers, strict=True))
            rows = [a + b for a, b in both]
            store.write(text=rows, counted=[[0] * len(a) + [1] * len(b) for a, b in both])
            facts["documents"] += len(rows)
            facts["tokens"] += sum(map(len, rows))
        store.facts |= facts
    return facts
