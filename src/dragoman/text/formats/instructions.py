"""Prompts with the answers that a language model is to learn."""

from dragoman.config import config
from dragoman.text.cleaning.small import describe_reduction, hold_out_some
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.documents import TextSplit
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

    def split(self) -> TextSplit[Pair]:
        """Return pairs to learn from and pairs to validate with."""
        pairs = [pair for source in self.train for pair in read_pairs(source)]
        if self.valid is not None:
            return TextSplit(pairs, list(read_pairs(self.valid)))
        split, held = hold_out_some(pairs, self.hold_out)
        removed = {f"{why} as one held out": n for why, n in split.removed.items() if n}
        return TextSplit(split.train, split.valid, removed, describe_reduction(self.hold_out, held, len(pairs)))
