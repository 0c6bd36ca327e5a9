"""Images with captions as tensors, for language models that read an image before their text.

B images of a batch, T longest caption.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.data.batch import as_batch
from dragoman.data.captions import CaptionedImage
from dragoman.data.example_store import ExampleStore
from dragoman.data.material import ImageMaterial
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import EOS, Tokenizer


class CaptionBatch(NamedTuple):
    """Images with their captions."""

    images: Float[Tensor, "B C height width"]
    target_in: Int[Tensor, "B T"]
    """Decoder input: bos, then the caption."""
    target_out: Int[Tensor, "B T"]
    """Decoder targets: the caption with its eos, which a cut caption has not."""

    def to(self, device: torch.device | str) -> "CaptionBatch":
        return CaptionBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class CaptionedExamples(ExampleStore):
    """Store of images and captions, a column for each. Captions have at most ``longest`` tokens, EOS included."""

    def __init__(self, images: ImageMaterial, tokenizer: Tokenizer, longest: int | None):
        self.images, self.tokenizer, self.longest = images, tokenizer, longest

    @property
    def sizes(self) -> dict[str, int | str]:
        return {"image": self.images.numbers, "caption": len(self.tokenizer)}

    def columns(self, examples: Sequence[CaptionedImage]) -> dict[str, list[Any]]:
        ids = self.tokenizer.encode_batch([example.caption for example in examples])
        return {
            "image": self.images.rows([e.image for e in examples], [e.where for e in examples]),
            "caption": [[*row, EOS][: self.longest] for row in ids],
        }

    def cut(self, store: Store) -> int:
        """Return the number of captions that were cut, even if only their end was. They have no EOS."""
        captions = store.columns["caption"]
        return int((captions.ids[captions.starts[1:] - 1] != EOS).sum())

    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        """Return the positions of each row that the language model computes: those of image and caption together."""
        patches = self.images.positions(store.columns["image"].lengths)
        return np.stack([patches, patches + store.columns["caption"].lengths], axis=1)

    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> CaptionBatch:
        images = self.images.collate([store.columns["image"].raw_row(int(i)) for i in rows])
        captions = store.columns["caption"].padded(rows)
        _, target_in, target_out = as_batch(captions, captions)
        return CaptionBatch(images, target_in, target_out)
