"""Connections of clients that let a server wait: for a request that never arrives, for an answer that nobody reads."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CHECKS = 4
"""Checks of a connection in the time that its client has."""
HEAD_BYTES = 64 << 10
"""Most bytes of the head of a request."""
TOO_LARGE_A_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class WatchfulProtocol(HttpToolsProtocol):
    """Closes a connection whose client lets the server wait. It goes on to watch one that is a WebSocket by now."""

    seconds: ClassVar[float]
    """Time to send the head of a request, and to read anything of an answer that waits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        now = self.loop.time()
        self._head_since: float | None = now
        """Time since which the head of a request is awaited; None where none is."""
        self._head_bytes, self._unread, self._unread_since = 0, 0, now
        self._watch = self.loop.call_later(self.seconds / CHECKS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE_A_HEAD)
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since, self._head_bytes = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        self._head_since = None
        super().on_headers_complete()

    def _check(self) -> None:
        if self.transport.is_closing():
            self._watch = self.loop.call_later(self.seconds, self.transport.abort)  # unless it is closed by then
            return
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if unread != self._unread or not unread:
            self._unread, self._unread_since = unread, now
        head_is_late = self._head_since is not None and now - self._head_since > self.seconds
        if head_is_late or now - self._unread_since > self.seconds:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(self.seconds / CHECKS, self._check)


def server_protocol(seconds: float) -> type[WatchfulProtocol]:
    """Return a protocol that waits for so many seconds."""
    return type("WatchfulProtocol", (WatchfulProtocol,), {"seconds": seconds})
