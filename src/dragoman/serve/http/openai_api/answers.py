"""OpenAI's API: what completions and conversations share, whole or as streams."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dragoman.decode.continuation import Continuation
from dragoman.decode.generator import Generation, Generator
from dragoman.decode.search.search import SearchConfig
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.event_stream import DONE, EventStream
from dragoman.serve.http.openai_api.bodies import GenerationBody
from dragoman.serve.http.openai_api.generating import Prompt, Streams, TokenLogs, prompt_tokens, without_end
from dragoman.serve.http.problems import openai_fields, problem_of_any
from dragoman.serve.service import INTERACTIVE, Call, GenerateOptions, Piece

if TYPE_CHECKING:
    from dragoman.serve.safety.page import SafetyPage

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
"""OpenAI's reason of the end for each of ours."""
WITHHELD = "content_filter"
"""OpenAI's reason of the end of an answer that is withheld."""


@dataclass
class Asked:
    """A request for answers: prompts, each as often as it is to be answered."""

    context: ServerContext
    generator: Generator
    body: GenerationBody
    prompts: list[Prompt]
    options: GenerateOptions
    questions: list[str]
    """Texts that the safety page judges the prompts by."""
    prefix: str
    """Beginning of the id of the answer."""
    object: str

    def __post_init__(self) -> None:
        self.head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "object": self.object,
            "created": int(time.time()),
            "model": self.body.model,
        }
        self.read = sum(prompt_tokens(self.generator, prompt) for prompt in self.prompts)

    @property
    def repeated(self) -> list[tuple[Prompt, GenerateOptions]]:
        """Each prompt as often as it is to be answered, with a seed that differs from answer to answer."""
        n = self.body.n or 1
        return [(prompt, replace(self.options, seeds=(i,))) for prompt in self.prompts for i in range(n)]

    def usage(self, written: int) -> dict[str, int]:
        """Return the number of tokens read and written."""
        return {"prompt_tokens": self.read, "completion_tokens": written, "total_tokens": self.read + written}

    def logs(self, found: Piece | Continuation) -> TokenLogs:
        """Return the tokens that spell an answer, or a piece of it."""
        if isinstance(found, Piece):
            logs = TokenLogs(found.tokens, found.log_probs, found.likeliest)
        else:
            logs = TokenLogs(found.tokens, found.token_log_probs)
        return without_end(self.generator, logs, self.options.ends)

    async def answer(self, chunk: "ChunkMaker") -> "EventStream | dict[str, Any]":
        """Return what the client gets: all answers at once, or a stream if it wants one."""
        if self.body.stream:
            return await self.stream(chunk)
        found = await self.answers()
        choices = [chunk.whole(index, *one) for index, one in enumerate(found)]
        return self.head | {"choices": choices, "usage": self.usage(sum(len(logs.tokens) for _, logs, _ in found))}

    async def answers(self) -> list[tuple[str, TokenLogs, str]]:
        """Return text, tokens and reason of the end of each answer; what the safety page withholds is replaced by its
        words.

        Raises:
            Overloaded, Draining: the request is not taken.
        """
        with self.context.service.place(INTERACTIVE) as call:
            return await self._answers(call)

    async def _answers(self, call: Call) -> list[tuple[str, TokenLogs, str]]:
        asked = self.repeated
        if (page := self.context.safety) is None:
            if self.options.likeliest:
                return await self._streamed(asked, call)
            prompts = [prompt for prompt, _ in asked]
            seeds = tuple(seed for _, options in asked for seed in options.seeds or ())
            found = await self._generate(prompts, replace(self.options, seeds=seeds), call)
            return [self._told(one) for one in found]
        n = self.body.n or 1
        rows = [self._guarded(page, *one, self.questions[row // n], call) for row, one in enumerate(asked)]
        return list(await asyncio.gather(*rows))

    async def _streamed(
        self, asked: list[tuple[Prompt, GenerateOptions]], call: Call
    ) -> list[tuple[str, TokenLogs, str]]:
        """Collect answers from streams, which know the most probable tokens of each step."""
        streams = Streams(self.context, self.body.model, asked, call)
        texts, reasons = [""] * len(asked), [""] * len(asked)
        logs = [TokenLogs((), ())] * len(asked)
        await streams.begin()
        async for i, piece in streams.pieces():
            texts[i] += piece.text
            logs[i] = logs[i].followed_by(self.logs(piece))
            reasons[i] = REASONS[piece.ended] if piece.ended else ""
        return list(zip(texts, logs, reasons, strict=True))

    async def _generate(self, prompts: list[Prompt], options: GenerateOptions, call: Call) -> list[Generation]:
        return await self.context.service.generate(self.body.model, prompts, options, call)

    def _told(self, generation: Generation) -> tuple[str, TokenLogs, str]:
        best = generation.continuations[0]
        return best.text, self.logs(best), REASONS[best.ended]

    async def _guarded(
        self, page: "SafetyPage", prompt: Prompt, options: GenerateOptions, question: str, call: Call
    ) -> tuple[str, TokenLogs, str]:
        used = options

        async def ask(search: SearchConfig | None) -> Generation:
            nonlocal used
            used = options if search is None else replace(options, search=search)
            return (await self._generate([prompt], used, call))[0]

        answer, decision = await page.guard_async(question, ask)
        if answer is None:
            assert decision is not None
            return decision.text, TokenLogs((), ()), WITHHELD
        return (await self._streamed([(prompt, used)], call))[0] if used.likeliest else self._told(answer)

    async def stream(self, chunk: "ChunkMaker") -> EventStream:
        """Return a stream of chunks; errors that are known before it begins are raised. With a safety page, answers are
        judged before anything of them is sent."""
        started, close = time.perf_counter(), None
        if self.context.safety is not None:
            events = self._whole_events(await self.answers(), chunk)
        else:
            streams = Streams(self.context, self.body.model, self.repeated, INTERACTIVE)
            await streams.begin()
            events, close = self._events(streams, chunk), streams.close
        self.context.metrics.first.observe(time.perf_counter() - started)
        return EventStream(events, lambda error: {"error": openai_fields(problem_of_any(error))}, close)

    async def _events(self, streams: Streams, chunk: "ChunkMaker") -> AsyncIterator[Any]:
        written = 0
        for choice in chunk.opening(len(self.repeated)):
            yield self._chunk(choice)
        async for index, piece in streams.pieces():
            logs = self.logs(piece)
            written += len(logs.tokens)
            for choice in chunk.choices(index, piece.text, logs, REASONS[piece.ended] if piece.ended else None):
                yield self._chunk(choice)
        for event in self._last_events(written):
            yield event

    async def _whole_events(self, answers: list[tuple[str, TokenLogs, str]], chunk: "ChunkMaker") -> AsyncIterator[Any]:
        for choice in chunk.opening(len(answers)):
            yield self._chunk(choice)
        for index, answer in enumerate(answers):
            for choice in chunk.choices(index, *answer):
                yield self._chunk(choice)
        for event in self._last_events(sum(len(logs.tokens) for _, logs, _ in answers)):
            yield event

    @property
    def _with_usage(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self.head | {"choices": [choice]} | ({"usage": None} if self._with_usage else {})

    def _last_events(self, written: int) -> list[Any]:
        usage = [self.head | {"choices": [], "usage": self.usage(written)}] if self._with_usage else []
        return [*usage, DONE]


class ChunkMaker:
    """Makes the choices of an answer, whole or in a stream's chunks."""

    def opening(self, answers: int) -> list[dict[str, Any]]:
        """Return what is sent before the first piece of each answer."""
        return []

    def choices(self, index: int, text: str, logs: TokenLogs, reason: str | None) -> list[dict[str, Any]]:
        """Return the choices for a piece of an answer, which ends with it if there is a reason."""
        raise NotImplementedError

    def whole(self, index: int, text: str, logs: TokenLogs, reason: str) -> dict[str, Any]:
        """Return the choice for a whole answer."""
        raise NotImplementedError
