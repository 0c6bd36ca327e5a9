"""Bulk work: every line once and in its order, whoever dies; what was begun is finished by the same command."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from bulk_work import Backwards
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from tiny_run import config, write_pairs

from dragoman import durable
from dragoman.cli import main
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError, OutputError, ProcessLost
from dragoman.serve.bulk import local, remote, worker_process
from dragoman.serve.bulk import shard as shards
from dragoman.serve.bulk.job import BulkReport, check_input, run_bulk
from dragoman.serve.bulk.local import LocalWorkers
from dragoman.serve.bulk.remote import read_remote_lines
from dragoman.serve.bulk.scheduler import RowsDone, ShardScheduler, WorkerFailed
from dragoman.serve.bulk.shard import Shard, ShardResult, ShardWork, finish, shard_sizes, shards_of
from dragoman.text.compressed import create_text
from dragoman.text.lines import read_lines
from dragoman.train.run import start

TESTS = Path(__file__).parent
SUFFIXES = ["", ".gz", ".zst", ".bz2", ".xz"]


class InThisProcess(ShardScheduler):
    """Works at once, and out of order: each pair of shards the other way round."""

    def __init__(self, work: ShardWork, *, stop_after: int | None = None, most: int = 1):
        self.answerer, self.stop_after, self.most = work.open(), stop_after, most
        self.answered: list[int] = []

    def results(self, shards: Iterator[Shard], progress: RowsDone) -> Iterator[ShardResult]:
        while pair := [shard for shard in (next(shards, None), next(shards, None)) if shard]:
            for shard in reversed(pair):
                if self.stop_after is not None and len(self.answered) == self.stop_after:
                    raise KeyboardInterrupt
                self.answered.append(shard.number)
                yield finish(self.answerer, shard)

    def stop(self) -> None:
        pass


def work_here(patch: pytest.MonkeyPatch, scheduler: Callable[[ShardWork], ShardScheduler]) -> None:
    """Let the scheduler take the place of the command's processes."""
    patch.setattr(local, "LocalWorkers", lambda work, workers, method: scheduler(work))
    patch.setattr(worker_process, "start_template", lambda: None)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of four lines, so that few lines make many of them."""
    monkeypatch.setattr(shards, "FEWEST", 4)
    monkeypatch.setattr(shards, "SHARE", 10**6)


def write(path: Path, lines) -> Path:
    with create_text(path) as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def bulk(path: Path, output: Path, scheduler: ShardScheduler, **named) -> BulkReport:
    def read():
        return read_lines(path)

    options = {"model": {"seal": "a"}, "options": {"beam": 5}} | named
    with scheduler:
        return run_bulk(read, check_input(read), scheduler, output, **options)


LINES = [f"line {i} {'x' * (i % 7)}" for i in range(50)] + ["", "  ", "\u2028 é 日本"]
EXPECTED = [line[::-1] for line in LINES]

# ---- lines and their order ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", SUFFIXES)
@pytest.mark.parametrize("after", SUFFIXES)
def test_each_line_has_one_answer_in_its_place_in_every_format(before, after, tmp_path):
    path = write(tmp_path / f"in{before}", LINES)
    bulk(path, tmp_path / f"out{after}", InThisProcess(Backwards()))
    assert list(read_lines(tmp_path / f"out{after}")) == EXPECTED


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8])
def test_texts_around_the_length_of_a_shard_come_out_whole(count, suffix, tmp_path):
    path = write(tmp_path / "in.txt", LINES[:count])
    report = bulk(path, tmp_path / f"out{suffix}", InThisProcess(Backwards()))
    assert list(read_lines(tmp_path / f"out{suffix}")) == EXPECTED[:count]
    assert report.lines == count
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", f"out{suffix}"]


def test_a_line_knows_those_before_it_across_the_ends_of_shards(tmp_path):
    path = write(tmp_path / "in.txt", LINES[:20])
    work = Backwards(shows_before=True, lines_before=2)
    bulk(path, tmp_path / "out.txt", InThisProcess(work), before=2)
    expected = [" ".join([line[::-1], *LINES[max(0, i - 2) : i]]) for i, line in enumerate(LINES[:20])]
    assert list(read_lines(tmp_path / "out.txt")) == expected


def test_remarks_come_in_the_order_of_the_lines(tmp_path):
    heard = []
    bulk(write(tmp_path / "in.txt", LINES[:20]), tmp_path / "out.txt", InThisProcess(Backwards()), remark=heard.append)
    assert heard == [f"row {row}: first of its shard" for row in range(1, 20, 4)]


@pytest.mark.parametrize("workers", [1, 2, 5, 32])
@pytest.mark.parametrize("lines", [0, 1, 511, 20_000, 100_000, 10**6])
def test_shards_hold_all_lines_and_workers_that_take_one_after_the_other_end_together(lines, workers, monkeypatch):
    monkeypatch.undo()  # shards as they are
    sizes, done = shard_sizes(lines, workers), [0] * workers
    assert sum(sizes) == lines and sizes == sorted(sizes, reverse=True)
    assert all(1 <= size <= 4096 for size in sizes)  # no longer than the batches of a single process
    for size in sizes:
        done[done.index(min(done))] += size
    assert max(done) - min(done) <= 256


def test_a_job_goes_on_with_the_shards_of_its_beginning_whatever_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARE", 1)
    path, output = write(tmp_path / "in.txt", LINES), tmp_path / "out.txt"
    with pytest.raises(KeyboardInterrupt):
        bulk(path, output, InThisProcess(Backwards(), stop_after=3, most=3))
    work = InThisProcess(Backwards(), most=10)
    assert 0 < bulk(path, output, work).resumed < len(LINES)
    assert list(read_lines(output)) == EXPECTED and 0 not in work.answered


def test_shards_are_made_one_at_a_time():
    endless = shards_of(chain.from_iterable(repeat(["a"])), [4, 3])
    assert [next(endless).first_row for _ in range(3)] == [1, 5, 8]


def test_progress_goes_from_nothing_to_everything_and_never_back(tmp_path):
    seen = []
    bulk(
        write(tmp_path / "in.txt", LINES),
        tmp_path / "out",
        InThisProcess(Backwards()),
        progress=lambda *s: seen.append(s),
    )
    assert seen[0] == (0, len(LINES)) and seen[-1] == (len(LINES), len(LINES)) and seen == sorted(seen)


# ---- what was begun -----------------------------------------------------------------------------------


def begin(tmp_path: Path, stop_after: int = 3, name: str = "out.txt.zst") -> tuple[Path, Path]:
    path, output = write(tmp_path / "in.txt", LINES), tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        bulk(path, output, InThisProcess(Backwards(), stop_after=stop_after))
    return path, output


def test_a_stopped_job_leaves_no_output_and_finishes_only_what_it_has_not(tmp_path):
    path, output = begin(tmp_path)
    assert not output.exists()
    again = InThisProcess(Backwards())
    report = bulk(path, output, again)
    assert list(read_lines(output)) == EXPECTED
    assert report.resumed == 3 * 4 and len(again.answered) == 14 - 3 and not {1, 0, 3} & set(again.answered)


def test_the_output_has_the_same_bytes_however_often_it_was_stopped(tmp_path):
    bulk(write(tmp_path / "in.txt", LINES), tmp_path / "whole.txt.zst", InThisProcess(Backwards()))
    path, output = begin(tmp_path, stop_after=2)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            bulk(path, output, InThisProcess(Backwards(), stop_after=2))
    bulk(path, output, InThisProcess(Backwards()))
    assert output.read_bytes() == (tmp_path / "whole.txt.zst").read_bytes()


CHANGES = {
    "a changed line": (lambda path: write(path, [*LINES[:-1], "new"]), {}, "the input has changed"),
    "a line more": (lambda path: write(path, [*LINES, "new"]), {}, r"lines was 53, is 54"),
    "no lines": (lambda path: write(path, []), {}, r"lines was 53, is 0"),
    "another model": (None, {"model": {"seal": "b"}}, "another model"),
    "another option": (None, {"options": {"beam": 4}}, "begun with beam 5, and now it is 4"),
    "an option more": (None, {"options": {"beam": 5, "terms": "t"}}, "begun with terms None, and now it is t"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_that_differs_from_the_one_begun_is_refused_by_name_and_nothing_is_lost(change, tmp_path):
    path, output = begin(tmp_path)
    edit, named, message = CHANGES[change]
    if edit:
        edit(path)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "out.txt.zst.parts").iterdir()}
    with pytest.raises(ConfigError, match=message) as refused:
        bulk(path, output, InThisProcess(Backwards()), **named)
    assert "--restart" in str(refused.value)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out.txt.zst.parts").iterdir()} == kept
    again = InThisProcess(Backwards())
    bulk(path, output, again, restart=True, **named)
    assert [line[::-1] for line in read_lines(output)] == list(read_lines(path))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a part that is gone": lambda parts: (parts / "000001").unlink(),
    "a part cut short": lambda parts: truncate(parts / "000001"),
    "a flipped bit": lambda parts: flip(parts / "000001"),
    "a journal cut short": lambda parts: truncate(parts / "journal.jsonl"),
    "no journal": lambda parts: (parts / "journal.jsonl").unlink(),
    "a journal of something else": lambda parts: (parts / "journal.jsonl").write_bytes(b"\xff\n[1]\n{}\n"),
    "a part that the journal does not have": lambda parts: (parts / "000013").write_bytes(b"?"),
    "a half-written part": lambda parts: (parts / ".000009.7.partial").write_bytes(b"?"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_parts_are_made_again(damage, tmp_path):
    path, output = begin(tmp_path)
    DAMAGES[damage](tmp_path / "out.txt.zst.parts")
    bulk(path, output, InThisProcess(Backwards()))
    assert list(read_lines(output)) == EXPECTED


def test_a_damaged_description_is_named_and_can_be_begun_anew(tmp_path):
    path, output = begin(tmp_path)
    (tmp_path / "out.txt.zst.parts" / "job.json").write_text("{")
    with pytest.raises(ConfigError, match=r"job\.json: damaged: start anew with --restart"):
        bulk(path, output, InThisProcess(Backwards()))
    bulk(path, output, InThisProcess(Backwards()), restart=True)
    assert list(read_lines(output)) == EXPECTED


def test_a_part_damaged_after_it_was_finished_does_not_reach_the_output(tmp_path):
    class Damaging(InThisProcess):
        def results(self, shards, progress):
            yield from super().results(shards, progress)
            flip(tmp_path / "out.txt.parts" / "000002")

    path = write(tmp_path / "in.txt", LINES)
    with pytest.raises(OutputError, match="000002: damaged: run the same command again"):
        bulk(path, tmp_path / "out.txt", Damaging(Backwards()))
    assert not (tmp_path / "out.txt").exists()
    bulk(path, tmp_path / "out.txt", InThisProcess(Backwards()))
    assert list(read_lines(tmp_path / "out.txt")) == EXPECTED


def test_a_job_that_was_killed_between_its_output_and_the_removal_of_its_parts_ends_as_if_it_was_not(
    tmp_path, monkeypatch
):
    path, output = write(tmp_path / "in.txt", LINES), tmp_path / "out.txt"
    with monkeypatch.context() as patch:
        patch.setattr(durable, "remove", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bulk(path, output, InThisProcess(Backwards()))
    again = InThisProcess(Backwards())
    bulk(path, output, again)
    assert list(read_lines(output)) == EXPECTED and not again.answered
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def test_what_a_process_that_was_killed_while_joining_has_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".out.txt.{ended.pid}.partial", f".out.txt.{os.getpid()}.partial", ".other.txt.1.partial"):
        (tmp_path / name).write_text("?")
    bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out.txt", InThisProcess(Backwards()))
    assert not (tmp_path / f".out.txt.{ended.pid}.partial").exists() and (tmp_path / ".other.txt.1.partial").exists()


def test_two_processes_do_not_write_one_output(tmp_path):
    class Second(InThisProcess):
        def results(self, shards, progress):
            with pytest.raises(ConfigError, match="another process is writing there"):
                bulk(path, tmp_path / "out.txt", InThisProcess(Backwards()))
            yield from super().results(shards, progress)

    path = write(tmp_path / "in.txt", LINES)
    bulk(path, tmp_path / "out.txt", Second(Backwards()))
    assert list(read_lines(tmp_path / "out.txt")) == EXPECTED


def test_an_input_that_changes_meanwhile_is_noticed_before_anything_is_written(tmp_path):
    class Changing(InThisProcess):
        def results(self, shards, progress):
            write(path, [*LINES[:40], "changed", *LINES[41:]])
            yield from super().results(shards, progress)

    path = write(tmp_path / "in.txt", LINES)
    with pytest.raises(DataError, match="changed while it was translated"):
        bulk(path, tmp_path / "out.txt", Changing(Backwards()))
    assert not (tmp_path / "out.txt").exists()


def test_mistakes_in_the_input_are_found_before_any_work(tmp_path):
    (tmp_path / "in.txt").write_bytes(b"good\n" * 30 + b"b\xe4d\n")
    with pytest.raises(DataError, match=r"in\.txt:31: not UTF-8"):
        bulk(tmp_path / "in.txt", tmp_path / "out.txt", InThisProcess(Backwards()))
    assert [p.name for p in tmp_path.iterdir()] == ["in.txt"]


# ---- processes ----------------------------------------------------------------------------------------


def test_workers_answer_all_shards(tmp_path):
    report = bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out.txt.gz", LocalWorkers(Backwards(), 2))
    assert list(read_lines(tmp_path / "out.txt.gz")) == EXPECTED and report.lost == 0


def test_workers_load_at_the_same_time_however_long_the_lines_are(tmp_path):
    (tmp_path / "opens").mkdir()
    lines = [f"{i} " + "long " * 20_000 for i in range(16)]  # more than a pipe holds
    work = Backwards(opens=str(tmp_path / "opens"))
    bulk(write(tmp_path / "in.txt", lines), tmp_path / "out.txt", LocalWorkers(work, 2))
    assert list(read_lines(tmp_path / "out.txt")) == [line[::-1] for line in lines]
    first, second = (tuple(map(float, path.read_text().split())) for path in (tmp_path / "opens").iterdir())
    assert first[0] < second[1] and second[0] < first[1]


@pytest.fixture
def own_fork_server(monkeypatch):
    """A fork server of this test alone: others may have left one behind."""
    fresh = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", fresh)
    for name in ("ensure_running", "connect_to_new_process", "set_forkserver_preload"):
        monkeypatch.setattr(forkserver, name, getattr(fresh, name))


@pytest.fixture
def template(own_fork_server):
    """The process that workers are forked from; stopped afterwards."""
    if worker_process.OF_COMMANDS != "forkserver":
        pytest.skip("workers are forked on Linux alone")
    yield worker_process.start_template()
    worker_process.stop_template()


def test_forked_workers_answer_all_shards_even_if_one_dies(template, tmp_path):
    work = Backwards(dies_at=2, once=str(tmp_path / "died"))
    path = write(tmp_path / "in.txt", LINES)
    report = bulk(path, tmp_path / "out.txt", LocalWorkers(work, 2, "forkserver"))
    assert list(read_lines(tmp_path / "out.txt")) == EXPECTED and report.lost == 1


def test_no_file_of_the_current_directory_is_imported(run, tmp_path):
    path, output = write(tmp_path / "in.txt", LONG[:1000]), tmp_path / "out.txt"
    for module in ("tokenizers", "statistics", "pydantic", "socket", "multiprocessing"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')\n")
    arguments = ["translate", str(run), str(path), "-o", str(output), "--workers", "2", "--beam", "1"]
    code = f"import sys; sys.argv[1:] = {arguments!r}; from dragoman.cli import command; command()"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "imported" not in done.stderr, done.stderr
    assert len(list(read_lines(output))) == 1000


def test_ctrl_c_does_not_reach_the_template_and_its_workers(template):
    worker = worker_process.start_worker("forkserver")
    try:
        numbers = [worker_process._template[0], worker.process.pid]
        blocked = [re.search(r"SigBlk:\t(\w+)", Path(f"/proc/{number}/status").read_text()) for number in numbers]
        assert all(found and int(found[1], 16) & 1 << signal.SIGINT - 1 for found in blocked)
    finally:
        worker_process.stop_workers([worker])


def test_a_template_that_has_just_died_is_not_missed(template, tmp_path):
    worker_process.stop_template()
    report = bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out.txt", LocalWorkers(Backwards(), 2, "forkserver"))
    assert list(read_lines(tmp_path / "out.txt")) == EXPECTED and report.lost == 0


LONG = ["a line of some words"] * 2000
"""Lines that are worth two shards and more."""


@pytest.mark.parametrize(
    ("lines", "there", "early"),
    [(LONG, (), True), (LONG[:10], (), False), (LONG, ("out.txt",), False)],
    ids=["long", "short", "the output is there"],
)
def test_the_template_starts_early_where_there_will_be_work(lines, there, early, run, tmp_path, monkeypatch):
    started: list[bool] = []
    work_here(monkeypatch, lambda work: InThisProcess(Backwards()))
    monkeypatch.setattr(worker_process, "OF_COMMANDS", "forkserver")
    monkeypatch.setattr(worker_process, "start_template", lambda: started.append(True))
    for name in there:
        (tmp_path / name).touch()
    source = write(tmp_path / "in.txt", lines)
    assert dragoman("translate", run, source, "-o", tmp_path / "out.txt", "--workers", 2) == 0
    assert started == [True] * early


@pytest.mark.skipif(worker_process.OF_COMMANDS != "forkserver", reason="workers are forked on Linux alone")
def test_a_mistake_leaves_no_process_behind(own_fork_server, run, tmp_path, monkeypatch, capsys):
    stop = worker_process.stop_template

    def children() -> set[int]:
        found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return {int(child) for child in found if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()}

    before, source, output = children(), write(tmp_path / "in.txt", LONG), tmp_path / "out.txt"
    assert dragoman("translate", tmp_path / "no-run", source, "-o", output, "--workers", 2) == 2
    assert children() == before
    begun: list[int] = []
    monkeypatch.setattr(worker_process, "stop_template", lambda: (begun.extend(worker_process._template), stop()))
    assert dragoman("translate", run, source, "-o", output, "--workers", 1, "--cache", "pagedd") == 2
    assert len(begun) == 1
    wait_for(lambda: not any(map(is_alive, children() - before)))
    assert "Did you mean 'paged'?" in capsys.readouterr().err


def test_a_worker_that_dies_is_replaced_and_its_shard_is_done_again(tmp_path):
    work = Backwards(dies_at=2, once=str(tmp_path / "died"))
    report = bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out.txt", LocalWorkers(work, 2))
    assert list(read_lines(tmp_path / "out.txt")) == EXPECTED and report.lost == 1


def test_a_shard_that_kills_every_worker_is_named_and_the_others_are_kept(tmp_path):
    path = write(tmp_path / "in.txt", LINES[:12])
    with pytest.raises(ProcessLost, match="rows 9 to 12: 3 workers have died of them, the last one by SIGKILL"):
        bulk(path, tmp_path / "out.txt", LocalWorkers(Backwards(dies_at=2), 1))
    assert bulk(path, tmp_path / "out.txt", InThisProcess(Backwards())).resumed == 8


def test_a_mistake_found_by_a_worker_is_reported_as_one(tmp_path):
    with pytest.raises(DataError, match="row 6: refused"):
        bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out", LocalWorkers(Backwards(refuses=LINES[5]), 1))


def test_a_defect_in_a_worker_shows_its_traceback(tmp_path):
    with pytest.raises(WorkerFailed, match="TypeError"):
        bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out", LocalWorkers(Backwards(seconds="?"), 1))  # pyright: ignore[reportArgumentType]


def workers_of(process: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def run_in_a_process(path: Path, output: Path, seconds: float) -> subprocess.Popen:
    arguments = [str(TESTS / "bulk_work.py"), str(path), str(output), str(seconds)]
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(what, seconds: float = 30.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def parts_of(output: Path) -> list[str]:
    try:
        return [name for name in os.listdir(f"{output}.parts") if name.isdigit()]
    except FileNotFoundError:
        return []


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds children in /proc")
def test_after_kill_9_the_workers_end_and_the_same_job_gives_the_same_bytes(tmp_path):
    lines = [f"line {i}" for i in range(2000)]
    path, output, draw = write(tmp_path / "in.txt", lines), tmp_path / "out.txt.zst", random.Random(1)
    for at_least in (1, 2):
        process = run_in_a_process(path, output, 0.3)
        wait_for(lambda: len(parts_of(output)) >= at_least)  # noqa: B023
        children = workers_of(process)
        time.sleep(draw.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not any(map(is_alive, children)))  # noqa: B023
        assert not output.exists()
    assert run_in_a_process(path, output, 0.0).wait() == 0
    assert list(read_lines(output)) == [line[::-1] for line in lines]
    assert run_in_a_process(path, tmp_path / "whole.txt.zst", 0.0).wait() == 0
    assert output.read_bytes() == (tmp_path / "whole.txt.zst").read_bytes()


# ---- the command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    for _ in start(config(write_pairs(folder / "pairs.tsv")), folder / "run").events():
        pass
    return folder / "run"


@pytest.fixture
def sentences(tmp_path):
    words = ["the house", "red tree 12", "", "two dogs {name}", "A cat, <b>big</b>.", "12:30"]
    return write(tmp_path / "in.txt", [f"{words[i % 6]} {i // 6}".strip() for i in range(6)])


def dragoman(*arguments) -> int:
    return main([*map(str, arguments)])


@pytest.fixture
def in_this_process(monkeypatch):
    """The command's workers work here."""
    work_here(monkeypatch, InThisProcess)


@pytest.mark.parametrize(
    "options",
    [
        ["--beam", "1"],
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in (
                ["--nbest", "2", "--scores", "--beam", "2"],
                ["--format", "json", "--alignments", "--beam", "1"],
                ["--flag-below", "0.5"],
                ["--sample", "2", "--seed", "3", "--rule", "no_repeat: {tokens: 2}", "--terms", "terms.tsv"],
                ["--prefix-column", "--beam", "1"],
            )
        ),
    ],
    ids=" ".join,
)
def test_bulk_gives_what_the_command_gives_alone_with_every_option(
    options, run, sentences, tmp_path, monkeypatch, in_this_process, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.tsv").write_text("source\ttarget\nhouse\tESUOH\n")
    if "--prefix-column" in options:
        write(sentences, [f"{line}\tDE" for line in read_lines(sentences)])
    shared = ["translate", run, sentences, *options, "--precision", "float32"]
    assert dragoman(*shared, "-o", "alone.txt") == 0
    alone = capfd.readouterr().err
    assert dragoman(*shared, "-o", "bulk.txt.gz", "--workers", 1) == 0
    assert list(read_lines("bulk.txt.gz")) == list(read_lines("alone.txt"))
    *remarks, summary = capfd.readouterr().err.splitlines()
    assert summary.startswith("dragoman: bulk.txt.gz: 6 lines")
    assert [line for line in remarks if ": row" in line] == [line for line in alone.splitlines() if ": row" in line]


MISTAKES = {
    "no output": (["in.txt"], "--workers: name the output with -o"),
    "no file": (["-o", "out.txt"], "--workers: is for files of lines"),
    "standard input": (["-", "-o", "out.txt"], "can be read only once"),
    "a sentence": (["the house", "-o", "out.txt"], "no such file, and --workers is for files of lines"),
    "a missing file": (["absent.txt", "-o", "out.txt"], "absent.txt: no such file"),
    "nothing matches": (["*.none", "-o", "out.txt"], "*.none: no file matches this pattern"),
    "a document": (["a.po", "-o", "out.po"], "a.po: a document, and --workers is for files of lines"),
    "a document's option": (["in.txt", "-o", "out.txt", "--redo"], "--redo: is for documents"),
    "a document's format": (["in.txt", "-o", "out.txt", "--as", "po"], "--as po: is for documents"),
    "the input as output": (["in.txt", "-o", "in.txt"], "in.txt: is also the input"),
    "a live output": (["in.txt", "-o", "/dev/stdout"], "/dev/stdout: --workers writes into a file"),
    "no folder": (["in.txt", "-o", "absent/out.txt"], "absent/out.txt: there is no folder absent"),
    "no such checkpoint": (["in.txt", "-o", "out.txt", "--checkpoint", "step-9"], "step-9: no such checkpoint"),
    "an unknown cache": (["in.txt", "-o", "out.txt", "--cache", "none"], "cache"),
    "broken text": (["bad.txt", "-o", "out.txt"], "bad.txt:2: not UTF-8"),
    "a broken archive": (["bad.txt.gz", "-o", "out.txt"], "bad.txt.gz: damaged, or not gzip"),
    "an unknown store": (["nowhere://a/b.txt", "-o", "out.txt"], "nowhere://a/b.txt: "),
    "an absent address": (["memory://absent.txt", "-o", "out.txt"], "memory://absent.txt: no such file"),
    "a table without column": (["in.csv", "-o", "out.csv"], "in.csv:1: does not tell which column is translated into"),
    "a table as text": (["in.csv", "-o", "out.txt"], "in.csv is translated into a file of its own format"),
    "a table with an option of lines": (["in.csv", "-o", "out.csv", "--nbest", "2"], "in.csv: a table: --nbest,"),
    "several tables": (["in.csv", "b.csv", "-o", "out.csv"], "b.csv: several tables are written into a folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_the_model_loads(mistake, run, sentences, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Translator, "load", lambda *a, **b: pytest.fail("loaded"))
    (tmp_path / "a.po").write_text("")
    for name in ("in.csv", "b.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    for name in ("bad.txt", "bad.txt.gz"):
        (tmp_path / name).write_bytes(b"good\nb\xe4d\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arguments, message = MISTAKES[mistake]
    assert dragoman("translate", run, *arguments, "--workers", 2) == 2
    error = capfd.readouterr().err
    assert message in error and error.startswith("dragoman: ") and error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_match_a_pattern_go_into_a_folder_or_one_after_the_other_into_a_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work_here(monkeypatch, lambda work: InThisProcess(Backwards()))
    for name in ("a", "b"):
        write(tmp_path / f"{name}.txt.zst", [f"{name} {i}" for i in range(6)])
    (tmp_path / "out").mkdir()
    assert dragoman("translate", run, "*.txt.zst", "-o", "out", "--workers", 2) == 0
    assert list(read_lines("out/b.txt.zst")) == [f"{i} b" for i in range(6)]
    assert dragoman("translate", run, "*.txt.zst", "-o", "both.txt", "--workers", 2) == 0
    assert list(read_lines("both.txt")) == [f"{i} {name}" for name in "ab" for i in range(6)]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no files below /dev")
def test_a_file_in_shared_memory_is_a_file_like_others(run, sentences, monkeypatch):
    work_here(monkeypatch, lambda work: InThisProcess(Backwards()))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert dragoman("translate", run, sentences, "-o", f"{folder}/out.txt", "--workers", 2) == 0
        assert Path(folder, "out.txt").read_text().count("\n") == sentences.read_text().count("\n")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_at_an_address_is_read_as_one_of_this_machine(suffix, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work_here(monkeypatch, lambda work: InThisProcess(Backwards()))
    with fsspec.open(f"memory://store/a.txt{suffix}", "wb") as file:
        file.write(write(tmp_path / f"a{suffix}", LINES).read_bytes())
    assert dragoman("translate", run, f"memory://store/*{suffix or 't'}", "-o", "out.txt", "--workers", 2) == 0
    assert list(read_lines("out.txt")) == EXPECTED


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_store_that_fails_in_the_middle_of_a_file_is_a_mistake_in_one_line(suffix, tmp_path, monkeypatch):
    content = write(tmp_path / f"a{suffix}", [str(random.random()) for _ in range(20_000)]).read_bytes()

    class Ending(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > len(content) // 2:
                raise RuntimeError("the store has\nclosed the connection")
            return super().read(min(size, 4096))

        def readinto(self, buffer):
            some = self.read(len(buffer))
            buffer[: len(some)] = some
            return len(some)

    files = SimpleNamespace(open=lambda *_: Ending(content))
    monkeypatch.setattr(remote, "_file_system", lambda address: (files, address))
    with pytest.raises(DataError, match=r"^x://a\S*: cannot be read: the store has closed the connection$"):
        list(read_remote_lines(f"x://a{suffix}"))


@pytest.mark.slow
def test_two_processes_give_what_the_command_gives_alone(run, sentences, tmp_path):
    assert dragoman("translate", run, sentences, "-o", tmp_path / "alone.txt") == 0
    assert dragoman("translate", run, sentences, "-o", tmp_path / "bulk.txt", "--workers", 2) == 0
    assert (tmp_path / "bulk.txt").read_bytes() == (tmp_path / "alone.txt").read_bytes()


@pytest.mark.slow
def test_ray_tasks_give_the_same_lines_where_a_worker_is_killed(tmp_path):
    path = write(tmp_path / "in.txt", [f"line {i}" for i in range(3000)])
    arguments = [str(path), str(tmp_path / "out.txt.zst"), "0.1", str(tmp_path / "died")]
    done = subprocess.run(
        [sys.executable, str(TESTS / "bulk_work.py"), *arguments], capture_output=True, text=True, check=True
    )
    assert "lost=1" in done.stdout
    assert list(read_lines(tmp_path / "out.txt.zst")) == [f"line {i}"[::-1] for i in range(3000)]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:6379"]
)
def test_an_address_where_no_cluster_answers_is_named(address, run, sentences, tmp_path, capfd):
    assert dragoman("translate", run, sentences, "-o", tmp_path / "out.txt", "--ray", address) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"dragoman: --ray {address}: no cluster answers there") and error.count("\n") == 1


def test_a_mistake_found_by_the_first_worker_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError):
        bulk(write(tmp_path / "in.txt", LINES), tmp_path / "out", InThisProcess(Backwards(refuses=LINES[5])))
    assert [p.name for p in tmp_path.iterdir()] == ["in.txt"]


def test_without_ray_the_error_names_the_extra(run, sentences, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert dragoman("translate", run, sentences, "-o", tmp_path / "out.txt", "--ray", "auto") == 2
    assert capfd.readouterr().err == "dragoman: --ray: Ray is not installed: pip install ray (the extra ray)\n"
    assert not (tmp_path / "out.txt.parts").exists()


def test_without_a_store_s_library_the_error_names_the_extra(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert dragoman("translate", run, "s3://bucket/a.txt", "-o", tmp_path / "out.txt", "--workers", 1) == 2
    assert capfd.readouterr().err == ("dragoman: s3://bucket/a.txt: needs s3fs: pip install s3fs (the extra remote)\n")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(run, tmp_path, monkeypatch, capfd):
    path, output = write(tmp_path / "in.txt", LINES * 60), tmp_path / "out.txt"
    command = [sys.executable, "-m", "dragoman", "translate", str(run), str(path), "-o", str(output), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: (tmp_path / "out.txt.parts" / "journal.jsonl").exists())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith(
        "dragoman: stopped; what is finished is kept, go on with: dragoman translate"
    )
    assert "Traceback" not in error and parts_of(output) and not output.exists()
    again = error.splitlines()[-1].partition("go on with: dragoman ")[2]
    with monkeypatch.context() as patch:
        work_here(patch, InThisProcess)
        assert dragoman(*again.split()) == 0
    assert "of them by an earlier command" in capfd.readouterr().err
    assert len(list(read_lines(output))) == len(LINES) * 60


@pytest.mark.parametrize("shards", [None, 4, [], [4], [4] * 100, [len(LINES), 0], [len(LINES) - 4, "4"]])
def test_a_job_whose_shards_are_damaged_is_refused(shards, tmp_path):
    path, output = begin(tmp_path)
    file = tmp_path / "out.txt.zst.parts" / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shards": shards}))
    with pytest.raises(ConfigError, match=r"job\.json: damaged: start anew with --restart"):
        bulk(path, output, InThisProcess(Backwards()))


def test_a_job_of_an_earlier_version_is_refused(tmp_path):
    path, output = begin(tmp_path)
    file = tmp_path / "out.txt.zst.parts" / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    with pytest.raises(ConfigError, match="begun by another version of dragoman"):
        bulk(path, output, InThisProcess(Backwards()))


def test_the_journal_is_readable_json(tmp_path):
    begin(tmp_path)
    parts = tmp_path / "out.txt.zst.parts"
    assert json.loads((parts / "job.json").read_text())["input"]["lines"] == len(LINES)
    assert [json.loads(line)["shard"] for line in (parts / "journal.jsonl").read_text().splitlines()] == [1, 0, 3]
