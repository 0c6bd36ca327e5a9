"""A server in a thread of the test's process, on a port of its own, with tiny models."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import chat_templates
import foreign_text
import tiny_run
import uvicorn
from httpx._transports import default as transport

from dragoman.cli import main
from dragoman.interchange.importing import import_checkpoint
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.server import open_socket, url_of, uvicorn_config
from dragoman.train.run import start

transport.create_ssl_context = cache(transport.create_ssl_context)  # 20 ms a request, which no server here asks for
SENTENCES = ["the red house", "a dog sees one cat", "two big cars"]


def train_tiny(base: Path) -> Path:
    """Return the run of a translator of a toy language below ``base``; it is trained once for all test files."""
    folder = base / "served"
    if not (folder / "run").exists():
        folder.mkdir(exist_ok=True)
        schedule = {"kind": "cosine", "peak": 2e-2, "warmup": 5}
        learning = {"schedule": schedule, "batch_tokens": 800, "accumulate": 1, "average": None, "samples": 0}
        budget = {"kind": "steps", "steps": 120}  # enough for letters, which have no placeholders among them
        cfg = tiny_run.config(tiny_run.write_pairs(folder / "pairs.tsv"), validate_every=100, budget=budget, **learning)
        list(start(cfg, folder / "run").events())
    return folder / "run"


def import_chat(base: Path) -> Path:
    """Return the run of a language model with random weights and a chat template below ``base``."""
    folder = base / "chat"
    if not (folder / "run").exists():
        foreign_text.make(foreign_text.Case("Mistral", False), folder / "folder")
        (folder / "folder" / "chat_template.jinja").write_text(chat_templates.CHATML)
        import_checkpoint(folder / "folder", folder / "run")
    return folder / "run"


def translated_by_command(run: Path, texts: list[str], folder: Path, *options: str) -> list[str]:
    """Return what `dragoman translate` makes of these texts."""
    (folder / "texts.txt").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    assert main(["translate", str(run), str(folder / "texts.txt"), "-o", str(folder / "out.txt"), *options]) == 0
    return (folder / "out.txt").read_text(encoding="utf-8").split("\n")[:-1]


@contextmanager
def running(context: ServerContext) -> Iterator[str]:
    """Run a server; give its address."""
    sock = open_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(context))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server has not started"
        time.sleep(0.01)
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()
