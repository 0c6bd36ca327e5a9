"""Request bodies: JSON or a form, within their limits, as a model that is checked strictly."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from dragoman.serve.http.limits import Limits
from dragoman.serve.http.problems import Problem

M = TypeVar("M", bound=BaseModel)
JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
_MULTIPART_OVERHEAD = 64 << 10
"""Bytes of a multipart body that are neither file nor text."""


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the whole body.

    Raises:
        Problem: it is longer than ``limit``, or takes longer to arrive.
        ClientDisconnect: the client is gone.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Problem(408, "too_slow", f"the request did not arrive within {seconds:g} s") from None
    return bytes(body)


async def discard_rest(request: Request, seconds: float) -> None:
    """Read what a client still sends of a body that is refused, for so many seconds at most.

    Many clients read the answer only when they have sent all, and lose it if the connection is closed before. A client
    that asks first (``Expect: 100-continue``) gets the answer at once.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    with contextlib.suppress(ClientDisconnect, TimeoutError, RuntimeError):  # the last: all of it has been read
        async with asyncio.timeout(seconds):
            async for _ in request.stream():
                pass


def _too_large(limit: int) -> Problem:
    return Problem(413, "too_large", f"the body is too large: at most {limit:,} bytes are read")


def content_type(request: Request) -> str:
    """Return the type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_json(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object.

    Raises:
        Problem: not UTF-8, not JSON, or no object.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            400, "not_utf8", f"the body is not UTF-8: byte {body[error.start]:#04x} at position {error.start}"
        ) from None
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise Problem(400, "not_json", "the body is not JSON that can be read: too deeply nested") from None
    except ValueError as error:
        raise Problem(400, "not_json", f"the body is not JSON: {error}") from None
    if "\\ud" in text.lower():
        _refuse_half_characters(data)
    if not isinstance(data, dict):
        raise Problem(400, "not_json", 'the body must be a JSON object, as in {"text": "..."}')
    return data


def _refuse_half_characters(data: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Problem(
            400, "not_utf8", "the body holds half of a surrogate pair: \\ud800 to \\udfff come in pairs"
        ) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


async def read_form(request: Request, limits: Limits) -> FormData:
    """Parse a multipart body; close the result after use.

    Raises:
        Problem: it is broken, too large or too slow.
    """
    seen, limit = 0, limits.file_bytes + _MULTIPART_OVERHEAD
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limits.file_bytes)

    async def pieces():
        nonlocal seen
        async for piece in request.stream():
            seen += len(piece)
            if seen > limit:
                raise _too_large(limits.file_bytes)
            yield piece

    parser = MultiPartParser(request.headers, pieces(), max_files=1, max_fields=32)
    try:
        async with asyncio.timeout(10 * limits.seconds_to_send):
            return await parser.parse()
    except BaseException as error:
        for file in getattr(parser, "_files_to_close_on_error", ()):  # it closes them only after errors of its own
            file.close()
        raise _problem_of_form(error) from None


def _problem_of_form(error: BaseException) -> BaseException:
    """Return what is wrong with a form, or ``error`` itself if that is something else."""
    if isinstance(error, TimeoutError):
        return Problem(408, "too_slow", "the file did not arrive in time")
    if isinstance(error, MultiPartException | KeyError | ValueError):
        message = getattr(error, "message", None) or "the form cannot be read"
        return Problem(400, "broken_form", f"multipart/form-data: {message}")
    return error


def validated(model: type[M], data: dict[str, Any], *, strict: bool = True) -> M:
    """Return ``data`` as a model.

    Args:
        strict: False converts texts to numbers, as a form needs.

    Raises:
        Problem: a field is missing, unknown or ill-typed; the message names the first one.
    """
    try:
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        raise _invalid(model, error) from None


_MESSAGES = {
    "missing": "must be given",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must not be empty",
    "too_short": "must not be an empty list",
}


def _invalid(model: type[BaseModel], error: ValidationError) -> Problem:
    errors = error.errors(include_url=False, include_context=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), None) or _likeliest(errors)
    steps = _steps(first)
    field = ".".join(steps) or "body"
    if first["type"] == "extra_forbidden":
        from dragoman.config import unknown

        names = [info.alias or name for name, info in model.model_fields.items()]
        return Problem(422, "invalid_request", unknown(".".join(steps[:-1]) or "body", steps[-1], names), param=field)
    message = _MESSAGES.get(first["type"]) or first["msg"].replace("Input should", "must", 1)
    return Problem(422, "invalid_request", f"{field}: {message}", param=field)


def _likeliest(errors: Sequence[Any]) -> Any:
    """Return the error of the first field that is wrong. Where it may be one of several types, it is that of the type
    that fits the longest way."""
    of_first = [error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]]
    return max(of_first, key=lambda error: (len(_steps(error)), not error["type"].endswith("_type")))


def _steps(error: Any) -> list[str]:
    """Return the path of the field that an error is about."""
    return [str(step) for step in error["loc"] if not _is_branch(step)]


def _is_branch(step: int | str) -> bool:
    """Return whether a step names an alternative of a union, as pydantic writes it, and no field."""
    return isinstance(step, str) and (step in ("str", "int", "float", "bool") or "[" in step)
