"""The rules of a safety page hold on every way that texts come and answers go."""

import json
import textwrap
import time
from pathlib import Path

import httpx
import pytest
from serving import import_chat, running, train_tiny
from websockets.sync.client import connect

from dragoman.config import from_dict
from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.guarding import GuardedDocument
from dragoman.serve.safety.page import SafetyPage
from dragoman.serve.safety.rules import SafetyPageConfig
from dragoman.serve.service import Service
from dragoman.text.document import Filling
from dragoman.text.filled.opening import document_of

PAGE = """
rules:
- name: dogs
  on: source
  match: {kind: terms, terms: [dog]}
  action: {kind: refuse, text: No dogs.}
- name: two
  match: {kind: terms, terms: [two]}
  action: {kind: degrade, text: Look twice., search: greedy}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    service = Service.load({"en-es": train_tiny(base), "chat": import_chat(base)})
    yield service
    service.close()


@pytest.fixture(scope="module")
def server(service, tmp_path_factory):
    path = tmp_path_factory.mktemp("safety")
    (path / "page.yaml").write_text(PAGE)
    with running(ServerContext(service, safety=SafetyPage.read(path / "page.yaml"))) as url:
        yield url


def post(url: str, path: str, **data) -> httpx.Response:
    return httpx.post(f"{url}{path}", **data, timeout=60).raise_for_status()


def test_a_refused_text_of_a_list_gets_the_words_of_the_rule_and_the_others_are_translated(server):
    asked = {"text": ["a dog sees one cat", "the red house", "two big cars"], "nbest": 2}
    refused, plain, degraded = post(server, "/api/translate", json=asked).json()["translations"]
    assert refused["text"] == "No dogs." and refused["review"]
    assert refused["decision"] == {"rule": "dogs", "action": "refuse", "on": "source", "text": "No dogs."}
    assert "decision" not in plain and len(plain["candidates"]) == 2
    assert degraded["decision"]["rule"] == "two" and len(degraded["candidates"]) == 1  # greedy search has one
    with connect(server.replace("http", "ws") + "/api/live") as socket:
        socket.send(json.dumps({"id": 1, "text": "the dog"}))
        assert json.loads(socket.recv(20))["translations"][0]["text"] == "No dogs."


def test_libretranslates_clients_get_the_words_of_the_rule(server):
    asked = {"q": ["the dog", "the red house"], "source": "en", "target": "es", "alternatives": 1}
    answer = post(server, "/translate", json=asked).json()
    assert answer["translatedText"][0] == "No dogs." != answer["translatedText"][1]
    assert answer["alternatives"][0] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_conversation_ends_with_content_filter(server, stream):
    asked = {"model": "chat", "messages": [{"role": "user", "content": "A dog!"}], "stream": stream, "max_tokens": 4}
    answer = post(server, "/v1/chat/completions", json=asked).text
    assert "No dogs." in answer and "content_filter" in answer
    fine = asked | {"messages": [{"role": "user", "content": "A cat!"}]}
    assert "content_filter" not in post(server, "/v1/chat/completions", json=fine).text


@pytest.mark.parametrize(
    ("name", "content", "kept"),
    [
        ("a.txt", "the dog\nthe red house\n", "No dogs.\n"),
        ("a.po", 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "the dog"\nmsgstr ""\n\n'
         'msgid "the red house"\nmsgstr ""\n', 'msgid "the dog"\nmsgstr ""\n'),
    ],
)  # fmt: skip
def test_a_file_is_no_way_around_the_rules(server, name, content, kept):
    started = post(server, "/api/files", files={"file": (name, content.encode())}, data={"model": "en-es"}).json()
    address = f"{server}/api/files/{started['id']}"
    while (state := httpx.get(address).json())["state"] in ("queued", "running"):
        time.sleep(0.05)
    assert state.items() >= {"state": "done", "filled": 1, "withheld": 1}.items()
    assert kept in httpx.get(f"{address}/result").text


def test_an_entry_whose_source_asks_for_a_safer_search_is_judged_by_its_translation_too():
    both = {
        "rules": [
            {"name": "two", "match": {"kind": "terms", "terms": ["two"]}, "on": "source",
             "action": {"kind": "degrade", "text": "Look twice.", "search": "greedy"}},
            {"name": "perro", "match": {"kind": "terms", "terms": ["perro"]}, "on": "answer",
             "action": {"kind": "refuse", "text": "No."}},
        ]
    }  # fmt: skip
    po = 'msgid "two dogs"\nmsgstr ""\n\nmsgid "two cats"\nmsgstr ""\n'
    document = document_of(po.encode, "a.po", kind=".po", target="es")
    guarded = GuardedDocument(document, SafetyPage(from_dict(SafetyPageConfig, both)))
    made = guarded.fill({0: Filling("dos: perro"), 1: Filling("dos: gato")}).decode()
    assert guarded.withheld == 1 and "perro" not in made and "dos: gato" in made


def test_a_text_is_handed_over_once_however_many_alternatives_are_wanted(service, tmp_path):
    page = """
    queue: {kind: file_queue, path: people.jsonl}
    rules:
    - name: dogs
      on: source
      match: {kind: terms, terms: [dog]}
      action: {kind: hand_over, text: A person will answer.}
    """
    (tmp_path / "page.yaml").write_text(textwrap.dedent(page))
    context = ServerContext(service, safety=SafetyPage.read(tmp_path / "page.yaml"))
    with running(context) as url:
        asked = {"q": ["the dog", "the red house"], "source": "en", "target": "es", "alternatives": 2}
        answer = post(url, "/translate", json=asked).json()
    assert answer["translatedText"][0] == "A person will answer." and answer["alternatives"][0] == []
    assert len(answer["alternatives"][1]) == 2
    assert len((tmp_path / "people.jsonl").read_text().splitlines()) == 1


def test_decisions_are_counted(server):
    text = httpx.get(f"{server}/metrics").text
    assert 'dragoman_safety_decisions_total{action="refuse",on="source",rule="dogs"}' in text
    assert httpx.get(f"{server}/api/settings").json()["safety"] is True


def test_the_path_of_a_page_is_read_before_models_are_loaded(tmp_path, capsys):
    from dragoman.cli import main

    (tmp_path / "page.yaml").write_text("rules: []\n")
    assert main(["serve", str(Path(tmp_path)), "--safety", str(tmp_path / "page.yaml")]) == 2
    assert "rules: none are listed" in capsys.readouterr().err
