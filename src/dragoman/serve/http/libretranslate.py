"""LibreTranslate's API, so that its clients work unchanged: libretranslatepy, Weblate, browser extensions."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.responses import Response

from dragoman.decode.defaults import BEAM
from dragoman.decode.search.beam import Beam
from dragoman.serve.http.bodies import FORM, JSON, MULTIPART
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.files import EXTENSIONS, file_name
from dragoman.serve.http.guarding import GuardedTranslation
from dragoman.serve.http.languages import AUTO, ChosenModel, Detected, detect, language_name
from dragoman.serve.http.problems import Problem
from dragoman.serve.http.translating import choose_models, translate_chosen
from dragoman.serve.http.uploads import OF_RESULTS, result_response
from dragoman.serve.service import Call, TranslateOptions

SETTINGS: dict[str, Any] = {"style": "libretranslate", "reads": (JSON, FORM)}
FRONTEND_TIMEOUT = 500
"""Milliseconds that a page of LibreTranslate waits after a key is pressed."""


class Lenient(BaseModel):
    """Body whose unknown fields are ignored, as LibreTranslate does."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)


Language = Annotated[str, Field(pattern=r"\S")]
"""Code of a language."""
Texts = Annotated[list[str], Field(min_length=1)]


class LibreTranslateBody(Lenient):
    """Texts to translate."""

    q: str | Texts
    """A text, or a list of texts."""
    source: Language
    """Language of the text; ``auto`` detects that of each text."""
    target: Language
    """Language to translate into."""
    format: Literal["text", "html"] | None = "text"
    """``html`` keeps tags and translates what they enclose."""
    alternatives: Annotated[int, Field(ge=0)] | None = 0
    """Other translations that are wanted for each text."""
    api_key: str | None = None


class DetectedAnswer(BaseModel):
    """Language of a text, with a confidence from 0 to 100."""

    language: str
    confidence: float


class LibreTranslateAnswer(BaseModel):
    """Translations: a text for a text, a list for a list."""

    translatedText: str | list[str]
    detectedLanguage: DetectedAnswer | list[DetectedAnswer] | None = None
    alternatives: list[str] | list[list[str]] | None = None


async def translate(context: ServerContext, incoming: Incoming[LibreTranslateBody]) -> Any:
    """Answer POST /translate."""
    body = incoming.body
    single = isinstance(body.q, str)
    texts: list[str] = [body.q] if isinstance(body.q, str) else body.q
    context.limits.check(texts)
    wanted = body.alternatives or 0
    context.limits.check_candidates(wanted, "alternatives")
    chosen = await choose_models(context, texts, model=None, source=body.source, target=body.target)
    incoming.count(texts, chosen[0].model.name if chosen else "")
    html = body.format == "html"
    found = await translate_chosen(context, texts, chosen, TranslateOptions(), Call(), html=html)
    incoming.notes["reviews"] = sum(one.needs_review() for one in found)
    answer: dict[str, Any] = {"translatedText": [one.translation.text for one in found]}
    if body.source == AUTO:
        answer["detectedLanguage"] = [_detected(one) for one in chosen]
    if wanted:
        answer["alternatives"] = await _alternatives(context, texts, chosen, found, wanted, html)
    return {name: value[0] for name, value in answer.items()} if single else answer


async def _alternatives(
    context: ServerContext,
    texts: Sequence[str],
    chosen: Sequence[ChosenModel],
    best: Sequence[GuardedTranslation],
    wanted: int,
    html: bool,
) -> list[list[str]]:
    """Return other translations of each text. They are searched for apart: a search for many finds another best one.

    A text that the safety page decided about is not asked again: it would be counted, and handed over, twice.
    """
    options = TranslateOptions(search=Beam(size=max(BEAM, wanted + 1), nbest=wanted + 1))
    rows = [row for row, one in enumerate(best) if one.decision is None]
    own = [texts[row] for row in rows], [chosen[row] for row in rows]
    again = dict(zip(rows, await translate_chosen(context, *own, options, Call(), html=html), strict=True))
    return [_others(again.get(row, first), first.translation.text)[:wanted] for row, first in enumerate(best)]


def _others(found: GuardedTranslation, first: str) -> list[str]:
    if found.withheld:
        return []
    return [other.text for other in found.translation.candidates if other.text != first]


def _detected(chosen: ChosenModel) -> dict[str, Any]:
    found = chosen.detected or Detected(chosen.model.source, 1.0)
    return {"language": found.language, "confidence": round(100 * found.confidence, 1)}


# ---- languages ----------------------------------------------------------------------------------------


class LanguageAnswer(BaseModel):
    """A language, with those that it can be translated into."""

    code: str
    name: str
    targets: list[str]


class LanguagesAnswer(RootModel[list[LanguageAnswer]]):
    """All languages."""


async def languages(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /languages: those that can be translated from, and those that can only be translated into."""
    directions = context.directions
    return [
        {"code": code, "name": language_name(code), "targets": directions.sources.get(code, [])}
        for code in directions.codes
    ]


class LibreDetectBody(Lenient):
    """Text whose language is wanted."""

    q: str | Texts
    api_key: str | None = None


class LibreDetectAnswer(RootModel[list[DetectedAnswer] | list[list[DetectedAnswer]]]):
    """Languages of a text, the likeliest first; for a list of texts, those of each."""


async def detect_language(context: ServerContext, incoming: Incoming[LibreDetectBody]) -> Any:
    """Answer POST /detect: for a list, the language of each of its texts."""
    q = incoming.body.q
    texts = [q] if isinstance(q, str) else q
    context.limits.check(texts)
    codes = context.directions.codes
    found = await asyncio.to_thread(lambda: [detect(text, codes) for text in texts])
    answers = [[{"language": one.language, "confidence": round(100 * one.confidence, 1)}] for one in found]
    return answers[0] if isinstance(q, str) else answers


# ---- files ----------------------------------------------------------------------------------------------


class LibreFileBody(Lenient):
    """Languages of a file."""

    source: Language
    target: Language
    api_key: str | None = None


class LibreFileAnswer(BaseModel):
    """Address of the translated file."""

    translatedFileUrl: str


async def translate_file(context: ServerContext, incoming: Incoming[LibreFileBody]) -> Any:
    """Answer POST /translate_file: the address of the translated file, once it is translated."""
    assert incoming.file is not None
    body = incoming.body
    model = context.directions.for_file(body.source, body.target)
    name = file_name(incoming.file.filename)
    content = await incoming.file.read()
    incoming.count([], model.name)
    job = context.files.start(name, content, model, body.target, incoming.key)
    await context.files.wait(job)
    context.files.result(job)
    url = incoming.http.url_for("download_file", filename=quote(f"{job.id}.{job.result_name}"))
    return {"translatedFileUrl": str(url)}


async def download_file(context: ServerContext, incoming: Incoming[Any]) -> Response:
    """Answer GET /download_file/NAME."""
    return result_response(context, incoming.http.path_params["filename"].partition(".")[0])


# ---- the rest -------------------------------------------------------------------------------------------


class HealthAnswer(BaseModel):
    """State of the server."""

    status: Literal["ok"]


async def health(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /health."""
    return {"status": "ok"}


class FrontendSettingsAnswer(BaseModel):
    """Settings of a page of LibreTranslate."""

    apiKeys: bool
    charLimit: int
    filesTranslation: bool
    frontendTimeout: int
    keyRequired: bool
    language: dict[str, dict[str, str]]
    suggestions: bool
    supportedFilesFormat: list[str]


async def frontend_settings(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /frontend/settings."""
    models = context.directions.models
    source, target = (models[0].source, models[0].target) if models else ("", "")
    return {
        "apiKeys": bool(context.keys),
        "charLimit": context.limits.characters,
        "filesTranslation": True,
        "frontendTimeout": FRONTEND_TIMEOUT,
        "keyRequired": bool(context.keys),
        "language": {
            "source": {"code": source, "name": language_name(source)},
            "target": {"code": target, "name": language_name(target)},
        },
        "suggestions": context.suggestions is not None,
        "supportedFilesFormat": list(EXTENSIONS),
    }


class SuggestBody(Lenient):
    """A better translation of a text."""

    q: str
    """Text."""
    s: str
    """Its better translation."""
    source: Language
    target: Language
    api_key: str | None = None


class SuggestAnswer(BaseModel):
    """Success of a suggestion."""

    success: bool


async def suggest(context: ServerContext, incoming: Incoming[SuggestBody]) -> Any:
    """Answer POST /suggest."""
    if (suggestions := context.suggestions) is None:
        raise Problem(403, "disabled", "suggestions are not taken by this server")
    body = incoming.body
    context.limits.check([body.q, body.s])
    given = {"source": body.source, "target": body.target, "text": body.q, "suggestion": body.s}
    await asyncio.to_thread(suggestions.add, **given)
    return {"success": True}


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/translate",
        summary="Translate texts",
        handler=translate,
        body=LibreTranslateBody,
        answer=LibreTranslateAnswer,
        statuses=(501,),
        **SETTINGS,
    ),
    Endpoint(
        method="POST",
        path="/detect",
        summary="Detect a language",
        handler=detect_language,
        body=LibreDetectBody,
        answer=LibreDetectAnswer,
        statuses=(501,),
        **SETTINGS,
    ),
    Endpoint(
        method="GET",
        path="/languages",
        summary="List the languages",
        handler=languages,
        answer=LanguagesAnswer,
        open=True,
        style="libretranslate",
    ),
    Endpoint(
        method="POST",
        path="/translate_file",
        summary="Translate a file",
        handler=translate_file,
        body=LibreFileBody,
        answer=LibreFileAnswer,
        reads=(MULTIPART,),
        style="libretranslate",
    ),
    Endpoint(
        method="GET",
        path="/download_file/{filename}",
        summary="Get a translated file",
        handler=download_file,
        while_draining=True,
        answers_with=("application/octet-stream",),
        statuses=OF_RESULTS,
        open=True,
        style="libretranslate",
    ),
    Endpoint(
        method="POST",
        path="/suggest",
        summary="Suggest a better translation",
        handler=suggest,
        body=SuggestBody,
        answer=SuggestAnswer,
        **SETTINGS,
    ),
    Endpoint(
        method="GET",
        path="/health",
        summary="Tell whether requests are answered",
        handler=health,
        answer=HealthAnswer,
        open=True,
        style="libretranslate",
    ),
    Endpoint(
        method="GET",
        path="/frontend/settings",
        summary="Tell what a page needs to know",
        handler=frontend_settings,
        answer=FrontendSettingsAnswer,
        open=True,
        style="libretranslate",
    ),
]
