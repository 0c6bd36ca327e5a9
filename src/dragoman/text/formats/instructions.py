"""Prompts with the answers that a language model is to learn."""

from collections.abc import Iterator, Mapping
from typing import Any

from dragoman.config import config, kind_of
from dragoman.errors import ConfigError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.pairs import PairSource, may_hold_out, prefix_of, read_pairs, sources_by_path, tags_of
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
    """Separator between prompt and answer; at inference it is added to prompts that do not end with it."""

    def split(self) -> SplitExamples[Pair]:
        """Read the sources and split them.

        Raises:
            DataError: a file that cannot be read, or too few pairs.
            ConfigError: a source with tags.
        """
        for path, source in sources_by_path(self):
            if tags_of(source):
                raise ConfigError(f"{path}.tags: are for translation: use prefix, which is a part of the prompt")
        pairs = [(pair, may_hold_out(source)) for source in self.train for pair in _read(source)]
        kept = {id(pair) for pair, may in pairs if not may}
        valid = None if self.valid is None else list(_read(self.valid))
        return split_examples(
            [pair for pair, _ in pairs], valid, None, self.hold_out, self.overlap, may=lambda pair: id(pair) not in kept
        )


def between_of_run(config: Mapping[str, Any]) -> str:
    """Return the separator between prompt and answer in the training data of a run; empty where it learned from other
    data."""
    data = config.get("data") or {}
    return data.get("between", Instructions.between) if data.get("kind") == kind_of(Instructions) else ""


def _read(source: PairSource) -> Iterator[Pair]:
    """Yield the pairs of a source, whose prompts begin with its prefix."""
    prefix = prefix_of(source)
    return (Pair(prefix + pair.source, pair.target) for pair in read_pairs(source))
