"""What is made of an encoder's hidden vectors: ids behind masks, a class, a tag for each token, a span, one vector.

B batch, T length, D width, V vocabulary, K classes, E size of an embedding, N tokens.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError
from dragoman.model.dropout import Dropout, Share
from dragoman.model.inputs import Embedding, InputLayer
from dragoman.model.linear import Linear
from dragoman.model.mlp import ACTIVATIONS, Activation
from dragoman.model.norm import LayerNorm, Norm

KeepMask = Bool[Tensor, "B T"]

# ---- one vector for the whole ----------------------------------------------------------------------


@config
class First:
    """That of the first token: a class token, BERT's [CLS]."""

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        return x[:, 0] if keep is None else _pick(x, keep.int().argmax(dim=1))


@config
class Last:
    """That of the last token, which in causal towers alone has seen all the others: CLIP's end of text."""

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        return x[:, -1] if keep is None else _pick(x, x.shape[1] - 1 - keep.flip(1).int().argmax(dim=1))


@config
class Mean:
    """The mean of all."""

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        if keep is None:
            return x.mean(dim=1)
        return (x * keep[..., None]).sum(dim=1) / keep.sum(dim=1, keepdim=True).clamp(min=1)


Pooling = Annotated[First | Last | Mean, OneOf()]


def _pick(x: Float[Tensor, "B T D"], index: Tensor) -> Float[Tensor, "B D"]:
    return x[torch.arange(x.shape[0], device=x.device), index]


# ---- the choices -----------------------------------------------------------------------------------


@config
class NoHead:
    """The hidden vectors themselves."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return HeadLayer()


@config
class MaskedLanguageHead:
    """Logits of every token, to learn those behind masks from (Devlin et al., arXiv:1810.04805)."""

    activation: Activation = "gelu"
    norm: Norm = LayerNorm()
    """After the layer of width D between hidden vectors and output."""
    tied: bool = True
    """Whether the output is the matrix of embeddings."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        if not isinstance(reader, Embedding):
            raise ConfigError("masked_language predicts ids, and the inputs are none; choose another head")
        return MaskedLanguageLayer(self, dim, reader)


@config
class ClassificationHead:
    """Logits of classes for the whole input."""

    classes: PositiveInt | None = None
    """None until the labels tell."""
    pooling: Pooling = First()
    activation: Activation | None = None
    """Of a layer of width D before the output, as BERT's pooler has it with tanh; None for no such layer."""
    dropout: Share = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return ClassificationLayer(self, dim, _known(self.classes))


@config
class TaggingHead:
    """Logits of classes for each token."""

    classes: PositiveInt | None = None
    """None until the labels tell."""
    dropout: Share = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return TaggingLayer(dim, _known(self.classes), self.dropout)


@config
class SpansHead:
    """Two logits for each token: that an answer starts there, that it ends there."""

    dropout: Share = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return TaggingLayer(dim, 2, self.dropout)


@config
class SentenceHead:
    """One vector for the whole input, to be compared with those of others (Reimers & Gurevych, arXiv:1908.10084)."""

    pooling: Pooling = Mean()
    size: PositiveInt | None = None
    """Width E of a projection without bias; None for none."""
    normalize: bool = True
    """To length 1."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return SentenceLayer(self, dim)


Head = Annotated[NoHead | MaskedLanguageHead | ClassificationHead | TaggingHead | SpansHead | SentenceHead, OneOf()]


def _known(classes: int | None) -> int:
    if classes is None:
        raise ConfigError("classes: must be given before the model is built; training sets it from the labels")
    return classes


# ---- their layers ----------------------------------------------------------------------------------


class HeadLayer(nn.Module):
    """Says nothing of its own."""

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Tensor:
        """``keep`` is False on padding."""
        return x


class MaskedLanguageLayer(HeadLayer):
    def __init__(self, cfg: MaskedLanguageHead, dim: int, reader: Embedding):
        super().__init__()
        self.dense, self.activation, self.norm = Linear(dim, dim), ACTIVATIONS[cfg.activation], cfg.norm.build(dim)
        self.output = Linear(dim, reader.tokens.num_embeddings)
        self.tied = cfg.tied

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B T V"]:
        return self.output(self.features(x))

    def features(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """What ``output`` turns into logits: training needs those of masked tokens only, and not all at once."""
        return self.norm(self.activation(self.dense(x)))


class ClassificationLayer(HeadLayer):
    def __init__(self, cfg: ClassificationHead, dim: int, classes: int):
        super().__init__()
        self.cfg = cfg
        if cfg.activation:
            self.dense = Linear(dim, dim)
        self.dropout, self.output = Dropout(cfg.dropout), Linear(dim, classes)

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B K"]:
        pooled = self.cfg.pooling.pool(x, keep)
        if self.cfg.activation:
            pooled = ACTIVATIONS[self.cfg.activation](self.dense(pooled))
        return self.output(self.dropout(pooled))


class TaggingLayer(HeadLayer):
    def __init__(self, dim: int, classes: int, dropout: float):
        super().__init__()
        self.dropout, self.output = Dropout(dropout), Linear(dim, classes)

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B T K"]:
        return self.output(self.dropout(x))


class SentenceLayer(HeadLayer):
    def __init__(self, cfg: SentenceHead, dim: int):
        super().__init__()
        self.cfg = cfg
        self.output = Linear(dim, cfg.size, bias=False) if cfg.size else nn.Identity()

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B E"]:
        vector = self.output(self.cfg.pooling.pool(x, keep))
        vector = vector.to(torch.promote_types(vector.dtype, torch.float32))  # whose length is 1 to the last digit
        return F.normalize(vector, dim=-1) if self.cfg.normalize else vector
