"""Translation while a person types: a WebSocket on which a newer text takes the place of an older one."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dragoman.serve.errors import Draining
from dragoman.serve.http.bodies import read_json, validated
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.endpoint import Incoming, secret_of
from dragoman.serve.http.native import TranslateBody, translate_body
from dragoman.serve.http.problems import problem_of_any

PATH = "/api/live"
POLICY_VIOLATION = 1008


class LiveBody(TranslateBody):
    """A message: a text, with a number that its answer repeats."""

    id: int | str | None = None
    api_key: str | None = None


def route(context: ServerContext) -> WebSocketRoute:
    """Return the route of /api/live."""

    async def endpoint(socket: WebSocket) -> None:
        if not _origin_is_welcome(context, socket):
            await socket.close(POLICY_VIOLATION)
            return
        await socket.accept()
        await LiveConnection(context, socket).serve()

    return WebSocketRoute(PATH, endpoint)


def _origin_is_welcome(context: ServerContext, socket: WebSocket) -> bool:
    """Return whether the page that opens a socket is ours or an allowed one; browsers do not check this themselves."""
    origin = socket.headers.get("origin")
    if origin is None or "*" in context.origins or origin in context.origins:
        return True
    return urlsplit(origin).netloc == socket.headers.get("host")


class LiveConnection:
    """One open socket, with the request that is running for it."""

    def __init__(self, context: ServerContext, socket: WebSocket):
        self.context, self.socket = context, socket
        self.running: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer messages until the client is gone, and then cancel what is running."""
        try:
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._supersede()
                raw: str | bytes = message.get("text") or message.get("bytes") or b""
                self.running = asyncio.create_task(self._answer(raw))
        finally:
            await self._supersede()

    async def _supersede(self) -> None:
        """Cancel what is running and wait for its end; raise CancelledError only where the socket's own task is
        cancelled."""
        if self.running is not None and not self.running.done():
            self.running.cancel()
            await asyncio.wait({self.running})
        self.running = None

    async def _answer(self, raw: str | bytes) -> None:
        started, notes = time.perf_counter(), {}
        number: Any = None
        try:
            data = _object(raw)
            number = data.get("id")
            answer, status = await self._translate(data, notes), 200
        except asyncio.CancelledError:
            raise
        except Exception as error:
            problem = problem_of_any(error)
            answer, status = {"error": problem.fields}, problem.status
        self.context.answered(self.socket, "WS", PATH, status, time.perf_counter() - started, notes)
        await self._send({"id": number} | answer)

    async def _translate(self, data: dict[str, Any], notes: dict[str, Any]) -> dict[str, Any]:
        if self.context.draining:
            raise Draining
        body = validated(LiveBody, data)
        key = self.context.keys.authorise(secret_of(self.socket, body))
        notes["key"] = key.name
        key.count_request()
        incoming = Incoming(self.socket, body, key, notes=notes)
        with incoming.refunded():
            return await translate_body(self.context, body, incoming)

    async def _send(self, answer: dict[str, Any]) -> None:
        if self.socket.client_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(self.context.limits.seconds_to_send):
                    await self.socket.send_text(json.dumps(answer, ensure_ascii=False))


def _object(raw: str | bytes) -> dict[str, Any]:
    return read_json(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw)
