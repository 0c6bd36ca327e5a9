"""Choice of the Hugging Face layout for a model, and the model's weights in the form that the layout has."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dragoman.checkpoint import RunDirectory
from dragoman.config import kind_of
from dragoman.errors import ConfigError
from dragoman.interchange.families import FAMILIES
from dragoman.interchange.family import WHOLE, Expressible, Family, Obstacle, has_mixers, obstacles, shape_of
from dragoman.interchange.importing import ORIGIN, RECORD, origin_vocabulary
from dragoman.interchange.known_parts import HUGGINGFACE
from dragoman.interchange.rope import LONGEST, their_longest
from dragoman.interchange.whitelist import unknown_parts
from dragoman.json_files import read_json
from dragoman.model.attention import AttentionConfig
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import MaskedLanguageHead, NoHead, SentenceHead
from dragoman.model.inputs import TokenInput
from dragoman.model.meta_device import on_meta_device
from dragoman.model.positions.position import Learned, Sinusoidal
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import PAD
from dragoman.model.transformer import TransformerConfig

_SCALE = re.compile(r"model\.(inputs\.)?scale")
ModelWeights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A layout, with the model as it is written there."""

    family: Family
    cfg: Expressible
    weights: ModelWeights


def find_layout(cfg: ModelConfig, weights: ModelWeights, run: RunDirectory) -> Layout:
    """Return the layout that a model was imported from, or else the first that can express it.

    Where none can, a scale of the embeddings is folded into their weights, if that is exact.

    Raises:
        ConfigError: none can; the message names what stands in the way in the nearest one.
    """
    if not isinstance(cfg, Expressible):
        raise ConfigError(f"model.kind: {kind_of(type(cfg))} cannot be expressed in a Hugging Face layout")
    if unknown := next(unknown_parts(cfg, HUGGINGFACE), None):
        raise ConfigError(f"{unknown}: cannot be expressed in a Hugging Face layout")
    refusal, cfg = None, _without_held(cfg, run)
    for candidate, values in ((cfg, weights), *_folded(cfg, weights)):
        try:
            return _numbered_layout(Layout(choose_family(candidate, run), candidate, values), run)
        except ConfigError as error:
            if refusal is None or _SCALE.match(str(refusal)):  # that, folding has removed
                refusal = error
    assert refusal is not None
    raise refusal


def _without_held(cfg: Expressible, run: RunDirectory) -> Expressible:
    """Return the configuration without the suppressed ids that no layout need name.

    Rows that an import added are not written. A bias of the logits, where the weights have one, suppresses the others.
    """
    if not isinstance(cfg, TransformerConfig) or not cfg.suppressed:
        return cfg
    vocabulary = origin_vocabulary(run)
    held = cfg.suppressed if cfg.output_bias else vocabulary.suppressed if vocabulary else ()
    return dataclasses.replace(cfg, suppressed=tuple(i for i in cfg.suppressed if i not in held))


def _folded(cfg: Expressible, weights: ModelWeights) -> Iterator[tuple[Expressible, ModelWeights]]:
    """Yield the same model with the scale of its embeddings in their weights, where no number changes by it.

    Tied matrices come apart, since the output is not scaled.
    """
    if isinstance(cfg, TwoTowersConfig):
        return
    scale = cfg.dim**0.5
    exact = math.frexp(scale)[0] == 0.5 or all(w.dtype == torch.float32 for w in weights.values())
    if not exact:
        return
    if isinstance(cfg, TransformerConfig):
        if cfg.scale_embedding:
            tables = ("embed.tokens.weight", "source_embed.tokens.weight")
            tying = "inputs" if cfg.encoder is not None and cfg.tying in ("all", "inputs") else "none"
            yield dataclasses.replace(cfg, scale_embedding=False, tying=tying), _scaled(weights, tables, scale)
    elif isinstance(cfg.inputs, TokenInput) and cfg.inputs.scale:
        tied = isinstance(cfg.head, MaskedLanguageHead)
        head = dataclasses.replace(cfg.head, tied=False) if tied else cfg.head  # pyright: ignore[reportCallIssue, reportArgumentType]
        inputs = dataclasses.replace(cfg.inputs, scale=False)
        yield (
            dataclasses.replace(cfg, inputs=inputs, head=head),
            _scaled(weights, ("inputs.tokens.weight",), scale),
        )


def _numbered_from_padding(cfg: Expressible, family: Family, run: RunDirectory) -> Expressible:
    """Return RoBERTa's configuration with positions that begin behind the id of padding, as transformers numbers them.

    A model trained here pads with id 0; an imported one keeps its own.
    """
    if family.name != "roberta" or _origin(run) or not isinstance(cfg, EncoderConfig):
        return cfg
    if not (isinstance(cfg.inputs, TokenInput) and isinstance(cfg.inputs.position, Learned)):
        return cfg
    position = dataclasses.replace(cfg.inputs.position, offset=PAD + 1)
    return dataclasses.replace(cfg, inputs=dataclasses.replace(cfg.inputs, position=position))


def _numbered_layout(layout: Layout, run: RunDirectory) -> Layout:
    """Return a layout whose positions are numbered as transformers does, with as many unused rows in their table."""
    cfg = _numbered_from_padding(layout.cfg, layout.family, run)
    if cfg == layout.cfg:
        return layout
    name = "inputs.position.weight"
    used = layout.weights[name][layout.cfg.inputs.position.offset :]  # pyright: ignore[reportAttributeAccessIssue]
    table = torch.cat([used.new_zeros(PAD + 1, used.shape[1]), used])
    return Layout(layout.family, cfg, dict(layout.weights) | {name: table})


def _origin(run: RunDirectory) -> str | None:
    """Return the family that a run was imported from; None for a run trained here."""
    return read_json(run.path / ORIGIN / RECORD).get("family")


def stated_longest(layout: Layout, run: RunDirectory) -> int | None:
    """Return ``max_position_embeddings`` of a model whose positions have no limit, or None where nothing states it.

    The folder that a run was imported from states it, unless the scaling of rotary positions does.
    """
    if not isinstance(layout.cfg, TransformerConfig):
        return None
    stated = read_json(run.path / ORIGIN / "config.json").get("max_position_embeddings")
    if isinstance(layout.cfg.position, Sinusoidal):
        return stated
    mixers = [block.mixer for block in layout.cfg.decoder.pattern if isinstance(block.mixer, AttentionConfig)]
    rotary = next((mixer.position for mixer in mixers if isinstance(mixer.position, Rotary)), None)
    if rotary is None:
        return None
    return their_longest(rotary, stated or LONGEST)


def _scaled(weights: ModelWeights, tables: tuple[str, ...], scale: float) -> ModelWeights:
    return dict(weights) | {name: weights[name] * scale for name in tables if name in weights}


def choose_family(cfg: Expressible, run: RunDirectory) -> Family:
    """Return the family that a model was imported from, or else the first that can express it.

    Raises:
        ConfigError: none can; the message names what stands in the way in the nearest one, which differs in fewest
            settings.
    """
    origin = _origin(run)
    stated = {} if origin else {"pad_token_id": PAD}  # positions of some families begin behind it
    found = []
    for family in FAMILIES:
        if origin not in (None, family.name) or family.shape != shape_of(cfg):
            continue
        written = to_layout(_numbered_from_padding(cfg, family, run), family)
        hindrances = list(obstacles(family, written, stated))
        if not hindrances:
            return family
        found.append((family, hindrances))
    family, hindrances = min(found, key=lambda f: (not has_mixers(f[0], cfg), *_distance(f[1])))
    path, ours, theirs, _ = hindrances[0]
    nearest = "" if path == WHOLE else f"; the nearest, {family.name}, has {theirs} there"
    raise ConfigError(
        f"{path}: {ours} cannot be expressed in a Hugging Face layout{nearest}. "
        f"Layouts: {', '.join(known.name for known in FAMILIES)}"
    )


def _distance(hindrances: list[Obstacle]) -> tuple[bool, int]:
    """Return how far a family is from a model: whether it cannot describe it at all, and the settings that differ."""
    return hindrances[0].path == WHOLE, sum(found.settings for found in hindrances)


def to_layout(cfg: Expressible, family: Family) -> Expressible:
    """Return the configuration as the family writes it.

    For Marian, sines come first and the logits have a bias (of zeros, where we have none). A sentence encoder is
    written without its head, which is in another file.
    """
    if isinstance(cfg, EncoderConfig):
        return dataclasses.replace(cfg, head=NoHead()) if isinstance(cfg.head, SentenceHead) else cfg
    if isinstance(cfg, TwoTowersConfig):
        return cfg
    if family.name == "llama":
        return _with_output_biases(cfg)
    if family.name != "marian":
        return cfg
    position = cfg.position
    if isinstance(position, Sinusoidal) and position.layout == "interleaved":
        position = dataclasses.replace(position, layout="halves")
    return dataclasses.replace(cfg, position=position, output_bias=True)


def _with_output_biases(cfg: TransformerConfig) -> TransformerConfig:
    """Return Qwen 2's configuration in the layout of LLaMA, which has a bias on attention's output too.

    The bias is of zeros, where we have none. The layout is changed because transformers reads the text of a folder in
    Qwen 2's layout with the tokenizer of Qwen 2, whatever tokenizer.json states.
    """
    pattern = tuple(
        dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, out_bias=True))
        if isinstance(block.mixer, AttentionConfig) and block.mixer.bias
        else block
        for block in cfg.decoder.pattern
    )
    return dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=pattern))


def with_zero_biases(to_layout: Expressible, weights: ModelWeights) -> ModelWeights:
    """Return the weights with zeros for the biases that a layout has and the model has not."""
    with on_meta_device():
        wanted = to_layout.build().named_parameters()
    missing = {name: parameter.shape for name, parameter in wanted if name not in weights and name.endswith(".bias")}
    dtype = next(iter(weights.values())).dtype
    return dict(weights) | {name: torch.zeros(shape, dtype=dtype) for name, shape in missing.items()}


def with_halved_sinusoids(cfg: TransformerConfig, weights: ModelWeights) -> ModelWeights:
    """Return the same model with its channels reordered: those that carry sines first, then those with cosines.

    Where sines and cosines alternate, nothing else says which channel is which, so every matrix that reads or writes
    them is reordered.
    """
    found = dict(weights)
    if "output.bias" not in found:
        found["output.bias"] = torch.zeros(len(found["output.weight"]))
    if not (isinstance(cfg.position, Sinusoidal) and cfg.position.layout == "interleaved"):
        return found
    channels = torch.arange(cfg.dim)
    order = torch.cat([channels[0::2], channels[1::2]])
    done: dict[int, Tensor] = {}
    for name, value in found.items():
        part, leaf = name.rsplit(".", 1)
        last = part.rpartition(".")[2]
        if value.data_ptr() in done:
            found[name] = done[value.data_ptr()]
            continue
        if last in ("q", "k", "v", "up", "tokens", "output") and leaf == "weight" and ".mixer_residual" not in part:
            found[name] = value[:, order]
        elif last == "out" or "_residual." in name:
            found[name] = value[order]
        done[value.data_ptr()] = found[name]
    return found
