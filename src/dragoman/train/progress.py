"""All that a run knows besides tensors: small enough to read in the checkpoint's ``progress.json``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dragoman.train import loop


@dataclass
class Window:
    """Sums over the steps since the last report."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    tokens: int = 0
    """Target tokens learned from."""
    real: int = 0
    """Source and target tokens, padding not counted."""
    cells: int = 0
    """The same, padding counted."""
    seconds: float = 0.0


@dataclass
class Progress(loop.Progress):
    total: int | None = None
    """Steps of the whole run, once known."""
    seconds: float = 0.0
    """Time spent learning."""
    validated: int = 0
    """Step of the last validation."""
    best_loss: float | None = None
    """Or whatever else the best checkpoint is chosen by."""
    best_step: int | None = None
    stale: int = 0
    """Validations since the best one."""
    sources: dict[str, int] = field(default_factory=dict)
    """Tokens of each source, on either side, read since the run began."""
    window: Window = field(default_factory=Window)

    def count(self, tokens: Mapping[str, int]) -> None:
        for name, number in tokens.items():
            self.sources[name] = self.sources.get(name, 0) + number

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Progress":
        window = Window(**data["window"])
        return cls(**{name: value for name, value in data.items() if name != "window"}, window=window)
