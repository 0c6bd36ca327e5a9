"""Our own API: which models there are, what the server accepts, and another run in place of a model."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from dragoman import __version__
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.files import EXTENSIONS
from dragoman.serve.http.languages import is_written_from_right, language_name
from dragoman.serve.http.native import Strict
from dragoman.serve.http.openai_api.generating import template_of
from dragoman.serve.http.problems import Problem
from dragoman.serve.served import ServedModel


class ModelAnswer(BaseModel):
    """A model."""

    name: str
    task: str
    source: str
    target: str
    source_name: str
    target_name: str
    direction: Literal["ltr", "rtl"]
    """Direction of writing of the target language."""
    tags: list[str]
    parameters: int
    chat: bool
    """True for a language model with a chat template."""
    splits: bool
    """True where a line is divided into sentences that are translated one by one."""


class ModelsAnswer(BaseModel):
    """All models."""

    models: list[ModelAnswer]
    default: str
    """Name of the model that is used where none is named."""


async def models(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /api/models."""
    return {
        "models": [_model(model) for model in context.service.models.values()],
        "default": context.default.name,
    }


def _model(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.task,
        "source": model.source,
        "target": model.target,
        "source_name": language_name(model.source),
        "target_name": language_name(model.target),
        "direction": "rtl" if is_written_from_right(model.target) else "ltr",
        "tags": list(model.tags),
        "parameters": model.parameters,
        "chat": template_of(model) is not None,
        "splits": model.splits,
    }


class SettingsAnswer(BaseModel):
    """Settings of the server that clients adapt to."""

    version: str
    key_required: bool
    limits: dict[str, int]
    files: list[str]
    """Extensions of documents that are translated."""
    suggest: bool
    safety: bool


async def settings(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /api/settings."""
    limits = context.limits
    return {
        "version": __version__,
        "key_required": bool(context.keys),
        "limits": {"characters": limits.characters, "lines": limits.texts, "file_bytes": limits.file_bytes},
        "files": list(EXTENSIONS),
        "suggest": context.suggestions is not None,
        "safety": context.safety is not None,
    }


# ---- swapping -------------------------------------------------------------------------------------------


class SwapBody(Strict):
    """Run to load in place of a model."""

    path: str | None = None
    """Directory of the run; without one, the model's own run is loaded anew."""


class SwapAnswer(BaseModel):
    """The model as it is now."""

    model: ModelAnswer


async def swap(context: ServerContext, incoming: Incoming[SwapBody]) -> Any:
    """Answer POST /api/models/NAME/swap."""
    if not incoming.key.admin:
        raise Problem(403, "not_allowed", "this call needs a key that --keys lists with the word admin")
    model = context.model(incoming.http.path_params["name"])
    await context.service.swap(model.name, Path(incoming.body.path or model.path))
    return {"model": _model(context.model(model.name))}


ENDPOINTS = [
    Endpoint(method="GET", path="/api/models", summary="List the models", handler=models, answer=ModelsAnswer),
    Endpoint(
        method="GET",
        path="/api/settings",
        summary="Tell what this server accepts",
        handler=settings,
        answer=SettingsAnswer,
        open=True,
    ),
    Endpoint(
        method="POST",
        path="/api/models/{name}/swap",
        summary="Load another run in place of a model",
        handler=swap,
        body=SwapBody,
        answer=SwapAnswer,
        statuses=(403, 404),
    ),
]
