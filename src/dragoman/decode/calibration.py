"""Calibration of a run, measured after training: confidence in its translations, and heads that align words.

Stored in the run directory as ``calibration.json``.
"""

import json
from pathlib import Path

from dragoman import durable
from dragoman.config import config, from_dict, to_dict
from dragoman.decode.alignment import AlignmentHeads
from dragoman.decode.confidence import FEATURES, Confidence
from dragoman.errors import CheckpointError, ConfigError

NAME = "calibration.json"


@config
class Calibration:
    """The calibration of one run."""

    confidence: Confidence | None = None
    """Fitted confidence; None for the geometric mean of the tokens' probabilities."""
    heads: AlignmentHeads = AlignmentHeads()

    @classmethod
    def read(cls, run: Path) -> "Calibration":
        """Read the calibration of a run; the defaults where it has not been calibrated.

        Raises:
            CheckpointError: a file that is damaged or of another version.
        """
        path = run / NAME
        if not path.exists():
            return cls()
        try:
            plain = json.loads(path.read_bytes())
            plain.get("heads", {}).pop("kind", None)  # earlier versions called it "heads"
            calibration = from_dict(cls, plain)
        except (OSError, ValueError, AttributeError, ConfigError) as error:
            raise CheckpointError(
                f"{path}: cannot be used ({error}): remove it, or make it with dragoman calibrate"
            ) from None
        if calibration.confidence and len(calibration.confidence.weights) != len(FEATURES):
            raise CheckpointError(f"{path}: of another version: make it again with dragoman calibrate")
        return calibration

    def write(self, run: Path) -> None:
        durable.replace(run / NAME, (json.dumps(to_dict(self), indent=1) + "\n").encode())


NONE = Calibration()
