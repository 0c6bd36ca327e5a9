"""Prediction of what a run needs: written into its directory before its first step, and reconciled with it later."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunPrediction:
    """Memory and time that a run will need."""

    memory: int
    """Most bytes on a device."""
    parts: dict[str, int]
    """Those bytes by what they are for."""
    available: int
    """Bytes that there are now."""
    step_seconds: float
    """Seconds of a step, at the share of the processor that this process gets now."""
    cpu_seconds: float
    """Processor seconds of a step."""
    tokens_per_step: float
    """Tokens read in a step, on either side, padding not counted."""
    steps: int
    """Steps of the whole run."""
    made: int
    """Steps of them that are made, where a run is resumed."""
    epochs: float
    """Passes over the text of the whole run."""
    shares: dict[str, float]
    """Shares of a step: products, other operations, overhead between operations, and the optimizer's update."""
    parameters: int
    device: str
    precision: str
    threads: int

    @property
    def left(self) -> int:
        """Return the steps that are left."""
        return max(0, self.steps - self.made)

    @property
    def seconds(self) -> float:
        """Return the seconds that the steps that are left take."""
        return self.left * self.step_seconds

    @property
    def tokens(self) -> float:
        """Return the tokens read in all, on either side."""
        return self.steps * self.tokens_per_step

    @property
    def tokens_per_second(self) -> float:
        return self.tokens_per_step / self.step_seconds

    @property
    def fits(self) -> bool:
        return self.memory <= self.available
