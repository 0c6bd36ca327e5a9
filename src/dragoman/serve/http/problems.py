"""Errors as HTTP answers: a status, a code for programs and one clear sentence, in the shape of each API."""

import logging
import math
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from dragoman.errors import UserError
from dragoman.serve import errors

log = logging.getLogger("dragoman.serve")
RETRY_AFTER = 1.0
"""Seconds after which a client may try again, where nothing better is known."""


class Problem(Exception):
    """Error that a client is told about."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        param: str | None = None,
        limit: int | None = None,
        count: int | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after = retry_after
        """Seconds after which the request may be repeated; None where repeating will not help."""
        self.param = param
        """Field of the request that is wrong."""
        self.limit, self.count = limit, count

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the error in our own API."""
        fields = {"code": self.code, "message": self.message, "status": self.status, "field": self.param}
        fields |= {"retry_after": self.retry_after, "limit": self.limit, "count": self.count}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


_STATUSES: dict[type[Exception], tuple[int, str]] = {
    errors.Overloaded: (429, "overloaded"),
    errors.Draining: (503, "draining"),
    errors.TooLarge: (413, "too_large"),
    errors.DeadlinePassed: (408, "deadline_passed"),
    errors.UnknownModel: (404, "unknown_model"),
    errors.WrongTask: (422, "wrong_task"),
}
"""Status and code of each error of the service; any other error of a user is unprocessable."""


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error of the service is to a client.

    Raises:
        Exception: ``error`` itself, if it is a defect of ours.
    """
    if isinstance(error, Problem):
        return error
    for kind, (status, code) in _STATUSES.items():
        if isinstance(error, kind):
            waits = status in (429, 503)
            return Problem(
                status, code, str(error), retry_after=getattr(error, "retry_after", RETRY_AFTER) if waits else None
            )
    if isinstance(error, UserError):
        return Problem(422, "invalid_request", str(error))
    raise error


def is_refusal(error: Exception) -> bool:
    """Return whether an error says that the server does not answer now, for whatever reason of its own: a full queue,
    its end, or a defect."""
    try:
        status = problem_of(error).status
    except Exception:
        return True
    return status == 429 or status >= 500


def problem_of_any(error: Exception) -> Problem:
    """Return the problem that any error is to a client; a defect of ours is logged."""
    try:
        return problem_of(error)
    except Exception:
        log.exception("a defect of the server")
        return Problem(500, "internal_error", "the server failed: its log says where")


ProblemStyle = Callable[[Problem], Response]
"""Writes a problem as one API does."""


STATUSES: dict[str, dict[int, int]] = {"native": {}, "libretranslate": {401: 403, 422: 400}, "openai": {422: 400}}
"""Statuses that an API has others for, by its style."""


def _status(style: str, problem: Problem) -> int:
    return STATUSES[style].get(problem.status, problem.status)


def native(problem: Problem) -> Response:
    """Write a problem as our own API does."""
    return JSONResponse({"error": problem.fields}, problem.status, problem.headers)


def libretranslate(problem: Problem) -> Response:
    """Write a problem as LibreTranslate does: a sentence alone, and 400 for all that is wrong with a request."""
    status = 400 if problem.code == "unknown_model" else _status("libretranslate", problem)
    return JSONResponse({"error": problem.message}, status, problem.headers)


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def openai_fields(problem: Problem) -> dict[str, Any]:
    """Return the fields of an error of OpenAI's API."""
    status = _status("openai", problem)
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if problem.code == "unknown_model" else problem.code
    return {"message": problem.message, "type": kind, "param": problem.param, "code": code}


def openai(problem: Problem) -> Response:
    """Write a problem as OpenAI's API does."""
    return JSONResponse({"error": openai_fields(problem)}, _status("openai", problem), problem.headers)
