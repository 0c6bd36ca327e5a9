"""Names of all places that one may look at in a model, the same for every family, with their shapes.

    decoder.3.mixer.weights       decoder.3.cross.scores       encoder.0.feed_forward.output       logits

A name is a tower, a layer counted from 0, and a place in the layer. ``places`` lists those of a model; ``find`` looks
one up, or several by a pattern such as ``decoder.*.mixer.weights``. Towers are ``encoder`` and ``decoder``; of two
encoders that are compared ``first`` and ``second``; where a convolutional model encodes its source twice
``encoder.keys`` and ``encoder.values``.

B batch, T tokens of that side, S source tokens, D width, H query heads, G key/value heads, C channels of one head, Q/K
queries and keys, F hidden width, E experts, V vocabulary.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from dragoman.errors import ConfigError
from dragoman.inspect.taps import (
    InputTap,
    OneStep,
    OutputTap,
    PositionTap,
    RoutingTap,
    SourceAttentionTap,
    SplitHeads,
    StateTap,
    Tap,
)
from dragoman.model.attention import Attention
from dragoman.model.bidirectional import BidirectionalLayer
from dragoman.model.block_sparse import SparseAttention
from dragoman.model.contrastive import TwoTowers
from dragoman.model.convolution.attention import MultiStepAttention
from dragoman.model.convolution.blocks import ConvolutionBlock
from dragoman.model.convolution.stack import ConvolutionTower
from dragoman.model.convolutional import ConvolutionalModel
from dragoman.model.disentangled import DisentangledLayer
from dragoman.model.encoder import Encoder
from dragoman.model.gated_delta_net import GatedDeltaNetLayer
from dragoman.model.heads import HeadLayer
from dragoman.model.inference.packed import PackedAttention
from dragoman.model.inputs import InputLayer
from dragoman.model.interface import SequenceModel
from dragoman.model.linear_attention import LinearAttentionLayer
from dragoman.model.linformer import LinformerLayer
from dragoman.model.longformer import LongformerAttention
from dragoman.model.mamba import MambaLayer
from dragoman.model.mamba2 import Mamba2Layer
from dragoman.model.mlp import FeedForwardLayer, GatedLayer
from dragoman.model.mlstm import MlstmLayer
from dragoman.model.moe import MixtureLayer
from dragoman.model.norm import Residual
from dragoman.model.positions.position import NoPositionEmbedding
from dragoman.model.recurrent.decoder import FeedingDecoder, PlainDecoder, RecurrentDecoder
from dragoman.model.recurrent.model import RecurrentModel
from dragoman.model.recurrent.source_attention import SourceAttention
from dragoman.model.recurrent.stack import RecurrentStack, RecurrentTower
from dragoman.model.reformer import ReformerAttention
from dragoman.model.tower import Block, Tower

STATES = (MambaLayer, Mamba2Layer, GatedDeltaNetLayer, MlstmLayer, LinearAttentionLayer)


@dataclass(frozen=True)
class Place:
    """One place in a model."""

    name: str
    shape: str
    """Dimensions, in the letters of this file."""
    about: str
    """Description of what stands there."""
    tap: Tap

    @property
    def layer(self) -> int | None:
        """Layer, counted from 0; None outside the layers."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), None)


# ---- looking names up ---------------------------------------------------------------------------------


def places(model: nn.Module) -> dict[str, Place]:
    """Return every place of a model by its name, in the order in which a forward passes them.

    Raises:
        ConfigError: a model of no family of ours, or one that was packed for inference.
    """
    if any(isinstance(part, PackedAttention) for part in model.modules()):
        raise ConfigError(
            "this model is packed for inference, so that its parts cannot be seen: load it as it was trained"
        )
    found = {place.name: place for place in _of_model(model)}
    if not found:
        raise ConfigError(f"{type(model).__name__}: no model of ours: its places have no names. Import it first")
    return found


def find(known: dict[str, Place], patterns: str | Iterable[str]) -> list[Place]:
    """Return the places that match one of ``patterns``, in the order of the forward; ``*`` matches anything.

    Raises:
        ConfigError: a pattern without a match; the message names a near one, or the range of layers.
    """
    wanted: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matching = [name for name in known if fnmatchcase(name, pattern)]
        if not matching:
            raise ConfigError(_unknown(pattern, known))
        wanted.update(matching)
    return [place for name, place in known.items() if name in wanted]


def _unknown(pattern: str, known: dict[str, Place]) -> str:
    """Return the message for a name that this model does not have."""
    numbered = re.fullmatch(r"(.+?)\.(\d+)(\..+|)", pattern)
    if numbered:
        tower, layer, rest = numbered.groups()
        layers = sorted({int(name.split(".")[len(tower.split("."))]) for name in _in_layers(known, tower)})
        if layers and int(layer) not in layers:
            return f"{pattern}: {tower} has the layers {layers[0]} to {layers[-1]}, counted from 0"
        pattern_there = next((n for n in known if n.startswith(f"{tower}.") and n.endswith(rest or ".")), None)
        if layers and pattern_there:
            return f"{pattern}: layer {layer} has no such place; {pattern_there} is one"
    near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.5)
    return f"{pattern}: no such place in this model" + (
        f". Did you mean {near[0]}?" if near else "; `dragoman inspect RUN --places` lists them"
    )


def _in_layers(known: Iterable[str], tower: str) -> list[str]:
    return [name for name in known if re.match(re.escape(tower) + r"\.\d+\.", name)]


# ---- models -------------------------------------------------------------------------------------------


def _of_model(model: Any) -> Iterator[Place]:
    if isinstance(model, TwoTowers):
        shared = model.second is model.first
        for call, (name, tower) in enumerate((("first", model.first), ("second", model.second))):
            for place in _of_encoder(tower, name):
                yield _counted(place, call) if shared else place
        yield Place("logits", "B B", "similarity of each of the first to each of the second", OutputTap(model))
    elif isinstance(model, Encoder):
        yield from _of_encoder(model, "encoder")
    elif isinstance(model, SequenceModel):
        yield from _of_writer(model)


def _counted(place: Place, call: int) -> Place:
    """Return a place of a tower that is called twice in one forward."""
    tap: Any = place.tap
    return replace(place, tap=replace(tap, call=call) if hasattr(tap, "call") else tap)


def _of_encoder(model: Encoder, name: str) -> Iterator[Place]:
    yield from _of_inputs(model.inputs, name)
    yield from _of_tower(model.tower, name)
    yield Place(f"{name}.output", "B T D", "vectors that the head reads", InputTap(model.head))
    if type(model.head) is not HeadLayer:
        answer = "logits" if name == "encoder" else f"{name}.vector"
        yield Place(answer, "B ...", "the head's output", OutputTap(model.head))


def _of_writer(model: Any) -> Iterator[Place]:
    if hasattr(model, "encoder"):
        yield from _of_inputs(model.source_embed, "encoder")
        if isinstance(model, ConvolutionalModel):
            towers = [(name, t) for name, t in model.encoder.named_children() if isinstance(t, ConvolutionTower)]
            for name, tower in towers:
                yield from _of_tower(tower, "encoder" if len(towers) == 1 else f"encoder.{name}")
        else:
            yield from _of_tower(model.encoder, "encoder")
        if not isinstance(model, ConvolutionalModel) and _is_read(model):
            yield Place("encoder.output", "B S D", "the encoded source", OutputTap(model.encoder))
    yield from _of_inputs(model.embed, "decoder")
    yield from _of_tower(model.decoder, "decoder")
    if isinstance(model, RecurrentModel) and hasattr(model.decoder, "cross"):
        yield from _of_source_attention(model.decoder)
    yield Place("decoder.output", "B T D", "vectors that the output layer reads", InputTap(model.output))
    yield Place("logits", "B T V", "logits of the next token", OutputTap(model))


def _is_read(model: Any) -> bool:
    """Return whether the decoder reads the encoder's outputs, and not its last states alone."""
    return not isinstance(model, RecurrentModel) or model.attends or not model.bridge.needs_states


def _of_inputs(layer: InputLayer, name: str) -> Iterator[Place]:
    """List the places of an input layer."""
    name = f"{name}.embedding"
    if isinstance(tokens := getattr(layer, "tokens", None), nn.Embedding):
        yield Place(f"{name}.tokens", "B T D", "rows of the embedding matrix", OutputTap(tokens))
    elif isinstance(project := getattr(layer, "project", None), nn.Module):
        yield Place(f"{name}.tokens", "B T D", "projections of patches or frames", OutputTap(project))
    position = layer.position
    if hasattr(layer, "tokens") and not isinstance(position, NoPositionEmbedding):
        yield Place(f"{name}.positions", "B T D", "vectors of the positions", PositionTap(position))  # pyright: ignore[reportArgumentType]
    if not isinstance(layer.norm, nn.Identity):
        yield Place(f"{name}.norm", "B T D", "norm of their sum", OutputTap(layer.norm))  # pyright: ignore[reportArgumentType]
    yield Place(name, "B T D", "what the first layer reads", OutputTap(layer))


def _of_tower(tower: Any, name: str) -> Iterator[Place]:
    """List the places of all layers of a tower."""
    for i, block in enumerate(tower.blocks):
        at = f"{name}.{i}"
        if isinstance(tower, Tower):
            yield from _of_block(block, at)
        elif isinstance(tower, ConvolutionTower):
            yield from _of_convolution(block, at)
        elif isinstance(tower, RecurrentStack):
            yield Place(f"{at}.residual.before", "B T K", "what the layer reads", InputTap(block))
            for side, layer in block.directions.items():
                which = "" if len(block.directions) == 1 else f".{side}"
                yield Place(f"{at}.mixer{which}.state", "B T C", "hidden state after each token", _state(layer))
            yield Place(f"{at}.residual.after", "B T K", "what the next layer reads", OutputTap(block))
        elif isinstance(tower, RecurrentDecoder):
            stepwise = isinstance(tower, FeedingDecoder)
            yield Place(f"{at}.mixer.state", "B T C", "hidden state after each token", _state(block, stepwise))
    if isinstance(tower, RecurrentTower) and not isinstance(tower.out, nn.Identity):
        yield Place(f"{name}.projection", "B T D", "outputs in the model's width", OutputTap(tower.out))
    norm = getattr(tower, "final_norm", None)
    if norm is not None and not isinstance(norm, nn.Identity):
        yield Place(f"{name}.final_norm", "B T D", "norm after the last layer", OutputTap(norm))


def _state(layer: Any, stepwise: bool = False) -> Tap:
    return OutputTap(layer.outputs, OneStep(), stepwise=stepwise)


# ---- blocks -------------------------------------------------------------------------------------------


def _of_block(block: Block, name: str) -> Iterator[Place]:
    yield Place(f"{name}.residual.before", "B T D", "residual stream that the layer reads", InputTap(block))
    yield from _of_norms(block.mixer_residual, f"{name}.mixer")
    yield from _of_mixer(block.mixer, f"{name}.mixer")
    mixed = "residual stream after the mixer is added"
    yield Place(f"{name}.residual.after_mixer", "B T D", mixed, OutputTap(block.mixer_residual))
    if hasattr(block, "cross"):
        yield from _of_norms(block.cross_residual, f"{name}.cross")
        yield Place(f"{name}.cross.input", "B T D", "what the queries are computed from", InputTap(block.cross.q))
        yield from _of_attention(block.cross, f"{name}.cross", "S")
        yield Place(f"{name}.cross.output", "B T D", "output of the cross-attention", OutputTap(block.cross.out))
        crossed = "residual stream after the cross-attention is added"
        yield Place(f"{name}.residual.after_cross", "B T D", crossed, OutputTap(block.cross_residual))
    if isinstance(block.mlp_residual, Residual):
        yield from _of_norms(block.mlp_residual, f"{name}.feed_forward")
        yield from _of_feed_forward(block.mlp, f"{name}.feed_forward")
    yield Place(f"{name}.residual.after", "B T D", "residual stream that the next layer reads", OutputTap(block))


def _of_norms(residual: Residual, name: str) -> Iterator[Place]:
    told = {"before": "norm of the input", "output": "norm of the output", "after": "norm of the sum"}
    for slot, about in told.items():
        norm = getattr(residual, slot)
        if not isinstance(norm, nn.Identity):
            yield Place(f"{name}.norm.{slot}", "B T D", about, OutputTap(norm))


def _of_feed_forward(layer: nn.Module, name: str) -> Iterator[Place]:
    yield Place(f"{name}.input", "B T D", "what the feed-forward layer reads", InputTap(layer))
    if isinstance(layer, FeedForwardLayer | GatedLayer):
        if isinstance(layer, GatedLayer):
            yield Place(f"{name}.gate", "B T F", "the gate, before its activation", OutputTap(layer.gate))
        yield Place(f"{name}.up", "B T F", "hidden layer, before its activation", OutputTap(layer.up))
        yield Place(f"{name}.hidden", "B T F", "hidden layer, after its activation", InputTap(layer.out))
    if isinstance(layer, MixtureLayer):
        yield Place(f"{name}.routing", "B T E", "logits of the router for each expert", RoutingTap(layer))
    yield Place(f"{name}.output", "B T D", "output of the feed-forward layer", OutputTap(layer))


# ---- mixers -------------------------------------------------------------------------------------------


def _of_mixer(mixer: Any, name: str) -> Iterator[Place]:
    yield Place(f"{name}.input", "B T D", "what the mixer reads", InputTap(mixer))
    if isinstance(mixer, Attention | ReformerAttention):
        yield from _of_attention(mixer, name, "T")
    elif isinstance(mixer, BidirectionalLayer):
        for side in ("forwards", "backwards"):  # the second reads, and is shown, in reverse order
            yield from _of_summary(getattr(mixer, side), f"{name}.{side}")
    else:
        yield from _of_summary(mixer, name)
    yield Place(f"{name}.output", "B T D", "output of the mixer", OutputTap(mixer))


def _of_summary(mixer: Any, name: str) -> Iterator[Place]:
    """List the places of a mixer that is not softmax attention over tokens."""
    if isinstance(mixer, LinearAttentionLayer | LinformerLayer | DisentangledLayer):
        split = SplitHeads(mixer.head_dim)
        for part, one in (("queries", mixer.q), ("keys", mixer.k), ("values", mixer.v)):
            yield Place(f"{name}.{part}", "B H T C", f"{part} of each head", OutputTap(one, split))
        yield Place(f"{name}.heads", "B H T C", "output of each head", InputTap(mixer.out, split))
    if isinstance(mixer, MlstmLayer):
        for part, one, C in (("queries", mixer.q, mixer.key_dim), ("keys", mixer.k, mixer.key_dim)):
            yield Place(f"{name}.{part}", "B H T C", f"{part} of each head", OutputTap(one, SplitHeads(C)))
        values = OutputTap(mixer.v, SplitHeads(mixer.value_dim))
        yield Place(f"{name}.values", "B H T C", "values of each head", values)
    if isinstance(convolution := getattr(mixer, "convolution", None), nn.Module):
        yield Place(f"{name}.convolution", "B T W", "output of the convolution", OutputTap(convolution))
    if isinstance(mixer, STATES) and getattr(mixer.cfg, "causal", True):
        yield Place(f"{name}.state", "B T ...", "state after each token", StateTap(mixer))
    if isinstance(out := getattr(mixer, "out", None), nn.Module) and not hasattr(mixer, "q"):
        yield Place(f"{name}.read", "B T W", "what was read from the state, gated", InputTap(out))


def _of_attention(attention: Attention | ReformerAttention, name: str, keys: str) -> Iterator[Place]:
    """List the places of softmax attention. Sparse kernels, which hold no scores of all pairs, step aside for them."""
    split = SplitHeads(attention.head_dim)
    own = isinstance(attention, LongformerAttention) and attention.global_projections
    first, aside = 0 if own else None, isinstance(attention, SparseAttention | ReformerAttention)
    if isinstance(attention, ReformerAttention):  # whose keys are its queries, scaled
        yield Place(f"{name}.queries", "B H T C", "queries of each head, and keys", OutputTap(attention.q, split))
    else:
        norms = OutputTap(attention.q_norm, call=first), OutputTap(attention.k_norm, call=first)
        yield Place(f"{name}.queries", "B H T C", "queries of each head, before positions", norms[0])
        yield Place(f"{name}.keys", f"B G {keys} C", "keys of each head, before positions", norms[1])
    yield Place(f"{name}.values", f"B G {keys} C", "values of each head", OutputTap(attention.v, split))
    for which, call in (("global_", 0), ("", 1)) if own else (("", None),):
        scores = OutputTap(attention.scores, aside=aside, call=call)
        weights = OutputTap(attention.weights, aside=aside, call=call)
        yield Place(f"{name}.{which}scores", f"B H T {keys}", "scores with positions, before the mask", scores)
        yield Place(f"{name}.{which}weights", f"B H T {keys}", "attention weights; each row sums to 1", weights)
    yield Place(f"{name}.heads", "B H T C", "output of each head", InputTap(attention.out, split))


def _of_convolution(block: ConvolutionBlock, name: str) -> Iterator[Place]:
    yield Place(f"{name}.residual.before", "B T D", "what the block reads", InputTap(block))
    yield Place(f"{name}.mixer.input", "B T D", "what the convolution reads", InputTap(block.convolution))
    yield Place(f"{name}.mixer.output", "B T W", "output of the convolution", OutputTap(block.convolution))
    cross = getattr(block, "cross", None)
    if isinstance(cross, MultiStepAttention):
        yield Place(f"{name}.cross.input", "B T C", "what the queries are computed from", InputTap(cross))
        yield Place(f"{name}.cross.queries", "B T C", "queries, before the target is added", OutputTap(cross.q))
        scores, weights = (OutputTap(tap, aside=True) for tap in (cross.scores, cross.weights))
        yield Place(f"{name}.cross.scores", "B 1 T S", "scores, before the mask", scores)
        yield Place(f"{name}.cross.weights", "B 1 T S", "attention weights; each row sums to 1", weights)
        yield Place(f"{name}.cross.heads", "B T C", "weighted sums of values", InputTap(cross.out))
        yield Place(f"{name}.cross.output", "B T C", "output of the cross-attention", OutputTap(cross))
    yield Place(f"{name}.residual.after", "B T C", "what the next block reads", OutputTap(block))


def _of_source_attention(decoder: Any) -> Iterator[Place]:
    """List the places of a recurrent decoder's attention, which belongs to no layer."""
    cross: SourceAttention = decoder.cross
    stepwise = not isinstance(decoder, PlainDecoder)
    yield Place("decoder.cross.queries", "B T C", "queries", InputTap(cross, stepwise=stepwise))
    for part in ("scores", "weights"):
        tap = SourceAttentionTap(cross, part == "scores", stepwise)
        about = "scores, before the mask" if part == "scores" else "attention weights; each row sums to 1"
        yield Place(f"decoder.cross.{part}", "B 1 T S", about, tap)
    context = OutputTap(cross, stepwise=stepwise)
    yield Place("decoder.cross.output", "B T K", "what was read from the source", context)
