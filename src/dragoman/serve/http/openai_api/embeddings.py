"""OpenAI's API: vectors of texts."""

import base64
import struct
from typing import Any

from dragoman.decode.readers.embedder import Embedder
from dragoman.serve.errors import WrongTask
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.openai_api.bodies import EmbeddingAnswer, EmbeddingBody
from dragoman.serve.http.openai_api.generating import refuse
from dragoman.serve.http.operation import Incoming, Operation
from dragoman.serve.http.problems import Problem


async def embeddings(context: ServerContext, incoming: Incoming[EmbeddingBody]) -> Any:
    """Answer POST /v1/embeddings."""
    body = incoming.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts:
        raise Problem(422, "invalid_request", "input: must not be an empty list", param="input")
    context.limits.check(texts)
    served = context.model(body.model)
    if not isinstance(served.model, Embedder) or served.model.tokenizer is None:
        raise WrongTask(f"the model {served.name!r} is for the task {served.task}, and makes no vectors of texts")
    incoming.count(texts, served.name)
    found = await context.service.embed(served.name, texts)
    if body.dimensions not in (None, len(found[0])):
        refuse(dimensions=body.dimensions)
    read = sum(len(ids) for ids in served.model.tokenizer.encode_batch(texts))
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


OPERATIONS = [
    Operation(
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
