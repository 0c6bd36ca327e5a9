"""Pre-training tasks: masked language modelling for encoders, denoising for encoder-decoders.

Training text is corrupted anew at each step; validation text always in the same way.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.data.batch import PairBatch
from dragoman.data.corruption import CorruptionVocabulary, marks
from dragoman.data.packing import IGNORE, Packed, RowBatches, RowLayout, Stretches, TextBatch
from dragoman.data.pretraining import CorruptedRows, DocumentRows, FreshlyCorrupted, hide, mask
from dragoman.data.tasks import DenoisingTask, MaskedLanguageModellingTask
from dragoman.data.tasks.pretraining import masked_features
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.errors import ConfigError
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import MaskedLanguageHead
from dragoman.model.inputs import TokenInput
from dragoman.model.interface import EncoderModel, SequenceConfig, SequenceModel
from dragoman.model.meta_device import on_meta_device
from dragoman.text.formats.documents import Texts
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import PAD, Tokenizer
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import RunConfig, fill, outline, resolve_auto
from dragoman.train.tasks.task_data import Spent, ValidationResult, Validator, mean_nll
from dragoman.train.tasks.texts import TextTaskData

HIDDEN = "▁"
"""Shown in place of a masked word."""

# ---- words behind masks ------------------------------------------------------------------------------


class MaskedLanguageTaskData(TextTaskData):
    """Token stream for masked language modelling."""

    learns_from, model = (Texts,), EncoderConfig

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        super().__init__(cfg, run)
        self.task, self.seed = _masked(cfg), cfg.train.seed
        self.vocabulary = CorruptionVocabulary(self.tokenizer, self.task.masking, self.task.context)

    @classmethod
    def marks(cls, cfg: RunConfig) -> Sequence[str]:
        return marks(_masked(cfg).masking, _masked(cfg).context)

    @classmethod
    def outline(cls, cfg: RunConfig) -> EncoderModel:
        task, model = _masked(cfg), _encoder(cfg)
        if not isinstance(model.head, MaskedLanguageHead):
            raise ConfigError("model.head: masked_language_modelling takes a head of the kind masked_language")
        if not isinstance(model.inputs, TokenInput):
            raise ConfigError("model.inputs: texts are read by inputs of the kind token_input")
        with on_meta_device():
            built = model.sized(vocab=model.inputs.vocab or 1000).build()
        if built.max_length is not None and built.max_length < task.context:
            raise ConfigError(f"task.context: {task.context} tokens, and model.inputs take {built.max_length}")
        return built

    def fill(self, cfg: RunConfig) -> RunConfig:
        model, vocab = _encoder(cfg), len(self.tokenizer)
        assert isinstance(model.inputs, TokenInput), "checked before a run begins"
        if model.inputs.vocab not in (None, vocab):
            raise ConfigError(
                f"model.inputs.vocab: {model.inputs.vocab} given, but the tokenizer has {vocab} entries: leave it out, "
                "it is filled in"
            )
        return resolve_auto(dataclasses.replace(cfg, model=model.sized(vocab=vocab)), model.dim)

    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> FreshlyCorrupted:
        return FreshlyCorrupted(self.batches(cfg, self.train, cfg.train.accumulate))

    def batches(self, cfg: RunConfig, store: Store, accumulate: int = 1) -> RowBatches:
        layout: type[RowLayout] = Stretches if self.task.across_documents else Packed
        rows = cfg.train.batch_tokens // self.task.context
        return RowBatches(layout(store.columns["text"], self.task.context, 0), rows, cfg.train.seed, accumulate)

    def batch(self, rows: CorruptedRows) -> TextBatch:
        return self.masked(self.train, rows)

    def masked(self, store: Store, rows: CorruptedRows) -> TextBatch:
        return mask(store.columns["text"], rows, self.seed, self.task.masking, self.vocabulary)

    def size(self, rows: CorruptedRows) -> tuple[int, int]:
        lengths = [int(row[:, 1].sum()) for row in rows.rows]
        return sum(lengths), len(lengths) * max(lengths)

    def validator(self, cfg: RunConfig, device: torch.device) -> "MaskedLanguageValidator":
        return MaskedLanguageValidator(self, cfg, device)


def _masked(cfg: RunConfig) -> MaskedLanguageModellingTask:
    assert isinstance(cfg.task, MaskedLanguageModellingTask), "the task data was chosen by it"
    return cfg.task


def _encoder(cfg: RunConfig) -> EncoderConfig:
    assert isinstance(cfg.model, EncoderConfig), "checked before a run begins"
    return cfg.model


class MaskedLanguageValidator(Validator):
    """Validator of masked language modelling: the loss on masked words of the validation text, and the accuracy."""

    def __init__(self, task_data: MaskedLanguageTaskData, cfg: RunConfig, device: torch.device):
        self.task_data, self.samples, self.device = task_data, cfg.train.samples, device
        self.batches = [CorruptedRows(rows, 0) for rows in task_data.validation_batches(cfg)]
        self.num_batches = len(self.batches)

    def validate(self, model: EncoderModel, stop: Callable[[], bool]) -> ValidationResult | None:
        right = predicted = 0

        def nll(batch: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal right, predicted
            head, vectors, targets = masked_features(model, batch)
            logits = head.output(vectors).float()
            right, predicted = right + int((logits.argmax(dim=1) == targets).sum()), predicted + len(targets)
            return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), torch.tensor(len(targets))

        batches = (self.task_data.masked(self.task_data.valid, rows).to(self.device) for rows in self.batches)
        loss = mean_nll(nll, batches, stop)
        if loss is None or stop():
            return None
        return ValidationResult(loss, {"guessed": 100 * right / max(predicted, 1)}, list(self.filled_in(model)))

    def filled_in(self, model: EncoderModel) -> Iterator[ValidationSample]:
        """Yield the first texts with their masks, as they were, and as the model fills them in."""
        rows = [row[:1] for batch in self.batches for row in batch.rows][: self.samples]
        if not rows:
            return
        batch = self.task_data.masked(self.task_data.valid, CorruptedRows(rows, 0)).to(self.device)
        _, vectors, targets = masked_features(model, batch)
        filled, true = batch.ids.clone(), batch.ids.clone()
        chosen = batch.targets != IGNORE
        true[chosen], filled[chosen] = targets, model.head.output(vectors).argmax(dim=1)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        read = batch.ids.masked_fill(chosen, self.task_data.vocabulary.mask)
        for three in zip(read.tolist(), true.tolist(), filled.tolist(), strict=True):
            yield ValidationSample(*(decode_visible(self.task_data.tokenizer, ids) for ids in three))


# ---- texts to be restored ----------------------------------------------------------------------------


class DenoisingTaskData(TextTaskData):
    """Token stream for denoising."""

    learns_from, model = (Texts,), SequenceConfig

    def __init__(self, cfg: RunConfig, run: RunDirectory):
        super().__init__(cfg, run)
        self.task, self.seed = _denoising(cfg), cfg.train.seed
        self.vocabulary = CorruptionVocabulary(self.tokenizer, self.task.corruption, self.task.context)

    @classmethod
    def marks(cls, cfg: RunConfig) -> Sequence[str]:
        return marks(_denoising(cfg).corruption, _denoising(cfg).context)

    @classmethod
    def outline(cls, cfg: RunConfig) -> SequenceModel:
        model, context = outline(cfg), _denoising(cfg).context
        if model.max_length is not None and model.max_length <= context:
            raise ConfigError(f"task.context: {context} tokens and eos, and model.position is for {model.max_length}")
        return model

    def fill(self, cfg: RunConfig) -> RunConfig:
        return fill(cfg, vocab=len(self.tokenizer), source_vocab=None)

    def plan(self, cfg: RunConfig, spent: Spent | None = None) -> FreshlyCorrupted:
        return FreshlyCorrupted(self.batches(cfg, self.train, cfg.train.accumulate))

    def batches(self, cfg: RunConfig, store: Store, accumulate: int = 1) -> RowBatches | DocumentRows:
        text, train, context = store.columns["text"], cfg.train, self.task.context
        if self.task.across_documents:
            return RowBatches(Stretches(text, context, 0), train.batch_tokens // context, train.seed, accumulate)
        return DocumentRows(text, context, self.task.corruption, train.batch_tokens, train.seed, accumulate)

    def batch(self, rows: CorruptedRows) -> PairBatch:
        return self.hidden(self.train, rows)

    def hidden(self, store: Store, rows: CorruptedRows) -> PairBatch:
        return hide(store.columns["text"], rows, self.seed, self.task.corruption, self.vocabulary)

    def size(self, rows: CorruptedRows) -> tuple[int, int]:
        """Return the sizes for the average length of the corrupted texts."""
        lengths = self.task.corruption.lengths(np.array([int(row[0, 1]) for row in rows.rows]))
        return int(sum(side.sum() for side in lengths)), len(rows.rows) * int(sum(side.max() for side in lengths))

    def validator(self, cfg: RunConfig, device: torch.device) -> "DenoisingValidator":
        return DenoisingValidator(self, cfg, device)


def _denoising(cfg: RunConfig) -> DenoisingTask:
    assert isinstance(cfg.task, DenoisingTask), "the task data was chosen by it"
    return cfg.task


class DenoisingValidator(Validator):
    """Validator of denoising: the loss on the hidden parts of the validation text, and some generated outputs."""

    def __init__(self, task_data: DenoisingTaskData, cfg: RunConfig, device: torch.device):
        self.task_data, self.samples, self.device = task_data, cfg.train.samples, device
        self.batches = [CorruptedRows(rows, 0) for rows in task_data.validation_batches(cfg)]
        self.num_batches = len(self.batches)

    def validate(self, model: SequenceModel, stop: Callable[[], bool]) -> ValidationResult | None:
        batches = (self.task_data.hidden(self.task_data.valid, rows).to(self.device) for rows in self.batches)
        loss = mean_nll(lambda batch: self.task_data.task.nll(model, batch), batches, stop)
        return None if loss is None or stop() else ValidationResult(loss, {}, list(self.restored(model)))

    def restored(self, model: SequenceModel) -> Iterator[ValidationSample]:
        rows = [row for batch in self.batches for row in batch.rows][: self.samples]
        if not rows:
            return
        batch = self.task_data.hidden(self.task_data.valid, CorruptedRows(rows, 0)).to(self.device)
        limit = LengthLimit(ratio=0.0, extra=batch.target_out.shape[1])
        found = search(model, batch.source, Greedy(limit=limit))
        for source, target, (best, *_) in zip(batch.source.tolist(), batch.target_out.tolist(), found, strict=True):
            yield ValidationSample(
                *(decode_visible(self.task_data.tokenizer, ids) for ids in (source, target, best.tokens))
            )


def decode_visible(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode ``ids``, with special tokens shown as ``HIDDEN``."""
    marks, parts, text = tokenizer.marks - {PAD, tokenizer.bos, tokenizer.eos}, [], []
    for one in ids:
        if one in marks:
            parts += [tokenizer.decode(text), HIDDEN]
            text = []
        else:
            text.append(one)
    return " ".join(part for part in (*parts, tokenizer.decode(text)) if part)
