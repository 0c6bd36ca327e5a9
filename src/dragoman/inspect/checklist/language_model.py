"""Checklist of a language model: perplexity, what changes of a text cost, how it continues, and length."""

from collections.abc import Iterator, Sequence
from typing import Any

from dragoman.decode.generator import Generator
from dragoman.errors import DataError
from dragoman.evaluate.language_modelling import (
    EncodedDocument,
    context_of,
    documents_for,
    encode_documents,
    evaluate,
)
from dragoman.inspect.checklist import perturbations
from dragoman.inspect.checklist.material import ChecklistSettings
from dragoman.inspect.checklist.perturbations import Perturbation
from dragoman.inspect.checklist.quality import repeats
from dragoman.inspect.checklist.row import (
    ChecklistRow,
    ChecklistTable,
    below,
    counted,
    example,
    unmeasured,
)

QUALITY, ROBUSTNESS, TEXT = "Quality", "Robustness", "Text"
TOKENS = 40
"""Tokens that the model writes after each prompt."""
PROMPTS = 24
SHOWN = 3
FEWEST = 5
"""Fewest passages that a change must apply to."""
STAYS: tuple[tuple[str, Perturbation, tuple[float, float]], ...] = (
    ("Capital letters", perturbations.upper, (0.5, 1.5)),
    ("Small letters", perturbations.lower, (0.1, 0.3)),
    ("Typing errors", perturbations.typos, (0.2, 0.5)),
    ("Doubled spaces", perturbations.spacing, (0.3, 1.0)),
)
"""Title, change, and how many bits a byte it may cost."""


class _Texts:
    """A language model with passages of its test text."""

    def __init__(self, settings: ChecklistSettings, config: dict[str, Any], test: str | None):
        self.generator = Generator.load(settings.run, settings.checkpoint, device=settings.device)
        self.named = test or "the validation text"
        self.documents = documents_for(settings.run, test, self.generator.tokenizer)[: settings.sentences]
        if not self.documents:
            raise DataError("the test set has no text: name another with --test")
        self.context = context_of(config)
        self.passages = list(self._passages(settings.sample))

    def _passages(self, most: int) -> Iterator[str]:
        """Yield passages of up to 400 characters, spread over the documents."""
        share = max(1, most // len(self.documents))
        for one in self.documents[:most]:
            text = self.generator.tokenizer.decode([i for i in one.ids if i not in self.generator.tokenizer.marks])
            starts = range(0, max(1, len(text) - 200), max(400, len(text) // share))
            yield from (
                text[start : start + 400] for start in list(starts)[:share] if text[start : start + 400].strip()
            )

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        documents = encode_documents(texts, self.generator.tokenizer)
        return evaluate(self.generator, documents, context=self.context).scores["bits_per_byte"].value


def rows(settings: ChecklistSettings, config: dict[str, Any], test: str | None) -> Iterator[ChecklistRow]:
    """Yield the rows on a language model.

    Raises:
        ConfigError, DataError: no text to measure on.
    """
    texts = _Texts(settings, config, test)
    yield _overall(texts)
    yield _continuations(texts)
    for title, change, limits in STAYS:
        yield _cost(texts, title, change, limits)
    yield _by_position(texts)


def _overall(texts: _Texts) -> ChecklistRow:
    found = evaluate(texts.generator, texts.documents, context=texts.context)
    bits, word = found.scores["bits_per_byte"], found.scores.get("perplexity_word")
    low, high = bits.interval
    return ChecklistRow(
        group=QUALITY,
        title="On the whole",
        verdict=below(bits.value, 1.6, 2.4),
        finding=f"{bits.value:.2f} bits a byte ({low:.2f} to {high:.2f})"
        + (f", perplexity {word.value:,.0f} a word." if word else "."),
        measured=f"{int(found.documents[:, 1].sum()):,} tokens of {texts.named}",
        limits="good up to 1.6 bits a byte, poor beyond 2.4: a rule of thumb for prose; small models have more",
    )


def _cost(texts: _Texts, title: str, change: Perturbation, limits: tuple[float, float]) -> ChecklistRow:
    pairs = [(text, after) for text in texts.passages if (after := change(text)) is not None]
    if len(pairs) < FEWEST:
        return unmeasured(ROBUSTNESS, title, f"It applies to {len(pairs)} passages, too few to say anything.")
    plain, changed = (texts.bits_per_byte([pair[side] for pair in pairs]) for side in (0, 1))
    return ChecklistRow(
        group=ROBUSTNESS,
        title=title,
        verdict=below(changed - plain, *limits),
        finding=f"It costs {changed - plain:+.2f} bits a byte ({plain:.2f} to {changed:.2f}).",
        measured=f"{counted(len(pairs), 'passage')} of {texts.named}",
        limits=f"good up to {limits[0]:g} bits a byte, poor beyond {limits[1]:g}",
        examples=(example(text=pairs[0][1][:160]),),
    )


def _continuations(texts: _Texts) -> ChecklistRow:
    from dragoman.decode.search.greedy import Greedy

    title, prompts = "Continuations", [text[:80] for text in texts.passages[:PROMPTS]]
    if not prompts:
        return unmeasured(QUALITY, title, "The test text has no passage to begin with.")
    answers = texts.generator.generate(prompts, search=Greedy(), max_new_tokens=TOKENS)
    looping = [k for k, answer in enumerate(answers) if repeats(answer.text)]
    empty = sum(not answer.text.strip() for answer in answers)
    degenerate = len(looping) + empty
    return ChecklistRow(
        group=QUALITY,
        title=title,
        verdict=below(degenerate / len(answers), 0.05, 0.25),
        finding=f"{len(looping)} of {len(answers)} greedy continuations repeat themselves; {empty} are empty.",
        measured=f"{len(answers)} beginnings of {texts.named}, {TOKENS} tokens each",
        limits="good up to 5%, poor beyond 25%; sampling and no_repeat help",
        examples=tuple(example(beginning=prompts[k], continuation=answers[k].text) for k in looping[:SHOWN]),
    )


def _by_position(texts: _Texts) -> ChecklistRow:
    title = "Longer than in training"
    limit = texts.generator.model.max_length
    long = [one for one in texts.documents if len(one.ids) > 2 * texts.context]
    if not long and sum(len(one.ids) for one in texts.documents) > 4 * texts.context:
        long = [_joined(texts.documents)]
    if limit is not None or not long:
        why = f"The model reads at most {limit:,} tokens." if limit is not None else "The test text is too short."
        return unmeasured(TEXT, title, why)
    figures = []
    for times in (1, 2, 4):
        found = evaluate(texts.generator, long[:8], context=texts.context * times)
        figures.append((times, found.scores["bits_per_byte"].value))
    worse = figures[-1][1] - figures[0][1]
    return ChecklistRow(
        group=TEXT,
        title=title,
        verdict=below(worse, 0.05, 0.3),
        finding=f"{figures[0][1]:.2f} bits a byte in pieces of {texts.context:,} tokens, as in training, "
        f"{figures[-1][1]:.2f} in pieces four times as long.",
        measured=f"{counted(len(long[:8]), 'text')} of {texts.named}",
        limits="good if longer pieces cost at most 0.05 bits a byte, poor beyond 0.3",
        tables=(
            ChecklistTable(
                ("tokens at once", "bits a byte"), tuple((f"{texts.context * n:,}", f"{b:.3f}") for n, b in figures)
            ),
        ),
    )


def _joined(documents: Sequence[EncodedDocument]) -> EncodedDocument:
    ids = [i for one in documents for i in one.ids]
    size, words = (sum(getattr(one, name) for one in documents) for name in ("bytes", "words"))
    return EncodedDocument(ids, size, words, documents[0].prompt)
