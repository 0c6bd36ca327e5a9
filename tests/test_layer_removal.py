"""A translator without one of its sublayers: the same answer alone and in batches that are put together."""

import numpy as np
import pytest
import torch
from test_batching import ROOM, SEARCHES, asked, joins, one_by_one, rows_of, said, texts  # noqa: F401 (joins is a fixture)
from test_search import transformer

from dragoman.compare.figure import scored
from dragoman.compare.measures.removal import _RESIDUALS, ScoreLost, _blocks, _without
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.task import translation_task
from dragoman.evaluate.metrics import METRICS, samples


@pytest.mark.parametrize("sublayer", _RESIDUALS)
def test_batches_put_together_answer_as_sentences_alone_without_a_sublayer(sublayer, joins):  # noqa: F811
    model, rows = transformer(60), rows_of(texts(40))
    blocks = [block for name, block in _blocks(model) if name.startswith("decoder")]
    whole = said(search_all(translation_task(model, rows, asked(SEARCHES["greedy"])), ROOM))
    with _without(blocks[-1], _RESIDUALS[sublayer]) as found:
        assert found
        left = said(search_all(translation_task(model, rows, asked(SEARCHES["greedy"])), ROOM))
        assert left[:8] == said(one_by_one(model, rows[:8], SEARCHES["greedy"]))
    assert joins and left != whole
    assert said(search_all(translation_task(model, rows, asked(SEARCHES["greedy"])), ROOM)) == whole


def test_a_removed_sublayer_leaves_its_input_as_it_is():
    model = transformer(60)
    block = next(block for name, block in _blocks(model) if name == "encoder 1")
    x = torch.randn(2, 3, 5)
    with _without(block, "mlp_residual"):
        assert block.mlp_residual(x, torch.zeros_like) is x


@pytest.mark.parametrize("over", [np.mean, max])
def test_what_a_layer_is_worth_is_drawn_again_with_the_sentences(over):
    metric = METRICS["exact_match"]
    whole, left = ["a", "b", "c", "x"], (["a", "b", "x", "x"], ["a", "x", "x", "x"])
    lost = ScoreLost(metric, "without one", over)
    counts = lost.counts([whole, *left], ["a", "b", "c", "d"])
    found = scored(lost, counts)
    assert found.value == pytest.approx(over([100 / 3, 200 / 3])) and not found.higher_is_better
    drawn = next(samples(4))
    right = [
        (drawn * [text == wanted for text, wanted in zip(texts, "abcd", strict=True)]).sum() for texts in (whole, *left)
    ]
    expected = over([100 * (right[0] - one) / max(right[0], 1e-9) for one in right[1:]])
    assert found.resampled is not None and found.resampled[0] == pytest.approx(expected)
