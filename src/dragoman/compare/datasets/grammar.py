"""Sentences of a small grammar: with their trees, as running text, with labels, and with canaries among them."""

import json
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, PositiveInt

from dragoman import durable
from dragoman.config import Fraction
from dragoman.presets import Plain

GRAMMAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "S": (("NP", "VP"),),
    "NP": (("Det", "N"), ("Det", "Adj", "N"), ("NP", "PP"), ("NP", "RC")),
    "VP": (("V", "NP"), ("VI",), ("VP", "PP"), ("VS", "S")),
    "PP": (("P", "NP"),),
    "RC": (("that", "VP"),),
    "Det": (("the",), ("a",), ("every",), ("some",)),
    "Adj": (("old",), ("small",), ("red",), ("quiet",), ("wooden",)),
    "N": (("dog",), ("cat",), ("girl",), ("boy",), ("house",), ("river",), ("telescope",), ("teacher",), ("road",)),
    "V": (("sees",), ("likes",), ("finds",), ("follows",), ("carries",)),
    "VI": (("sleeps",), ("runs",), ("waits",)),
    "VS": (("says",), ("thinks",)),
    "P": (("near",), ("with",), ("under",), ("behind",)),
}
"""Rules of the grammar; symbols that are not in it are words."""
LEAVES = frozenset({"Det", "Adj", "N", "V", "VI", "VS", "P"})
"""Symbols that have no bracket of their own, so that a tree is about as long as its sentence."""


class SentenceWithTree(NamedTuple):
    """A sentence and its tree."""

    words: list[str]
    tree: list[str]


def derive(rng: random.Random, symbol: str = "S", depth: int = 6) -> SentenceWithTree:
    """Return a random sentence of the grammar; at ``depth`` 0 only the rules that come first are used."""
    if symbol not in GRAMMAR:
        return SentenceWithTree([symbol], [symbol])
    rules = GRAMMAR[symbol]
    if symbol not in LEAVES:
        rules = rules[:1] if depth <= 0 else rules
        rules = tuple(rule for rule in rules if depth > 0 or symbol not in rule)
    parts = [derive(rng, part, depth - 1) for part in rng.choice(rules)]
    words = [word for part in parts for word in part.words]
    tree = [token for part in parts for token in part.tree]
    return SentenceWithTree(words, tree if symbol in LEAVES else [f"({symbol}", *tree, ")"])


def trees(
    folder: Path,
    *,
    pairs: Annotated[int, Field(ge=20)] = 3000,
    longest: Annotated[int, Field(ge=3)] = 20,
    seed: int = 1,
) -> Plain:
    """Sentences and their bracketed trees as pairs, for translation: ``the dog sleeps`` to
    ``(S (NP the dog ) (VP sleeps ) )``. A tenth validates and a tenth tests."""
    rng, found = random.Random(seed), dict[str, str]()
    for _ in range(100 * pairs):  # there are few short sentences
        sentence = derive(rng)
        if len(sentence.words) <= longest:
            found[" ".join(sentence.words)] = " ".join(sentence.tree)
        if len(found) == pairs:
            break
    rows, held = [f"{words}\t{tree}\n" for words, tree in found.items()], len(found) // 10
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"valid": rows[:held], "test": rows[held : 2 * held], "train": rows[2 * held :]}
    for name, some in parts.items():
        durable.replace(folder / f"{name}.tsv", "".join(some).encode())
    table = {name: {"kind": "table", "path": str(folder / f"{name}.tsv")} for name in parts}
    # sentences of so small a grammar are alike, and brackets are not unusual here
    return {
        "train": [table["train"]],
        "valid": table["valid"],
        "test": table["test"],
        "overlap": "keep",
        "cleaning": {"max_ratio": None},
    }


def sentences(
    folder: Path,
    *,
    documents: Annotated[int, Field(ge=3)] = 400,
    learned: PositiveInt | None = None,
    each: PositiveInt = 12,
    seed: int = 1,
) -> Plain:
    """Running text: documents of sentences of the grammar, for language models.

    A tenth is for validation. Of the others the first ``learned`` are to learn from, all where it is None. So sets of
    several sizes share their validation.
    """
    rng = random.Random(seed)
    texts = [". ".join(" ".join(derive(rng).words) for _ in range(each)) for _ in range(documents)]
    held = max(2, documents // 10)
    return _running_text(folder, texts[held:][:learned], texts[:held])


def _running_text(folder: Path, train: Sequence[str], valid: Sequence[str]) -> Plain:
    """Write documents, with blank lines between them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in (("valid", valid), ("train", train)):
        durable.replace(folder / f"{name}.txt", "\n\n".join(documents).encode() + b"\n")
    return {
        "kind": "texts",
        "files": [str(folder / "train.txt")],
        "valid": [str(folder / "valid.txt")],
        "overlap": "keep",  # a small grammar says the same sentence again and again
        "documents": "blank_lines",
    }


# ---- duplicates and memorisation --------------------------------------------------------------------

CANARIES = "canaries.json"


def canaries(
    folder: Path,
    *,
    copies: Sequence[PositiveInt] = (1, 4, 16, 64),
    each: PositiveInt = 8,
    length: PositiveInt = 24,
    documents: PositiveInt = 1500,
    seed: int = 1,
) -> Plain:
    """Running text with secrets among it: random strings, of which some stand there once and others many times (Carlini
    et al., arXiv:1802.08232). ``canaries.json`` lists them by number of copies, and as many that are not there."""
    rng = random.Random(seed)
    secrets = {
        str(times): ["".join(rng.choices(string.ascii_lowercase, k=length)) for _ in range(each)]
        for times in (0, *copies)
    }
    texts = [" ".join(derive(rng).words) for _ in range(documents)]
    for times, some in secrets.items():
        texts += [secret for secret in some for _ in range(int(times))]
    rng.shuffle(texts)
    folder.mkdir(parents=True, exist_ok=True)
    durable.replace(folder / CANARIES, json.dumps(secrets, indent=1).encode())
    valid = [" ".join(derive(rng).words) for _ in range(max(2, documents // 10))]
    return _running_text(folder, texts, valid)


# ---- labels -----------------------------------------------------------------------------------------


def topics(
    folder: Path,
    *,
    labels: Annotated[int, Field(ge=2)] = 4,
    noise: Fraction = 0.0,
    examples: PositiveInt = 2000,
    valid: PositiveInt = 600,
    words: PositiveInt = 10,
    shared: Fraction = 0.75,
    seed: int = 1,
) -> Plain:
    """Texts with a topic each, as labelled texts: of ten words some are of the topic and the others of all topics.
    ``noise`` is the fraction of training labels that are wrong; those of validation and test are right."""
    rng, wrong = random.Random(seed), random.Random(f"{seed} noise")
    own = {f"topic{i}": [f"w{i}x{j}" for j in range(60)] for i in range(labels)}
    common = [f"common{j}" for j in range(200)]

    def rows(count: int, mislabelled: float) -> list[str]:
        found = []
        for _ in range(count):
            label = rng.choice(list(own))
            text = [rng.choice(common) if rng.random() < shared else rng.choice(own[label]) for _ in range(words)]
            given = wrong.choice([other for other in own if other != label]) if wrong.random() < mislabelled else label
            found.append(f"{' '.join(text)}\t{given}\n")
        return found

    folder.mkdir(parents=True, exist_ok=True)
    table = {"kind": "labelled_table", "text": 0, "label": 1}
    for name, some in (("valid", rows(valid, 0)), ("test", rows(valid, 0)), ("train", rows(examples, noise))):
        durable.replace(folder / f"{name}.tsv", "".join(some).encode())
    return {
        "kind": "labelled_texts",
        "train": [table | {"path": str(folder / "train.tsv")}],
        "valid": table | {"path": str(folder / "valid.tsv")},
        "test": table | {"path": str(folder / "test.tsv")},
        "overlap": "keep",
    }
