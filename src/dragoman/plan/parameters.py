"""Parameters of a model, by part; and how many of them each token passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dragoman.config import from_dict
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.model.parts import ENDS, PARTS, parts_of_parameters


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; shared ones count once."""

    total: int
    active: int
    """Parameters that a token passes: of a mixture of experts, those of the experts that it is sent to. Of layers that
    share a mixture, the experts of one."""
    by_part: Mapping[str, int]
    """Parameters of each part: see ``Operation.part``. A matrix that embedding and output share is the embedding's."""

    @property
    def hidden(self) -> int:
        """Parameters without input layers and outputs: N of Kaplan et al. (arXiv:2001.08361), section 2.1."""
        return self.total - sum(self.by_part[part] for part in ENDS)


def count_parameters(model: nn.Module) -> Parameters:
    """Count the parameters of ``model``, which may be on the meta device."""
    by_part = dict.fromkeys(PARTS, 0)
    for parameter, part in parts_of_parameters(model).items():
        by_part[part] += parameter.numel()
    mixtures: list[Any] = [module for module in model.modules() if hasattr(module, "idle_parameters")]
    distinct = {tuple(map(id, mixture.parameters())): mixture for mixture in mixtures}  # layers may share theirs
    idle = sum(mixture.idle_parameters for mixture in distinct.values())
    total = sum(by_part.values())
    return Parameters(total, total - idle, by_part)


def parameters_of_run(config: Mapping[str, Any]) -> Parameters:
    """Count the parameters of a run's model by the run's configuration, without its weights."""
    with on_meta_device():
        return count_parameters(from_dict(ModelConfig, config["model"]).build())
