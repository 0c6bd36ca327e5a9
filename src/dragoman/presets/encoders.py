"""Published encoder models."""

from dragoman.model.attention import AttentionConfig
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, First, Last, MaskedLanguageHead, SentenceHead
from dragoman.model.init import Gpt2Init
from dragoman.model.inputs import PatchInput, TokenInput
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import Activation, FeedForward
from dragoman.model.norm import LayerNorm, NoNorm, Placement
from dragoman.model.positions.position import Learned
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.presets.plain import Plain, architecture

INIT = Gpt2Init(depth_scaled=False)


def tower(
    *,
    heads: int,
    hidden: int,
    eps: float,
    placement: Placement,
    activation: Activation = "gelu",
    visibility: Causal | Full = Full(),  # noqa: B008 (frozen)
    dropout: float = 0.0,
) -> TowerConfig:
    """Return a tower of twelve layers with biases; pre-norm towers get a final norm."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=heads, visibility=visibility, bias=True, dropout=dropout),
        mlp=FeedForward(hidden=hidden, activation=activation),
        norm=LayerNorm(eps=eps),
        placement=placement,
        dropout=dropout,
    )
    return TowerConfig(depth=12, pattern=(block,), final_norm=NoNorm() if placement == "post" else LayerNorm(eps=eps))


# ---- texts ------------------------------------------------------------------------------------------


def bert(*, position: Learned, types: int, eps: float) -> EncoderConfig:
    """BERT: post-norm, and a norm on the sum of words, positions and types (Devlin et al., arXiv:1810.04805)."""
    return EncoderConfig(
        dim=768,
        inputs=TokenInput(position=position, types=types, norm=LayerNorm(eps=eps), dropout=0.1),
        tower=tower(heads=12, hidden=3072, eps=eps, placement="post", dropout=0.1),
        head=MaskedLanguageHead(norm=LayerNorm(eps=eps)),
        init=INIT,
    )


def bert_base() -> Plain:
    """BERT base, uncased, with its head for masked words."""
    return architecture(bert(position=Learned(length=512), types=2, eps=1e-12), vocab=30_522)


def roberta_base() -> Plain:
    """RoBERTa base (Liu et al., arXiv:1907.11692): BERT without sentence pairs, trained for longer."""
    return architecture(bert(position=Learned(length=512, offset=2), types=1, eps=1e-5), vocab=50_265)


# ---- images -----------------------------------------------------------------------------------------


def vit_base() -> Plain:
    """ViT base (Dosovitskiy et al., arXiv:2010.11929): patches of 16 x 16 pixels, 1,000 classes."""
    model = EncoderConfig(
        dim=768,
        inputs=PatchInput(size=(224, 224), patch=16),
        tower=tower(heads=12, hidden=3072, eps=1e-12, placement="pre"),
        head=ClassificationHead(classes=1000),
        init=INIT,
    )
    return architecture(model)


def clip_vit_base_patch32() -> Plain:
    """CLIP (Radford et al., arXiv:2103.00020): a causal tower for texts, one for patches of 32 x 32 pixels."""
    texts = EncoderConfig(
        dim=512,
        inputs=TokenInput(position=Learned(length=77)),
        tower=tower(heads=8, hidden=2048, eps=1e-5, placement="pre", activation="gelu_quick", visibility=Causal()),
        head=SentenceHead(pooling=Last(), size=512),
        init=INIT,
    )
    images = EncoderConfig(
        dim=768,
        inputs=PatchInput(size=(224, 224), patch=32, bias=False, norm=LayerNorm()),
        tower=tower(heads=12, hidden=3072, eps=1e-5, placement="pre", activation="gelu_quick"),
        head=SentenceHead(pooling=First(), size=512),
        init=INIT,
    )
    return architecture(TwoTowersConfig(first=texts, second=images), vocab=49_408)
