"""The engine of a service: many requests at a time, each answered as if it were alone, within a bound of memory."""

import asyncio
import gc
import random
import threading
import weakref
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_asked_twice import plain
from test_generator import BYTES, language_model
from test_search import transformer

from dragoman.config import from_dict
from dragoman.decode.constraints.repetition import Forbidden, MinimumLength, NoRepeat
from dragoman.decode.documents.placeholders import translate_texts
from dragoman.decode.generator import Generator
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.rule import TokenMemory
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchBatch
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import Choice, LengthLimit
from dragoman.decode.search.task import translation_task
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import DEFAULT, PooledCache, parse_cache
from dragoman.model.families import ModelConfig
from dragoman.model.inference.native import NativeTransformer
from dragoman.model.mamba import Mamba
from dragoman.model.masks.visibility import Causal
from dragoman.model.mlp import FeedForward, NoFeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned, NoEmbedding
from dragoman.model.positions.rotary import LongRope, NoScaling, Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.serve.engine.engine import Engine
from dragoman.serve.engine.group import Group
from dragoman.serve.engine.pages import Tally
from dragoman.serve.engine.prefixes import SHORTEST, PrefixCache
from dragoman.serve.engine.requests import INTERACTIVE, Call, Row, Ticket, Waiter
from dragoman.serve.engine.turns import Turns
from dragoman.serve.errors import DeadlinePassed, Draining, Overloaded, TooLarge, UnknownModel, WrongTask
from dragoman.serve.served import ServedModel, languages
from dragoman.serve.service import GenerateOptions, Service, TranslateOptions
from dragoman.text.tokens.tokenizer import EOS, PAD

WORDS = "the red house sees one big dog and two small cats under a blue tree".split()  # noqa: SIM905
LIMIT = LengthLimit(tokens=14, ratio=0.0, extra=14)


def served(name, model):
    tasks = {Translator: "translate", Generator: "generate", Classifier: "classify", Embedder: "embed"}
    task = tasks[type(model)]
    return ServedModel(name, Path(name), task, model, "", "", (), 0, "step-000001")


def translator(**how):
    return Translator(prepare_for_inference(transformer(len(BYTES)), **how), BYTES, BYTES)


def generator(**model):
    return Generator(prepare_for_inference(language_model(**model)), BYTES)


def texts(count, seed=1):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


def serving(work, *models, **options):
    """Run ``work(service)`` against a service of these models."""

    async def run():
        service = Service([served(name, model) for name, model in models], **options)
        try:
            return await asyncio.wait_for(work(service), 60)
        finally:
            service.close()

    return asyncio.run(run())


def translated_alone(model, asked, search, **options):
    """What `dragoman translate` makes of each text by itself."""

    def ask(questions, search=search, progress=None):
        return model.translate(questions, search=search, **options)

    def more(questions, _):
        return ask(questions, search=Beam(size=max(5, search.size), nbest=max(5, search.size)))

    return [translate_texts([text], ask, require=more)[0] for text in asked]


def said(translations):
    return [[(c.text, c.tokens) for c in translation.candidates] for translation in translations]


SEARCHES = {
    "greedy": Greedy(limit=LIMIT),
    "beam": Beam(size=4, nbest=3, limit=LIMIT),
    "diverse": DiverseBeam(size=4, groups=2, nbest=2, limit=LIMIT),
    "samples": Sample(samples=2, temperature=0.8, seed=3, limit=LIMIT),
    "minimum risk": MinimumBayesRisk(sampling=Sample(samples=4, limit=LIMIT)),
    "coverage": CoveringBeam(size=3, limit=LIMIT),
}


# ---- the same answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["kernels", "PyTorch"])
def test_translations_under_load_are_those_made_alone(path):
    model = translator() if path == "kernels" else Translator(transformer(len(BYTES)), BYTES, BYTES)
    assert isinstance(model.model, NativeTransformer) == (path == "kernels")
    asked = [(name, text) for name in SEARCHES for text in texts(4)]
    random.Random(2).shuffle(asked)
    alone = [translated_alone(model, [text], SEARCHES[name])[0] for name, text in asked]

    async def work(service):
        return await asyncio.gather(
            *(service.translate("es", [text], TranslateOptions(search=SEARCHES[name])) for name, text in asked)
        )

    assert said([found for [found] in serving(work, ("es", model))]) == said(alone)


def test_constraints_rules_and_alignments_share_the_engine():
    model, asked = translator(), texts(6)
    options = TranslateOptions(search=SEARCHES["beam"], rules=(NoRepeat(tokens=2),), alignments=True)
    bound = [Request(text, prefix="a", required=(("dog",),)) for text in asked]

    async def work(service):
        return await asyncio.gather(
            *(service.translate("es", [text], options) for text in asked),
            *(service.translate("es", [request], TranslateOptions(search=SEARCHES["beam"])) for request in bound),
            service.translate("es", asked, TranslateOptions(search=SEARCHES["beam"])),
        )

    *found, last = serving(work, ("es", model))
    settings = {"search": SEARCHES["beam"]}
    alone = translated_alone(model, asked, SEARCHES["beam"], rules=options.rules, alignments=True)
    assert said([one for [one] in found[:6]]) == said(alone)
    assert [one.candidates[0].alignment for [one] in found[:6]] == [one.candidates[0].alignment for one in alone]
    assert said([one for [one] in found[6:]]) == said(model.translate(bound, **settings))
    assert said(last) == said(translated_alone(model, asked, SEARCHES["beam"]))


LANGUAGE_MODELS = {"kernels": {}, "window": {"window": 4}}


@pytest.mark.parametrize("model", LANGUAGE_MODELS)
@pytest.mark.parametrize("search", [Greedy(), Sample(samples=2, seed=1), Beam(size=3, nbest=2)], ids=lambda s: s.kind)
def test_continuations_under_load_are_those_made_alone(model, search):
    model = generator(**LANGUAGE_MODELS[model])
    prompts = [f"{'A system prompt of some length. ' * (i % 3)}{text}" for i, text in enumerate(texts(10))]
    alone = model.generate(prompts, search=search, max_new_tokens=12, stop=["ee"])

    async def work(service):
        options = GenerateOptions(search=search, max_new_tokens=12, stop=("ee",))
        return await asyncio.gather(*(service.generate("lm", [prompt], options) for prompt in prompts))

    found = serving(work, ("lm", model))
    assert [[c.tokens for c in one.continuations] for [one] in found] == [
        [c.tokens for c in one.continuations] for one in alone
    ]
    assert [one.text for [one] in found] == [one.text for one in alone]


@pytest.mark.parametrize("search", [Greedy(), Sample(seed=5)], ids=lambda s: s.kind)
def test_pieces_of_a_stream_join_to_the_continuation(search):
    model, prompts = generator(), texts(6)
    alone = model.generate(prompts, search=search, max_new_tokens=16, stop=["q"])

    async def read(service, prompt):
        options = GenerateOptions(search=search, max_new_tokens=16, stop=("q",))
        return [piece async for piece in service.stream("lm", prompt, options)]

    async def work(service):
        return await asyncio.gather(*(read(service, prompt) for prompt in prompts))

    for pieces, one in zip(serving(work, ("lm", model)), alone, strict=True):
        [best] = one.continuations
        assert "".join(piece.text for piece in pieces) == best.text
        assert sum((piece.tokens for piece in pieces), ()) == best.tokens
        assert sum((piece.log_probs for piece in pieces), ()) == pytest.approx(best.token_log_probs, abs=2e-5)
        assert [piece.ended for piece in pieces[:-1]] == [None] * (len(pieces) - 1) and pieces[-1].ended == best.ended


def mamba():
    block = BlockConfig(mixer=Mamba(state=4), mlp=NoFeedForward(), norm=LayerNorm())
    return language_model(decoder=TowerConfig(depth=2, pattern=(block,)), position=NoEmbedding())


def test_recurrent_states_are_served_as_well():
    model, prompts = Generator(mamba(), BYTES), texts(5)
    alone = model.generate(prompts, search=Greedy(), max_new_tokens=8)

    async def work(service):
        options = GenerateOptions(search=Greedy(), max_new_tokens=8)
        return await asyncio.gather(*(service.generate("lm", [prompt], options) for prompt in prompts))

    assert [one.text for [one] in serving(work, ("lm", model))] == [one.text for one in alone]


@pytest.mark.parametrize("cache", ["paged:4+int8", "growing", "preallocated+bfloat16"])
def test_every_cache_serves(cache):
    model, prompts = generator(), texts(4)
    alone = model.generate(prompts, search=Greedy(), max_new_tokens=8, cache=cache)

    async def work(service):
        options = GenerateOptions(search=Greedy(), max_new_tokens=8)
        return await asyncio.gather(*(service.generate("lm", [prompt], options) for prompt in prompts))

    assert [one.text for [one] in serving(work, ("lm", model), cache=cache)] == [one.text for one in alone]


def test_readers_read_the_texts_of_many_requests_together(monkeypatch):
    content = plain("classifier") | {"data": {"longest": 32}}
    model = Classifier(from_dict(ModelConfig, content["model"]).build().eval(), BYTES, content)
    together, of_rows, asked = [], model.of_rows, texts(12)
    monkeypatch.setattr(model, "of_rows", lambda rows, *rest: together.append(len(rows)) or of_rows(rows))
    alone = model.classify(asked)
    together.clear()

    async def work(service):
        held = service.engine.turns.take()
        with held:
            tasks = [asyncio.ensure_future(service.classify("topic", [text])) for text in asked]
            while len(service.engine.reading) < 12:
                await asyncio.sleep(0.005)
        return await asyncio.gather(*tasks), await service.embed("vectors", asked)

    vectors = Embedder(model.model, BYTES, content)
    found, embedded = serving(work, ("topic", model), ("vectors", vectors))
    assert [one.label for [one] in found] == [one.label for one in alone]
    assert [one.probability for [one] in found] == pytest.approx([one.probability for one in alone], abs=1e-6)
    assert max(together) > 6
    torch.testing.assert_close(torch.tensor(embedded), vectors.embed(asked), atol=1e-6, rtol=1e-5)


# ---- prefixes and long prompts ----------------------------------------------------------------------


def test_a_prefix_is_read_and_kept_once():
    model, head = generator(), "You are a careful assistant who answers in one word. " * 20
    read = []

    async def work(service):
        decode = model.model.decode
        model.model.decode = lambda tokens, state: (
            read.append(tokens.ids.shape[1] if hasattr(tokens, "ids") else 1) or decode(tokens, state)
        )
        options = GenerateOptions(search=Greedy(), max_new_tokens=1)
        found = [await service.generate("lm", [head + text], options) for text in texts(5)]
        return found, service.stats().engine

    found, stats = serving(work, ("lm", model), memory=None)
    del model.model.decode
    assert stats.prefix_hits >= 4
    assert sum(read) < 1.5 * len(head)
    alone = model.generate([head + text for text in texts(5)], search=Greedy(), max_new_tokens=1)
    assert [one.text for [one] in found] == [one.text for one in alone]


def test_a_long_prompt_does_not_hold_up_the_others():
    model, order = generator(), []

    async def ask(service, name, prompt, tokens):
        await service.generate("lm", [prompt], GenerateOptions(search=Greedy(), max_new_tokens=tokens))
        order.append(name)

    async def work(service):
        long = asyncio.ensure_future(ask(service, "long", "once upon a time " * 400, 1))
        await asyncio.sleep(0.005)
        await asyncio.gather(ask(service, "short", "a", 3), long)

    serving(work, ("lm", model))
    assert order == ["short", "long"]


def test_prefixes_are_forgotten_oldest_first():
    kept = PrefixCache(tokens=100)
    for start in (0, 1000, 2000):
        kept.keep(range(start, start + 40), Forked(40))
    assert kept.tokens == 80 and kept.find([*range(0, 40), 7]) is None
    assert kept.find([*range(1000, 1040), 7]).length == 40
    assert kept.find(range(1000, 1040)).length == 39  # the last token is read again, for its logits
    assert kept.find([*range(2000, 2015), 7]) is None  # shorter than is worth a copy


class Forked:
    """State of a prompt, of which forks are made."""

    def __init__(self, tokens):
        self.length = tokens

    def fork(self, tokens):
        return Forked(tokens)


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=12), st.lists(st.integers(0, 2), max_size=6))
def test_the_prefix_that_is_found_is_the_longest_in_common(tails, asked):
    head = tuple(range(10, 10 + SHORTEST))
    cache, kept = PrefixCache(tokens=10_000), list[tuple[int, ...]]()
    for tail in tails:
        ids = (*head, *tail)
        cache.keep(ids, Forked(len(ids)))
        if ids not in kept:
            kept = [other for other in kept if ids[: len(other)] != other] + [ids]  # no need of what begins another
    assert cache.tokens == sum(map(len, kept))
    ids = (*head, *asked, 99)
    found = cache.find(ids)
    assert (found.length if found else 0) == max((common(other, ids) for other in kept), default=0)


def test_looking_up_a_prefix_compares_with_few_of_those_that_are_kept():
    compared = 0

    class Token(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return int(self) == int(other)

        def __ne__(self, other):
            return not self == other

    def prompt(number):
        return [Token(n) for n in (*range(100), number)]

    cache = PrefixCache(tokens=100_000)
    for number in range(500):
        cache.keep(prompt(number), Forked(101))
    compared = 0
    assert cache.find([*prompt(250), Token(7)]).length == 101
    assert compared < 100 * 20  # and not 100 * 500


@pytest.mark.parametrize("scaling", [NoScaling(), LongRope(trained=1000, short=(1.0,) * 4, long=(2.0,) * 4)])
def test_a_model_that_was_swapped_is_freed(monkeypatch, scaling):
    def new():
        mixer = AttentionConfig(heads=2, visibility=Causal(), position=Rotary(scaling=scaling))
        block = BlockConfig(mixer=mixer, mlp=FeedForward(hidden=24), norm=LayerNorm())
        return generator(decoder=TowerConfig(depth=2, pattern=(block,)))

    async def work(service):
        options = GenerateOptions(search=Greedy(), max_new_tokens=2)
        for text in ("a", "b"):
            await service.generate("lm", ["once upon a time there was " + text], options)
        assert service.stats().engine.prefix_hits
        old = weakref.ref(service.models["lm"].model.model)
        await service.swap("lm", "lm")
        await service.generate("lm", ["a"], options)
        gc.collect()
        return old() is None

    monkeypatch.setattr(ServedModel, "load", lambda name, path, **how: served(name, new()))

    async def run():
        service = Service([served("lm", new())])
        try:
            return await asyncio.wait_for(work(service), 60)
        finally:
            service.close()

    assert asyncio.run(run())


def test_states_that_keep_no_tokens_apart_have_no_forks():
    with torch.inference_mode():
        for model, cache in [(mamba(), "growing"), (generator(window=4).model, "growing")]:
            state = model.start(None, parse_cache(cache))
            model.decode(torch.tensor([[5, 6, 7, 8, 9, 10, 11]]), state)
            assert state.fork(3) is None


# ---- memory -----------------------------------------------------------------------------------------


def test_rows_wait_for_memory_and_the_bound_holds():
    model, asked = translator(), texts(40)
    alone = translated_alone(model, asked, SEARCHES["beam"])
    most = []

    async def work(service):
        writer = service.engine.writers[model.model]
        writer.memory = int(3.5 * Tally(writer.cost, [row_of(model)]).nbytes)
        options = TranslateOptions(search=SEARCHES["beam"])

        async def one(text):
            found = await service.translate("es", [text], options)
            most.append(service.stats().engine)
            return found[0]

        return await asyncio.gather(*map(one, asked)), writer.memory

    found, memory = serving(work, ("es", model))
    assert said(found) == said(alone)
    assert max(stats.running for stats in most) <= 8 and max(stats.reserved for stats in most) <= memory


def row_of(model):
    """A row that needs as much memory as a text may."""
    task = translation_task(model.model, [[5] * 45], lambda *_: (SEARCHES["beam"], []), cfg=SEARCHES["beam"])
    return Row(task, 0, Waiter(1, Ticket(Call())))


def test_a_request_larger_than_the_memory_is_refused_with_what_it_needs():
    model = translator()

    async def work(service):
        service.engine.writers[model.model].memory = 1000
        with pytest.raises(TooLarge, match=r"needs \d+\.\d MB of cache and the service has 0\.0 MB: .*--memory"):
            await service.translate("es", ["the red house"], TranslateOptions())

    serving(work, ("es", model))


def test_less_memory_than_the_models_take_says_how_much_does():
    with pytest.raises(ConfigError, match=r"--memory: 1 MiB do not suffice: .*give at least \d+ MiB"):
        Service([served("es", translator())], memory=1 << 20)


def test_pages_come_back_to_zero():
    model, asked = translator(), texts(30)

    async def work(service):
        await service.translate("es", asked, TranslateOptions())
        while service.engine.groups:  # answers are delivered before a round ends
            await asyncio.sleep(0.01)
        gc.collect()
        [pool] = service.engine.writers[model.model].policy.pools.values()
        with torch.inference_mode():
            pool.compact()
        return pool.used, service.stats()

    used, stats = serving(work, ("es", model))
    assert used == 0 and (stats.requests, stats.engine.running, stats.engine.waiting) == (0, 0, 0)


def test_states_that_share_a_pool_keep_what_each_has_read():
    model = generator().model
    policy, states, plain = PooledCache(DEFAULT), [], []
    for i in range(6):
        ids = torch.randint(5, 200, (1, 9 + 5 * i), generator=torch.Generator().manual_seed(i))
        state, own = model.start(None, policy), model.start(None)
        with torch.inference_mode():
            model.decode(ids, state), model.decode(ids, own)
        if i % 2:
            del state
        else:
            states.append(state)
            plain.append(own)
    for state, own in zip(states, plain, strict=True):
        with torch.inference_mode():
            a, b = (model.decode(torch.tensor([[9]]), one) for one in (state, own))
        torch.testing.assert_close(a, b)
    [pool] = policy.pools.values()
    assert set(pool.users) == set(states)


def test_models_share_the_memory_in_equal_parts():
    async def work(service):
        return [writer.memory for writer in service.engine.writers.values()], service.engine.memory

    shares, memory = serving(work, ("es", translator()), ("lm", generator()))
    assert shares == [memory // 2] * 2


@pytest.mark.parametrize("position", [Rotary(), None], ids=["rotary", "learned"])
def test_a_batch_that_is_joined_for_ever_stays_as_wide_as_its_rows(position):
    """The longest row had 8 tokens, and the batch read 200."""
    learned = {"decoder": TowerConfig(depth=1, pattern=(plain_block(),)), "position": Learned(length=16)}
    made = language_model() if position else language_model(**learned)
    model, states = prepare_for_inference(made), []
    with torch.inference_mode():
        state = model.start(None)
        model.decode(torch.tensor([[5]]), state)
        for step in range(200):
            model.decode(torch.full((len(state.table), 1), 7), state)
            if step % 2 == 0:
                fresh = model.start(None)
                model.decode(torch.tensor([[6]]), fresh)
                state.join(fresh)
                state.select(torch.arange(len(state.table))[-4:])
            states.append((state.length, state.table.shape[1]))
    assert isinstance(model, NativeTransformer)
    assert max(length for length, _ in states) <= 10 and max(width for _, width in states) <= 32


def plain_block():
    mixer = AttentionConfig(heads=2, visibility=Causal())
    return BlockConfig(mixer=mixer, mlp=FeedForward(hidden=24), norm=LayerNorm())


def test_tokens_that_no_row_has_any_more_are_forgotten():
    memory = TokenMemory(torch.tensor([[3, 4, 5, 6], [PAD, PAD, 7, 8]]))
    memory.append(Choice(torch.tensor([1]), None, torch.tensor([9])))
    memory.join(TokenMemory(torch.tensor([[PAD, 5]])))
    assert memory.rows.tolist() == [[7, 8, 9], [PAD, PAD, 5]]


def test_a_request_that_cannot_be_met_disturbs_no_other():
    model, asked = translator(), texts(4)
    impossible = Request("the red house", required=(("dog",),), forbidden=("dog",))
    options = TranslateOptions(search=SEARCHES["beam"])

    async def work(service):
        return await asyncio.gather(
            service.translate("es", [impossible], options),
            *(service.translate("es", [text], options) for text in asked),
            return_exceptions=True,
        )

    refused, *found = serving(work, ("es", model))
    assert isinstance(refused, DataError)
    assert said([one for [one] in found]) == said(translated_alone(model, asked, SEARCHES["beam"]))


@pytest.mark.parametrize(
    "search", [Greedy(), Sample(samples=2, seed=1), Beam(size=3, nbest=2), Speculative()], ids=lambda s: s.kind
)
def test_a_text_that_the_rules_allow_no_token_disturbs_no_other(search):
    model, letters = generator(), BYTES.encode("abcd")
    others = [token for token in range(EOS + 1, len(BYTES)) if token not in letters]
    rules = (NoRepeat(tokens=1), Forbidden(tokens=tuple(others)), MinimumLength(tokens=3))
    asked = ["a", "abcd", "x", "bcda", "c", "acbd"]  # those that have all four letters leave none
    asked += ["xab", "xabd"]  # two can be said, which is too few; and one

    async def work(service):
        options = GenerateOptions(search=search, max_new_tokens=4, rules=rules)
        return await asyncio.gather(
            *(service.generate("lm", [prompt], options) for prompt in asked), return_exceptions=True
        )

    for prompt, found in zip(asked, serving(work, ("lm", model)), strict=True):
        if sum(letter in prompt for letter in "abcd") > 1:
            assert isinstance(found, ConfigError) and "forbid every possible" in str(found), (prompt, found)
        else:
            [alone] = model.generate([prompt], search=search, rules=rules, max_new_tokens=4)
            assert [c.tokens for c in found[0].continuations] == [c.tokens for c in alone.continuations]


@pytest.mark.parametrize("search", [Speculative(), Speculative(search=Sample(seed=2))], ids=lambda s: s.search.kind)
def test_speculation_is_served_with_whole_prompts(search):
    model, prompts = generator(), [f"{'again and again ' * 30}{text}" for text in texts(3)]
    alone = model.generate(prompts, search=search, max_new_tokens=12)

    async def work(service):
        options = GenerateOptions(search=search, max_new_tokens=12)
        return await asyncio.gather(*(service.generate("lm", [prompt], options) for prompt in prompts))

    assert [one.text for [one] in serving(work, ("lm", model))] == [one.text for one in alone]


def test_a_deadline_is_heard_while_the_request_still_waits():
    model = translator()

    async def work(service):
        options = TranslateOptions(search=SEARCHES["beam"])
        long = asyncio.ensure_future(service.translate("es", texts(60), options))
        await asyncio.sleep(0.02)
        writer = service.engine.writers[model.model]
        writer.memory = int(1.5 * Tally(writer.cost, [row_of(model)]).nbytes)
        with pytest.raises(DeadlinePassed):
            await service.translate("es", ["the red house"], options, Call(deadline=0.001))
        done = long.done()
        await long
        return done

    assert not serving(work, ("es", model))


@pytest.mark.parametrize("cache", ["preallocated", "growing", "preallocated:4+int8", "paged:3"])
def test_a_fork_reads_on_by_itself(cache):
    model, ids = generator().model, torch.randint(5, 200, (1, 20), generator=torch.Generator().manual_seed(0))
    policy = parse_cache(cache)
    with torch.inference_mode():
        state = model.start(None, policy)
        model.decode(ids, state)
        fork = state.fork(12)
        apart, together = (model.decode(torch.tensor([[7, 8]]), one) for one in (fork, state))
        own = model.start(None, policy)
        model.decode(ids[:, :12], own)
        torch.testing.assert_close(apart, model.decode(torch.tensor([[7, 8]]), own))
        assert not torch.equal(apart, together)


# ---- requests that are given up ------------------------------------------------------------------------


def test_a_client_that_leaves_changes_no_other_answer():
    model, asked = translator(), texts(30)
    options = TranslateOptions(search=SEARCHES["beam"])
    alone = translated_alone(model, asked, SEARCHES["beam"])

    async def work(service):
        tasks = [asyncio.ensure_future(service.translate("es", [text], options)) for text in asked]
        await asyncio.sleep(0.01)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        while service.stats().engine.running:
            await asyncio.sleep(0.005)
        return found, service.stats()

    found, stats = serving(work, ("es", model))
    for i, (one, other) in enumerate(zip(found, alone, strict=True)):
        assert (
            isinstance(one, asyncio.CancelledError)
            if i % 3 == 0 and not isinstance(one, list)
            else said(one) == said([other])
        )
    assert stats.requests == 0


def test_a_deadline_ends_a_request():
    model = generator()

    async def work(service):
        options = GenerateOptions(search=Sample(), max_new_tokens=100_000)
        with pytest.raises(DeadlinePassed, match=r"not done within the deadline of 0\.05 s"):
            await service.generate("lm", ["a"], options, Call(deadline=0.05))
        return service.stats()

    assert serving(work, ("lm", model)).engine.running <= 1


def test_interactive_requests_start_before_bulk():
    model, order = translator(), []

    async def ask(service, name, asked, call):
        await service.translate("es", asked, TranslateOptions(search=SEARCHES["greedy"]), call)
        order.append(name)

    async def work(service):
        bulk = asyncio.ensure_future(ask(service, "bulk", texts(400, seed=9), Call("bulk")))
        await asyncio.sleep(0.02)
        await asyncio.gather(ask(service, "interactive", texts(1), Call()), bulk)

    serving(work, ("es", model))
    assert order == ["interactive", "bulk"]


def test_a_full_queue_refuses_and_says_when_to_come_back():
    model = translator()

    async def work(service):
        found = await asyncio.gather(
            *(service.translate("es", [text], TranslateOptions()) for text in texts(6)), return_exceptions=True
        )
        refused = [one for one in found if isinstance(one, Overloaded)]
        assert len(refused) == 4 and all(1 <= one.retry_after <= 60 for one in refused)
        assert service.stats().refused == 4

    serving(work, ("es", model), queue=2)


def test_a_stream_that_is_not_taken_says_so():
    async def read(service):
        return [piece async for piece in service.stream("lm", "a", GenerateOptions(max_new_tokens=2))]

    async def work(service):
        with service.place(INTERACTIVE), pytest.raises(Overloaded):
            await asyncio.wait_for(read(service), 20)
        assert (await read(service))[-1].ended
        service.draining = True
        with pytest.raises(Draining):
            await asyncio.wait_for(read(service), 20)

    serving(work, ("lm", generator()), queue=1)


def test_a_request_that_asks_several_times_has_one_place():
    options = GenerateOptions(max_new_tokens=2)

    async def work(service):
        with service.place(INTERACTIVE) as call:
            found = await asyncio.gather(*(service.generate("lm", [text], options, call) for text in texts(3)))
            with pytest.raises(Overloaded):
                await service.generate("lm", ["a"], options)
            service.draining = True  # which lets what has begun come to its end
            await service.generate("lm", ["a"], options, call)
        assert len(found) == 3 and service.requests == 0

    serving(work, ("lm", generator()), queue=1)


# ---- operations ---------------------------------------------------------------------------------------


def test_draining_finishes_what_runs_and_refuses_the_rest():
    model = translator()

    async def work(service):
        running = asyncio.ensure_future(service.translate("es", texts(20), TranslateOptions()))
        await asyncio.sleep(0.01)
        drained = asyncio.ensure_future(service.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await service.translate("es", texts(1), TranslateOptions())
        return await drained, await running

    drained, found = serving(work, ("es", model))
    assert drained and said(found) == said(translated_alone(model, texts(20), Beam()))


def test_a_failing_model_fails_its_requests_and_no_others():
    broken, model = Translator(deepcopy(transformer(len(BYTES))), BYTES, BYTES), translator()
    with torch.no_grad():
        broken.model.output.weight.fill_(torch.nan)

    async def work(service):
        return await asyncio.gather(
            service.translate("broken", texts(3), TranslateOptions()),
            service.translate("es", texts(3), TranslateOptions()),
            return_exceptions=True,
        )

    failed, found = serving(work, ("broken", broken), ("es", model))
    assert isinstance(failed, CheckpointError) and "NaN" in str(failed)
    assert said(found) == said(translated_alone(model, texts(3), Beam()))


@pytest.mark.parametrize(
    "part, name",
    [
        (Engine, "_has_memory"),
        (Group, "start"),
        (PrefixCache, "find"),
        (PrefixCache, "keep"),
        (SearchBatch, "join"),
        (SearchBatch, "advance"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_whatever_fails_every_request_is_answered_and_the_next_ones_are_served(monkeypatch, part, name):
    model, prompts = generator(), [f"{'again and ' * 4}{text}" for text in texts(6)]
    options = GenerateOptions(search=Greedy(), max_new_tokens=8)
    working, failures = getattr(part, name), []

    def fails_once(*given, **named):
        if not failures:
            failures.append(name)
            raise MemoryError("no memory")
        return working(*given, **named)

    async def work(service):
        monkeypatch.setattr(part, name, fails_once)
        asked = [service.generate("lm", [prompt], options) for prompt in prompts]
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        return found, await asyncio.gather(*(service.generate("lm", [prompt], options) for prompt in prompts))

    found, later = serving(work, ("lm", model))
    alone = [one.text for one in model.generate(prompts, search=Greedy(), max_new_tokens=8)]
    assert any(isinstance(one, MemoryError) for one in found)
    assert all(isinstance(one, MemoryError) or one[0].text == text for one, text in zip(found, alone, strict=True))
    assert [one.text for [one] in later] == alone


def test_unknown_models_and_wrong_tasks_are_named():
    async def work(service):
        with pytest.raises(UnknownModel, match="model fr is not served here; there are: es, lm"):
            await service.translate("fr", ["a"], TranslateOptions())
        with pytest.raises(WrongTask, match="model lm is for the task generate, not translate"):
            await service.translate("lm", ["a"], TranslateOptions())

    serving(work, ("es", translator()), ("lm", generator()))


def test_turns_are_taken_in_order():
    turns, order, threads = Turns(), [], []

    def wait(number):
        with turns.take():
            order.append(number)

    with turns.take():
        for number in range(8):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            while len(turns._queue) <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("en-es", {}, ("en", "es")),
        ("en-pt_BR", {}, ("en", "pt_BR")),
        ("demo-es", {}, ("", "")),
        ("model", {"data": {"cleaning": {"source_language": "de", "target_language": "fr"}}}, ("de", "fr")),
        ("model", {"data": {"train": [{"source": "*/translations/en.json", "target": "*/es.json"}]}}, ("en", "es")),
        ("model", {"data": {"train": [{"source": "train.tok.en", "target": "train.tok.de"}]}}, ("en", "de")),
        ("model", {"data": {"train": [{"source": "a.txt", "target": "b.txt"}]}}, ("", "")),
    ],
)
def test_languages_come_from_the_name_the_run_or_its_files(name, config, expected):
    assert languages(name, config) == expected
