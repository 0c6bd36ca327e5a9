"""Translation memory: translations that people made before, found again by their source text.

A match is exact, or exact but for placeholders: ``Delete {name}?`` is found for ``Delete {file}?``, and its translation
gets the placeholder of the text that is asked for. White space at the ends is not compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dragoman.errors import ConfigError
from dragoman.text.compressed import extension
from dragoman.text.formats.pairs import read_pairs
from dragoman.text.formats.several import guess_sources
from dragoman.text.lines import Pair
from dragoman.text.placeholders import Placeholder, find_placeholders, texts_between

_OF_SEVERAL = (".tmx", ".xcstrings")
"""Extensions of files that may hold more than two languages."""
Key = tuple[str, ...]
"""Text between placeholders."""


class TranslationMemory:
    """Translations by source text; where a text has several, the most frequent one, or the first of those."""

    def __init__(self, pairs: Iterable[Pair] = ()):
        self.exact: dict[str, Counter[str]] = {}
        self.shapes: dict[Key, Pair] = {}
        """First pair of each text without its placeholders."""
        for pair in pairs:
            source, target = pair.source.strip(), pair.target.strip()
            if source and target:
                self.exact.setdefault(source, Counter())[target] += 1
                if (placeholders := find_placeholders(source)) and _same(placeholders, find_placeholders(target)):
                    self.shapes.setdefault(tuple(texts_between(source, placeholders)), Pair(source, target))

    @classmethod
    def read(cls, paths: Sequence[str], source: str | None = None, target: str | None = None) -> "TranslationMemory":
        """Read files with pairs: TMX, PO, XLIFF, tables, pairs of files by language (``locales/{en,de}/*.json``), and
        all others that ``guess_sources`` finds.

        Args:
            source, target: languages, for a TMX file or a string catalog of several.

        Raises:
            DataError, ConfigError: a file that cannot be read as pairs.
        """
        pairs: list[Pair] = []
        for path in paths:
            languages = (source, target) if extension(path) in _OF_SEVERAL and source and target else None
            try:
                for found in guess_sources(path, languages):
                    pairs += read_pairs(found)
            except ConfigError as error:
                raise ConfigError(f"--memory {error}") from None
        return cls(pairs)

    def __len__(self) -> int:
        return len(self.exact)

    def pairs(self) -> Iterator[Pair]:
        """Yield each source text with its most frequent translation."""
        return (Pair(source, targets.most_common(1)[0][0]) for source, targets in self.exact.items())

    def find(self, text: str, codes: Sequence[str] = ()) -> str | None:
        """Return the translation of a text, with its own placeholders and outer white space; None if there is none."""
        bare = text.strip()
        start = text.index(bare) if bare else 0
        before, after = text[:start], text[start + len(bare) :]
        if bare in self.exact:
            return before + self.exact[bare].most_common(1)[0][0] + after
        placeholders = find_placeholders(bare, codes)
        found = self.shapes.get(tuple(texts_between(bare, placeholders))) if placeholders else None
        filled = with_placeholders(found, placeholders) if found else None
        return None if filled is None else before + filled + after


def _same(some: Sequence[Placeholder], others: Sequence[Placeholder]) -> bool:
    return Counter(p.text for p in some) == Counter(p.text for p in others)


def with_placeholders(pair: Pair, new: Sequence[Placeholder]) -> str | None:
    """Return the translation of a pair with other placeholders; None where it is not clear which is which."""
    old = find_placeholders(pair.source)
    names: dict[str, str] = {}
    for before, after in zip(old, new, strict=True):
        if names.setdefault(before.text, after.text) != after.text or before.role is not after.role:
            return None
    text, parts, at = pair.target, [], 0
    for found in find_placeholders(text):
        if found.text not in names:  # the pair is faulty
            return None
        parts += [text[at : found.start], names[found.text]]
        at = found.end
    return "".join([*parts, text[at:]])
