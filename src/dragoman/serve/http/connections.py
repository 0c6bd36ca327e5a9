"""Connections of clients that are slow: those that never finish a request, and those that never read an answer."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CHECKS = 4
"""Checks of a connection in the time that it has."""


def server_protocol(seconds: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol for HTTP with limits on waiting for a client.

    Args:
        seconds: time to send the head of a request, and to read anything of an answer that waits.
    """

    class PatientProtocol(HttpToolsProtocol):
        """Closes a connection on which a request has begun and does not arrive, or whose client does not read."""

        _watch: asyncio.TimerHandle | None = None
        _waiting_since: float | None = None
        _unread = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._waiting_since = self.loop.time()
            self._watch = self.loop.call_later(seconds / CHECKS, self._check)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._watch is not None:
                self._watch.cancel()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._waiting_since = self.loop.time()

        def on_headers_complete(self) -> None:
            self._waiting_since = None
            super().on_headers_complete()

        def _check(self) -> None:
            """Close the connection if its client has let us wait too long."""
            now = self.loop.time()
            unread = self.transport.get_write_buffer_size()
            if unread and unread == self._unread:
                self._unread_since = getattr(self, "_unread_since", now)
            else:
                self._unread, self._unread_since = unread, now
            late = self._waiting_since is not None and now - self._waiting_since > seconds
            if late or (unread and now - self._unread_since > seconds):
                self.transport.abort()
            elif not self.transport.is_closing():
                self._watch = self.loop.call_later(seconds / CHECKS, self._check)

    return PatientProtocol
