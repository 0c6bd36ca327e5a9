"""``preset: auto``: model, vocabulary and batch follow text, time and machine, and the choice is written."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import tiny_run

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import from_dict, load_yaml
from dragoman.errors import ConfigError
from dragoman.train import automatic
from dragoman.train.automatic import MODEL_SIZES, TextSize, choose, is_automatic
from dragoman.train.recipe import RunConfig, load, writer
from dragoman.train.sizing import ENOUGH, effective_tokens, hidden_parameters, tokens_for_each_parameter


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny_run.write_pairs(tmp_path_factory.mktemp("text") / "pairs.tsv")


@pytest.fixture
def fast(monkeypatch):
    """A machine on which a step takes as many seconds as the test says, for each million of hidden parameters."""
    speed = SimpleNamespace(seconds=0.05, available=10**12)

    def step(cfg, made, model, rows, length):
        return (
            speed.seconds * hidden_parameters(model) / 1e6 * rows * length / 1024,
            hidden_parameters(model),
            speed.available,
        )

    monkeypatch.setattr(automatic, "_step", step)
    return speed


def given(pairs, **train):
    return {"preset": "auto", "data": {"train": [{"kind": "table", "path": str(pairs)}]}, "train": train}


def dims(chosen) -> int:
    return chosen.given["model"]["dim"]


def minutes(number: float) -> dict:
    return {"kind": "minutes", "minutes": number}


def test_more_minutes_never_choose_a_smaller_model_nor_does_a_faster_machine(pairs, fast, monkeypatch):
    monkeypatch.setattr(automatic, "measure_text", lambda data: TextSize(pairs=2_000_000, words=20_000_000))
    widths = [dims(choose(given(pairs, budget=minutes(number)))) for number in (0.01, 1, 10, 100, 1000, 20_000)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (MODEL_SIZES[0].dim, MODEL_SIZES[-1].dim)
    slow = dims(choose(given(pairs, budget=minutes(10))))
    fast.seconds /= 100
    assert dims(choose(given(pairs, budget=minutes(10)))) > slow


def test_a_small_text_chooses_a_small_model_however_many_minutes_there_are(pairs, fast):
    assert dims(choose(given(pairs, budget=minutes(10_000)))) == MODEL_SIZES[0].dim


def test_a_model_that_memory_does_not_hold_is_not_chosen(pairs, fast, monkeypatch):
    monkeypatch.setattr(automatic, "measure_text", lambda data: TextSize(pairs=2_000_000, words=20_000_000))
    fast.available = 4_000_000
    chosen = choose(given(pairs, budget=minutes(20_000)))
    assert hidden_parameters(writer(load(chosen.given)).sized(vocab=100, source_vocab=None)) < 4_000_000
    assert dims(chosen) < MODEL_SIZES[-1].dim
    assert any("too large for the memory" in reason for reason in chosen.reasons)


def test_larger_texts_get_larger_vocabularies(pairs):
    sizes = [TextSize(pairs=words, words=words).vocab for words in (10, 60_000, 2_000_000, 20_000_000, 10**9)]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)
    assert TextSize(100, 1000).tokens(4000) > TextSize(100, 1000).tokens(32_000) > 1000


def test_many_passes_over_a_text_call_for_more_dropout(pairs, fast):
    few, many = (choose(given(pairs, budget={"kind": "epochs", "epochs": n})) for n in (2, 100))
    rates = [found.given["model"]["encoder"]["pattern"][0]["dropout"] for found in (few, many)]
    assert rates[0] < rates[1]


def test_what_the_file_sets_stays_and_what_is_chosen_is_a_complete_run(pairs, fast):
    chosen = choose(
        {**given(pairs, seed=7, batch_tokens=64, budget=minutes(1)), "tokenizer": {"kind": "bpe", "vocab": 300}}
    )
    cfg = load(chosen.given)
    assert (cfg.train.seed, cfg.train.batch_tokens) == (7, 64)
    assert cfg.tokenizer == load({**chosen.given, "tokenizer": {"kind": "bpe", "vocab": 300}}).tokenizer
    assert "preset" not in chosen.given


def test_settings_on_top_decide_the_time(pairs, fast):
    chosen = choose(given(pairs), ["train.budget.minutes=3", "preset=auto"])
    assert "3 minutes" in chosen.reasons[0] and "210 pairs" in chosen.reasons[0]
    assert load(chosen.given, ["train.budget.minutes=3"]).train.budget.seconds == 180
    assert choose(given(pairs)).given["train"]["budget"] == minutes(automatic.MINUTES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": tiny_run.MODEL}, "chooses the model"),
        ({"data": {"kind": "texts", "files": ["a.txt"]}, "task": "language_modelling"}, "auto is for translation"),
    ],
)
def test_what_auto_cannot_choose_for_is_refused_in_one_line(pairs, change, message):
    with pytest.raises(ConfigError, match=message) as error:
        choose({**given(pairs), **change})
    assert "\n" not in str(error.value)


def test_the_last_preset_that_is_named_counts():
    assert is_automatic({"preset": "auto"}) and is_automatic({"preset": "x"}, ["a=1", "preset=auto"])
    assert not is_automatic({"preset": "auto"}, ["preset=transformer-tiny"]) and not is_automatic({})


def test_every_model_of_the_sizes_is_larger_than_the_one_before():
    models = [writer(load({**size.recipe(4000), "data": {"train": []}})) for size in MODEL_SIZES]
    sizes = [hidden_parameters(model.sized(vocab=4000, source_vocab=None)) for model in models]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)


def test_repeated_tokens_count_less_and_less():
    assert effective_tokens(100, 1) == effective_tokens(100, 0.5) == 100
    gains = [effective_tokens(100 * epochs, epochs) for epochs in (1, 2, 8, 32, 500)]
    assert gains == sorted(gains) and gains[1] > 190 and gains[-1] < 100 * (1 + 15.4) + 1
    assert tokens_for_each_parameter(2000, 1, 500, sides=2) == 2


def test_a_command_prints_its_reasons_and_writes_the_choice(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = given(pairs, budget={"kind": "steps", "steps": 2}, samples=0, precision="float32", products="torch")
    file["data"]["hold_out"] = {"test": 3, "valid": 10, "near": None}
    (tmp_path / "run.yaml").write_text(json.dumps(file))
    assert main(["train", "run.yaml", "--run", "run"]) == 0
    out = capsys.readouterr().out
    assert out.count("auto: ") >= 3 and ": chosen" in out and "vocabulary" in out
    written = load_yaml(tmp_path / "run" / "config.yaml")
    assert from_dict(RunConfig, {k: v for k, v in written.items() if k != "format"}).model is not None
    assert written["model"]["dim"] == MODEL_SIZES[0].dim
    assert f"{ENOUGH:g} are enough" in out
    assert main(["train", "run", "--resume", "train.budget.steps=3"]) == 0
    assert "auto: " not in capsys.readouterr().out


def test_a_run_of_auto_is_resumed_by_its_file_whose_settings_still_count(pairs, tmp_path, capsys, monkeypatch, fast):
    monkeypatch.chdir(tmp_path)
    file = given(pairs, budget={"kind": "steps", "steps": 2}, samples=0, precision="float32", products="torch")
    file["data"]["hold_out"] = {"test": 3, "valid": 10, "near": None}
    (tmp_path / "run.yaml").write_text(json.dumps(file))
    assert main(["train", "run.yaml", "--resume", "--run", "run"]) == 2  # no such run yet
    assert "run" in capsys.readouterr().err
    assert main(["train", "run.yaml", "--run", "run"]) == 0
    before = load_yaml(tmp_path / "run" / "config.yaml")
    fast.seconds /= 1e6  # another choice would be made now
    file["train"]["budget"]["steps"] = 3
    (tmp_path / "run.yaml").write_text(json.dumps(file))
    assert main(["train", "run.yaml", "--resume", "--run", "run"]) == 0
    after = load_yaml(tmp_path / "run" / "config.yaml")
    assert after["train"]["budget"]["steps"] == 3 and after["model"] == before["model"]
    assert main(["train", "run.yaml", "--resume", "--run", "run", "preset=auto", "train.budget.steps=4"]) == 0
    assert RunDirectory.open("run").load("last").progress["step"] == 4
    capsys.readouterr()
    file["train"]["clip"] = 0.5
    (tmp_path / "run.yaml").write_text(json.dumps(file))
    assert main(["train", "run.yaml", "--resume", "--run", "run", "train.budget.steps=5"]) == 2
    assert "train.clip was 1.0, is now 0.5" in capsys.readouterr().err


def test_a_size_is_described_for_people():
    assert dataclasses.replace(MODEL_SIZES[1], dim=96).description == "width 96, 3 + 3 layers"


def test_where_nothing_is_trained_auto_is_refused_with_what_to_do(pairs):
    with pytest.raises(ConfigError, match="chosen when training starts"):
        load(given(pairs))
