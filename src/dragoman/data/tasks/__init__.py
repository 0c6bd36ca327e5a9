"""Training objectives: from a batch to a summed loss and the number of tokens (or labels) it was summed over.

One file per task. Text, batches and validation of a task are in ``train/tasks/``.
"""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.data.tasks.captioning import CaptioningTask
from dragoman.data.tasks.classification import ClassificationTask
from dragoman.data.tasks.contrastive import ContrastiveTask
from dragoman.data.tasks.language_modelling import LanguageModellingTask
from dragoman.data.tasks.pretraining import DenoisingTask, MaskedLanguageModellingTask
from dragoman.data.tasks.question_answering import QuestionAnsweringTask
from dragoman.data.tasks.tagging import TaggingTask
from dragoman.data.tasks.translation import TranslationTask

__all__ = [
    "CaptioningTask",
    "ClassificationTask",
    "ContrastiveTask",
    "DenoisingTask",
    "LanguageModellingTask",
    "MaskedLanguageModellingTask",
    "QuestionAnsweringTask",
    "TaggingTask",
    "Task",
    "TranslationTask",
]

Task = Annotated[
    CaptioningTask
    | ClassificationTask
    | ContrastiveTask
    | DenoisingTask
    | LanguageModellingTask
    | MaskedLanguageModellingTask
    | QuestionAnsweringTask
    | TaggingTask
    | TranslationTask,
    OneOf(usual="translation"),
]
