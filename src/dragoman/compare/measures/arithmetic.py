"""Measure of quantities that follow from a formula or from a configuration alone.

L layers, H heads, G key/value heads, C channels of a head, D width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping

import torch

from dragoman.compare.figure import Figure, StudySubject
from dragoman.config import from_dict, unknown
from dragoman.errors import ConfigError
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.model.positions.rotary import Rotary
from dragoman.model.positions.tokens import Positions
from dragoman.plan.envelope import LayerActivations, cache_bytes, training_flops
from dragoman.presets import PRESETS

GB, TB = 1e9, 1e12
GPT3 = {"layers": 96, "heads": 96, "dim": 12_288, "parameters": 175_000_000_000}
"""Sizes of GPT-3 (Brown et al., arXiv:2005.14165, table 2.1)."""


def parameters(preset: str, vocab: int) -> int:
    """Return the number of parameters of a preset's model, counted on the model itself."""
    cfg = from_dict(ModelConfig, PRESETS[preset]()["model"])
    with on_meta_device():
        model = cfg.sized(vocab=vocab).build()
    return sum(p.numel() for p in model.parameters())


def block_parameters(preset: str) -> tuple[int, int]:
    """Return the parameters of an encoder block's feed-forward layers, and of the whole block."""
    cfg = from_dict(ModelConfig, PRESETS[preset]()["model"])
    with on_meta_device():
        model = cfg.sized(vocab=1000).build()
    block = model.encoder.blocks[0]
    return sum(p.numel() for p in block.mlp.parameters()), sum(p.numel() for p in block.parameters())


def rotary_error() -> float:
    """Return the largest change of a rotary score when both positions move by the same distance."""
    scheme = Rotary().build(1, 64)
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 64, dtype=torch.float64).unbind(0)

    def score(m: int, n: int) -> float:
        turned = []
        for x, at in ((q, m), (k, n)):
            here = Positions(torch.tensor([[at]]))
            turned.append(scheme.effect(here, here, torch.float64).rotate(x))
        return float((turned[0] * turned[1]).sum())

    return max(abs(score(5, 2) - score(5 + by, 2 + by)) / abs(score(5, 2)) for by in (1, 10, 100, 1000))


def noam(step: int, *, dim: int = 512, warmup: int = 4000) -> float:
    """Return the learning rate of Vaswani et al. 2017, equation 3."""
    return dim**-0.5 * min(step**-0.5, step * warmup**-1.5)


FORMULAS: dict[str, Callable[[], float]] = {
    "parameters of base (million)": lambda: parameters("transformer-base", 37_000) / 1e6,
    "parameters of big (million)": lambda: parameters("transformer-big", 37_000) / 1e6,
    "parameters of BERT base (million)": lambda: parameters("bert-base", 30_522) / 1e6,
    "base with three untied matrices of 32,000 (million)": (
        lambda: (parameters("transformer-base", 32_000) + 2 * 32_000 * 512) / 1e6
    ),
    "share of the feed-forward in an encoder block (%)": (
        lambda: 100 * block_parameters("transformer-base")[0] / block_parameters("transformer-base")[1]
    ),
    "floats a token and layer, 32 heads of 128": lambda: 2 * 32 * 128.0,
    "cache of multi-head over multi-query, 32 heads (x)": (
        lambda: (
            cache_bytes(layers=1, kv_heads=32, channels=128, tokens=1)
            / cache_bytes(layers=1, kv_heads=1, channels=128, tokens=1)
        )
    ),
    "cache of GPT-3, 64 texts of 544 tokens (GB)": (
        lambda: cache_bytes(layers=GPT3["layers"], kv_heads=96, channels=128, tokens=512 + 32, texts=64) / GB
    ),
    "weights of GPT-3 in 16 bits (GB)": lambda: 2 * GPT3["parameters"] / GB,
    "activations of GPT-3, 1 text (GB)": lambda: _gpt3_activations(1) / GB,
    "activations of GPT-3, 64 texts (TB)": lambda: _gpt3_activations(64) / TB,
    "activations of GPT-3, 128 texts (TB)": lambda: _gpt3_activations(128) / TB,
    "days for GPT-3 by 6 N D": (lambda: training_flops(GPT3["parameters"], 300e9) / (1024 * 312e12 * 0.45) / 86_400),
    "scores of 10,000 tokens (million)": lambda: 10_000**2 / 1e6,
    "scores of 4,096 over 1,024 tokens (x)": lambda: 4096**2 / 1024**2,
    "times the first token of 100 is computed again without a cache": lambda: sum(1 for _ in range(100)) - 1.0,
    "learning rate of base at step 4,000 (in 1e-4)": lambda: noam(4000) * 1e4,
    "change of a rotary score when both positions move": rotary_error,
    "shortest wavelength of sinusoids (pi)": lambda: 2.0,
    "longest wavelength of sinusoids (pi)": lambda: 2 * 10_000.0,
    "slope of ALiBi's first of 8 heads": lambda: 2 ** (-8 / 8),
    "GPU days, GNMT over base (x)": lambda: 96 * 6 / (8 * 0.5),
    "cost of GNMT over base, English-German (x)": lambda: 2.3e19 / 3.3e18,
}
"""Quantities by name, with the unit in brackets where there is one."""


def _gpt3_activations(texts: int) -> float:
    return GPT3["layers"] * LayerActivations(s=2048, b=texts, h=GPT3["dim"], a=GPT3["heads"]).stored


def formula(subject: StudySubject, *, of: str = "parameters of base (million)") -> Mapping[str, Figure]:
    """Return a quantity that follows from a formula: exact, the same for each seed.

    Raises:
        ConfigError: no such quantity.
    """
    if of not in FORMULAS:
        raise ConfigError(unknown("measures.formula.of", of, FORMULAS))
    value = float(FORMULAS[of]())
    if not math.isfinite(value):
        raise ConfigError(f"measures.formula.of: {of} is {value}")
    return {"value": Figure(value, None, signature=of, exact=True)}
