"""Where the time goes: measured beside a result, for the tables of several benchmarks. Nothing to run by itself."""

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from dragoman.model.inference.layouts import Panels
from dragoman.model.inference.native import NativeTransformer
from dragoman.model.inference.packed import PackedCross
from dragoman.native.library import Library, library, standing_in
from dragoman.text.tokens.tokenizer import EOS

ROUNDS = 5
"""Measurements of each part, of which the fastest counts."""

Kernel = Callable[..., Any]


class WrappedLibrary:
    """The kernels, each as ``wrap`` returns it for its name."""

    def __init__(self, kernels: Library, wrap: Callable[[str, Kernel], Kernel]):
        self.kernels, self.wrap = kernels, wrap

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.kernels, name)
        if callable(found):
            found = self.__dict__[name] = self.wrap(name, found)
        return found


# ---- training ---------------------------------------------------------------------------------------

KINDS = {
    "the optimizer and clipping": ("_fused_adam", "Optimizer", "linalg_vector_norm", "_foreach"),
    "products of matrices": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "_linear_pointwise",
        "NarrowLinear",
        "add_gradient",
    ),
    "attention": ("flash", "Flash", "_scaled_dot_product", "rotate", "softmax"),
    "norms, dropout and residual sums": ("Norm", "_norm", "Dropout", "dropout", "dropped", "random_"),
    "the loss": ("_InChunks", "nll_loss", "CrossEntropy", "cross_entropy", "amax"),
    "activation functions": ("Relu", "relu", "threshold", "Silu", "silu", "gelu", "clamp_min"),
    "conversions, copies and sums": ("Cast", "copy_", "_to_copy", "add_", "aten::sum", "fill_", "zero_"),
}
"""Kinds of operators and of our kernels, by parts of their names in PyTorch's profiler; the first that fits counts."""


def time_of_training(step: Callable[[], Any], steps: int = 3) -> Iterator[str]:
    """Yield a table of the kinds of operators of a training step, by PyTorch's profiler."""
    step()
    named = WrappedLibrary(library(), _named)
    with standing_in(named), profile(activities=[ProfilerActivity.CPU]) as profiled:  # pyright: ignore[reportArgumentType]
        for _ in range(steps):
            step()
    spent = Counter[str]()
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(name in event.key for name in names)), "the rest")
        spent[kind] += event.self_cpu_time_total / 1000 / steps
    yield "| what | ms | share |"
    yield "|---|---:|---:|"
    for kind in (*sorted(KINDS, key=lambda kind: -spent[kind]), "the rest"):
        yield f"| {kind} | {spent[kind]:,.1f} | {spent[kind] / spent.total():.0%} |"


def _named(name: str, kernel: Kernel) -> Kernel:
    """Return the kernel, which PyTorch's profiler sees by its name."""

    def named(*arguments: Any) -> Any:
        with record_function(name):
            return kernel(*arguments)

    return named


# ---- decoding ---------------------------------------------------------------------------------------


def kernel_seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of some work and of our kernels in it, in the fastest round."""
    rounds = []
    for _ in range(ROUNDS + 1):  # the first warms up
        inside = [0.0]
        timed = WrappedLibrary(library(), lambda name, kernel, inside=inside: _timed(kernel, inside))
        with standing_in(timed):  # pyright: ignore[reportArgumentType]
            began = time.process_time()
            work()
            rounds.append((time.process_time() - began, inside[0]))
    return min(rounds[1:])


def _timed(kernel: Kernel, inside: list[float]) -> Kernel:
    """Return the kernel, which adds its seconds to ``inside``."""

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        answer = kernel(*arguments)
        inside[0] += time.process_time() - began
        return answer

    return timed


def time_of_decoding(model: NativeTransformer, sentences: int, length: int, search: Callable[[], Any]) -> str:
    """Return where the time of a greedy search goes.

    Args:
        sentences: number of them.
        length: tokens of each source and of each answer.
        search: the search of all of them.
    """
    total, inside = kernel_seconds(search)
    seconds, operations = _products(model, sentences, length)
    choice = length * _choice(model, sentences)
    rest = inside - seconds - choice
    return (
        f"Where the time goes ({sentences} sentences, greedy, {total * 1000:.1f} ms; products and the choice timed by "
        f"themselves): products {seconds / total:.0%}, at {operations / seconds / 1e9:,.0f} billion operations a "
        f"second; the choice of the likeliest token with its log-probability {choice / total:.0%}; attention, norms, "
        f"activation functions and the rest of the kernels {rest / total:.0%}; Python and PyTorch "
        f"{1 - inside / total:.0%}."
    )


def _products(model: NativeTransformer, sentences: int, length: int) -> tuple[float, int]:
    """Return the seconds of all products with weights, and their operations."""
    assert model.native_encoder is not None
    whole = sentences * length
    once = [module.kv for module in model.decoder.modules() if isinstance(module, PackedCross)]
    work = [(layer, whole, 1) for layer in (*_panels(model.encoder), *once)]
    steps = [layer for layer in (*_panels(model.decoder), model.output) if all(layer is not other for other in once)]
    work += [(layer, sentences, length) for layer in steps]
    seconds, operations = 0.0, 0
    for layer, rows, times in work:
        N, K = layer.struct.N, layer.struct.K
        x, y = torch.randn(rows, K), torch.empty(rows, N)
        arguments = ctypes.addressof(layer.struct), x.data_ptr(), rows, y.data_ptr()
        seconds += times * _fastest(lambda arguments=arguments: library().linear(*arguments))
        operations += 2 * times * rows * N * K
    return seconds, operations


def _panels(part: torch.nn.Module) -> list[Panels]:
    return [module for module in part.modules() if type(module) is Panels]


def _choice(model: NativeTransformer, sentences: int) -> float:
    vocabulary = model.native_decoder.output_size
    logits = torch.randn(sentences, vocabulary)
    token, log_prob = torch.empty(sentences, dtype=torch.long), torch.empty(sentences)
    arguments = logits.data_ptr(), sentences, vocabulary, EOS, token.data_ptr(), log_prob.data_ptr()
    return _fastest(lambda: library().likeliest(*arguments))


def _fastest(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(ROUNDS + 1):  # the first warms up
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds[1:])
