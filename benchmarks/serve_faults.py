"""What `dragoman serve` withstands: clients that drop, dawdle or send nonsense, kill -9, requests by its OpenAPI, right
and wrong, and half an hour of work.

    python benchmarks/serve_faults.py RUN [--clients 256] [--seconds 60] [--examples 500] [--kills 5] [--minutes 30]

1. Storm. Clients translate for a while. Of twenty connections two drop midway (one of them by a reset), one is never
   finished, one is never read, and one sends nonsense. Every answer is compared with that of ``dragoman translate``.
   Afterwards the engine must hold nothing, and the process as many files as before.
2. Schemathesis. Requests by the OpenAPI, right and wrong, to every endpoint, with all of its checks but one (a text may
   be valid and too long for the server).
3. Kills. A supervisor starts the server again whenever it dies; clients repeat what got no answer.
4. Soak. Translations, lists, n-best lists, files and sockets for half an hour. The memory of the process is read every
   second, and compared after a warm-up of a fifth of the time.

Writes ``results/serve_faults.md`` beside this file.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import httpx
from processor import processor
from smoke import add_smoke, run_of, write_results
from websockets.asyncio.client import connect

from dragoman.decode.documents.line_translation import LineSettings
from dragoman.decode.search.beam import Beam

WORDS = [
    "the",
    "light",
    "is",
    "on",
    "off",
    "turn",
    "a",
    "device",
    "battery",
    "of",
    "low",
    "high",
    "temperature",
    "room",
    "open",
    "door",
    "window",
    "closed",
    "{name}",
    "%s",
    "12",
]


def texts_of(count: int) -> list[str]:
    """Return distinct texts of one to eight words."""
    draw = random.Random(1)
    return list(dict.fromkeys(" ".join(draw.choices(WORDS, k=draw.randint(1, 8))) for _ in range(count)))


def translated(run: Path, texts: Sequence[str]) -> dict[str, str]:
    """Return the translations of `dragoman translate`."""
    lines = LineSettings(run=run, search=Beam()).open()
    return dict(zip(texts, (one.text for one in lines.stream(texts)), strict=True))


# ---- a server as a process ------------------------------------------------------------------------------


class Server:
    """`dragoman serve` on a port of its own."""

    def __init__(self, run: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.run, self.url = run, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--log-format", "json", "--max-file", "64KiB"]
        command = [sys.executable, "-m", "dragoman", "serve", f"en-es={self.run}", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.05)

    @property
    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def gauges(self) -> dict[str, float]:
        """Return the numbers of the service and its engine that must be zero when nothing is asked."""
        text = httpx.get(f"{self.url}/metrics", timeout=120).text
        names = ("dragoman_service_requests", "dragoman_engine_waiting", "dragoman_engine_running")
        names += ("dragoman_engine_reserved",)
        found = dict(re.findall(r"^(dragoman_\w+) (\S+)$", text, re.MULTILINE))
        return {name: float(found[name]) for name in names if name in found}

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


# ---- the storm ------------------------------------------------------------------------------------------


class Storm:
    """Clients of all kinds at the same time."""

    def __init__(self, port: int, expected: dict[str, str]):
        self.port, self.expected, self.texts = port, expected, list(expected)
        self.counts = Counter[str]()
        self.open: list[asyncio.StreamWriter] = []

    async def blow(self, clients: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(self._client(random.Random(number), end) for number in range(clients)))
        for writer in self.open:
            writer.close()

    async def _client(self, draw: random.Random, end: float) -> None:
        kinds: list[Callable[[random.Random], Awaitable[None]]]
        kinds = [self._ask] * 15 + [self._drop] * 2 + [self._never_finish, self._never_read, self._nonsense]
        while time.perf_counter() < end:
            kind = draw.choice(kinds)
            self.counts[kind.__name__.strip("_")] += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await kind(draw)

    async def _send(self, draw: random.Random, part: float = 1.0):
        text = draw.choice(self.texts)
        body = json.dumps({"text": text}).encode()
        head = (
            f"POST /api/translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        sent = head.encode() + b"\r\n\r\n" + body
        writer.write(sent[: int(part * len(sent))])
        return text, reader, writer

    async def _ask(self, draw: random.Random) -> None:
        text, reader, writer = await self._send(draw)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.counts["unanswered"] += 1
            return
        finally:
            writer.close()
        status = int(head.split()[1])
        self.counts["answers"] += 1
        self.counts["server errors"] += status >= 500
        self.counts["asked to wait (429)"] += status == 429
        if status == 200:
            self.counts["wrong"] += json.loads(body)["translations"][0]["text"] != self.expected[text]

    async def _drop(self, draw: random.Random) -> None:
        _, _, writer = await self._send(draw)
        await asyncio.sleep(draw.random() * 0.2)
        if draw.random() < 0.5:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # a reset
        writer.close()

    async def _never_finish(self, draw: random.Random) -> None:
        _, _, writer = await self._send(draw, part=draw.random())
        self.open.append(writer)
        await asyncio.sleep(0.5)

    async def _never_read(self, draw: random.Random) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        self.open.append(writer)
        await asyncio.sleep(0.5)

    async def _nonsense(self, draw: random.Random) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        upgrade = b"GET /api/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        writer.write((upgrade if draw.random() < 0.5 else b"") + draw.randbytes(draw.randint(1, 400)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(4096), 1)
        writer.close()


def storm(server: Server, expected: dict[str, str], clients: int, seconds: float) -> list[tuple[str, str]]:
    files = server.files
    weather = Storm(server.port, expected)
    asyncio.run(weather.blow(clients, seconds))
    deadline = time.monotonic() + 60
    while (any(server.gauges().values()) or server.files > files + 1) and time.monotonic() < deadline:
        time.sleep(0.5)
    left = ", ".join(f"{name.removeprefix('dragoman_')} {value:g}" for name, value in server.gauges().items())
    counts = weather.counts
    odd = ("drop", "never_finish", "never_read", "nonsense")
    kinds = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in odd)
    troubles = f"{counts['server errors']}; {counts['unanswered']}; {counts['asked to wait (429)']}"
    return [
        (f"storm: {clients} clients, {seconds:g} s", f"{counts['answers']:,} answers, of them {counts['wrong']} wrong"),
        ("... server errors; unanswered; asked to wait", troubles),
        ("... among connections that", kinds),
        ("... afterwards", f"{left}; open files {files} before, {server.files} after"),
    ]


# ---- by the OpenAPI -------------------------------------------------------------------------------------


def by_the_openapi(server: Server, examples: int) -> list[tuple[str, str]]:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.strategies import just
    from schemathesis import GenerationMode
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    counts, failures = Counter[str](), Counter[str]()
    how = settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def check(case, name: str) -> None:
        response = case.call()
        counts["sent"] += 1
        counts["5xx"] += response.status_code >= 500
        try:
            case.validate_response(response, excluded_checks=[positive_data_acceptance])
        except FailureGroup as group:
            failures.update(f"{name}: {type(one).__name__}" for one in group.exceptions)

    for path, methods in description.raw_schema["paths"].items():
        for method, stated in methods.items():
            for mode in GenerationMode if "requestBody" in stated else [GenerationMode.POSITIVE]:
                requests = description[path][method.upper()].as_strategy(generation_mode=mode)
                how(given(requests, just(f"{method} {path}"))(check))()
    named = "; ".join(f"{name} ({number})" for name, number in failures.items()) or "none"
    return [
        (
            f"by the OpenAPI: {examples} examples a kind and endpoint",
            f"{counts['sent']:,} requests, {counts['5xx']} answers of 5xx",
        ),
        ("... answers that it does not state", named),
    ]


# ---- kills ----------------------------------------------------------------------------------------------


async def repeated(url: str, text: str, counts: Counter) -> str:
    """Ask until there is an answer."""
    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            try:
                response = await client.post(f"{url}/api/translate", json={"text": text})
                if response.status_code == 200:
                    return response.json()["translations"][0]["text"]
            except httpx.HTTPError:
                counts["connections that were seen to end"] += 1
            await asyncio.sleep(0.2)


def kills(server: Server, expected: dict[str, str], times: int) -> list[tuple[str, str]]:
    counts, texts = Counter[str](), list(expected)

    async def supervise(stop: asyncio.Event) -> None:
        while not stop.is_set():
            if server.process.poll() is not None:
                await asyncio.to_thread(server.start)
            await asyncio.sleep(0.05)

    async def kill() -> None:
        for _ in range(times):
            await asyncio.sleep(1.0)
            began = time.perf_counter()
            dying = server.process  # soon the supervisor has another one
            dying.kill()
            while dying.poll() is None:
                await asyncio.sleep(0.01)
            await repeated(server.url, texts[0], Counter())
            counts["ms"] += round(1000 * (time.perf_counter() - began))

    async def ask(number: int, killing: asyncio.Task) -> None:
        draw = random.Random(number)
        while not killing.done():
            text = draw.choice(texts)
            counts["wrong"] += await repeated(server.url, text, counts) != expected[text]
            counts["answers"] += 1

    async def everything() -> None:
        stop, killing = asyncio.Event(), asyncio.create_task(kill())
        supervising = asyncio.create_task(supervise(stop))
        await asyncio.gather(*(ask(number, killing) for number in range(8)))
        stop.set()
        await supervising

    asyncio.run(everything())
    seen, answers = counts["connections that were seen to end"], f"{counts['answers']:,} answers"
    wait = f"{counts['ms'] / times / 1000:.1f} s until the next answer"
    return [
        (f"kill -9, {times} times", f"{answers}, {counts['wrong']} wrong, none lost by clients that repeat"),
        ("... seen by clients", f"{seen} connections ended or refused; {wait}"),
    ]


# ---- a soak ---------------------------------------------------------------------------------------------


async def soak_client(server: Server, texts: Sequence[str], draw: random.Random, end: float, counts: Counter) -> None:
    def note(response: httpx.Response) -> None:
        counts["server errors"] += response.status_code >= 500

    async with httpx.AsyncClient(timeout=120) as client:
        while time.monotonic() < end:
            some = draw.sample(texts, 5)
            match draw.randrange(6):
                case 0:
                    content = "\n".join(some).encode()
                    data = {"source": "en", "target": "es"}
                    response = await client.post(
                        f"{server.url}/translate_file", files={"file": ("a.txt", content)}, data=data
                    )
                    note(response)
                    note(await client.get(response.json()["translatedFileUrl"]))
                case 1:
                    async with connect(server.url.replace("http", "ws") + "/api/live") as socket:
                        for number, text in enumerate(some):
                            await socket.send(json.dumps({"id": number, "text": text}))
                        await asyncio.wait_for(socket.recv(), 120)
                case 2:
                    asked = {"q": some, "source": "en", "target": "es", "alternatives": 2}
                    note(await client.post(f"{server.url}/translate", json=asked))
                case _:
                    note(await client.post(f"{server.url}/api/translate", json={"text": some[0], "nbest": 3}))
            counts["requests"] += 1


def soak(server: Server, texts: Sequence[str], minutes: float) -> list[tuple[str, str]]:
    counts, sizes = Counter[str](), list[int]()

    async def everything() -> None:
        end = time.monotonic() + 60 * minutes
        clients = [asyncio.create_task(soak_client(server, texts, random.Random(n), end, counts)) for n in range(8)]
        while time.monotonic() < end:
            sizes.append(server.memory)
            await asyncio.sleep(min(1.0, 60 * minutes / 10))
        await asyncio.gather(*clients)

    asyncio.run(everything())
    warm = sizes[len(sizes) // 5 :]
    first, last = (statistics.median(part) for part in (warm[: len(warm) // 4 + 1], warm[-len(warm) // 4 - 1 :]))
    done = f"{counts['requests']:,} requests, {counts['server errors']} server errors"
    sizes_of = f"{first / 1e6:.1f} MB, at the end {last / 1e6:.1f} MB: {last / first - 1:+.2%}"
    return [(f"soak: {minutes:g} minutes, 8 clients", done), ("... resident memory after warm-up", sizes_of)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=30)
    add_smoke(parser)
    given = parser.parse_args()
    if given.smoke:
        given.clients, given.seconds, given.examples, given.kills, given.minutes = 8, 1, 1, 1, 0.01
    with run_of(parser, given) as run:
        expected = translated(run, texts_of(20 if given.smoke else 400))
        server = Server(run)
        try:
            rows = storm(server, expected, given.clients, given.seconds)
            rows += by_the_openapi(server, given.examples)
            rows += kills(server, expected, given.kills)
            rows += soak(server, list(expected), given.minutes)
            code = server.end()
        finally:
            server.process.kill()
    rows.append(("SIGTERM at the end", f"exit code {code}"))
    print_table(rows, given.smoke)


def print_table(rows: Iterator | list[tuple[str, str]], smoke: bool) -> None:
    table = "\n".join(["| what | result |", "|---|---|", *(f"| {what} | {result} |" for what, result in rows)])
    text = f"{table}\n\n{processor()}, Python {platform.python_version()}, {date.today()}; `benchmarks/serve_faults.py`"
    print(text)
    write_results("serve_faults.md", text, smoke=smoke)


if __name__ == "__main__":
    main()
