"""Captioned images, for two towers trained on matching pairs, and for captioners."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import PositiveInt

from dragoman import durable
from dragoman.config import config
from dragoman.data.arrays import digest, refuse_hard_set
from dragoman.data.material import ImageMaterial
from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut, PairSplit
from dragoman.text.compressed import read_bytes
from dragoman.text.formats.pairs import Table, read_pairs
from dragoman.text.lines import parse_json, read_lines
from dragoman.text.splits import Overlapping, SplitExamples, split_examples
from dragoman.text.store import Column


class CaptionedImage(NamedTuple):
    """Image with its caption."""

    image: Any
    """Image as a path or an array."""
    caption: str
    where: str
    target: str
    """Digest of the image in letters: with the caption, it identifies the pair when some are held out."""

    @property
    def source(self) -> str:
        return self.caption

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts for training the tokenizer."""
        return (self.caption,)


class ImageWithCaption(CaptionedImage):
    """Image with its caption, identified by the image alone: many images may have the same caption."""

    @property
    def source(self) -> str:
        return self.target


@config
class CaptionTable:
    """Table of image files and captions."""

    path: str
    """A .tsv or .csv file; paths of image files are relative to its folder."""
    image: str | int = 0
    """Column of the image file: its name in the header row, or its number, counted from 0."""
    caption: str | int = 1
    """Column of the caption."""
    header: bool = False
    """True if the first row holds column names; naming a column implies it."""

    def read(self) -> Iterator[CaptionedImage]:
        table = Table(path=self.path, source=self.image, target=self.caption, header=self.header)
        for number, pair in enumerate(read_pairs(table), 1):
            image = Path(self.path).parent / pair.source
            if not image.is_file():
                raise DataError(f"{self.path}: row {number}: {image}: no such image file")
            yield CaptionedImage(image, pair.target, str(image), digest(read_bytes(image)))


@config
class CaptionedImages:
    """Captioned images, for contrastive training or for captioning."""

    train: tuple[CaptionTable, ...]
    """Tables of training pairs, read one after the other."""
    valid: CaptionTable | None = None
    """Pairs that choose the best checkpoint; without it, some training pairs are held out."""
    test: CaptionTable | None = None
    """Pairs used only for the final scores; without it, some training pairs are held out."""
    hold_out: HoldOut = HoldOut(test=500, valid=500)
    """Number of training pairs held out as test and validation set, where none is given above; for captioners, number
    of images, each held out with all of its captions."""
    overlap: Overlapping = "drop"
    """Treatment of training pairs that are like one of a given validation or test set."""
    longest: PositiveInt | None = 77
    """Maximum number of tokens read of a caption, its end included."""
    other_sizes: Literal["refuse", "resize"] = "refuse"
    """Treatment of image files of another size than the model's."""

    def split(self, kind: type[CaptionedImage] = CaptionedImage) -> SplitExamples[CaptionedImage]:
        """Read the pairs and split them into training, validation and test set.

        Args:
            kind: what identifies an example; nothing like a held-out one stays in training.

        Raises:
            DataError: a file that cannot be read, or too few examples.
            ConfigError: a hard set is asked for.
        """
        refuse_hard_set(self.hold_out)
        examples = [kind(*example) for table in self.train for example in table.read()]
        valid, test = (
            None if table is None else [kind(*example) for example in table.read()] for table in (self.valid, self.test)
        )
        if kind is ImageWithCaption:
            return _split_by_image(examples, valid, test, self.hold_out, self.overlap)
        return split_examples(examples, valid, test, self.hold_out, self.overlap)


def _split_by_image(
    examples: Sequence[CaptionedImage],
    valid: Sequence[CaptionedImage] | None,
    test: Sequence[CaptionedImage] | None,
    held: HoldOut,
    overlap: Overlapping,
) -> SplitExamples[CaptionedImage]:
    """Split images, each with all of its captions; the table counts images."""

    def images(some: Sequence[CaptionedImage]) -> list[CaptionedImage]:
        return [same[0] for same in _by_image(some)]

    def captioned(some: Sequence[CaptionedImage], given: Sequence[CaptionedImage] | None) -> list[CaptionedImage]:
        all_of = {same[0].target: same for same in _by_image(examples if given is None else given)}
        return [one for image in some for one in all_of[image.target]]

    firsts = images(examples)
    found = split_examples(
        firsts, None if valid is None else images(valid), None if test is None else images(test), held, overlap
    )
    split = found.split
    whole = PairSplit(captioned(split.train, None), captioned(split.valid, valid), captioned(split.test, test), {})
    captions = [("captions read", len(examples))] if len(firsts) < len(examples) else []
    return replace(found, split=whole, table=[*captions, ("images read", len(firsts)), *found.table[1:]])


def _by_image(examples: Iterable[CaptionedImage]) -> list[list[CaptionedImage]]:
    """Return the examples of each image together, in the order in which the images come first."""
    found: dict[str, list[CaptionedImage]] = {}
    for example in examples:
        found.setdefault(example.target, []).append(example)
    return list(found.values())


def captions_by_image(examples: Iterable[CaptionedImage]) -> list[tuple[CaptionedImage, tuple[str, ...]]]:
    """Return each image once, as its first example, with all of its captions."""
    return [(same[0], tuple(one.caption for one in same)) for same in _by_image(examples)]


# ---- held-out captions ----------------------------------------------------------------------------


def write_captions(path: Path, examples: Iterable[CaptionedImage]) -> None:
    """Write whole captions, which a store may cut, and the names of their images as JSON lines."""
    lines = (json.dumps({"caption": one.caption, "image": one.where}) + "\n" for one in examples)
    durable.write(path, "".join(lines).encode())


def read_captions(path: Path, images: Column, material: ImageMaterial) -> list[CaptionedImage]:
    """Read what ``write_captions`` wrote, with the stored images that the captions belong to.

    Raises:
        DataError: no such file, a line that was not written so, or not one line for each image.
    """
    lines = list(read_lines(path))
    if len(lines) != len(images):
        raise DataError(f"{path}: {len(lines):,} captions for {len(images):,} stored images")
    found = []
    for i, line in enumerate(lines):
        row = images.raw_row(i)
        try:
            known = parse_json(line, f"{path}:{i + 1}")
            caption, where = known["caption"], known["image"]
        except (KeyError, TypeError):
            raise DataError(f"{path}:{i + 1}: not a captioned image as runs hold them out") from None
        found.append(CaptionedImage(material.restored(row), caption, where, digest(row.tobytes())))
    return found
