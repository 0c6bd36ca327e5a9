"""Queue for people: texts that are handed over, in a file of JSON lines, and perhaps told to a webhook.

A line is on the disk before the user gets an answer. The webhook is told by a thread of its own, which tries again with
growing pauses: a slow or absent receiver delays no answer, and loses nothing, because the file has it.
"""

import json
import logging
import queue
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from time import sleep
from typing import Any

from dragoman import durable
from dragoman.errors import ConfigError
from dragoman.output_file import check_output_file
from dragoman.serve.safety.rules import FileQueueConfig, WebhookConfig

log = logging.getLogger(__name__)
PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before the second attempt, doubled for each further one, and the most."""
WAITING = 10_000
"""Most entries that wait for the webhook; more are in the file alone."""


class TicketFile:
    """File of JSON lines that entries are appended to."""

    def __init__(self, path: Path):
        """
        Raises:
            OutputError: the file cannot be written to.
        """
        check_output_file(path)
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Append an entry; it is on the disk when this returns. Several processes may append to one file.

        Raises:
            OSError: the disk takes no more.
        """
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        durable.append(self.path, line.encode(), mode=0o600)  # texts of users: for the owner


class Webhook:
    """Tells an address of entries, in a thread of its own."""

    def __init__(self, cfg: WebhookConfig, failures: Counter[str], *, pause: Callable[[float], None] = sleep):
        """
        Raises:
            ConfigError: the address is none of http or https.
        """
        if not cfg.url.lower().startswith(("http://", "https://")):
            raise ConfigError(f"queue.url: {cfg.url}: must begin with http:// or https://")
        self.cfg, self.failures, self.pause = cfg, failures, pause
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue(WAITING)
        self.thread: threading.Thread | None = None

    def tell(self, entry: dict[str, Any]) -> None:
        """Tell of an entry, soon."""
        if self.thread is None:  # only where something is handed over
            self.thread = threading.Thread(target=self._work, daemon=True, name="dragoman-webhook")
            self.thread.start()
        try:
            self.waiting.put_nowait(entry)
        except queue.Full:
            self.failures["webhook not told"] += 1

    def _work(self) -> None:
        while True:
            entry = self.waiting.get()
            try:
                self._deliver(entry)
            finally:
                self.waiting.task_done()

    def _deliver(self, entry: dict[str, Any]) -> None:
        for attempt in range(self.cfg.attempts):
            if attempt:
                self.pause(min(LONGEST_PAUSE, PAUSE * 2 ** (attempt - 1)))
            try:
                self._post(entry)
                return
            except (OSError, ValueError, HTTPException) as error:  # URLError and HTTPError are OSErrors
                log.warning("webhook %s: attempt %d: %s", self.cfg.url, attempt + 1, error)
        self.failures["webhook not told"] += 1

    def _post(self, entry: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": entry["id"]} | dict(self.cfg.headers)
        content = json.dumps(entry, ensure_ascii=False).encode()
        request = urllib.request.Request(self.cfg.url, data=content, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.cfg.seconds) as answer:
            answer.read(1)


class TicketQueue:
    """Queue that texts are handed over to."""

    def __init__(self, cfg: FileQueueConfig | WebhookConfig, folder: Path, failures: Counter[str]):
        """
        Raises:
            ConfigError, OutputError: the file or the address cannot be used.
        """
        self.failures = failures
        self.file = TicketFile(folder / cfg.path)
        self.webhook = Webhook(cfg, failures) if isinstance(cfg, WebhookConfig) else None

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry. A full disk is counted and logged: the text is not answered all the same."""
        try:
            self.file.append(entry)
        except OSError as error:
            self.failures["queue not written"] += 1
            log.error("%s: %s", self.file.path, error.strerror or error)
        if self.webhook is not None:
            self.webhook.tell(entry)
