"""Embeddings: a vector for each text, image or frame sequence; the closer two are, the more alike to the model.

B examples, E width of a vector.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dragoman.decode.readers.input_reader import InputReader, Progress
from dragoman.model.heads import Mean, OneVector
from dragoman.model.positions.tokens import Frames


class Embedder(InputReader):
    """Vectors from any model that reads complete inputs.

    A model trained for embeddings gives its own. Any other gives the mean of its hidden states, normalised to length 1.
    """

    def embed(
        self, given: Sequence[Any], progress: Progress | None = None, places: Sequence[str] | None = None
    ) -> Float[Tensor, "B E"]:
        """Return a vector for each input, in their order."""
        found = self.answers(self.checked(given, "given"), progress, places)
        return torch.stack(found) if found else torch.empty(0, 0)

    @torch.inference_mode()
    def answer(self, inputs: Tensor | Frames) -> Float[Tensor, "B E"]:
        if isinstance(self.model.cfg.head, OneVector):
            return self.model(inputs)
        return F.normalize(Mean().pool(*self.model.encode(inputs)).float(), dim=-1)
