"""dragoman plan: what it prints, as a table and as an object, and the mistakes that it names."""

import dataclasses
import inspect
import json
from xml.etree import ElementTree

import pytest
import tiny_run
import yaml

from dragoman.cli import main, plan_numbers
from dragoman.cli.plan import plan
from dragoman.cli.plan_counted import USUAL_MFU, PlanOptions, plan_training
from dragoman.cli.plan_questions import FIT, LAWS, OPTIONS, RECONCILE, SERVE, SETTINGS, TRAINING
from dragoman.cli.plan_subject import find_subject
from dragoman.config import from_dict
from dragoman.model.caches.cache import parse_cache
from dragoman.model.families import ModelConfig
from dragoman.plan.hardware import HARDWARE
from dragoman.plan.plot import Axis, line_chart
from dragoman.presets import PRESETS


def run(capsys, *arguments):
    code = main(["plan", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def planned(capsys, *arguments):
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


# ---- training -----------------------------------------------------------------------------------------


def test_a_plan_tells_parameters_work_and_memory(capsys):
    found = planned(capsys, "lm-tiny", "--length", "32", "--batch-tokens", "64")
    cfg = from_dict(ModelConfig, PRESETS["lm-tiny"]()["model"]).sized(vocab=1000)
    assert found["parameters"]["total"] == sum(found["parameters"]["by_part"].values())
    assert found["batch"] == {"rows": 2, "length": 32, "accumulate": 1, "tokens": 64}
    assert found["memory"]["weights"] >= 4 * found["parameters"]["hidden"]
    assert found["memory"]["optimizer"] == pytest.approx(2 * found["memory"]["weights"], rel=0.1)
    assert sum(found["memory"][part] for part in found["memory"] if part != "total") == found["memory"]["total"]
    flops = found["flops"]
    assert flops["forward"] + flops["backward"] == sum(flops["by_part"].values()) == 64 * flops["per_token"]
    assert cfg.dim


def test_the_table_has_a_bar_for_each_part(capsys):
    code, out, _ = run(capsys, "lm-tiny", "--length", "16", "--batch-tokens", "16")
    assert code == 0
    for words in ("parameters", "work for a token", "memory of training", "feed-forward", "optimizer state", "█"):
        assert words in out


def test_a_setting_changes_the_plan(capsys):
    small, large = (
        planned(capsys, "lm-tiny", f"model.decoder.depth={depth}", "--length", "16", "--batch-tokens", "16")
        for depth in (2, 4)
    )
    assert large["parameters"]["hidden"] > 1.9 * small["parameters"]["hidden"]
    again = planned(capsys, "lm-tiny", "train.recompute=true", "--length", "16", "--batch-tokens", "16")
    assert again["flops"]["recomputed"] > 0 == small["flops"]["recomputed"]


def test_a_step_of_many_micro_batches_is_one_update_and_the_work_of_each(capsys):
    options = ("lm-tiny", "--length", "16", "--batch-tokens", "16", "--hardware", "h100")
    one, two, eight = (planned(capsys, *options, f"train.accumulate={k}") for k in (1, 2, 8))
    assert eight["batch"] == {"rows": 1, "length": 16, "accumulate": 8, "tokens": 8 * 16}
    assert eight["flops"]["forward"] == 8 * one["flops"]["forward"]
    assert eight["flops"]["backward"] == 8 * one["flops"]["backward"]
    assert eight["flops"]["per_token"] == one["flops"]["per_token"]
    another = two["step_seconds"] - one["step_seconds"]
    assert another > 0
    assert eight["step_seconds"] == pytest.approx(one["step_seconds"] + 7 * another)
    assert eight["memory"] == two["memory"]


def test_a_budget_of_tokens_is_work_by_each_formula(capsys):
    found = planned(capsys, "lm-tiny", "--tokens", "1M", "--length", "16", "--batch-tokens", "16")
    total = found["parameters"]["total"]
    assert found["budget"]["flops"]["6ND"] == 6 * total * 1e6
    assert found["budget"]["flops"]["8ND"] == 8 * total * 1e6
    assert found["budget"]["flops"]["counted"] == found["flops"]["per_token"] * 1e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    tiny_run.write_pairs(folder / "pairs.tsv")
    return folder


def run_file(folder, **changes):
    data = {"train": [{"kind": "table", "path": str(folder / "pairs.tsv")}]}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"preset": "transformer-tiny", "data": data} | changes))
    return str(path)


def test_a_run_file_is_planned_without_its_text(capsys, folder):
    found = planned(capsys, run_file(folder, train={"batch_tokens": 64}), "--length", "16")
    assert found["batch"] == {"rows": 4, "length": 16, "accumulate": 1, "tokens": 64}


@pytest.mark.parametrize(
    "name", ["classifier-tiny", "tagger-small", "reader-small", "clip-tiny", "bert-base", "lstm-luong"]
)
def test_every_kind_of_model_is_planned(capsys, name):
    found = planned(capsys, name, "--length", "16", "--batch-tokens", "32")
    assert found["parameters"]["total"] and found["memory"]["activations"] + found["memory"]["workspace"]


# ---- serving ------------------------------------------------------------------------------------------


def test_serving_holds_weights_cache_and_workspace(capsys):
    found = planned(capsys, "lm-tiny", "--serve", "--users", "4", "--context", "32")
    memory = found["memory"]
    assert memory["total"] == memory["weights"] + memory["cache"] + memory["workspace"]
    assert memory["weights"] == pytest.approx(2 * found["parameters"]["total"], rel=0.01)


def test_beams_and_users_are_rows_of_the_cache(capsys):
    options = ("lm-tiny", "--serve", "--context", "33", "--cache", "growing")
    one, beams, users = (
        planned(capsys, *options, *more)["memory"]["cache"] for more in ((), ("--beams", "4"), ("--users", "4"))
    )
    assert 3.5 * one <= beams <= users <= 4 * one


def test_a_cache_of_whole_numbers_is_about_half_of_one_in_16_bits(capsys):
    options = ("lm-tiny", "--serve", "--users", "4", "--context", "48", "--cache")
    plain, int8 = (planned(capsys, *options, cache)["memory"]["cache"] for cache in ("growing", "growing+int8"))
    assert 0.5 * plain < int8 < 0.65 * plain
    assert str(parse_cache("growing+int8"))


def test_the_table_of_a_server_names_its_parts(capsys):
    code, out, _ = run(capsys, "transformer-tiny", "--serve", "--users", "2", "--context", "8")
    assert code == 0
    for words in ("memory of serving", "weights", "cache", "work:"):
        assert words in out


def test_decoding_is_no_faster_than_its_weights_and_its_cache_are_read(capsys):
    options = ("lm-tiny", "model.dim=8192", "--serve", "--users", "2", "--context", "32", "--hardware", "t4")
    speeds = []
    for weights in ("float32", "bfloat16", "int8", "int4"):
        found = planned(capsys, *options, "--weights", weights)
        moved = found["memory"]["weights"] + found["memory"]["cache"]
        assert found["tokens_per_second"] < 2 * HARDWARE["t4"].bandwidth / moved
        speeds.append(found["tokens_per_second"])
    assert speeds == sorted(speeds) and len(set(speeds)) == 4


@pytest.mark.parametrize(("hardware", "fits"), [("t4x8", True), ("t4", False)])
def test_what_no_single_device_holds_has_no_speed(capsys, hardware, fits):
    options = ("llama-2-7b", "model.decoder.depth=12", "--serve", "--users", "64", "--context", "4096")
    options += ("--hardware", hardware)
    found = planned(capsys, *options)
    assert HARDWARE["t4"].memory < found["memory"]["total"] <= 8 * HARDWARE["t4"].memory
    assert "tokens_per_second" not in found and "prompt_seconds" not in found
    out = run(capsys, *options)[1]
    assert "tokens/s" not in out and ("no speed: one" in out) == fits and ("does not fit" in out) != fits


# ---- plots --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--length", "16", "--batch-tokens", "32"), ("--serve", "--context", "32")])
def test_a_plot_is_an_svg_file(capsys, tmp_path, options):
    path = tmp_path / "out.svg"
    code, _, err = run(capsys, "lm-tiny", *options, "--plot", str(path))
    assert code == 0, err
    tree = ElementTree.fromstring(path.read_text())
    assert tree.tag.endswith("svg")
    names = "".join(tree.itertext())
    assert "memory of" in names and "total" in names


def test_a_chart_holds_every_point_within_its_frame():
    lines, marks = {"one": [(1, 10), (8, 80)], "two": [(2, 20)]}, {"limit": 100.0}
    tree = ElementTree.fromstring(line_chart("a & b", lines, Axis("x"), Axis("y"), marks=marks))
    circles = [element for element in tree.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3
    assert all(0 <= float(circle.get("cx")) <= 720 and 0 <= float(circle.get("cy")) <= 420 for circle in circles)


# ---- numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("300e9", 3e11),
        ("300B", 3e11),
        ("1.5T", 1.5e12),
        ("2_000", 2000),
        ("10k", 1e4),
        ("7", 7),
        ("1,500,000", 1.5e6),
        ("2,000M", 2e9),
        ("2,000.5k", 2000500),
    ],
)
def test_a_number_may_have_a_unit(text, number):
    assert plan_numbers.count_of(text, "--tokens") == number


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_999, "1 MB"), (1_073_741_824, "1.07 GB")]
)
def test_bytes_have_a_decimal_unit(nbytes, text):
    assert plan_numbers.size(nbytes) == text


def test_a_bar_is_as_long_as_its_share():
    assert plan_numbers.bar(0) == "" and len(plan_numbers.bar(1)) == 24 and plan_numbers.bar(0.5) == "█" * 12


# ---- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transformer-bse"], "Did you mean 'transformer-base'"),
        (["gpt3"], "no 'gpt3' here"),
        (["transformer-tiny", "--mfu", "45"], "--mfu: 45 must be above 0 and at most 1: write 0.45 for 45%"),
        (["transformer-tiny", "--mfu", "0"], "--mfu: 0 must be above 0"),
        (["transformer-tiny", "--mfu", "-1"], "--mfu: -1 must be above 0"),
        (["transformer-tiny", "--tokens", "many"], "--tokens: 'many' is no number: write 300e9"),
        (["transformer-tiny", "--tokens", "1,5M"], "--tokens: '1,5M' is no number: a comma stands before three digits"),
        (["transformer-tiny", "--tokens", "1,50"], "--tokens: '1,50' is no number"),
        (["transformer-tiny", "--tokens", "0,500M"], "--tokens: '0,500M' is no number"),
        (["transformer-tiny", "--tokens", "1000,000"], "--tokens: '1000,000' is no number"),
        (["transformer-tiny", "--tokens", "1.5,000"], "--tokens: '1.5,000' is no number"),
        (["transformer-tiny", "--batch-tokens", "8,1920"], "--batch-tokens: '8,1920' is no number"),
        (["transformer-tiny", "--tokens", "-5"], "--tokens: -5 must be 1 or more"),
        (["transformer-tiny", "--tokens", "inf"], "--tokens: inf must be 1 or more"),
        (["transformer-tiny", "--tokens", "nan"], "--tokens: nan must be 1 or more"),
        (["transformer-tiny", "--length", "2.5"], "--length: 2.5 must be a whole number"),
        (["transformer-tiny", "--length", "0"], "--length: 0 must be 1 or more"),
        (["lm-tiny-2019", "--length", "9999"], "--length: 9,999 tokens, and this model takes at most 64"),
        (["transformer-tiny", "--length", "10", "--batch-tokens", "5"], "--batch-tokens: 5 is less than one text"),
        (["transformer-base", "model.dim=510"], "heads do not divide the width 510"),
        (["transformer-tiny", "model.decoder.dept=2"], "dept"),
        (["nothing.yaml"], "nothing.yaml: no such file"),
        (["lm-tiny", "lm-small"], "lm-small: one preset, run file or run at a time"),
        (["model.dim=8"], "name a preset, a run file or a run"),
        (["lm-tiny", "--serve", "--fit"], "--fit: one question at a time"),
        (["bert-base", "--serve"], "--serve: bert-base writes no text"),
        (["lm-tiny", "--users", "1"], "--users: is for --serve, not for training: add --serve, or leave this out"),
        (["lm-tiny", "--serve", "--mfu", "0.4"], "--mfu: is for training, not for --serve: leave one of them out"),
        (["lm-tiny", "--laws", "train.seed=2"], "train.seed=2: is for training, --serve or --fit, not for --laws"),
        (["lm-tiny", "--serve", "--cache", "int9"], "Did you mean 'int8'"),
        (["lm-tiny", "--serve", "--weights", "int3"], "--weights: no 'int3' here"),
        (["lm-tiny", "--serve", "--users", "0"], "--users: 0 must be 1 or more"),
        (["lm-tiny-2019", "--serve", "--context", "9999"], "--context: 9,999 tokens, and this model takes at most 64"),
        (["lm-tiny", "--plot", "nowhere/out.svg"], "nowhere"),
        (["lm-tiny", "--data", "nowhere.txt"], "nowhere.txt: no such file"),
        (["transformer-tiny", "--data", "nowhere.tsv"], "nowhere.tsv"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out
    assert message in err and err.startswith("dragoman: ") and err.count("\n") == 1


VALUES = {
    "--mfu": "0.4",
    "--plot": "out.svg",
    "--data": "nowhere.txt",
    "--hardware": "h100",
    "--cache": "int8",
    "--weights": "int4",
    "--predict": "10M,200M",
}
"""Values of options that take no plain number."""


@pytest.mark.parametrize("question", [TRAINING, SERVE, FIT, RECONCILE, LAWS])
def test_what_belongs_to_another_question_is_refused_by_name(capsys, question):
    asked = ["lm-tiny"] if question == TRAINING else ["lm-tiny", question]
    others = [[name, VALUES.get(name, "8")] for name, questions in OPTIONS.items() if question not in questions]
    if question not in SETTINGS:
        others.append(["train.seed=2"])
    assert others
    for given in others:
        code, out, err = run(capsys, *asked, *given)
        assert code == 2 and not out and err.count("\n") == 1
        assert err.startswith(f"dragoman: {given[0]}: is for ") and f"not for {question}" in err


def test_every_option_belongs_to_a_question():
    names = {"--" + name.replace("_", "-") for name in inspect.signature(plan).parameters}
    assert names - {"--what", "--as-json", SERVE, FIT, RECONCILE, LAWS} == set(OPTIONS)


def test_a_folder_that_is_no_run_is_named(capsys, tmp_path):
    code, _, err = run(capsys, str(tmp_path))
    assert code == 2 and "not a run directory" in err


def test_a_run_file_that_is_wrong_is_named(capsys, folder):
    code, _, err = run(capsys, run_file(folder, model={"dimm": 8}))
    assert code == 2 and "run.yaml" in err and "dimm" in err


# ---- hardware -----------------------------------------------------------------------------------------


def test_a_budget_on_named_devices_is_time_energy_and_cost(capsys):
    options = (
        "--tokens",
        "1e9",
        "--length",
        "16",
        "--batch-tokens",
        "32",
        "--hardware",
        "a100-40gx1024",
        "--mfu",
        "0.45",
    )
    found = planned(capsys, "lm-tiny", *options)["budget"]
    for formula, work in found["flops"].items():
        seconds = work / (1024 * 312e12 * 0.45)
        assert found["seconds"][formula] == pytest.approx(seconds)
        assert found["device_hours"][formula] == pytest.approx(1024 * seconds / 3600)
        assert found["kwh"][formula] > 0 and found["dollars"][formula] > 0


def test_a_budget_takes_as_long_as_its_steps_unless_large_runs_are_slower(capsys):
    options = ("--tokens", "1e9", "--length", "512", "--batch-tokens", "4096", "--hardware", "h100")
    found = planned(capsys, "lm-tiny", *options)
    assert found["budget"]["seconds"]["counted"] == pytest.approx(1e9 / 4096 * found["step_seconds"])
    assert "each step as above" in " ".join(run(capsys, "lm-tiny", *options)[1].split())
    made = plan_training(
        find_subject("lm-tiny", []), PlanOptions(hardware="h100", tokens=1e9, length=8, batch_tokens=8)
    )
    assert made.seconds and made.reached and made.mfu == made.reached < USUAL_MFU
    quicker = dataclasses.replace(made, seconds=made.seconds * made.reached / 0.7)
    assert quicker.reached == pytest.approx(0.7) and quicker.mfu == USUAL_MFU


def test_a_model_that_does_not_fit_says_what_sharing_would_take(capsys):
    options = ("--length", "8", "--batch-tokens", "8", "--hardware", "t4x8")
    code, out, err = run(capsys, "llama-2-7b", "model.decoder.depth=8", *options)
    assert code == 0, err
    words = " ".join(out.split())
    assert "does not fit into the 16 GB of one" in words and "train.parallel=sharded" in words and "which fits" in words


def test_unknown_hardware_suggests_what_was_meant(capsys):
    code, _, err = run(capsys, "lm-tiny", "--hardware", "h10O")
    assert code == 2 and "--hardware" in err and "Did you mean" in err
