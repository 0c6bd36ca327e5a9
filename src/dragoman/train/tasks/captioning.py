"""Captioning task: images with captions, for a language model that reads an image before its text."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dragoman.checkpoint import RunDirectory
from dragoman.data.captioning import CaptionedExamples
from dragoman.data.captions import (
    CaptionedImage,
    CaptionedImages,
    ImageWithCaption,
    captions_by_image,
    read_captions,
    write_captions,
)
from dragoman.data.example_store import ExampleStore
from dragoman.data.material import ImageMaterial
from dragoman.data.tasks import CaptioningTask
from dragoman.decode.generator import Generator as TextGenerator
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import ConfigError
from dragoman.model.inputs import PatchInput
from dragoman.model.meta_device import on_meta_device
from dragoman.model.prefixed import PrefixedTransformer, PrefixedTransformerConfig
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.splits import SplitExamples
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import Notice, ValidationSample
from dragoman.train.part_weights import check_part_weights
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.reading import ReaderTaskData
from dragoman.train.tasks.task_data import ValidationResult, Validator, mean_nll
from dragoman.train.tasks.translation import in_order


class CaptioningTaskData(ReaderTaskData):
    """Captioned images for a prefixed Transformer."""

    learns_from, model = (CaptionedImages,), PrefixedTransformerConfig
    scores = ("exact match",)
    gives_fields = True
    form: CaptionedExamples

    @classmethod
    def check_inputs(cls, cfg: RunConfig) -> None:
        if not isinstance(_model(cfg).encoder.inputs, PatchInput):
            raise ConfigError("model.encoder.inputs: captioned_images are read by inputs of the kind patch_input")
        if cfg.start_from is not None:
            raise ConfigError("start_from: captioning starts from parts: task.encoder_from, task.decoder_from")
        if cfg.target_tokenizer is not None:
            raise ConfigError("target_tokenizer: captions are the only text: leave it out")
        if cfg.train.best_by in cls.scores and not cfg.train.scored:
            raise ConfigError(f"train.best_by: {cfg.train.best_by} is of captions: set train.scored to how many")
        check_part_weights(_task(cfg), cls.outline(cfg))

    @classmethod
    def outline(cls, cfg: RunConfig) -> PrefixedTransformer:
        model = _model(cfg)
        tokenizer = _earlier_tokenizer(cfg)
        with on_meta_device():
            return model.sized(vocab=model.vocab or (len(tokenizer) if tokenizer else 1000)).build()

    @classmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> CaptionedExamples:
        data, inputs = cfg.data, _model(cfg).encoder.inputs
        assert isinstance(data, CaptionedImages) and isinstance(inputs, PatchInput) and tokenizer is not None
        longest = min(filter(None, (data.longest, cls.outline(cfg).max_length)), default=None)
        return CaptionedExamples(ImageMaterial(inputs, resize=data.other_sizes == "resize"), tokenizer, longest)

    @classmethod
    def find(cls, cfg: RunConfig) -> SplitExamples[CaptionedImage]:
        assert isinstance(cfg.data, CaptionedImages), "checked before a run begins"
        return cfg.data.split(ImageWithCaption)

    @classmethod
    def reads_text(cls, cfg: RunConfig) -> bool:
        return True

    @classmethod
    def make_tokenizer(cls, cfg: RunConfig, examples: Sequence[Any]) -> Generator[Notice, None, Tokenizer]:
        if (earlier := _earlier_tokenizer(cfg)) is not None:
            return earlier
        return (yield from super().make_tokenizer(cfg, examples))

    @classmethod
    def write_held_out(cls, folder: Path, form: ExampleStore, split: PairSplit[Any]) -> None:
        form.store(folder / "test", split.test)
        for name, examples in (("valid", split.valid), ("test", split.test)):
            write_captions(folder / f"{name}.jsonl", examples)

    @classmethod
    def notes(cls, cfg: RunConfig, form: ExampleStore, train: Path, split: PairSplit[Any]) -> Iterator[str]:
        assert isinstance(form, CaptionedExamples) and isinstance(cfg.data, CaptionedImages)
        stored = Store.open(train)
        if cut := form.cut(stored):
            limit = "data.longest" if form.longest == cfg.data.longest else "the model's positions"
            yield (
                f"{cut:,} of {len(stored):,} training captions are cut to {form.longest} tokens ({limit}), their end "
                "included; the model does not learn where they end"
            )

    def determined_sizes(self, cfg: RunConfig) -> list[tuple[str, Any, Any]]:
        return [("model.decoder.vocab", _model(cfg).vocab, self.vocab)]

    def sized(self, cfg: RunConfig) -> PrefixedTransformerConfig:
        assert self.vocab is not None
        return _model(cfg).sized(vocab=self.vocab)

    @property
    def unit(self) -> str:
        return "captioned images"

    def size(self, rows: np.ndarray) -> tuple[int, int]:
        lengths = self.lengths[rows, 1]
        return int(lengths.sum()), int(len(rows) * lengths.max())

    def validator(self, cfg: RunConfig, device: torch.device) -> "CaptioningValidator":
        return CaptioningValidator(self, cfg, device)


def _model(cfg: RunConfig) -> PrefixedTransformerConfig:
    assert isinstance(cfg.model, PrefixedTransformerConfig), "checked before a run begins"
    return cfg.model


def _task(cfg: RunConfig) -> CaptioningTask:
    assert isinstance(cfg.task, CaptioningTask), "the task data was chosen by it"
    return cfg.task


def _earlier_tokenizer(cfg: RunConfig) -> Tokenizer | None:
    run = _task(cfg).decoder_from
    return None if run is None else RunDirectory.open(run).tokenizers()[1]


# ---- validation -----------------------------------------------------------------------------------


class CaptioningValidator(Validator):
    """Validator of captioning: the loss on all validation images; some are captioned and, if configured, scored."""

    def __init__(self, task_data: CaptioningTaskData, cfg: RunConfig, device: torch.device):
        self.task_data, self.task, self.train, self.device = task_data, _task(cfg), cfg.train, device
        self.batches = list(in_order(task_data.form.lengths(task_data.valid), cfg.train.batch_tokens))
        self.num_batches = len(self.batches)
        images = task_data.valid.columns["image"]
        valid = read_captions(task_data.folder / "valid.jsonl", images, task_data.form.images)
        self.images = captions_by_image(valid)

    def validate(self, model: PrefixedTransformer, stop: Callable[[], bool]) -> ValidationResult | None:
        form, valid = self.task_data.form, self.task_data.valid
        batches = (form.batch(valid, rows).to(self.device) for rows in self.batches)
        loss = mean_nll(lambda batch: self.task.nll(model, batch), batches, stop)
        return None if loss is None or stop() else ValidationResult(loss, *self.captions(model))

    def captions(self, model: PrefixedTransformer) -> tuple[dict[str, float], list[ValidationSample]]:
        shown, scored = self.train.samples, self.train.scored
        if not (some := self.images[: max(shown, scored)]):
            return {}, []
        images, true = [one.image for one, _ in some], [captions for _, captions in some]
        longest = max(int(length) for length in self.task_data.valid.columns["caption"].lengths)
        generator = TextGenerator(model, self.task_data.form.tokenizer)
        found = generator.generate([""] * len(images), images=images, search=Greedy(), max_new_tokens=2 * longest)
        texts = [one.text.strip() for one in found]
        both = list(zip(true, texts, strict=True))
        samples = [ValidationSample(f"image {i}", captions[0], text) for i, (captions, text) in enumerate(both, 1)]
        right = [text in captions for captions, text in both[:scored]]
        return {"exact match": 100 * sum(right) / len(right)} if right else {}, samples[:shown]
