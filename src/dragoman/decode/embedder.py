"""Texts as vectors: close ones mean alike, as far as the model knows.

B texts, E width of a vector.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dragoman.decode.classifier import Progress, Reader
from dragoman.model.heads import Mean, Sentence
from dragoman.model.places import Tokens


class Embedder(Reader):
    """Any model that reads texts. One trained for vectors gives its own; of another, the mean of the tokens' hidden
    vectors is taken, brought to length 1."""

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> Float[Tensor, "B E"]:
        """A vector for each text, in their order."""
        return self.answers(texts, progress)

    @torch.inference_mode()
    def answer(self, inputs: Tensor | Tokens) -> Float[Tensor, "B E"]:
        if isinstance(getattr(self.model.head, "cfg", None), Sentence):
            return self.model(inputs)
        return F.normalize(Mean().pool(*self.model.encode(inputs)).float(), dim=-1)
