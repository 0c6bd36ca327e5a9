"""Texts whose answers follow from a rule: recall, induction, copying, nested lists, and sums of steps.

Each is a prompt with a short answer; the loss is on the answer alone. Symbols are single bytes, to go with the
tokenizer ``bytes``. Sources: associative recall from Ba et al. (arXiv:1610.06258) and Arora et al. (arXiv:2312.04927),
induction from Olsson et al. (arXiv:2209.11895), selective copying from Gu & Dao (arXiv:2312.00752), ListOps from Nangia
& Bowman (arXiv:1804.06028).
"""

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from dragoman import durable
from dragoman.errors import ConfigError
from dragoman.presets import Plain

LOWER, UPPER = string.ascii_lowercase, string.ascii_uppercase
BETWEEN = "="
"""Separator of a prompt and its answer."""

Puzzle = Callable[[random.Random], tuple[str, str]]


def prompts(folder: Path, puzzle: Puzzle, *, examples: int, valid: int, seed: int, last: int | None = None) -> Plain:
    """Write distinct puzzles; those for validation are none of those to learn from.

    Args:
        folder: where the two tables are written.
        puzzle: returns a prompt and its answer.
        examples: number of puzzles to learn from.
        valid: number of puzzles to validate with.
        seed: seed of both.
        last: number of symbols at the end of an answer that alone are asked for in validation; None for all.
    """
    rng, seen, rows = random.Random(seed), set[str](), []
    for _ in range(50 * (examples + valid)):  # small ones run out of distinct puzzles
        prompt, answer = puzzle(rng)
        if prompt not in seen:
            seen.add(prompt)
            rows.append((prompt + BETWEEN, answer))
        if len(rows) == examples + valid:
            break
    kept = min(valid, len(rows) // 2)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [(p + a[:-last], a[-last:]) for p, a in rows[:kept]] if last else rows[:kept]
    for name, some in (("valid", asked), ("train", rows[kept:])):
        durable.replace(folder / f"{name}.tsv", "".join(f"{p}\t{a}\n" for p, a in some).encode())
    table = {"kind": "table", "source": 0, "target": 1}
    return {
        "kind": "instructions",
        "train": [table | {"path": str(folder / "train.tsv")}],
        "valid": table | {"path": str(folder / "valid.tsv")},
        "overlap": "keep",  # they are distinct, and puzzles that differ in digits alone are not alike
        "between": "",
    }


def recall(
    folder: Path,
    *,
    pairs: Annotated[int, Field(ge=1, le=len(LOWER))] = 8,
    queries: PositiveInt = 16,
    examples: PositiveInt = 20000,
    valid: PositiveInt = 400,
    seed: int = 1,
) -> Plain:
    """Associative recall: pairs of key and value, then keys that are asked for, each with its value.

    The last value is the answer. In training all of them are, so that a step has much to learn from.
    """

    def puzzle(rng: random.Random) -> tuple[str, str]:
        keys, values = rng.sample(LOWER, pairs), [rng.choice(UPPER) for _ in range(pairs)]
        given = list(map("".join, zip(keys, values, strict=True)))
        return "".join(given), "".join(rng.choices(given, k=queries))

    return prompts(folder, puzzle, examples=examples, valid=valid, seed=seed, last=1)


def induction(
    folder: Path,
    *,
    length: Annotated[int, Field(ge=2, le=len(LOWER))] = 16,
    repeated: PositiveInt = 12,
    examples: PositiveInt = 20000,
    valid: PositiveInt = 400,
    seed: int = 1,
) -> Plain:
    """Induction: distinct symbols in a circle, then some of them again from a random one on.

    The last is the answer. In training all of them are.

    Raises:
        ConfigError: as many symbols repeated as there are; the last would then be the one that is missing.
    """
    if repeated >= length:
        raise ConfigError(f"data.induction.repeated: {repeated} must be less than the length, {length}")

    def puzzle(rng: random.Random) -> tuple[str, str]:
        symbols = "".join(rng.sample(LOWER, length))
        start = rng.randrange(length)
        return symbols, (symbols[start:] + symbols[:start])[:repeated]

    return prompts(folder, puzzle, examples=examples, valid=valid, seed=seed, last=1)


def selective_copy(
    folder: Path,
    *,
    symbols: PositiveInt = 6,
    length: PositiveInt = 32,
    examples: PositiveInt = 20000,
    valid: PositiveInt = 400,
    seed: int = 1,
) -> Plain:
    """Selective copying: a few symbols among blanks; all of them, in order, are the answer.

    Raises:
        ConfigError: more symbols than places.
    """
    if symbols > length:
        raise ConfigError(f"data.selective_copy.symbols: {symbols} have no place in a length of {length}")

    def puzzle(rng: random.Random) -> tuple[str, str]:
        places = set(rng.sample(range(length), symbols))
        text = "".join(rng.choice(LOWER[:16]) if i in places else "." for i in range(length))
        return text, text.replace(".", "")

    return prompts(folder, puzzle, examples=examples, valid=valid, seed=seed)


# ---- nested ---------------------------------------------------------------------------------------

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "A": max,
    "I": min,
    "M": lambda values: sorted(values)[(len(values) - 1) // 2],
    "S": lambda values: sum(values) % 10,
}
"""Operators of nested lists: largest, smallest, lower median, and sum modulo 10."""


def listops(
    folder: Path,
    *,
    depth: PositiveInt = 2,
    width: Annotated[int, Field(ge=2)] = 3,
    examples: PositiveInt = 20000,
    valid: PositiveInt = 400,
    seed: int = 1,
) -> Plain:
    """ListOps: nested lists of digits with operators, such as ``(A3(S45)2)``; the value is the answer."""

    def puzzle(rng: random.Random) -> tuple[str, str]:
        text, value = nested_list(rng, depth, width)
        return text, str(value)

    return prompts(folder, puzzle, examples=examples, valid=valid, seed=seed)


def nested_list(rng: random.Random, depth: int, width: int) -> tuple[str, int]:
    """Return the text and the value of a list that is nested ``depth`` deep, with up to ``width`` members."""
    name = rng.choice(list(OPERATORS))
    members = [str(digit) for digit in rng.choices(range(10), k=rng.randint(2, width))]
    values = [int(digit) for digit in members]
    if depth > 1:
        at = rng.randrange(len(members))
        members[at], values[at] = nested_list(rng, depth - 1, width)
    return f"({name}{''.join(members)})", OPERATORS[name](values)


def sums(
    folder: Path,
    *,
    terms: PositiveInt = 6,
    steps: bool = False,
    examples: PositiveInt = 20000,
    valid: PositiveInt = 400,
    seed: int = 1,
) -> Plain:
    """Sums of digits modulo 10. With ``steps`` the answer spells the sum after each term and so ends in the result: the
    least that step-by-step prompting can be."""

    def puzzle(rng: random.Random) -> tuple[str, str]:
        digits = [rng.randrange(10) for _ in range(terms)]
        partial = [sum(digits[: i + 1]) % 10 for i in range(terms)]
        return "+".join(map(str, digits)), "".join(map(str, partial)) if steps else str(partial[-1])

    return prompts(folder, puzzle, examples=examples, valid=valid, seed=seed)
