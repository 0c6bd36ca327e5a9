"""ServerContext: what all endpoints of a server share."""

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from dragoman.serve.errors import UnknownModel
from dragoman.serve.http.files import FileJobs
from dragoman.serve.http.keys import Keys
from dragoman.serve.http.languages import Directions
from dragoman.serve.http.limits import Limits
from dragoman.serve.http.metrics import ServerMetrics
from dragoman.serve.http.suggestions import SuggestionFile
from dragoman.serve.served import ServedModel
from dragoman.serve.service import Service

if TYPE_CHECKING:
    from dragoman.serve.safety.page import SafetyPage

log = logging.getLogger("dragoman.serve")


@dataclass
class ServerContext:
    """A service with the keys, limits, metrics and jobs of its server."""

    service: Service
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    origins: tuple[str, ...] = ()
    """Origins of web pages elsewhere that may call."""
    suggestions: SuggestionFile | None = None
    """File of better translations that users send; None where none are wanted."""
    safety: "SafetyPage | None" = None
    """Rules around every text and answer; None for none."""
    log_texts: bool = False
    """True where texts of users may be logged."""
    draining: bool = False
    """True once new requests are refused."""
    metrics: ServerMetrics = field(init=False)
    files: FileJobs = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = ServerMetrics(lambda: self.service.stats(), self.safety.counters if self.safety else None)
        self.files = FileJobs(self.service, self.safety)

    async def drain(self, grace: float) -> bool:
        """Refuse new requests; return whether running ones, and files, were done within ``grace`` seconds."""
        self.draining = True
        started = time.monotonic()
        done = await self.files.finish(grace)
        return await self.service.drain(max(0.0, grace - (time.monotonic() - started))) and done

    @property
    def directions(self) -> Directions:
        """Translators by their languages."""
        return Directions(self.service.models.values())

    @property
    def default(self) -> ServedModel:
        """The model that is used where none is named: the first one."""
        return next(iter(self.service.models.values()))

    def model(self, name: str) -> ServedModel:
        """Return a model by its name.

        Raises:
            UnknownModel: there is none of this name; the message lists those there are.
        """
        if (found := self.service.models.get(name)) is None:
            raise UnknownModel(f"the model {name!r}", ", ".join(self.service.models))
        return found

    def answered(
        self, request: HTTPConnection, method: str, path: str, status: int, seconds: float, notes: dict[str, Any]
    ) -> None:
        """Count an answered request, and log it without its texts; ``method`` is WS for a message on a socket."""
        self.metrics.answered(f"{method} {path}", status, seconds, notes)
        client = request.client.host if request.client else ""
        fields = {"client": client, "method": request.scope.get("method", method), "path": path, "status": status}
        fields |= {"ms": round(seconds * 1000, 1)} | {name: value for name, value in notes.items() if value != ""}
        if not self.log_texts:
            fields.pop("content", None)
        log.info("request", extra={"fields": fields})
