"""What a model is trained to do: from a batch to a summed loss and the number of tokens (or labels) summed over.

One file a task. What it needs besides its loss (text, batches, an examination) is its lesson, in ``train/lessons/``.
"""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.data.tasks.classification import Classification
from dragoman.data.tasks.language_modelling import LanguageModelling
from dragoman.data.tasks.pretraining import Denoising, MaskedLanguageModelling
from dragoman.data.tasks.translation import Translation

__all__ = ["Classification", "Denoising", "LanguageModelling", "MaskedLanguageModelling", "Task", "Translation"]

Task = Annotated[
    Classification | Denoising | LanguageModelling | MaskedLanguageModelling | Translation,
    OneOf(usual="translation"),
]
