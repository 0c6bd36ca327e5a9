"""Data-parallel training: replicated, with a whole model in each process, or sharded, with a part of it.

What a step learns from depends on the step alone, not on the number of processes: each takes its part of it. Gradients
and counts are summed and divided once, so one process and many learn the same, except for rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.config import OneOf, config, kind_of
from dragoman.errors import ConfigError
from dragoman.model.tower import Block
from dragoman.train.distributed.exchange import Exchange
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.optimize import Adam, AdamW

# ---- a whole model each ---------------------------------------------------------------------------


class ReplicatedExchange(Exchange):
    """Exchange where every process has all weights and makes the same update from the same gradient."""

    def place(self, model: nn.Module, device: torch.device) -> None:
        _make_alike(model)
        super().place(model, device)

    def all_reduce(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Sum everything in one message. A parameter that no process has used keeps no gradient, as in one process."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        used = sums.new_tensor([p.grad is not None for p in parameters])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        message = torch.cat([t.flatten() for t in (*gradients, used, sums)])
        dist.all_reduce(message)
        *parts, used, sums = message.split([p.numel() for p in parameters] + [len(used), len(sums)])
        for p, gradient, uses in zip(parameters, parts, used.tolist(), strict=True):
            p.grad = gradient.view_as(p).to(p.dtype) if uses else None
        return sums


def _make_alike(model: nn.Module) -> None:
    """Broadcast the first process's weights, so that all start equal to the bit whatever they drew or read."""
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)


# ---- a share each ---------------------------------------------------------------------------------


class ShardedExchange(Exchange):
    """Exchange where every process keeps a shard of each tensor, its gradient and optimizer state; a block's weights
    are gathered while it computes (FSDP2)."""

    complete = False

    def place(self, model: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        _make_alike(model)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for module in [*(m for m in model.modules() if isinstance(m, Block)), model]:
            fully_shard(module, mesh=mesh)
        for module in _parts(model):
            module.set_gradient_divide_factor(1.0)  # losses are sums
            module.set_force_sum_reduction_for_comms(True)
        if hasattr(model, "hidden"):
            register_fsdp_forward_method(model, "hidden")  # what tasks call instead of forward

    def all_reduce(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Sum ``sums`` alone: FSDP has already reduced the gradients of this process's shard."""
        dist.all_reduce(sums)
        return sums

    def norm(self, gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
        return _whole(super().norm(gradients))

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        parts = _parts(model)
        for part in parts:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(part is not model, recurse=False)

    def full(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parameters = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
        made: dict[Any, Tensor] = {}
        for name, tensor in tensors.items():
            key = parameters.get(name, name)  # tied weights are put together once
            if key not in made:
                made[key] = _whole(tensor).cpu()
        return {name: made[parameters.get(name, name)] for name in tensors}

    def share(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from torch.distributed.tensor import DTensor, distribute_tensor

        parameters = dict(model.named_parameters(remove_duplicate=False))

        def mine(name: str, tensor: Tensor) -> Tensor:
            p = parameters.get(name.partition(":")[0])
            if not isinstance(p, DTensor) or p.shape != tensor.shape:
                return tensor
            return distribute_tensor(tensor.to(p.device), p.device_mesh, p.placements, src_data_rank=None)

        return {name: mine(name, tensor) for name, tensor in tensors.items()}


def _parts(model: nn.Module) -> list[Any]:
    """Return the modules that are gathered and resharded as one: each block, and the rest of the model."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _whole(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# ---- the choices ----------------------------------------------------------------------------------


@config
class Replicated:
    """Each process has the whole model; gradients are summed at the end of the step."""

    def build(self, group: SingleProcess) -> Exchange:
        return ReplicatedExchange() if group.count > 1 else Exchange()


@config
class Sharded:
    """Each process keeps its shard of weights, gradients and optimizer: for models that fill a GPU's memory (fully
    sharded data parallel training, Zhao et al., arXiv:2304.11277). With adam or adamw."""

    def build(self, group: SingleProcess) -> Exchange:
        return ShardedExchange() if group.count > 1 else Exchange()


Parallel = Annotated[Replicated | Sharded, OneOf()]
"""Distribution of the model over several processes; see ``dragoman train --processes``. A single one has all of it."""


def check(parallel: Parallel, optimizer: Any) -> None:
    """Check that the optimizer works with the way the model is distributed.

    Raises:
        ConfigError: an optimizer that needs whole matrices, where each process has a shard of them.
    """
    if isinstance(parallel, Sharded) and not isinstance(optimizer, Adam | AdamW):
        other = kind_of(type(optimizer))
        raise ConfigError(
            f"train.parallel: sharded takes adam or adam_w; {other} needs whole matrices: use replicated, or "
            "train.optimizer=adam_w with a third of the peak rate"
        )
