"""Mamba and Mamba-2 packed for inference: one call of a kernel in C (``native/state_space.c``) for a token, from the
convolution to the output. Their slow twins are the layers themselves, which read several tokens at once, and any single
one that the kernel does not know: padding, the beginning of another text, states that can be taken back.

B batch, D width, E inner channels, L cached and newest tokens, K tokens of the convolution, C of its channels.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.model.depthwise import DepthwiseConvolution, Neighbours
from dragoman.model.exact import is_plain
from dragoman.model.inference.layouts import Panels, built_once
from dragoman.model.mamba import MambaLayer
from dragoman.model.mamba2 import GatedGroupNorm, Mamba2Layer
from dragoman.model.ops.elementwise import REGISTER, kernel_library
from dragoman.model.recurrence import ConvolvedState, Recurrence

LinearLayout = Callable[[Sequence[nn.Linear]], nn.Module]


class MambaWeightsStruct(ctypes.Structure):
    """``MambaWeights`` of native/state_space.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("selection", "step", "out", "convolution", "bias")),
        *((name, ctypes.c_void_p) for name in ("step_bias", "skip", "rates")),
        *((name, ctypes.c_int64) for name in ("E", "N", "R", "K")),
    ]


class Mamba2WeightsStruct(ctypes.Structure):
    """``Mamba2Weights`` of native/state_space.c."""

    __slots__ = ()
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("out", "convolution", "bias", "step_bias", "skip", "rates", "norm")),
        *((name, ctypes.c_int64) for name in ("E", "N", "K", "C", "H", "G", "norm_before_gate")),
        *((name, ctypes.c_double) for name in ("eps", "smallest", "largest")),
    ]


class PackedStep(nn.Module):
    """Weights of one layer, as the kernels read them."""

    kept_alive: list[Tensor]
    """Tensors that the struct points to, and no module holds."""

    def pointer(self, weights: Tensor) -> int:
        """Return the address of these numbers in float32, and keep them alive."""
        kept = weights.detach().float().contiguous()
        self.kept_alive.append(kept)
        return kept.data_ptr()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("struct", "kept_alive")}

    def convolution_pointers(self, convolution: DepthwiseConvolution) -> dict[str, int | None]:
        bias = convolution.bias
        return {
            "convolution": self.pointer(convolution.weight[:, 0].t()),
            "bias": None if bias is None else self.pointer(bias),
        }


class PackedMamba(PackedStep, MambaLayer):
    """Mamba with a kernel for single tokens."""

    def __init__(self, whole: MambaLayer, layout: LinearLayout):
        nn.Module.__init__(self)
        self.cfg, self.visibility, self.sizes = whole.cfg, whole.visibility, whole.sizes
        self.convolution, self.step_bias, self.skip, self.a_log = (
            whole.convolution,
            whole.step_bias,
            whole.skip,
            whole.a_log,
        )
        self.inputs, self.selection = layout([whole.inputs]), layout([whole.selection])
        self.step, self.out = layout([whole.step]), layout([whole.out])

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> Float[Tensor, "B T D"]:
        if not is_single(x, context, state) or not self.has_kernel():
            return super().forward(x, context, state)
        both = self.inputs(x)
        E = self.struct.E
        window = windows(state.extend(both[..., :E], context), context.neighbours, self.cfg.kernel)
        assert state.summary.value is not None
        first, y = state.summary.value[0].contiguous(), x.new_empty(x.shape)
        last = torch.empty_like(first)
        kernel_library().mamba_step(
            ctypes.addressof(self.struct), window.data_ptr(), both.data_ptr() + 4 * E, 2 * E, first.data_ptr(), len(x),
            last.data_ptr(), y.data_ptr(),
        )  # fmt: skip
        state.summary.value = (last,)
        return y

    def has_kernel(self) -> bool:
        """Return whether the kernel knows these weights."""
        layers = (self.inputs, self.selection, self.step, self.out)
        return are_known(layers, self.convolution, self.a_log.shape[0])

    @property
    def struct(self) -> MambaWeightsStruct:
        """Addresses for the kernels, valid while this layer exists."""
        return built_once(self, "struct", self.build_struct)

    def build_struct(self) -> MambaWeightsStruct:
        self.kept_alive = []
        E, N = self.a_log.shape
        linear = {name: ctypes.addressof(getattr(self, name).struct) for name in ("selection", "step", "out")}
        return MambaWeightsStruct(
            **linear,
            **self.convolution_pointers(self.convolution),
            step_bias=self.pointer(self.step_bias),
            skip=self.pointer(self.skip),
            rates=self.pointer(-self.a_log.t().exp()),
            E=E,
            N=N,
            R=self.sizes[0],
            K=self.cfg.kernel,
        )


class PackedMamba2(PackedStep, Mamba2Layer):
    """Mamba-2 with a kernel for single tokens."""

    def __init__(self, whole: Mamba2Layer, layout: LinearLayout):
        nn.Module.__init__(self)
        self.cfg, self.visibility, self.sizes, self.parts = whole.cfg, whole.visibility, whole.sizes, whole.parts
        self.convolution, self.step_bias, self.skip, self.a_log, self.norm = (
            whole.convolution,
            whole.step_bias,
            whole.skip,
            whole.a_log,
            whole.norm,
        )
        self.inputs, self.out = layout([whole.inputs]), layout([whole.out])

    def forward(self, x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> Float[Tensor, "B T D"]:
        if not is_single(x, context, state) or not self.has_kernel():
            return super().forward(x, context, state)
        every = self.inputs(x)
        E, C, _ = self.sizes
        window = windows(state.extend(every[..., E : E + C], context), context.neighbours, self.cfg.kernel)
        assert state.summary.value is not None
        first, y, address = state.summary.value[0].contiguous(), x.new_empty(x.shape), every.data_ptr()
        last = torch.empty_like(first)
        kernel_library().mamba2_step(
            ctypes.addressof(self.struct), window.data_ptr(), address, address + 4 * (E + C), every.shape[2],
            first.data_ptr(), len(x), last.data_ptr(), y.data_ptr(),
        )  # fmt: skip
        state.summary.value = (last,)
        return y

    def has_kernel(self) -> bool:
        """Return whether the kernel knows these weights."""
        known = are_known((self.inputs, self.out), self.convolution, *self.parts, self.cfg.state)
        return known and is_plain(self.norm, GatedGroupNorm)

    @property
    def struct(self) -> Mamba2WeightsStruct:
        """Addresses for the kernels, valid while this layer exists."""
        return built_once(self, "struct", self.build_struct)

    def build_struct(self) -> Mamba2WeightsStruct:
        self.kept_alive = []
        E, C, H = self.sizes
        assert isinstance(self.out, Panels)
        return Mamba2WeightsStruct(
            out=ctypes.addressof(cast(Panels, self.out).struct),
            **self.convolution_pointers(self.convolution),
            step_bias=self.pointer(self.step_bias),
            skip=self.pointer(self.skip),
            rates=self.pointer(-self.a_log.exp()),
            norm=self.pointer(self.norm.weight),
            E=E,
            N=self.cfg.state,
            K=self.cfg.kernel,
            C=C,
            H=H,
            G=self.cfg.groups,
            norm_before_gate=int(self.cfg.norm_before_gate),
            eps=self.cfg.norm_eps,
            smallest=self.cfg.smallest_step,
            largest=math.inf if self.cfg.largest_step is None else self.cfg.largest_step,
        )


def is_single(x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> bool:
    """Return whether this is one real token for every row, which goes on in its text from a state."""
    alone = x.shape[1] == 1 and context.real is None and context.starts is None
    summary = state.summary
    ready = summary.remembers and summary.value is not None and not summary.rewindable
    return alone and ready and x.dtype == torch.float32 and not torch.is_grad_enabled()


def are_known(layers: Sequence[nn.Module], convolution: DepthwiseConvolution, *sizes: int) -> bool:
    """Return whether the kernels can compute these layers, and ``sizes`` fill whole registers."""
    packed = all(is_plain(layer, Panels) for layer in layers) and is_plain(convolution, DepthwiseConvolution)
    return packed and not any(size % REGISTER for size in sizes)


def windows(seen: Float[Tensor, "B L C"], neighbours: Neighbours, kernel: int) -> Float[Tensor, "B K C"]:
    """Return the last ``kernel`` tokens of each row's text, zeros before its beginning, adjacent in memory."""
    if neighbours.column is None:
        missing = kernel - seen.shape[1]
        return (F.pad(seen, (0, 0, missing, 0)) if missing > 0 else seen[:, -kernel:]).contiguous()
    return torch.cat([neighbours.shifted(seen, back) for back in range(kernel - 1, -1, -1)], dim=1)
