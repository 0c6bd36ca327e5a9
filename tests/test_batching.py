"""Batches of which much is done are put together: nobody's answer changes, and there are fewer steps."""

import gc

import pytest
import torch
from test_search import FAMILIES, Recurrent, limit, sources, transformer
from variants import ALONE, VARIANTS, assert_equal, batch, build, ids

from dragoman.config import from_dict
from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.search import search as searching
from dragoman.decode.search.batching import JOINING, search_all
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Gnmt
from dragoman.decode.search.rule import RowMemory, Rule, SearchStart
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.search.task import translation_task
from dragoman.model.caches.cache import SharedPages, parse_cache
from dragoman.model.caches.paged import PagePool
from dragoman.model.caches.storage import Unchanged
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bytes

# ---- answers ---------------------------------------------------------------------------------------

SEARCHES = {
    "greedy": Greedy(limit=limit(12)),
    "beam": Beam(size=4, nbest=3, limit=limit(12)),
    "gnmt, certain": Beam(size=3, nbest=2, stop="certain", penalty=Gnmt(), limit=limit(12)),
    "first": Beam(size=2, stop="first", limit=limit(12)),
    "diverse": DiverseBeam(size=4, groups=2, nbest=2, limit=limit(12)),
    "samples": Sample(samples=3, seed=4, limit=limit(12)),
}
CACHES = ["growing", "preallocated:2", "paged:3", "window:3:1", "paged:3+int8"]
ROOM = 40  # of 2 to 6 tokens each: room for about ten


def rows_of(sources):
    return [[i for i in row if i != PAD] for row in sources.tolist()]


class Patience(Rule):
    """A sentence is as good as over once it has some number of tokens, so that of a batch some are soon done and others
    run on."""

    def __init__(self, source):
        self.left = RowMemory(source.sum(dim=1) % 11)

    def apply(self, logits):
        return logits.index_add(1, torch.tensor([EOS]), 100.0 * (self.left.rows <= 0)[:, None])

    def follow(self, choice):
        self.left.follow(choice)
        self.left.rows = self.left.rows - 1

    def join(self, other):
        self.left.join(other.left)


def texts(count, vocab=60):
    return sources(vocab, count, seed=3)


def asked(cfg):
    return lambda numbers, source: (cfg, [Patience(source)])


def one_by_one(model, rows, cfg):
    return [search(model, s := torch.tensor([row]), cfg, rules=[Patience(s)])[0] for row in rows]


def said(found):
    return [[h.tokens for h in some] for some in found]


@pytest.fixture
def joins(monkeypatch):
    """How many steps the batches had made, each time that two were put together."""
    made, plain = [], searching.SearchBatch.join

    def join(self, other):
        made.append((self.strategy.steps, other.strategy.steps))
        plain(self, other)

    monkeypatch.setattr(searching.SearchBatch, "join", join)
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SEARCHES)
def test_batches_put_together_answer_as_those_that_shrink_and_as_sentences_alone(name, family, joins):
    model, rows, cfg = FAMILIES[family](60), rows_of(texts(40)), SEARCHES[name]
    found = search_all(translation_task(model, rows, asked(cfg)), ROOM)
    assert len(joins) > 1
    shrinking = search_all(translation_task(model, rows, asked(cfg)), ROOM, share=0.0)
    assert said(found) == said(shrinking)
    alone = one_by_one(model, rows[:8], cfg)
    assert said(found[:8]) == said(alone)
    for some, others in zip(found, alone, strict=False):
        for h, other in zip(some, others, strict=True):
            assert h.truncated == other.truncated
            assert (h.score, *h.token_log_probs) == pytest.approx((other.score, *other.token_log_probs), abs=2e-5)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_every_cache_takes_in_rows_of_another_age(name, cache, joins):
    model, rows, cfg = transformer(60), rows_of(texts(30)), SEARCHES[name]
    found, shrinking = (
        search_all(translation_task(model, rows, asked(cfg), parse_cache(cache)), ROOM, share=share)
        for share in (0.5, 0.0)
    )
    assert any(a != b for a, b in joins)
    assert said(found) == said(shrinking)


RULES = [
    {"kind": "repetition_penalty", "factor": 3.0},
    {"kind": "count_penalty", "presence": 2.0, "frequency": 1.0},
    {"kind": "no_repeat", "tokens": 2},
    {"kind": "minimum_length", "tokens": 4},
    {"kind": "forbidden", "tokens": (5, 9, 11)},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["kind"])
@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_rules_follow_rows_of_every_age(name, rule, joins):
    model, rows, cfg = Recurrent(60), rows_of(texts(40)), SEARCHES[name]
    rule = from_dict(RuleConfig, rule)

    def ruled(numbers, source):
        return cfg, [rule.start(SearchStart(source.new_full((len(source), 1), BOS), source)), Patience(source)]

    found = search_all(translation_task(model, rows, ruled), ROOM)
    assert joins
    assert (
        said(found)
        == said(search_all(translation_task(model, rows, ruled), ROOM, share=0.0))
        != said(one_by_one(model, rows, cfg))
    )


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_beginnings_are_kept_by_rows_of_every_age(name, joins):
    tokenizer = Tokenizer.train(Bytes(), [])
    model, rows = Recurrent(len(tokenizer), sharpness=0.7), rows_of(texts(40))
    begins = [Beginning(tuple(range(10, 10 + i % 6)), b"ab"[: i % 3]) for i in range(40)]
    vocabulary = SpelledVocabulary(tokenizer)

    def begun(numbers, source):
        forced = ForcedBeginning([begins[i] for i in numbers], vocabulary, source.device)
        return SEARCHES[name], [Patience(source), forced]

    found = search_all(translation_task(model, rows, begun), ROOM)
    assert joins
    assert said(found) == said(search_all(translation_task(model, rows, begun), ROOM, share=0.0))
    for [first, *_], beginning in zip(found, begins, strict=True):
        assert first.tokens[: len(beginning.ids)] == beginning.ids


def test_a_search_that_keeps_its_batch_is_left_alone(joins):
    model, rows, cfg = transformer(60), rows_of(texts(12)), CoveringBeam(size=3, limit=limit(9))
    assert type(cfg) not in JOINING
    found = search_all(translation_task(model, rows, asked(cfg)), ROOM // 2)
    assert not joins and said(found) == said(one_by_one(model, rows, cfg))


# ---- batches without an end --------------------------------------------------------------------------


def endless(model, rows, cfg, most, ended=()):
    """Each sentence in a batch of its own that joins the others a step or two after the last; results are taken as they
    come."""
    waiting, running, numbers, found = list(range(len(rows))), None, [], {}
    while waiting or running:
        if waiting and (running is None or running.strategy.sentence.numel() < most):
            source = torch.tensor([rows[waiting[0]]])
            fresh = searching.start_batch(model, source, cfg, rules=[Patience(source)])
            fresh.step()
            numbers.append(waiting.pop(0))
            if fresh.choice is None:
                found[numbers.pop()] = fresh.strategy.results()[0]
            elif running is None:
                running, numbers = fresh, numbers[-1:]
            else:
                running.join(fresh)
            if len(numbers) - 1 in ended and running is not None:
                running.strategy.end_early([len(numbers) - 1])
        if running is not None:
            running.step()
            found |= {numbers[i]: some for i, some in running.strategy.take_finished().items()}
            running = running if running.choice else None
    return [found[i] for i in range(len(rows))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SEARCHES)
def test_sentences_that_join_and_leave_a_batch_at_any_step_answer_as_alone(name, family):
    model, rows, cfg = FAMILIES[family](60), rows_of(texts(24)), SEARCHES[name]
    with model.without_dropout():
        found = endless(model, rows, cfg, most=5)
    assert said(found) == said(one_by_one(model, rows, cfg))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_sentence_that_is_ended_early_leaves_and_changes_no_other(name):
    model, rows, cfg = transformer(60), rows_of(texts(12)), SEARCHES[name]
    with model.without_dropout():
        whole, cut = (endless(model, rows, cfg, most=12, ended=ended) for ended in [(), (3, 6)])
    changed = [i for i, (a, b) in enumerate(zip(whole, cut, strict=True)) if said([a]) != said([b])]
    assert set(changed) <= {3, 6} and max(len(h.tokens) for i in (3, 6) for h in cut[i]) <= 4


def test_a_batch_without_an_end_holds_only_what_its_sentences_need():
    model, cfg, sizes = transformer(60), SEARCHES["beam"], []
    batch = None
    for row in rows_of(texts(60)):
        source = torch.tensor([row])
        fresh = searching.start_batch(model, source, cfg, rules=[Patience(source)])
        fresh.step()
        if fresh.choice and batch and batch.choice:
            batch.join(fresh)
        elif fresh.choice:
            batch = fresh
        batch.step()
        batch.strategy.take_finished()
        sizes.append(len(batch.strategy.backpointers.ended.counts))
    assert max(sizes) <= 2 * 12


# ---- steps -----------------------------------------------------------------------------------------


def steps(model, rows, share):
    counted, plain = [], model.decode
    model.decode = lambda tokens, state: counted.append(len(tokens)) or plain(tokens, state)
    search_all(translation_task(model, rows, asked(SEARCHES["greedy"])), ROOM, share=share)
    model.decode = plain
    return len(counted), sum(counted)


def test_there_are_fewer_steps_and_no_more_rows():
    model, rows = Recurrent(60), rows_of(texts(200))
    together, shrinking = steps(model, rows, 0.5), steps(model, rows, 0.0)
    assert together[0] < 0.8 * shrinking[0] and together[1] == shrinking[1]


def test_sentences_that_end_together_are_never_put_together(joins):
    model, rows = Recurrent(60), [[7, 9, EOS]] * 60
    assert steps(model, rows, 0.5) == steps(model, rows, 0.0)
    assert not joins


def test_progress_counts_what_is_done():
    calls = []
    search_all(
        translation_task(Recurrent(60), rows_of(texts(50)), asked(SEARCHES["beam"])), ROOM, progress=calls.append
    )
    assert calls == sorted(calls) and calls[-1] == 50 and len(set(calls)) > 5
    assert search_all(translation_task(Recurrent(60), [], asked(SEARCHES["beam"])), ROOM) == []


# ---- states ----------------------------------------------------------------------------------------

JOINED = [(name, "encoder-decoder", "growing") for name in VARIANTS] + [(*alone, "paged:3") for alone in ALONE]
JOINED += [
    (name, "encoder-decoder", cache)
    for name in ("plain", "window, sinks", "window 1", "rotary dynamic")
    for cache in ("preallocated:4", "paged:3")
]


@pytest.mark.parametrize(("variant", "shape", "cache"), JOINED)
@torch.no_grad()
def test_rows_of_states_that_were_joined_go_on_as_they_would_have(variant, shape, cache):
    """Three states of other ages and source lengths, the younger before the older and behind; then some rows leave, the
    oldest among them, and another state joins."""
    model = build(variant, shape)
    texts, states = [], []
    for rows, length, width in ((2, 4, 5), (3, 9, 3), (1, 2, 6), (2, 3, 4)):
        target, source = batch(model, rows, length, width)
        state = model.start(source, parse_cache(cache))
        model.decode(target, state)
        states.append(state)
        texts += zip(target, [None] * rows if source is None else source, strict=True)

    def say(state, texts):
        new = ids(len(texts), 1)
        texts = [(torch.cat([row, token]), source) for (row, source), token in zip(texts, new, strict=True)]
        want = [model(row[None], None if s is None else s[None])[0, -1] for row, s in texts]
        assert_equal(model.decode(new, state)[:, 0], torch.stack(want))
        return texts

    first, second, third, fourth = states
    first.join(second)
    first.join(third)
    going = say(first, say(first, texts[:6]))
    first.select(torch.tensor([5, 0]))
    going = say(first, [going[5], going[0]])
    first.join(fourth)
    for _ in range(3):
        going = say(first, going if len(going) == 4 else going + texts[6:])
    assert first.length == max(len(row) for row, _ in going)


@pytest.mark.parametrize(
    ("variant", "shape"), [("plain", "decoder-only"), *(a for a in ALONE if VARIANTS[a[0]].mixers)]
)
@pytest.mark.parametrize("age", [0, 1, 6])
@torch.no_grad()
def test_the_last_row_of_a_batch_is_joined_whatever_it_was_beside(variant, shape, age):
    """A row that was padded beside a longer text, or was beside a shorter one, is left alone; another joins it then."""
    model = build(variant, shape)
    for kept, gone in ((4, 1), (1, 4)):
        row, new = ids(1, kept + 2 + age), ids(1, 5)
        first, beside, other = (model.start(None) for _ in range(3))
        model.decode(row[:, :kept], first)
        model.decode(ids(1, gone), beside)
        first.join(beside)
        model.decode(torch.cat([row[:, kept : kept + 1], ids(1, 1)]), first)
        first.select(torch.tensor([0]))
        for i in range(kept + 1, kept + 1 + age):
            model.decode(row[:, i : i + 1], first)
        model.decode(new[:, :4], other)
        first.join(other)
        got = model.decode(torch.cat([row[:, -1:], new[:, -1:]]), first)
        assert_equal(got[:, 0], torch.cat([model(row)[:, -1], model(new)[:, -1]]))


@torch.no_grad()
def test_pages_that_were_joined_go_back_to_the_pool():
    pool, model = PagePool(2), build("plain", "decoder-only")
    states = []
    for rows, length in ((2, 7), (3, 2), (1, 12)):
        states.append(model.start(None, SharedPages(pool, Unchanged())))
        model.decode(ids(rows, length), states[-1])
    first, *others = states
    for other in others:
        first.join(other)
    del states, others, other
    gc.collect()
    model.decode(ids(6, 1), first)
    held = torch.cat([layer.layout.table.flatten() for layer in first.tower.layers])
    assert torch.equal(pool.reference_counts, torch.bincount(held, minlength=len(pool.reference_counts)))
    del first
    gc.collect()
    assert pool.used == 0
