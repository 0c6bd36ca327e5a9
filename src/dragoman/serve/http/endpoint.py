"""One endpoint of an API: what it reads and answers, from which both its route and its OpenAPI entry are made."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dragoman.serve.errors import Draining
from dragoman.serve.http import problems
from dragoman.serve.http.bodies import (
    FORM,
    JSON,
    MULTIPART,
    content_type,
    discard_rest,
    read_body,
    read_form,
    read_json,
    validated,
)
from dragoman.serve.http.event_stream import EventStream
from dragoman.serve.http.keys import ANYONE, ApiKey
from dragoman.serve.http.problems import Problem, ProblemStyle, is_refusal, problem_of_any

if TYPE_CHECKING:
    from dragoman.serve.http.context import ServerContext

CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client left before its answer, as nginx writes it."""
B = TypeVar("B", bound=BaseModel)
STYLES: dict[str, ProblemStyle] = {
    "native": problems.native,
    "libretranslate": problems.libretranslate,
    "openai": problems.openai,
}


@dataclass
class Incoming(Generic[B]):
    """A request whose body has been read and checked, and whose caller is known."""

    http: HTTPConnection
    body: B
    key: ApiKey = ANYONE
    form: FormData | None = None
    """Fields of a multipart body, where the endpoint reads one."""
    file: UploadFile | None = None
    """File of a multipart body."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts for the log: the model, the number of texts and of characters, and the texts, which are logged only if
    that is wanted."""
    counted: int = 0
    """Characters that are counted against the key."""

    def count(self, texts: list[str], model: str = "") -> None:
        """Count the texts of the request against its key.

        Raises:
            Problem: the key has used up its characters.
        """
        characters = sum(map(len, texts))
        self.notes |= {"model": model, "texts": len(texts), "characters": characters, "content": texts}
        self.key.count_characters(characters)
        self.counted += characters

    @contextmanager
    def refunded(self) -> Iterator[None]:
        """Give the key its characters back where the request is refused."""
        try:
            yield
        except Exception as error:
            if is_refusal(error):
                self.key.give_back(self.counted)
            raise


class NoBody(BaseModel):
    """Body of an endpoint that reads none."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An endpoint with its path, its models and the function that does it."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    handler: Callable[["ServerContext", Incoming[Any]], Awaitable[Any]]
    """Returns a response, a model, or plain data that is answered as JSON."""
    style: Literal["native", "libretranslate", "openai"] = "native"
    description: str = ""
    body: type[BaseModel] = NoBody
    reads: tuple[str, ...] = (JSON,)
    """Types of body that are read."""
    answer: type[BaseModel] | None = None
    """Model of the answer; None for any JSON."""
    answers_with: tuple[str, ...] = (JSON,)
    """Types of the answer."""
    streams: bool = False
    """True where the answer may be a stream of events."""
    status: int = 200
    statuses: tuple[int, ...] = ()
    """Statuses besides the usual ones of a problem."""
    open: bool = False
    """True where no key is needed."""
    while_draining: bool = False
    """True where it is also answered while the server ends."""

    @property
    def reads_body(self) -> bool:
        """True where a body is read."""
        return self.method == "POST" and self.body is not NoBody

    def route(self, context: "ServerContext") -> Route:
        """Return the route of the endpoint."""

        async def respond(request: Request) -> Response:
            return await self.respond(context, request)

        return Route(self.path, respond, methods=[self.method], name=self.handler.__name__)

    async def respond(self, context: "ServerContext", request: Request) -> Response:
        """Answer a request, or say in the style of the API what is wrong with it."""
        started = time.perf_counter()
        notes: dict[str, Any] = {}
        try:
            response = await self._answer(context, request, notes)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_GONE)
        except Exception as error:
            response = STYLES[self.style](problem_of_any(error))

        def ended(complete: bool = True) -> None:
            seconds, status = time.perf_counter() - started, response.status_code if complete else CLIENT_GONE
            context.answered(request, self.method, self.path, status, seconds, notes)

        if isinstance(response, EventStream):
            response.ended = ended
        else:
            ended()
        return response

    async def _answer(self, context: "ServerContext", request: Request, notes: dict[str, Any]) -> Response:
        if context.draining and not self.while_draining:
            raise Draining
        incoming = Incoming(request, self.body(), notes=notes) if not self.reads_body else None
        if incoming is None:
            try:
                if not self.open:
                    self._precheck(context, request)
                incoming = await self._read(context, request)
            except Problem:
                await discard_rest(request, context.limits.seconds_to_send)
                raise
            incoming.notes = notes
        try:
            if not self.open:
                incoming.key = context.keys.authorise(secret_of(request, incoming.body))
                notes["key"] = incoming.key.name
                incoming.key.count_request()
            with incoming.refunded():
                answer = await unless_gone(request, self.handler(context, incoming))
        finally:
            if incoming.form is not None:
                await incoming.form.close()
        return answer if isinstance(answer, Response) else json_response(answer, self.status)

    def _precheck(self, context: "ServerContext", request: Request) -> None:
        """Refuse a caller who shows a wrong key in a header, or in the address, before the body is read."""
        if secret := key_of_head(request):
            context.keys.authorise(secret)
        elif self.style != "libretranslate":  # where the key may stand in the body
            context.keys.authorise(None)

    async def _read(self, context: "ServerContext", request: Request) -> Incoming[Any]:
        kind = content_type(request)
        if not kind and FORM in self.reads:
            kind = FORM
        if kind not in self.reads:
            raise Problem(
                415, "unsupported_type", f"a body of type {kind or 'unknown'}: send {' or '.join(self.reads)}"
            )
        limits = context.limits
        if kind == MULTIPART:
            return await self._read_upload(request, await read_form(request, limits))
        raw = await read_body(request, limits.body_bytes, limits.seconds_to_send)
        if kind == FORM:
            fields = dict(request.query_params) | form_fields(raw)
            return Incoming(request, validated(self.body, fields, strict=False))
        return Incoming(request, validated(self.body, read_json(raw)))

    async def _read_upload(self, request: Request, form: FormData) -> Incoming[Any]:
        try:
            texts: dict[str, Any] = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            if not isinstance(file := form.get("file"), UploadFile):
                raise Problem(422, "invalid_request", "file: must be given, as a file of the form", param="file")
            return Incoming(request, validated(self.body, texts, strict=False), form=form, file=file)
        except Problem:
            await form.close()
            raise


def form_fields(raw: bytes) -> dict[str, Any]:
    """Return the fields of a URL-encoded form; one that is given several times is a list.

    Raises:
        Problem: not UTF-8.
    """
    try:
        found = parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=10_000)
    except UnicodeDecodeError:
        raise Problem(400, "not_utf8", "the form is not UTF-8") from None
    except ValueError:
        raise Problem(400, "broken_form", "the form cannot be read") from None
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def key_of_head(request: HTTPConnection) -> str | None:
    """Return the API key in a header or in the address, if there is one."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    in_header = secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
    return in_header or request.query_params.get("api_key")


def secret_of(request: HTTPConnection, body: BaseModel) -> str | None:
    """Return the API key of a request: of its head, or of its body as LibreTranslate's clients send it."""
    return key_of_head(request) or getattr(body, "api_key", None)


async def unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Await ``work``, and cancel it the moment the client is gone.

    Raises:
        ClientDisconnect: the client left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(answer: Any, status: int = 200) -> Response:
    """Return plain data, or a model without the fields that are not set, as JSON."""
    if isinstance(answer, BaseModel):
        return Response(answer.model_dump_json(exclude_unset=True, by_alias=True), status, media_type=JSON)
    return JSONResponse(answer, status)
