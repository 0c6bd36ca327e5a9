"""A run as ONNX graphs: an encoder whole, a decoder one step at a time, and a decoder that also reads whole prompts.

    encoder.onnx   encoder-decoder   ids (B, S), keep (B, S)                    -> memory (L, 2, B, G, S, C)
    step.onnx                        token (B, 1), past (L, 2, B, G, K, C)       -> logits (B, V), past with K + 1
                                     and, with an encoder, memory and keep
    decoder.onnx                     ids (B, T), mask (B, K + T), past           -> logits (B, T, V), past with K + T
                                     and, with an encoder, memory and keep
    begin.onnx     other states      see state_graphs.py; step.onnx then takes and returns these
    model.onnx     encoder alone     ids (B, T), keep (B, T); or images         -> output of its head
    first.onnx, second.onnx          two towers: each as model.onnx

``keep`` and ``mask`` are False on padding. Texts begin with BOS, and the first past has K = 0; ids are ours. The past
holds all tokens, those outside of a layer's window too.

B batch, S source length, T length, K tokens before, L layers, G key/value heads, C channels of one head, V vocabulary.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import kind_of
from dragoman.errors import ConfigError
from dragoman.interchange.checking import built, check_onnx, checker_missing
from dragoman.interchange.dense_mixture import with_dense_mixtures
from dragoman.interchange.exporting import check_free, weights_of
from dragoman.interchange.known_parts import check_graph
from dragoman.interchange.nearest import nearest_preset
from dragoman.interchange.state_graphs import (
    BeginGraph,
    GraphTowerState,
    StateStepGraph,
    example_state,
    free_dimensions,
    tensors_of,
)
from dragoman.model.attention import Attention, AttentionConfig
from dragoman.model.caches.state import KV, KVState, LayerState
from dragoman.model.contrastive import TwoTowers, TwoTowersConfig
from dragoman.model.convolutional import ConvolutionalModel
from dragoman.model.encoder import Encoder
from dragoman.model.families import ModelConfig
from dragoman.model.gated_delta_net import GatedDeltaNet
from dragoman.model.inputs import PatchInput, TokenInput
from dragoman.model.linear_attention import LinearAttention
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.memory import ProjectedMemory, TransformerState
from dragoman.model.min_gru import MinGru
from dragoman.model.mlstm import Mlstm
from dragoman.model.positions.tokens import Positions, Tokens
from dragoman.model.recurrent.model import RecurrentModel
from dragoman.model.short_convolution import ShortConvolution
from dragoman.model.transformer import Transformer

CacheTensor = Float[Tensor, "L 2 B G K C"]


def export_onnx(
    run: str | Path, folder: str | Path, checkpoint: str | int = "best", *, check: bool = True
) -> list[str]:
    """Write the folder with the graphs and our tokenizers; the names of the graphs.

    Their outputs are compared with the run's model first, unless ``check`` is false or onnxruntime is not installed.

    Raises:
        CheckpointError: as ``RunDirectory.load``, something is at ``folder`` already, or the export answers otherwise.
        ConfigError: a model that cannot be a graph (the message names the path), or the packages are not installed.
    """
    directory, folder = RunDirectory.open(run), Path(folder)
    check_free(folder)
    _check_installed()
    cfg, weights = weights_of(directory, checkpoint)
    model = built(cfg, weights)
    try:
        graphs = graphs_of(cfg, model)
    except ConfigError as error:
        raise ConfigError(f"{error}; {nearest_preset(cfg, 'onnx')}") from None
    with durable.folder(folder) as partial:
        states = sum(name.startswith("state.") for name in graphs.get("step.onnx", (None, {}))[1])
        for name, (module, inputs) in graphs.items():
            _write(partial / name, module, inputs, states)
        for path in directory.tokenizer_files():
            (partial / path.name).write_bytes(path.read_bytes())
        if check and checker_missing("onnx") is None:
            check_onnx(partial, model)
    return list(graphs)


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install onnx onnxscript (the extra onnx)") from None


GraphExample = dict[str, tuple[Tensor, dict[int, str]]]
"""Mapping from input names to an example of each, and the names of the dimensions that may differ."""


def graphs_of(cfg: ModelConfig, model: nn.Module) -> "dict[str, tuple[nn.Module, GraphExample]]":
    """Return the graphs of a model, each with an example of its inputs.

    Raises:
        ConfigError: a part that does not become a graph; the message names its path.
    """
    if isinstance(model, TwoTowers) and isinstance(cfg, TwoTowersConfig):
        return _tower_graphs(cfg, model)
    plain = _keeps_keys_alone(model) if isinstance(model, Transformer) else isinstance(model, Encoder)
    if plain:  # others have a list of their own
        check_graph(cfg, "model")
    return _graphs(with_dense_mixtures(model))


def _tower_graphs(cfg: TwoTowersConfig, model: TwoTowers) -> "dict[str, tuple[nn.Module, GraphExample]]":
    towers = {"first": (cfg.first, model.first)} | ({"second": (cfg.second, model.second)} if cfg.second else {})
    found = {}
    for name, (part, tower) in towers.items():
        check_graph(part, f"model.{name}")
        found |= {f"{name}.onnx": graph for graph in _graphs(tower).values()}
    return found


def _graphs(model: nn.Module) -> dict[str, tuple[nn.Module, GraphExample]]:
    text: GraphExample = {
        "ids": (torch.full((2, 5), 3), {0: "batch", 1: "length"}),
        "keep": (torch.ones(2, 5, dtype=torch.bool), {0: "batch", 1: "length"}),
    }
    if isinstance(model, Encoder):
        if isinstance(model.cfg.inputs, TokenInput):
            return {"model.onnx": (EncoderGraph(model), text)}
        if isinstance(model.cfg.inputs, PatchInput):
            images = torch.zeros(2, model.cfg.inputs.channels, *model.cfg.inputs.size)
            return {"model.onnx": (model, {"inputs": (images, {0: "batch"})})}
    if isinstance(model, Transformer) and model.cfg.source is not None:
        raise ConfigError("model.source: a source that is no text does not become a graph")
    if isinstance(model, ConvolutionalModel | RecurrentModel) and model.cfg.encoder is None:
        return _state_graphs(model, text)
    if isinstance(model, Transformer) and not _keeps_keys_alone(model):
        _check_states(model)
        return _state_graphs(model, text)
    if isinstance(model, RecurrentModel):
        raise ConfigError("model.encoder: recurrent: it reads its source token by token and becomes no graph")
    if not isinstance(model, Transformer):
        kind = kind_of(type(getattr(model, "cfg", model)))
        raise ConfigError(f"model.kind: {kind}: only writers and encoders of text and images become graphs")
    _check_caches(model)
    past: GraphExample = {"past": (_example(model, 3), {2: "batch", 4: "before"})}
    step = {"token": (torch.full((2, 1), 3), {0: "batch"})} | past
    ids = (torch.full((2, 4), 3), {0: "batch", 1: "tokens"})
    whole = {"ids": ids, "mask": (torch.ones(2, 7, dtype=torch.bool), {0: "batch", 1: "before+tokens"})} | past
    if model.cfg.encoder is None:
        return {"step.onnx": (StepGraph(model), step), "decoder.onnx": (DecoderGraph(model), whole)}
    source: GraphExample = {"memory": (_example(model, 5), {2: "batch", 4: "length"}), "keep": text["keep"]}
    return {
        "encoder.onnx": (SourceGraph(model), text),
        "step.onnx": (TranslationStepGraph(model), step | source),
        "decoder.onnx": (TranslationDecoderGraph(model), whole | source),
    }


def _keeps_keys_alone(model: Transformer) -> bool:
    """Return whether a model is a Transformer of attention, whose state is keys and values."""
    return all(isinstance(block.mixer, Attention) for block in model.decoder.blocks)


def _state_graphs(
    model: Transformer | ConvolutionalModel | RecurrentModel, text: GraphExample
) -> "dict[str, tuple[nn.Module, GraphExample]]":
    """Return the graphs of a model that keeps something else of the past than keys and values."""
    cfg = model.cfg
    state = example_state(model, 2, 5, 3, translates=cfg.translates)
    free = free_dimensions(state, example_state(model, 3, 7, 5, translates=cfg.translates))
    token: GraphExample = {"token": (torch.full((2, 1), 3), {0: "batch"})}
    behind = {f"state.{i}": pair for i, pair in enumerate(zip(tensors_of(state), free, strict=True))}
    begin = token | text if cfg.translates else token
    return {"begin.onnx": (BeginGraph(model), begin), "step.onnx": (StateStepGraph(model, state), token | behind)}


_WITH_STATE = (AttentionConfig, ShortConvolution, LinearAttention, GatedDeltaNet, MinGru, Mlstm, Mamba, Mamba2)
"""Mixers whose step is a graph for every number of rows, as tried."""


def _check_states(model: Transformer) -> None:
    """Check that no layer has a loop over tokens, and that the steps of all of them become graphs."""
    towers = {"decoder": model.cfg.decoder} | ({"encoder": model.cfg.encoder} if model.cfg.encoder else {})
    for side, tower in towers.items():
        known = _WITH_STATE if side == "decoder" else (AttentionConfig, ShortConvolution)
        for i, block in enumerate(tower.pattern):
            if type(block.mixer) not in known:
                kind = kind_of(type(block.mixer))
                raise ConfigError(f"model.{side}.pattern.{i}.mixer: {kind}: its state does not become a graph")
            if isinstance(block.mixer, AttentionConfig):
                check_graph(block.mixer, f"model.{side}.pattern.{i}.mixer")


def _check_caches(model: Transformer) -> None:
    for i, block in enumerate(model.cfg.decoder.pattern):
        path = f"model.decoder.pattern.{i}.mixer"
        if not isinstance(block.mixer, AttentionConfig):
            raise ConfigError(f"{path}: a step of {kind_of(type(block.mixer))} does not become a graph")
    shapes = {_sizes(block.mixer) for block in model.decoder.blocks if isinstance(block.mixer, Attention)}
    if model.cfg.encoder is not None:
        shapes |= {_sizes(block.cross) for block in model.decoder.blocks}
    if len(shapes) > 1:
        raise ConfigError("model.decoder.pattern: layers with key/value heads of other sizes do not become a graph")


def _sizes(attention: Attention) -> tuple[int, int]:
    return attention.cfg.key_value_heads, attention.head_dim


def _example(model: Transformer, length: int) -> Tensor:
    attention = model.decoder.blocks[0].mixer
    assert isinstance(attention, Attention), "checked before"
    G, C = _sizes(attention)
    return torch.zeros(len(model.decoder.blocks), 2, 2, G, length, C)


# ---- the graphs as modules -------------------------------------------------------------------------


class EncoderGraph(nn.Module):
    """Encoder of text, with a padding mask as an input."""

    def __init__(self, model: Encoder):
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "B T"], keep: Bool[Tensor, "B T"]) -> Tensor:
        return self.model(Tokens(ids, keep))


class SourceGraph(nn.Module):
    """Encoder of a source, with its keys and values projected once for each layer of the decoder."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "B S"], keep: Bool[Tensor, "B S"]) -> CacheTensor:
        memory = self.model.encode(Tokens(ids, keep))
        assert memory is not None
        return torch.stack([torch.stack(memory.read(i, b.cross)) for i, b in enumerate(self.model.decoder.blocks)])


class StepGraph(nn.Module):
    """One step of a decoder: the next token's logits, and the past with this one."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, token: Int[Tensor, "B 1"], past: CacheTensor) -> tuple[Float[Tensor, "B V"], CacheTensor]:
        return self.step(token, past, None)

    def step(self, token: Tensor, past: Tensor, memory: "GraphMemory | None") -> tuple[Tensor, Tensor]:
        before = Positions(torch.arange(past.shape[4], device=past.device)[None])
        newest = Positions(torch.full((1, 1), past.shape[4] - 1))
        logits, past = self.read(Tokens(token), past, before, newest, memory)
        return logits[:, -1], past

    def read(
        self, tokens: Tokens, past: Tensor, before: Positions, newest: Positions, memory: "GraphMemory | None"
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of tokens behind those at ``before``, of which the last is at ``newest``."""
        layers = [GraphState(KV(*layer)) for layer in past]
        tower = GraphTowerState(layers, [visibility for _, visibility in self.model.decoder.kinds])
        tower.newest, tower.visible = newest, dict.fromkeys(tower.visible, before)
        logits = self.model.decode(tokens, TransformerState(tower, memory))
        return logits, torch.stack([torch.stack(layer.kv) for layer in layers])


class TranslationStepGraph(StepGraph):
    """One step of a decoder with a source: its keys and values are further inputs."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, token: Int[Tensor, "B 1"], past: CacheTensor, memory: CacheTensor, keep: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B V"], CacheTensor]:
        return self.step(token, past, GraphMemory(memory, keep))


class DecoderGraph(StepGraph):
    """A decoder of several tokens behind a past, which may be empty: for prompts and for steps."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, ids: Int[Tensor, "B T"], mask: Bool[Tensor, "B N"], past: CacheTensor
    ) -> tuple[Float[Tensor, "B T V"], CacheTensor]:
        return self.extend(ids, mask, past, None)

    def extend(self, ids: Tensor, mask: Tensor, past: Tensor, memory: "GraphMemory | None") -> tuple[Tensor, Tensor]:
        """Return the logits of ``ids``; ``mask`` is that of the past and of them (B, K + T)."""
        K = past.shape[4]
        position = mask.long().cumsum(dim=1) - 1
        before = Positions(position[:, :K], mask[:, :K])
        newest = Positions(mask[:, :K].long().sum(dim=1, keepdim=True) - 1)
        return self.read(Tokens(ids, mask[:, K:]), past, before, newest, memory)


class TranslationDecoderGraph(DecoderGraph):
    """The same with a source: its keys and values are further inputs."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        ids: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B N"],
        past: CacheTensor,
        memory: CacheTensor,
        keep: Bool[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B T V"], CacheTensor]:
        return self.extend(ids, mask, past, GraphMemory(memory, keep))


class GraphState(KVState):
    """State of a graph's layer: keys and values are inputs, and outputs with the new ones."""

    def __init__(self, kv: KV):
        self.kv = kv

    def extend(self, new: KV, retained: Tensor | None = None) -> KV:
        self.kv = KV(torch.cat([self.kv.k, new.k], dim=2), torch.cat([self.kv.v, new.v], dim=2))
        return self.kv

    def reorder(self, rows: Tensor) -> None:
        raise NotImplementedError("whoever runs a graph reorders the past itself")

    def join(self, other: LayerState) -> None:
        raise NotImplementedError("whoever runs a graph puts rows together itself")

    def rewind(self, tokens: int) -> None:
        raise NotImplementedError("whoever runs a graph keeps the past it may go back to")

    @property
    def nbytes(self) -> int:
        return self.kv.k.nbytes + self.kv.v.nbytes


class GraphMemory(ProjectedMemory):
    """Memory of a graph: the source's keys and values of every layer are inputs."""

    def __init__(self, layers: CacheTensor, keep: Bool[Tensor, "B S"]):
        self.count, self.positions = layers.shape[2], Positions(keep.long().cumsum(dim=1) - 1, keep)
        self.handed = layers

    def read(self, layer: int, attention: Attention) -> KV:
        return KV(*self.handed[layer])


# ---- writing ---------------------------------------------------------------------------------------


def _outputs(name: str, states: int) -> list[str]:
    """Return the names of a graph's outputs."""
    if states:
        return ["logits", *(f"next_state.{i}" for i in range(states))]
    known = {
        "encoder.onnx": ["memory"],
        "step.onnx": ["logits", "past_with_token"],
        "decoder.onnx": ["logits", "past_with_tokens"],
    }
    return known.get(name, ["said"])


def _write(path: Path, module: nn.Module, inputs: GraphExample, states: int) -> None:
    auto = torch.export.Dim.DYNAMIC  # which sizes are sums of others, is found out
    free: list[Any] = [dict.fromkeys(dynamic, auto) for _, dynamic in inputs.values()]
    shapes = (free[0], tuple(free[1:])) if isinstance(module, StateStepGraph) else tuple(free)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and about packages that it can do without
        try:
            program = torch.onnx.export(
                module,
                tuple(example for example, _ in inputs.values()),
                input_names=list(inputs),
                output_names=_outputs(path.name, states),
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            why = str(error.__cause__ or error).strip().splitlines()[0]
            raise ConfigError(
                f"model: PyTorch makes no ONNX graph of it ({why}); please report its configuration"
            ) from error
        assert program is not None
        program.save(path, external_data=False)
