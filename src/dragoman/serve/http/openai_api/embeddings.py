"""OpenAI's API: vectors of texts."""

import asyncio
import base64
import struct
from typing import Any

from dragoman.decode.readers.embedder import Embedder
from dragoman.serve.errors import WrongTask
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.openai_api.bodies import EmbeddingAnswer, EmbeddingBody
from dragoman.serve.http.openai_api.generating import refuse


async def embeddings(context: ServerContext, incoming: Incoming[EmbeddingBody]) -> Any:
    """Answer POST /v1/embeddings."""
    body = incoming.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    context.limits.check(texts)
    served = context.model(body.model)
    if not isinstance(served.model, Embedder) or served.model.tokenizer is None:
        raise WrongTask(f"the model {served.name!r} is for the task {served.task}, and makes no vectors of texts")
    incoming.count(texts, served.name)
    found = await context.service.embed(served.name, texts)
    if body.dimensions not in (None, len(found[0])):
        refuse(dimensions=body.dimensions)
    read = sum(map(len, await asyncio.to_thread(served.model.tokenizer.encode_batch, texts)))
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(found)
    ]
    return {
        "object": "list", "data": data, "model": served.name, "usage": {"prompt_tokens": read, "total_tokens": read}
    }  # fmt: skip


def _encoded(vector: list[float], format: str | None) -> list[float] | str:
    if format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/v1/embeddings",
        summary="Turn texts into vectors",
        handler=embeddings,
        body=EmbeddingBody,
        answer=EmbeddingAnswer,
        style="openai",
        statuses=(404,),
    ),
]
