"""dragoman serve: models behind HTTP, for people and programs."""

import contextlib
import json
import logging
import math
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from dragoman.cli.messages import print_error
from dragoman.cli.options import DeviceOption, PrecisionOption, resolve_run
from dragoman.cli.plan_numbers import short
from dragoman.errors import ConfigError
from dragoman.serve.defaults import CHARACTERS, FILE_BYTES, QUEUE, TEXTS

if TYPE_CHECKING:
    from dragoman.plan.measured import MemoryMeter
    from dragoman.serve.safety.page import SafetyPage
    from dragoman.serve.served import ServedModel
    from dragoman.serve.service import Service

LOCAL = ("127.0.0.1", "::1", "localhost")


class LogFormat(StrEnum):
    """Format of the log on standard error."""

    text = "text"
    json = "json"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN | NAME=RUN",
            help="Directories of runs. A name such as en-es states the languages; default: the directory's name.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's: then use --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="API keys, one a line, with limits: KEY name=me requests=60 characters=100000."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Most memory that the process may take, as 4GiB; default: most of what is free."
        ),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are answered with 429.")] = QUEUE,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="A web page elsewhere that may call, as https://example.org; may be repeated."
        ),
    ] = None,
    max_characters: Annotated[int, typer.Option(min=1, help="Most characters of a request.")] = CHARACTERS,
    max_texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = TEXTS,
    max_file: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest file that is translated.")
    ] = f"{FILE_BYTES >> 20}MiB",
    suggestions: Annotated[
        Path | None,
        typer.Option(
            "--suggestions", metavar="FILE", help="Append translations that users suggest (/suggest) to this file."
        ),
    ] = None,
    safety: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML page of rules that refuse, hand over or degrade."),
    ] = None,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running requests have after SIGTERM.")] = 30.0,
    log_format: Annotated[LogFormat, typer.Option(help="text: for people; json: an object a line.")] = LogFormat.text,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Log the texts of users too.")] = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Serve models over HTTP: a page for people, and the APIs of LibreTranslate and OpenAI, and our own.

    SIGTERM or Ctrl-C finishes running requests and ends; SIGHUP loads the runs anew. Anyone on this machine may call;
    for others give --host and --keys, and put a proxy with TLS in front.
    """
    runs = named_runs(models)
    room = None if memory is None else parse_size(memory, "--memory")
    largest = parse_size(max_file, "--max-file")
    _needed_packages()
    from dragoman.plan.measured import MemoryMeter
    from dragoman.serve.http import server
    from dragoman.serve.http.context import ServerContext
    from dragoman.serve.http.keys import Keys
    from dragoman.serve.http.limits import Limits
    from dragoman.serve.http.suggestions import SuggestionFile
    from dragoman.serve.service import Service

    settings = {
        "keys": Keys.read(keys) if keys else Keys(),
        "limits": Limits(characters=max_characters, texts=max_texts, file_bytes=largest),
        "suggestions": SuggestionFile(suggestions) if suggestions else None,
        "safety": _safety_page(safety),
        "origins": tuple(map(_origin, allow_origin or ())),
        "log_texts": log_texts,
    }
    with server.open_socket(host, port) as sock:  # what is wrong with it is said before models are loaded
        if host not in LOCAL and not keys:
            print(f"dragoman: anyone who reaches {host} may call: --keys FILE asks for a key", file=sys.stderr)
        start_log(log_format)
        meter = MemoryMeter()
        service = Service.load(runs, memory=room, device=device, precision=precision, queue=queue)
        for model in service.models.values():
            _say(_title(model))
        address = server.url_of(sock)

        def started() -> None:
            _say(f"listening on {address} (documentation at /docs; Ctrl-C ends)")

        server.run(ServerContext(service, **settings), sock, grace=grace, keys=keys, started=started)
    _note_measured(service, meter)
    _say("ended")


def _note_measured(service: "Service", meter: "MemoryMeter") -> None:
    """Note in the run what serving took, for ``dragoman plan RUN --reconcile``; several models are not told apart."""
    from dragoman.plan.measured import note

    did = service.stats().engine
    if len(service.models) == 1 and did.steps:
        (model,) = service.models.values()
        found = {
            "memory": meter.peak(),
            "step_seconds": did.busy / did.steps,
            "tokens_per_second": did.tokens / did.busy,
        }
        with contextlib.suppress(OSError):  # a run that may only be read is served as well
            note(model.path, "serving", found)


def _origin(given: str) -> str:
    """Return the origin of a web page as browsers write it; * stays.

    Raises:
        ConfigError: it is none.
    """
    parts = urlsplit(given)
    is_origin = parts.scheme in ("http", "https") and parts.netloc and parts.path in ("", "/")
    if given != "*" and (not is_origin or "@" in parts.netloc or parts.query or parts.fragment):
        raise ConfigError(f"--allow-origin {given}: expected an origin without a path, such as https://example.org")
    return given if given == "*" else f"{parts.scheme}://{parts.netloc.lower()}"


def _safety_page(path: Path | None) -> "SafetyPage | None":
    if path is None:
        return None
    from dragoman.serve.safety.page import SafetyPage

    return SafetyPage.read(path)


def _title(model: "ServedModel") -> str:
    """Return name, task, languages and size in a few words."""
    languages = f" from {model.source} to {model.target}" if model.source and model.target else ""
    return f"{model.name}: {model.task}{languages}, {short(model.parameters)} parameters"


def _say(text: str) -> None:
    logging.getLogger("dragoman.serve").info(text)


def named_runs(models: list[str]) -> dict[str, Path]:
    """Return the runs by name: ``NAME=RUN``, or the name of the directory.

    Raises:
        ConfigError: an empty name, or one given twice.
    """
    runs: dict[str, Path] = {}
    for given in models:
        name, equals, path = given.partition("=")
        if not equals or "/" in name or Path(given).exists():
            name, path = "", given
        run = resolve_run(Path(path))
        name = name or run.resolve().name
        if name in runs:
            raise ConfigError(f"{given}: a model named {name} is given already: name it as in other={path}")
        runs[name] = run
    return runs


_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def parse_size(text: str, option: str) -> int:
    """Return a number of bytes written as 4GiB, 500MB or 1000.

    Raises:
        ConfigError: it cannot be read, or is not positive.
    """
    import re

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    size = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if not 1 <= size < math.inf:
        raise ConfigError(f"{option} {text}: write a size as 4GiB, 500MB or 1000000")
    return int(size)


def _needed_packages() -> None:
    """Check that the packages of the extra ``serve`` are installed.

    Raises:
        ConfigError: one is missing.
    """
    import importlib.util

    for name in ("starlette", "uvicorn", "httptools", "websockets", "prometheus_client", "python_multipart", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"serving needs {name}: pip install {name.replace('_', '-')} (the extra serve)")


# ---- the log ----------------------------------------------------------------------------------------


def start_log(format: LogFormat) -> None:
    """Send the log of the server to standard error."""
    handler = _ServerLog(sys.stderr)
    handler.setFormatter(_JsonLines() if format is LogFormat.json else _TextLines())
    for name in ("dragoman.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("dragoman.serve").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _ServerLog(logging.StreamHandler):
    """Handler that also shows the errors of a quiet server."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            print_error(self.format(record))
        else:
            super().emit(record)


class _JsonLines(logging.Formatter):
    """Writes a JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z"}
        fields |= {"level": record.levelname.lower(), "message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class _TextLines(logging.Formatter):
    """Writes lines for people: the time, and what happened."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if fields := dict(getattr(record, "fields", {})):
            head = [str(fields.pop(name, "")) for name in ("client", "method", "path", "status")]
            rest = [f"{name}={value}" for name, value in fields.items() if name != "ms"]
            text = " ".join([*head, f"{fields.get('ms', 0)} ms", *rest])
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}  {level}{text}{trace}"
