"""Optimizers as configuration, and their state as named tensors for the checkpoint.

The learning rate belongs to the schedule; the loop sets it in every parameter group before each step.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.errors import CheckpointError
from dragoman.model.parts import ENDS, parts_of_parameters
from dragoman.train.muon import MuonOptimizer

# ---- which parameters ----------------------------------------------------------------------------


def decaying(model: nn.Module, parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Split ``parameters`` into two groups: matrices, with weight decay, and norms, biases, embeddings and rates of
    decaying states, without."""
    exempt, parameters = _embeddings(model) | _undecayed(model), list(parameters)
    matrices = [p for p in parameters if p.ndim >= 2 and p not in exempt]
    others = [p for p in parameters if p.ndim < 2 or p in exempt]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices between input layers and outputs: each maps hidden vectors to hidden vectors."""
    exempt = _undecayed(model)
    return [p for p, part in parts_of_parameters(model).items() if part not in ENDS and p.ndim == 2 and p not in exempt]


def _embeddings(model: nn.Module) -> set[Tensor]:
    return {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}


def _undecayed(model: nn.Module) -> set[Tensor]:
    """Return the tables that are no matrices, such as the rates of a state space: modules name them ``undecayed``."""
    return {getattr(module, name) for module in model.modules() for name in getattr(module, "undecayed", ())}


# ---- the choices ---------------------------------------------------------------------------------

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a moving mean of gradients, or of their squares."""


@config
class Adam:
    """Adam as in Attention Is All You Need."""

    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: NonNegativeFloat = 1e-9

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), betas=self.betas, eps=self.eps, fused=True)


@config
class AdamW:
    """Adam with decoupled weight decay, which pulls the weights themselves towards zero."""

    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    """Fraction of a weight, times the learning rate, that a step removes. Matrices alone: no norm, bias or
    embedding."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.over(model, model.parameters())

    def over(self, model: nn.Module, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer for these ``parameters`` of the ``model`` alone."""
        # fused: one pass over memory instead of eight, on a CPU measured 4 times faster than foreach; the same to the
        # bit in every run, whatever the number of threads
        groups = decaying(model, parameters, self.weight_decay)
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)


@config
class Muon:
    """Muon: hidden matrices by momentum made orthogonal (Jordan et al. 2024); input layers, norms, biases and outputs
    by AdamW.

    An update of a matrix is as large as AdamW's would be (Liu et al., arXiv:2502.16982), so one schedule is for both;
    its peak may be a few times AdamW's.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    iterations: PositiveInt = 5
    """Number of Newton-Schulz steps, each of which brings the momentum's singular values nearer to 1."""
    weight_decay: NonNegativeFloat = 0.1
    """Fraction of a hidden matrix, times the learning rate, that a step removes."""
    others: AdamW = AdamW()
    """Optimizer of everything that is not a hidden matrix."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        matrices = hidden_matrices(model)
        chosen = set(matrices)
        muon = MuonOptimizer(
            matrices, weight_decay=self.weight_decay, momentum=self.momentum, iterations=self.iterations
        )
        return CombinedOptimizer(muon, self.others.over(model, (p for p in model.parameters() if p not in chosen)))


@config
class Adafactor:
    """Adafactor: memory of a row and a column where Adam keeps two matrices (Shazeer & Stern, arXiv:1804.04235).

    The learning rate is relative to each tensor's own size (the root mean square of its entries), and never more than
    step^-1/2: peaks are many times those of AdamW, such as 5e-2.
    """

    beta2_decay: Annotated[float, Field(le=0)] = -0.8
    """Exponent of the step t in the decay of the mean of squares: 1 - t^beta2_decay."""
    smallest: NonNegativeFloat = 1e-3
    """Smallest size that a tensor is taken to have: zeros must be able to change."""
    longest: Annotated[float, Field(ge=1)] = 1.0
    """Largest root mean square of an update, before the learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay, as in AdamW."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = decaying(model, model.parameters(), self.weight_decay)
        return torch.optim.Adafactor(
            groups, beta2_decay=self.beta2_decay, eps=(None, self.smallest), d=self.longest, foreach=False
        )


Optimizer = Annotated[Adam | AdamW | Muon | Adafactor, OneOf()]


# ---- several as one ------------------------------------------------------------------------------


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers as one, each for its own parameters. Parameter groups and state are theirs, in order."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.collect()

    def collect(self) -> None:
        """Collect the current groups and state of the parts."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state = defaultdict(dict, {p: state for part in self.parts for p, state in part.state.items()})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = iter(state_dict["param_groups"])
        for part in self.parts:
            own = list(islice(groups, len(part.param_groups)))
            numbers = {number for group in own for number in group["params"]}
            state = {number: state for number, state in state_dict["state"].items() if number in numbers}
            part.load_state_dict({"state": state, "param_groups": own})
        self.collect()


# ---- in the checkpoint ---------------------------------------------------------------------------


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state by ``parameter:name``, such as ``decoder.blocks.0.mixer.q.weight:exp_avg``."""
    return {
        f"{name}:{what}": value
        for name, parameter in model.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
    }


_ADAM = frozenset({"step", "exp_avg", "exp_avg_sq"})
_STATES: dict[type[torch.optim.Optimizer], tuple[frozenset[str], ...]] = {
    torch.optim.Adam: (_ADAM,),
    torch.optim.AdamW: (_ADAM,),
    torch.optim.Adafactor: (frozenset({"step", "row_var", "col_var"}), frozenset({"step", "variance"})),
    MuonOptimizer: (frozenset({"momentum_buffer"}),),
}
"""Names of what each optimizer remembers of a parameter: one of these sets."""


def load_state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Restore the optimizer's state from the result of ``state_tensors``, as far as it is of this kind of optimizer.

    Returns:
        Names of the parameters whose state is of another optimizer: it is not loaded, and begins anew.

    Raises:
        CheckpointError: the tensors are not those of this model's parameters.
    """
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, what = key.rpartition(":")
        by_parameter.setdefault(name, {})[what] = value
    names = {parameter: name for name, parameter in model.named_parameters()}
    if stray := set(by_parameter) - set(names.values()):
        raise CheckpointError(
            f"optimizer state for {min(stray)!r}, which the model does not have: other model or version"
        )
    parts = optimizer.parts if isinstance(optimizer, CombinedOptimizer) else (optimizer,)
    kinds = {names[p]: type(part) for part in parts for group in part.param_groups for p in group["params"]}
    others = [name for name in by_parameter if name in kinds and set(by_parameter[name]) not in _STATES[kinds[name]]]
    state: dict[int, Any] = {
        i: by_parameter[name] for i, name in enumerate(kinds) if name in by_parameter and name not in others
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return others
