"""Runs one mixer by itself, for the tests of each."""

from typing import Any

import torch
from torch import Tensor, nn

from dragoman.model.caches.cache import DEFAULT
from dragoman.model.caches.state import VisibleKeys, stateless
from dragoman.model.mixer import MixerConfig, MixerLayer
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions, Tokens, positions_of


def shaken(cfg: MixerConfig, dim: int, dtype: torch.dtype = torch.float64, std: float = 0.3) -> Any:
    """The layer, in evaluation mode, with no parameter at its initial value."""
    layer = cfg.build(dim).to(dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += std * torch.randn_like(parameter)
    return layer


def mixed(layer: MixerLayer, x: Tensor, tokens: Tokens | None = None, scheme: nn.Module | None = None) -> Tensor:
    """What the layer makes of whole rows, which ``tokens`` describe: by default each is one text."""
    positions = positions_of(tokens or Tokens(torch.ones(len(x), x.shape[1]).long()))
    return layer(x, context_of(layer, positions, scheme), layer.new_state(stateless))


def context_of(layer: MixerLayer, positions: Positions, scheme: nn.Module | None = None) -> Any:
    seen = VisibleKeys(positions, None, layer.visibility)
    return layer.context(positions, seen, scheme or RelativeScheme(), positions.keep, torch.float64)


def stepwise(layer: MixerLayer, x: Tensor, pieces: list[int], scheme: nn.Module | None = None) -> Tensor:
    """The same, read in pieces of so many tokens."""
    state, found, past = layer.new_state(DEFAULT), [], 0
    for piece in x.split(pieces, dim=1):
        positions = Positions(torch.arange(past + piece.shape[1])[None])
        newest = positions.select_columns(slice(past, None))
        seen = VisibleKeys(positions, None, layer.visibility)
        context = layer.context(newest, seen, scheme or RelativeScheme(), None, torch.float64)
        found.append(layer(piece, context, state))
        past += piece.shape[1]
    return torch.cat(found, dim=1)


def padded_and_packed() -> tuple[Tokens, list[tuple[int, list[int]]]]:
    """Rows with padding in front, behind and in the middle, and with several texts; and the columns of each text."""
    keep = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0, 0]]).bool()
    segment = torch.tensor([[4, 4, 4, 4, 4, 4, 4, 4, 4], [1, 1, 1, 2, 2, 2, 2, 1, 1], [3, 3, 3, 3, 5, 5, 5, 5, 5]])
    texts = [(0, [1, 2, 5, 6, 7]), (1, [0, 1, 2]), (1, [3, 4, 5, 6]), (1, [7, 8]), (2, [2, 3]), (2, [4, 5, 6])]
    return Tokens(torch.ones(3, 9).long(), keep, segment), texts


def assert_close_in_bfloat16(layer: MixerLayer, x: Tensor, tolerance: float = 2e-2) -> None:
    """Outputs and gradients of training in bfloat16 are numbers, and as those of float32 but for rounding."""
    found = []
    for narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            y = mixed(layer, x).float()
        gradients = torch.autograd.grad(y.square().mean(), list(layer.parameters()))
        found.append((y, torch.cat([gradient.flatten() for gradient in gradients])))
    for exact, rounded in zip(*found, strict=True):
        assert rounded.isfinite().all()
        assert (rounded - exact).square().mean() <= tolerance * exact.square().mean()
