"""The application: all operations of all APIs, the page, metrics and documentation."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from dragoman.serve.http import live, native, pages, problems
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.operation import Operation
from dragoman.serve.http.problems import Problem

OPERATIONS: list[Operation] = [*native.OPERATIONS]
"""All operations, in the order of their documentation."""


def build_app(context: ServerContext, operations: Sequence[Operation] = OPERATIONS) -> Starlette:
    """Return the application of a server."""
    routes: list[BaseRoute] = [operation.route(context) for operation in operations]
    routes += [live.route(context), *pages.routes()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        context.service.close()

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


_CODES = {404: "unknown_path", 405: "wrong_method"}


async def _unknown_path(request: Request, error: Any) -> Response:
    """Answer a request to no operation of ours, in the style of the API that its path belongs to."""
    message = {404: f"nothing is at {request.url.path}", 405: f"{request.url.path} does not take {request.method}"}
    problem = Problem(
        error.status_code, _CODES.get(error.status_code, "refused"), message.get(error.status_code, error.detail)
    )
    response = (problems.openai if request.url.path.startswith("/v1/") else problems.native)(problem)
    response.headers.update(error.headers or {})
    return response
