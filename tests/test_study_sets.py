"""Data sets, measures and claims of shipped studies: right by their own rules, and the same every time."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from dragoman.compare.contestants import contestants_of
from dragoman.compare.datasets import arrays, grammar, puzzles
from dragoman.compare.datasets.reversed_words import reversed_words
from dragoman.compare.slips import slips
from dragoman.compare.study import read_study, shipped
from dragoman.config import from_dict, load_yaml
from dragoman.errors import ConfigError
from dragoman.evaluate.brackets import BracketF1, read_brackets
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.pairs import read_pairs
from dragoman.train.recipe import Data
from dragoman.train.tasks import task_data_for

STUDIES = Path(puzzles.__file__).parents[2] / "studies"
PUZZLES = {
    "recall": (puzzles.recall, {"pairs": 5}),
    "induction": (puzzles.induction, {"length": 12, "repeated": 9}),
    "selective_copy": (puzzles.selective_copy, {"symbols": 3, "length": 10}),
    "listops": (puzzles.listops, {"depth": 3}),
    "sums": (puzzles.sums, {"terms": 4}),
    "steps": (puzzles.sums, {"terms": 4, "steps": True}),
}


def answer(kind: str, prompt: str) -> str:
    """The answer of a puzzle, found in another way than it was made."""
    if kind == "selective_copy":
        return "".join(symbol for symbol in prompt if symbol != ".")
    if kind == "listops":
        return str(value(list(prompt)))
    terms = list(map(int, prompt.split("+")))
    partial = "".join(str(total % 10) for total in np.cumsum(terms))
    return partial if kind == "steps" else partial[-1]


def follows(kind: str, given: str, asked: str) -> bool:
    """Whether what is asked for is in the text that was given."""
    if kind == "recall":
        return all(
            asked[i : i + 2] in {given[j : j + 2] for j in range(0, len(given), 2)} for i in range(0, len(asked), 2)
        )
    return asked in given + given and len(asked) < len(given)


def value(symbols: list[str]) -> int:
    first = symbols.pop(0)
    if first != "(":
        return int(first)
    name, members = symbols.pop(0), []
    while symbols[0] != ")":
        members.append(value(symbols))
    symbols.pop(0)
    members.sort()
    middle = members[(len(members) - 1) // 2]
    return {"A": members[-1], "I": members[0], "M": middle, "S": sum(members) % 10}[name]


@pytest.mark.parametrize("kind", PUZZLES)
def test_answers_of_puzzles_are_right_and_none_is_learned_and_validated(kind, tmp_path):
    make, settings = PUZZLES[kind]
    data = from_dict(Data, make(tmp_path, examples=60, valid=20, **settings))
    assert isinstance(data, Instructions) and data.valid is not None
    learned, validated = list(read_pairs(data.train[0])), list(read_pairs(data.valid))
    assert len(learned) == 60 and len(validated) == 20
    for pair in learned + validated:
        given, _, asked = (pair.source + pair.target).partition("=")
        assert follows(kind, given, asked) if kind in ("recall", "induction") else asked == answer(kind, given)
    if kind in ("recall", "induction"):
        assert {len(pair.target) for pair in validated} == {1}, "only the last symbol is asked for"
    assert not {pair.source for pair in learned} & {pair.source for pair in validated}


def test_puzzles_that_run_out_leave_some_for_both(tmp_path):
    data = from_dict(Data, puzzles.sums(tmp_path, terms=1, examples=60, valid=20))
    assert isinstance(data, Instructions) and data.valid is not None
    assert len(list(read_pairs(data.train[0]))) == len(list(read_pairs(data.valid))) == 5


@pytest.mark.parametrize(("settings", "learned"), [({"words": 1}, 20), ({"words": 1, "vocabulary": 3}, 1), ({}, 400)])
def test_pairs_of_words_that_run_out_leave_some_to_learn_from(settings, learned, tmp_path):
    data = from_dict(Data, reversed_words(tmp_path, **settings))
    sets = [list(read_pairs(source)) for source in (data.train[0], data.valid, data.test)]
    assert abs(len(sets[0]) - learned) <= learned // 10 and all(sets)
    assert len({pair for some in sets for pair in some}) == sum(map(len, sets))


def test_a_single_word_is_no_data_set(tmp_path):
    with pytest.raises(ConfigError, match="raise words or vocabulary"):
        reversed_words(tmp_path, words=1, vocabulary=1)


@pytest.mark.parametrize("examples", [1400, 1401, 1795, 1])
def test_as_many_digits_are_learned_as_asked_for_and_the_others_validate_or_test(examples, tmp_path):
    pytest.importorskip("sklearn")
    arrays.digits(tmp_path, examples=examples)
    sizes = {name: len(np.load(tmp_path / f"{name}.npz")["y"]) for name in ("train", "valid", "test")}
    assert sizes["train"] == examples and sum(sizes.values()) == 1797 and min(sizes.values()) > 0
    assert 0 <= sizes["test"] - sizes["valid"] <= 1


def test_sentences_of_several_sizes_share_their_validation(tmp_path):
    few, all_of_them = (grammar.sentences(tmp_path / str(n), documents=30, learned=n) for n in (4, None))
    assert Path(few["valid"][0]).read_text() == Path(all_of_them["valid"][0]).read_text()
    documents = [Path(some["files"][0]).read_text().strip().split("\n\n") for some in (few, all_of_them)]
    assert len(documents[0]) == 4 and len(documents[1]) == 27 and documents[1][:4] == documents[0]


def test_trees_that_run_out_are_fewer(tmp_path):
    data = from_dict(Data, grammar.trees(tmp_path, pairs=200, longest=3))
    learned = list(read_pairs(data.train[0]))
    assert 0 < len(learned) < 200 and all(len(pair.source.split()) == 3 for pair in learned)
    assert list(read_pairs(data.valid)) and list(read_pairs(data.test))


MADE = {
    "recall": puzzles.recall,
    "trees": grammar.trees,
    "sentences": grammar.sentences,
    "canaries": grammar.canaries,
    "topics": grammar.topics,
    "series": arrays.series,
}
FEW = {
    "recall": {"examples": 20, "valid": 5},
    "trees": {"pairs": 30},
    "sentences": {"documents": 20},
    "canaries": {"documents": 20, "each": 2},
    "topics": {"examples": 20, "valid": 5},
    "series": {"examples": 20},
}


@pytest.mark.parametrize("name", MADE)
def test_a_data_set_is_a_function_of_its_settings(name, tmp_path):
    for folder in ("one", "other"):
        MADE[name](tmp_path / folder, **FEW[name])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
    MADE[name](tmp_path / "third", **FEW[name], seed=2)
    assert any(
        path.read_bytes() != (tmp_path / "third" / path.name).read_bytes() for path in (tmp_path / "one").iterdir()
    )


def test_as_many_labels_are_wrong_as_asked_for_and_only_in_training(tmp_path):
    grammar.topics(tmp_path / "right", examples=4000, valid=200)
    grammar.topics(tmp_path / "wrong", examples=4000, valid=200, noise=0.1)
    rows = {
        folder: {
            name: [line.split("\t") for line in (tmp_path / folder / f"{name}.tsv").read_text().splitlines()]
            for name in ("train", "valid", "test")
        }
        for folder in ("right", "wrong")
    }
    assert rows["right"]["valid"] == rows["wrong"]["valid"] and rows["right"]["test"] == rows["wrong"]["test"]
    pairs = list(zip(rows["right"]["train"], rows["wrong"]["train"], strict=True))
    assert all(a[0] == b[0] for a, b in pairs), "the same texts"
    assert np.mean([a[1] != b[1] for a, b in pairs]) == pytest.approx(0.1, abs=0.015)


def test_secrets_stand_in_the_text_as_often_as_listed(tmp_path):
    grammar.canaries(tmp_path, copies=(1, 4), each=3, documents=20)
    text = (tmp_path / "train.txt").read_text()
    secrets = json.loads((tmp_path / "canaries.json").read_bytes())
    assert {copies: [text.count(secret) for secret in some] for copies, some in secrets.items()} == {
        "0": [0, 0, 0], "1": [1, 1, 1], "4": [4, 4, 4],
    }  # fmt: skip


# ---- trees ------------------------------------------------------------------------------------------


def test_trees_of_the_grammar_are_read_back_with_their_words():
    rng = random.Random(3)
    for _ in range(20):
        words, tree = grammar.derive(rng)
        found = read_brackets(" ".join(tree))
        assert found["S", 0, len(words)] == 1
        assert [token for token in tree if not token.startswith("(") and token != ")"] == words


@pytest.mark.parametrize(
    ("output", "right", "given"),
    [
        ("(S (NP the dog ) (VP runs ) )", 3, 3),
        ("(S (NP the dog) (VP runs))", 3, 3),  # written without spaces
        ("(S(NP the dog)(VP runs))", 3, 3),
        ("(S (VP the dog ) (VP runs ) )", 2, 3),  # another label
        ("(S (NP the ) dog (VP runs ) )", 2, 3),  # another span
        ("(S (NP the dog (VP runs", 2, 3),  # not closed: NP reaches too far
        (") the dog runs )", 0, 0),
        ("", 0, 0),
    ],
    ids=["same", "closed up", "opened up", "label", "span", "not closed", "never opened", "empty"],
)
def test_brackets_are_compared_by_label_and_span(output, right, given):
    counts = BracketF1().counts([output], ["(S (NP the dog ) (VP runs ) )"])
    assert counts.tolist() == [[right, given, 3]]
    assert BracketF1().value(counts[0]) == pytest.approx(200 * right / (given + 3))


# ---- claims and slips -------------------------------------------------------------------------------


def test_every_claim_names_a_study_and_contestants_that_it_compares():
    claims = load_yaml(STUDIES / "claims.yaml")
    assert len({claim["id"] for claim in claims}) == len(claims) >= 60
    for claim in claims:
        assert claim["claim"] and claim["source"] and claim["printed"]
        if "cannot" in claim:
            continue
        study, test = load_yaml(STUDIES / f"{claim['study']}.yaml"), claim["test"]
        assert claim["id"] in study["claims"]
        named = set(study.get("contestants") or ())
        for path, values in study.get("vary", {}).items():
            named |= {f"{path.rpartition('.')[2]} {value}" for value in values}
        used = {test[key] for key in ("better", "than", "of", "collapses") if key in test} | set(test.get("equal", ()))
        assert used and used <= named, claim["id"]
        if {"better", "equal"} & test.keys():
            assert test["figure"] in study["judge"], claim["id"]
            assert study.get("against") in {None, *used}, claim["id"]


def test_all_studies_state_a_time_and_have_a_toy_size():
    studies = {path.stem: load_yaml(path) for path in STUDIES.glob("*.yaml") if path.stem != "claims"}
    assert len(studies) >= 30 and all(study["minutes"] <= 60 and "toy" in study["sizes"] for study in studies.values())


def test_all_fourteen_slips_are_recomputed():
    found = slips()
    assert [slip.number for slip in found] == list(range(1, 15))
    assert all(slip.printed and slip.follows and slip.arithmetic for slip in found)
    lines = {slip.number: " ".join((*slip.arithmetic, slip.follows)) for slip in found}
    known = {
        2: ["7.0", "1.0", "42"], 5: ["144", "20.6"], 6: ["25.4", "33.8"], 7: ["0.268", "4.83"],
        8: ["18,914,304", "6,303,744", "and 35.3 with an embedding"], 10: ["1.07", "2.15"],
    }  # fmt: skip
    assert all(figure in lines[number] for number, figures in known.items() for figure in figures)


def test_every_contestant_of_every_study_has_a_model_that_can_be_built(tmp_path):
    for name in shipped():
        data = load_yaml(STUDIES / f"{name}.yaml").get("data")
        found_on_disk = "multi30k" in (data, data.get("kind") if isinstance(data, dict) else None)
        for contestant in contestants_of(read_study(name, overrides=["data=copy"] if found_on_disk else []), tmp_path):
            if (cfg := contestant.cfg) is not None:
                task_data_for(cfg).outline(cfg)
