"""Beginning with the weights of an earlier run or import instead of anew: fine-tuning, of all or of parts."""

import torch
from torch import nn

from dragoman.checkpoint import RunDirectory
from dragoman.config import config
from dragoman.errors import ConfigError
from dragoman.model.names import check_patterns, matches
from dragoman.text.tokenizer import Tokenizer


@config
class Init:
    run: str
    """Directory of the run or import whose model, tokenizers and weights this one begins with; what the run file says
    of the model is laid over that one's."""
    checkpoint: str = "best"
    """best, last, or the name of a checkpoint."""
    new: tuple[str, ...] = ()
    """Weights that begin anew, by name, such as head.*; a * stands for any text."""
    frozen: tuple[str, ...] = ()
    """Weights that stay as they are, such as inputs.* or encoder.*."""

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        return RunDirectory.open(self.run).tokenizers()

    @torch.no_grad()
    def fill(self, model: nn.Module) -> None:
        """Copy the weights into ``model``, by name.

        Raises:
            ConfigError: one that is not there or has another shape, and is not to begin anew.
            CheckpointError: no such run or checkpoint, or a damaged one.
        """
        content = RunDirectory.open(self.run).load(self.checkpoint, ["model", "average"])
        given = content.tensors["model"] | content.tensors.get("average", {})
        for name, tensor in model.state_dict().items():
            if matches(name, self.new):
                continue
            if name not in given:
                raise ConfigError(f"init: {self.run} has no {name!r}: add it to init.new if it is to begin anew")
            if given[name].shape != tensor.shape:
                theirs, ours = tuple(given[name].shape), tuple(tensor.shape)
                raise ConfigError(
                    f"init: {name!r} has the shape {theirs} in {self.run} and {ours} in this model: make the model "
                    "alike, or add it to init.new if it is to begin anew"
                )
            tensor.copy_(given[name])

    def freeze(self, model: nn.Module) -> None:
        """
        Raises:
            ConfigError: a pattern that is the name of no weight, or nothing left to train.
        """
        parameters = dict(model.named_parameters())
        check_patterns(self.frozen, parameters, where="init.frozen")
        for name, parameter in parameters.items():
            parameter.requires_grad_(not matches(name, self.frozen))
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise ConfigError("init.frozen: nothing is left to train: freeze less")
