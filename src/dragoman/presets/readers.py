"""Small encoder models with recipes, for your own data on your own machine."""

from typing import Any

from dragoman.config import to_dict
from dragoman.model.attention import AttentionConfig
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, Head, Mean, SentenceHead, SpansHead, TaggingHead
from dragoman.model.init import Xavier
from dragoman.model.inputs import Input, PatchInput, TokenInput
from dragoman.model.masks.visibility import Full
from dragoman.model.mlp import Gated
from dragoman.model.norm import RmsNorm
from dragoman.model.positions.position import NoPosition, RelativePosition
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.presets.plain import Plain


def reader(
    inputs: Input,
    head: Head,
    *,
    dim: int,
    depth: int,
    hidden: int,
    dropout: float,
    position: RelativePosition = Rotary(),  # noqa: B008 (frozen)
) -> EncoderConfig:
    """Encoder with pre-norm RMSNorm, SwiGLU, four heads and no biases."""
    block = BlockConfig(
        mixer=AttentionConfig(heads=4, position=position, visibility=Full(), dropout=dropout),
        mlp=Gated(hidden=hidden, dropout=dropout),
        norm=RmsNorm(),
        dropout=dropout,
    )
    return EncoderConfig(
        dim=dim,
        inputs=inputs,
        tower=TowerConfig(depth=depth, pattern=(block,), final_norm=RmsNorm()),
        head=head,
        init=Xavier(depth_scaled=True),
    )


def recipe(
    task: Plain, model: Any, *, vocab: int | None = None, epochs: float, tokens: int = 1024, every: int = 100
) -> Plain:
    return {
        "task": task,
        **({} if vocab is None else {"tokenizer": {"kind": "bpe", "vocab": vocab}}),
        "model": to_dict(model),
        "train": {
            "budget": {"kind": "epochs", "epochs": epochs},
            "optimizer": {"kind": "adam_w", "betas": [0.9, 0.98], "weight_decay": 0.1},
            "schedule": {"kind": "cosine", "peak": 1e-3, "warmup": 50},
            "batch_tokens": tokens,
            "validate_every": every,
            "save_every": every,
        },
    }


# ---- labels -----------------------------------------------------------------------------------------


def _classifier(*, depth: int, hidden: int, dropout: float, vocab: int, epochs: float) -> Plain:
    model = reader(
        TokenInput(scale=True, dropout=dropout),
        ClassificationHead(pooling=Mean(), dropout=dropout),
        dim=128,
        depth=depth,
        hidden=hidden,
        dropout=dropout,
    )
    return recipe({"kind": "classification", "label_smoothing": 0.1}, model, vocab=vocab, epochs=epochs)


def classifier_small() -> Plain:
    """A classifier for some ten thousand texts or more."""
    return _classifier(depth=3, hidden=344, dropout=0.2, vocab=8000, epochs=4)


def classifier_tiny() -> Plain:
    """A classifier for some thousand texts; a minute or two."""
    return _classifier(depth=1, hidden=256, dropout=0.3, vocab=4000, epochs=20)


def tagger_small() -> Plain:
    """A tagger for some ten thousand sentences or more."""
    inputs = TokenInput(scale=True, dropout=0.1)
    model = reader(inputs, TaggingHead(dropout=0.1), dim=128, depth=3, hidden=344, dropout=0.1)
    return recipe({"kind": "tagging", "label_smoothing": 0.1}, model, vocab=8000, epochs=4, tokens=2048)


def reader_small() -> Plain:
    """Question answering by spans of a text, for some ten thousand questions or more; best started from a pretrained
    encoder."""
    inputs = TokenInput(scale=True, dropout=0.1, types=2)
    model = reader(inputs, SpansHead(dropout=0.1), dim=128, depth=4, hidden=344, dropout=0.1)
    return recipe({"kind": "question_answering"}, model, vocab=8000, epochs=6, tokens=4096)


def vit_tiny() -> Plain:
    """A classifier of images of 8 x 8 pixels in one channel, such as small digits; give other sizes for others."""
    model = reader(
        PatchInput(size=(8, 8), patch=2, channels=1, class_token=False, dropout=0.1),
        ClassificationHead(pooling=Mean()),
        dim=64,
        depth=4,
        hidden=172,
        dropout=0.1,
        position=NoPosition(),
    )
    return recipe({"kind": "classification", "label_smoothing": 0.1}, model, epochs=60, every=200)


# ---- two towers -------------------------------------------------------------------------------------


def towers_small() -> Plain:
    """One tower for pairs of texts that belong together, such as a sentence and its translation."""
    inputs = TokenInput(scale=True, dropout=0.1)
    model = reader(inputs, SentenceHead(pooling=Mean(), size=128), dim=128, depth=2, hidden=344, dropout=0.1)
    return recipe({"kind": "contrastive"}, TwoTowersConfig(first=model), vocab=8000, epochs=6, tokens=4096)


def clip_tiny() -> Plain:
    """Two towers for captions and images of 32 x 32 pixels."""
    inputs = TokenInput(scale=True, dropout=0.1)
    images = PatchInput(size=(32, 32), patch=4, channels=3, class_token=False, dropout=0.1)
    texts = reader(inputs, SentenceHead(pooling=Mean(), size=128), dim=128, depth=2, hidden=344, dropout=0.1)
    seen = reader(
        images, SentenceHead(pooling=Mean(), size=128), dim=128, depth=4, hidden=344, dropout=0.1, position=NoPosition()
    )
    return recipe(
        {"kind": "contrastive"}, TwoTowersConfig(first=texts, second=seen), vocab=4000, epochs=20, tokens=8192
    )
