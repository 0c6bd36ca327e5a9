"""Long texts, and what must survive translation: does quality hold beyond the training lengths, and what is lost?"""

import itertools

import numpy as np

from dragoman.inspect.checklist.material import TranslatorMaterial, by_tags, chrf_of
from dragoman.inspect.checklist.row import (
    ChecklistRow,
    ChecklistTable,
    above,
    below,
    counted,
    example,
    percent,
    unmeasured,
)
from dragoman.text.invariants import find_changes, find_numbers
from dragoman.text.lines import Sourced
from dragoman.text.placeholders import find_placeholders, placeholders_preserved

GROUP = "Text"
TIMES = (1, 2, 4, 8)
"""Lengths of texts, as multiples of the longest usual training length."""
TEXTS = 20
"""Texts of each length."""
SHOWN = 3
FEWEST = 10
"""Fewest test sentences with a placeholder; with fewer, placeholders are put into others."""


def length_extrapolation(material: TranslatorMaterial) -> ChecklistRow:
    """Return quality of texts that are longer than those of training, put together from test sentences."""
    title = "Longer than in training"
    usual = _usual_length(material)
    if usual is None:
        return unmeasured(GROUP, title, "The run's training text is gone, so its lengths are not known.")
    rows = []
    for times in TIMES:
        pairs = _joined(material, usual * times)
        answers, references = material.translate(pairs, split_sentences=False), [pair.target for pair in pairs]
        cut = sum(answer.candidates[0].truncated for answer in answers)
        ratio = sum(len(a.text) for a in answers) / max(1, sum(map(len, references)))
        rows.append((times, len(pairs), chrf_of([a.text for a in answers], references), ratio, cut))
    fall = rows[0][2] - rows[-1][2]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=below(fall, 6, 15),
        finding=f"chrF goes from {rows[0][2]:.1f} at the usual longest length to {rows[-1][2]:.1f} at "
        f"{TIMES[-1]} times as long.",
        measured=f"{TEXTS} texts of each length, put together from {material.named} and translated in one piece; "
        f"95% of the training sources have up to {usual} tokens",
        limits="good if chrF falls by at most 6, poor beyond 15",
        tables=(
            ChecklistTable(
                ("length", "texts", "chrF", "length of the answer, by that of the reference", "ended by force"),
                tuple((f"{n} times", str(count), f"{s:.1f}", f"{r:.2f}", str(cut)) for n, count, s, r, cut in rows),
            ),
        ),
    )


def _usual_length(material: TranslatorMaterial) -> int | None:
    if material.corpus is None or not len(material.corpus):
        return None
    return max(4, int(np.percentile(np.asarray(material.corpus.source.lengths), 95)))


def _joined(material: TranslatorMaterial, tokens: int) -> list[Sourced]:
    """Return texts of about this many tokens with their references, each of pairs with the same tags."""
    encode = material.lines.translator.source_tokenizer.encode
    whole = [pair for pair in material.test if len(pair.source.split()) >= 3] or material.test
    sources = [itertools.cycle([whole[i] for i in rows]) for rows in by_tags(whole).values()]
    texts = list[Sourced]()
    for pairs in itertools.islice(itertools.cycle(sources), TEXTS):
        parts, size = list[Sourced](), 0
        while size < tokens:
            parts.append(next(pairs))
            size += len(encode(parts[-1].source))
        source, target = (" ".join(getattr(part, side) for part in parts) for side in ("source", "target"))
        texts.append(parts[0]._replace(source=source, target=target))
    return texts


def placeholders_kept(material: TranslatorMaterial) -> ChecklistRow:
    """Return how many texts with placeholders keep them all, and how many of those had to stay as they were."""
    title = "Placeholders"
    rows = [i for i, pair in enumerate(material.test) if find_placeholders(pair.source)]
    if len(rows) >= FEWEST:
        sources, answers = [material.test[i].source for i in rows], [material.answers[i].text for i in rows]
        given = f"{counted(len(rows), 'sentence')} of {material.named} that hold one"
    else:
        chosen = [material.test[i] for i in material.sample[:50] if len(material.test[i].source.split()) > 2]
        asked = [pair._replace(source=_with_placeholder(pair.source, i)) for i, pair in enumerate(chosen)]
        sources, answers = [pair.source for pair in asked], [answer.text for answer in material.translate(asked)]
        given = f"{counted(len(sources), 'sentence')} of {material.named}, with a placeholder put into each"
    if not sources:
        return unmeasured(GROUP, title, "The test set has no sentence for it.")
    kept = [
        placeholders_preserved(find_placeholders(s), find_placeholders(a))
        for s, a in zip(sources, answers, strict=True)
    ]
    left = sum(s == a for s, a in zip(sources, answers, strict=True))
    share = sum(kept) / len(kept)
    lost = [k for k, one in enumerate(kept) if not one]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict="poor" if share < 1 else below(left / len(kept), 0.05, 0.15),
        finding=f"{percent(share)} of the answers have exactly the placeholders of their text; "
        f"{percent(left, len(kept))} were left untranslated to keep them.",
        measured=given,
        limits="poor if one is lost; good if at most 5% are left untranslated, poor beyond 15%",
        examples=tuple(example(source=sources[k], answer=answers[k]) for k in lost[:SHOWN]),
    )


def _with_placeholder(text: str, number: int) -> str:
    words, kind = text.split(), ("{name}", "%s", "<b>", "${count}")[number % 4]
    middle = len(words) // 2
    if kind == "<b>":
        return " ".join([*words[:middle], f"<b>{words[middle]}</b>", *words[middle + 1 :]])
    return " ".join([*words[:middle], kind, *words[middle:]])


def numbers_kept(material: TranslatorMaterial) -> ChecklistRow:
    """Return how many texts with numbers have the same ones in their answer."""
    title = "Numbers and signs"
    rows = [i for i, pair in enumerate(material.test) if find_numbers(pair.source)]
    if not rows:
        return unmeasured(GROUP, title, "The test set has no sentence with a number.")
    wrong = [i for i in rows if find_changes(material.test[i].source, material.answers[i].text)]
    kept = 1 - len(wrong) / len(rows)
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=above(kept, 0.98, 0.9),
        finding=f"{percent(kept)} of the answers have exactly the numbers and signs of their text.",
        measured=f"{counted(len(rows), 'sentence')} of {material.named} that hold one",
        limits="good from 98%, poor below 90%",
        examples=tuple(example(source=material.test[i].source, answer=material.answers[i].text) for i in wrong[:SHOWN]),
    )
