"""Roles of heads: scores are what their names say, and the heads of a planted circuit are those that cannot be cut."""

import json

import numpy as np
import planted_circuit
import pytest
import torch
from planted_circuit import INDUCTION, PREVIOUS, T
from test_every_command import make
from tiny_reader import quick_disk  # noqa: F401 (a fixture)

from dragoman import inspect
from dragoman.cli import main
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.head_roles import _alignment, _by_position, _equal_weights, _scorers, _syntax, is_separator
from dragoman.inspect.parses import read_parses

KINDS = ("translation", "language_model", "classifier", "masked", "embedder")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {kind: make(kind, folder / kind) for kind in KINDS}


def looking(goals, keys):
    """One head whose queries each look at one key; at none where the goal is negative."""
    weights = np.zeros((1, len(goals), keys))
    for query, key in enumerate(goals):
        weights[0, query, max(key, 0)] = 1.0
    return weights


LOOKS = {
    "previous": [0, 0, 1, 2, 3, 4],
    "next": [1, 2, 3, 4, 5, 5],
    "first": [0, 0, 0, 0, 0, 0],
    "duplicate": [0, 1, 2, 0, 1, 5],
    "induction": [0, 1, 2, 1, 2, 5],
}


@pytest.mark.parametrize("role", LOOKS)
def test_a_head_that_does_nothing_else_scores_1_in_its_role_and_less_in_the_others(role):
    scorers = _by_position(["a", "b", "c", "a", "b", "d"])
    scores = {name: scorer(looking(LOOKS[role], 6))[0] for name, scorer in scorers.items()}
    assert scores.pop(role) == 1
    assert max(scores.values()) < 0.75


def test_rare_words_and_separators_are_told_from_others():
    tokens = ["the", " dog", ",", " quagga", "⟨eos⟩"]
    scorers = _scorers(tokens, {"the": 9, " dog": 5, ",": 1, " quagga": 1, "⟨eos⟩": 9}, None)
    assert scorers["rare word"](looking([3] * 5, 5))[0] == 1
    assert scorers["separator"](looking([2, 2, 4, 4, 4], 5))[0] == 1
    assert [is_separator(token) for token in (" .", "⟨bos⟩", "a.", "7", " ", "¿")] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def test_alignment_counts_agreement_with_occlusion_and_equal_weights_have_the_chance_of_it():
    goal = np.array([2, 0, 1])
    assert _alignment(looking([2, 0, 1], 4), goal)[0] == 1
    assert _alignment(looking([2, 3, 3], 4), goal)[0] == pytest.approx(1 / 3)
    assert _alignment(_equal_weights(np.full((1, 3, 4), 0.25)), goal)[0] == pytest.approx(1 / 4)


def test_equal_weights_are_equal_over_what_each_query_may_see():
    causal = np.tril(np.ones((2, 3, 3))) * 0.3
    np.testing.assert_allclose(_equal_weights(causal)[0], [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_a_head_that_looks_from_a_word_to_what_it_belongs_to_is_syntactic():
    related = (frozenset({1}), frozenset({2}), frozenset())
    assert _syntax(related)(looking([1, 2, 0], 3))[0] == 1
    assert _syntax(related)(looking([2, 2, 0], 3))[0] == 0.5  # the first two look at the third


@pytest.mark.slow
def test_the_heads_of_a_planted_circuit_have_the_largest_effect_and_are_not_cut():
    model = planted_circuit.planted()
    ids, _ = planted_circuit.repeated(16, torch.Generator().manual_seed(3))
    given = []
    for row in ids.tolist():
        names = tuple(map(str, row))
        following = (*row[1:], 0)
        given.append(inspect.Inputs((torch.tensor([row]),), (), names, (*names[1:], "end"), following))
    report = inspect.head_roles(inspect.Subject(model), given, tolerance=0.05)
    by_effect = sorted(report.heads, key=lambda head: -head.effect)
    assert {(head.place, head.head) for head in by_effect[:2]} == {PREVIOUS, INDUCTION}
    assert by_effect[1].low > max(0.05, by_effect[2].high)
    planted = {f"{place}:{head}" for place, head in (PREVIOUS, INDUCTION)}
    assert {head.name: head.role for head in report.heads}[f"{INDUCTION[0]}:{INDUCTION[1]}"] == "induction"
    assert not planted & set(report.removable)
    assert len(report.removable) >= 3
    assert report.rise_high <= report.tolerance
    assert len(given[0].tokens) == T


PARSES = {
    "heads.tsv": "the\t2\ndog\t3\nsleeps\t0\n\nhe\t2\nruns\t0\n",
    "sample.conllu": "# text\n1\tthe\t_\t_\t_\t_\t2\t_\t_\t_\n1-2\tthe dog\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tdog\t_\t_\t_\t_\t3\t_\t_\t_\n3\tsleeps\t_\t_\t_\t_\t0\t_\t_\t_\n",
    "brackets.txt": "(S (NP (D the) (N dog)) (V sleeps))\n",
}


@pytest.mark.parametrize("name", PARSES)
def test_heads_and_brackets_say_which_words_belong_together(name, tmp_path):
    (tmp_path / name).write_text(PARSES[name])
    first = read_parses(str(tmp_path / name))[0]
    assert first.text == "the dog sleeps"
    expected = ({1}, {0}, {0, 1}) if name == "brackets.txt" else ({1}, {2}, set())
    assert tuple(map(set, first.related)) == expected


BAD_PARSES = {
    "the\t9\n": ":1: head 9, in a sentence of 1 words",
    "the\n": ":1: a word, a tab and the number of its head expected",
    "the\tx\n": ":1: a word, a tab",
    "(S (NP the dog)\n": ":1: a bracket is not closed",
    "(S the))\n": ":1: a bracket closes that was not opened",
    "(S (NP))\n": ":1: brackets without words",
    "\n\n": "holds no parsed sentence",
}


@pytest.mark.parametrize("content", BAD_PARSES)
def test_a_bad_parse_is_told_with_its_line(content, tmp_path):
    (tmp_path / "p.txt").write_text(content)
    with pytest.raises(DataError) as told:
        read_parses(str(tmp_path / "p.txt"))
    assert BAD_PARSES[content] in str(told.value)


@pytest.mark.parametrize("kind", KINDS)
def test_patch_heads_reports_every_head_of_every_model(kind, runs, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("the dog sleeps\n\nhe runs.\n")
    (tmp_path / "parses.tsv").write_text(PARSES["heads.tsv"])
    given = ["patch", str(runs[kind]), "--heads", str(tmp_path / "lines.txt"), "--parses", str(tmp_path / "parses.tsv")]
    assert main([*given, "--format", "json", "-o", str(tmp_path / "heads.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "heads.json").read_text()) == found
    assert found["texts"] == 2
    assert len(found["heads"]) == (6 if kind == "translation" else 2)
    assert "syntactic" in found["heads"][0]["scores"]
    for head in found["heads"]:
        assert head["low"] <= head["effect"] <= head["high"]
    assert main(given) == 0
    assert "nats per token" in capsys.readouterr().out


def test_bad_input_of_heads_is_told_in_one_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("ab\ncd\n")
    (tmp_path / "parse.tsv").write_text("ab\t7\n")
    cases = {
        ("--heads", "lines.txt", "--answer", "one line"): "lines.txt has 2 lines with text, and --answer 1",
        ("--heads", "nowhere.txt"): "no such file",
        ("--heads", "lines.txt", "--parses", "parse.tsv"): "parse.tsv:1: head 7",
        ("--heads", "lines.txt", "-o", "roles.svg"): "name it .json",
        ("a", "b", "--heads", "lines.txt"): "leave the texts",
        ("a", "b", "--parses", "parse.tsv"): "--parses: is for --heads",
        ("a", "b", "--tolerance", "0"): "--tolerance: is for --heads",
        ("a", "b", "--texts", "3"): "--texts: is for --heads",
    }
    for arguments, told in cases.items():
        assert main(["patch", str(runs["translation"]), *arguments]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and told in err


def test_a_model_without_attention_is_refused():
    import recurrent_variants

    name = next(iter(recurrent_variants.EVERY))
    subject = inspect.Subject(recurrent_variants.build(recurrent_variants.EVERY[name]))
    with pytest.raises(ConfigError, match="no attention heads"):
        inspect.head_roles(subject, ["a"])
