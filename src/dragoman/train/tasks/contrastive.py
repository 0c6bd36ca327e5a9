"""Contrastive task: pairs of texts, or images with captions; recall of each item's partner among all."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dragoman.data.captions import CaptionedImage, CaptionedImages, write_captions
from dragoman.data.example_store import ExampleStore
from dragoman.data.matches import (
    MatchedBatch,
    MatchedExamples,
    distinct_items,
    mean_reciprocal_rank,
    ranks,
    recall,
    side,
    stored_captions,
)
from dragoman.data.material import IdMaterial, material_of
from dragoman.errors import ConfigError, DataError
from dragoman.model.contrastive import TwoTowers, TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.inputs import PatchInput, TokenInput
from dragoman.model.meta_device import on_meta_device
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.formats.pairs import sources_by_path, tags_of
from dragoman.text.held_out import read_held_out
from dragoman.text.lines import Pair, Sourced
from dragoman.text.splits import SplitExamples, split_examples
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import PairsConfig, RunConfig
from dragoman.train.tasks.reading import ReaderTaskData, ReaderValidator
from dragoman.train.tasks.translation import cleaned_pairs, given_pairs, held_out_from


class ContrastiveTaskData(ReaderTaskData):
    """Matched pairs for two towers."""

    learns_from, model = (PairsConfig, CaptionedImages), TwoTowersConfig
    scores = ("recall@1", "recall@5", "recall@1 back")
    rows_are_independent = False  # the other pairs of a batch are the negatives
    form: MatchedExamples

    @classmethod
    def check_inputs(cls, cfg: RunConfig) -> None:
        kinds = sorted(type(tower.inputs).__name__ for tower in _both(cfg))
        captions = isinstance(cfg.data, CaptionedImages)
        if kinds != [t.__name__ for t in ((PatchInput, TokenInput) if captions else (TokenInput, TokenInput))]:
            raise ConfigError(
                "model: captioned_images need a tower whose inputs are patch_input, and one with token_input"
                if captions
                else "model: pairs of texts are read by towers whose inputs are token_input"
            )
        if cfg.target_tokenizer is not None:
            raise ConfigError("target_tokenizer: two towers share one tokenizer: leave it out")
        if isinstance(cfg.data, PairsConfig):
            _check_pairs(cfg.data)

    @classmethod
    def outline(cls, cfg: RunConfig) -> TwoTowers:
        with on_meta_device():
            return _towers(cfg).sized(vocab=_vocab(cfg) or 1000).build()

    @classmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> MatchedExamples:
        data = cfg.data
        resize = isinstance(data, CaptionedImages) and data.other_sizes == "resize"
        longest = getattr(data, "longest", None)
        first, second = (material_of(t.inputs, tokenizer, longest=longest, resize=resize) for t in _both(cfg))
        return MatchedExamples(first, second)

    @classmethod
    def find(cls, cfg: RunConfig) -> SplitExamples[Any]:
        data = cfg.data
        return _cleaned(data) if isinstance(data, PairsConfig) else super().find(cfg)

    @classmethod
    def texts_of(cls, example: Pair | CaptionedImage) -> Sequence[str]:
        return example if isinstance(example, Pair) else example.texts

    @classmethod
    def reads_text(cls, cfg: RunConfig) -> bool:
        return True

    @classmethod
    def write_held_out(cls, folder: Path, form: ExampleStore, split: PairSplit[Any]) -> None:
        if isinstance(form, MatchedExamples) and all(
            isinstance(material, IdMaterial) for material in form.materials.values()
        ):
            super().write_held_out(folder, form, split)
        else:
            form.store(folder / "test", split.test)
            for name in ("valid", "test"):
                write_captions(folder / f"{name}.jsonl", split.held_out[name])

    @classmethod
    def read_held_out(cls, path: Path, labels: Sequence[str]) -> Sequence[Pair]:
        return [Pair(pair.source, pair.target) for pair in read_held_out(path)]

    def determined_sizes(self, cfg: RunConfig) -> list[tuple[str, Any, Any]]:
        towers = (("first", _towers(cfg).first), ("second", _towers(cfg).second))
        return [
            (f"model.{name}.inputs.vocab", tower.inputs.vocab, self.vocab)
            for name, tower in towers
            if tower is not None and isinstance(tower.inputs, TokenInput)
        ]

    def sized(self, cfg: RunConfig) -> TwoTowersConfig:
        return _towers(cfg).sized(vocab=self.vocab)

    @property
    def unit(self) -> str:
        return "pairs"

    def size(self, rows: np.ndarray) -> tuple[int, int]:
        lengths = self.lengths[rows]
        return int(lengths.sum()), int(len(rows) * lengths.max(axis=0).sum())

    def validator(self, cfg: RunConfig, device: torch.device) -> "ContrastiveValidator":
        return ContrastiveValidator(self, cfg, device)


def _check_pairs(data: PairsConfig) -> None:
    """Check that pairs have no settings that only translation obeys.

    Raises:
        ConfigError: such a setting.
    """
    usual = {field.name: field.default for field in fields(data)}
    for name in ("mixture", "order", "context", "retrieval", "noise", "segmentation"):
        if getattr(data, name) != usual[name]:
            raise ConfigError(f"data.{name}: is for translation; two towers read the pairs as they are: leave it out")
    for path, source in sources_by_path(data):
        if tags_of(source):
            raise ConfigError(f"{path}.tags: are for translation; two towers read the pairs as they are: use prefix")


def _towers(cfg: RunConfig) -> TwoTowersConfig:
    assert isinstance(cfg.model, TwoTowersConfig), "checked before a run begins"
    return cfg.model


def _both(cfg: RunConfig) -> tuple[EncoderConfig, EncoderConfig]:
    """Return the towers that read the first and the second item of each pair, which may be the same."""
    towers = _towers(cfg)
    return towers.first, towers.second or towers.first


def _vocab(cfg: RunConfig) -> int | None:
    return next((t.inputs.vocab for t in _both(cfg) if isinstance(t.inputs, TokenInput)), None)


def _cleaned(data: PairsConfig) -> SplitExamples[Pair]:
    pairs, report = cleaned_pairs(data)
    if not pairs:
        raise DataError(f"no training pairs are left of {report.read:,} ({report}): relax data.cleaning")
    (valid, test), empty = given_pairs(data)
    found = split_examples(pairs, valid, test, data.hold_out, data.overlap, may=held_out_from(data))
    removed = [(f"removed: {rule}", count) for rule, count in report.removed.items() if count]
    removed += [(f"empty side, {name}", count) for name, count in empty.items()]
    split = PairSplit(_plain(found.split.train), **{n: _plain(s) for n, s in found.split.held_out.items()}, removed={})
    return SplitExamples(split, found.facts, [("pairs read", report.read), *removed, *found.table[1:]], found.note)


def _plain(pairs: Sequence[Sourced]) -> list[Pair]:
    return [pair.pair for pair in pairs]


# ---- validation -----------------------------------------------------------------------------------


class ContrastiveValidator(ReaderValidator):
    """Validator of contrastive learning: recall of each item's partners among the whole validation set."""

    task_data: ContrastiveTaskData

    def __init__(self, task_data: ContrastiveTaskData, cfg: RunConfig, device: torch.device):
        super().__init__(task_data, cfg, device)
        materials, folder = task_data.form.materials, task_data.folder
        self.examples: Sequence[Pair | CaptionedImage] = (
            stored_captions(folder, "valid", materials)
            if isinstance(cfg.data, CaptionedImages)
            else task_data.read_held_out(folder / "valid.jsonl", ())
        )
        self.items = distinct_items(self.examples, materials)

    def predict(self, model: TwoTowers, batch: MatchedBatch) -> tuple[torch.Tensor, float, Sequence[Any]]:
        first, second = model.first(batch.first).float(), model.second(batch.second).float()
        summed, count = model.loss(model.similarity(first, second))
        return summed, float(count), list(zip(first.cpu().numpy(), second.cpu().numpy(), strict=True))

    def summarize(self, answers: list[Any]) -> tuple[dict[str, float], float, list[ValidationSample]]:
        first, second = (np.stack(side) for side in zip(*answers, strict=True))
        similarity, partners = first[self.items.first] @ second[self.items.second].T, self.items.partners
        there, back = ranks(similarity, partners), ranks(similarity.T, partners.T)
        scores = {
            "recall@1": 100 * recall(there, 1),
            "recall@5": 100 * recall(there, 5),
            "recall@1 back": 100 * recall(back, 1),
        }
        cost = 1 - (mean_reciprocal_rank(there) + mean_reciprocal_rank(back)) / 2
        found = zip(self.items.first, self.items.second[similarity.argmax(axis=1)], strict=True)
        samples = [
            ValidationSample(self.name(row, "first"), self.name(row, "second"), self.name(best, "second"))
            for row, best in islice(found, self.shown)
        ]
        return scores, cost, samples

    def name(self, row: int, which: str) -> str:
        """Return a description of one side of the pair: its text, or its number."""
        material = self.task_data.form.materials[which]
        given = side(self.examples[row], which, material)
        return given if isinstance(material, IdMaterial) else f"image {row + 1}"
