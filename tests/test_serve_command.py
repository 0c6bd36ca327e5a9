"""`dragoman serve` as a process: it starts, answers, swaps, drains and ends; what is wrong is said in one line."""

import inspect
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from serving import SENTENCES, train_tiny

from dragoman.cli import main
from dragoman.cli.serve import _origin, named_runs, parse_size, serve
from dragoman.errors import ConfigError
from dragoman.plan.measured import measured


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train_tiny(tmp_path_factory.getbasetemp())


class Process:
    """A server that runs by itself, with what it writes to standard error."""

    def __init__(self, *arguments: str):
        command = [sys.executable, "-m", "dragoman", "serve", *arguments, "--port", "0", "--log-format", "json"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait_for("listening on").split()[2]

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(json.loads(line) for line in self.process.stderr)

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in list(self.lines):
                if text in line["message"]:
                    return line["message"]
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not said in {self.lines}")

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(60)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


def test_sigterm_finishes_what_runs_refuses_the_new_and_sighup_swaps_without_a_failed_request(run):
    answers: list[httpx.Response] = []
    many = [f"{text} n{number}" for number in range(100) for text in SENTENCES]
    with Process(f"en-es={run}", "--grace", "60") as server, httpx.Client() as client:

        def ask() -> None:
            answers.append(httpx.post(f"{server.url}/api/translate", json={"text": many}, timeout=120))

        before, running = threading.Thread(target=ask), threading.Thread(target=ask)
        before.start()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("swap of en-es: done")
        before.join(120)
        assert client.get(f"{server.url}/health").status_code == 200
        running.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        refused = client.post(f"{server.url}/api/translate", json={"text": "a"})  # on the connection from before
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get(f"{server.url}/health").status_code == 503
        running.join(120)
        assert server.process.wait(60) == 0
    assert [response.status_code for response in answers] == [200, 200]
    assert answers[0].json() == answers[1].json() and len(answers[0].json()["translations"]) == 300
    assert not any("n7" in json.dumps(line) for line in server.lines)  # no texts in the log
    noted = measured(run)["serving"]
    assert noted["tokens_per_second"] > 0 and 0 < noted["step_seconds"] < 60


def test_ctrl_c_ends_a_server_that_is_idle_with_exit_code_0(run, tmp_path):
    (tmp_path / "keys.txt").write_text("secret\n")
    with Process(str(run), "--keys", str(tmp_path / "keys.txt")) as server:
        assert httpx.get(f"{server.url}/api/models").status_code == 401
        assert server.wait_for("translate").startswith("run: translate, 3.")
        assert server.wait_for("translate").endswith("k parameters")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
    assert server.lines[-1]["message"] == "ended"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["RUN", "RUN"], "is given already: name it as in other="),
        (["nothing"], "nothing: no such run directory"),
        (["RUN", "--memory", "lots"], "--memory lots: write a size as 4GiB"),
        (["RUN", "--max-file", "0"], "--max-file 0: write a size"),
        (["RUN", "--keys", "none.txt"], "none.txt: No such file"),
        (["RUN", "--safety", "none.yaml"], "none.yaml"),
        (["RUN", "--host", "not a name"], "--host not a name: no address of this name"),
        (["RUN", "--host", "a" * 80], "no address of this name"),
        (["RUN", "--memory", "9" * 400 + "GiB"], "write a size as 4GiB"),
        (["RUN", "--suggestions", "/nowhere/s.jsonl"], "/nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, capsys, options, says):
    assert main(["serve", *(str(run) if option == "RUN" else option for option in options), "--port", "0"]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error


def test_a_port_in_use_is_said_before_models_are_loaded(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(run), "--port", str(port)]) == 2
    assert f"port {port} is in use by another program: choose another with --port" in capsys.readouterr().err


def test_names_and_sizes_are_read(tmp_path):
    assert list(named_runs(["en-es=a", "b/c"])) == ["en-es", "c"]
    assert list(named_runs([f"{tmp_path}/x=y"])) == ["x=y"]
    assert [parse_size(text, "--x") for text in ("4GiB", "500MB", "1.5k", "7")] == [4 << 30, 500_000_000, 1500, 7]
    for wrong in ("", "GiB", "-1", "1 TB of it"):
        with pytest.raises(ConfigError, match="--x"):
            parse_size(wrong, "--x")


def test_an_origin_is_written_as_browsers_write_it():
    given = ("https://x.org/", "HTTP://X.org:8080", "https://x.org", "*")
    assert [*map(_origin, given)] == ["https://x.org", "http://x.org:8080", "https://x.org", "*"]
    for wrong in ("", "x.org", "https://", "https://x.org/page", "https://x.org?a", "ftp://x.org", "https://a@x.org"):
        with pytest.raises(ConfigError, match=r"--allow-origin .*: expected an origin"):
            _origin(wrong)


def test_the_command_serves_with_the_limits_of_the_library():
    from dragoman.serve.http.limits import Limits
    from dragoman.serve.service import Service

    defaults = {name: one.default for name, one in inspect.signature(serve).parameters.items()}
    assert defaults["queue"] == inspect.signature(Service.load).parameters["queue"].default
    limits = Limits()
    found = defaults["max_characters"], defaults["max_texts"], parse_size(defaults["max_file"], "--max-file")
    assert found == (limits.characters, limits.texts, limits.file_bytes)
