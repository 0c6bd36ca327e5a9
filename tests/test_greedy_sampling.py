"""Temperature 0 is greedy search; temperatures that are none are refused."""

import math

import pytest
import torch
from test_every_command import make

from dragoman.cli import main
from dragoman.config import from_dict
from dragoman.decode.generator import Generator
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: make(name, folder / name) for name in ("translation", "language_model")}


TEXTS = ["ab", "cd ef", "", "x" * 20, "Tür"]


@pytest.mark.parametrize("more", [{}, {"samples": 3}, {"seed": 7}, {"top_k": 5, "top_p": 0.5}, {"min_p": 0.9}])
def test_temperature_0_says_what_greedy_search_says(more, runs):
    translator, generator = Translator.load(runs["translation"]), Generator.load(runs["language_model"])
    sample = Sample(temperature=0.0, **more)
    drawn, greedy = (translator.translate(TEXTS, search=search) for search in (sample, Greedy()))
    assert [one.candidates[0].tokens for one in drawn] == [one.candidates[0].tokens for one in greedy]
    assert all(len(one.candidates) == 1 for one in drawn)
    drawn, greedy = (generator.generate(TEXTS, search=s, max_new_tokens=8) for s in (sample, Greedy()))
    assert [one.continuations[0].tokens for one in drawn] == [one.continuations[0].tokens for one in greedy]


def test_of_equal_logits_the_lowest_id_is_taken_at_every_size():
    for width in (7, 70_000):
        logits = torch.zeros(2, width)
        logits[1, [3, 5]] = 1.0
        shaped = Sample(temperature=0.0).shape(logits)
        assert shaped.isfinite().sum(dim=1).tolist() == [1, 1] and shaped.argmax(dim=1).tolist() == [0, 3]


def test_temperatures_fall_to_what_0_says():
    logits = torch.randn(4, 50)
    cold = Sample(temperature=1e-4).shape(logits).softmax(dim=1)
    assert torch.equal(cold.argmax(dim=1), Sample(temperature=0.0).shape(logits).argmax(dim=1))


WRONG = {
    "temperature": (-1.0, -0.001, math.nan, math.inf),
    "top_p": (0.0, -0.5, 1.5, math.nan),
    "min_p": (0.0, 2.0, math.nan),
    "typical": (0.0, 1.01),
}
every_wrong = pytest.mark.parametrize(("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]])


@every_wrong
def test_a_setting_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        Sample(**{name: value})
    with pytest.raises(ConfigError, match=name):
        from_dict(SearchConfig, {"kind": "sample", name: value}, "search")


@pytest.mark.parametrize("option", ["--temperature -1", "--temperature nan", "--min-p 0", "--top-p 1.5", "--min-p 2"])
def test_a_setting_that_makes_no_sense_is_one_line_on_the_command_line(option, runs, capsys):
    assert main(["generate", str(runs["language_model"]), "ab", *option.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dragoman: ") and err.count("\n") == 1 and option.split()[0][2:].replace("-", "_") in err


@pytest.mark.parametrize("command", [("translate", "translation"), ("generate", "language_model")])
def test_temperature_0_on_the_command_line_is_greedy(command, runs, capsys):
    name, kind = command
    options = ["--max-new-tokens", "8"] if name == "generate" else []
    said = []
    for search in (["--temperature", "0"], ["--temperature", "0", "--seed", "9"], ["--search", "greedy"]):
        assert main([name, str(runs[kind]), "abcd", *search, *options]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]


def test_a_file_of_prompts_is_continued_line_by_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("ab\n\ncd\n")
    asked = ["--search", "greedy", "--max-new-tokens", "4", "--precision", "float32"]
    run = str(runs["language_model"])
    assert main(["generate", run, "prompts.txt", *asked, "--format", "json", "-o", "out.jsonl"]) == 0
    from_file = (tmp_path / "out.jsonl").read_text().splitlines()
    assert main(["generate", run, "ab", *asked, "--format", "json"]) == 0
    assert [from_file[0]] == capsys.readouterr().out.splitlines() and len(from_file) == 3
    assert main(["generate", run, "absent.txt", *asked]) == 2
    assert "absent.txt: no such file" in capsys.readouterr().err
    assert main(["generate", run, "ab", "--stream", "-o", "x"]) == 2
    assert main(["generate", run, "ab", "--precision", "float31"]) == 2


def test_min_p_leaves_the_likely_tokens(runs, capsys):
    asked = ["generate", str(runs["language_model"]), "ab", "--max-new-tokens", "6"]
    assert main([*asked, "--min-p", "1"]) == 0  # only the likeliest
    likeliest = capsys.readouterr().out
    assert main([*asked, "--temperature", "0"]) == 0
    assert capsys.readouterr().out == likeliest
