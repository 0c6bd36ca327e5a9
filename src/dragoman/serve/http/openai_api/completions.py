"""OpenAI's API: prompts that are continued."""

from dataclasses import replace
from typing import Any

from dragoman.decode.generator import Generator
from dragoman.decode.prompt import EncodedPrompt
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.openai_api.answers import Asked, ChunkMaker
from dragoman.serve.http.openai_api.bodies import CompletionAnswer, CompletionBody
from dragoman.serve.http.openai_api.generating import (
    Prompt,
    TokenLogs,
    generator_of,
    named,
    options_of,
    refuse,
)
from dragoman.serve.http.problems import Problem


async def completions(context: ServerContext, incoming: Incoming[CompletionBody]) -> Any:
    """Answer POST /v1/completions."""
    body = incoming.body
    refuse(suffix=body.suffix)
    if body.best_of not in (None, body.n or 1):
        refuse(best_of=body.best_of)
    if body.logprobs is not None and body.echo:
        message = "logprobs: known for the tokens of an answer alone: send it without echo"
        raise Problem(422, "unsupported", message, param="logprobs")
    served, generator = generator_of(context, body.model)
    prompts = _prompts(generator, body.prompt)
    texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
    context.limits.check(texts)
    incoming.count(texts, served.name)
    options = options_of(context, generator, body, 16 if body.max_tokens is None else body.max_tokens)
    options = replace(options, likeliest=body.logprobs or 0)
    asked = Asked(context, generator, body, prompts, options, texts, "cmpl", "text_completion")
    read = [
        prompt.text if isinstance(prompt, EncodedPrompt) else generator.prompts.completed(prompt) for prompt in prompts
    ]
    chunk = _CompletionChunks(generator, body, [text for text in read for _ in range(body.n or 1)])
    return await asked.answer(chunk)


def _prompts(generator: Generator, given: Any) -> list[Prompt]:
    """Return the prompts of a request.

    Raises:
        Problem: ids that the model does not have.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        given = [given]
    if isinstance(given[0], str):
        return list(given)
    size = len(generator.tokenizer)
    if wrong := [token for ids in given for token in ids if token >= size]:
        message = f"prompt: the model has no token {wrong[0]}; its vocabulary has {size:,}"
        raise Problem(422, "invalid_request", message, param="prompt")
    return [EncodedPrompt(generator.tokenizer.decode(ids), tuple(ids)) for ids in given]


class _CompletionChunks(ChunkMaker):
    """Choices of completions."""

    def __init__(self, generator: Generator, body: CompletionBody, prompts: list[str]):
        self.tokenizer, self.wanted = generator.tokenizer, body.logprobs is not None
        self.before = prompts if body.echo else [""] * len(prompts)
        self.offsets = [0] * len(prompts)

    def opening(self, answers: int) -> list[dict[str, Any]]:
        return [_text_choice(index, text) for index, text in enumerate(self.before) if text]

    def choices(self, index: int, text: str, logs: TokenLogs, reason: str | None) -> list[dict[str, Any]]:
        return [_text_choice(index, text, self._logs(index, logs)) | {"finish_reason": reason}]

    def whole(self, index: int, text: str, logs: TokenLogs, reason: str) -> dict[str, Any]:
        choice = _text_choice(index, self.before[index] + text, self._logs(index, logs))
        return choice | {"finish_reason": reason}

    def _logs(self, index: int, logs: TokenLogs) -> dict[str, Any] | None:
        if not self.wanted:
            return None
        texts, offsets = self.tokenizer.token_texts(logs.tokens), []
        for text in texts:
            offsets.append(self.offsets[index])
            self.offsets[index] += len(text)
        top = [
            {text: log_prob} | {named(self.tokenizer, other)[0]: value for other, value in others if other != token}
            for text, token, log_prob, others in zip(
                texts, logs.tokens, logs.log_probs, logs.likeliest or [()] * len(texts), strict=True
            )
        ]
        fields = {"tokens": texts, "token_logprobs": list(logs.log_probs), "top_logprobs": top}
        return fields | {"text_offset": offsets}


def _text_choice(index: int, text: str, logs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logs, "finish_reason": None}


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/v1/completions",
        summary="Continue prompts",
        handler=completions,
        body=CompletionBody,
        answer=CompletionAnswer,
        streams=True,
        style="openai",
        statuses=(404,),
    ),
]
