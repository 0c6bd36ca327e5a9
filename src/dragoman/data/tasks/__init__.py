"""What a model is trained to do: from a batch to a summed loss and the number of tokens (or labels) summed over.

One file a task. What it needs besides its loss (text, batches, an examination) is its lesson, in ``train/lessons/``.
"""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.data.tasks.classification import ClassificationTask
from dragoman.data.tasks.contrastive import ContrastiveTask
from dragoman.data.tasks.language_modelling import LanguageModellingTask
from dragoman.data.tasks.pretraining import DenoisingTask, MaskedLanguageModellingTask
from dragoman.data.tasks.question_answering import QuestionAnsweringTask
from dragoman.data.tasks.tagging import TaggingTask
from dragoman.data.tasks.translation import TranslationTask

__all__ = [
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
    ClassificationTask
    | ContrastiveTask
    | DenoisingTask
    | LanguageModellingTask
    | MaskedLanguageModellingTask
    | QuestionAnsweringTask
    | TaggingTask
    | TranslationTask,
    OneOf(usual="translation"),
]
