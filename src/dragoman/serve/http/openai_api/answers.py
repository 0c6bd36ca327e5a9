"""OpenAI's API: what completions and conversations share, whole or as streams."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dragoman.decode.generator import Generator
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.event_stream import DONE, EventStream
from dragoman.serve.http.openai_api.bodies import GenerationBody
from dragoman.serve.http.openai_api.generating import Prompt, Streams, TokenLogs, prompt_tokens, without_end
from dragoman.serve.http.problems import openai_fields, problem_of_any
from dragoman.serve.service import Call, GenerateOptions, Piece

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
"""OpenAI's reason of the end for each of ours."""


@dataclass
class Asked:
    """A request for answers: prompts, each as often as it is to be answered."""

    context: ServerContext
    generator: Generator
    body: GenerationBody
    prompts: list[Prompt]
    options: GenerateOptions
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

    def logs(self, tokens: Sequence[int], log_probs: Sequence[float]) -> TokenLogs:
        """Return the tokens that spell an answer."""
        return without_end(self.generator, tokens, log_probs, self.options.ends)

    async def answers(self) -> list[tuple[str, TokenLogs, str]]:
        """Return text, tokens and reason of the end of each answer."""
        asked = self.repeated
        prompts = [prompt for prompt, _ in asked]
        seeds = tuple(seed for _, options in asked for seed in options.seeds or ())
        found = await self.context.service.generate(
            self.body.model, prompts, replace(self.options, seeds=seeds), Call()
        )
        best = [generation.continuations[0] for generation in found]
        return [(one.text, self.logs(one.tokens, one.token_log_probs), REASONS[one.ended]) for one in best]

    async def stream(self, chunk: "ChunkMaker") -> EventStream:
        """Return a stream of chunks; errors that are known before it begins are raised."""
        started = time.perf_counter()
        streams = Streams(self.context, self.body.model, self.repeated)
        await streams.begin()
        self.context.metrics.first.observe(time.perf_counter() - started)
        return EventStream(self._events(streams, chunk), lambda error: {"error": openai_fields(problem_of_any(error))})

    async def _events(self, streams: Streams, chunk: "ChunkMaker") -> AsyncIterator[Any]:
        written = 0
        with_usage = bool(self.body.stream_options and self.body.stream_options.include_usage)
        more = {"usage": None} if with_usage else {}
        for choice in chunk.opening(len(self.repeated)):
            yield self.head | {"choices": [choice]} | more
        async for index, piece in streams.pieces():
            logs = self.logs(piece.tokens, piece.log_probs)
            written += len(logs.tokens)
            for choice in chunk.choices(index, piece, logs):
                yield self.head | {"choices": [choice]} | more
        if with_usage:
            yield self.head | {"choices": [], "usage": self.usage(written)}
        yield DONE


class ChunkMaker:
    """Makes the choices of a stream's chunks."""

    def opening(self, answers: int) -> list[dict[str, Any]]:
        """Return what is sent before the first piece of each answer."""
        return []

    def choices(self, index: int, piece: Piece, logs: TokenLogs) -> list[dict[str, Any]]:
        """Return the choices for a piece."""
        raise NotImplementedError
