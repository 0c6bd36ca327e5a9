"""Nothing is lost: whatever moment the machine stops, whatever byte the disk spoils."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch

from dragoman import durable, migrations
from dragoman.checkpoint import RunDirectory
from dragoman.errors import CheckpointError
from dragoman.run_lock import LOCK
from dragoman.snapshot import MANIFEST, Checkpoint, Damaged, step_name
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

CONFIG = {"kind": "run", "train": {"seed": 1}}


def tensors(step):
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "model": {"embed.weight": weight, "output.weight": weight, "scale": torch.tensor(float(step))},
        "optimizer": {
            "embed.weight:exp_avg": torch.randn(3, 4, generator=generator),
            "embed.weight:step": torch.tensor(2.0),
        },
    }


def save(run, step, *, best=False, **options):
    progress = {"step": step, "best_step": step if best else None}
    return run.save(step, tensors=tensors(step), progress=progress, config=CONFIG, best=best, **options)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # these tests stop processes, not machines
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    tokenizer = Tokenizer.train(Bytes(), [])
    run.write_tokenizers(tokenizer, tokenizer)
    yield run
    run.close()


def assert_holds(run, step, which="last"):
    content = run.load(which)
    assert content.progress["step"] == step
    assert content.config == CONFIG
    for part, expected in tensors(step).items():
        assert content.tensors[part].keys() == expected.keys()
        assert all(torch.equal(content.tensors[part][name], value) for name, value in expected.items())


# ---- writing and reading --------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_saved(run):
    save(run, 5)
    assert_holds(run, 5)
    assert run.config == CONFIG


def test_last_best_steps_and_names_are_found(run):
    save(run, 5, best=True)
    save(run, 10)
    for which, step in {"last": 10, "best": 5, 5: 5, "step-000010": 10}.items():
        assert_holds(run, step, which)
    assert (run.path / "last").resolve().name == "step-000010"
    assert (run.path / "best").resolve().name == "step-000005"


def test_before_any_validation_the_best_is_the_last(run):
    save(run, 5)
    assert_holds(run, 5, "best")


def test_a_tied_weight_is_stored_once(run):
    path = save(run, 5).path
    once = run.save("untied", tensors={"model": {"embed.weight": torch.zeros(3, 4)}}, progress={}, config=CONFIG).path
    both = (path / "model.safetensors").stat().st_size
    assert both < (once / "model.safetensors").stat().st_size + 3 * 4 * 4 + 100
    loaded = run.load(5).tensors["model"]
    assert loaded["embed.weight"] is loaded["output.weight"]


def test_a_view_is_stored_without_the_tensor_it_is_a_view_of(run):
    whole = torch.arange(1000.0)
    path = run.save(
        1, tensors={"model": {"view": whole[10:12], "other": whole[11:13]}}, progress={}, config=CONFIG
    ).path
    assert (path / "model.safetensors").stat().st_size < 1000
    assert run.load(1).tensors["model"]["other"].tolist() == [11.0, 12.0]


def test_there_is_no_pickle_in_a_checkpoint(run):
    assert {p.suffix for p in save(run, 5).path.iterdir()} == {".safetensors", ".json"}


def test_saving_the_same_step_again_replaces_it(run):
    save(run, 5)
    run.save(5, tensors={"model": {}}, progress={"step": 5, "again": True}, config=CONFIG)
    assert run.load().progress == {"step": 5, "again": True}
    assert [p.name for p in run.folder.iterdir()] == ["step-000005"]


def test_a_best_checkpoint_that_someone_removed_does_not_stop_the_pruning(run):
    for step in (1, 2, 3):
        save(run, step, best=step == 1)
    shutil.rmtree(run.folder / "step-000001")
    run.prune(keep=1)
    assert [c.step for c in run.checkpoints()] == [3]
    with pytest.raises(CheckpointError, match="step-000001: no such checkpoint"):
        run.load("best")


def test_pruning_keeps_the_newest_the_best_and_every_nth(run):
    for step in range(1, 11):
        save(run, step, best=step == 3)
    run.prune(keep=2, every=4)
    assert [c.step for c in run.checkpoints()] == [3, 4, 8, 9, 10]


def test_going_back_to_an_earlier_checkpoint_sets_newer_ones_aside(run):
    for step in (1, 2, 3):
        save(run, step, best=True)
    run.rewind(run.find(1), best=1)
    assert_holds(run, 1)
    assert_holds(run, 1, "best")
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "step-000001",
        "step-000002.abandoned",
        "step-000003.abandoned",
    ]


# ---- bad input ------------------------------------------------------------------------------------


def test_an_existing_run_is_not_overwritten(run):
    before = (run.path / "config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=r"there is a run here already.*--resume"):
        RunDirectory.create(run.path, {"other": 1})
    assert (run.path / "config.yaml").read_bytes() == before


def test_a_folder_with_other_things_in_it_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        RunDirectory.create(tmp_path, CONFIG)


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such run directory.*dragoman train"):
        RunDirectory.open(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"no config\.yaml.*dragoman train"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no config\.yaml.*dragoman import"):
        RunDirectory.open(tmp_path)


def test_an_unknown_checkpoint_is_answered_with_the_known_ones(run):
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        run.load()
    save(run, 5)
    with pytest.raises(CheckpointError, match=r"step-000007: no such checkpoint; there are: step-000005"):
        run.load(7)


def test_a_step_may_be_written_as_digits(run):
    save(run, 5)
    for step in ("5", "000005", 5, "step-000005"):
        assert run.find(step).path.name == "step-000005"
    with pytest.raises(CheckpointError, match="step-000007: no such checkpoint; there are: step-000005"):
        run.find("7")


def test_a_checkpoint_is_no_run_and_says_whose_it_is(run):
    save(run, 5)
    for path in (run.path / "last", run.path / "checkpoints" / "step-000005"):
        with pytest.raises(CheckpointError, match=f"is a checkpoint of {run.path}: .*--checkpoint step-000005"):
            RunDirectory.open(path)


def test_only_one_process_writes(run):
    path = str(run.path)
    code = f"from dragoman.checkpoint import RunDirectory as R; R.open({path!r}); R.open({path!r}, write=True)"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process is training here" in second.stderr
    run.close()
    RunDirectory.open(run.path, write=True).close()


def test_a_run_can_be_claimed_while_others_ask_whether_it_is_written(run):
    run.close()
    with (run.path / LOCK).open("rb") as asking:  # as is_being_written does, caught in the middle
        fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        answered = threading.Timer(0.2, lambda: fcntl.flock(asking, fcntl.LOCK_UN))
        answered.start()
        RunDirectory.open(run.path, write=True).close()
        answered.join()


@pytest.mark.parametrize(("written", "says"), [(99, "99 is newer"), (-1, "too old"), ("x", "newer")])
def test_a_format_of_another_time_is_refused(run, written, says):
    path = save(run, 5).path
    manifest = Checkpoint(path).manifest() | {"format": written}
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps(manifest | {"seal": seal}))
    with pytest.raises(CheckpointError, match=says):
        run.load()


def test_an_old_format_is_carried_over_step_by_step(run, monkeypatch):
    save(run, 5)
    today = migrations.FORMAT

    def rename(content):
        model = {name.replace("embed", "embedding"): value for name, value in content.tensors["model"].items()}
        return migrations.Content(
            config=content.config, progress=content.progress, tensors=content.tensors | {"model": model}
        )

    monkeypatch.setattr(migrations, "FORMAT", today + 1)
    monkeypatch.setitem(migrations.MIGRATIONS, today, rename)
    assert "embedding.weight" in run.load().tensors["model"]


# ---- damage ---------------------------------------------------------------------------------------


def damaged_files(path):
    return [p for p in sorted(path.iterdir()) if p.is_file()] + [path.parent.parent / "tokenizer.json"]


def test_every_flipped_bit_is_noticed(run):
    path = save(run, 5).path
    checkpoint = Checkpoint(path)
    for file in damaged_files(path):
        good = file.read_bytes()
        for place in range(0, len(good), max(1, len(good) // 200)):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            file.write_bytes(bad)
            with pytest.raises(Damaged, match=file.name):
                checkpoint.load()
        file.write_bytes(good)
    checkpoint.load()


def test_the_manifest_notices_its_own_damage(run):
    path = save(run, 5).path / MANIFEST
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 5):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(Damaged):
            Checkpoint(path.parent).manifest()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_every_truncated_file_is_noticed_by_name(run, keep):
    path = save(run, 5).path
    for file in damaged_files(path):
        good = file.read_bytes()
        file.write_bytes(good[: int(keep * len(good))])
        with pytest.raises(CheckpointError, match=file.name):
            run.load()
        file.write_bytes(good)
    assert_holds(run, 5)


def test_a_missing_file_is_noticed_by_name(run):
    path = save(run, 5).path
    for file in damaged_files(path):
        file.rename(file.with_suffix(".gone"))
        with pytest.raises(CheckpointError, match=file.name):
            run.load()
        file.with_suffix(".gone").rename(file)
    assert_holds(run, 5)


def test_damage_to_the_last_checkpoint_points_to_the_newest_intact_one(run):
    for step in (1, 2, 3):
        save(run, step)
    for step in (2, 3):
        (run.folder / step_name(step) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-000003/model.safetensors: damaged.*--checkpoint step-000001"):
        run.load()
    assert_holds(run, 1, "step-000001")


# ---- failures while writing -----------------------------------------------------------------------

CHANGES = ("open", "write", "fsync", "rename", "symlink", "mkdir", "unlink", "rmdir")


class PowerCut(BaseException):
    """The machine stops: from here on nothing reaches the disk, not even the tidying up."""


class Disk:
    """Counts every call that changes the disk, and lets the ``fails``-th one go wrong."""

    def __init__(self, monkeypatch, fails, error):
        self.calls, self.fails, self.error, self.dead = 0, fails, error, False
        for name in CHANGES:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*args, **kwargs)  # only looks
            self.calls += 1
            if self.dead or self.calls == self.fails:
                if self.error is None:
                    self.dead = True
                    raise PowerCut
                raise OSError(self.error, os.strerror(self.error), str(args[0]))
            return real(*args, **kwargs)

        return call


def attempts(run, monkeypatch, error):
    """Save step 2 and prune, with the first, second, ... change of the disk failing, until all goes well."""
    for fails in range(1, 1000):
        with monkeypatch.context() as patch:
            disk = Disk(patch, fails, error)
            try:
                save(run, 2, best=True)
                run.prune(keep=1)
            except (PowerCut, CheckpointError, OSError) as stopped:
                problem = stopped
            else:
                assert disk.calls == fails - 1 > 15
                return
        yield fails, problem
        run.close()
        shutil.rmtree(run.path)
        run.__init__(run.path)
        fresh = RunDirectory.create(run.path, CONFIG)
        run._lock = fresh._lock
        save(run, 1, best=True)
    raise AssertionError("never went well")


def test_a_power_cut_at_any_write_leaves_a_whole_checkpoint(run, monkeypatch):
    save(run, 1, best=True)
    seen = set()
    for _, problem in attempts(run, monkeypatch, error=None):
        assert isinstance(problem, PowerCut)
        run.close()
        again = RunDirectory.open(run.path, write=True)
        newest = again.checkpoints()[-1].step
        seen.add(newest)
        assert_holds(again, newest)
        assert_holds(again, again.find("best").step, "best")
        for link in ("last", "best"):
            assert (run.path / link).resolve().name == step_name(newest), "as its progress says"
        assert not [p for p in run.path.rglob(".*") if p.name != ".lock"], "leftovers are swept"
        save(again, 3)
        assert_holds(again, 3)
        again.close()
    assert seen == {1, 2}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["disk full", "input/output error"])
def test_a_write_that_fails_loses_nothing_and_is_reported_by_name(run, monkeypatch, error):
    save(run, 1, best=True)
    for _, problem in attempts(run, monkeypatch, error):
        assert isinstance(problem, CheckpointError)
        assert str(run.path) in str(problem) and os.strerror(error) in str(problem)
        newest = run.checkpoints()[-1].step
        assert_holds(run, newest)
        if newest == 1:
            assert "MB needed" in str(problem)
        save(run, 3)  # the disk has room again
        assert_holds(run, 3)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux which file a handle belongs to")
def test_every_byte_is_flushed_before_the_checkpoint_takes_its_name(run, monkeypatch):
    flushed, names = set(), []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.readlink(f"/proc/self/fd/{handle}")))
    real = os.rename

    def rename(old, new):
        if old.name == ".step-000005.partial":
            names.append(new.name)
            assert {str(old), *(str(p) for p in old.iterdir())} <= flushed
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    save(run, 5)
    assert names == ["step-000005"]
    assert str(run.folder) in flushed


def test_a_failed_save_leaves_no_partial_folder(run, monkeypatch):
    save(run, 1)
    with monkeypatch.context() as patch:
        Disk(patch, 4, errno.ENOSPC)
        with pytest.raises(CheckpointError, match=r"step-000002: cannot save: No space left.*--resume"):
            save(run, 2)
    assert [p.name for p in run.folder.iterdir()] == ["step-000001"]


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(run, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: real(handle, content[:7]))
    save(run, 5)
    assert_holds(run, 5)


def test_replacing_a_folder_that_a_crash_interrupted_is_undone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("old")
    os.rename(tmp_path / "a", tmp_path / ".a.old")
    durable.sweep(tmp_path)
    assert (tmp_path / "a" / "file").read_text() == "old"
