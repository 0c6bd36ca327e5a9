"""Studies: contestants and their sizes, a run that goes on where it stopped, what fails, and mistakes."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import tiny_run
import torch
from study_samples import STUDY

from dragoman.cli import compare as command
from dragoman.cli import main
from dragoman.compare.contestants import contestants_of, parse_vary
from dragoman.compare.figure import Figure
from dragoman.compare.matching import fit_widths
from dragoman.compare.measures import MEASURES
from dragoman.compare.results import read_results
from dragoman.compare.study import Match, Study, read_study, study_from
from dragoman.compare.study_request import StudyRequest, begun
from dragoman.compare.study_trial import StudyTrial
from dragoman.compare.tuning import RateTuning, TriedRate
from dragoman.config import dump_yaml, merge
from dragoman.plan.parameters import count_parameters
from dragoman.train.recipe import outline


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no machine stops here
    monkeypatch.setattr("dragoman.train.utilisation.measure", lambda *given: None)


def write(folder, **changes):
    """Write the sample study with changes, and return its path."""
    path = folder / "widths.yaml"
    path.write_text(dump_yaml(copy.deepcopy(STUDY) | changes))
    return str(path)


def run(folder, *words, **changes):
    return main(["compare", write(folder, **changes), "--output", str(folder / "out"), *words])


def found(folder):
    return read_results(folder / "out" / "results.json")


ONCE = {"seeds": 1, "intervals": False}
"""One training of each contestant."""


# ---- contestants ----------------------------------------------------------------------------------


def contestants(tmp_path, **changes):
    given = {key: value for key, value in STUDY.items() if not ("vary" in changes and key == "contestants")}
    return contestants_of(study_from(merge(given, changes)), tmp_path)


def test_a_contestant_differs_from_the_base_in_what_it_names(tmp_path):
    narrow, wide = contestants(tmp_path)
    assert narrow.cfg.model.decoder.pattern[0].mlp.hidden == 8 and wide.cfg.model.decoder.pattern[0].mlp.hidden == 384
    assert wide.cfg.train.schedule.peak == 0.01 and narrow.cfg.model.dim == wide.cfg.model.dim == 8


def test_a_base_may_be_a_run_file_with_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text(dump_yaml(STUDY["base"]))
    for base, dim in (("mine.yaml", STUDY["base"]["model"]["dim"]), ({"run": "mine.yaml", "model": {"dim": 24}}, 24)):
        (tmp_path / "study.yaml").write_text(dump_yaml(STUDY | {"base": base}))
        read = read_study(str(tmp_path / "study.yaml")).base
        assert read == merge(STUDY["base"], {"model": {"dim": dim}})


def test_a_preset_brings_its_model_and_rate_and_leaves_text_and_batches(tmp_path):
    lstm = contestants(tmp_path, contestants={"lstm": {"preset": "lstm-luong", "model.dim": 16}})[-1].cfg
    assert lstm.model.kind == "recurrent" and lstm.model.dim == 16
    assert lstm.train.batch_tokens == 400 and lstm.tokenizer.kind == "bytes" and lstm.train.schedule.peak == 2e-3


def test_values_make_a_grid(tmp_path):
    vary = {"model.decoder.depth": [1, 2], "model.*.pattern.*.mixer.position": ["rotary", {"kind": "alibi"}]}
    names = [one.name for one in contestants(tmp_path, vary=vary)]
    assert names == ["depth 1, rotary", "depth 1, alibi", "depth 2, rotary", "depth 2, alibi"]


def test_values_on_the_command_line_are_yaml():
    vary = parse_vary(["a.b=8,4", "c={kind: rotary, theta: 5},alibi", "d=null,true"])
    assert vary == {"a.b": (8, 4), "c": ({"kind": "rotary", "theta": 5}, "alibi"), "d": (None, True)}


def test_measures_of_a_contestant_have_its_own_settings(tmp_path):
    many = {"narrow": {"measures.translation.beam": 3}}
    narrow, wide = contestants(tmp_path, measures={"translation": {"beam": 2}}, contestants=many)
    assert narrow.measures == {"translation": {"beam": 3}} and wide.measures == {"translation": {"beam": 2}}


# ---- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["model.*.pattern.*.mlp.hidden", "model.dim"])
def test_widths_are_fitted_to_equal_parameters(by, tmp_path):
    cfg = contestants(tmp_path)[1].cfg
    wanted = 60_000
    fitted, matched = fit_widths(
        cfg,
        Match(hold="parameters", by=(by,), within=0.1, multiple=4),
        wanted,
        lambda one: count_parameters(outline(one)).total,
    )
    assert count_parameters(outline(fitted)).total == matched.found
    assert abs(matched.found / wanted - 1) <= 0.1 and matched.off == matched.found / wanted - 1
    assert matched.widths and all(width % 4 == 0 for width in matched.widths.values())


def test_a_study_says_how_closely_it_matches(tmp_path):
    match = {"hold": "flops", "by": ["model.*.pattern.*.mlp.hidden"], "to": "wide", "within": 0.1}
    assert run(tmp_path, match=match, **ONCE) == 0
    narrow, wide = found(tmp_path)["contestants"]
    assert abs(narrow["flops_per_step"] / wide["flops_per_step"] - 1) == pytest.approx(abs(narrow["match"]["off"]))
    assert wide["match"]["widths"] == {} and narrow["match"]["widths"]
    assert any("equal flops" in note for note in found(tmp_path)["fair"])


def test_equal_operations_are_more_steps_for_the_cheaper_one(tmp_path):
    each = {"narrow": {"model.dim": 8}, "wide": {"model.dim": 24}}
    assert run(tmp_path, contestants=each, budget={"flops": 2e8}, **ONCE) == 0
    narrow, wide = found(tmp_path)["contestants"]
    assert narrow["steps"] > wide["steps"] >= 1
    for one in (narrow, wide):
        assert one["steps"] * one["flops_per_step"] <= 2e8 < (one["steps"] + 1) * one["flops_per_step"]


# ---- a study --------------------------------------------------------------------------------------


def test_a_study_goes_on_where_it_stopped_and_refuses_to_be_changed(tmp_path, capsys, monkeypatch):
    real, asked = StudyTrial._train, []

    def interrupted(trial):
        for event in real(trial):
            yield event
            if trial.contestant == "wide" and not asked:
                asked.append(event)
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["dragoman", "compare", "my study.yaml", "-o", str(tmp_path), "--seeds", "2"])
    with monkeypatch.context() as patch:
        patch.setattr(StudyTrial, "_train", interrupted)
        assert run(tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().out
    first = tmp_path / "out" / "trials" / "narrow" / "seed-1.json"
    stamp = first.stat().st_mtime_ns
    assert run(tmp_path) == 0
    assert "4 trials, 1 of them done before" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == stamp
    assert not list((tmp_path / "out" / "trials").glob("*/*/checkpoints"))
    whole = found(tmp_path)
    assert len(whole["runs"]) == 4 and whole["command"] == "dragoman compare 'my study.yaml' --seeds 2"
    assert [one["figure"] for one in whole["verdicts"]] == ["validation loss"]
    assert (tmp_path / "out" / "report.html").stat().st_size < 3e6
    json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert run(tmp_path, budget={"steps": 3}) == 2
    assert "begun with other settings: budget.steps was 2, is now 3" in capsys.readouterr().err
    assert run(tmp_path, title="Other words") == 0
    begun = json.loads((tmp_path / "out" / "study.json").read_text())
    earlier = dict.fromkeys(("epochs", "tokens", "flops", "minutes")) | {"kind": "training_length", "steps": 2}
    (tmp_path / "out" / "study.json").write_text(json.dumps(begun | {"asked": begun["asked"] | {"budget": earlier}}))
    assert run(tmp_path) == 0  # one that an earlier version began goes on
    assert run(tmp_path, "--seeds", "3") == 0 and len(found(tmp_path)["runs"]) == 6


def test_a_study_that_was_begun_with_earlier_names_of_settings_goes_on(tmp_path):
    optimizer = {"kind": "adam_w", "weight_decay": 0.1}
    each = {"a": {"train.optimizer": optimizer}, "b": {"train.optimizer.weight_decay": 0.2}}
    vary = {"train.optimizer.weight_decay": (0.1, 0.3)}
    study = Study(title="t", base={"train": {"optimizer": optimizer}}, contestants=each, vary=vary)
    request = StudyRequest(study, "s", "small")
    earlier = json.dumps({"asked": request.lasting(), "measured": {}}).replace("weight_decay", "decay")
    (tmp_path / "study.json").write_text(earlier)
    assert begun(request, tmp_path)


def test_a_run_that_diverges_is_marked_and_the_rest_is_finished(tmp_path, capsys):
    each = {"sane": {}, "wild": {"train.schedule": {"kind": "constant", "peak": 1e30}, "train.give_up_after": 1}}
    assert run(tmp_path, contestants=each, budget={"steps": 6}) == 3
    whole = found(tmp_path)
    assert {one["contestant"] for one in whole["failed"]} == {"wild"} and len(whole["failed"]) == 2
    assert all(one["why"] for one in whole["failed"])
    assert whole["figures"]["validation loss"]["values"].keys() == {"sane"}
    assert whole["figures"]["finished"]["values"]["wild"]["mean"] == 0
    assert "did not finish" in capsys.readouterr().out
    assert "cannot be compared" in whole["verdicts"][0]["words"]


@pytest.mark.parametrize("judge", [["of words"], ["loss"], []])
def test_a_figure_that_is_not_finite_is_left_out_and_told(judge, tmp_path, capsys, monkeypatch):
    def measured(subject):
        wide = subject.contestant == "wide"
        figure = Figure(math.inf if wide or judge == ["of words"] else 2.0, resampled=(2.0, 3.0))
        return {"of words": figure, "loss": Figure(1.0), "drawn": Figure(1.0, resampled=(1.0, math.nan))}

    monkeypatch.setitem(MEASURES, "loss", measured)
    assert run(tmp_path, judge=judge) == 0
    whole = found(tmp_path)
    assert "loss" in whole["figures"] and "drawn" not in whole["figures"]
    assert all({"of words", "drawn"} == set(one["left_out"]) for one in whole["runs"] if one["contestant"] == "wide")
    assert "of words not finite, left out" in " ".join(capsys.readouterr().out.split())
    assert "not finite numbers" in (tmp_path / "out" / "report.html").read_text()
    assert run(tmp_path, judge=judge) == 0, "it is finished"


def test_rates_are_tuned_for_each_contestant_and_the_curve_is_kept(tmp_path):
    tuning = {"factors": [0.1, 1], "steps": 2}
    assert run(tmp_path, tuning=tuning, **ONCE) == 0
    for one in found(tmp_path)["contestants"]:
        tried = one["tuning"]["tried"]
        assert [t["factor"] for t in tried[:2]] == [0.1, 1] and all(t["loss"] for t in tried)
        assert one["tuning"]["chosen"] == min(tried, key=lambda t: t["loss"])
        assert len(tried) == 4 or not one["tuning"]["at_edge"], "the search goes on beyond an edge, twice at most"
    assert "Learning rates are tuned" in " ".join(found(tmp_path)["fair"])


def test_rates_tuned_over_whole_trainings_are_those_of_the_first_seed(tmp_path, monkeypatch):
    learned = list[Path]()
    train = StudyTrial._train
    monkeypatch.setattr(StudyTrial, "_train", lambda trial: (learned.append(trial.path), train(trial))[1])
    assert run(tmp_path, tuning={"factors": [1, 10]}, **ONCE | {"seeds": 2}) == 0
    study = found(tmp_path)
    for one in study["contestants"]:
        folder = tmp_path / "out" / "tuning" / one["name"]
        chosen = one["tuning"]["chosen"]
        first = next(each for each in study["runs"] if each["contestant"] == one["name"] and each["seed"] == 1)
        assert first["figures"]["validation loss"] == chosen["loss"], "it is the same training"
        assert not list(folder.glob("*/checkpoints")), "nothing is left of the others, nor of it once it is measured"
        assert learned.count(folder / f"{chosen['factor']:g}") == 2, "trained once and then found finished"
    assert "the best of which is that with seed 1" in " ".join(study["fair"])
    before = len(learned)
    assert run(tmp_path, tuning={"factors": [1, 10]}, **ONCE | {"seeds": 2}) == 0 and len(learned) == before


@pytest.mark.parametrize(
    ("losses", "beyond"),
    [
        ({0.3: 5.0, 1: 4.0, 3: 3.0}, 9),
        ({0.3: 3.0, 1: 4.0, 3: 5.0}, 0.09),
        ({0.3: 5.0, 1: 4.0, 3: 4.5}, None),
        ({0.3: 5.0, 1: 4.0, 3: None}, None),
        ({0.3: None, 1: None, 3: None}, 0.09),
        ({1: 4.0}, None),
        ({1: 5.0, 1.0000001: 4.0}, None),
    ],
)
def test_a_best_rate_at_an_edge_is_searched_beyond(losses, beyond):
    tuning = RateTuning("train.schedule.peak", [TriedRate(factor, factor, loss) for factor, loss in losses.items()])
    assert tuning.beyond() == pytest.approx(beyond)


def test_contestants_that_differ_in_measures_alone_share_their_trainings(tmp_path):
    each = {f"beam {beam}": {"measures.translation.beam": beam} for beam in (1, 2)}
    assert run(tmp_path, "--keep-runs", contestants=each, measures={"translation": {"sentences": 2}}, **ONCE) == 0
    assert len(list((tmp_path / "out" / "trials").glob("*/*/checkpoints"))) == 1
    assert len(found(tmp_path)["runs"]) == 2 and "curve" in found(tmp_path)["figures"]["BLEU"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The figures of a study in one process."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dragoman.train.utilisation.measure", lambda *given: None)
        assert run(folder, **ONCE) == 0
    return found(folder)["figures"]


@pytest.mark.slow
def test_on_a_ray_cluster_a_study_stops_goes_on_and_comes_to_the_same_figures(alone, tmp_path):
    """In a process of its own, for Ray warns here and there, and warnings are errors here."""
    study, out = write(tmp_path, **ONCE), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "dragoman",
        "compare",
        study,
        "--output",
        str(out),
        "--ray",
        "local",
        "--processes",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while process.poll() is None and not list(out.glob("trials/*/*/metrics.jsonl")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on" in said, said
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path)["figures"]["validation loss"]["values"] == alone["validation loss"]["values"]


def test_an_address_where_no_cluster_answers_is_named(tmp_path, capsys):
    assert run(tmp_path, "--ray", "127.0.0.1:1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("dragoman: --ray 127.0.0.1:1: no cluster answers there")
    assert run(tmp_path, "--ray", "") == 2 and "--ray: an empty address" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_come_to_the_same_figures(alone, tmp_path, monkeypatch):
    monkeypatch.setattr("dragoman.compare.workers.multiprocessing.get_context", lambda way: forked.server())
    assert run(tmp_path, "--processes", "2", **ONCE) == 0
    assert found(tmp_path)["figures"]["validation loss"]["values"] == alone["validation loss"]["values"]


def test_a_run_file_is_compared_with_itself_in_several_settings(tmp_path, capsys):
    pairs = tiny_run.write_pairs(tmp_path / "pairs.tsv", 60)
    base = merge(STUDY["base"], {"train": {"budget": {"kind": "steps", "steps": 2}}})
    (tmp_path / "base.yaml").write_text(dump_yaml(base))
    vary = [
        "--vary",
        "model.decoder.pattern.*.mixer.kv_heads=2,1",
        "--seeds",
        "2",
        "--measure",
        "loss",
        "--match",
        "parameters=model.*.pattern.*.mlp.hidden",
    ]
    words = ["compare", str(tmp_path / "base.yaml"), *vary, "--output", str(tmp_path / "out")]
    data = ["--data", str(pairs)]
    assert main(words) == 2 and "data: must be given" in capsys.readouterr().err
    assert main([*words, *data]) == 0
    assert [one["name"] for one in found(tmp_path)["contestants"]] == ["kv_heads 2", "kv_heads 1"]


def test_values_take_the_place_of_a_studys_contestants_in_any_size(tmp_path):
    sizes = {"toy": {"budget": {"steps": 1}, "only": ["narrow"], **ONCE}}
    vary = ["--vary", "model.decoder.depth=1,2", "--size", "toy"]
    assert run(tmp_path, *vary, sizes=sizes, budget={"steps": 10**9}, against="wide") == 0
    assert [(one["name"], one["steps"]) for one in found(tmp_path)["contestants"]] == [("depth 1", 1), ("depth 2", 1)]


def test_a_studys_values_may_be_replaced_where_its_base_is_a_run_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(dump_yaml(STUDY["base"]))
    assert run(tmp_path, "--vary", "model.decoder.depth=1,2", base="mine.yaml", **ONCE) == 0
    assert [one["name"] for one in found(tmp_path)["contestants"]] == ["depth 1", "depth 2"]


def test_a_time_for_the_whole_study_shortens_all_trainings_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dragoman.train.prediction.RunCounter.predict", lambda counter: type("P", (), {"step_seconds": 1.0})
    )
    monkeypatch.setattr(command.sys, "argv", ["dragoman", "compare", "widths.yaml", "--budget", "15s"])
    assert run(tmp_path, "--budget", "15s", budget={"steps": 100}) == 0
    assert [one["steps"] for one in found(tmp_path)["contestants"]] == [3, 3]  # 4 trainings x 3 s, and a quarter more
    assert found(tmp_path)["command"] == "dragoman compare widths.yaml --budget 15s"
    monkeypatch.setattr("dragoman.train.prediction.RunCounter.predict", lambda counter: pytest.fail("as it began"))
    assert run(tmp_path, "--budget", "15s", "--seeds", "3", budget={"steps": 100}) == 0
    assert {run["steps"] for run in found(tmp_path)["runs"]} == {3} and len(found(tmp_path)["runs"]) == 6


def test_equal_times_are_as_many_steps_as_each_can_make(tmp_path):
    assert run(tmp_path, budget={"minutes": 0.005}, **ONCE) == 0
    whole = found(tmp_path)
    assert [one["steps"] for one in whole["contestants"]] == [None, None]
    assert all(run["steps"] >= 1 and run["finished"] and run["curve"]["loss"] for run in whole["runs"])


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800)])
def test_a_time_is_read(text, seconds):
    assert command.parse_time(text) == seconds


def test_a_study_is_called_as_its_file(tmp_path, monkeypatch):
    (tmp_path / "my-run").mkdir()
    monkeypatch.chdir(tmp_path / "my-run")
    named = {
        "positions": "positions",
        "studies/a.yaml": "a",
        "run.v1.yaml": "run.v1",
        "run.v2.yml": "run.v2",
        ".": "my-run",
    }
    assert {given: command._study_name(given) for given in named} == named


def test_a_plan_says_what_a_study_costs_and_begins_nothing(tmp_path, capsys):
    assert run(tmp_path, "--plan") == 0
    out = capsys.readouterr().out
    assert "narrow" in out and "4 trainings: about " in out and "parameters" in out
    assert not (tmp_path / "out").exists()


def test_the_list_names_every_study(capsys):
    from dragoman.compare.study import shipped

    assert main(["compare", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name[:8] in out for name in shipped())


# ---- mistakes -------------------------------------------------------------------------------------

MISTAKES = {
    "unknown path": (
        {"contestants": {"a": {}, "b": {"model.decoder.depht": 2}}},
        [],
        "contestants.b: model.decoder: no 'depht' here. Did you mean 'depth'?",
    ),
    "unknown value": (
        {"contestants": {"a": {}, "b": {"model.*.pattern.*.mixer.position": "rotery"}}},
        [],
        "no 'rotery' here. Did you mean 'rotary'?",
    ),
    "no match": (
        {"match": {"hold": "parameters", "by": ["model.*.pattern.*.mlp.hidden"], "to": 5e8, "within": 0.01}},
        [],
        "contestants.narrow: match: cannot be matched: ",
    ),
    "nothing to scale": (
        {"match": {"hold": "parameters", "by": ["model.encoder.width"], "to": "wide"}},
        [],
        "match.by: the model has no model.encoder.width",
    ),
    "no such contestant to match": (
        {"match": {"hold": "parameters", "by": ["model.dim"], "to": "wider"}},
        [],
        "contestants: no 'wider' here. Did you mean 'wide'?",
    ),
    "one seed": ({"seeds": 1}, [], "seeds: 1, and an interval needs two or more"),
    "one seed by option": ({}, ["--seeds", "1"], "seeds: 1, and an interval needs two or more"),
    "one contestant": ({"contestants": {"a": {}}}, [], "contestants: a alone: a comparison needs two or more"),
    "no length": ({"budget": {}}, [], "budget: give one of steps"),
    "two lengths": ({"budget": {"steps": 2, "epochs": 1}}, [], "budget: give one of steps"),
    "a kind that contradicts": (
        {"budget": {"kind": "epochs", "steps": 2}},
        [],
        "budget: kind: epochs does not go with steps",
    ),
    "no such length": ({"budget": {"step": 2}}, [], "budget: no 'step' here. Did you mean 'steps'?"),
    "part of a step": ({"budget": {"steps": 2.5}}, [], "budget.steps: expected a whole number"),
    "another length by option": ({"budget": {"steps": 2}}, ["budget.minutes=1"], "not steps and minutes"),
    "too short": ({"budget": {"flops": 10}}, [], "budget.flops: 10 is less than one step of narrow"),
    "no measure": ({"measures": ["los"]}, [], "measures: no 'los' here. Did you mean 'loss'?"),
    "no setting": ({"measures": {"translation": {"beem": 2}}}, [], "no 'beem' here. Did you mean 'beam'?"),
    "a setting of another type": (
        {"measures": {"translation": {"beam": "x"}}},
        [],
        "measures.translation.beam: expected a whole number, got 'x'",
    ),
    "a count below 1": ({"measures": {"translation": {"sentences": -3}}}, [], "sentences: must be greater than 0"),
    "a setting that is missing": ({"measures": ["steps_to_loss"]}, [], "measures.steps_to_loss.loss: must be given"),
    "a contestant's setting": (
        {"contestants": {"a": {}, "b": {"measures.loss.beam": 1}}},
        ["--plan"],
        "contestants.b: measures.loss: no 'beam' here",
    ),
    "no run file": ({"base": "nowhere.yaml"}, [], "nowhere.yaml: no such file"),
    "no path of a run file": ({"base": {"run": 5}}, [], "base.run: 5 is not the path of a run file"),
    "a study as the run file": ({"base": {"run": "widths.yaml"}}, [], "widths.yaml: no run file"),
    "no figure": ({"judge": ["BLUE"]}, [], "judge: no measure gives 'BLUE'"),
    "no data set": ({"data": "copi"}, [], "data: no 'copi' here. Did you mean 'copy'?"),
    "a data set's setting": (
        {"data": {"kind": "copy", "pairs": "abc"}},
        [],
        "data.copy.pairs: expected a whole number",
    ),
    "no pairs": ({"data": {"kind": "copy", "pairs": 0}}, [], "data.copy.pairs: must be greater than 0"),
    "more keys than letters": ({"data": {"kind": "recall", "pairs": 30}}, [], "data.recall.pairs: must be less than"),
    "all symbols again": (
        {"data": {"kind": "induction", "length": 8, "repeated": 8}},
        [],
        "data.induction.repeated: 8 must be less than the length, 8",
    ),
    "more symbols than places": (
        {"data": {"kind": "selective_copy", "symbols": 9, "length": 8}},
        [],
        "data.selective_copy.symbols: 9 have no place in a length of 8",
    ),
    "data not here": ({"data": "multi30k"}, [], "multi30k: no such folder here"),
    "no file": ({}, ["--data", "nowhere.tsv"], "nowhere.tsv"),
    "no size": ({}, ["--size", "large"], "has no size large"),
    "unknown size": ({}, ["--size", "huge"], "--size: no 'huge' here"),
    "no time": ({}, ["--budget", "soon"], "--budget soon: write a time such as 30m"),
    "unknown key": ({"seed": 2}, [], "no 'seed' here. Did you mean 'seeds'?"),
    "no rate": ({"tuning": {"steps": 2, "path": "train.rate"}}, [], "tuning.path: narrow has no number train.rate"),
    "no values": ({}, ["--vary", "model.dim"], "--vary model.dim: write PATH=VALUE,VALUE"),
    "no width": ({}, ["--match", "parameters"], "--match parameters: write parameters=PATH"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, tmp_path, capsys, monkeypatch):
    changes, words, says = MISTAKES[name]
    monkeypatch.delenv("DRAGOMAN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *words, **changes) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("dragoman: ") and error.count("\n") == 1, error


def test_what_is_no_study_is_left_alone(tmp_path, capsys):
    assert main(["compare", write(tmp_path), "--output", str(tmp_path)]) == 2
    assert "exists and is not a study: choose another --output" in capsys.readouterr().err
    assert main(["compare", "posisions"]) == 2 and "no 'posisions' here" in capsys.readouterr().err
    assert main(["compare"]) == 2 and "name a study or a run file" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("preset: transformer-tiny\n")
    assert main(["compare", str(tmp_path / "run.yaml")]) == 2
    assert "no study: it has neither contestants nor vary; to compare run files, give --vary" in capsys.readouterr().err
