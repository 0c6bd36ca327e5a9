"""The page for people and its files."""

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dragoman.serve.page import CONTENT_SECURITY_POLICY, FOLDER

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def routes() -> list[BaseRoute]:
    """Return the routes of the page."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, **HEADERS}

    async def index(_: Request) -> Response:
        return FileResponse(FOLDER / "index.html", headers=headers)

    return [Route("/", index), Mount("/static", _PageFiles(FOLDER, headers))]


class _PageFiles(StaticFiles):
    """Files of the page; no code of the package is among them."""

    def __init__(self, folder: Path, headers: Mapping[str, str]):
        super().__init__(directory=folder)
        self.headers = headers

    async def get_response(self, path: str, scope) -> Response:
        if path.endswith((".py", ".pyc")):
            return Response(status_code=404)
        response = await super().get_response(path, scope)
        response.headers.update(self.headers)
        return response
