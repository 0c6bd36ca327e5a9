"""Pairs of a toy language: the target spells each word of the source backwards, in capitals."""

import random
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from dragoman import durable
from dragoman.errors import ConfigError

_LETTERS = "abcdefghijklmnoprstuvz"


def reversed_words(
    folder: Path, *, pairs: PositiveInt = 400, words: PositiveInt = 5, vocabulary: PositiveInt = 60, seed: int = 1
) -> dict[str, Any]:  # fmt: skip
    """Write pairs to learn from, a tenth as many to validate and to test, all different; return a run file's ``data``.

    Where there are not as many different pairs, there are fewer, and a third or more of them is to learn from.

    Args:
        folder: where the files go.
        pairs: training pairs.
        words: most words of a source.
        vocabulary: different words.
        seed: seed of the draw.

    Raises:
        ConfigError: fewer than three different pairs.
    """
    draw, held = random.Random(seed), max(8, pairs // 10)
    known = sorted({"".join(draw.choices(_LETTERS, k=draw.randint(2, 5))) for _ in range(vocabulary)})
    lines: dict[str, None] = {}
    for _ in range(100 * (pairs + 2 * held)):
        chosen = draw.choices(known, k=draw.randint(1, words))
        lines[" ".join(chosen) + "\t" + " ".join(word[::-1].upper() for word in chosen)] = None
        if len(lines) == pairs + 2 * held:
            break
    table, found = list(lines), dict[str, Any](kind="pairs")
    if len(table) < 3:
        raise ConfigError(
            f"data: copy: {words} of {len(known)} words makes {len(table)} different pairs, too few to learn from, to "
            "validate and to test: raise words or vocabulary"
        )
    held = min(held, len(table) // 3)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", table[2 * held :]), ("valid", table[:held]), ("test", table[held : 2 * held])):
        path = folder / f"{name}.tsv"
        content = "".join(line + "\n" for line in part).encode()
        if not path.exists() or path.read_bytes() != content:
            durable.replace(path, content)
        found[name] = {"kind": "table", "path": str(path), "header": False}
    return found | {"train": [found["train"]], "overlap": "keep"}
