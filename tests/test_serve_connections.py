"""Clients that drop, dawdle or send nonsense: each hurts only itself."""

import json
import socket
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from serving import SENTENCES, running, train_tiny, translated_by_command
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dragoman.serve.http.context import ServerContext
from dragoman.serve.http.limits import Limits
from dragoman.serve.service import Service

PATIENCE = 1.0
"""Seconds that the server waits for a client."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train_tiny(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(run):
    service = Service.load({"en-es": run})
    with running(ServerContext(service, limits=Limits(seconds_to_send=PATIENCE))) as url:
        yield url
    service.close()


def dial(url: str, **options) -> socket.socket:
    made = socket.socket()
    for option, value in options.items():
        made.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    made.settimeout(20)
    made.connect((urlsplit(url).hostname, urlsplit(url).port))
    return made


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the other end closes."""
    found = b""
    try:
        while piece := connection.recv(65_536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def head(length: int, path: str = "/api/translate", kind: str = "application/json") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_request_that_never_arrives_ends_with_its_connection(server, sent):
    with closing(dial(server)) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        assert all_of(connection) == b""
        assert PATIENCE / 2 < time.monotonic() - started < 5 * PATIENCE


def test_a_head_that_comes_byte_by_byte_has_no_more_time(server):
    with closing(dial(server)) as connection:
        started = time.monotonic()
        try:
            for byte in b"GET /health HTTP/1.1\r\nX: " + b"y" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - started < 5 * PATIENCE


@pytest.mark.parametrize(("path", "kind"), [("/api/translate", "application/json"), ("/translate", "application/json")])
def test_a_body_that_never_arrives_is_answered_with_408(server, path, kind):
    with closing(dial(server)) as connection:
        connection.sendall(head(100, path, kind) + b'{"text": "')
        assert b"408" in connection.recv(65_536).splitlines()[0]


def test_an_answer_that_nobody_reads_is_dropped(server):
    with closing(dial(server, SO_RCVBUF=4096)) as connection:
        asking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2000  # tens of megabytes of answers
        threading.Thread(target=lambda: send_quietly(connection, asking), daemon=True).start()
        time.sleep(4 * PATIENCE)
        assert httpx.get(f"{server}/health").status_code == 200
        assert len(all_of(connection)) < 1000 * len(httpx.get(f"{server}/openapi.json").content)


def send_quietly(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # the hello of TLS
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /translate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"\x00" * 1000,
    ],
)
def test_what_is_no_http_is_refused_and_others_are_served(server, sent):
    with closing(dial(server)) as connection:
        connection.sendall(sent)
        answer = all_of(connection)
        assert answer == b"" or answer.splitlines()[0].split()[1] in (b"400", b"404", b"408", b"422", b"505")
    assert httpx.get(f"{server}/health").status_code == 200


def test_a_head_that_is_too_large_is_refused(server):
    with closing(dial(server)) as connection:
        send_quietly(
            connection, b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 90) for i in range(4000))
        )
        assert b" 431 " in all_of(connection)[:60]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 100,  # reserved bits, an unknown opcode
        b"\x81\x05hello",  # a frame of a client must be masked
        b"\x81\xfe\x00\x04\x00\x00\x00\x00\xff\xfe\xfd\xfc",  # text that is not UTF-8
        b"\x89\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",  # a ping of 2**63 bytes
        b"\x81\xff\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00",  # a text of two gigabytes
    ],
)
def test_a_malformed_frame_closes_its_socket_alone(server, sent):
    upgrade = (
        b"GET /api/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    address = server.replace("http", "ws") + "/api/live"
    with connect(address) as other, closing(dial(server)) as connection:
        connection.sendall(upgrade)
        assert b" 101 " in connection.recv(4096)
        connection.sendall(sent)
        all_of(connection)  # ends
        other.send(json.dumps({"id": 1, "text": ""}))
        assert json.loads(other.recv(10))["id"] == 1


def test_a_message_that_is_too_large_closes_its_socket(server):
    with connect(server.replace("http", "ws") + "/api/live", max_size=None) as sock:
        with suppress(ConnectionClosed):
            sock.send("x" * (5 << 20))
        with pytest.raises(ConnectionClosed, match="1009"):
            sock.recv(20)


def test_clients_that_drop_midway_change_no_answer_of_others(server, run, tmp_path):
    """A quarter of 64 clients drop; the others get the answers of the command, each its own."""
    expected = dict(zip(SENTENCES, translated_by_command(run, SENTENCES, tmp_path), strict=True))
    wrong: list[str] = []

    def ask(number: int) -> None:
        text = SENTENCES[number % 3]
        body = json.dumps({"text": text}).encode()
        with closing(dial(server)) as connection:
            connection.sendall(head(len(body)) + body)
            if number % 4 == 0:
                if number % 8 == 0:
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
                    )  # RST
                return
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}]}]}"):
                answer += connection.recv(65_536)
            found = json.loads(answer.partition(b"\r\n\r\n")[2])["translations"][0]
            if found["text"] != expected[text]:
                wrong.append(f"{text}: {found['text']}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads) and not wrong
