"""The page for people and its files."""

from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent.parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: nothing from elsewhere, nothing inline."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[BaseRoute]:
    """Return the routes of the page; none where it is not installed."""
    if not (FOLDER / "index.html").is_file():
        return []

    async def index(_: Request) -> Response:
        return FileResponse(FOLDER / "index.html", headers=HEADERS)

    return [Route("/", index), Mount("/static", _PageFiles(directory=FOLDER))]


class _PageFiles(StaticFiles):
    """Files of the page; no code of the package is among them."""

    async def get_response(self, path: str, scope) -> Response:  # noqa: ANN001
        if path.endswith((".py", ".pyc")):
            return Response(status_code=404)
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
