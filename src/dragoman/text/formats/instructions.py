"""Prompts with the answers that a language model is to learn."""

from dragoman.config import config
from dragoman.text.cleaning.split import HoldOut, hold_out
from dragoman.text.formats.pairs import PairSource, read_pairs
from dragoman.text.lines import Pair


@config
class Instructions:
    """Pairs of prompt and answer; the loss is on answers only."""

    train: tuple[PairSource, ...]
    """Sources of pairs, read in order: the source is the prompt, the target its answer."""
    valid: PairSource | None = None
    """Pairs to choose the best checkpoint by; without them, some of the training pairs are held out."""
    hold_out: HoldOut = HoldOut(test=0, valid=200)
    """Number of pairs to hold out where no validation pairs are given."""
    between: str = "\n"
    """Separator between prompt and answer; it is also added to the prompt at inference."""

    def split(self) -> tuple[list[Pair], list[Pair], dict[str, int]]:
        """Return pairs for training, pairs for validation, and counts for the report."""
        pairs = [pair for source in self.train for pair in read_pairs(source)]
        if self.valid is not None:
            return pairs, list(read_pairs(self.valid)), {}
        split = hold_out(pairs, self.hold_out)
        return split.train, split.valid, {f"{why} as one held out": n for why, n in split.removed.items() if n}
