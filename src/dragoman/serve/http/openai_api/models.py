"""OpenAI's API: models."""

import time
from typing import Any

from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.openai_api.bodies import ModelEntry, ModelList

STARTED = int(time.time())
"""Time that models are said to be created at, in seconds."""


async def models(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /v1/models."""
    return {"object": "list", "data": [_entry(name) for name in context.service.models]}


async def model(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /v1/models/NAME."""
    return _entry(context.model(incoming.http.path_params["name"]).name)


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "dragoman"}


ENDPOINTS = [
    Endpoint(
        method="GET", path="/v1/models", summary="List the models", handler=models, answer=ModelList, style="openai"
    ),
    Endpoint(
        method="GET",
        path="/v1/models/{name}",
        summary="Tell of a model",
        handler=model,
        answer=ModelEntry,
        style="openai",
        statuses=(404,),
    ),
]
