"""OpenAI's API: conversations that are answered."""

import asyncio
from dataclasses import replace
from typing import Any

from dragoman.decode.generator import Generator
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.openai_api.answers import Asked, ChunkMaker
from dragoman.serve.http.openai_api.bodies import ChatAnswer, ChatBody
from dragoman.serve.http.openai_api.generating import TokenLogs, generator_of, named, options_of, refuse, template_of
from dragoman.serve.http.problems import Problem


async def chat(context: ServerContext, incoming: Incoming[ChatBody]) -> Any:
    """Answer POST /v1/chat/completions."""
    body = incoming.body
    if body.top_logprobs and not body.logprobs:
        message = "top_logprobs: is for log-probabilities: send logprobs as true with it"
        raise Problem(422, "invalid_request", message, param="top_logprobs")
    searching = body.web_search_options is not None
    refuse(functions=body.functions, audio=body.audio, web_search_options=searching)
    served, generator = generator_of(context, body.model)
    if (template := template_of(served)) is None:
        message = f"the model {served.name!r} has no chat template: send a prompt to /v1/completions"
        raise Problem(422, "no_chat_template", message, param="model")
    messages = [_message(number, message) for number, message in enumerate(body.messages, 1)]
    texts = [str(message.get("content") or "") for message in messages]
    context.limits.check(texts)
    incoming.count(texts, served.name)
    wanted = {"tools": None if body.tool_choice == "none" else body.tools, "variables": body.chat_template_kwargs}
    prompt = await asyncio.to_thread(lambda: template.encode(generator.tokenizer, messages, **wanted))
    options = options_of(context, generator, body, body.max_completion_tokens or body.max_tokens)
    if options.max_new_tokens is None and generator.defaults.max_new_tokens is None:
        options = replace(options, max_new_tokens=context.limits.new_tokens)
    options = replace(options, ends=template.ends(generator.tokenizer), likeliest=body.top_logprobs or 0)
    question = "\n".join(text for text, message in zip(texts, messages, strict=True) if message["role"] != "assistant")
    object = "chat.completion.chunk" if body.stream else "chat.completion"
    asked = Asked(context, generator, body, [prompt], options, [question], "chatcmpl", object)
    return await asked.answer(_ChatChunks(generator, body))


def _message(number: int, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is one text, as the templates of text models read it.

    Raises:
        Problem: it has no role, no content, or a content that is no text.
    """

    def wrong(what: str) -> Problem:
        return Problem(422, "invalid_request", f"message {number}: {what}", param="messages")

    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise wrong("a role must be given: system, user, assistant or tool")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not parts or not all(isinstance(part, str) for part in parts):
            raise wrong("the model reads texts alone: each part of a content must be of the type text")
        return message | {"content": "\n".join(map(str, parts))}
    if not isinstance(content, str) and not (content is None and role == "assistant" and message.get("tool_calls")):
        raise wrong("a content must be given, as text")
    return message


class _ChatChunks(ChunkMaker):
    """Choices of conversations."""

    def __init__(self, generator: Generator, body: ChatBody):
        self.tokenizer, self.wanted = generator.tokenizer, bool(body.logprobs)

    def opening(self, answers: int) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": ""}
        return [{"index": index, "delta": delta, "finish_reason": None} for index in range(answers)]

    def choices(self, index: int, text: str, logs: TokenLogs, reason: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if text or logs.tokens:
            choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
            found.append(choice | ({"logprobs": self._logs(logs)} if self.wanted else {}))
        if reason is not None:
            found.append({"index": index, "delta": {}, "finish_reason": reason})
        return found

    def whole(self, index: int, text: str, logs: TokenLogs, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._logs(logs), "finish_reason": reason}

    def _logs(self, logs: TokenLogs) -> dict[str, Any] | None:
        if not self.wanted:
            return None
        spelled = [self.tokenizer.spelling(token) for token in logs.tokens]
        likeliest = logs.likeliest or [()] * len(spelled)
        content = [
            {
                "token": one.decode(errors="replace"),
                "logprob": log_prob,
                "bytes": list(one),
                "top_logprobs": [self._log(*other) for other in others],
            }
            for one, log_prob, others in zip(spelled, logs.log_probs, likeliest, strict=True)
        ]
        return {"content": content}

    def _log(self, token: int, log_prob: float) -> dict[str, Any]:
        text, spelled = named(self.tokenizer, token)
        return {"token": text, "logprob": log_prob, "bytes": list(spelled) if spelled else None}


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/v1/chat/completions",
        summary="Answer a conversation",
        handler=chat,
        body=ChatBody,
        answer=ChatAnswer,
        streams=True,
        style="openai",
        statuses=(404,),
    ),
]
