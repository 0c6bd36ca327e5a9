"""Loss scaling keeps gradients that are too small for float16 (Micikevicius et al., arXiv:1710.03740).

The loss is multiplied by a power of two, so nothing is rounded, and gradients are divided by it before anything looks
at them. A scale that is too large makes one of them infinite: that step is skipped as any other without a finite
gradient, and the next has half the scale. ``loop.Progress`` remembers it, so that a resumed run has the same.
"""

from dragoman.machine import Precision


class Unscaled:
    """float32 and bfloat16 hold gradients as small as they come."""

    first = 1.0

    def after(self, scale: float, steps: int, finite: bool) -> tuple[float | None, int]:
        """The next step's scale (None: ``first``) and how many steps it has held."""
        return None, 0


class LossScaling(Unscaled):
    """Half after a step that was not finite, twice after ``patience`` that were (as torch's GradScaler)."""

    first = 2.0**7
    """The loss is a sum over tokens, so its gradients are larger than a mean's by their number: 2^7 is fairseq's."""
    patience = 2000

    def after(self, scale: float, steps: int, finite: bool) -> tuple[float | None, int]:
        if not finite:
            return scale / 2, 0
        return (scale * 2, 0) if steps + 1 >= self.patience else (scale, steps + 1)


def scaling_for(precision: Precision) -> Unscaled:
    return LossScaling() if precision == "float16" else Unscaled()
