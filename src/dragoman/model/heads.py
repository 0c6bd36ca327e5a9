"""Task heads of encoders: masked tokens, a class, a tag for each token, an answer's span, one vector.

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
from dragoman.model.dropout import Dropout, DropoutRate
from dragoman.model.inputs import Embedding, InputLayer
from dragoman.model.linear import Linear
from dragoman.model.mlp import ACTIVATIONS, Activation, FeedForward
from dragoman.model.norm import LayerNorm, NoNorm, Norm

KeepMask = Bool[Tensor, "B T"]

# ---- pooling: one vector for the whole input --------------------------------------------------------


@config
class First:
    """Pooling by the first token: a class token, BERT's [CLS]."""

    vectors = 1

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        return x[:, 0] if keep is None else _pick(x, keep.int().argmax(dim=1))


@config
class Last:
    """Pooling by the last token, the only one that sees all others in causal towers: CLIP's end of text."""

    vectors = 1

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        return x[:, -1] if keep is None else _pick(x, x.shape[1] - 1 - keep.flip(1).int().argmax(dim=1))


@config
class Mean:
    """Pooling by the mean of all real tokens."""

    vectors = 1

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B D"]:
        if keep is None:
            return x.mean(dim=1)
        return (x * keep[..., None]).sum(dim=1) / keep.sum(dim=1, keepdim=True).clamp(min=1)


@config
class FirstAndMean:
    """Pooling by the first token and the mean of all others, one after the other (DINOv2, arXiv:2304.07193)."""

    vectors = 2
    """Number of vectors of the width that are joined."""

    def pool(self, x: Float[Tensor, "B T D"], keep: KeepMask | None) -> Float[Tensor, "B 2*D"]:
        first = First().pool(x, keep)
        if keep is None:
            return torch.cat([first, x[:, 1:].mean(dim=1)], dim=1)
        others = keep & (keep.cumsum(dim=1) > 1)
        return torch.cat([first, Mean().pool(x, others)], dim=1)


Pooling = Annotated[First | Last | Mean | FirstAndMean, OneOf()]


def _pick(x: Float[Tensor, "B T D"], index: Tensor) -> Float[Tensor, "B D"]:
    return x[torch.arange(x.shape[0], device=x.device), index]


# ---- configurations --------------------------------------------------------------------------------


@config
class NoHead:
    """No head: the hidden vectors are the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return HeadLayer()


@config
class MaskedLanguageHead:
    """Masked language modelling: logits of the vocabulary for every token (Devlin et al., arXiv:1810.04805)."""

    activation: Activation = "gelu"
    norm: Norm = LayerNorm()
    """Norm after the layer between hidden vectors and output, which has the width of the embeddings."""
    bias: bool = True
    """Bias of that layer."""
    tied: bool = True
    """Tie the output matrix to the embeddings."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        if not isinstance(reader, Embedding):
            raise ConfigError("masked_language predicts token ids, and the inputs are none; choose another head")
        return MaskedLanguageLayer(self, dim, reader)


@config
class ClassificationHead:
    """Classification: logits of classes for the whole input."""

    classes: PositiveInt | None = None
    """Number of classes K; None until the labels set it."""
    pooling: Pooling = First()
    activation: Activation | None = None
    """Activation of a layer of width D before the output, as in BERT's pooler (tanh); None for no such layer."""
    norm: Norm = NoNorm()
    """Norm after that layer, as in ModernBERT."""
    bias: bool = True
    """Bias of that layer."""
    dropout: DropoutRate = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return ClassificationLayer(self, dim, _known(self.classes))


@config
class TaggingHead:
    """Tagging: logits of classes for each token."""

    classes: PositiveInt | None = None
    """Number of classes K; None until the labels set it."""
    activation: Activation | None = None
    """Activation of a layer of width D before the output; None for no such layer."""
    norm: Norm = NoNorm()
    """Norm after that layer."""
    bias: bool = True
    """Bias of that layer."""
    dropout: DropoutRate = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return TaggingLayer(self, dim, _known(self.classes))


@config
class SpansHead:
    """Question answering: two logits for each token, that the answer starts there and that it ends there."""

    activation: Activation | None = None
    """Activation of a layer of width D before the output; None for no such layer."""
    norm: Norm = NoNorm()
    """Norm after that layer."""
    bias: bool = True
    """Bias of that layer."""
    dropout: DropoutRate = 0.0
    """Before the output."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return TaggingLayer(self, dim, 2)


@config
class SentenceHead:
    """Sentence embedding: one vector for the whole input, to compare with others (Reimers & Gurevych,
    arXiv:1908.10084)."""

    pooling: Pooling = Mean()
    size: PositiveInt | None = None
    """Width E of a projection; None for no projection."""
    bias: bool = False
    """Bias of the projection."""
    normalize: bool = True
    """Scale vectors to length 1."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        return SentenceLayer(self, dim)


@config
class AttentionPoolingHead:
    """Attention pooling: a learned query reads all vectors, and a feed-forward layer follows (SigLIP, arXiv:2303.15343;
    Lee et al., arXiv:1810.00825)."""

    heads: PositiveInt
    """Attention heads H, which divide the width."""
    hidden: PositiveInt
    """Hidden width of the feed-forward layer."""
    activation: Activation = "gelu_tanh"
    norm: Norm = LayerNorm()
    """Norm before the feed-forward layer."""
    normalize: bool = False
    """Scale vectors to length 1."""

    def build(self, dim: int, reader: InputLayer) -> "HeadLayer":
        if dim % self.heads:
            raise ConfigError(f"heads: {self.heads} heads do not divide the width {dim}")
        return AttentionPoolingLayer(self, dim)


OneVector = SentenceHead | AttentionPoolingHead
"""Heads that return one vector for the whole input."""
Head = Annotated[
    NoHead | MaskedLanguageHead | ClassificationHead | TaggingHead | SpansHead | SentenceHead | AttentionPoolingHead,
    OneOf(),
]


def _known(classes: int | None) -> int:
    if classes is None:
        raise ConfigError("classes: must be given before the model is built; training sets it from the labels")
    return classes


# ---- layers ----------------------------------------------------------------------------------------


class HeadLayer(nn.Module):
    """Base of the heads, which returns the hidden vectors."""

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Tensor:
        """Return the head's output; ``keep`` is False on padding."""
        return x


class MaskedLanguageLayer(HeadLayer):
    """Dense layer, activation, norm, and projection to the vocabulary."""

    def __init__(self, cfg: MaskedLanguageHead, dim: int, reader: Embedding):
        super().__init__()
        width = reader.tokens.embedding_dim
        self.dense, self.activation = Linear(dim, width, bias=cfg.bias), ACTIVATIONS[cfg.activation]
        self.norm, self.output = cfg.norm.build(width), Linear(width, reader.tokens.num_embeddings)
        self.tied = cfg.tied

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B T V"]:
        return self.output(self.features(x))

    def features(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N E"]:
        """Return the input of ``output``: training projects only masked tokens, chunk by chunk."""
        return self.norm(self.activation(self.dense(x)))


class ProjectedHead(HeadLayer):
    """An optional dense layer with activation and norm, and projection to the classes; pooling is the subclass's."""

    def __init__(self, cfg: ClassificationHead | TaggingHead | SpansHead, dim: int, classes: int, vectors: int = 1):
        """
        Args:
            vectors: vectors of ``dim`` numbers that are read together.
        """
        super().__init__()
        inputs = vectors * dim
        if cfg.activation is None and not isinstance(cfg.norm, NoNorm):
            raise ConfigError("norm: stands behind the layer that activation names; name one, or leave the norm out")
        self.activation = cfg.activation and ACTIVATIONS[cfg.activation]
        if cfg.activation:
            self.dense = Linear(inputs, dim, bias=cfg.bias)
        self.norm = cfg.norm.build(dim)
        self.dropout, self.output = Dropout(cfg.dropout), Linear(dim if cfg.activation else inputs, classes)

    def classify(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        if self.activation:
            x = self.norm(self.activation(self.dense(x)))
        return self.output(self.dropout(x))


class ClassificationLayer(ProjectedHead):
    """Logits of classes for the pooled input."""

    def __init__(self, cfg: ClassificationHead, dim: int, classes: int):
        super().__init__(cfg, dim, classes, cfg.pooling.vectors)
        self.cfg = cfg

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B K"]:
        return self.classify(self.cfg.pooling.pool(x, keep))


class TaggingLayer(ProjectedHead):
    """Logits of classes for each token."""

    def __init__(self, cfg: TaggingHead | SpansHead, dim: int, classes: int):
        super().__init__(cfg, dim, classes)

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B T K"]:
        return self.classify(x)


class SentenceLayer(HeadLayer):
    """Pooling, an optional projection, and normalization."""

    def __init__(self, cfg: SentenceHead, dim: int):
        super().__init__()
        self.cfg = cfg
        self.output = Linear(cfg.pooling.vectors * dim, cfg.size, bias=cfg.bias) if cfg.size else nn.Identity()

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B E"]:
        vector = _in_float32(self.output(self.cfg.pooling.pool(x, keep)))
        return F.normalize(vector, dim=-1) if self.cfg.normalize else vector


def _in_float32(vector: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
    """Return a vector in float32 or better: in bfloat16 its length would not be 1."""
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


class AttentionPoolingLayer(HeadLayer):
    """Attention of a learned query to all vectors, and a feed-forward layer with a residual connection."""

    def __init__(self, cfg: AttentionPoolingHead, dim: int):
        super().__init__()
        self.heads, self.normalize = cfg.heads, cfg.normalize
        self.query = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.q, self.k, self.v, self.out = (Linear(dim, dim) for _ in range(4))
        self.norm = cfg.norm.build(dim)
        self.mlp = FeedForward(hidden=cfg.hidden, activation=cfg.activation).build(dim)

    def forward(self, x: Float[Tensor, "B T D"], keep: KeepMask | None = None) -> Float[Tensor, "B D"]:
        query = self.query.to(x.dtype).expand(x.shape[0], 1, -1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q(query), self.k(x), self.v(x))
        )
        seen = F.scaled_dot_product_attention(q, k, v, None if keep is None else keep[:, None, None])
        y = self.out(seen.transpose(1, 2).flatten(2))[:, 0]
        y = y + self.mlp(self.norm(y))
        return F.normalize(_in_float32(y), dim=-1) if self.normalize else y
