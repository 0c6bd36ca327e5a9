"""Recurrent models: translators from 2014 to 2016, a language model, a classifier and a tagger, with recipes."""

from typing import Any

from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, Head, Mean, TaggingHead
from dragoman.model.inputs import TokenInput
from dragoman.model.recurrent.bridge import Bridge, CopyStates, NoBridge, ProjectOutputs
from dragoman.model.recurrent.cells import Gru, Lstm, RecurrentCell, VanillaRnn
from dragoman.model.recurrent.model import RecurrentConfig
from dragoman.model.recurrent.source_attention import (
    Bahdanau,
    DecoderAttention,
    GnmtAttention,
    Luong,
    NoSourceAttention,
)
from dragoman.model.recurrent.stack import (
    Backward,
    BidirectionalLayers,
    Direction,
    FirstBidirectional,
    LayerShortcut,
    NoShortcut,
    RecurrentStackConfig,
    Shortcut,
)
from dragoman.presets.plain import Plain, architecture
from dragoman.presets.readers import recipe
from dragoman.presets.small import as_lm_small
from dragoman.presets.translation import as_transformer_small

# ---- translators ------------------------------------------------------------------------------------


def translator(
    cell: RecurrentCell,  # pyright: ignore[reportInvalidTypeForm]
    attention: DecoderAttention,  # pyright: ignore[reportInvalidTypeForm]
    *,
    dim: int,
    depth: int = 2,
    hidden: int | None = None,
    direction: Direction = BidirectionalLayers(),  # noqa: B008 (frozen)  # pyright: ignore[reportInvalidTypeForm]
    bridge: Bridge = ProjectOutputs(),  # noqa: B008 (frozen)  # pyright: ignore[reportInvalidTypeForm]
    shortcut: LayerShortcut = NoShortcut(),  # noqa: B008 (frozen)  # pyright: ignore[reportInvalidTypeForm]
    dropout: float = 0.2,
    **options: Any,
) -> RecurrentConfig:
    """Encoder-decoder whose layers are alike on both sides; ``hidden`` is that of the encoder's states."""
    alike: dict[str, Any] = {"cell": cell, "depth": depth, "shortcut": shortcut, "dropout": dropout}
    return RecurrentConfig(
        dim=dim,
        encoder=RecurrentStackConfig(hidden=hidden, direction=direction, **alike),
        decoder=RecurrentStackConfig(**alike),
        attention=attention,
        bridge=bridge,
        scale_embedding=True,
        dropout=dropout,
        **options,
    )


def lstm_bahdanau() -> Plain:
    """LSTM with additive attention before each step (Bahdanau et al., arXiv:1409.0473), the size of
    transformer-small."""
    return as_transformer_small(translator(Lstm(), Bahdanau(), dim=384))


def lstm_luong() -> Plain:
    """LSTM with attention after each step and input feeding (Luong et al., arXiv:1508.04025), the size of
    transformer-small."""
    return as_transformer_small(translator(Lstm(), Luong(), dim=384, hidden=208))


def lstm_sutskever() -> Plain:
    """LSTM that reads the source backward into its state, without attention (Sutskever et al., arXiv:1409.3215), the
    size of transformer-small."""
    model = translator(Lstm(), NoSourceAttention(), dim=320, depth=4, direction=Backward(), bridge=CopyStates())
    return as_transformer_small(model)


def gru() -> Plain:
    """GRU with Bahdanau's attention, as in his paper, the size of transformer-small."""
    return as_transformer_small(translator(Gru(), Bahdanau(), dim=432))


def rnn() -> Plain:
    """Vanilla RNN with Bahdanau's attention, the size of transformer-small."""
    return as_transformer_small(translator(VanillaRnn(), Bahdanau(), dim=512, depth=3), peak=1e-3)


def _gnmt(**sizes: Any) -> RecurrentConfig:
    """Google's translator of 2016: first layer two-way, residual connections from the third, attention from the lowest
    decoder layer, read by all (Wu et al., arXiv:1609.08144)."""
    return translator(
        Lstm(), GnmtAttention(), direction=FirstBidirectional(), bridge=NoBridge(), shortcut=Shortcut(), **sizes
    )


def gnmt_small() -> Plain:
    """GNMT with four layers on either side, the size of transformer-small."""
    return as_transformer_small(_gnmt(dim=272, depth=4))


def gnmt() -> Plain:
    """GNMT as published: eight layers of 1,024 channels on either side, 32,000 word pieces whose three matrices are
    apart; 281 million parameters."""
    return architecture(_gnmt(dim=1024, depth=8, tying="none"), vocab=32_000)


# ---- without a source -------------------------------------------------------------------------------


def lstm_lm_small() -> Plain:
    """LSTM language model, the size of lm-small (Zaremba et al., arXiv:1409.2329; tied as in Press & Wolf,
    arXiv:1608.05859)."""
    stack = RecurrentStackConfig(cell=Lstm(), depth=2, dropout=0.2)
    model = RecurrentConfig(dim=448, decoder=stack, scale_embedding=True, dropout=0.2)
    return as_lm_small(model, peak=3e-3, weight_decay=0.01)


def _reader(head: Head, *, depth: int, hidden: int, dropout: float) -> EncoderConfig:  # pyright: ignore[reportInvalidTypeForm]
    stack = RecurrentStackConfig(
        cell=Lstm(), depth=depth, hidden=hidden, direction=BidirectionalLayers(), dropout=dropout
    )
    return EncoderConfig(dim=128, inputs=TokenInput(scale=True, dropout=dropout), tower=stack, head=head)


def lstm_classifier_tiny() -> Plain:
    """BiLSTM classifier for some thousand texts, the size of classifier-tiny."""
    model = _reader(ClassificationHead(pooling=Mean(), dropout=0.3), depth=1, hidden=84, dropout=0.3)
    return recipe({"kind": "classification", "label_smoothing": 0.1}, model, vocab=4000, epochs=20)


def lstm_tagger_small() -> Plain:
    """BiLSTM tagger for some ten thousand sentences or more, the size of tagger-small."""
    model = _reader(TaggingHead(dropout=0.1), depth=2, hidden=118, dropout=0.1)
    return recipe({"kind": "tagging", "label_smoothing": 0.1}, model, vocab=8000, epochs=4, tokens=2048)
