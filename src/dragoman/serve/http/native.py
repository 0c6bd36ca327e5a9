"""Our own API in JSON: several candidates with alignments and confidences, glossaries, forced prefixes."""

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from dragoman.config import from_dict, to_dict
from dragoman.decode.constraints.glossary import Glossary, GlossaryEntry
from dragoman.decode.constraints.repetition import MinimumLength, RuleConfig
from dragoman.decode.defaults import BEAM
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig, beams_of
from dragoman.decode.search.speculative import PromptLookup, Speculative
from dragoman.decode.translation import Candidate
from dragoman.decode.translator import Translator
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.guarding import GuardedTranslation
from dragoman.serve.http.languages import ChosenModel
from dragoman.serve.http.languages import detect as best
from dragoman.serve.http.problems import Problem
from dragoman.serve.http.translating import choose_models, translate_chosen
from dragoman.serve.served import ServedModel
from dragoman.serve.service import Call, TranslateOptions

Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Body whose unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class GlossaryRow(Strict):
    """A term of the source with its translations."""

    source: Text
    target: str | list[str] = []
    """Translation, or several of which one must occur."""
    forbidden: str | list[str] = []
    """Translations that must not occur."""


class TranslateBody(Strict):
    """Texts to translate, and how."""

    text: str | list[str]
    """A text of one or more lines, or a list of them."""
    model: str | None = None
    """Name of a model; else source and target choose one."""
    source: str | None = None
    """Language of the texts; ``auto`` detects that of each text."""
    target: str | None = None
    """Language to translate into."""
    nbest: Annotated[int, Field(ge=1)] = 1
    """Candidates for each text, best first."""
    alignments: bool = False
    """Link the words of each candidate to those of its source."""
    prefix: str = ""
    """Beginning of the translation. It may end inside a word."""
    required: list[Annotated[list[str], Field(min_length=1)]] = []
    """Terms that the translation must contain, each with its alternatives."""
    forbidden: list[str] = []
    """Terms that the translation must not contain."""
    glossary: list[GlossaryRow] = []
    """Terms whose translations are fixed."""
    flag_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Confidence below which a translation is marked for review."""
    format: Literal["text", "html"] = "text"
    """``html`` keeps tags and translates what they enclose."""
    search: str | dict[str, Any] | None = None
    """Search with its settings, as in a run file: ``greedy`` or ``{"kind": "beam", "size": 8}``."""
    rules: list[str | dict[str, Any]] = []
    """Constraints on tokens, as in a run file: ``no_repeat``."""
    tags: list[str] = []
    """Tags to put before each text, as in training."""
    deadline: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Seconds after which no answer is wanted any more."""


class TokenAnswer(BaseModel):
    """A token with the logarithm of its probability."""

    text: str
    log_prob: float


class CandidateAnswer(BaseModel):
    """One translation of a text."""

    text: str
    score: float
    log_prob: float
    confidence: float
    truncated: bool
    tokens: list[TokenAnswer]
    alignment: list[tuple[int, int]] | None
    """Pairs of a word of the source and a word of the text, counted from 0; null where none was wanted."""


class TranslationAnswer(BaseModel):
    """A text with its translation."""

    source: str
    text: str
    confidence: float
    review: bool
    """True where a person should look at it."""
    warnings: list[str]
    model: str
    """Model that translated this text."""
    detected: str | None = None
    """Language that was detected."""
    decision: dict[str, Any] | None = None
    """Decision of the safety rules, if there are any."""
    candidates: list[CandidateAnswer]


class TranslateAnswer(BaseModel):
    """Translations in the order of the texts."""

    model: str
    source: str
    target: str
    translations: list[TranslationAnswer]


def answer_of(guarded: GuardedTranslation, chosen: ChosenModel, flag_below: float | None) -> dict[str, Any]:
    """Return a translation as ``TranslationAnswer`` describes it."""
    translation = guarded.translation
    fields: dict[str, Any] = {
        "source": translation.source,
        "text": translation.text,
        "confidence": translation.confidence,
        "review": guarded.needs_review(flag_below),
        "warnings": [warning.partition(": ")[2] or warning for warning in translation.warnings],
        "model": chosen.model.name,
        "candidates": [_candidate(chosen.model, one) for one in translation.candidates],
    }
    if chosen.detected is not None:
        fields["detected"] = chosen.detected.language
    if guarded.decision is not None:
        fields["decision"] = guarded.decision.plain()
    return fields


def _candidate(model: ServedModel, candidate: Candidate) -> dict[str, Any]:
    assert isinstance(model.model, Translator)
    texts = model.model.target_tokenizer.token_texts(candidate.tokens)
    return {
        "text": candidate.text,
        "score": candidate.score,
        "log_prob": candidate.log_prob,
        "confidence": candidate.estimated_confidence,
        "truncated": candidate.truncated,
        "tokens": [
            {"text": text, "log_prob": log_prob}
            for text, log_prob in zip(texts, candidate.token_log_probs, strict=False)
        ],
        "alignment": candidate.alignment,
    }


def options_of(context: ServerContext, body: TranslateBody) -> TranslateOptions:
    """Return the options of a request.

    Raises:
        ConfigError: an unknown search or rule.
        Problem: more candidates or tokens than are allowed.
    """
    context.limits.check_candidates(body.nbest, "nbest")
    search = _search(body)
    if search is not None and body.search is not None:
        _check_draft(search)
        context.limits.check_candidates(beams_of(search), "search")
    rules = tuple(from_dict(RuleConfig, rule, "rules") for rule in body.rules)
    most = context.limits.new_tokens
    if any(isinstance(rule, MinimumLength) and rule.tokens > most for rule in rules):
        raise Problem(422, "invalid_request", f"rules: minimum_length: at most {most:,} tokens", param="rules")
    glossary = Glossary(map(glossary_entry, body.glossary)) if body.glossary else None
    return TranslateOptions(
        search=search, rules=rules or None, glossary=glossary, alignments=body.alignments, tags=tuple(body.tags)
    )


def _check_draft(search: SearchConfig) -> None:
    """Check that a request names no path on the server's disk.

    Raises:
        Problem: a draft model.
    """
    if isinstance(search, Speculative) and not isinstance(search.draft, PromptLookup):
        message = "search.draft: a request cannot name a folder of the server: use prompt_lookup"
        raise Problem(422, "invalid_request", message, param="search")


def _search(body: TranslateBody) -> SearchConfig | None:
    """Return the search of a request, None where it leaves that to the model; ``nbest`` also holds for a search that is
    given without it.

    Raises:
        ConfigError: an unknown search, or one that cannot return so many.
    """
    if body.search is None:
        return None if body.nbest == 1 else Beam(size=max(BEAM, body.nbest), nbest=body.nbest)
    search = from_dict(SearchConfig, body.search, "search")
    if body.nbest == 1 or search.nbest == body.nbest:
        return search
    field = "samples" if isinstance(search, Sample) else "nbest"
    return from_dict(SearchConfig, to_dict(search) | {field: body.nbest}, "search")


def glossary_entry(row: GlossaryRow) -> GlossaryEntry:
    """Return an entry of a glossary.

    Raises:
        Problem: it says nothing.
    """
    targets, forbidden = (
        tuple(term.strip() for term in ([terms] if isinstance(terms, str) else terms) if term.strip())
        for terms in (row.target, row.forbidden)
    )
    if not row.source.strip() or not (targets or forbidden):
        raise Problem(
            422,
            "invalid_request",
            "glossary: an entry needs a source, and a target or something forbidden",
            param="glossary",
        )
    return GlossaryEntry(row.source.strip(), targets, forbidden)


async def translate_body(context: ServerContext, body: TranslateBody, incoming: Incoming[Any]) -> dict[str, Any]:
    """Translate the texts of a body, as /api/translate and /api/live do."""
    texts = [body.text] if isinstance(body.text, str) else body.text
    context.limits.check(texts)
    options = options_of(context, body)
    chosen = await choose_models(context, texts, model=body.model, source=body.source, target=body.target)
    model = chosen[0].model if chosen else context.default
    incoming.count(texts, model.name)
    asked: list[str | Request] = list(texts)
    if body.format == "html" and (body.prefix or body.required or body.forbidden):
        raise Problem(
            422, "invalid_request", "format: prefix, required and forbidden are for plain text", param="format"
        )
    if body.prefix or body.required or body.forbidden:
        required = tuple(map(tuple, body.required))
        wanted = {"prefix": body.prefix, "required": required, "forbidden": tuple(body.forbidden)}
        asked = [Request(text, tags=options.tags, **wanted) for text in texts]
    call = Call(deadline=body.deadline)
    found = await translate_chosen(context, asked, chosen, options, call, html=body.format == "html")
    answers = [answer_of(one, by, body.flag_below) for one, by in zip(found, chosen, strict=True)]
    incoming.notes["reviews"] = sum(answer["review"] for answer in answers)
    return {"model": model.name, "source": model.source, "target": model.target, "translations": answers}


async def translate(context: ServerContext, incoming: Incoming[TranslateBody]) -> Any:
    """Answer POST /api/translate."""
    return await translate_body(context, incoming.body, incoming)


class DetectBody(Strict):
    """Texts whose language is wanted."""

    text: str | list[str]


class DetectedLanguage(BaseModel):
    """Language of a text, with a confidence from 0 to 1."""

    language: str
    confidence: float


class DetectAnswer(RootModel[list[list[DetectedLanguage]]]):
    """Languages of each text, the likeliest first."""


async def detect(context: ServerContext, incoming: Incoming[DetectBody]) -> Any:
    """Answer POST /api/detect."""
    text = incoming.body.text
    texts = [text] if isinstance(text, str) else text
    context.limits.check(texts)
    codes = context.directions.codes
    found = await asyncio.to_thread(lambda: [best(text, codes) for text in texts])
    return [[{"language": one.language, "confidence": one.confidence}] for one in found]


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/api/translate",
        summary="Translate texts",
        handler=translate,
        body=TranslateBody,
        answer=TranslateAnswer,
        statuses=(404, 501),
    ),
    Endpoint(
        method="POST",
        path="/api/detect",
        summary="Detect the language of each text",
        handler=detect,
        body=DetectBody,
        answer=DetectAnswer,
        statuses=(501,),
    ),
]
