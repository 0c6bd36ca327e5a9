"""Classification task: labelled texts, images or frames; accuracy and F1 on the validation set."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dragoman.data.arrays import LabelledArrays
from dragoman.data.augment import NoAugment
from dragoman.data.example_store import ExampleStore
from dragoman.data.labels import LabelledBatch, LabelledExamples, accuracy, confusion, macro_f1, true_labels
from dragoman.data.material import FrameMaterial, IdMaterial, material_of
from dragoman.data.tasks import ClassificationTask
from dragoman.errors import ConfigError
from dragoman.model import heads
from dragoman.model.inputs import FrameInput, PatchInput, TokenInput
from dragoman.model.interface import EncoderModel
from dragoman.text.cleaning.split import PairSplit
from dragoman.text.formats.labelled import LabelledLines, LabelledText, LabelledTexts, read_labelled
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.train.events import ValidationSample
from dragoman.train.recipe import RunConfig
from dragoman.train.tasks.reading import ReaderTaskData, ReaderValidator, encoder


class ClassificationTaskData(ReaderTaskData):
    """Labelled examples for classification."""

    learns_from, head = (LabelledTexts, LabelledArrays), heads.ClassificationHead
    scores = ("accuracy", "macro F1")
    form: LabelledExamples

    @classmethod
    def input_classes(cls, cfg: RunConfig) -> tuple[type, ...]:
        return (TokenInput,) if isinstance(cfg.data, LabelledTexts) else (PatchInput, FrameInput)

    @classmethod
    def outline(cls, cfg: RunConfig) -> torch.nn.Module:
        model = super().outline(cfg)
        assert isinstance(cfg.task, ClassificationTask), "the task data was chosen by it"
        if cfg.task.problem_type != "single_label":
            raise ConfigError(
                "task.problem_type: only single_label is trained here; the others are for imported models"
            )
        if not isinstance(cfg.task.augment, NoAugment) and not isinstance(encoder(cfg).inputs, PatchInput):
            raise ConfigError("task.augment: changes images, and model.inputs reads none; leave it out")
        return model

    @classmethod
    def store_for(cls, cfg: RunConfig, tokenizer: Tokenizer | None, facts: dict[str, Any]) -> LabelledExamples:
        data: Any = cfg.data
        options = {"resize": data.other_sizes == "resize"} if isinstance(data, LabelledArrays) else {}
        numbers = facts.get("numbers", "|u1")
        material = material_of(encoder(cfg).inputs, tokenizer, longest=data.longest, numbers=numbers, **options)
        return LabelledExamples(material, facts["labels"])

    @classmethod
    def write_held_out(cls, folder: Path, form: ExampleStore, split: PairSplit[Any]) -> None:
        if isinstance(form, LabelledExamples) and isinstance(form.material, IdMaterial):
            super().write_held_out(folder, form, split)
        else:
            form.store(folder / "test", split.test)

    @classmethod
    def read_held_out(cls, path: Path, labels: Sequence[str]) -> Sequence[LabelledText]:
        return read_labelled(LabelledLines(path=str(path)), labels)

    @classmethod
    def notes(cls, cfg: RunConfig, form: ExampleStore, train: Path, split: PairSplit[Any]) -> Iterator[str]:
        assert isinstance(form, LabelledExamples)
        if not isinstance(frames := form.material, FrameMaterial):
            return
        examples = [example for some in (split.train, *split.held_out.values()) for example in some]
        if cut := frames.cut(example.given for example in examples):
            longest: int | None = cfg.data.longest  # pyright: ignore[reportAttributeAccessIssue]
            limit = "data.longest" if frames.longest == longest else "the model's positions"
            yield f"{cut:,} of {len(examples):,} examples are cut to their first {frames.longest:,} frames ({limit})"

    @property
    def unit(self) -> str:
        return self.form.material.what

    def validator(self, cfg: RunConfig, device: torch.device) -> "ClassificationValidator":
        return ClassificationValidator(self, cfg, device)


class ClassificationValidator(ReaderValidator):
    """Validator of classification: accuracy and macro F1."""

    task_data: ClassificationTaskData

    def predict(self, model: EncoderModel, batch: LabelledBatch) -> tuple[torch.Tensor, float, Sequence[int]]:
        logits = model(batch.inputs).float()
        return F.cross_entropy(logits, batch.labels, reduction="sum"), len(logits), logits.argmax(dim=1).tolist()

    def summarize(self, answers: list[int]) -> tuple[dict[str, float], float, list[ValidationSample]]:
        true, labels = true_labels(self.task_data.valid), self.task_data.labels
        matrix = confusion(true, np.array(answers), len(labels))
        scores = {"accuracy": 100 * accuracy(matrix), "macro F1": 100 * macro_f1(matrix)}
        samples = [
            ValidationSample(self.name(row), labels[true[row]], labels[guess])
            for row, guess in islice(enumerate(answers), self.shown)
        ]
        return scores, 1 - accuracy(matrix), samples

    def name(self, row: int) -> str:
        """Return a description of the validation example: its text, or its number."""
        tokenizer = self.task_data.tokenizer
        return (
            tokenizer.decode(self.task_data.valid.columns["given"][row])
            if tokenizer
            else f"validation example {row + 1}"
        )
