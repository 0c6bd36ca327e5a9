"""Several steps of a search in one call of C equal as many steps by themselves, to the bit."""

import copy
from typing import get_args

import pytest
import torch
from by_kernels import needed, same_with_any_number_of_threads
from test_native import in_float32, native_of
from test_search import limit
from variants import VARIANTS, batch

from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search import search as searching
from dragoman.decode.search.batching import search_all
from dragoman.decode.search.beam import Beam, StopRule
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Gnmt, NoPenalty
from dragoman.decode.search.search import SearchBatch, search, start_batch
from dragoman.decode.search.task import translation_task
from dragoman.errors import CheckpointError
from dragoman.model.caches.cache import Cache, PooledCache
from dragoman.model.inference import walk as walking
from dragoman.model.inference.native import NativeTransformer
from dragoman.text.tokens.tokenizer import BOS, PAD

pytestmark = needed
SEARCHES = {
    "greedy": Greedy(limit=limit(40)),
    "greedy, cut": Greedy(limit=limit(5)),
    "beam": Beam(size=4, nbest=3, limit=limit(40)),
    "beam of one": Beam(size=1, limit=limit(40)),
    "beam, cut": Beam(size=3, nbest=2, penalty=Gnmt(), limit=limit(5)),
    "no penalty": Beam(size=5, penalty=NoPenalty(), limit=limit(40)),
    **{stop: Beam(size=2, stop=stop, limit=limit(12)) for stop in get_args(StopRule)},
}


@pytest.fixture(scope="module", params=["float32", "int8"])
def model(request):
    return native_of(in_float32("plain", "encoder-decoder"), request.param)


@pytest.fixture
def step_by_step(monkeypatch):
    """Run a function where each step is made by itself."""

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(searching, "WALKING", ())
            return function()

    return run


def sources(model, rows=7, longest=6):
    return batch(model, rows, 2, longest)[1]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_the_same_in_one_call_and_step_by_step(name, model, step_by_step):
    source = sources(model)
    assert search(model, source, SEARCHES[name]) == step_by_step(lambda: search(model, source, SEARCHES[name]))


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_batches_that_rest_and_are_joined_find_the_same(name, model, step_by_step):
    rows = [[i for i in row if i != PAD] for row in sources(model, 30).tolist()]

    def found():
        cfg = SEARCHES[name]
        return search_all(translation_task(model, rows, lambda numbers, source: (cfg, []), cfg=cfg), 24)

    assert found() == step_by_step(found)
    assert found() == [search(model, torch.tensor([row]), SEARCHES[name])[0] for row in rows]


@pytest.mark.parametrize("name", ["greedy", "beam", "beam of one"])
def test_single_steps_and_walks_may_take_turns(name, model, step_by_step):
    source, cfg = sources(model), SEARCHES[name]
    wanted = step_by_step(lambda: search(model, source, cfg))
    for turns in ("sa", "ssa", "as", "aass", "a"):
        started, made = start_batch(model, source, cfg), 0
        while True:
            turn = turns[made % len(turns)]
            choice = started.step() if turn == "s" else started.advance(most=2, few=len(source) - 2)
            made += 1
            if choice is None:
                break
        assert started.strategy.results() == wanted, turns
        assert started.steps >= max(len(found[0].tokens) for found in wanted)


def test_what_is_done_can_be_taken_between_walks(model):
    source, cfg = sources(model), SEARCHES["beam"]
    wanted, started, taken = search(model, source, cfg), start_batch(model, source, cfg), {}
    while True:
        choice = started.advance(most=3, few=len(started.strategy.sentence) - 1)
        taken |= started.strategy.take_finished()
        if choice is None:
            break
    assert [taken[i] for i in range(len(source))] == wanted


def test_a_walk_ends_as_soon_as_few_sentences_are_left(model):
    started = start_batch(model, sources(model), SEARCHES["greedy"])
    left, before = 7, 0
    while choice := started.advance(few=left - 1):
        assert len(choice.tokens) < left or started.steps - before == walking.STEPS
        left, before = len(choice.tokens), started.steps


@pytest.mark.parametrize("shape", ["encoder-decoder", "decoder-only"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_that_the_kernels_know_walks_as_it_steps_and_others_step(name, shape, step_by_step):
    ready = prepare_for_inference(copy.deepcopy(in_float32(name, shape)), "cpu", "float32")
    source = sources(ready, 3) if shape == "encoder-decoder" else None

    def started(cfg):
        strategy = cfg.start([5, 4, 5], torch.device("cpu"))
        return SearchBatch(ready, source, torch.tensor([[BOS], [5], [6]]), cfg, strategy, searching.DEFAULT, [])

    if type(ready) is not NativeTransformer or ready.logit_cap is not None:
        others = started(SEARCHES["greedy, cut"])
        others.advance()
        assert others.steps == 1
        return
    for cfg in (SEARCHES["greedy, cut"], SEARCHES["beam, cut"]):

        def found(cfg=cfg):
            batch = started(cfg)
            while batch.advance():
                pass
            return batch.strategy.results()

        assert found() == step_by_step(found)


def test_a_pool_that_is_full_makes_walks_shorter_and_not_wrong(model, step_by_step):
    source, cfg = sources(model, 3), SEARCHES["beam"]
    small = PooledCache(Cache(), capacity=3 * 4 * 45)
    assert search(model, source, cfg, small) == step_by_step(lambda: search(model, source, cfg))


def test_weights_that_are_no_numbers_are_said_so(model):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.decoder.final_norm.weight.fill_(torch.nan)
    broken = copy.deepcopy(broken)  # which reads the weights anew
    for cfg in (SEARCHES["greedy, cut"], SEARCHES["beam, cut"]):
        with pytest.raises(CheckpointError, match="NaN or infinity"):
            search(broken, sources(broken), cfg)


@pytest.mark.parametrize("numbers", ["float32", "int8"])
def test_a_search_is_the_same_with_any_number_of_threads(numbers):
    wide = native_of(in_float32("plain", "encoder-decoder"), numbers)
    source = sources(wide, rows=300, longest=7)  # enough of them that every loop of the kernels is shared
    found = []

    def searched():
        found.append([search(wide, source, cfg) for cfg in (SEARCHES["greedy, cut"], SEARCHES["beam, cut"])])
        return []

    same_with_any_number_of_threads(searched)
    assert found[0] == found[1]
