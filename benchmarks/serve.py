"""Serving under load, beside CTranslate2 behind the same kind of HTTP server, in one interleaved run.

    python benchmarks/serve.py RUN [--seconds 8] [--rounds 3] [--precision int8] [--libretranslate-python PYTHON]

All servers run on one core, the clients on another. Clients send single texts of the run's test set in a random order,
with beam 5. Closed loop: 1, 8, 64 and 256 clients, each sends its next text when the last one is answered. Open loop:
texts arrive at random (Poisson) at half and at nine tenths of what CTranslate2 answered in the closed loop with 64
clients. Rounds alternate between the servers. Every answer of ours is compared with that of ``dragoman translate``.
Also: what HTTP adds to a request of a single client, and the time from the start of ``dragoman serve`` to its first
answer.

``--libretranslate-python`` is the Python of an environment with ``pip install libretranslate`` that has what this
package needs, too. LibreTranslate's own server then takes part, with the same CTranslate2 model
(``peers/libretranslate_server.py``). Its answers are not ours where a text has placeholders, numbers or several
sentences.

Expected: batches that rows join and leave at every step keep the processor busy without letting anybody wait for the
end of a batch: more requests a second at an equal tail.

Writes ``results/serve.md`` beside this file.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import add_smoke, run_of, write_results

import dragoman
from dragoman.decode.documents.line_translation import LineSettings
from dragoman.decode.search.beam import Beam
from dragoman.decode.translator import Translator
from dragoman.interchange.ctranslate2 import export_ctranslate2
from dragoman.text.formats.pairs import JsonLines, read_pairs

CLIENTS = (1, 8, 64, 256)
PEERS = Path(__file__).parent / "peers"
PEER, LIBRETRANSLATE = PEERS / "ctranslate2_server.py", PEERS / "libretranslate_server.py"


# ---- a client that costs little ---------------------------------------------------------------------


@dataclass(frozen=True)
class Api:
    """How a server is asked for a translation."""

    path: str
    text: str
    """Name of the field with the text."""
    more: dict[str, str] = field(default_factory=dict)

    def answer(self, content: dict) -> str:
        return content["translatedText"] if "translatedText" in content else content["translations"][0]["text"]


OURS = Api("/api/translate", "text")
THEIRS = Api("/translate", "q", {"source": "en", "target": "es"})
"""LibreTranslate's."""


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int, api: Api = OURS):
        self.port, self.api = port, api

    async def ask(self, text: str) -> str | None:
        """Return the translation; None where the server asks to come back later."""
        if not hasattr(self, "reader"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps({self.api.text: text} | self.api.more).encode()
        head = f"POST {self.api.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self.writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
        content = await self.reader.readexactly(int(fields[b"content-length"]))
        if answer.startswith(b"HTTP/1.1 429"):
            return None
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(content.decode())
        return self.api.answer(json.loads(content))

    def close(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()


@dataclass
class Load:
    """What one load of requests showed."""

    seconds: float = 0.0
    delays: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0

    def note(self, began: float, answer: str | None, expected: str | None) -> None:
        """Count an answer."""
        if answer is None:
            self.refused += 1
            return
        self.delays.append(time.perf_counter() - began)
        self.wrong += expected is not None and answer != expected

    @property
    def rate(self) -> float:
        return len(self.delays) / self.seconds

    def percentile(self, share: float) -> float:
        return sorted(self.delays)[min(len(self.delays) - 1, int(share * len(self.delays)))]


@dataclass(frozen=True)
class Side:
    """A server that takes part."""

    port: int
    api: Api = OURS
    expected: dict[str, str] | None = None
    """Answers that are right."""

    def wanted(self, text: str) -> str | None:
        return self.expected and self.expected[text]


async def closed_loop(side: Side, texts: Sequence[str], clients: int, seconds: float) -> Load:
    """Each client sends a text when its last one is answered."""
    load, end, draw = Load(), time.perf_counter() + seconds, random.Random(clients)

    async def send() -> None:
        client = Client(side.port, side.api)
        while time.perf_counter() < end:
            text, began = draw.choice(texts), time.perf_counter()
            load.note(began, await client.ask(text), side.wanted(text))
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(side: Side, texts: Sequence[str], rate: float, seconds: float) -> Load:
    """Texts arrive at random times, whether or not earlier ones are answered."""
    load, draw, free, running = Load(), random.Random(1), list[Client](), list[asyncio.Task]()

    async def send(text: str) -> None:
        client, began = free.pop() if free else Client(side.port, side.api), time.perf_counter()
        load.note(began, await client.ask(text), side.wanted(text))
        free.append(client)

    began = due = time.perf_counter()
    while due < began + seconds:
        due += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.ensure_future(send(draw.choice(texts))))
    await asyncio.gather(*running)
    load.seconds = time.perf_counter() - began
    for client in free:
        client.close()
    return load


# ---- servers ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def server(command: Sequence[str], side: Side, core: int) -> Iterator[float]:
    """Run a server on one core; give the seconds from its start to its first answer."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(dragoman.__file__).parents[1])}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", str(side.port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield asyncio.run(first_answer(side, process)) - began
    finally:
        process.terminate()
        process.wait(30)


async def first_answer(side: Side, process: subprocess.Popen) -> float:
    while process.poll() is None:
        with contextlib.suppress(OSError):
            client = Client(side.port, side.api)
            await client.ask("Hello")
            client.close()
            return time.perf_counter()
        await asyncio.sleep(0.01)
    raise RuntimeError(f"the server has ended with {process.returncode}")


def directly(translator: Translator, texts: Sequence[str]) -> Load:
    """Ask the service without HTTP, as one client."""
    from dragoman.serve.served import ServedModel
    from dragoman.serve.service import Service, TranslateOptions

    async def ask() -> Load:
        model = ServedModel("es", Path(), "translate", translator, "", "", (), 0, "")
        service, load, began = Service([model]), Load(), time.perf_counter()
        for text in texts:
            start = time.perf_counter()
            await service.translate("es", [text], TranslateOptions())
            load.delays.append(time.perf_counter() - start)
        load.seconds = time.perf_counter() - began
        service.close()
        return load

    return asyncio.run(ask())


def expected_answers(run: Path, precision: str, texts: Sequence[str]) -> dict[str, str]:
    """Translate each text by itself, as ``dragoman translate`` does."""
    lines = LineSettings(run=run, search=Beam(), device="cpu", precision=precision).open()
    return {text: next(lines.stream([text])).text for text in texts}


# ---- the table --------------------------------------------------------------------------------------


def measure(
    run: Path, precision: str, seconds: float, rounds: int, clients: Sequence[int], libretranslate: str | None
) -> str:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    texts = [pair.source for pair in read_pairs(JsonLines(path=str(run / "data" / "test.jsonl")))]
    translator = Translator.load(run, device="cpu", precision=precision)
    expected = expected_answers(run, precision, texts)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "ct2"
        export_ctranslate2(run, exported)
        theirs = [str(run), str(exported), "--precision", precision]
        commands = {
            "dragoman": [sys.executable, "-m", "dragoman", "serve", str(run), "--precision", precision],
            "CTranslate2": [sys.executable, str(PEER), *theirs],
        }
        sides = {"dragoman": Side(free_port(), expected=expected), "CTranslate2": Side(free_port())}
        if libretranslate:
            commands["LibreTranslate"] = [libretranslate, str(LIBRETRANSLATE), *theirs]
            sides["LibreTranslate"] = Side(free_port(), THEIRS)
        with contextlib.ExitStack() as running:
            starts = {
                side: running.enter_context(server(command, sides[side], cores[0]))
                for side, command in commands.items()
            }
            closed = {(side, n): [] for n in clients for side in sides}
            for _ in range(rounds):
                for side, n in closed:
                    closed[side, n].append(asyncio.run(closed_loop(sides[side], texts, n, seconds)))
            busiest = statistics.median(load.rate for load in closed["CTranslate2", clients[len(clients) // 2]])
            opened = {(side, share): [] for share in (0.5, 0.9) for side in ("dragoman", "CTranslate2")}
            for _ in range(rounds):
                for side, share in opened:
                    opened[side, share].append(asyncio.run(open_loop(sides[side], texts, share * busiest, seconds)))
            alone = directly(translator, texts[:200])
    http = statistics.median(closed["dragoman", 1][0].delays) - statistics.median(alone.delays)
    lines = [*_table(closed, "clients"), "", *_table(opened, "share of CTranslate2's closed-loop rate, open loop")]
    answered = [load for loads in (*closed.values(), *opened.values()) for load in loads]
    wrong = sum(load.wrong for load in answered)
    count = sum(
        len(load.delays)
        for (side, _), loads in [*closed.items(), *opened.items()]
        for load in loads
        if side == "dragoman"
    )
    lines += [
        "",
        f"Answers of `dragoman serve` that differ from those of `dragoman translate` for the text alone: {wrong} of "
        f"{count:,}.",
        "",
        f"One client: HTTP adds {1000 * http:.2f} ms (median of a request less that of the same call without HTTP). "
        f"From start to first answer: {', '.join(f'{side} {start:.2f} s' for side, start in starts.items())}.",
    ]
    return "\n".join(lines)


def _table(found: dict, title: str) -> list[str]:
    lines = [
        f"| {title} | server | requests/s | p50 ms | p95 ms | p99 ms | asked to wait |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (side, load), rounds in sorted(found.items(), key=lambda item: (item[0][1], item[0][0] != "dragoman")):
        middle = [statistics.median(1000 * one.percentile(share) for one in rounds) for share in (0.5, 0.95, 0.99)]
        rate = statistics.median(one.rate for one in rounds)
        lines.append(
            f"| {load} | {side} | {rate:.0f} | "
            + " | ".join(f"{ms:.1f}" for ms in middle)
            + f" | {sum(one.refused for one in rounds)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"])
    parser.add_argument("--libretranslate-python", help="of an environment with libretranslate")
    add_smoke(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seconds, rounds, clients = (0.3, 1, (1, 4)) if given.smoke else (given.seconds, given.rounds, CLIENTS)
    parts = [
        "# Serving under load",
        f"{date.today()}; {processor()}, one core for the server and one for the clients, Python "
        f"{platform.python_version()}, torch {torch.__version__}; "
        f"medians of {rounds} alternating rounds of {seconds:g} s.",
    ]
    with run_of(parser, given) as run:
        for precision in given.precision[: 1 if given.smoke else None]:
            parts += [f"## {precision}", measure(run, precision, seconds, rounds, clients, given.libretranslate_python)]
    text = "\n\n".join(parts)
    print(text)
    write_results("serve.md", text, smoke=given.smoke)


if __name__ == "__main__":
    main()
