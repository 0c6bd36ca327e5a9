"""Vectors with labels: what stands at places of a model on each word of tagged sentences, or on labelled sentences.

T tokens, N words or sentences, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.data.material import IdMaterial
from dragoman.data.tags import parts
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.interventions import Site, head_axis, time_axis
from dragoman.inspect.places import Place, find, places
from dragoman.inspect.subject import Subject
from dragoman.inspect.trace import trace_inputs
from dragoman.model.heads import TaggingHead
from dragoman.text.cleaning.clean import normalise
from dragoman.text.formats.labelled import LabelledText
from dragoman.text.formats.tagged import TaggedText
from dragoman.text.tokens.tokenizer import EOS


@dataclass(frozen=True)
class LabelledVectors:
    """Examples of a probe."""

    kind: str
    """"words" or "sentences"."""
    sentences: int
    words: tuple[str, ...]
    """Word of each example; of a sentence its first one."""
    labels: tuple[str, ...]
    sentence: tuple[int, ...]
    """Sentence of each example, counted from 0."""
    vectors: dict[Site, Float[np.ndarray, "N W"]]
    """By place: the mean over the tokens of a word, or of a sentence."""
    layers: dict[Site, int | None]


def collect(
    subject: Subject,
    examples: Sequence[TaggedText | LabelledText],
    patterns: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelledVectors:
    """Run a model on labelled sentences; return what stands at places on each word or sentence.

    Raises:
        ConfigError: a model that reads no text, or a place that does not stand on the text.
        DataError: no sentence, or one that the model cannot read.
    """
    if subject.kind == "towers" or (subject.materials and not isinstance(subject.materials[0], IdMaterial)):
        raise ConfigError("probes read one text: this model reads something else")
    if not examples:
        raise DataError("labels: none are given")
    known = _sites(subject, patterns)
    rows: dict[Site, list[np.ndarray]] = {site: [] for site in known}
    words: list[str] = []
    labels: list[str] = []
    sentence: list[int] = []
    for number, example in enumerate(examples):
        try:
            arguments, spans, mine, told = _read(subject, example)
        except DataError as error:
            raise DataError(f"labels: sentence {number + 1}: {error}") from None
        seen = trace_inputs(subject.model, arguments, [place.name for place in known.values()])
        for site, place in known.items():
            vectors = _by_token(site, place, seen.tensors[place.name], spans[-1][-1] + 1)
            rows[site].append(np.stack([vectors[list(span)].mean(axis=0) for span in spans]))
        words += mine
        labels += told
        sentence += [number] * len(mine)
        if progress:
            progress(number + 1, len(examples))
    return LabelledVectors(
        "words" if isinstance(examples[0], TaggedText) else "sentences",
        len(examples),
        tuple(words),
        tuple(labels),
        tuple(sentence),
        {site: np.concatenate(parts).astype(np.float32) for site, parts in rows.items()},
        {site: place.layer for site, place in known.items()},
    )


# ---- places -------------------------------------------------------------------------------------------


def _sites(subject: Subject, patterns: Sequence[str] | None) -> dict[Site, Place]:
    """Return the sites to probe, with their places."""
    known = places(subject.model)
    side = "decoder" if subject.kind == "language model" else "encoder"
    if patterns is None:
        endings = (".embedding", ".residual.after", ".mixer.state")
        names = [name for name in known if name.startswith(f"{side}.") and name.endswith(endings)]
        if any(name.endswith(".residual.after") for name in names):
            names = [name for name in names if not name.endswith(".mixer.state")]
        return {Site(name): known[name] for name in names}
    found: dict[Site, Place] = {}
    for text in patterns:
        site = Site.parse(text)
        for place in find(known, site.place):
            found[Site(place.name, site.heads)] = _checked(place, side)
    return found


def _checked(place: Place, side: str) -> Place:
    if not place.name.startswith(f"{side}.") or time_axis(place) is None:
        raise ConfigError(f"{place.name}: does not stand on the words of the text: name a place of the {side}")
    if place.name.endswith((".weights", ".scores")):
        raise ConfigError(f"{place.name}: has no vector for each word: probe {side}.0.residual.after or .mixer.heads")
    return place


def _by_token(site: Site, place: Place, found: Tensor, tokens: int) -> Float[np.ndarray, "T W"]:
    """Return what stands at a site as a vector for each token.

    Raises:
        ConfigError: fewer rows than tokens, as after pooling.
    """
    axis, heads = time_axis(place), head_axis(place)
    assert axis is not None
    if found.shape[axis] < tokens:
        raise ConfigError(f"{place.name}: has {found.shape[axis]} rows for {tokens} tokens: choose another place")
    if site.heads is not None:
        if heads is None or max(site.heads) >= found.shape[heads]:
            count = 0 if heads is None else found.shape[heads]
            raise ConfigError(f"{site}: the place has {count} heads, counted from 0")
        found = found.index_select(heads, torch.tensor(site.heads, device=found.device))
    by_token = found.movedim(axis, 1)[0].float()
    return by_token.reshape(by_token.shape[0], -1).cpu().numpy()


# ---- texts --------------------------------------------------------------------------------------------

Read = tuple[tuple[Tensor, ...], list[tuple[int, ...]], list[str], list[str]]
"""Arguments of the forward; tokens of each example; its word; its label."""


def _read(subject: Subject, example: TaggedText | LabelledText) -> Read:
    if isinstance(example, LabelledText):
        given = subject.inputs(example.text, *_own_target(subject))
        count = len(given.source_tokens or given.tokens)
        return given.arguments, [tuple(range(count))], [example.text.split()[0]], [example.label]
    words = [normalise(word).strip() for word in example.tokens]
    if not all(words):
        raise DataError(f"word {words.index('') + 1} has no letters left after cleaning")
    arguments, spans = words_of(subject, words)
    kept = [i for i, span in enumerate(spans) if span]
    labels = [example.labels[i] for i in kept]
    return arguments, [spans[i] for i in kept], [words[i] for i in kept], labels


def _own_target(subject: Subject) -> tuple[list[int], ...]:
    """Return a target that saves a translator its search: the encoder does not read it."""
    return ([EOS],) if subject.kind == "translator" else ()


def words_of(subject: Subject, words: list[str]) -> tuple[tuple[Tensor, ...], list[tuple[int, ...]]]:
    """Return the model's arguments for a sentence, and the tokens of each word; fewer words where a tagger, which reads
    long sentences in parts, has no room for all.

    Raises:
        DataError: a sentence that the model cannot read.
    """
    tokenizer = subject.source_tokenizer
    assert tokenizer is not None
    head = getattr(subject.model.cfg, "head", None)
    if isinstance(head, TaggingHead):  # which was trained on words that were encoded one by one
        assert isinstance(subject.materials[0], IdMaterial)
        part = next(parts(tokenizer, words, subject.materials[0].longest))
        ends = [*part.first[1:], len(part.ids)]
        whole = [tuple(range(start, end)) for start, end in zip(part.first, ends, strict=True)]
        whole[-1] = whole[-1][:-1] or whole[-1]  # without the end of the text
        return (torch.tensor([part.ids], device=subject.device),), whole
    text = " ".join(words)
    given = subject.inputs(text, *_own_target(subject))
    row = given.arguments[-1] if subject.kind == "translator" else given.arguments[0]
    ids, offsets = tokenizer.encode_with_offsets(text)
    start = _find(row[0].tolist(), ids)
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    spans: list[list[int]] = [[] for _ in words]
    for i, (begin, end) in enumerate(offsets):
        inside = begin + (len(text[begin:end]) - len(text[begin:end].lstrip()))
        if begin < end and inside < end:
            spans[int(np.searchsorted(starts, inside, side="right")) - 1].append(start + i)
    return given.arguments, [tuple(span) for span in spans]


def _find(row: list[int], ids: list[int]) -> int:
    """Return where a text's own tokens begin among those that the model reads."""
    for start in range(len(row) - len(ids) + 1):
        if row[start : start + len(ids)] == ids:
            return start
    raise DataError("its tokens are not those that the model reads: it may be too long")
