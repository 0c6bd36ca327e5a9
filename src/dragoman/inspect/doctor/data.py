"""Data: test examples that were trained on, and tokenizers that do not give a text back."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.subject import ExaminedModel

DATA = "(data)"
TEXTS = (
    "Hello, world!",
    " two  spaces and\ta tab ",
    "Ein Straßencafé für 3,50 €",
    "naïve façade — “quoted” …",
    "日本語 и русский",
    "a@b.c {x} %s <b>bold</b> & 1_000",
    "🙂",
)
"""Texts that tokenizers are tried on: spaces, accents, scripts, signs."""


def key(example: Any) -> Any:
    """Return what tells an example from others."""
    if isinstance(example, Tensor):
        return tuple(example.flatten().tolist())
    if isinstance(example, str | bytes):
        return example.strip()
    if isinstance(example, Iterable):
        return tuple(key(part) for part in example)
    return example


class TrainTestOverlap(DoctorCheck[ExaminedModel]):
    """Test examples that are among the training examples."""

    name = "train and test"
    asks = "Are test examples among the training examples?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        train, test = subject.facts.train, subject.facts.test
        if train is None or not test:
            raise NotApplicable("no training and test examples are known: pass a run, or train= and test=")
        wanted = {key(example) for example in test}
        seen = wanted & {key(example) for example in train}
        if not seen:
            return
        count = sum(key(example) in seen for example in test)
        share = count / len(test)
        yield self.finding(
            Severity.error if share > 0.01 else Severity.warning,
            "held-out examples were trained on",
            evidence=f"{count} of {len(test)} held-out examples ({share:.1%}) are training examples, too; for example "
            f"{str(next(iter(seen)))[:80]!r}",
            numbers={"overlap": count, "test": len(test)},
            cause="the same text was split twice, or duplicates were spread over both",
            remedy="remove duplicates before splitting (dragoman data dedupe, dragoman data split)",
            where=DATA,
        )


class TokenizerRoundTrip(DoctorCheck[ExaminedModel]):
    """Texts that change when they are encoded and decoded."""

    name = "tokenizer"
    asks = "Does the tokenizer give each text back?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        tokenizers = subject.facts.tokenizer
        if tokenizers is None:
            raise NotApplicable("no tokenizer is known: pass a run, or tokenizer=")
        each = list(dict.fromkeys(tokenizers)) if isinstance(tokenizers, tuple | list) else [tokenizers]
        texts = [*subject.facts.texts, *TEXTS]
        for tokenizer in each:
            changed = [(text, back) for text in texts if (back := round_trip(tokenizer, text)) != text]
            if changed:
                yield self._changed(changed, texts, len(subject.facts.texts))

    def _changed(self, changed: Sequence[tuple[str, str]], texts: Sequence[str], own: int) -> Finding:
        text, back = changed[0]
        among = {text for text, _ in changed} & set(texts[:own])
        words = [t for t, b in changed if "".join(t.split()).lower() != "".join(b.split()).lower()]
        return self.finding(
            Severity.error if among or len(words) == len(texts) else Severity.warning if words else Severity.note,
            "the tokenizer does not give texts back",
            evidence=f"{len(changed)} of {len(texts)} texts change; for example {text!r} becomes {back!r}",
            numbers={"changed": len(changed), "texts": len(texts)},
            cause="unknown characters, lower case, or spaces that are not kept",
            remedy="use a tokenizer on bytes or with byte fallback; what it cannot write, the model can never answer",
            where="(tokenizer)",
        )


def round_trip(tokenizer: Any, text: str) -> str:
    """Return a text encoded and decoded, special tokens left out."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=False)
    except TypeError:
        ids = tokenizer.encode(text)
    return tokenizer.decode(getattr(ids, "ids", ids))
