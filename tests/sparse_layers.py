"""Rows of tokens in every arrangement, and a sparse layer run over them by blocks and with its mask."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from variants import D

from dragoman.model.caches.state import VisibleKeys, stateless
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions, Tokens, positions_of


def plain(length: int) -> Positions:
    return Positions(torch.arange(length)[None])


def arrangements(length: int) -> Iterator[tuple[str, Positions]]:
    """Two rows: alone, padded behind, in front and in the middle, packed, and packed and padded."""

    def placed(keep: Tensor | None = None, segment: Tensor | None = None) -> Positions:
        return positions_of(Tokens(torch.ones(2, length, dtype=torch.long), keep, segment))

    behind = torch.arange(length) < torch.tensor([[length - 3], [length]])
    scattered = torch.rand(2, length) > 0.3
    packed = (torch.rand(2, length) > 0.85).long().cumsum(1)
    yield "alone", plain(length)
    yield "padded behind", placed(behind)
    yield "padded in front", placed(behind.flip(1))
    yield "padded in the middle", placed(scattered)
    yield "packed", placed(segment=packed)
    yield "packed and padded", placed(behind, packed * 7 % 97)


def context(layer: MixerLayer, places: Positions, scheme: RelativeScheme) -> Any:
    seen = VisibleKeys(places, None, layer.visibility)
    return layer.context(places, seen, scheme, places.keep, torch.float64)


def mixed(layer: MixerLayer, x: Tensor, places: Positions, scheme: RelativeScheme | None = None) -> Tensor:
    """Run the layer over whole texts, by blocks where it does so."""
    return layer(x, context(layer, places, scheme or RelativeScheme()), layer.new_state(stateless))


def by_mask(layer: Any, x: Tensor, places: Positions, scheme: RelativeScheme | None = None) -> Tensor:
    """Run the layer with its pattern as a mask: as it does where someone listens to the weights."""
    handle = layer.weights.register_forward_hook(lambda *_: None)
    found = mixed(layer, x, places, scheme)
    handle.remove()
    return found


def weights_of(layer: Any, x: Tensor, places: Positions, scheme: RelativeScheme | None = None) -> Tensor:
    """Return the attention weights (B, H, T, T)."""
    seen = []
    handle = layer.weights.register_forward_hook(lambda module, given, out: seen.append(out))
    mixed(layer, x, places, scheme)
    handle.remove()
    return seen[-1]


def assert_blocks_equal_mask(cfg: MixerConfig, length: int) -> None:
    """Outputs and all gradients agree, for every arrangement of rows."""
    layer, scheme = cfg.build(D).double(), cfg.build_position(D).double()
    inputs = torch.randn(2, length, D, dtype=torch.float64, requires_grad=True)
    wanted = [inputs, *layer.parameters(), *scheme.parameters()]
    for name, places in arrangements(length):
        real = torch.ones(2, length, 1) if places.keep is None else places.keep[..., None]
        found = []
        for run in (mixed, by_mask):
            y = run(layer, inputs, places, scheme) * real
            gradients = torch.autograd.grad((y * torch.arange(D)).sum(), wanted, allow_unused=True)
            found.append((y, [torch.zeros(()) if g is None else g for g in gradients]))
        (y, gradients), (y_by_mask, gradients_by_mask) = found
        assert (y - y_by_mask).abs().max() < 1e-9, name
        assert all((a - b).abs().max() < 1e-8 for a, b in zip(gradients, gradients_by_mask, strict=True)), name
