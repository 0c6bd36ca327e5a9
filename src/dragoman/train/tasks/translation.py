"""Translation task: pairs cleaned, split and tokenized; validation sentences translated and scored.

runs/NAME/data/   train/   valid/ (token stores)   valid.jsonl   test.jsonl   hard.jsonl (text)   report.json
"""

import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sacrebleu
import torch

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import at, to_dict
from dragoman.data.batch import PairBatch, collate
from dragoman.data.match_dropout import drop_matches
from dragoman.data.pretraining import CorruptedRows, FreshlyCorrupted
from dragoman.data.segmentation import SampledPairs
from dragoman.data.tasks import TranslationTask
from dragoman.decode.memory_vectors import ENCODER
from dragoman.decode.request import request_for
from dragoman.decode.sentence_splitting import SentenceCount
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.model.interface import SequenceConfig, SequenceModel
from dragoman.text.cleaning.clean import CleanReport, clean, merge_reports, normalise_pair
from dragoman.text.cleaning.small import describe_reduction, hold_out_some
from dragoman.text.cleaning.split import Overlap, PairSplit, without_overlap
from dragoman.text.context import ReadContext
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.formats.pairs import PairSource, may_hold_out, names_of, prefix_of, tags_of
from dragoman.text.held_out import held_out_line, read_held_out, write_held_out
from dragoman.text.lines import Sourced
from dragoman.text.retrieval import FuzzyMatches
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import Notice, Preparing, ValidationSample
from dragoman.train.recipe import PairsConfig, RunConfig, fill, outline
from dragoman.train.tasks import drawing
from dragoman.train.tasks.fuzzy_matches import attach_matches, describe_matches, load_encoder
from dragoman.train.tasks.task_data import (
    FOLDER,
    Spent,
    StepPlan,
    TaskData,
    ValidationResult,
    Validator,
    mean_nll,
    train_tokenizer,
    warm_start_tokenizers,
)


class TranslationTaskData(TaskData):
    """Sentence pairs for translation."""

    learns_from, model = (PairsConfig,), SequenceConfig
    scores = ("BLEU", "chrF")

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        self.noise, self.retrieval, self.seed = _pairs(cfg).noise, _pairs(cfg).retrieval, cfg.train.seed
        self.source_tokenizer, self.target_tokenizer = run.tokenizers()
        self.samplers = _pairs(cfg).segmentation.samplers(self.source_tokenizer, self.target_tokenizer)
        self.longest = outline(cfg).max_length
        folder = run.path / FOLDER
        self.train, self.valid = (ParallelCorpus.open(folder / name) for name in ("train", "valid"))
        self.valid_pairs, self.test_pairs = (read_held_out(folder / f"{name}.jsonl") for name in ("valid", "test"))

    @classmethod
    def check(cls, cfg: RunConfig) -> None:
        super().check(cfg)
        drawing.check(cfg, _pairs(cfg))
        if cfg.train.best_by in cls.scores and not cfg.train.scored:
            raise ConfigError(f"train.best_by: {cfg.train.best_by} is of translations: set train.scored to how many")

    @classmethod
    def outline(cls, cfg: RunConfig) -> SequenceModel:
        return outline(cfg)

    @classmethod
    def prepare(cls, cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
        return _prepare(cfg, run)

    @classmethod
    def open(cls, cfg: RunConfig, run: RunDirectory) -> "TranslationTaskData":
        return cls(cfg, run)

    def fill(self, cfg: RunConfig) -> RunConfig:
        joint = self.source_tokenizer is self.target_tokenizer
        return fill(cfg, vocab=len(self.target_tokenizer), source_vocab=None if joint else len(self.source_tokenizer))

    @property
    def summary(self) -> str:
        source, target = len(self.source_tokenizer), len(self.target_tokenizer)
        vocabulary = f"{target:,}" if source == target else f"{source:,} + {target:,}"
        train, valid, test = map(len, (self.train, self.valid, self.test_pairs))
        return f"{train:,} pairs to train on, {valid:,} to validate, {test:,} to test; vocabulary {vocabulary}"

    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> StepPlan:
        return FreshlyCorrupted(drawing.plan(cfg, _pairs(cfg), self.train, spent))

    def batch(self, rows: CorruptedRows) -> PairBatch:
        corpus = self.train
        if any(self.samplers):
            corpus = SampledPairs(self.train, self.samplers, self.seed, rows.step, self.longest)
        batch = self.noise.batch(corpus, rows, self.seed, self.source_tokenizer)
        return drop_matches(batch, rows, self.retrieval, self.seed, self.source_tokenizer)

    def size(self, rows: CorruptedRows) -> tuple[int, int]:
        """Return the sizes of the stored segmentation without noise and match dropout, which leave some tokens out."""
        lengths = self.train.lengths[rows.rows]
        return int(lengths.sum()), int(len(rows.rows) * lengths.max(axis=0).sum())

    def origins(self, rows: CorruptedRows) -> dict[str, int]:
        if len(self.train.sources) < 2:
            return {}
        which, tokens = self.train.source_indices(rows.rows), self.train.lengths[rows.rows].sum(axis=1)
        counts = np.bincount(which, tokens, minlength=len(self.train.sources))
        return {name: int(count) for name, count in zip(self.train.sources, counts, strict=True)}

    def validator(self, cfg: RunConfig, device: torch.device) -> "TranslationValidator":
        return TranslationValidator(self, cfg, device)


# ---- preparing ------------------------------------------------------------------------------------


def _prepare(cfg: RunConfig, run: RunDirectory) -> Iterator[Preparing | Notice]:
    if (run.path / FOLDER).is_dir():
        return
    retrieval = _pairs(cfg).retrieval
    encoder = load_encoder(retrieval, cfg.start_from, _pairs(cfg).cleaning.source_language)
    yield Preparing("reading and cleaning")
    report: dict[str, Any] = {}
    split = _split(_pairs(cfg), report)
    yield from map(Notice, report.pop("lines"))
    if isinstance(retrieval, FuzzyMatches):
        yield Preparing("finding fuzzy matches")
        split, report["matches"] = attach_matches(split, retrieval, encoder)
        yield Notice(describe_matches(report["matches"]))
    yield Preparing("training the tokenizer")
    if cfg.start_from:
        sources, targets = ((pair.pair[side] for pair in split.train) for side in (0, 1))
        source, target = yield from warm_start_tokenizers(cfg.start_from, sources, targets)
    else:
        source, target = yield from _train_tokenizers(cfg, split.train)
    drawing.check_marks(_pairs(cfg), source)
    with at("data.segmentation"):
        _pairs(cfg).segmentation.samplers(source, target)
    run.write_tokenizers(source, target)
    yield Preparing("storing the tokens")
    longest = outline(cfg).max_length
    report["pairs"] = {"training": len(split.train), "validation": len(split.valid), "test": len(split.test)}
    if split.hard:
        report["pairs"]["hard test"] = len(split.hard)
    sources = [pair.source for pair in split.train]
    report["sentences"] = to_dict(SentenceCount.of(sources, _pairs(cfg).cleaning.source_language))
    with durable.folder(run.path / FOLDER) as folder:
        for name, pairs in (("train", split.train), ("valid", split.valid)):
            corpus = ParallelCorpus.build(
                folder / name, pairs, source, target, longest=longest, grouped=name == "train"
            )
            report[f"{name} pairs too long for the model"] = corpus.left_out
            if name == "train":
                drawing.check_remaining(_pairs(cfg), corpus.sources)
                report["sources"] = corpus.tokens()
            if corpus.left_out:
                yield Notice(f"{name}: {corpus.left_out:,} pairs left out: the model takes at most {longest} tokens")
        write_held_out(folder, split.held_out, held_out_line)
        durable.write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())
        if encoder is not None:
            encoder.save(folder / ENCODER)


def _pairs(cfg: RunConfig) -> PairsConfig:
    assert isinstance(cfg.data, PairsConfig), "checked before a run begins"
    return cfg.data


# ---- text -----------------------------------------------------------------------------------------


def _split(cfg: PairsConfig, report: dict[str, Any]) -> PairSplit[Sourced]:
    """Return training, validation and test pairs; write what was removed into ``report``."""
    pairs, cleaned = cleaned_pairs(cfg)
    report["cleaning"] = dataclasses.asdict(cleaned)
    report["lines"] = [f"cleaning: {cleaned}"]
    if not pairs:
        raise DataError(
            f"no training pairs are left of {cleaned.read:,} ({cleaned}): relax data.cleaning, or look at the text"
        )
    if cfg.context.marks:
        report["lines"].append(_with_context(pairs, cfg.context))
    (valid, test), empty = given_pairs(cfg)
    report["lines"] += [f"{name}: pairs with an empty side, left out: {count:,}" for name, count in empty.items()]
    if given := [*(test or ()), *(valid or ())]:
        pairs = _remove_overlap(pairs, given, cfg, report)
    counts = dataclasses.replace(
        cfg.hold_out, valid=cfg.hold_out.valid if valid is None else 0, test=cfg.hold_out.test if test is None else 0
    )
    split, held = hold_out_some(pairs, counts, held_out_from(cfg))
    if note := describe_reduction(counts, held, len(pairs)):
        report["lines"].append(note)
    report["held_out"] = split.removed
    if counts.valid or counts.test or counts.hard:
        alike, hard = sum(split.removed.values()), f", the {len(split.hard):,} hardest apart" if split.hard else ""
        report["lines"].append(
            f"held out: {len(split.valid):,} for validation, {len(split.test):,} for test{hard}; {alike:,} like them "
            "removed"
        )
    return dataclasses.replace(
        split, valid=split.valid if valid is None else valid, test=split.test if test is None else test
    )


def _with_context(pairs: list[Sourced], context: ReadContext) -> str:
    """Return a line on how many pairs have context.

    Raises:
        DataError: no pair has context.
    """
    some = sum(bool(pair.context) for pair in pairs)
    if not some:
        raise DataError(f"data.context: {context.absence}")
    return f"context: {some:,} of {len(pairs):,} pairs have {context.presence}"


def held_out_from(cfg: PairsConfig) -> Callable[[Sourced], bool]:
    """Return whether a training pair may be held out: its source decides."""
    may = {name for name, source in zip(names_of(cfg.train), cfg.train, strict=True) if may_hold_out(source)}
    return lambda pair: pair.origin in may


def given_pairs(cfg: PairsConfig) -> tuple[list[list[Sourced] | None], dict[str, int]]:
    """Return the validation and the test set where they are given, else None; and the pairs left out of each.

    They are normalised as training pairs are. Pairs with an empty side are left out.
    """
    sets, empty = list[list[Sourced] | None](), dict[str, int]()
    for name, source in (("validation", cfg.valid), ("test", cfg.test)):
        if source is None:
            sets.append(None)
            continue
        pairs = [normalise_pair(pair) for pair in _sourced([("", source)], cfg.context)]
        whole = [pair for pair in pairs if all(pair.pair)]
        sets.append(_prefixed(whole, {"": source}))
        if len(whole) < len(pairs):
            empty[name] = len(pairs) - len(whole)
    return sets, empty


def cleaned_pairs(cfg: PairsConfig) -> tuple[list[Sourced], CleanReport]:
    """Clean the training sources; those with the same tags as one text. Duplicates, conflicts and unusual lengths are
    judged among translations into the same language."""
    pairs, reports = [], []
    sourced = list(zip(names_of(cfg.train), cfg.train, strict=True))
    for tags in dict.fromkeys(tags_of(source) for source in cfg.train):
        reports.append(CleanReport())
        some = [(name, source) for name, source in sourced if tags_of(source) == tags]
        pairs += clean(_sourced(some, cfg.context), cfg.cleaning, reports[-1])
    return _prefixed(pairs, dict(sourced)), merge_reports(reports)


def _prefixed(pairs: Iterable[Sourced], sources: Mapping[str, PairSource]) -> list[Sourced]:
    """Add each source's prefix to its texts, after cleaning, which must not see it."""
    prefixes = {name: prefix_of(source) for name, source in sources.items()}
    return [pair._replace(source=prefix + pair.source) if (prefix := prefixes[pair.origin]) else pair for pair in pairs]


def _sourced(sources: Sequence[tuple[str, PairSource]], context: ReadContext) -> Iterator[Sourced]:
    for name, source in sources:
        tags = " ".join(tags_of(source))
        for pair, before in context.in_pairs(source):
            yield Sourced(*pair, name, tags, before)


def _remove_overlap(
    pairs: list[Sourced], given: list[Sourced], cfg: PairsConfig, report: dict[str, Any]
) -> list[Sourced]:
    overlap = Overlap()
    remaining = list(without_overlap(pairs, given, cfg.hold_out.near, overlap))
    report["overlap"] = dataclasses.asdict(overlap)
    verb = {"drop": "removed", "keep": "kept"}[cfg.overlap]
    report["lines"].append(
        f"training pairs like one of the validation or test set: {len(pairs) - len(remaining):,}, {verb}"
    )
    return remaining if cfg.overlap == "drop" else pairs


def _train_tokenizers(cfg: RunConfig, pairs: list[Sourced]) -> Generator[Notice, None, tuple[Tokenizer, Tokenizer]]:
    marks = drawing.marks(_pairs(cfg))
    if cfg.target_tokenizer is None:
        joint = yield from train_tokenizer(cfg.tokenizer, lambda: (t for pair in pairs for t in pair.pair), marks)
        return joint, joint
    source = yield from train_tokenizer(cfg.tokenizer, lambda: (pair.source for pair in pairs), marks)
    targets = train_tokenizer(cfg.target_tokenizer, lambda: (pair.target for pair in pairs), setting="target_tokenizer")
    return source, (yield from targets)


# ---- validation -----------------------------------------------------------------------------------


class TranslationValidator(Validator):
    """Validator of translation: the loss on all validation pairs; some are translated and, if configured, scored."""

    def __init__(self, task_data: TranslationTaskData, cfg: RunConfig, device: torch.device):
        assert isinstance(cfg.task, TranslationTask), "the task data was chosen by it"
        self.task_data, self.cfg, self.task, self.device = task_data, cfg, cfg.task, device
        self.batches = list(in_order(task_data.valid.lengths, cfg.train.batch_tokens))
        self.num_batches = len(self.batches)

    def validate(self, model: SequenceModel, stop: Callable[[], bool]) -> ValidationResult | None:
        batches = (collate(self.task_data.valid, rows).to(self.device) for rows in self.batches)
        loss = mean_nll(lambda batch: self.task.nll(model, batch), batches, stop)
        return None if loss is None or stop() else ValidationResult(loss, *self.translations(model))

    def translations(self, model: SequenceModel) -> tuple[dict[str, float], list[ValidationSample]]:
        shown, scored = self.cfg.train.samples, self.cfg.train.scored
        pairs = self.task_data.valid_pairs[: max(shown, scored)]
        if not pairs:
            return {}, []
        sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
        sides = self.task_data.source_tokenizer, self.task_data.target_tokenizer
        translator = Translator(model, *sides, context=_pairs(self.cfg).context)
        outputs = [translation.text for translation in translator.translate(list(map(request_for, pairs)), beam=1)]
        samples = [ValidationSample(*row) for row in zip(sources, references, outputs, strict=True)][:shown]
        if not scored:
            return {}, samples
        outputs, references = outputs[:scored], references[:scored]
        bleu, chrf = sacrebleu.corpus_bleu(outputs, [references]), sacrebleu.corpus_chrf(outputs, [references])
        return {"BLEU": bleu.score, "chrF": chrf.score}, samples


def in_order(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Yield all rows, shortest first, in batches of at most ``tokens`` tokens on either side, padding included."""
    order = np.argsort(lengths.max(axis=1), kind="stable")
    start = 0
    for i, longest in enumerate(lengths.max(axis=1)[order], start=1):
        if (i - start) * longest > tokens and i - 1 > start:
            yield order[start : i - 1]
            start = i - 1
    if start < len(order):
        yield order[start:]
