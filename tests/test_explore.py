"""The fuzzer of ``make explore``: it draws every part there is, repeats itself, sees faults, and a few draws hold."""

import random
from typing import Annotated, get_args

import pytest
from drawn_runs import Drawing, bare, changed, config_classes, fields, fits, least, places, within, written_out
from explore import Explorer, Outcome, Said, differences, explored, faults, same_answer
from pydantic import Field

from dragoman.config import kind_of
from dragoman.data.tasks import Task
from dragoman.train import recipe


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    return Explorer(tmp_path_factory.mktemp("explored"))


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[4], [8], [15]], ids=str)
def test_a_few_draws_hold(numbers):
    assert [found for outcome in explored(numbers, seed=0) for found in outcome.findings] == []


def test_each_task_there_is_has_a_run_file_to_begin_with(explorer):
    begun = {task if isinstance(task := base["task"], str) else task["kind"] for base in explorer.bases.values()}
    assert begun == {kind_of(cls) for cls in config_classes(Task)}


def parts(tp, found):
    """Every configuration class that a value of this type may hold, but for those of fields that stay as they are."""
    for cls in set(config_classes(tp)) - found:
        found.add(cls)
        for _, held in fields(cls):
            for element in elements(held):
                parts(element, found)
    return found


def elements(tp):
    """The type, and those of what it holds."""
    yield tp
    for inner in get_args(bare(tp)[0]):
        if not isinstance(inner, str | int):
            yield from elements(inner)


def kinds(value):
    if isinstance(value, dict):
        yield from ([value["kind"]] if "kind" in value else [])
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from kinds(part)


def test_every_part_of_the_configuration_is_drawn_and_none_is_listed():
    drawing, missing = Drawing(random.Random(0)), {kind_of(cls) for cls in parts(recipe.RunConfig, set())}
    assert len(missing) > 80
    for _ in range(12_000):
        missing -= set(kinds(drawing.value(recipe.RunConfig)))
        if not missing:
            break
    assert missing == set()


def test_a_draw_is_the_same_for_the_same_seed_and_number(explorer):
    assert explorer.run_file(7) == explorer.run_file(7)
    assert len({str(explorer.run_file(number)) for number in range(4)}) > 3


def test_changes_that_cannot_fit_are_left_out_unless_a_draw_is_wild(explorer):
    base = explorer.bases["tagging"]
    for number in range(5):
        content = changed(base, random.Random(number), 4)
        assert fits(content, written_out(base))
    assert len(list(places(recipe.RunConfig, written_out(base)))) > 60


def test_numbers_are_drawn_within_their_bounds():
    drawing, tp = Drawing(random.Random(0)), Annotated[int, Field(ge=259)]
    assert all(drawing.value(tp) >= 259 for _ in range(20))
    assert within([0, 1, 2], []) == [0, 1, 2] and least([]) == 0


DRAW = Outcome(3, "tagging")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (Said(1, "", "", "Traceback\nKeyError: 'x'"), "KeyError: 'x'"),
        (Said(1, "", ""), "exit code 1"),
        (Said(2, "", "dragoman: one\ndragoman: two\n"), "a refusal that is not one line at the end"),
        (Said(2, "", ""), "a refusal that is not one line at the end"),
        (Said(0, '{"vector": [0.1, NaN]}', ""), "not a finite number: NaN"),
        (Said(0, "-inf\n", ""), "not a finite number: -inf"),
    ],
)
def test_a_fault_is_a_finding(said, what):
    assert [found.what for found in faults(DRAW, "embed", said)] == [what]


@pytest.mark.parametrize("said", [Said(0, "nanny 1.5\n", ""), Said(2, "", "progress\ndragoman: model: no\n")])
def test_an_answer_and_a_refusal_are_none(said):
    assert list(faults(DRAW, "embed", said)) == []


def test_answers_that_differ_are_a_finding_and_last_digits_are_not():
    assert same_answer('{"v": [0.12345678]}', '{"v": [0.12345679]}')
    assert not same_answer('{"v": [0.12]}', '{"v": [0.13]}')
    assert not same_answer("a dog", "a cat")
    one, other = Said(0, "a 0.5\n", ""), Said(0, "a 0.6\n", "")
    assert [found.what for found in differences(DRAW, "tag", (one, {}), (other, {}))] == ["answers differ"]
    assert [found.what for found in differences(DRAW, "tag", (one, {"x": b"1"}), (one, {}))] == ["files differ: x"]
