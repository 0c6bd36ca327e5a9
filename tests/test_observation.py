"""What watches a run: a profile, TensorBoard, the choice of the best checkpoint. None of it changes what is learned."""

import builtins
import json
import re

import pytest
import tiny_run
from tiny_run import outcome, rows

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.errors import CheckpointError, ConfigError
from dragoman.train.events import Finished, Notice, Validated
from dragoman.train.profile import Profile
from dragoman.train.run import resume, start
from dragoman.train.tensorboard import TensorBoardWriter

SCORED = {"scored": 10, "best_by": "chrF"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, list(start(tiny_run.config(pairs, **SCORED), path).events())


def scalars(folder):
    pytest.importorskip("tensorboard", reason="an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


# ---- the best checkpoint --------------------------------------------------------------------------


def test_the_best_checkpoint_is_the_one_with_the_best_score_asked_for(whole):
    path, events = whole
    seen = [event for event in events if isinstance(event, Validated)]
    assert len(seen) == 3 and all(event.cost == 1 - event.scores["chrF"] / 100 for event in seen)
    best = max(seen, key=lambda event: event.scores["chrF"])
    assert RunDirectory.open(path).find("best").step == best.step
    assert [event.best for event in seen] == [
        e.cost < min([float("inf"), *(f.cost for f in seen[:i])]) for i, e in enumerate(seen)
    ]


def test_patience_counts_by_the_same_score(pairs, tmp_path):
    still = {"kind": "constant", "peak": 1e-12}
    cfg = tiny_run.config(pairs, **SCORED, schedule=still, patience=1, average=None)
    events = list(start(cfg, tmp_path / "run").events())
    assert isinstance(events[-1], Finished) and events[-1].step == 8 and "since step 4" in events[-1].reason


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"best_by": "BLUE", "scored": 5}, r"train\.best_by: no 'BLUE' here\. Did you mean 'BLEU'\? Known: loss, BLEU"),
        ({"best_by": "accuracy"}, r"train\.best_by: no 'accuracy' here"),
        ({"best_by": "BLEU"}, r"train\.best_by: BLEU is of translations: set train\.scored"),
    ],
)
def test_a_figure_that_is_not_there_cannot_choose(pairs, tmp_path, train, says):
    with pytest.raises(ConfigError, match=says):
        start(tiny_run.config(pairs, **train), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_figure_in_the_middle_of_a_run_starts_choosing_anew(pairs, tmp_path):
    path = tmp_path / "run"
    list(start(tiny_run.config(pairs, scored=10), path).events())
    more = ["train.best_by=chrF", "train.budget.steps=16"]
    with pytest.raises(CheckpointError, match="--deliberate"):
        resume(path, overrides=more)
    seen = [e for e in resume(path, overrides=more, deliberate=True).events() if isinstance(e, Validated)]
    assert [event.best for event in seen] == [True]
    with pytest.raises(ConfigError, match=r"train\.best_by"):
        resume(path, overrides=["train.best_by=nothing"], deliberate=True)


# ---- a profile ------------------------------------------------------------------------------------


def test_a_profile_names_the_five_operators_that_take_longest_and_leaves_a_trace(whole, pairs, tmp_path):
    run = start(tiny_run.config(pairs, **SCORED), tmp_path / "run")
    run.profile = Profile(run.directory.path, skip=2, steps=3)
    said = [event.text for event in run.events() if isinstance(event, Notice)]
    begin = next(i for i, text in enumerate(said) if text.startswith("profile of 3 steps"))
    shares = [
        float(re.match(r" +([\d.]+)%  \S.*, [\d,]+ times a step", text)[1]) for text in said[begin + 1 : begin + 6]
    ]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100  # how much depends on the load
    assert len(json.loads((tmp_path / "run" / "profile.json").read_text())["traceEvents"]) > 1000
    assert outcome(tmp_path / "run") == outcome(whole[0])


def test_a_run_too_short_for_a_profile_says_so(pairs, tmp_path):
    run = start(tiny_run.config(pairs), tmp_path / "run")
    run.profile = Profile(run.directory.path)
    said = [event.text for event in run.events() if isinstance(event, Notice)]
    assert said[-1] == "no profile: it takes 15 steps, and the run made 12"


# ---- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_shows_what_the_journal_says(whole, tmp_path):
    pytest.importorskip("tensorboard", reason="an extra")
    path, events = whole
    board = TensorBoardWriter(tmp_path)
    for event in events:
        board.show(event)
    shown = scalars(tmp_path / "tensorboard")
    for row in rows(path / "metrics.jsonl"):
        names = {"train": ("training", "loss"), "valid": ("validation", "loss")}[row["kind"]]
        assert (row["step"], pytest.approx(row["loss"], rel=1e-6)) in shown["/".join(names)]
    assert {"training/learning rate", "training/gradient norm", "training/padding share", "validation/chrF"} <= set(
        shown
    )
    assert [step for step, _ in shown["training/loss"]] == [2, 4, 6, 8, 10, 12]


def test_what_a_resumed_run_repeats_is_shown_once(pairs, tmp_path):
    pytest.importorskip("tensorboard", reason="an extra")
    path = tmp_path / "run"
    for run, count in ((start(tiny_run.config(pairs), path), 13), (None, 1000)):
        board, events = TensorBoardWriter(path), (run or resume(path)).events()
        for event, _ in zip(events, range(count), strict=False):
            board.show(event)
        events.close()
        board.writer.close()
    steps = [step for step, _ in scalars(path / "tensorboard")["training/loss"]]
    assert steps == [2, 4, 6, 8, 10, 12]


def test_tensorboard_that_is_missing_is_told_before_anything_is_begun(pairs, tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def missing(name, *given):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["train", "--pairs", str(pairs), "--run", str(tmp_path / "run"), "--tensorboard"]) == 2
    assert (
        capsys.readouterr().err
        == "dragoman: TensorBoard is not installed: pip install tensorboard (the extra tensorboard)\n"
    )
    assert not (tmp_path / "run").exists()
