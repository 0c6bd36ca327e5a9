"""Our own API, the WebSocket, keys, limits and operations of a server."""

import asyncio
import hashlib
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
import websockets
from serving import SENTENCES, running, train_tiny, translated_by_command
from websockets.sync.client import connect

from dragoman.decode.documents.line_translation import LineTranslator
from dragoman.decode.request import as_request
from dragoman.decode.translation import Candidate, Translation
from dragoman.errors import ConfigError
from dragoman.serve.errors import DeadlinePassed, Draining, Overloaded, TooLarge
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.event_stream import EventStream
from dragoman.serve.http.keys import ApiKey, Keys
from dragoman.serve.http.limits import Limits
from dragoman.serve.http.live import LiveConnection
from dragoman.serve.http.problems import Problem
from dragoman.serve.service import Service
from dragoman.text.context import SentencesBefore


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train_tiny(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory) -> list[str]:
    return translated_by_command(run, SENTENCES, tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def service(run):
    return Service.load({"en-es": run})


@pytest.fixture(scope="module")
def server(run):
    limits = Limits(characters=2000, texts=20, body_bytes=20_000, file_bytes=5_000, seconds_to_send=2.0)
    with running(ServerContext(Service.load({"en-es": run}), limits=limits)) as url:
        yield url


def post(url: str, path: str = "/api/translate", **data) -> httpx.Response:
    return httpx.post(f"{url}{path}", **data, timeout=60)


def translations(url: str, **asked) -> list[dict]:
    return post(url, json=asked).raise_for_status().json()["translations"]


# ---- translation ----------------------------------------------------------------------------------------


def test_translations_are_those_of_the_command_with_all_that_is_known_of_them(server, expected):
    found = translations(server, text=SENTENCES, nbest=3, alignments=True, flag_below=0.999)
    assert [one["text"] for one in found] == expected
    for one in found:
        assert one["review"] and 0 <= one["confidence"] <= 1
        assert [c["score"] for c in one["candidates"]] == sorted((c["score"] for c in one["candidates"]), reverse=True)
        best = one["candidates"][0]
        assert "".join(token["text"] for token in best["tokens"]).split() == best["text"].split()
        assert sum(token["log_prob"] for token in best["tokens"]) == pytest.approx(best["log_prob"], abs=1e-4)
        words = len(one["source"].split()), len(one["text"].split())
        assert best["alignment"] and all(i < words[0] and j < words[1] for i, j in best["alignment"])


def test_a_beginning_a_glossary_and_terms_are_kept(server):
    [begun] = translations(server, text="the red house", prefix="XY Z")
    assert begun["text"].startswith("XY Z")
    [bound] = translations(server, text="the red house", glossary=[{"source": "house", "target": ["QQ", "QX"]}])
    assert "QQ" in bound["text"] or "QX" in bound["text"]
    [free] = translations(server, text="the red house")
    word = free["text"].split()[0]
    [other] = translations(server, text="the red house", forbidden=[word])
    assert word not in other["text"].split()


def test_a_search_may_be_chosen_and_returns_as_many_as_wanted(server):
    [greedy] = translations(server, text="the red house", search="greedy")
    assert len(greedy["candidates"]) == 1
    [diverse] = translations(
        server, text="the red house", nbest=6, search={"kind": "diverse_beam", "size": 6, "groups": 3}
    )
    assert 1 < len(diverse["candidates"]) <= 6


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({}, 422, "text: must be given"),
        ({"text": "a", "modle": "x"}, 422, "no 'modle' here. Did you mean 'model'?"),
        ({"text": "a", "model": "de-fr"}, 404, "'de-fr' is not served here; there are: en-es"),
        ({"text": "a", "source": "de", "target": "fr"}, 404, "there are: en to es"),
        ({"text": 1}, 422, "text: expected text"),
        ({"text": "a", "required": [[]]}, 422, "required.0: must not be an empty list"),
        ({"text": ["a", None]}, 422, "text"),
        ({"text": "a", "nbest": 0}, 422, "nbest: must be greater than or equal to 1"),
        ({"text": "a", "nbest": "2"}, 422, "nbest: expected a whole number"),
        ({"text": "a", "nbest": 500}, 422, "nbest: at most 20"),
        ({"text": "a", "search": "bean"}, 422, "Did you mean 'beam'?"),
        ({"text": "a", "search": {"kind": "beam", "size": 5000}}, 422, "search: at most 20"),
        (
            {"text": "a", "search": {"kind": "speculative", "draft": {"kind": "draft_model", "run": "/etc"}}},
            422,
            "search.draft: a request cannot name a folder",
        ),
        ({"text": "a", "rules": ["no_repeet"]}, 422, "Did you mean 'no_repeat'?"),
        (
            {"text": "a", "rules": [{"kind": "minimum_length", "tokens": 5000}]},
            422,
            "minimum_length: at most 4,096 tokens",
        ),
        ({"text": "a", "tags": ["2xx"]}, 422, "no '2xx' here"),
        ({"text": "a", "glossary": [{"source": "house"}]}, 422, "glossary: an entry needs"),
        ({"text": "a", "glossary": [{"source": " ", "target": "x"}]}, 422, "glossary: an entry needs"),
        ({"text": "a", "prefix": "b", "format": "html"}, 422, "format: prefix"),
        ({"text": "a", "deadline": 0}, 422, "deadline: must be greater than 0"),
        ({"text": ["a"] * 21}, 413, "21 texts: a request may have 20"),
        ({"text": "a" * 2001}, 413, "2,001 characters: a request may have 2,000"),
    ],
)
def test_a_wrong_request_gets_one_clear_sentence(server, asked, status, says):
    response = post(server, json=asked)
    error = response.json()["error"]
    assert (response.status_code, error["status"]) == (status, status)
    assert says in error["message"] and "\n" not in error["message"]


def test_bodies_of_other_types_and_sizes_are_refused(server):
    assert post(server, content=b"{}").status_code == 415
    assert post(server, data={"text": "a"}).status_code == 415
    assert post(server, json={"text": "a", "prefix": "b" * 30_000}).status_code == 413
    chunks = (b'{"text": "' if i == 0 else b"x" * 1000 for i in range(100))
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{server}/api/translate", content=chunks, headers=headers).status_code == 413
    unknown = httpx.get(f"{server}/api/nothing")
    assert unknown.status_code == 404 and unknown.json()["error"]["message"] == "nothing is at /api/nothing"
    assert httpx.get(f"{server}/api/translate").status_code == 405


def test_empty_texts_and_lists_are_no_errors(server):
    assert translations(server, text=[]) == []
    assert [one["text"] for one in translations(server, text=["", "  ", "\n", "12:30"])] == ["", "", "\n", "12:30"]


def test_models_and_settings_are_told(server):
    [model] = httpx.get(f"{server}/api/models").json()["models"]
    assert model.items() >= {"name": "en-es", "source": "en", "target_name": "Spanish", "direction": "ltr"}.items()
    settings = httpx.get(f"{server}/api/settings").json()
    assert settings["limits"] == {"characters": 2000, "lines": 20, "file_bytes": 5000}
    assert settings["key_required"] is False and ".po" in settings["files"]


def test_a_language_that_nothing_translates_into_is_named_without_a_guess_of_the_source(server):
    said = post(server, json={"text": "the red house", "target": "fr"}).json()["error"]["message"]
    assert said == "translation to 'fr' is not served here; there are: en to es"


def test_languages_are_detected_text_by_text(server):
    texts = ["The weather is nice today, is it not?", "El tiempo es muy agradable hoy, ¿verdad?"]
    found = post(server, "/api/detect", json={"text": texts}).json()
    assert [one[0]["language"] for one in found] == ["en", "es"]


# ---- files ----------------------------------------------------------------------------------------------


def test_a_file_is_translated_while_its_client_asks_how_far_it_is(server, expected):
    content = "\r\n".join([*SENTENCES, "", SENTENCES[0]]).encode()
    started = post(server, "/api/files", files={"file": ("drei Sätze.txt", content)}, data={"model": "en-es"})
    assert started.status_code == 202
    address = f"{server}/api/files/{started.json()['id']}"
    deadline = time.monotonic() + 60
    while (state := httpx.get(address).json())["state"] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state.items() >= {"state": "done", "done": 3, "total": 3, "name": "drei Sätze_es.txt"}.items()
    result = httpx.get(f"{address}/result")
    assert result.content.decode() == "\r\n".join([*expected, "", expected[0]])
    assert "filename*=utf-8''drei%20S%C3%A4tze_es.txt" in result.headers["content-disposition"]


def test_lines_of_a_file_are_read_after_those_before_them(run, monkeypatch):
    service = Service.load({"en-es": run})
    service.models["en-es"].model.context = SentencesBefore(sentences=1)  # as of a run that was trained with it
    asked: list[tuple[str, tuple[str, ...]]] = []

    def ask(self, questions, progress=None):
        found = [as_request(question) for question in questions]
        asked.extend((one.text, one.context) for one in found)
        texts = [f"{'/'.join(one.context)}>{one.text}" for one in found]
        return [Translation(1, text, (Candidate(text, 0.0, 0.0, (), (), truncated=False),)) for text in texts]

    monkeypatch.setattr(LineTranslator, "ask", ask)
    with running(ServerContext(service)) as url:
        content = b"a red house\na dog\na red house\na dog\n\na dog\n"
        started = post(url, "/api/files", files={"file": ("a.txt", content)}, data={"model": "en-es"}).json()["id"]
        while httpx.get(f"{url}/api/files/{started}").json()["state"] in ("queued", "running"):
            time.sleep(0.05)
        result = httpx.get(f"{url}/api/files/{started}/result").text
    assert len(asked) == len(set(asked)) == 4
    assert result.split("\n") == [
        ">a red house", "a red house>a dog", "a dog>a red house", "a red house>a dog", "", ">a dog", "",
    ]  # fmt: skip


def test_a_result_is_never_named_as_if_it_were_in_a_folder(run):
    with running(ServerContext(Service.load({"words": run}))) as url:  # whose languages are not known
        for target, name in (("../../x", "a_.._.._x.txt"), ("x\\y", "a_x_y.txt"), ("pt-BR", "a_pt-BR.txt")):
            fields = {"model": "words", "target": target}
            started = post(url, "/api/files", files={"file": ("a.txt", b"the red house")}, data=fields).json()
            assert httpx.get(f"{url}/api/files/{started['id']}").json()["name"] == name


def test_languages_beside_a_named_model_are_its_own(server):
    file = {"file": ("a.po", b'msgid "the red house"\nmsgstr ""\n')}
    for wrong in ({"target": "fr"}, {"source": "de"}):
        [(field, language)] = wrong.items()
        for refused in (
            post(server, "/api/files", files=file, data={"model": "en-es"} | wrong),
            post(server, json={"text": "the red house", "model": "en-es"} | wrong),
        ):
            assert refused.status_code == 422 and refused.json()["error"]["field"] == field
            assert f"{language!r}, but that of the model 'en-es' is" in refused.json()["error"]["message"]
    own = {"model": "en-es", "source": "en", "target": "es-MX"}
    assert post(server, "/api/files", files=file, data=own).status_code == 202
    assert post(server, json={"text": "the red house"} | own).status_code == 200


def test_a_file_that_fails_says_why_and_one_that_is_too_large_is_refused(server):
    started = post(server, "/api/files", files={"file": ("a.po", b"\xff")}, data={"model": "en-es"}).json()
    address = f"{server}/api/files/{started['id']}"
    while (state := httpx.get(address).json())["state"] in ("queued", "running"):
        time.sleep(0.05)
    assert state["state"] == "failed" and "a.po:1: not UTF-8" in state["error"]["message"]
    assert httpx.get(f"{address}/result").status_code == 422
    large = {"file": ("a.txt", b"x" * 100_000)}
    assert post(server, "/api/files", files=large, data={"model": "en-es"}).status_code == 413
    assert post(server, "/api/files", files={"other": ("a.txt", b"x")}, data={"model": "en-es"}).status_code == 422
    broken = {"content": b"--x\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    assert post(server, "/api/files", **broken).status_code in (400, 422)
    assert post(server, "/api/files", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    assert httpx.get(f"{server}/api/files/none").status_code == 404


# ---- the socket -----------------------------------------------------------------------------------------


def live(url: str, **options):
    return connect(url.replace("http", "ws") + "/api/live", **options)


def test_the_socket_answers_as_the_api_does(server, expected):
    with live(server) as socket:
        socket.send(json.dumps({"id": 1, "model": "en-es", "text": SENTENCES, "nbest": 2}))
        answer = json.loads(socket.recv(30))
        assert answer["id"] == 1
        assert [one["text"] for one in answer["translations"]] == expected


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ("", "not JSON"),
        (b"\xff\x00", "not UTF-8"),
        ('{"id": 5}', "text: must be given"),
        ('{"id": 5, "text": "\\ud800"}', "surrogate"),
        ('{"id": 5, "text": "a", "model": "x"}', "not served here"),
    ],
)
def test_a_message_that_is_wrong_is_answered_and_the_socket_stays_open(server, message, says):
    with live(server) as socket:
        socket.send(message)
        assert says in json.loads(socket.recv(10))["error"]["message"]
        socket.send(json.dumps({"id": 6, "text": ""}))
        assert json.loads(socket.recv(10))["id"] == 6


def test_pages_from_elsewhere_may_not_open_the_socket(server):
    with live(server, origin=server):  # the page of the server itself
        pass
    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"), live(server, origin="https://evil.example"):
        pass


# ---- a service that is held ------------------------------------------------------------------------------


class Held:
    """Holds all translations of a service until they are let go, and counts those that are cancelled."""

    def __init__(self, service: Service, monkeypatch):
        self.begun, self.cancelled, self.go = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
        translate = service.translate

        async def held(*arguments):
            self.begun.release()
            try:
                while not self.go.is_set():
                    await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled.release()
                raise
            return await translate(*arguments)

        monkeypatch.setattr(service, "translate", held)


def test_a_client_that_is_gone_cancels_its_request(service, monkeypatch):
    held = Held(service, monkeypatch)
    with running(ServerContext(service)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/api/translate", json={"text": "a"}, timeout=0.3)
        assert held.cancelled.acquire(timeout=5)
        held.go.set()
        assert post(url, json={"text": "the red house"}).status_code == 200


def test_a_newer_text_on_the_socket_takes_the_place_of_an_older_one(service, monkeypatch):
    held = Held(service, monkeypatch)
    with running(ServerContext(service)) as url, live(url) as socket:
        for number in range(3):
            socket.send(json.dumps({"id": number, "text": "the red house"}))
            assert held.begun.acquire(timeout=5)
        held.go.set()
        assert json.loads(socket.recv(20))["id"] == 2
        assert held.cancelled.acquire(timeout=1) and held.cancelled.acquire(timeout=1)


def test_a_socket_that_is_closed_cancels_its_request(service, monkeypatch):
    held = Held(service, monkeypatch)
    with running(ServerContext(service)) as url:
        with live(url) as socket:
            socket.send(json.dumps({"id": 1, "text": "the red house"}))
            assert held.begun.acquire(timeout=5)
        assert held.cancelled.acquire(timeout=5)


def test_a_server_that_drains_refuses_new_messages_on_an_open_socket(service, monkeypatch):
    held, context = Held(service, monkeypatch), ServerContext(service)
    with running(context) as url, live(url) as begun, live(url) as other:
        begun.send(json.dumps({"id": 1, "text": "the red house"}))
        assert held.begun.acquire(timeout=5)
        context.draining = True
        other.send(json.dumps({"id": 2, "text": "the red house"}))
        refused = json.loads(other.recv(20))
        assert (refused["id"], refused["error"]["status"], refused["error"]["code"]) == (2, 503, "draining")
        held.go.set()
        assert json.loads(begun.recv(20))["id"] == 1  # what has begun comes to its end


class TalkativeSocket:
    """Sends two messages, and then nothing."""

    def __init__(self):
        self.messages = 0

    async def receive(self) -> dict[str, str]:
        self.messages += 1
        await asyncio.sleep(0.01)
        if self.messages > 2:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "text": "{}"}


def test_a_socket_whose_task_is_cancelled_while_a_request_ends_is_not_served_on(service):
    socket, ending = TalkativeSocket(), asyncio.Event()

    class SlowToEnd(LiveConnection):
        async def _answer(self, raw):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ending.set()
                await asyncio.sleep(0.01)
                raise

    async def cancel_meanwhile() -> None:
        serving = asyncio.create_task(SlowToEnd(ServerContext(service), socket).serve())
        await asyncio.wait_for(ending.wait(), 5)
        serving.cancel()
        await asyncio.wait({serving}, timeout=5)
        assert serving.cancelled()

    asyncio.run(cancel_meanwhile())


# ---- streams of events -----------------------------------------------------------------------------------


async def one_event():
    yield {"text": "a"}


async def waits_for_ever() -> dict[str, str]:
    await asyncio.Event().wait()
    return {}


async def ignored(message) -> None: ...


@pytest.mark.parametrize("close_fails", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"), [(None, None), (ConnectionResetError(), None), (RuntimeError("sent too late"), RuntimeError)]
)
def test_a_stream_of_events_is_closed_and_reported_however_it_ends(error, raised, close_fails):
    calls = []

    async def send(message) -> None:
        if error is not None:
            raise error

    async def close() -> None:
        calls.append("closed")
        if close_fails:
            raise OSError

    stream = EventStream(one_event(), lambda error: {"error": str(error)}, close)
    stream.ended = calls.append
    expected = OSError if close_fails else raised
    with pytest.raises(expected) if expected else nullcontext():
        asyncio.run(stream({}, waits_for_ever, send))
    assert calls == ["closed", error is None]


def test_a_stream_of_events_whose_task_is_cancelled_is_closed_and_reported():
    calls = []

    async def endless():
        while True:
            await asyncio.sleep(0.001)
            yield "a"

    async def close() -> None:
        calls.append("closed")

    async def cancel_soon() -> None:
        stream = EventStream(endless(), lambda error: {}, close)
        stream.ended = calls.append
        sending = asyncio.create_task(stream({}, waits_for_ever, ignored))
        await asyncio.sleep(0.02)
        sending.cancel()
        await asyncio.wait({sending}, timeout=5)
        assert sending.cancelled()

    asyncio.run(cancel_soon())
    assert calls == ["closed", False]


@pytest.mark.parametrize(
    ("error", "status", "waits"),
    [
        (Overloaded(1024, 2.5), 429, "3"),
        (Draining(), 503, "1"),
        (TooLarge(10**9, 10**6), 413, None),
        (DeadlinePassed(2.0), 408, None),
        (RuntimeError("a defect"), 500, None),
    ],
)
def test_each_error_of_the_service_has_its_status(run, monkeypatch, error, status, waits, caplog):
    own = Service.load({"en-es": run})

    async def failing(*_):
        raise error

    monkeypatch.setattr(own, "translate", failing)
    with running(ServerContext(own)) as url:
        for path, asked in (
            ("/api/translate", {"text": "a"}),
            ("/translate", {"q": "a", "source": "en", "target": "es"}),
        ):
            response = post(url, path, json=asked)
            assert response.status_code == status
            assert response.headers.get("retry-after") == waits
            if status == 500:
                assert "a defect" not in response.text and "a defect" in caplog.text


# ---- keys -----------------------------------------------------------------------------------------------


def test_keys_are_asked_for_where_there_are_any(service, tmp_path):
    (tmp_path / "keys.txt").write_text("# people\nsecret name=ann\n\nboss name=bob admin\n")
    with running(ServerContext(service, keys=Keys.read(tmp_path / "keys.txt"))) as url:
        asked = {"json": {"text": "the red house"}}
        missing, wrong = post(url, **asked), post(url, **asked, headers={"Authorization": "Bearer nonsense"})
        assert missing.status_code == wrong.status_code == 401
        assert "Authorization: Bearer KEY" in missing.json()["error"]["message"]
        assert missing.headers["www-authenticate"] == "Bearer"
        assert post(url, **asked, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert post(url, "/translate", data={"q": "a", "source": "en", "target": "es"}).status_code == 403
        given = {"q": "the red house", "source": "en", "target": "es", "api_key": "secret"}
        assert post(url, "/translate", data=given).status_code == 200
        for path, kind in (("/api/translate", "json"), ("/translate", "json"), ("/translate", "data")):
            body = {kind: {"q" if path == "/translate" else "text": "a", "source": "en", "target": "es"}}
            assert post(url, f"{path}?api_key=secret", **body).status_code == 200
            assert post(url, f"{path}?api_key=nonsense", **body).status_code in (401, 403)
        for path in ("/health", "/languages", "/api/settings", "/docs", "/openapi.json"):
            assert httpx.get(url + path).status_code == 200
        for path in ("/metrics", "/api/models"):
            assert httpx.get(url + path).status_code == 401
        with live(url) as socket:
            socket.send(json.dumps({"id": 1, "text": "the red house"}))
            assert json.loads(socket.recv(10))["error"]["status"] == 401
            socket.send(json.dumps({"id": 2, "text": "the red house", "api_key": "secret"}))
            assert "translations" in json.loads(socket.recv(10))


def test_a_key_has_its_requests_a_minute_and_characters_a_day():
    now = [0.0]
    key = ApiKey("ann", requests=2, characters=10, clock=lambda: now[0])
    key.count_request(), key.count_request()
    with pytest.raises(Problem, match="2 requests a minute") as caught:
        key.count_request()
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "30")
    now[0] = 30.0
    key.count_request()
    key.count_characters(8)
    with pytest.raises(Problem, match="10 characters a day, and 8 are used"):
        key.count_characters(3)
    key.count_characters(2)
    now[0] = 86_400.0
    key.count_characters(10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key in it"),
        ("# nothing\n", "no key in it"),
        ("a request=5", "Did you mean 'requests'?"),
        ("a requests=many", "requests=1000/minute"),
        ("a requests=10_", "requests=1000/minute"),
        ("a requests=1__0", "requests=1000/minute"),
        (f"a characters={'9' * 5000}", "characters=1000/day"),
        ("a characters=0", "characters=1000/day"),
        ("a requests=5/day", "requests=1000/minute"),
        ("a\nb\na name=x", "given twice"),
        (f"a\nsha256:{hashlib.sha256(b'a').hexdigest()}", "given twice"),
        ("a admin=no", "write admin alone, or leave it out"),
    ],
)
def test_a_file_of_keys_that_cannot_be_read_is_named_with_its_line(tmp_path, text, says):
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.txt") as caught:
        Keys.read(tmp_path / "keys.txt")
    assert says in str(caught.value)


def test_a_hash_in_the_file_stands_for_its_key_and_is_none_itself(tmp_path):
    digest = "sha256:" + hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "keys.txt").write_text(f"{digest} name=ann\n")
    keys = Keys.read(tmp_path / "keys.txt")
    assert keys.authorise("secret").name == "ann"
    with pytest.raises(Problem, match="not known here"):
        keys.authorise(digest)


@pytest.mark.parametrize(
    "error", [Overloaded(9, 1.0), Draining(), RuntimeError("a defect")], ids=lambda e: type(e).__name__
)
def test_a_key_does_not_pay_for_what_is_refused(run, monkeypatch, error):
    service = Service.load({"en-es": run})
    key = ApiKey("ann", characters=100)
    asked = {"headers": {"x-api-key": "secret"}}

    async def refused(*_, **__):
        raise error

    def states(url):
        file = {"file": ("a.txt", b"the red house")}
        started = post(url, "/api/files", files=file, data={"model": "en-es"}, **asked).json()["id"]
        while (state := httpx.get(f"{url}/api/files/{started}", **asked).json())["state"] in ("queued", "running"):
            time.sleep(0.05)
        return state["state"]

    with running(ServerContext(service, keys=Keys([("secret", key)]))) as url:
        with monkeypatch.context() as patch:
            for name in ("translate", "translate_lines"):
                patch.setattr(service, name, refused)
            assert post(url, json={"text": "the red house"}, **asked).status_code in (429, 500, 503)
            with live(url) as socket:
                socket.send(json.dumps({"id": 1, "text": "the red house", "api_key": "secret"}))
                assert json.loads(socket.recv(10))["error"]["status"] in (429, 500, 503)
            assert states(url) == "failed"
        with pytest.raises(Problem, match="and 0 are used"):
            key.count_characters(101)
        assert post(url, json={"text": "the red house"}, **asked).status_code == 200
        assert states(url) == "done"
    with pytest.raises(Problem, match="and 26 are used"):
        key.count_characters(100)


def test_keys_that_stay_keep_what_they_have_used(tmp_path):
    (tmp_path / "keys.txt").write_text("a characters=10\n")
    keys = Keys.read(tmp_path / "keys.txt")
    keys.authorise("a").count_characters(10)
    (tmp_path / "keys.txt").write_text("a characters=12\nb\n")
    keys = keys.updated(tmp_path / "keys.txt")
    with pytest.raises(Problem):
        keys.authorise("a").count_characters(3)
    assert keys.authorise("b").characters is None


def test_requests_of_a_minute_stay_counted_when_keys_are_read_anew(tmp_path):
    (tmp_path / "keys.txt").write_text("a requests=2\nb requests=1\nc\n")
    keys = Keys.read(tmp_path / "keys.txt")
    for secret in "aab":
        keys.authorise(secret).count_request()
    (tmp_path / "keys.txt").write_text("a requests=2\nb requests=5\nc requests=1\n")
    keys = keys.updated(tmp_path / "keys.txt")
    for secret in "ab":
        with pytest.raises(Problem, match="requests a minute"):
            keys.authorise(secret).count_request()
    keys.authorise("c").count_request()


def test_what_is_too_large_is_answered_though_all_of_it_is_sent_first(server):
    form = urllib.parse.urlencode({"q": "a" * 10_000_000, "source": "en", "target": "es"}).encode()
    for content, kind in ((form, "application/x-www-form-urlencoded"), (form, "application/json"), (form, "a/b")):
        request = urllib.request.Request(f"{server}/translate", content, {"Content-Type": kind})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        refused.value.close()
        assert refused.value.code == (415 if kind == "a/b" else 413)


# ---- operations -----------------------------------------------------------------------------------------


def test_a_model_is_swapped_by_a_key_that_may_and_no_request_fails(run, tmp_path):
    (tmp_path / "keys.txt").write_text("user\nboss admin\n")
    user, boss = ({"Authorization": f"Bearer {name}"} for name in ("user", "boss"))
    failed, stop = [], threading.Event()
    with running(ServerContext(Service.load({"en-es": run}), keys=Keys.read(tmp_path / "keys.txt"))) as url:

        def ask():
            while not stop.is_set():
                if (response := post(url, json={"text": SENTENCES}, headers=user)).status_code != 200:
                    failed.append(response.text)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        refused = post(url, "/api/models/en-es/swap", json={}, headers=user)
        swapped = [post(url, "/api/models/en-es/swap", json=body, headers=boss) for body in ({}, {"path": str(run)})]
        wrong = post(url, "/api/models/en-es/swap", json={"path": str(tmp_path)}, headers=boss)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert refused.status_code == 403
    assert [response.status_code for response in swapped] == [200, 200]
    assert wrong.status_code == 422 and str(tmp_path) in wrong.json()["error"]["message"]
    assert not failed


def test_metrics_count_requests_texts_and_reviews(service):
    with running(ServerContext(service)) as url:
        post(url, json={"text": ["the red house", "two big cars"], "flag_below": 1})
        post(url, json={"txt": 1})
        text = httpx.get(f"{url}/metrics").text
    assert 'dragoman_requests_total{key="",operation="POST /api/translate",status="200"} 1.0' in text
    assert 'dragoman_requests_total{key="",operation="POST /api/translate",status="422"} 1.0' in text
    assert 'dragoman_texts_total{model="en-es"} 2.0' in text
    assert 'dragoman_reviews_total{model="en-es"} 2.0' in text
    assert 'dragoman_request_seconds_bucket{le="0.01",operation="POST /api/translate"}' in text


def test_metrics_count_messages_on_the_socket_by_their_key(service, tmp_path):
    (tmp_path / "keys.txt").write_text("secret name=ann\n")
    given = {"X-Api-Key": "secret"}
    with running(ServerContext(service, keys=Keys.read(tmp_path / "keys.txt"))) as url:
        with live(url, additional_headers=given) as socket:
            for message in ({"text": ["the red house", "two big cars"]}, {"txt": 1}):
                socket.send(json.dumps(message))
                socket.recv(20)
        text = httpx.get(f"{url}/metrics", headers=given).text
    assert 'dragoman_requests_total{key="ann",operation="WS /api/live",status="200"} 1.0' in text
    assert 'dragoman_requests_total{key="",operation="WS /api/live",status="422"} 1.0' in text
    assert 'dragoman_texts_total{model="en-es"} 2.0' in text


def test_other_origins_may_call_only_if_they_are_allowed(service):
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    with running(ServerContext(service)) as url:
        assert "access-control-allow-origin" not in httpx.get(f"{url}/languages", headers=headers).headers
    with running(ServerContext(service, origins=("https://page.example",))) as url:
        allowed = httpx.options(f"{url}/translate", headers=headers).headers
        assert allowed["access-control-allow-origin"] == "https://page.example"
        asked = "authorization,content-type,x-stainless-lang,x-api-key"
        preflight = httpx.options(f"{url}/translate", headers=headers | {"Access-Control-Request-Headers": asked})
        assert preflight.status_code == 200 and preflight.headers["access-control-allow-headers"] == asked
        other = httpx.get(f"{url}/languages", headers={"Origin": "https://other.example"}).headers
        assert "access-control-allow-origin" not in other


def test_the_log_has_no_texts(service, caplog):
    caplog.set_level("INFO", "dragoman.serve")
    with running(ServerContext(service)) as url:
        post(url, json={"text": "the red house"})
        post(url, json={"text": "the red house", "model": "none"})
    [good, bad] = [record.fields for record in caplog.records if record.getMessage() == "request"]
    assert good.items() >= {"method": "POST", "path": "/api/translate", "status": 200, "model": "en-es"}.items()
    assert bad["status"] == 404
    assert "red" not in json.dumps([good, bad])


def test_a_speculative_search_gives_the_answers_of_the_search_that_it_speeds_up(server):
    plain = translations(server, text=SENTENCES, search="greedy")
    guessed = translations(server, text=SENTENCES, search={"kind": "speculative"})
    assert [one["text"] for one in guessed] == [one["text"] for one in plain]
    scores = [one["candidates"][0]["score"] for one in plain]
    assert [one["candidates"][0]["score"] for one in guessed] == pytest.approx(scores, abs=1e-5)
