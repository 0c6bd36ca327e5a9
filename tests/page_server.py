"""A server with fixed answers that speaks the JSON of ``dragoman serve``: the page is driven without a model.

A translation spells the words of its source backwards, in capitals and in the opposite order, so that every word is
aligned to another place. Words with a meaning of their own: ``hard`` is translated with doubt, ``fails`` not at all.
"""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from dragoman.serve.page import CONTENT_SECURITY_POLICY, FOLDER

HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
ARABIC = "الكلب يرى البيت الأحمر في المدينة"
JAPANESE = "犬は赤い家を見ています。"
NAMES = {"en": "English", "es": "Spanish", "ar": "Arabic", "ja": "Japanese", "": ""}

DECISIONS = {
    "poison": {"rule": "1", "action": "refuse", "on": "text", "text": "This is not translated here."},
    "dose": {"rule": "2", "action": "hand_over", "on": "text", "text": "A person translates this.", "ticket": "q-17"},
    "drug": {"rule": "3", "action": "degrade", "on": "text", "text": "About drugs: ask someone who knows."},
}
"""Words that rules of the server are about, and what they decide."""


def model(name: str, task: str = "translate", **fields: Any) -> dict[str, Any]:
    source, _, target = name.partition("-") if "-" in name else ("", "", "")
    known = {"source": source, "target": target, "source_name": NAMES[source], "target_name": NAMES[target]}
    direction = "rtl" if target == "ar" else "ltr"
    rest = {"direction": direction, "tags": [], "parameters": 1000, "chat": False, "splits": True}
    return {"name": name, "task": task} | known | rest | fields


ALL = [model("en-es"), model("es-en"), model("en-ar"), model("en-ja"), model("talk", "generate", chat=True)]


@dataclass
class PageServer:
    """The server, in a thread of its own; its fields may be changed while it runs."""

    models: list[dict[str, Any]] = field(default_factory=lambda: list(ALL))
    limit: int = 5000
    key: str = ""
    sockets: bool = True
    """False where no WebSocket gets through."""
    delay: float = 0.0
    held_at: int | None = None
    """Number of the word of an answer that is not written until this is None again."""
    """Seconds before an answer."""
    failures: list[tuple[int, str, float | None]] = field(default_factory=list)
    """Statuses, messages and Retry-After of the next answers."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Requests for translations, in their order."""
    chats: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: int = 6
    """Words of an answer in a chat."""
    breaks: bool = False
    """True where an answer in a chat ends in an error after two words."""
    dropped: int = 0
    """Streams that the page has left."""
    prefix: str = ""
    """Path at which a proxy shows the server."""
    whole_lines: bool = False
    """True where lines of several sentences are not divided as the page divides them."""
    away: bool = False
    """True while a proxy answers in the server's place."""
    port: int = 0
    """Port to listen at; 0 for a free one."""

    def reset(self) -> None:
        """Become as new, but for the port."""
        fresh = PageServer(port=self.port)
        for each in fields(PageServer):
            setattr(self, each.name, getattr(fresh, each.name))

    def texts(self) -> list[str]:
        """Return the texts that were asked for, in their order."""
        return [
            text for each in self.asked for text in ([each["text"]] if isinstance(each["text"], str) else each["text"])
        ]

    def __enter__(self) -> "PageServer":
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", self.port))
            self.port = free.getsockname()[1]
        config = uvicorn.Config(self.app(), port=self.port, log_level="critical", ws="websockets-sansio")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
        self.address = f"http://127.0.0.1:{self.port}{self.prefix}/"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()

    def app(self) -> Starlette:
        routes: list[BaseRoute] = [
            Route("/", self.index),
            Mount("/static", StaticFiles(directory=FOLDER)),
            Route("/api/settings", self.settings),
            Route("/api/models", self.list_models),
            Route("/api/translate", self.translate, methods=["POST"]),
            Route("/api/detect", self.detect, methods=["POST"]),
            Route("/api/files", self.file, methods=["POST"]),
            Route("/api/files/{id}", self.file_state),
            Route("/api/files/{id}/result", self.file_result),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.chat, methods=["POST"]),
            WebSocketRoute("/api/live", self.live),
        ]
        return Starlette(routes=[Mount(self.prefix, routes=routes)] if self.prefix else routes)

    async def index(self, _: Request) -> Response:
        return FileResponse(FOLDER / "index.html", headers=HEADERS)

    async def settings(self, _: Request) -> Response:
        if self.away:
            return JSONResponse({"error": {"message": "the model is being loaded"}}, 503, {"Retry-After": "2"})
        limits = {"characters": self.limit, "lines": 100, "file_bytes": 4096}
        return JSONResponse(
            {
                "version": "0.1.0",
                "key_required": bool(self.key),
                "limits": limits,
                "files": [".po", ".txt"],
                "suggest": False,
                "safety": False,
            }
        )

    async def list_models(self, request: Request) -> Response:
        return self.refused(request) or JSONResponse({"models": self.models, "default": self.models[0]["name"]})

    async def translate(self, request: Request) -> Response:
        body = await request.json()
        if refused := self.refused(request):
            return refused
        await asyncio.sleep(self.delay)
        return JSONResponse(self.answer(body))

    async def live(self, socket: WebSocket) -> None:
        if not self.sockets:
            return await socket.close()
        await socket.accept()
        running: asyncio.Task[None] | None = None
        try:
            while True:
                body = await socket.receive_json()
                if running:
                    running.cancel()
                running = asyncio.create_task(self.answer_live(socket, body))
        except WebSocketDisconnect:
            pass

    async def answer_live(self, socket: WebSocket, body: dict[str, Any]) -> None:
        number, key = body.pop("id"), body.pop("api_key", "")
        error = self.problem(key)
        await asyncio.sleep(self.delay)
        answer = {"error": error} if error else self.answer(body)
        await socket.send_json({"id": number} | answer)

    def problem(self, key: str, may_fail: bool = True) -> dict[str, Any] | None:
        if self.key and key != self.key:
            return {"code": "unauthorized", "message": "a key is needed", "status": 401}
        if not self.failures or not may_fail:
            return None
        status, message, retry_after = self.failures.pop(0)
        return {"code": "code", "message": message, "status": status, "retry_after": retry_after}

    def refused(self, request: Request) -> Response | None:
        """Return the refusal of a request: for a wrong key or, where it sends something, the next failure."""
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        error = self.problem(key, may_fail=request.method == "POST")
        if error is None:
            return None
        after = error.pop("retry_after", None)
        headers = {} if after is None else {"Retry-After": str(after)}
        return JSONResponse({"error": error}, error["status"], headers)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        texts = [body["text"]] if isinstance(body["text"], str) else body["text"]
        found = next(each for each in self.models if each["name"] == body["model"])
        return {
            "model": found["name"],
            "source": found["source"],
            "target": found["target"],
            "translations": [self.translation(text, found["target"], body) for text in texts],
        }

    def translation(self, text: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
        candidates = [self.candidate(text, target, body, number) for number in range(body.get("nbest", 1))]
        decided = next((fields for word, fields in DECISIONS.items() if word in text), None)
        if decided and decided["action"] != "degrade":
            candidates = [candidates[0] | {"text": decided["text"], "tokens": [], "alignment": None, "confidence": 0.0}]
        best = candidates[0]
        return ({"decision": decided} if decided else {}) | {
            "source": text,
            "text": best["text"],
            "confidence": best["confidence"],
            "review": False,
            "warnings": ["the numbers differ"] if "7" in text else [],
            "candidates": candidates,
        }

    def candidate(self, text: str, target: str, body: dict[str, Any], number: int) -> dict[str, Any]:
        words = spelled(text, target, self.glossary(text), self.whole_lines)
        stands = body.get("prefix", "").split()
        rest = words[len(stands) :]
        if rest:
            others = (rest[0] + (str(k) if k > 1 else "") for k in range(1, 100))
            allowed = [word for word in others if word.rstrip(".") not in body.get("forbidden", [])]
            rest = [allowed[number], *rest[1:]]
        joined = " ".join([*stands, *rest])
        count = len(text.split())
        links = [[count - 1 - i, i] for i in range(min(count, len(joined.split())))]
        sure = -2.5 if "hard" in text.split() else -0.1
        tokens = [{"text": (" " if i else "") + word, "log_prob": sure} for i, word in enumerate(joined.split())]
        confidence = 0.3 if "hard" in text.split() else 0.9 - number / 10
        scores = {"score": sure - number, "log_prob": sure, "confidence": confidence, "truncated": False}
        return {"text": joined, "tokens": [*tokens, {"text": "", "log_prob": 0.0}], "alignment": links} | scores

    def glossary(self, text: str) -> dict[str, str]:
        rows = self.asked[-1].get("glossary", [])
        found = [row for row in rows if row["target"] and row["source"].lower() in text.lower()]
        return {row["source"].lower(): row["target"][0] for row in found}

    async def detect(self, request: Request) -> Response:
        text = (await request.json())["text"]
        language = "es" if " el " in f" {text} " else "en"
        return JSONResponse([[{"language": language, "confidence": 0.95}]])

    async def file(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        async with request.form() as form:
            upload = form["file"]
            assert not isinstance(upload, str)
            content, name = await upload.read(), str(upload.filename)
            beside = {key: value for key, value in form.items() if key != "file"}
        self.files[name] = {"name": name, "content": content, "looks": 0, "fields": beside}
        return JSONResponse({"id": name}, 202)

    async def file_state(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        job = self.files[request.path_params["id"]]
        job["looks"] += 1
        if b"broken" in job["content"]:
            error = {"message": "messages.po:3: an entry without its end"}
            return JSONResponse({"state": "failed", "name": job["name"], "done": 0, "total": 0, "error": error})
        stem, _, kind = job["name"].rpartition(".")
        done = min(3, job["looks"])
        state = {"state": "done" if done == 3 else "running", "done": done, "total": 3, "name": f"{stem}_es.{kind}"}
        return JSONResponse(state | ({"filled": 2, "flagged": 1, "left": 0, "withheld": 1} if done == 3 else {}))

    async def file_result(self, request: Request) -> Response:
        if refused := self.refused(request):
            return refused
        return Response(self.files[request.path_params["id"]]["content"].upper())

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        if refused := self.refused(request):
            return refused
        self.chats.append(body)

        async def events() -> AsyncIterator[str]:
            try:
                for number in range(self.words):
                    while self.held_at == number:
                        await asyncio.sleep(0.01)
                    if self.breaks and number == 2:
                        yield f"data: {json.dumps({'error': {'message': 'the server is draining'}})}\n\n"
                        return
                    said = f" word{number}" if number else "word0"
                    choice = {"delta": {"content": said}} if "messages" in body else {"text": said}
                    yield f"data: {json.dumps({'choices': [choice | {'finish_reason': None}]})}\n\n"
                    await asyncio.sleep(self.delay)
                yield f"data: {json.dumps({'choices': [{'delta': {}, 'text': '', 'finish_reason': 'length'}]})}\n\n"
                yield "data: [DONE]\n\n"
            except asyncio.CancelledError:
                self.dropped += 1
                raise

        return StreamingResponse(events(), media_type="text/event-stream")


def spelled(text: str, target: str, glossary: dict[str, str], whole: bool) -> list[str]:
    """Return the words of a translation; each sentence by itself, unless a line is taken as a ``whole``."""
    if target == "ar":
        return (ARABIC.split() * len(text.split()))[: len(text.split())]
    if target == "ja":
        return [JAPANESE]
    sentences = [text] if whole else text.replace(". ", ".\n").replace("? ", "?\n").split("\n")
    return [word for sentence in sentences for word in backwards(sentence, glossary)]


def backwards(sentence: str, glossary: dict[str, str]) -> list[str]:
    end = sentence[-1:] if sentence[-1:] in ".?!" else ""
    found = [glossary.get(word.lower(), word[::-1].upper()) for word in sentence.removesuffix(end).split()][::-1]
    return [*found[:-1], found[-1] + end] if found else []
