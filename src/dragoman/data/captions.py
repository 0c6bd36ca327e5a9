"""Images with captions, for two towers that learn what belongs together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import PositiveInt

from dragoman.config import config
from dragoman.data.arrays import digest
from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.compressed import read_bytes
from dragoman.text.formats.pairs import Table, read_pairs
from dragoman.text.splits import Overlapping, SplitExamples, split_examples


class CaptionedImage(NamedTuple):
    image: Any
    """A path, or an array."""
    caption: str
    where: str
    target: str
    """A digest of the image in letters: with the caption, what it is told apart by when some are held out."""

    @property
    def source(self) -> str:
        return self.caption

    @property
    def texts(self) -> tuple[str, ...]:
        """What a tokenizer learns from."""
        return (self.caption,)


@config
class CaptionTable:
    path: str
    """A .tsv or .csv file; image files are looked for from its folder on."""
    image: str | int = 0
    """Column of the image file: its name in the header row, or its number, counted from 0."""
    caption: str | int = 1
    """Column of the caption."""
    header: bool = False
    """Whether the first row only names the columns; a column given by name says so too."""

    def read(self) -> Iterator[CaptionedImage]:
        table = Table(path=self.path, source=self.image, target=self.caption, header=self.header)
        for number, pair in enumerate(read_pairs(table), 1):
            image = Path(self.path).parent / pair.source
            if not image.is_file():
                raise DataError(f"{self.path}: row {number}: {image}: no such image file")
            yield CaptionedImage(image, pair.target, str(image), digest(read_bytes(image)))


@config
class CaptionedImages:
    train: tuple[CaptionTable, ...]
    """Read one after the other."""
    valid: CaptionTable | None = None
    """Chooses the best checkpoint; without it, some of the training pairs are held out."""
    test: CaptionTable | None = None
    """Only for the final figures; without it, some of the training pairs are held out."""
    hold_out: HoldOut = HoldOut(test=500, valid=500)
    """How many training pairs become test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """What to do with training pairs that are like one of a given validation or test set."""
    longest: PositiveInt | None = 77
    """Tokens of a caption that are read."""
    other_sizes: Literal["refuse", "resize"] = "refuse"
    """What to do with image files of another size than the model's."""

    def split(self) -> SplitExamples[CaptionedImage]:
        """
        Raises:
            DataError: a file that cannot be read, or too few examples.
        """
        examples = [example for table in self.train for example in table.read()]
        valid, test = (None if table is None else list(table.read()) for table in (self.valid, self.test))
        return split_examples(examples, valid, test, self.hold_out, self.overlap)
