"""Our own API: files that are translated while their client asks how far they are."""

from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import FileResponse, Response

from dragoman.decode.constraints.glossary import Glossary
from dragoman.serve.errors import WrongTask
from dragoman.serve.http.bodies import MULTIPART
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.files import FileJob, file_name
from dragoman.serve.http.languages import check_languages
from dragoman.serve.http.native import GlossaryRow, Strict, glossary_entry
from dragoman.serve.http.problems import Problem

OF_RESULTS = (404, 409, 413, 422, 429, 503)
"""Statuses of a request for a result: there is none yet, or what its job failed with."""


class FileBody(Strict):
    """A file, in the field ``file``, and its model."""

    model: str | None = None
    source: str | None = None
    target: str | None = None
    glossary: str | None = None
    """Terms whose translations are fixed, as JSON: ``[{"source": "...", "target": "..."}]``."""


class FileStarted(BaseModel):
    """Name of a job."""

    id: str


class FileState(BaseModel):
    """Progress of a job."""

    state: Literal["queued", "running", "done", "failed"]
    name: str
    done: int
    total: int
    filled: int | None = None
    """Texts that got a translation."""
    flagged: int | None = None
    """Those of them that a person should check."""
    left: int | None = None
    """Texts that had a translation already."""
    withheld: int | None = None
    """Texts that the safety page withheld: lines hold its words instead, entries of documents stay empty."""
    error: dict[str, Any] | None = None


async def start_file(context: ServerContext, incoming: Incoming[FileBody]) -> Any:
    """Answer POST /api/files."""
    assert incoming.file is not None
    body = incoming.body
    directions = context.directions
    model = directions.for_file(body.source, body.target) if body.model is None else context.model(body.model)
    if model.task != "translate":
        raise WrongTask(f"model {model.name} is for the task {model.task}, not translate")
    check_languages(model, body.source, body.target)
    glossary = Glossary(map(glossary_entry, _glossary_rows(body.glossary))) if body.glossary else None
    name, content = file_name(incoming.file.filename), await incoming.file.read()
    incoming.count([], model.name)
    job = context.files.start(name, content, model, body.target or model.target, incoming.key, glossary)
    return {"id": job.id}


def _glossary_rows(text: str) -> list[GlossaryRow]:
    try:
        return TypeAdapter(list[GlossaryRow]).validate_json(text)
    except ValidationError:
        message = 'glossary: write JSON, as in [{"source": "house", "target": "casa"}]'
        raise Problem(422, "invalid_request", message, param="glossary") from None


async def file_state(context: ServerContext, incoming: Incoming[Any]) -> Any:
    """Answer GET /api/files/ID."""
    return _state(context.files.get(incoming.http.path_params["id"]))


def _state(job: FileJob) -> dict[str, Any]:
    fields: dict[str, Any] = {"state": job.state, "name": job.result_name, "done": job.done, "total": job.total}
    error = {} if job.problem is None else {"error": job.problem.fields}
    return fields | job.summary | error


async def file_result(context: ServerContext, incoming: Incoming[Any]) -> Response:
    """Answer GET /api/files/ID/result."""
    return result_response(context, incoming.http.path_params["id"])


def result_response(context: ServerContext, id: str) -> Response:
    """Return the translated file of a job.

    Raises:
        Problem: there is no such job, or it has failed, or is not done.
    """
    job = context.files.get(id)
    return FileResponse(context.files.result(job), filename=job.result_name, media_type="application/octet-stream")


ENDPOINTS = [
    Endpoint(
        method="POST",
        path="/api/files",
        summary="Translate a file",
        handler=start_file,
        body=FileBody,
        reads=(MULTIPART,),
        answer=FileStarted,
        status=202,
        statuses=(404,),
    ),
    Endpoint(
        method="GET",
        path="/api/files/{id}",
        summary="Tell how far a file is",
        handler=file_state,
        while_draining=True,
        answer=FileState,
        statuses=(404,),
    ),
    Endpoint(
        method="GET",
        path="/api/files/{id}/result",
        summary="Get a translated file",
        handler=file_result,
        while_draining=True,
        answers_with=("application/octet-stream",),
        statuses=OF_RESULTS,
    ),
]
