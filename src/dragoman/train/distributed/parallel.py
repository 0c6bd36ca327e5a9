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
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.moe import MixtureLayer
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

    def __init__(self):
        self.active: set[nn.Module] = set()
        """Experts that got tokens of this process in this step."""

    def place(self, model: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        _make_alike(model)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for modules in (*_blocks(model), [model]):
            fully_shard(modules, mesh=mesh)
        for module in _parts(model):
            module.set_gradient_divide_factor(1.0)  # losses are sums
            module.set_force_sum_reduction_for_comms(True)
        if hasattr(model, "hidden"):
            register_fsdp_forward_method(model, "hidden")  # what tasks call instead of forward
        for layer in _mixtures(model):
            layer.register_forward_hook(self._include_idle_experts)

    def _include_idle_experts(self, layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """Let each idle expert read no token: its gradient is 0 then. FSDP sums the gradients that a process has, and
        all processes must have the same ones."""
        assert isinstance(layer, MixtureLayer) and layer.load is not None
        if not torch.is_grad_enabled():
            return output
        none = given[0].new_empty(0, given[0].shape[-1])
        for expert, load in zip(layer.experts, layer.load.tolist(), strict=True):
            if load:
                self.active.add(expert)
            else:
                output = output + expert(none).sum().to(output.dtype)
        return output

    def all_reduce(self, model: nn.Module, sums: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Sum ``sums`` alone: FSDP has already reduced the gradients of this process's shard. An expert that got no
        token in any process keeps no gradient, as in one process."""
        experts = [expert for layer in _mixtures(model) for expert in layer.experts]
        message = torch.cat([sums.new_tensor([expert in self.active for expert in experts]), sums])
        dist.all_reduce(message)
        used, sums = message[: len(experts)].tolist(), message[len(experts) :]
        for expert, uses in zip(experts, used, strict=True):
            if not uses:
                expert.zero_grad(set_to_none=True)
        self.active.clear()
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


def _blocks(model: nn.Module) -> list[list[nn.Module]]:
    """Return the blocks of all towers; those that share parameters are in one list, because FSDP gathers them
    together."""
    found: list[list[nn.Module]] = []
    holders: dict[nn.Parameter, list[nn.Module]] = {}
    for block in (module for module in model.modules() if isinstance(module, Block)):
        parameters = list(block.parameters())
        together = next((holders[p] for p in parameters if p in holders), None)
        if together is None:
            found.append(together := [])
        together.append(block)
        holders.update(dict.fromkeys(parameters, together))
    return found


def _mixtures(model: nn.Module) -> list[MixtureLayer]:
    return [module for module in model.modules() if isinstance(module, MixtureLayer)]


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


def check(parallel: Parallel, optimizer: Any, model: Any) -> None:
    """Check that optimizer and model work with the way the model is distributed.

    Raises:
        ConfigError: an optimizer that needs whole matrices, where each process has a shard of them; or a model with
            parameters that are single numbers, which have no shards.
    """
    if not isinstance(parallel, Sharded):
        return
    if isinstance(model, TwoTowersConfig):
        raise ConfigError(
            "train.parallel: sharded cannot divide the temperature of two_towers, a single number: use replicated"
        )
    if not isinstance(optimizer, Adam | AdamW):
        other = kind_of(type(optimizer))
        raise ConfigError(
            f"train.parallel: sharded takes adam or adam_w; {other} needs whole matrices: use replicated, or "
            "train.optimizer=adam_w with a third of the peak rate"
        )
