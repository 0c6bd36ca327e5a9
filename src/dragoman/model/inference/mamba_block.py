"""Blocks of Mamba and Mamba-2 packed for inference: one call of a kernel in C (``native/state_space.c``) for a token,
from the norm to the residual sum. Their slow twin is the block itself, which does everything else.

B batch, D width.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeGuard, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dragoman.model.attention import Attention, AttentionContext
from dragoman.model.caches.state import KV
from dragoman.model.dropout import Dropout
from dragoman.model.exact import has_hooks, is_exactly, is_plain
from dragoman.model.inference.layouts import Panels, built_once
from dragoman.model.inference.packed_mamba import PackedMamba, PackedMamba2, is_single
from dragoman.model.norm import NoResidual, Residual, RmsNormLayer, ZeroCenteredRmsNormLayer
from dragoman.model.ops.elementwise import REGISTER, kernel_library
from dragoman.model.recurrence import ConvolvedState, Recurrence
from dragoman.model.tower import Block


class InputProjectionStruct(ctypes.Structure):
    """``InputProjection`` of native/state_space.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("inputs", "norm")),
        *((name, ctypes.c_int64) for name in ("D", "A")),
        ("eps", ctypes.c_double),
    ]


class MambaBlock(Block):
    """Block of nothing but Mamba or Mamba-2, with a kernel for single tokens."""

    mixer: PackedMamba | PackedMamba2

    def __init__(self, whole: Block):
        nn.Module.__init__(self)
        self.mixer = cast(PackedMamba | PackedMamba2, whole.mixer)
        self.mixer_residual, self.mlp = whole.mixer_residual, whole.mlp
        self.mlp_residual = whole.mlp_residual

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Any,
        state: Any,
        real: Bool[Tensor, "B T"] | None = None,
        across: AttentionContext | None = None,
        source: Callable[[Attention], KV] | None = None,
    ) -> Float[Tensor, "B T D"]:
        if not self.knows(x, context, state):
            return super().forward(x, context, state, real, across, source)
        projection = built_once(self, "projection", self.build_projection)
        rows, mixer = len(x), self.mixer
        past, (first, *_) = state.inputs.past, state.summary.value
        window = past.new_empty(rows, past.shape[1] + 1, past.shape[2])
        y, first, last = torch.empty_like(x), first.contiguous(), torch.empty_like(first)
        self.kernel(
            ctypes.addressof(projection), ctypes.addressof(mixer.struct), x.data_ptr(), rows, past.data_ptr(),
            first.data_ptr(), window.data_ptr(), last.data_ptr(), y.data_ptr(),
        )  # fmt: skip
        state.inputs.replace(window, context.neighbours.retained)
        state.summary.value = (last,)
        return y

    def knows(self, x: Float[Tensor, "B T D"], context: Recurrence, state: ConvolvedState) -> bool:
        """Return whether the kernel can read ``x``: one token of every row, with the tokens before it in order."""
        mixer, past = self.mixer, state.inputs.past
        return (
            past is not None
            and past.shape[1] == mixer.cfg.kernel - 1
            and context.neighbours.column is None
            and is_single(x, context, state)
            and x.is_contiguous()
            and past.is_contiguous()
            and x.shape[2] % REGISTER == 0
            and mixer.has_kernel()
            and not any(map(has_hooks, (mixer, self.mixer_residual, self.mixer_residual.before)))
        )

    @property
    def kernel(self) -> Callable[..., None]:
        return kernel_library().mamba_block if isinstance(self.mixer, PackedMamba) else kernel_library().mamba2_block

    def build_projection(self) -> InputProjectionStruct:
        """Write down where the weights are; valid while this block exists."""
        mixer, norm = self.mixer, cast(RmsNormLayer, self.mixer_residual.before)
        _ = mixer.struct  # what it keeps alive begins with it
        inputs = cast(Panels, mixer.inputs)
        return InputProjectionStruct(
            inputs=ctypes.addressof(inputs.struct),
            norm=mixer.pointer(norm.scale),
            D=inputs.in_features,
            A=inputs.out_features,
            eps=norm.eps,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "projection"}


def is_mamba_block(block: nn.Module) -> TypeGuard[Block]:
    """Return whether ``block`` is x + mixer(norm(x)) with a packed Mamba or Mamba-2, and nothing else."""
    if not is_exactly(block, Block) or not is_exactly(block.mixer, PackedMamba, PackedMamba2):
        return False
    residual = block.mixer_residual
    return (
        is_exactly(block.mlp_residual, NoResidual)
        and "cross" not in block._modules
        and is_exactly(residual, Residual)
        and is_exactly(residual.before, RmsNormLayer, ZeroCenteredRmsNormLayer)
        and is_exactly(residual.output, nn.Identity)
        and is_exactly(residual.after, nn.Identity)
        and is_plain(residual.dropout, Dropout)
        and residual.residual_scale == 1
    )
