"""Loss scaling keeps gradients that are too small for float16 (Micikevicius et al., arXiv:1710.03740).

The loss is multiplied by a power of two, so nothing is rounded, and gradients are divided by it before clipping and the
update. A scale that is too large makes a gradient infinite: that step is skipped like any other without a finite
gradient, and the next one has half the scale. ``loop.LoopProgress`` holds the scale, so that a resumed run has the
same.
"""

from dragoman.machine import Precision


class Unscaled:
    """No scaling: float32 and bfloat16 represent gradients of any size that occurs."""

    first = 1.0

    def after(self, scale: float, steps: int, finite: bool) -> tuple[float | None, int]:
        """Return the next step's scale (None: ``first``) and the number of steps it has been in use."""
        return None, 0


class LossScaling(Unscaled):
    """Halve the scale after a step that was not finite, double it after ``patience`` that were (as torch's
    GradScaler)."""

    first = 2.0**7
    """Initial scale. The loss is a sum over tokens, so its gradients are larger than a mean's by their number:
    fairseq's 2^7."""
    patience = 2000

    def after(self, scale: float, steps: int, finite: bool) -> tuple[float | None, int]:
        if not finite:
            return scale / 2, 0
        return (scale * 2, 0) if steps + 1 >= self.patience else (scale, steps + 1)


def scaling_for(precision: Precision) -> Unscaled:
    """Return the loss scaling that ``precision`` needs."""
    return LossScaling() if precision == "float16" else Unscaled()
