"""Server-sent events: an answer that is sent piece by piece, and stopped the moment its client is gone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = "[DONE]"
"""Last event of OpenAI's streams."""


class EventStream(Response):
    """Sends each event as soon as there is one."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[Any],
        error: Callable[[Exception], Any],
        close: Callable[[], Awaitable[None]] | None = None,
    ):
        """
        Args:
            events: objects, sent as JSON, or texts, sent as they are.
            error: returns the event that tells a client of an error; the stream ends with it.
            close: gives back what the events need, even where none of them is asked for.
        """
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.events, self.error, self.close = events, error, close
        self.ended: Callable[[bool], None] = lambda complete: None
        """Called at the end, with True where all was sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        complete = False
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            complete = sending.done() and not sending.cancelled() and sending.exception() is None
        finally:
            await self._end({sending, gone}, complete)
        for task in (sending, gone):
            with suppress(asyncio.CancelledError, OSError):  # the client is gone; anything else is a fault of ours
                task.result()

    async def _end(self, tasks: set[asyncio.Future[None]], complete: bool) -> None:
        """Stop ``tasks``, and close and report whatever they raise."""
        for task in tasks:
            task.cancel()
        try:
            await asyncio.wait(tasks)
        finally:
            try:
                if self.close is not None:
                    await self.close()
            finally:
                self.ended(complete)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for event in self.events:
                await send(_body(event))
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as error:
            await send(_body(self.error(error)))
        finally:
            if (close := getattr(self.events, "aclose", None)) is not None:
                await close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(event: Any) -> dict[str, Any]:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
