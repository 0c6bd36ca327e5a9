"""The running server: a socket, signals, and an end that drops no request."""

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn

from dragoman.errors import ConfigError, UserError
from dragoman.serve.heap import settle_heap
from dragoman.serve.http.app import build_app
from dragoman.serve.http.connections import server_protocol
from dragoman.serve.http.context import ServerContext

log = logging.getLogger("dragoman.serve")
BACKLOG = 2048
"""Connections that wait to be accepted."""
CLOSING = 2
"""Seconds that connections have to close, once all requests are answered."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 chooses a free one.

    Raises:
        ConfigError: the address is in use, not allowed, or not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no name of a host"
        raise ConfigError(f"--host {host}: no address of this name ({reason})") from None
    found = socket.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise ConfigError(_reason(error, host, port)) from None
    found.setblocking(False)
    return found


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program: choose another with --port, or --port 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: this machine does not have this address"
    return f"{host}:{port}: {error.strerror}"


def url_of(sock: socket.socket) -> str:
    """Return the address of a bound socket for a browser."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """uvicorn's server, whose signals drain it: what runs is finished, what is new is refused, and then it ends."""

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]], reload: Callable[[], Awaitable[None]]
    ):
        super().__init__(config)
        self._drain, self._reload = drain, reload
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGINT: self._stop, signal.SIGTERM: self._stop}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = lambda: self._start(self._reload())
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            await self._serve(sockets)
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self) -> None:
        if self._stopping:
            self.should_exit = self.force_exit = True
            return
        self._stopping = True
        self._start(self._drain_and_end())

    async def _drain_and_end(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True


def run(
    context: ServerContext,
    sock: socket.socket,
    *,
    grace: float,
    keys: Path | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; the second one ends at once. SIGHUP loads each model anew from its run.

    Args:
        grace: seconds that running requests have after a signal.
        keys: file of keys, which SIGHUP reads anew.
        started: called once requests are answered.
    """

    async def drain() -> None:
        log.info("draining: running requests have %g s, new ones are refused", grace)
        if not await context.drain(grace):
            log.warning("not all requests were done within %g s", grace)

    async def reload() -> None:
        for name, model in context.service.models.items():
            await _try(f"swap of {name}", lambda name=name, model=model: context.service.swap(name, model.path))
        if (path := keys) is not None:
            await _try("reading of keys", lambda: _read_keys(context, path))

    async def main() -> None:
        server = DrainingServer(uvicorn_config(context), drain, reload)
        announced = asyncio.ensure_future(_announce(server, started))
        await server.serve([sock])
        announced.cancel()

    settle_heap()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())
    context.service.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if os.name == "nt":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _announce(server: uvicorn.Server, started: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.005)
    started()


async def _try(what: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
        log.info("%s: done", what)
    except UserError as error:
        log.error("%s failed, what was loaded stays: %s", what, error)


async def _read_keys(context: ServerContext, path: Path) -> None:
    context.keys = context.keys.updated(path)


def uvicorn_config(context: ServerContext) -> uvicorn.Config:
    """Return the settings of uvicorn for a server."""
    return uvicorn.Config(
        build_app(context),
        http=server_protocol(context.limits.seconds_to_send),
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=context.limits.body_bytes,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=CLOSING,
        backlog=BACKLOG,
        lifespan="on",
    )
