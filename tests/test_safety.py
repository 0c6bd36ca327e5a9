"""The safety page: each rule matches what it should, decisions come in order, are counted, and lose nothing."""

import asyncio
import http.server
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_bulk import in_this_process, run, sentences  # noqa: F401 (fixtures)
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import durable
from dragoman.cli import main
from dragoman.config import from_dict
from dragoman.decode.readers.classifier import Classified
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import ConfigError, DataError, OutputError
from dragoman.serve.safety import human_queue, matching
from dragoman.serve.safety.human_queue import Webhook
from dragoman.serve.safety.page import LABELS, SafetyPage
from dragoman.serve.safety.rules import SafetyPageConfig, WebhookConfig
from dragoman.text.lines import read_lines


@dataclass(frozen=True)
class Answer:
    text: str
    confidence: float = 1.0
    search: object = None


def page(*rules, folder=None, **more) -> SafetyPage:
    plain = {"rules": [{"name": f"rule {i}"} | rule for i, rule in enumerate(rules)]} | more
    return SafetyPage(from_dict(SafetyPageConfig, plain), *([folder] if folder else []))


def terms(*listed, **more):
    return {"match": {"kind": "terms", "terms": list(listed)}, "action": "refuse"} | more


def pattern(text, **more):
    return {"match": {"kind": "pattern", "pattern": text}, "action": "refuse"} | more


FILE_QUEUE = {"kind": "file_queue", "path": "people.jsonl"}

# ---- matches ------------------------------------------------------------------------------------------

TERMS = {
    "password": [
        "the password",
        "PASSWORD!",
        "Password:",
        "pass\u200bword",
        "pass\u00adword",
        "\uff50\uff41\uff53\uff53word",
        "(password)",
    ],
    "api key": ["an API  key", "api\tkey", "API\u00a0KEY", "api\nkey"],
    "straße": ["die STRASSE", "Straße 3"],
    "café": ["cafe\u0301 noir", "CAFÉ"],
    "密码": ["我的密码是", "密码"],
    "サーバー": ["このサーバーを使う", "ｻｰﾊﾞｰ"],
    "人々": ["人々は"],
    "รหัสผ่าน": ["ใส่รหัสผ่านที่นี่"],
    "c++": ["in C++ and", "c++"],
    "пароль": ["ПАРОЛЬ", "мой пароль."],
    "हिन्दी": ["मैं हिन्दी।", "हिन्दी"],
}
NOT_TERMS = {
    "password": ["passwords", "passwort", "mypassword", "password_x", ""],
    "api key": ["apikey", "api keys", "api, key"],
    "ass": ["class", "assess", "Assist"],
    "密码": ["密 码本", "号码"],
    "пароль": ["пароли"],
    "हिन्दी": ["हिन्दीभाषी"],
    "5サ": ["15サ"],
}


@pytest.mark.parametrize(("term", "text"), [(term, text) for term, texts in TERMS.items() for text in texts])
def test_a_term_is_found_however_it_is_written(term, text):
    decision = page(terms(term)).before(text)
    assert decision is not None and decision.action == "refuse" and decision.withholds


@pytest.mark.parametrize(("term", "text"), [(term, text) for term, texts in NOT_TERMS.items() for text in texts])
def test_a_term_is_not_found_inside_other_words(term, text):
    assert page(terms(term)).before(text) is None


def test_terms_of_a_file_count_too(tmp_path):
    (tmp_path / "terms.txt").write_text("# names\n\nsecret\n")
    guard = page({"match": {"kind": "terms", "file": "terms.txt"}, "action": "refuse"}, folder=tmp_path)
    assert guard.before("a Secret") and not guard.before("# names")


SLOW = {
    r"(a+)+$": "a" * 40 + "b",
    r"^(\w+\s?)*$": "word " * 30 + "!",
    r"(x+x+)+y": "x" * 60,
    r"(.*a){20}": "a" * 35,
    r"^(([a-z])+.)+[A-Z]([a-z])+$": "a" * 60,
}


@pytest.mark.parametrize("expression", SLOW)
def test_a_pattern_that_takes_for_ever_is_stopped_and_counts_as_a_match(expression):
    guard, began = page(pattern(expression)), time.monotonic()
    text = SLOW[expression]
    found = guard.before(text * 20)
    assert time.monotonic() - began < 2
    if guard.failures:
        assert found is not None and guard.failures == {"pattern out of time": 1}


def test_confidence_is_asked_of_answers_alone():
    guard = page({"match": {"kind": "confidence", "below": 0.5}, "action": "refuse"})
    assert guard.before("a") is None
    assert guard.after("a", Answer("b", 0.5)) is None
    decision = guard.after("a", Answer("b", 0.49))
    assert decision is not None and decision.on == "answer"


def test_a_model_without_confidence_is_never_unsure():
    class Plain:
        text = "b"

    assert page({"match": {"kind": "confidence", "below": 1.0}, "action": "refuse"}).after("a", Plain()) is None


@pytest.fixture
def classifier(monkeypatch):
    class Abuse:
        labels = ("fine", "abuse")

        def classify(self, texts):
            if len(texts[0]) > 50:
                raise DataError("text: too long")
            p = 0.9 if "damn" in texts[0] else 0.1
            return [Classified(texts[0], "", p, {"abuse": p, "fine": 1 - p})]

    monkeypatch.setattr(matching, "_classifier", lambda path: Abuse())


def abuse(**more):
    match = {"kind": "classifier", "run": "runs/abuse", "label": "abuse", "above": 0.8}
    return {"match": match, "action": "refuse"} | more


def test_a_classifier_decides_by_the_probability_of_its_label(classifier):
    guard = page(abuse())
    assert guard.before("damn it") and not guard.before("good") and not guard.before("")
    assert guard.after("good", Answer("damn"))


def test_a_text_that_a_classifier_cannot_read_counts_as_a_match(classifier):
    guard = page(abuse())
    assert guard.before("x" * 51) and guard.failures == {"classifier refused a text": 1}


# ---- order, sides, degrading --------------------------------------------------------------------------


def test_the_first_rule_that_withholds_decides_and_a_degrading_one_gives_way_to_it():
    guard = page(terms("a", action="degrade"), terms("b"), terms("b", "c", action={"kind": "refuse", "text": "no"}))
    assert guard.before("a").rule == "rule 0"
    assert guard.before("a b c").rule == "rule 1"
    assert guard.before("c").text == "no"
    assert guard.before("d") is None


@pytest.mark.parametrize(
    ("on", "found"), [("source", (True, False)), ("answer", (False, True)), ("both", (True, True))]
)
def test_a_rule_looks_at_its_side(on, found):
    guard = page(terms("x", on=on))
    assert (guard.before("x") is not None, guard.after("y", Answer("x")) is not None) == found


def test_a_refused_text_is_not_asked_about():
    answer, decision = page(terms("x")).guard("x", lambda search: pytest.fail("asked"))
    assert answer is None and decision.on == "source"


def test_a_degraded_answer_comes_from_the_safer_search_with_a_note():
    guard = page(terms("x", action={"kind": "degrade", "search": {"kind": "beam", "size": 2}}))
    answer, decision = guard.guard("x", lambda search: Answer("y", search=search))
    assert answer.search == Beam(size=2) and decision.action == "degrade" and not decision.withholds


def test_an_unsure_answer_is_made_again_once_by_greedy_search():
    asked = []

    def ask(search):
        asked.append(search)
        return Answer("y", 0.1)

    answer, decision = page({"match": {"kind": "confidence", "below": 0.5}, "action": "degrade"}).guard("x", ask)
    assert asked == [None, Greedy()] and answer is not None and decision.on == "answer"


def test_a_degraded_answer_can_still_be_refused():
    guard = page(terms("x", on="source", action="degrade"), terms("bad", on="answer"))
    answer, decision = guard.guard("x", lambda search: Answer("bad" if search else "good"))
    assert answer is None and decision.rule == "rule 1"


def test_the_same_holds_where_the_answer_is_awaited():
    async def ask(search):
        return Answer("bad" if search else "good", 0.1)

    guard = page({"match": {"kind": "confidence", "below": 0.5}, "action": "degrade"}, terms("bad", on="answer"))
    answer, decision = asyncio.run(guard.guard_async("x", ask))
    assert answer is None and decision.rule == "rule 1"
    assert asyncio.run(page(terms("x")).guard_async("x", ask))[1].on == "source"


def test_alternatives_that_a_rule_would_withhold_are_not_permitted():
    guard = page(terms("x", on="source"), terms("bad", on="answer"), terms("odd", action="degrade"))
    assert not guard.permits("a bad one") and guard.permits("x") and guard.permits("odd")
    assert not any(guard.matched.values())


def test_decisions_are_counted_by_rule_action_and_side():
    guard = page(terms("x"), terms("y", on="answer", action="degrade"))
    for text in ("x", "x", "y"):
        guard.before(text)
    guard.after("x", Answer("y"))
    counted = guard.counters()["safety_decisions_total"]
    assert counted == {
        ("rule 0", "refuse", "source"): 2,
        ("rule 0", "refuse", "answer"): 0,
        ("rule 1", "degrade", "answer"): 1,
    }
    assert {name: len(next(iter(found), LABELS[name])) for name, found in guard.counters().items()} == {
        name: len(labels) for name, labels in LABELS.items()
    }


# ---- the queue ----------------------------------------------------------------------------------------


def test_what_is_handed_over_is_in_the_file_with_its_text_and_answer(tmp_path):
    guard = page(terms("x", action={"kind": "hand_over", "text": "wait"}), folder=tmp_path, queue=FILE_QUEUE)
    first, second = guard.before("x 日本"), guard.after("y", Answer("x"))
    entries = [json.loads(line) for line in (tmp_path / "people.jsonl").read_text().splitlines()]
    assert [(e["id"], e["source"], e["answer"], e["on"]) for e in entries] == [
        (first.ticket, "x 日本", None, "source"),
        (second.ticket, "y", "x", "answer"),
    ]
    assert first.text == "wait" and first.plain()["ticket"] == first.ticket
    assert (tmp_path / "people.jsonl").stat().st_mode & 0o077 == 0


def test_many_threads_append_whole_lines(tmp_path):
    guard = page(terms("x", action="hand_over"), folder=tmp_path, queue=FILE_QUEUE)
    threads = [threading.Thread(target=guard.before, args=("x " * 500,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(line)["id"] for line in (tmp_path / "people.jsonl").read_text().splitlines()}) == 20


def test_a_full_disk_is_counted_and_the_text_is_still_not_answered(tmp_path, monkeypatch):
    guard = page(terms("x", action="hand_over"), folder=tmp_path, queue=FILE_QUEUE)
    monkeypatch.setattr(durable.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert guard.before("x").withholds and guard.failures == {"queue not written": 1}


def test_an_entry_after_one_that_a_full_disk_cut_off_is_a_line_of_its_own(tmp_path, monkeypatch):
    guard = page(terms("x", action="hand_over"), folder=tmp_path, queue=FILE_QUEUE)
    write = os.write

    def nearly_full(handle, content):
        if bytes(content[:1]) != b"{":
            raise OSError(28, "No space left")
        return write(handle, content[:40])

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "write", nearly_full)
        assert guard.before("x").withholds and guard.failures == {"queue not written": 1}
    tickets = [guard.before("x").ticket for _ in range(2)]
    cut_off, *lines = (tmp_path / "people.jsonl").read_text().splitlines()
    assert len(cut_off) == 40 and [json.loads(line)["id"] for line in lines] == tickets


@pytest.fixture
def receiver():
    class Receiver(http.server.BaseHTTPRequestHandler):
        got, fail = [], 0

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if Receiver.fail:
                Receiver.fail -= 1
                self.send_error(503)
                return
            Receiver.got.append((json.loads(content), dict(self.headers)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Receiver, f"http://127.0.0.1:{server.server_address[1]}/tickets"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_told_with_retries_while_the_answer_does_not_wait(tmp_path, receiver, monkeypatch):
    handler, url = receiver
    handler.fail = 2
    monkeypatch.setattr(human_queue, "PAUSE", 0.001)
    queue = {"kind": "webhook", "path": "people.jsonl", "url": url, "headers": {"Authorization": "Bearer k"}}
    guard = page(terms("x", action="hand_over"), folder=tmp_path, queue=queue)
    ticket = guard.before("x").ticket
    guard.queue.webhook.waiting.join()
    [(entry, headers)] = handler.got
    assert entry["id"] == headers["Idempotency-Key"] == ticket and headers["Authorization"] == "Bearer k"
    assert json.loads((tmp_path / "people.jsonl").read_text()) == entry


def test_a_receiver_that_is_gone_delays_nothing_and_is_counted(tmp_path):
    pauses, failures = [], Counter()
    hook = Webhook(WebhookConfig(path="", url="http://127.0.0.1:9/", attempts=4), failures, pause=pauses.append)
    began = time.monotonic()
    hook.tell({"id": "1"})
    assert time.monotonic() - began < 0.5
    hook.waiting.join()
    assert pauses == [1, 2, 4] and failures == {"webhook not told": 1}


def test_a_receiver_that_answers_no_http_is_counted_and_the_next_ticket_is_still_told():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-x\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        failures, url = Counter(), f"http://127.0.0.1:{server.getsockname()[1]}/"
        hook = Webhook(WebhookConfig(path="", url=url, attempts=1), failures)
        for number in "12":
            hook.tell({"id": number})
        hook.waiting.join()
    assert failures == {"webhook not told": 2}


# ---- the page as a file -------------------------------------------------------------------------------

X = "{kind: terms, terms: [x]}"


def rule(match=X, action="refuse", on="both"):
    return f"rules: [{{name: a, on: {on}, match: {match}, action: {action}}}]\n"


MISTAKES = {
    "no rules": ("rules: []\n", "rules: none"),
    "nothing": ("", "not a safety page"),
    "a list": ("- a\n", "not a safety page"),
    "no YAML": ("rules: [\n", "line"),
    "an unknown key": (rule("{kind: terms, term: [x]}"), "no 'term' here. Did you mean 'terms'?"),
    "an unknown action": (rule(action="refuze"), "Did you mean 'refuse'?"),
    "no action": ("rules: [{name: a, match: {kind: terms, terms: [x]}}]", "rules.0.action: must be given"),
    "a bad side": (rule(on="target"), "rules.0.on: no 'target' here"),
    "no terms": (rule("terms"), "rules.0.match: no terms"),
    "an empty term": (rule("{kind: terms, terms: [' ']}"), "' ' holds nothing to look for"),
    "no such file": (rule("{kind: terms, file: t.txt}"), "t.txt: no such file"),
    "a bad pattern": (rule("{kind: pattern, pattern: '(a'}"), "rules.0.match.pattern: not a regular expression"),
    "a bad threshold": (rule("{kind: confidence, below: 2}"), "below"),
    "no such run": (rule("{kind: classifier, run: r, label: l}"), "rules.0.match.run: "),
    "a name twice": ("rules:\n" + f"- {{name: a, match: {X}, action: refuse}}\n" * 2, "rules.1.name: 'a'"),
    "no queue": (rule(action="hand_over"), "there is no queue"),
    "a bad address": ("queue: {kind: webhook, path: q, url: ftp://a}\n" + rule(), "must begin with http"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_page_is_one_line_that_names_it(mistake, tmp_path):
    text, message = MISTAKES[mistake]
    (tmp_path / "page.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        SafetyPage.read(tmp_path / "page.yaml")
    assert str(refused.value).startswith(str(tmp_path / "page.yaml")) and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_page_of_the_documents_can_be_read(tmp_path, classifier):
    text = (Path(__file__).parent.parent / "docs/before-it-goes-live.md").read_text()
    [block] = re.findall(r"^```text\n(# safety\.yaml\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "safety.yaml").write_text(block)
    guard = SafetyPage.read(tmp_path / "safety.yaml")
    assert guard.before("my API key").rule == "passwords" and guard.before("4111 1111 1111 1111").ticket


def test_a_queue_that_cannot_be_written_is_refused_when_the_page_is_read(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        page(terms("x", action="hand_over"), folder=tmp_path, queue={"kind": "file_queue", "path": "no/q.jsonl"})


def test_a_label_that_the_classifier_does_not_have_is_named(classifier):
    with pytest.raises(ConfigError, match=r"rules\.0\.match\.label: runs/x has no label 'rude'; it has fine, abuse"):
        page({"match": {"kind": "classifier", "run": "runs/x", "label": "rude"}, "action": "refuse"})


# ---- the command --------------------------------------------------------------------------------------

PAGE = """
queue: {kind: file_queue, path: people.jsonl}
rules:
- {name: houses, on: source, match: {kind: terms, terms: [house]}, action: {kind: refuse, text: "not\\nhere"}}
- {name: dogs, on: source, match: {kind: pattern, pattern: "dogs?"}, action: hand_over}
- {name: all, match: {kind: pattern, pattern: cat, ignore_case: true}, on: source, action: degrade}
"""


@pytest.mark.slow
def test_lines_that_a_page_withholds_keep_their_place(run, sentences, tmp_path, monkeypatch, in_this_process, capfd):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.yaml").write_text(PAGE)
    shared = ["translate", str(run), str(sentences)]
    assert main([*shared, "-o", "plain.txt"]) == 0
    capfd.readouterr()
    assert main([*shared, "-o", "safe.txt", "--safety", "page.yaml"]) == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if "safety" in line]
    before, after = list(read_lines("plain.txt")), list(read_lines("safe.txt"))
    assert after[0] == "not here" and after[3] == "A person will look at this text."
    assert [after[i] for i in (1, 2, 5)] == [before[i] for i in (1, 2, 5)]
    assert notes[0] == "dragoman: row 1: refused (safety rule 'houses')" and len(notes) == 3
    assert json.loads((tmp_path / "people.jsonl").read_text())["source"].startswith("two dogs")
    assert main([*shared, "-o", "bulk.txt", "--safety", "page.yaml", "--workers", "1"]) == 0
    assert list(read_lines("bulk.txt")) == after


def test_a_document_is_not_translated_past_a_page(run, tmp_path, capfd):  # noqa: F811
    (tmp_path / "page.yaml").write_text(PAGE)
    (tmp_path / "a.po").write_text('msgid ""\nmsgstr "Language: de\\n"\n\nmsgid "x"\nmsgstr ""\n')
    assert main(["translate", str(run), str(tmp_path / "a.po"), "--safety", str(tmp_path / "page.yaml")]) == 2
    assert "--safety is for lines of text" in capfd.readouterr().err
