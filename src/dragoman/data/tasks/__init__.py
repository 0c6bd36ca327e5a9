"""What a model is trained to do: from a batch to a summed loss and the number of tokens (or labels) summed over.

One file a task. What it needs besides its loss (text, batches, an examination) is its lesson, in ``train/lessons/``.
"""

from typing import Annotated

from dragoman.config import OneOf
from dragoman.data.tasks.classification import Classification
from dragoman.data.tasks.language_modelling import LanguageModelling
from dragoman.data.tasks.translation import Translation

__all__ = ["Classification", "LanguageModelling", "Task", "Translation"]

Task = Annotated[Translation | LanguageModelling | Classification, OneOf(usual="translation")]
