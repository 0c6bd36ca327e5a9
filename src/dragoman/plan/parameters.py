"""Parameters of a model, by part; and how many of them each token passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dragoman.config import from_dict
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.plan.parts import PARTS, part_of


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
        """Parameters without embeddings and output: N of Kaplan et al. (arXiv:2001.08361), section 2.1."""
        return self.total - self.by_part["embedding"] - self.by_part["output"]


def count_parameters(model: nn.Module) -> Parameters:
    """Count the parameters of ``model``, which may be on the meta device."""
    by_part = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        part = part_of(path)
        if part == "other" and parameter.dim() > 1:  # matrices of mixers that are no blocks, such as recurrent layers
            part = part_of(path or "output", multiplies=True)
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
