"""Measures of untrained layers: what attention costs by length, what a cache saves, how far gradients reach, and how
scores are spread.

B batch, T length, D width, H heads, C channels of a head.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dragoman.compare.figure import Figure, FigureCurve, StudySubject
from dragoman.config import from_dict, unknown
from dragoman.errors import ConfigError
from dragoman.model.attention import Attention, AttentionConfig, AttentionContext, Kernel, explicit
from dragoman.model.caches.state import KV
from dragoman.model.families import ModelConfig
from dragoman.model.init import Xavier
from dragoman.model.interface import SequenceConfig, SequenceModel
from dragoman.model.masks.visibility import Causal
from dragoman.model.meta_device import on_meta_device
from dragoman.model.mlp import NoFeedForward
from dragoman.model.norm import Depths, RmsNorm
from dragoman.model.positions.tokens import Positions
from dragoman.model.scorer import AnyScorer
from dragoman.model.tower import BlockConfig, Mixer, Tower, TowerConfig
from dragoman.plan import shapes
from dragoman.plan.counting import count, on_shapes
from dragoman.presets import PRESETS

Places = Annotated[Sequence[PositiveInt], Field(min_length=1)]
"""Lengths, distances or widths at which something is measured."""
REPEATS = 3
"""Measurements of a time, of which the median is taken."""

# ---- attention by length ----------------------------------------------------------------------------


def attention_cost(
    subject: StudySubject,
    *,
    mixer: Mapping[str, Any] | str = "attention",
    lengths: Places = (256, 512, 1024, 2048),
    dim: PositiveInt = 128,
    heads: PositiveInt = 4,
    trains: bool = False,
    written_out: bool = False,
) -> Mapping[str, Figure]:
    """Return time, memory and error of one layer against exact attention, by length.

    Args:
        subject: gives the seed of weights and inputs.
        mixer: configuration of the layer; ``heads`` is filled in.
        lengths: lengths in tokens.
        dim: width D.
        heads: number of heads H.
        trains: time forward and backward pass instead of the forward pass alone.
        written_out: compute attention as the paper writes it, with a matrix of all scores, instead of in one kernel.
    """
    exact = AttentionConfig(heads=heads, visibility=Causal())
    other = _mixer(mixer, heads)
    rows = []
    for length in lengths:
        torch.manual_seed(subject.seed)
        layers = [_tower(cfg, dim) for cfg in (exact, other)]
        _share_projections(*layers)
        if written_out:
            _write_out(layers[1])
        x = torch.randn(1, length, dim)
        outputs = [_run(layer, x, trains=False) for layer in layers]
        error = float((outputs[1] - outputs[0]).norm() / outputs[0].norm())
        seconds = [_median(lambda layer=layer, x=x: _run(layer, x, trains=trains)) for layer in layers]
        memory = [_peak(exact, dim, length), _peak(other, dim, length, written_out=written_out)]
        rows.append((error, seconds[0] / seconds[1], memory[1] / memory[0], seconds[1] * 1000, memory[1] / 2**20))
    error, faster, smaller, times, sizes = (tuple(column) for column in zip(*rows, strict=True))
    x_axis = tuple(map(float, lengths))
    crossover = next((float(n) for n, ratio in zip(lengths, faster, strict=True) if ratio > 1), math.inf)
    what = f"one layer, width {dim}, {heads} heads, causal, one thread pool of torch"
    return {
        "speed against exact": Figure(faster[-1], True, "x", what, FigureCurve("tokens", x_axis, faster)),
        "memory against exact": Figure(
            smaller[-1],
            False,
            "x",
            "counted, forward and backward",
            FigureCurve("tokens", x_axis, smaller),
            exact=True,
        ),
        "difference from exact": Figure(
            error[-1],
            None,
            "",
            "|y - exact| / |exact| with the same projections, untrained",
            FigureCurve("tokens", x_axis, error),
        ),
        "milliseconds": Figure(times[-1], False, "ms", what, FigureCurve("tokens", x_axis, times)),
        "megabytes": Figure(sizes[-1], False, "MB", "counted", FigureCurve("tokens", x_axis, sizes), exact=True),
        "faster from": Figure(
            crossover if math.isfinite(crossover) else 2.0 * lengths[-1],
            False,
            "tokens",
            f"first of {', '.join(map(str, lengths))} where it is faster; {2 * lengths[-1]} where none is",
        ),
    }


def _mixer(given: Mapping[str, Any] | str, heads: int) -> Any:
    plain = {"kind": given} if isinstance(given, str) else dict(given)
    if plain.get("kind") == "attention":
        plain.setdefault("visibility", "causal")
    try:
        return from_dict(Mixer, plain | {"heads": heads}, where="measures.attention_cost.mixer")
    except ConfigError:
        return from_dict(Mixer, plain, where="measures.attention_cost.mixer")


def _tower(mixer: Any, dim: int) -> Tower:
    block = BlockConfig(mixer=mixer, mlp=NoFeedForward(), norm=RmsNorm())
    return Tower(TowerConfig(depth=1, pattern=(block,)), dim, Depths(0, 1), Xavier(), is_encoder=False)


def _run(layer: Tower, x: Tensor, *, trains: bool) -> Tensor:
    positions = Positions(torch.arange(x.shape[1], device=x.device)[None])
    layer.train(trains)
    if trains:
        y = layer.read(x.clone().requires_grad_(), positions)
        y.sum().backward()
        return y
    with torch.inference_mode():
        return layer.read(x, positions)


def _median(run: Callable[[], Any]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _share_projections(one: Tower, other: Tower) -> None:
    """Give the second layer the weights of the first where it has such."""
    own, theirs = other.state_dict(), one.state_dict()
    alike = {name: tensor for name, tensor in theirs.items() if name in own and own[name].shape == tensor.shape}
    other.load_state_dict(own | alike)


def _write_out(tower: Tower) -> None:
    for layer in tower.modules():
        if isinstance(layer, Attention):
            layer.kernel = _always_explicit


def _always_explicit(q: Tensor, kv: KV, context: AttentionContext) -> Kernel:
    return explicit


def _peak(mixer: Any, dim: int, length: int, *, written_out: bool = False) -> int:
    """Return the bytes that a forward and backward pass holds at once, counted on shapes."""
    with on_meta_device():
        layer = _tower(mixer, dim)
    if written_out:
        _write_out(layer)
    with on_shapes(torch.device("cpu")):
        shapes.without_values(layer, torch.device("cpu"))
        x = torch.empty(1, length, dim, requires_grad=True)
        positions = Positions(torch.arange(length)[None])
        layer.train()
        return count(lambda: layer.read(x, positions).sum().backward(), layer).peak_bytes


# ---- decoding with and without a cache ---------------------------------------------------------------


def cache_speed(
    subject: StudySubject,
    *,
    tokens: Places = (64, 128, 256),
    preset: str = "lm-tiny",
    dim: PositiveInt | None = None,
    kv_heads: PositiveInt | None = None,
    vocab: Annotated[int, Field(gt=3)] = 1000,
) -> Mapping[str, Figure]:
    """Return how much faster a language model writes with a key/value cache than without, by number of tokens.

    Without a cache the whole text is read again for every token.

    Args:
        subject: gives the seed of the weights.
        tokens: numbers of tokens to write.
        preset: model that writes; weights are random, since the values do not change the time.
        dim: width; None for the preset's.
        kv_heads: number of key/value heads; None for as many as there are heads.
        vocab: size of the vocabulary.
    """
    model = _written_model(preset, dim, kv_heads, vocab, subject.seed)
    prompt = torch.randint(3, vocab, (1, 1), generator=torch.Generator().manual_seed(subject.seed))
    rows = []
    for amount in tokens:
        start = time.perf_counter()
        cached = _write(model, prompt, amount, cached=True)
        middle = time.perf_counter()
        plain = _write(model, prompt, amount, cached=False)
        end = time.perf_counter()
        same = float((cached[0] - plain[0]).abs().max())
        rows.append(((end - middle) / (middle - start), 100 * (1 - (middle - start) / (end - middle)), same))
    faster, saved, different = (tuple(column) for column in zip(*rows, strict=True))
    axis = tuple(map(float, tokens))
    return {
        "speed-up": Figure(faster[-1], True, "x", "greedy, one text", FigureCurve("tokens written", axis, faster)),
        "time saved": Figure(saved[-1], True, "%", "greedy, one text", FigureCurve("tokens written", axis, saved)),
        "largest difference of logits": Figure(max(different), False),
        "first token computed without a cache": Figure(
            float(tokens[-1]), None, "times", "once for each token written", exact=True
        ),
    }


def _written_model(preset: str, dim: int | None, kv_heads: int | None, vocab: int, seed: int) -> SequenceModel:
    if preset not in PRESETS:
        raise ConfigError(unknown("measures.cache_speed.preset", preset, PRESETS))
    plain = PRESETS[preset]()["model"]
    if dim is not None:
        plain["dim"] = dim
    for block in plain["decoder"].get("pattern", ()):
        if kv_heads is not None:
            block["mixer"]["kv_heads"] = kv_heads
    cfg = from_dict(ModelConfig, plain)
    if not isinstance(cfg, SequenceConfig):
        raise ConfigError(f"measures.cache_speed.preset: {preset} writes no text")
    torch.manual_seed(seed)
    return cfg.sized(vocab=vocab).build().eval()


@torch.inference_mode()
def _write(model: SequenceModel, prompt: Tensor, amount: int, *, cached: bool) -> tuple[Tensor, Tensor]:
    """Return the last logits and the tokens of greedy search."""
    state, ids = model.start(None), prompt
    logits = model.decode(ids, state)[:, -1]
    for _ in range(amount - 1):
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        logits = model.decode(ids[:, -1:], state)[:, -1] if cached else model(ids)[:, -1]
    return logits, ids


# ---- how far gradients reach --------------------------------------------------------------------------

_FAMILIES: dict[str, str] = {
    "rnn": "rnn",
    "gru": "gru",
    "lstm": "lstm-lm-small",
    "transformer": "lm-tiny",
    "mamba": "mamba-small",
}


def gradient_reach(
    subject: StudySubject,
    *,
    family: str = "transformer",
    distances: Places = (1, 2, 5, 10, 20, 30, 50, 100),
    dim: PositiveInt = 64,
    depth: PositiveInt = 1,
    texts: PositiveInt = 8,
) -> Mapping[str, Figure]:
    """Return the gradient of an output with respect to inputs at a distance, relative to the nearest one, before
    training.

    Args:
        subject: gives the seed of weights and texts.
        family: ``rnn``, ``gru``, ``lstm``, ``transformer`` or ``mamba``.
        distances: distances in tokens.
        dim: width D.
        depth: number of layers.
        texts: number of random texts that are averaged over.
    """
    vocab, length = 64, max(distances) + 1
    torch.manual_seed(subject.seed)
    model = _of_family(family, dim, depth).sized(vocab=vocab).build().eval()
    seen: list[Tensor] = []
    table = next(module for module in model.modules() if isinstance(module, nn.Embedding))

    def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = table.register_forward_hook(keep)
    ids = torch.randint(3, vocab, (texts, length))
    last = model.hidden(ids)[:, -1]
    handle.remove()
    (gradient,) = torch.autograd.grad((last * torch.randn_like(last)).sum(), seen[0])
    norms = gradient.norm(dim=-1).mean(dim=0)  # (T,)
    kept = tuple(float(norms[length - 1 - d] / norms[length - 2]) for d in distances)
    return {
        "gradient left": Figure(
            kept[-1],
            True,
            "",
            "|d last output / d input| relative to a distance of 1, before training",
            FigureCurve("distance in tokens", tuple(map(float, distances)), kept),
        )
    }


def _of_family(family: str, dim: int, depth: int) -> SequenceConfig:
    if family not in _FAMILIES:
        raise ConfigError(f"measures.gradient_reach.family: {family!r} is none of {', '.join(_FAMILIES)}")
    plain = PRESETS[_FAMILIES[family]]()["model"]
    plain |= {"dim": dim, "encoder": None, "dropout": 0.0}
    decoder = plain["decoder"]
    decoder |= {"depth": depth} | ({"dropout": 0.0} if "dropout" in decoder else {})
    if family in ("rnn", "gru"):
        plain |= {"attention": "no_source_attention", "bridge": "no_bridge"}
    for block in decoder.get("pattern", ()):
        block["dropout"] = 0.0
    cfg = from_dict(ModelConfig, plain)
    assert isinstance(cfg, SequenceConfig), "all of these write"
    return cfg


# ---- scores before training -----------------------------------------------------------------------------


def score_spread(
    subject: StudySubject,
    *,
    scorer: Mapping[str, Any] | str = "scaled_dot",
    channels: Places = (16, 64, 256, 1024),
    keys: PositiveInt = 64,
) -> Mapping[str, Figure]:
    """Return the variance of attention scores of random queries and keys, and how saturated their softmax is.

    Args:
        subject: gives the seed.
        scorer: configuration of the scorer.
        channels: channels of a head C.
        keys: number of keys.
    """
    cfg: Any = from_dict(AnyScorer, {"kind": scorer} if isinstance(scorer, str) else dict(scorer))
    rows = []
    for width in channels:
        torch.manual_seed(subject.seed)
        layer = cfg.build(1, width)
        q, k = torch.randn(1, 1, 256, width), torch.randn(1, 1, keys, width)
        scores = layer.scores(layer.project(q), k).detach()
        weights = scores.softmax(dim=-1)
        slope = (weights * (1 - weights)).sum(-1).mean()  # trace of the softmax's Jacobian
        rows.append((float(scores.var()), float(slope)))
    variance, slope = (tuple(column) for column in zip(*rows, strict=True))
    axis = tuple(map(float, channels))
    return {
        "variance of scores": Figure(
            variance[-1], None, "", "queries and keys of variance 1", FigureCurve("channels of a head", axis, variance)
        ),
        "slope of the softmax": Figure(
            slope[-1], True, "", f"sum of p (1 - p) over {keys} keys", FigureCurve("channels of a head", axis, slope)
        ),
    }
