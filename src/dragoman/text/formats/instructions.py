"""Prompts with the answers that a language model shall learn to give."""

from dragoman.config import config
from dragoman.text.cleaning.small import describe_reduction, hold_out_some
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.documents import TextSplit
from dragoman.text.formats.pairs import PairSource, read_pairs
from dragoman.text.lines import Pair


@config
class Instructions:
    """Pairs of prompt and answer; only answers are learned."""

    train: tuple[PairSource, ...]
    """Sources of pairs, read one after the other: the source is the prompt, the target its answer."""
    valid: PairSource | None = None
    """Chooses the best checkpoint; without it, some of the training pairs are held out."""
    hold_out: HoldOut = HoldOut(test=0, valid=200)
    """How many pairs are held out where no validation pairs are given."""
    between: str = "\n"
    """What stands between prompt and answer, and ends what is typed when the model is asked."""

    def split(self) -> TextSplit[Pair]:
        """Return pairs to learn from and pairs to validate with."""
        pairs = [pair for source in self.train for pair in read_pairs(source)]
        if self.valid is not None:
            return TextSplit(pairs, list(read_pairs(self.valid)))
        split, held = hold_out_some(pairs, self.hold_out)
        removed = {f"{why} as one held out": n for why, n in split.removed.items() if n}
        return TextSplit(split.train, split.valid, removed, describe_reduction(self.hold_out, held, len(pairs)))
