"""API keys: who may call, how often, and how much in a day."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.serve.http.problems import Problem

DAY = 86_400.0
"""Seconds after which the characters of a key count anew."""
_UNITS = {"requests": "minute", "characters": "day"}
_OPTIONS = ("name", "requests", "characters", "admin")


@dataclass(eq=False)
class ApiKey:
    """One key with its limits and what it has used of them."""

    name: str
    """Name for logs and metrics; never the key itself."""
    requests: int | None = None
    """Most requests a minute; None for no limit."""
    characters: int | None = None
    """Most characters a day; None for no limit."""
    admin: bool = False
    """True where the key may swap models."""
    clock: Callable[[], float] = time.monotonic
    _allowance: float = field(default=0.0, init=False)
    _used: int = field(default=0, init=False)
    _refilled: float = field(default=0.0, init=False)
    _day_started: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._allowance = float(self.requests or 0)
        self._refilled = self._day_started = self.clock()

    def count_request(self) -> None:
        """Count one request: a bucket of a minute's requests that fills evenly.

        Raises:
            Problem: the bucket is empty.
        """
        if self.requests is None:
            return
        now = self.clock()
        a_second = self.requests / 60
        self._allowance = min(self.requests, self._allowance + (now - self._refilled) * a_second)
        self._refilled = now
        if self._allowance < 1:
            raise Problem(
                429,
                "too_many_requests",
                f"this key may make {self.requests:,} requests a minute",
                retry_after=(1 - self._allowance) / a_second,
            )
        self._allowance -= 1

    def count_characters(self, number: int) -> None:
        """Count the characters of a request before it is answered.

        Raises:
            Problem: there would be more than a day's; none of them counts.
        """
        if self.characters is None:
            return
        now = self.clock()
        if now - self._day_started >= DAY:
            self._day_started, self._used = now, 0
        if self._used + number > self.characters:
            raise Problem(
                429,
                "characters_used_up",
                f"this key may send {self.characters:,} characters a day, and {self._used:,} are used: these "
                f"{number:,} are too many",
                retry_after=self._day_started + DAY - now,
            )
        self._used += number

    def give_back(self, number: int) -> None:
        """Take characters off the count: those of a request that was counted and then refused."""
        self._used = max(0, self._used - number)

    def take_over(self, old: "ApiKey") -> None:
        """Count what ``old``, the same key with earlier limits, has used."""
        self._used, self._day_started = old._used, old._day_started
        if self.requests is not None and old.requests is not None:
            self._allowance, self._refilled = min(self.requests, old._allowance), old._refilled


ANYONE = ApiKey("")
"""Stands for callers where no keys are wanted."""


class Keys:
    """Keys of a server; without any, everyone may call."""

    def __init__(self, keys: Iterable[tuple[str, ApiKey]] = ()):
        self._by_digest = {_listed_digest(secret): key for secret, key in keys}

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """Read a file with a key a line, followed by its options:

            3f9c0a... name=weblate requests=120/minute characters=500000/day
            77ab10... name=operator admin

        Empty lines and those that begin with # are left out. A key may be given as ``sha256:`` and its hash.

        Raises:
            ConfigError: no such file, no key in it, or a line that cannot be read; the message names it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8") from None
        rows = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1)]
        keys = [_parse(words, f"{path}:{number}") for number, words in rows if words and not words[0].startswith("#")]
        if not keys:
            raise ConfigError(f"{path}: no key in it: write one a line, or leave --keys out to let everyone call")
        found = cls(keys)
        if len(found._by_digest) < len(keys):
            raise ConfigError(f"{path}: a key is given twice: its limits would be unclear")
        return found

    def updated(self, path: str | Path) -> "Keys":
        """Read the file anew; keys that stay keep what they have used."""
        fresh = Keys.read(path)
        for digest, key in fresh._by_digest.items():
            if (old := self._by_digest.get(digest)) is not None:
                key.take_over(old)
        return fresh

    def authorise(self, secret: str | None) -> ApiKey:
        """Return the key that a caller has shown.

        Raises:
            Problem: none or an unknown one, where the server wants one.
        """
        if not self._by_digest:
            return ANYONE
        if not secret:
            raise Problem(401, "key_missing", "an API key is needed: send the header Authorization: Bearer KEY")
        digest = _digest(secret)
        for known, key in self._by_digest.items():
            if hmac.compare_digest(known, digest):
                return key
        raise Problem(401, "key_unknown", "this API key is not known here: check it, or ask whoever runs this server")


def _listed_digest(entry: str) -> str:
    """Return the digest of a key in the file, which may hold the digest itself. A caller always shows the key."""
    return entry if re.fullmatch(r"sha256:[0-9a-f]{64}", entry) else _digest(entry)


def _digest(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(words: list[str], where: str) -> tuple[str, ApiKey]:
    secret, *options = words
    given: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in _OPTIONS:
            raise ConfigError(unknown(where, name, _OPTIONS))
        if name == "admin" and value:
            raise ConfigError(f"{where}: {option}: write admin alone, or leave it out")
        given[name] = value
    requests, characters = (
        _limit(given[name], name, where) if name in given else None for name in ("requests", "characters")
    )
    name = given.get("name") or _listed_digest(secret)[7:15]
    return secret, ApiKey(name, requests, characters, admin="admin" in given)


def _limit(value: str, name: str, where: str) -> int:
    unit = _UNITS[name]
    match = re.fullmatch(rf"(\d+(?:_\d+)*)(?:/{unit})?", value, re.ASCII)
    if match is None or len(match[1]) > 18 or int(match[1]) < 1:
        raise ConfigError(f"{where}: {name}={value}: write a whole number, as in {name}=1000/{unit}")
    return int(match[1])
