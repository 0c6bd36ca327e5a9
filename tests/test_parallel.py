"""Two processes learn what one does, and however one of them ends, all do, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import tiny_run
import torch
from tiny_run import outcome, rows

from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.cli import train as train_command
from dragoman.config import dump_yaml
from dragoman.errors import ConfigError, ProcessLost
from dragoman.train.distributed import launch as launching
from dragoman.train.distributed.launch import launch
from dragoman.train.distributed.parallel import Replicated, Sharded, check
from dragoman.train.distributed.processes import ProcessGroup
from dragoman.train.failure import TrainingFailure
from dragoman.train.optimize import Adafactor, Adam, AdamW, Muon
from dragoman.train.run import resume, start

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="processes talk through gloo")
LONG = 300
"""Seconds that a busy machine may take for what takes some."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """What one process comes to."""
    path = tmp_path_factory.mktemp("whole") / "run"
    list(start(tiny_run.config(pairs, samples=2), path).events())
    return outcome(path)


def run_file(pairs, folder, **train):
    (folder / "run.yaml").write_text(dump_yaml(tiny_run.config(pairs, **{"samples": 2} | train)))
    return str(folder / "run.yaml")


def command(*arguments, module="dragoman"):
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**more):
    return os.environ | {"OMP_NUM_THREADS": "1", "DRAGOMAN_TIMEOUT": str(LONG)} | more


def wait_for(condition, process):
    for _ in range(LONG * 20):
        if found := condition():
            return found
        assert process.poll() is None, process.communicate(0)[1]
        time.sleep(0.05)
    raise AssertionError("it took too long")


def children(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(number) for number in found]


def equal_but_for_rounding(path, whole):
    """Moments are means of gradients: near where these are. (Of weights whose gradient is 0, Adam makes noise.)"""
    found = outcome(path)
    assert found["metrics"][-1]["loss"] == pytest.approx(whole["metrics"][-1]["loss"], rel=1e-4)
    assert found["progress"]["tokens"] == whole["progress"]["tokens"]
    assert found["tensors"].keys() == whole["tensors"].keys()
    for name, value in whole["tensors"].items():
        if name.endswith(":exp_avg"):
            torch.testing.assert_close(torch.tensor(found["tensors"][name]), torch.tensor(value), atol=1e-5, rtol=1e-3)


# ---- gradients ------------------------------------------------------------------------------------

TOGETHER = "from dragoman.train.distributed.launch import launch; assert launch({command}, 2) == {codes}"
GRADIENTS = """
import warnings
warnings.simplefilter("error", UserWarning)
import torch
from test_loop import batch, cut, model, suppressed
from dragoman.data.tasks import TranslationTask
from dragoman.train.average import MovingAverage
from dragoman.train.distributed.launch import leave
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import AdamW, load_state_tensors, state_tensors
from dragoman.train.distributed.parallel import Replicated, Sharded
from dragoman.train.distributed.micro_batch import split_between_processes, unsplit
from dragoman.train.distributed.processes import join_group

class Rows(list):  # a batch, to be cut by rows
    def __getitem__(self, some):
        return Rows(super().__getitem__(some))
    def batch(self):
        return type(batch())(*(torch.cat(tensors) for tensors in zip(*self)))

def step(module, parts, exchange):
    optimizer = AdamW().build(module)
    rules = StepRules(seed=1, clip=0.5, exchange=exchange)
    return optimizer, train_step(module, TranslationTask().loss, parts, optimizer, LoopProgress(), lr=1e-3, rules=rules)

with join_group() as team:
    steps = {"a micro-batch each": [6, 4], "cut by rows": [6], "one too many": [6, 4, 5], "a single row": [1]}
    for way in (Replicated(), Sharded()):
        for name, sizes in steps.items():
            data = [Rows(cut(batch(i, rows), *range(1, rows))) for i, rows in enumerate(sizes)]
            one, many = suppressed(model().double()), suppressed(model().double())
            expected = step(one, unsplit(rows.batch() for rows in data), type(Replicated().build(team)).__mro__[1]())[1]
            exchange = way.build(team)
            exchange.place(many, torch.device("cpu"))
            parts = split_between_processes(data, team.count)[team.rank]
            mine = [part._replace(batch=part.batch.batch()) for part in parts]
            optimizer, found = step(many, mine, exchange)
            torch.testing.assert_close((found.loss, found.grad_norm), (expected.loss, expected.grad_norm))
            assert found.tokens == expected.tokens
            pairs = zip(many.parameters(), one.parameters(), strict=True)
            worst = max((exchange.full(many, {"g": p.grad})["g"] - q.grad).abs().max() for p, q in pairs)
            assert worst < 1e-6, (way, name, worst)
        average = MovingAverage(many, 0.5)  # what is saved and read again is what was there
        saved = exchange.full(many, state_tensors(optimizer, many)), exchange.full(many, average.tensors(many))
        load_state_tensors(optimizer, many, exchange.share(many, saved[0]))
        average.load(many, exchange.share(many, saved[1]))
        again = exchange.full(many, state_tensors(optimizer, many)), exchange.full(many, average.tensors(many))
        assert all(torch.equal(a[k], b[k]) for a, b in zip(saved, again) for k in a)
        names = dict(many.named_parameters(remove_duplicate=False))
        assert saved[1]["output.weight"] is saved[1]["embed.tokens.weight"] or way == Replicated()
        assert all(tensor.shape == names[name].shape for name, tensor in saved[1].items())
leave(0)
"""


@pytest.mark.slow
def test_gradients_of_two_processes_equal_those_of_one_to_1e_6():
    both = TOGETHER.format(command=[sys.executable, "-c", GRADIENTS], codes=[0, 0])
    ended = forked.run([sys.executable, "-c", both], environment(), LONG)
    assert ended.returncode == 0, ended.stderr


SHARDED = """
import warnings
warnings.simplefilter("error", UserWarning)
import torch
from tiny_tasks import BLOCK, CAUSAL
from dragoman.config import from_dict
from dragoman.data.labels import LabelledBatch
from dragoman.data.packing import IGNORE, TextBatch
from dragoman.data.tasks import ClassificationTask, LanguageModellingTask, MaskedLanguageModellingTask
from dragoman.model.families import ModelConfig
from dragoman.train.distributed.exchange import Exchange
from dragoman.train.distributed.launch import leave
from dragoman.train.distributed.micro_batch import split_between_processes, unsplit
from dragoman.train.distributed.parallel import Sharded
from dragoman.train.distributed.processes import join_group
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import AdamW

EXPERTS = {"kind": "mixture", "experts": 9, "active": 1, "expert": {"kind": "feed_forward", "hidden": 8}}
SHARED = {"kind": "shared_tower", "depth": 5, "groups": 2, "pattern": [BLOCK]}
READER = {"kind": "encoder", "dim": 8, "inputs": {"kind": "token_input", "vocab": 20}}
MODELS = {
    "experts": {"vocab": 20, "dim": 8, "decoder": {"depth": 2, "pattern": [CAUSAL | {"mlp": EXPERTS}]}},
    "shared weights": READER | {"tower": SHARED, "head": {"kind": "classification", "classes": 3}},
    "masked words": READER | {"tower": {"depth": 1, "pattern": [BLOCK]}, "head": "masked_language"},
}

def build(name, recompute):
    torch.manual_seed(1)
    model = from_dict(ModelConfig, MODELS[name]).build().double()
    for part in model.modules():
        if hasattr(part, "recompute"):
            part.recompute = recompute
    return model

def batches(name):
    draw = torch.Generator().manual_seed(2)
    for rows in (1, 3):
        ids = torch.randint(4, 20, (rows, 2), generator=draw)
        if name == "shared weights":
            yield LabelledBatch(ids, torch.arange(rows) % 3)
        else:
            yield TextBatch(ids, torch.where(torch.rand(ids.shape, generator=draw) < 0.8, ids.roll(1, 1), IGNORE), None)

TASKS = {"experts": LanguageModellingTask(), "shared weights": ClassificationTask(),
         "masked words": MaskedLanguageModellingTask()}
with join_group() as team:
    for name in MODELS:
        for recompute in (False, True):
            one, many = build(name, recompute), build(name, recompute)
            optimizers, exchange = [AdamW().build(one)], Sharded().build(team)
            exchange.place(many, torch.device("cpu"))
            optimizers.append(AdamW().build(many))
            progress = LoopProgress(), LoopProgress()
            for _ in range(2):
                found = []
                parts = unsplit(batches(name)), split_between_processes(list(batches(name)), team.count)[team.rank]
                for i, (model, way) in enumerate(((one, Exchange()), (many, exchange))):
                    rules = StepRules(seed=1, clip=0.5, exchange=way)
                    found.append(train_step(model, TASKS[name].loss, parts[i], optimizers[i], progress[i], lr=1e-3,
                                            rules=rules))
                torch.testing.assert_close(found[1].loss, found[0].loss)
                torch.testing.assert_close(found[1].grad_norm, found[0].grad_norm)
                for (path, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
                    assert (p.grad is None) == (q.grad is None), (name, path)
                    if p.grad is not None:
                        worst = (exchange.full(many, {"g": p.grad})["g"] - q.grad).abs().max()
                        assert worst < 1e-6, (name, path, worst)
                if name == "experts":
                    assert any(p.grad is None for p in one.parameters()), "some expert is idle in both"
            with torch.no_grad(), exchange.whole(many):
                assert torch.isfinite(TASKS[name].loss(many, parts[0][0].batch)[0])
leave(0)
"""


@pytest.mark.slow
def test_shards_of_experts_of_shared_weights_and_of_masked_words_learn_what_one_process_does():
    """An expert may be idle in one process, or in all of them."""
    both = TOGETHER.format(command=[sys.executable, "-c", SHARDED], codes=[0, 0])
    ended = forked.run([sys.executable, "-c", both], environment(), LONG)
    assert ended.returncode == 0, ended.stderr


# ---- runs -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the processes of a process")
def test_two_processes_heed_sigterm_and_one_goes_on(pairs, tmp_path):
    path = tmp_path / "run"
    longer = run_file(pairs, tmp_path, budget={"kind": "steps", "steps": 1_000_000}, report_every=1)
    with forked.Command(command("train", longer, "--run", path, "--processes", 2), environment()) as process:
        wait_for(lambda: (path / "last").exists(), process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONG)
    assert process.returncode == 130 and err == ""
    assert "2 processes" in out and "Stopped by SIGTERM, all is saved" in out
    assert f"dragoman train {path} --resume --processes 2" in out.replace("\n", "")
    step = RunDirectory.open(path).find("last").step
    more = [f"train.budget.steps={step + 2}"]
    assert list(resume(path, overrides=more).events())[-1].step == step + 2
    assert [row["step"] for row in rows(path / "metrics.jsonl") if row["kind"] == "train"] == list(range(1, step + 3))


@pytest.mark.slow
def test_two_processes_come_to_the_same_as_one(pairs, whole, tmp_path):
    """Here the two are new interpreters, in other tests of this file forks."""
    path = tmp_path / "run"
    words = command("train", run_file(pairs, tmp_path), "--run", path, "--processes", 2)
    ended = forked.run(words, environment(), LONG, fork_launched=False)
    assert ended.returncode == 0, ended.stderr
    equal_but_for_rounding(path, whole)


@pytest.mark.slow
def test_shards_begun_by_torchrun_go_on_in_one_process(pairs, tmp_path):
    path = tmp_path / "run"
    begun = run_file(pairs, tmp_path, parallel="sharded", budget={"kind": "steps", "steps": 6})
    arguments = ["--standalone", "--nproc-per-node", 2, "-m", "--", "dragoman", "train", begun, "--run", path]
    ended = subprocess.run(
        command(*arguments, module="torch.distributed.run"),
        env=environment(), capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads((path / "last" / "progress.json").read_text())["step"] == 6
    list(resume(path, overrides=["train.parallel=replicated", "train.budget.steps=12"]).events())
    assert RunDirectory.open(path).find("last").step == 12


# ---- ends -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the processes of a process")
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_is_killed_the_other_saves_and_says_how_to_go_on(victim, pairs, tmp_path):
    path = tmp_path / "run"
    forever = run_file(pairs, tmp_path, budget={"kind": "steps", "steps": 1_000_000}, report_every=1)
    with forked.Command(command("train", forever, "--run", path, "--processes", 2), environment()) as process:
        wait_for(lambda: (path / "last").exists(), process)
        os.kill(children(process)[victim], signal.SIGKILL)
        _, err = process.communicate(timeout=LONG)
    assert process.returncode == 2
    assert err.count("\n") == 1 and err.startswith("dragoman: one of 2 processes is gone")
    last = RunDirectory.open(path).find("last")
    assert f"{last.path.name} is good; to resume from there: dragoman train {path} --resume --processes 2" in err
    assert list(resume(path, overrides=[f"train.budget.steps={last.step + 1}"]).events())[-1].complete


@pytest.mark.slow
def test_a_mistake_is_told_once_and_ends_all(pairs, tmp_path):
    wrong = ["model.dim=9", "--run", tmp_path / "run"]
    ended = forked.run(command("train", run_file(pairs, tmp_path), "--processes", 2, *wrong), environment(), LONG)
    assert ended.returncode == 2 and not (tmp_path / "run").exists()
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("dragoman: model.")


@pytest.mark.slow
def test_processes_that_do_not_find_one_another_say_so(pairs, tmp_path):
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "DRAGOMAN_TIMEOUT": "2"}
    ended = forked.run(
        command("train", run_file(pairs, tmp_path), "--run", tmp_path / "run"), environment(**alone), LONG
    )
    assert ended.returncode == 2 and not (tmp_path / "run").exists()
    line = ended.stderr.strip().splitlines()[-1]
    assert line.startswith("dragoman: process 1 of 2 cannot find the others at 127.0.0.1:9 (")


def test_processes_killed_without_a_word_are_reported_by_their_signals():
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launch([sys.executable, "-S", "-c", kill], 2) == [-9, -9]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_death_of_any_process_is_noticed(victim, monkeypatch):
    """Of a later one as well, while the first is still at work."""
    monkeypatch.setattr(launching, "GRACE", 0.2)
    die = f"import os, time; os.environ['RANK'] == '{victim}' and os.kill(os.getpid(), 9); time.sleep(300)"
    assert launch([sys.executable, "-S", "-c", die], 3) == [-9 if i == victim else -15 for i in range(3)]


def test_who_waits_for_the_first_process_notices_its_death(monkeypatch, tmp_path):
    monkeypatch.setenv(launching.MEETING, str(tmp_path / "meeting"))
    group = ProcessGroup(SimpleNamespace(check=lambda keys: False), rank=1, count=2)
    launching.lost_mark(tmp_path / "meeting").touch()
    with pytest.raises(ProcessLost) as lost:
        group.wait_for("prepared")
    assert lost.value.reported_elsewhere and lost.value.exit_code == launching.LEFT, "the command reports it"


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (False, "killed: process 1 by SIGKILL. Nothing was learnt yet: run the same command again"),
        (
            True,
            "killed: process 1 by SIGKILL. What was saved is intact; to resume from there: "
            "dragoman train runs/a --resume --processes 2",
        ),
    ],
)
def test_what_was_killed_is_named_with_the_command_that_goes_on(saved, said, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_command, "launch", lambda command, count: [launching.LEFT, -9])
    Path("a.tsv").write_text("a\tb\n")
    if saved:
        Path("runs/a").mkdir(parents=True)
        Path("runs/a/config.yaml").touch()
    assert cli.main(["train", "--pairs", "a.tsv", "--processes", "2"]) == 2
    assert capsys.readouterr().err == f"dragoman: {said}\n"


@pytest.mark.parametrize("given", ["1m", "", "0", "-1", "nan", "inf", "1e300"])
def test_a_wrong_timeout_is_refused_before_anything_starts(given, monkeypatch):
    monkeypatch.setenv(launching.TIMEOUT, given)
    with pytest.raises(ConfigError, match=f"DRAGOMAN_TIMEOUT: '{given}' is no number of seconds up to 1,000,000: "):
        launch([sys.executable, "-c", "0"], 2)


def test_a_process_lost_before_the_first_checkpoint_leaves_what_can_be_resumed(tmp_path):
    group = ProcessGroup(None, rank=0, count=2)
    lost = TrainingFailure(group.process_lost_error, "step 10 is not finished", weights_valid=True)
    directory = SimpleNamespace(path=tmp_path, checkpoints=list)
    assert str(lost.to_error(directory, group)).endswith(
        f"Nothing was saved yet: to begin again with the prepared data: dragoman train {tmp_path} --resume"
    )


def test_shards_are_for_optimizers_that_take_each_weight_by_itself():
    for optimizer in (Adam(), AdamW(), Muon(), Adafactor()):
        check(Replicated(), optimizer, None)
    check(Sharded(), Adam(), None)
    for optimizer in (Muon(), Adafactor()):
        with pytest.raises(ConfigError, match=r"train\.parallel: sharded takes adam or adam_w; \w+ needs whole"):
            check(Sharded(), optimizer, None)


NOT_A_NUMBER = """
import sys
from dragoman.cli import command
from dragoman.data.tasks import TranslationTask
ask = TranslationTask.loss
TranslationTask.loss = lambda *given: (ask(*given)[0] * float("nan"), ask(*given)[1])
sys.argv[1:] = ["train", *sys.argv[1:]]
command()
"""


@pytest.mark.slow
def test_what_all_processes_come_to_is_said_by_one(pairs, tmp_path):
    file = run_file(pairs, tmp_path, give_up_after=2)
    command = [sys.executable, "-c", NOT_A_NUMBER, file, "--run", str(tmp_path / "run")]
    both = TOGETHER.format(command=command, codes=[2, 2])
    ended = forked.run([sys.executable, "-c", both], environment(), LONG)
    assert ended.returncode == 0, ended.stderr
    err = ended.stderr
    assert err.count("\n") == 1 and err.startswith("dragoman: step 2: loss nan")
