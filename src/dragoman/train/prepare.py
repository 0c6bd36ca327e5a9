"""From text files to what the loop reads: cleaned, split, tokenized and stored in the run directory, once.

    runs/NAME/data/   train/   valid/ (token stores)   valid.jsonl   test.jsonl (text)   report.json (what was removed)

The folder takes its name when all of it is there, so a run that died while preparing begins anew.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.errors import DataError
from dragoman.text.clean import CleanReport, clean
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.formats import JsonLines, Pair, read_pairs
from dragoman.text.split import Overlap, Split, hold_out, without_overlap
from dragoman.text.tokenizer import Tokenizer
from dragoman.train.events import Notice, Preparing
from dragoman.train.recipe import DataConfig, RunConfig, fill, outline

FOLDER = "data"


@dataclass(frozen=True)
class Prepared:
    """What learning needs besides a model."""

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    """The same object as the source's if both share one."""
    train: ParallelCorpus
    valid: ParallelCorpus
    valid_pairs: list[Pair]
    test_pairs: list[Pair]

    def fill(self, cfg: RunConfig) -> RunConfig:
        """``cfg`` with the sizes of these vocabularies."""
        joint = self.source_tokenizer is self.target_tokenizer
        return fill(cfg, vocab=len(self.target_tokenizer), source_vocab=None if joint else len(self.source_tokenizer))


def prepare(cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
    """Do what has not been done yet; a line for each stage. Then ``prepared(run)``.

    Raises:
        DataError: text that cannot be read, or too little of it left.
    """
    if (run.path / FOLDER).is_dir():
        return
    yield Preparing("reading and cleaning")
    report: dict[str, Any] = {}
    split = _split(cfg.data, report)
    yield from map(Notice, report.pop("lines"))
    yield Preparing("training the tokenizer")
    source, target = _train_tokenizers(cfg, split.train)
    run.write_tokenizers(source, target)
    yield Preparing("storing the tokens")
    longest = outline(cfg).max_length
    report["pairs"] = {"training": len(split.train), "validation": len(split.valid), "test": len(split.test)}
    with durable.folder(run.path / FOLDER) as folder:
        for name, pairs in (("train", split.train), ("valid", split.valid)):
            corpus = ParallelCorpus.build(folder / name, pairs, source, target, longest=longest)
            report[f"{name} pairs too long for the model"] = corpus.left_out
            if corpus.left_out:
                yield Notice(f"{name}: {corpus.left_out:,} pairs left out: the model takes at most {longest} tokens")
        for name, pairs in (("valid", split.valid), ("test", split.test)):
            lines = (json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in pairs)
            durable.write(folder / f"{name}.jsonl", "".join(lines).encode())
        durable.write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())


def prepared(run: RunDirectory) -> Prepared:
    """What ``prepare`` has left in the run directory."""
    source, target = run.tokenizers()
    folder = run.path / FOLDER
    return Prepared(
        source_tokenizer=source,
        target_tokenizer=target,
        train=ParallelCorpus.open(folder / "train"),
        valid=ParallelCorpus.open(folder / "valid"),
        valid_pairs=_read(folder / "valid.jsonl"),
        test_pairs=_read(folder / "test.jsonl"),
    )


def _read(path: Path) -> list[Pair]:
    return list(read_pairs(JsonLines(path=str(path)))) if path.stat().st_size else []


# ---- text -----------------------------------------------------------------------------------------


def _split(cfg: DataConfig, report: dict[str, Any]) -> Split:
    """Training, validation and test pairs; what was removed on the way goes into ``report``."""
    cleaned = CleanReport()
    pairs = list(clean(itertools.chain.from_iterable(map(read_pairs, cfg.train)), cfg.cleaning, cleaned))
    report["cleaning"] = dataclasses.asdict(cleaned)
    report["lines"] = [f"cleaning: {cleaned}"]
    if not pairs:
        raise DataError(
            f"no training pairs are left of {cleaned.read:,} ({cleaned}): relax data.cleaning, or look at the text"
        )
    valid, test = (None if source is None else list(read_pairs(source)) for source in (cfg.valid, cfg.test))
    if given := [*(test or ()), *(valid or ())]:
        pairs = _without(pairs, given, cfg, report)
    counts = dataclasses.replace(
        cfg.hold_out, valid=cfg.hold_out.valid if valid is None else 0, test=cfg.hold_out.test if test is None else 0
    )
    split = hold_out(pairs, counts)
    report["held_out"] = split.removed
    if counts.valid or counts.test:
        alike = sum(split.removed.values())
        report["lines"].append(
            f"held out: {len(split.valid):,} for validation, {len(split.test):,} for test; {alike:,} like them removed"
        )
    return dataclasses.replace(
        split, valid=split.valid if valid is None else valid, test=split.test if test is None else test
    )


def _without(pairs: list[Pair], given: list[Pair], cfg: DataConfig, report: dict[str, Any]) -> list[Pair]:
    overlap = Overlap()
    apart = list(without_overlap(pairs, given, cfg.hold_out.near, overlap))
    report["overlap"] = dataclasses.asdict(overlap)
    verb = {"drop": "removed", "keep": "kept"}[cfg.overlap]
    report["lines"].append(
        f"training pairs like one of the validation or test set: {len(pairs) - len(apart):,}, {verb}"
    )
    return apart if cfg.overlap == "drop" else pairs


def _train_tokenizers(cfg: RunConfig, pairs: list[Pair]) -> tuple[Tokenizer, Tokenizer]:
    if cfg.target_tokenizer is None:
        joint = Tokenizer.train(cfg.tokenizer, itertools.chain.from_iterable(pairs))
        return joint, joint
    source = Tokenizer.train(cfg.tokenizer, (pair.source for pair in pairs))
    return source, Tokenizer.train(cfg.target_tokenizer, (pair.target for pair in pairs))
