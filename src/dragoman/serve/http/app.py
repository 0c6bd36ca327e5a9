"""The application: all operations of all APIs, the page, metrics and documentation."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dragoman.serve.http import libretranslate, live, models, native, openapi, pages, problems, uploads
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.metrics import CONTENT_TYPE
from dragoman.serve.http.openai_api import chat, completions, embeddings
from dragoman.serve.http.openai_api import models as openai_models
from dragoman.serve.http.operation import Incoming, Operation
from dragoman.serve.http.problems import Problem

OPERATIONS: list[Operation] = [
    *native.OPERATIONS,
    *models.OPERATIONS,
    *uploads.OPERATIONS,
    *libretranslate.OPERATIONS,
    *completions.OPERATIONS,
    *chat.OPERATIONS,
    *embeddings.OPERATIONS,
    *openai_models.OPERATIONS,
]
"""All operations, in the order of their documentation."""


def build_app(context: ServerContext, operations: Sequence[Operation] = OPERATIONS) -> Starlette:
    """Return the application of a server."""
    routes: list[BaseRoute] = [operation.route(context) for operation in operations]
    routes += [live.route(context), metrics_operation().route(context), *_documentation(operations), *pages.routes()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        context.files.close()

    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(context.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middleware if context.origins else [],
        exception_handlers={HTTPException: _unknown_path},
    )


def _documentation(operations: Sequence[Operation]) -> list[BaseRoute]:
    async def description(_: Request) -> Response:
        return JSONResponse(openapi.describe(operations))

    async def page(_: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(openapi.documentation(operations), headers={"Content-Security-Policy": policy})

    return [Route("/openapi.json", description), Route("/spec", description), Route("/docs", page)]


def metrics_operation() -> Operation:
    """Return the operation that Prometheus reads; it is no part of the APIs."""

    async def metrics(context: ServerContext, incoming: Incoming[Any]) -> Response:
        return Response(context.metrics.text(), media_type=CONTENT_TYPE)

    return Operation(method="GET", path="/metrics", summary="Metrics", handler=metrics, while_draining=True)


_CODES = {404: "unknown_path", 405: "wrong_method"}


async def _unknown_path(request: Request, error: Any) -> Response:
    """Answer a request to no operation of ours, in the style of the API that its path belongs to."""
    message = {404: f"nothing is at {request.url.path}", 405: f"{request.url.path} does not take {request.method}"}
    problem = Problem(
        error.status_code, _CODES.get(error.status_code, "refused"), message.get(error.status_code) or str(error.detail)
    )
    response = (problems.openai if request.url.path.startswith("/v1/") else problems.native)(problem)
    response.headers.update(error.headers or {})
    return response
