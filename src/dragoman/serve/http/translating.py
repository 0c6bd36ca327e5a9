"""Translating the texts of a request: the model of each text, plain text or HTML, and the answers in their order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from dragoman.decode.request import Request
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translation import Candidate, Translation
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.guarding import GuardedTranslation, Rows, guard_translations
from dragoman.serve.http.html_text import HtmlText
from dragoman.serve.http.languages import AUTO, ChosenModel, base, check_languages
from dragoman.serve.service import Call, TranslateOptions


async def choose_models(
    context: ServerContext, texts: Sequence[str], *, model: str | None, source: str | None, target: str | None
) -> list[ChosenModel]:
    """Return the model for each text: the named one, or one for its languages; each text's language is detected by
    itself.

    Raises:
        UnknownModel: no such model or pair of languages.
        Problem: a named model of other languages than those that are stated.
    """
    directions = context.directions
    if model is not None:
        named = context.model(model)
        check_languages(named, source, target)
        return [ChosenModel(named)] * len(texts)
    if source == AUTO or (source is None and target is not None):
        return await asyncio.to_thread(lambda: [directions.for_text(text, target or "") for text in texts])
    if source is None or target is None:
        return [ChosenModel(directions.first(source))] * len(texts)
    if not target or base(source) == base(target):
        return [directions.same(source, target)] * len(texts)
    return [ChosenModel(directions.between(source, target))] * len(texts)


async def translate_chosen(
    context: ServerContext,
    texts: Sequence[str | Request],
    chosen: Sequence[ChosenModel],
    options: TranslateOptions,
    call: Call,
    *,
    html: bool = False,
) -> list[GuardedTranslation]:
    """Translate each text with its model, as far as the safety page allows it; return the translations in the order of
    the texts.

    Raises:
        Overloaded, Draining: the request is not taken.
    """

    async def ask(rows: Rows, search: SearchConfig | None) -> list[Translation]:
        safer = options if search is None else replace(options, search=search)
        own = [texts[row] for row in rows], [chosen[row] for row in rows]
        return await _translate_by_model(context, *own, safer, admitted, html)

    plain = [text.text if isinstance(text, Request) else text for text in texts]
    with context.service.place(call) as admitted:
        return await guard_translations(context.safety, plain, ask)


async def _translate_by_model(
    context: ServerContext,
    texts: Sequence[str | Request],
    chosen: Sequence[ChosenModel],
    options: TranslateOptions,
    call: Call,
    html: bool,
) -> list[Translation]:
    groups: dict[str, Rows] = {}
    for row, one in enumerate(chosen):
        if not one.unchanged:
            groups.setdefault(one.model.name, []).append(row)

    async def translate_group(name: str, rows: Rows) -> list[Translation]:
        group = [texts[row] for row in rows]
        if html:
            return await _translate_html(context, name, group, options, call)
        return await context.service.translate(name, group, options, call)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = {name: tasks.create_task(translate_group(name, rows)) for name, rows in groups.items()}
    except ExceptionGroup as several:
        raise several.exceptions[0] from None  # what is wrong with one model's texts; the others are cancelled
    found = {row: _unchanged(row + 1, texts[row]) for row, one in enumerate(chosen) if one.unchanged}
    for name, rows in groups.items():
        found |= {row: replace(one, row=row + 1) for row, one in zip(rows, running[name].result(), strict=True)}
    return [found[row] for row in range(len(texts))]


def _unchanged(row: int, text: str | Request) -> Translation:
    same = text.text if isinstance(text, Request) else text
    return Translation(row, same, (Candidate(same, 0.0, 0.0, (), (), False),))


async def _translate_html(
    context: ServerContext, name: str, texts: Sequence[str | Request], options: TranslateOptions, call: Call
) -> list[Translation]:
    """Translate what HTML texts show, and keep their tags."""
    plain = [text.text if isinstance(text, Request) else text for text in texts]
    pages = await asyncio.to_thread(lambda: [HtmlText(text) for text in plain])
    found = iter(await context.service.translate_slots(name, [page.slots for page in pages], options, call))

    def filled() -> list[Translation]:
        return [page.filled(row, [next(found) for _ in page.slots]) for row, page in enumerate(pages, 1)]

    return await asyncio.to_thread(filled)
