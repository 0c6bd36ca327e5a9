"""Prompts with the answers that a language model is to learn."""

from dragoman.config import config
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.pairs import PairSource, read_pairs
from dragoman.text.lines import Pair
from dragoman.text.splits import Overlapping, SplitExamples, split_examples


@config
class Instructions:
    """Pairs of prompt and answer; the loss is on answers only."""

    train: tuple[PairSource, ...]
    """Sources of pairs, read in order: the source is the prompt, the target its answer."""
    valid: PairSource | None = None
    """Pairs to choose the best checkpoint by; without them, some of the training pairs are held out."""
    hold_out: HoldOut = HoldOut(test=0, valid=200)
    """Number of pairs to hold out where no validation pairs are given."""
    overlap: Overlapping = "drop"
    """Treatment of training pairs that are like one of the given validation set."""
    between: str = "\n"
    """Separator between prompt and answer; it is also added to the prompt at inference."""

    def split(self) -> SplitExamples[Pair]:
        """Read the sources and split them.

        Raises:
            DataError: a file that cannot be read, or too few pairs.
        """
        pairs = [pair for source in self.train for pair in read_pairs(source)]
        valid = None if self.valid is None else list(read_pairs(self.valid))
        return split_examples(pairs, valid, None, self.hold_out, self.overlap)
