"""Generating for OpenAI's API: its settings as ours, its prompts, and the tokens that it counts."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dragoman.decode.chat_template import ChatTemplate, find_chat_template
from dragoman.decode.constraints.repetition import CountPenalty, RepetitionPenalty, RuleConfig
from dragoman.decode.generator import Generator
from dragoman.decode.prompt import EncodedPrompt
from dragoman.errors import UserError
from dragoman.serve.engine.requests import Likeliest
from dragoman.serve.errors import WrongTask
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.openai_api.bodies import GenerationBody
from dragoman.serve.http.problems import Problem
from dragoman.serve.served import ServedModel
from dragoman.serve.service import Call, GenerateOptions, Piece
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

log = logging.getLogger("dragoman.serve")
Prompt = str | EncodedPrompt
STOPS = 16
"""Most stop texts."""
AHEAD = 64
"""Pieces of a stream that wait for a client that reads slowly."""


def generator_of(context: ServerContext, name: str) -> tuple[ServedModel, Generator]:
    """Return a language model by its name.

    Raises:
        UnknownModel: there is none.
        WrongTask: it is none.
    """
    served = context.model(name)
    if not isinstance(served.model, Generator):
        other = ": send it to /api/translate" if served.task == "translate" else ""
        raise WrongTask(f"the model {name!r} is for the task {served.task}, and continues no text{other}")
    return served, served.model


_TEMPLATES: WeakKeyDictionary[Generator, ChatTemplate | None] = WeakKeyDictionary()


def template_of(served: ServedModel) -> ChatTemplate | None:
    """Return the chat template of a model, which is read once; None if it has none. Its messages name the model, not a
    file of the server.

    Raises:
        Problem: it cannot be read; the log says why.
    """
    if not isinstance(served.model, Generator):
        return None
    if served.model not in _TEMPLATES:
        where = f"the chat template of the model {served.name!r}"
        try:
            template = find_chat_template(served.path)
        except UserError as error:
            log.error("%s: %s", where, error)
            raise Problem(500, "internal_error", f"{where} cannot be read: the log of the server says why") from None
        if template is not None:
            template.where = where
        _TEMPLATES[served.model] = template
    return _TEMPLATES[served.model]


def refuse(**fields: Any) -> None:
    """Refuse fields that are set and not supported.

    Raises:
        Problem: one of them is set.
    """
    for name, value in fields.items():
        if value:
            raise Problem(422, "unsupported", f"{name}: not supported by this server: leave it out", param=name)


def options_of(context: ServerContext, generator: Generator, body: GenerationBody, most: int | None) -> GenerateOptions:
    """Return the options of a request; where it says nothing, the model's own settings hold.

    Raises:
        Problem: a setting that is not supported, or beyond a limit.
    """
    refuse(logit_bias=body.logit_bias)
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stops) > STOPS or "" in stops:
        raise Problem(422, "invalid_request", f"stop: at most {STOPS} texts, none of them empty", param="stop")
    context.limits.check_candidates(body.n or 1, "n")
    if most is not None and most > context.limits.new_tokens:
        message = f"max_tokens: at most {context.limits.new_tokens:,}, got {most:,}"
        raise Problem(422, "invalid_request", message, param="max_tokens")
    held = generator.defaults.with_sampling(_sampling(body)).with_rules(_rules(body))
    return GenerateOptions(held.search, most, stop=(*held.stop, *stops), rules=held.rules)


def _sampling(body: GenerationBody) -> dict[str, Any]:
    """Return the settings of sampling that a request states, and a seed, without which equal requests would have equal
    answers."""
    names = ("temperature", "top_p", "top_k", "min_p", "seed")
    given = {name: value for name in names if (value := getattr(body, name)) is not None}
    return given | {"seed": given.get("seed", secrets.randbits(62)) % 2**63}


def _rules(body: GenerationBody) -> list[RuleConfig]:
    """Return the rules that a request states."""
    rules: list[RuleConfig] = []
    if body.presence_penalty is not None or body.frequency_penalty is not None:
        rules.append(CountPenalty(presence=body.presence_penalty or 0.0, frequency=body.frequency_penalty or 0.0))
    if body.repetition_penalty is not None:
        rules.append(RepetitionPenalty(factor=body.repetition_penalty))
    return rules


def prompt_tokens(generator: Generator, prompt: Prompt) -> int:
    """Return the number of tokens that the model reads for a prompt."""
    return len(generator.prompts.ids(prompt))


class TokenLogs(NamedTuple):
    """Tokens of an answer that spell its text, with their log-probabilities."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    likeliest: tuple[Likeliest, ...] = ()
    """Most probable tokens in the place of each, best first; empty where they were not asked for."""

    def before(self, count: int) -> "TokenLogs":
        """Return the first ``count`` of them."""
        return TokenLogs(self.tokens[:count], self.log_probs[:count], self.likeliest[:count])

    def followed_by(self, more: "TokenLogs") -> "TokenLogs":
        """Return these and then ``more``."""
        return TokenLogs(self.tokens + more.tokens, self.log_probs + more.log_probs, self.likeliest + more.likeliest)


def without_end(generator: Generator, logs: TokenLogs, ends: Sequence[int]) -> TokenLogs:
    """Return the tokens of an answer without the one that ends it."""
    tokens = logs.tokens
    last = len(tokens) - bool(tokens and tokens[-1] in {EOS, *generator.tokenizer.ends, *ends})
    return logs.before(last)


def named(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    """Return a token as text and as bytes; a mark, such as that of the end, by its name.

    Part of a character is written as OpenAI does: ``bytes:\\xe2\\x80``.
    """
    spelled = tokenizer.spelling(token)
    if not spelled:
        return tokenizer.entries()[token], b""
    try:
        return spelled.decode(), spelled
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled), spelled


# ---- several streams as one -----------------------------------------------------------------------------


class StreamedPiece(NamedTuple):
    """A piece of one of several answers, which are numbered from 0."""

    number: int
    piece: Piece


class Streams:
    """Streams of several answers that run at the same time, merged as their pieces come; they have one place in the
    queue together."""

    def __init__(self, context: ServerContext, model: str, asked: Sequence[tuple[Prompt, GenerateOptions]], call: Call):
        """
        Raises:
            Overloaded, Draining: the request is not taken.
        """
        self._queue: asyncio.Queue[StreamedPiece | Exception | None] = asyncio.Queue(AHEAD)
        self._place = ExitStack()
        admitted = self._place.enter_context(context.service.place(call))
        self._tasks = [
            asyncio.create_task(self._pump(context, model, index, prompt, options, admitted))
            for index, (prompt, options) in enumerate(asked)
        ]
        self._open = len(self._tasks)
        self._first: StreamedPiece | None = None

    async def begin(self) -> None:
        """Wait for the first piece, so that what is wrong with a request is known before the answer begins.

        Raises:
            Exception: whatever the service raises.
        """
        try:
            self._first = await self._next()
        except BaseException:
            await self.close()
            raise

    async def pieces(self) -> AsyncIterator[StreamedPiece]:
        """Yield all pieces, and cancel what runs if nobody takes them any more."""
        try:
            piece = self._first
            while piece is not None:
                yield piece
                piece = await self._next()
        finally:
            await self.close()

    async def close(self) -> None:
        """Cancel all streams that run, and give back their place."""
        with self._place:
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _next(self) -> StreamedPiece | None:
        while self._open:
            found = await self._queue.get()
            if isinstance(found, StreamedPiece):
                return found
            if found is not None:
                raise found
            self._open -= 1
        return None

    async def _pump(
        self, context: ServerContext, model: str, index: int, prompt: Prompt, options: GenerateOptions, call: Call
    ) -> None:
        try:
            async for piece in context.service.stream(model, prompt, options, call):
                await self._queue.put(StreamedPiece(index, piece))
        except Exception as error:
            await self._queue.put(error)
        else:
            await self._queue.put(None)
