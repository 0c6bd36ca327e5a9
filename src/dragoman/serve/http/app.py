"""The application: all endpoints of all APIs, the page, metrics and documentation."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dragoman.serve.http import libretranslate, live, models, native, openapi, pages, problems, uploads
from dragoman.serve.http.bodies import JSON
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Endpoint, Incoming
from dragoman.serve.http.metrics import CONTENT_TYPE
from dragoman.serve.http.openai_api import chat, completions, embeddings
from dragoman.serve.http.openai_api import models as openai_models
from dragoman.serve.http.problems import Problem

ENDPOINTS: list[Endpoint] = [
    *native.ENDPOINTS,
    *models.ENDPOINTS,
    *uploads.ENDPOINTS,
    *libretranslate.ENDPOINTS,
    *completions.ENDPOINTS,
    *chat.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *openai_models.ENDPOINTS,
]
"""All endpoints, in the order of their documentation."""


def build_app(context: ServerContext, endpoints: Sequence[Endpoint] = ENDPOINTS) -> Starlette:
    """Return the application of a server."""
    routes: list[BaseRoute] = [endpoint.route(context) for endpoint in endpoints]
    routes += [live.route(context), metrics_endpoint().route(context), *_documentation(endpoints), *pages.routes()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        context.files.close()

    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(context.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients send some of their own, and a key may be in one of several
        )
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middleware if context.origins else [],
        exception_handlers={HTTPException: _unknown_path},
    )


def _documentation(endpoints: Sequence[Endpoint]) -> list[BaseRoute]:
    described = cache(lambda: JSONResponse(openapi.describe(endpoints)).body)  # made once, when it is first read
    documented = cache(lambda: openapi.documentation(endpoints))

    async def description(_: Request) -> Response:
        return Response(described(), media_type=JSON)

    async def page(_: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(documented(), headers={"Content-Security-Policy": policy})

    return [Route("/openapi.json", description), Route("/spec", description), Route("/docs", page)]


def metrics_endpoint() -> Endpoint:
    """Return the endpoint that Prometheus reads; it is no part of the APIs."""

    async def metrics(context: ServerContext, incoming: Incoming[Any]) -> Response:
        return Response(context.metrics.text(), media_type=CONTENT_TYPE)

    return Endpoint(method="GET", path="/metrics", summary="Metrics", handler=metrics, while_draining=True)


_CODES = {404: "unknown_path", 405: "wrong_method"}


async def _unknown_path(request: Request, error: Any) -> Response:
    """Answer a request to no endpoint of ours, in the style of the API that its path belongs to."""
    message = {404: f"nothing is at {request.url.path}", 405: f"{request.url.path} does not take {request.method}"}
    problem = Problem(
        error.status_code, _CODES.get(error.status_code, "refused"), message.get(error.status_code) or str(error.detail)
    )
    response = (problems.openai if request.url.path.startswith("/v1/") else problems.native)(problem)
    response.headers.update(error.headers or {})
    return response
