"""What a model is trained to do: from a batch to a summed loss and the number of tokens (or labels) summed over.

One file a task. What it needs besides its loss (text, batches, an examination) is its lesson, in ``train/lessons/``.
"""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.data.tasks.classification import Classification
from dragoman.data.tasks.contrastive import Contrastive
from dragoman.data.tasks.language_modelling import LanguageModelling
from dragoman.data.tasks.pretraining import Denoising, MaskedLanguageModelling
from dragoman.data.tasks.question_answering import QuestionAnswering
from dragoman.data.tasks.tagging import Tagging
from dragoman.data.tasks.translation import Translation

__all__ = [
    "Classification",
    "Contrastive",
    "Denoising",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "QuestionAnswering",
    "Tagging",
    "Task",
    "Translation",
]

Task = Annotated[
    Classification
    | Contrastive
    | Denoising
    | LanguageModelling
    | MaskedLanguageModelling
    | QuestionAnswering
    | Tagging
    | Translation,
    OneOf(usual="translation"),
]
