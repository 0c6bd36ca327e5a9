"""Part of a model that a module or a parameter belongs to, for any model.

The parts of a block are fields of it, so the path of a module tells: ``decoder.blocks.3.mlp.up`` is a feed-forward.
"""

from torch import nn

PARTS: tuple[str, ...] = ("embedding", "attention", "feed_forward", "output", "other")
ENDS: tuple[str, ...] = ("embedding", "output")
"""Parts that turn a model's input into hidden vectors, and hidden vectors into its output."""

_BY_NAME = {
    "embed": "embedding",
    "source_embed": "embedding",
    "inputs": "embedding",
    "output": "output",
    "head": "output",
    "mixer": "attention",
    "cross": "attention",
    "mlp": "feed_forward",
}
"""Part by the name of a module; the outermost name that is known decides."""
_RESIDUALS = {"mixer_residual": "attention", "cross_residual": "attention", "mlp_residual": "feed_forward"}
"""Part of products that a block computes directly, inside a residual connection."""


def part_of(path: str, *, multiplies: bool = False) -> str:
    """Return the part of an operation of the module at ``path``; ``multiplies``: it is a product or a recurrence,
    which stands in no norm, residual connection or dropout. Outside of all modules only the loss multiplies."""
    for name in path.split("."):
        if name in _RESIDUALS:  # what is inside are norms, one of which is called output
            return _RESIDUALS[name] if multiplies else "other"
        if name in _BY_NAME:
            return _BY_NAME[name]
    if not multiplies:
        return "other"
    return "attention" if path else "output"


def parts_of_parameters(model: nn.Module) -> dict[nn.Parameter, str]:
    """Return the part of each parameter of ``model``, in their order.

    A matrix that input and output share is the embedding's, and so is a table of positions inside a tower.
    """
    return {
        parameter: _part_of_parameter(model.get_submodule(name.rpartition(".")[0]), name, parameter)
        for name, parameter in model.named_parameters()
    }


def _part_of_parameter(owner: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if isinstance(owner, nn.Embedding):
        return "embedding"
    path = name.rpartition(".")[0]
    part = part_of(path)
    if part == "other" and parameter.dim() > 1:  # matrices of mixers that are no blocks, such as recurrent layers
        return part_of(path or "output", multiplies=True)
    return part
