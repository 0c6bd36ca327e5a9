"""Search against slow twins: written with lists, one sentence at a time, without a cache, or by trying everything."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from dragoman.config import from_dict, to_dict
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average, Gnmt, NoPenalty
from dragoman.decode.search.ranking import best, best_continuations, first_largest, likeliest, log_partition
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig, search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.errors import CheckpointError, ConfigError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import Cache, Growing
from dragoman.model.interface import DecodingState, SequenceModel
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import NoEmbedding, Sinusoidal
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD


class Remembered(DecodingState):
    def __init__(self, h):
        self.h, self.steps, self.log = h, 0, []

    @property
    def length(self):
        return self.steps

    @property
    def nbytes(self):
        return self.h.nbytes

    def expand(self, beams):
        self.beams, self.h = beams, self.h.repeat_interleave(beams, dim=0)

    def reorder(self, rows):
        assert torch.equal(rows // self.beams, torch.arange(len(self.h)) // self.beams), "a row left its sentence"
        self.log.append("reorder")
        self.h = self.h[rows]

    def select(self, sentences):
        self.h = self.h.unflatten(0, (-1, self.beams))[sentences].flatten(0, 1)

    def join(self, other):
        assert self.beams == other.beams
        self.h = torch.cat([self.h, other.h])


class Recurrent(SequenceModel):
    """A model of another family than the Transformer: the last hidden vector is all it remembers."""

    max_length = None

    def __init__(self, vocab, dim=8, sharpness=2.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.cell = nn.Embedding(vocab, dim), nn.GRU(dim, dim, batch_first=True)
        self.output = nn.Linear(dim, vocab)
        nn.init.normal_(self.output.weight, std=sharpness)
        self.started = None

    def encode(self, source):
        real = (source != PAD)[:, :, None]
        weight = torch.arange(1, source.shape[1] + 1)[:, None].float().sqrt()
        return torch.tanh((self.embed(source) * real * weight).sum(dim=1))

    def hidden(self, target, source=None):
        return self.cell(self.embed(target), self.encode(source)[None])[0]

    def start(self, source, policy=None):
        self.started = Remembered(self.encode(source))
        return self.started

    def decode(self, tokens, state):
        out, h = self.cell(self.embed(tokens), state.h[None].contiguous())
        state.h, state.steps = h[0], state.steps + tokens.shape[1]
        return self.output(out)


class Constant(Recurrent):
    """Gives the same logits whatever it reads."""

    def __init__(self, logits):
        super().__init__(len(logits))
        self.logits = torch.tensor(logits)

    def decode(self, tokens, state):
        super().decode(tokens, state)
        return self.logits.expand(*tokens.shape, -1)


def transformer(vocab, seed=0, **mixing):
    across = AttentionConfig(heads=2, visibility=Full())
    encoder, decoder = (
        TowerConfig(
            depth=2, pattern=(BlockConfig(mixer=mixer, cross=cross, mlp=FeedForward(hidden=24), norm=LayerNorm()),)
        )
        for mixer, cross in ((across, None), (AttentionConfig(heads=2, **({"visibility": Causal()} | mixing)), across))
    )
    position = NoEmbedding() if mixing else Sinusoidal()
    torch.manual_seed(seed)
    cfg = TransformerConfig(vocab=vocab, dim=16, encoder=encoder, decoder=decoder, position=position, tying="none")
    model = cfg.build().eval()
    nn.init.normal_(model.output.weight, std=0.7)
    return model


FAMILIES = {
    "recurrent": Recurrent,
    "transformer": transformer,
    "rotary, shared heads, window": partial(transformer, kv_heads=1, position=Rotary(), visibility=Causal(window=3)),
}
each_family = pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES.keys())


def sources(vocab, rows, seed=1):
    torch.manual_seed(seed)
    batch = torch.randint(EOS + 1, vocab, (rows, 7))
    for i in range(rows):
        batch[i, i % 5 + 1], batch[i, i % 5 + 2 :] = EOS, PAD
    return batch


def alone(source):
    return source[source != PAD][None]


# ---- slow twins ------------------------------------------------------------------------------------


@torch.no_grad()
def next_log_probs(model, source, tokens):
    return model(torch.tensor([[BOS, *tokens]]), source)[0, -1].log_softmax(-1)


def greedy_one_at_a_time(model, source, limit):
    tokens, log_probs = [], []
    while not tokens or tokens[-1] != EOS:
        p = next_log_probs(model, source, tokens)
        token = EOS if len(tokens) + 1 == limit else max(range(EOS, len(p)), key=lambda v: (p[v].item(), -v))
        tokens, log_probs = [*tokens, token], [*log_probs, p[token].item()]
    return tokens, log_probs


def beam_with_lists(model, source, cfg, limit, stop=None):
    live, finished = [(0.0, [])], []
    for length in range(1, limit + 1):
        candidates = []
        for row, (total, tokens) in enumerate(live):
            p = next_log_probs(model, source, tokens)
            choices = [EOS] if length == limit else range(EOS, len(p))
            candidates += [(-(total + p[v].item()), row, v, [*tokens, v]) for v in choices]
        candidates.sort()
        for total, _, token, tokens in candidates[: cfg.size]:
            if token == EOS:
                finished.append((total / cfg.penalty.divisor(length), tokens, -total))
        live = [(-total, tokens) for total, _, token, tokens in candidates if token != EOS][: cfg.size]
        finished.sort(key=lambda f: f[0])
        if (stop or enough)(cfg, live, finished, length, limit):
            break
    return [(tokens, total, -score) for score, tokens, total in finished[: cfg.nbest]]


def enough(cfg, live, finished, length, limit):
    if len(finished) < (cfg.size if cfg.stop == "full" else cfg.nbest):
        return False
    best_live = max((total for total, _ in live), default=-math.inf)
    return -finished[cfg.nbest - 1][0] >= best_live / cfg.penalty.divisor(limit if cfg.stop == "certain" else length)


def every_translation(model, source, limit, penalty):
    """(score, tokens) of each sequence of up to ``limit`` tokens, best first."""
    vocab, found = model.output.out_features, []
    for length in range(1, limit + 1):
        for words in itertools.product(range(EOS + 1, vocab), repeat=length - 1):
            p = model(torch.tensor([[BOS, *words]]), source)[0].log_softmax(-1)
            total = p.gather(1, torch.tensor([[*words, EOS]]).T).sum().item()
            found.append((total / penalty.divisor(length), [*words, EOS]))
    return sorted(found, reverse=True)


def limit(tokens):
    return LengthLimit(tokens=tokens, ratio=0.0, extra=tokens)


PENALTIES = [NoPenalty(), Gnmt(alpha=0.6), Average(alpha=1.0)]

# ---- greedy ----------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("vocab", [6, 70, 2000])
def test_greedy_is_the_argmax_loop_one_at_a_time_without_a_cache(vocab, build):
    model, batch = build(vocab), sources(vocab, 12)
    for source, [found] in zip(batch, search(model, batch, Greedy(limit=limit(9))), strict=True):
        tokens, log_probs = greedy_one_at_a_time(model, alone(source), 9)
        assert list(found.tokens) == tokens
        assert found.token_log_probs == pytest.approx(log_probs, abs=1e-5)
        assert found.log_prob == pytest.approx(sum(log_probs), abs=1e-4)  # 1e-5 for each of its tokens
        assert found.score == pytest.approx(found.log_prob / len(tokens))


def test_a_beam_of_one_is_greedy():
    model, batch = Recurrent(40), sources(40, 20)
    for [a], [b] in zip(search(model, batch, Greedy()), search(model, batch, Beam(size=1)), strict=True):
        assert (a.tokens, a.truncated) == (b.tokens, b.truncated)
        assert a.score == pytest.approx(b.score, abs=1e-5)


# ---- beam ------------------------------------------------------------------------------------------


TWINS = [("recurrent", stop, penalty) for stop in ("first", "full", "certain") for penalty in PENALTIES]
TWINS += [(family, "full", Gnmt(alpha=1.0)) for family in FAMILIES]


@pytest.mark.parametrize(("family", "stop", "penalty"), TWINS, ids=lambda x: getattr(x, "kind", x))
def test_beam_search_equals_its_slow_twin(family, stop, penalty):
    build = FAMILIES[family]
    for seed, (size, nbest, vocab) in enumerate([(2, 1, 9), (3, 3, 7), (5, 2, 150), (4, 4, 3)]):
        model, batch = build(vocab, seed=seed), sources(max(vocab, 4), 5, seed).clamp(max=vocab - 1)
        with torch.no_grad():
            model.output.weight[EOS] += 0.3  # so that sentences end at different steps
        cfg = Beam(size=size, nbest=nbest, stop=stop, penalty=penalty, limit=LengthLimit(tokens=8, ratio=2.0, extra=1))
        for source, found in zip(batch, search(model, batch, cfg), strict=True):
            slow = beam_with_lists(model, alone(source), cfg, cfg.limit.of(len(alone(source)[0])))
            assert [list(h.tokens) for h in found] == [tokens for tokens, _, _ in slow]
            for h, (_, total, score) in zip(found, slow, strict=True):
                assert (h.log_prob, h.score) == pytest.approx((total, score), abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.kind)
@pytest.mark.parametrize("stop", ["full", "certain"])
def test_a_beam_wide_enough_for_everything_finds_the_best_of_everything(stop, penalty):
    for seed in range(4):
        model, batch = Recurrent(6, seed=seed), sources(6, 3, seed)
        cfg = Beam(size=3**4, nbest=5, stop=stop, penalty=penalty, limit=limit(4))
        for source, found in zip(batch, search(model, batch, cfg), strict=True):
            with torch.no_grad():
                all_of_them = every_translation(model, alone(source), 4, penalty)
            assert [list(h.tokens) for h in found] == [tokens for _, tokens in all_of_them[:5]]
            assert [h.score for h in found] == pytest.approx([score for score, _ in all_of_them[:5]], abs=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.kind)
def test_a_certain_stop_gives_what_searching_to_the_limit_gives(penalty):
    for seed in range(6):
        model, batch = Recurrent(7, seed=seed, sharpness=0.5), sources(7, 5, seed)
        model.output.bias.data[EOS] = 1.0
        cfg = Beam(size=3, stop="certain", penalty=penalty, limit=limit(7))
        for source, [found] in zip(batch, search(model, batch, cfg), strict=True):
            to_the_limit = beam_with_lists(model, alone(source), cfg, 7, stop=lambda *_: False)
            assert list(found.tokens) == to_the_limit[0][0]


def test_equal_scores_rank_by_beam_then_token_whatever_the_batch():
    model = Constant([0.0] * 200)
    cfg = Beam(size=4, nbest=4, penalty=NoPenalty(), limit=limit(4))
    expected = [tokens for tokens, _, _ in beam_with_lists_of_constant(200, cfg)]
    for rows in (1, 3, 64):
        for found in search(model, sources(200, rows), cfg):
            assert [list(h.tokens) for h in found] == expected
    for [found] in search(model, sources(200, 5), Greedy(limit=limit(4))):
        assert found.tokens == (EOS,)


def beam_with_lists_of_constant(vocab, cfg):
    class Table(nn.Module):
        output = nn.Linear(1, vocab)

        def forward(self, target, source):
            return torch.zeros(*target.shape, vocab)

    return beam_with_lists(Table(), None, cfg, cfg.limit.tokens)


def test_length_penalties_are_their_formulas():
    assert Gnmt(alpha=0.6).divisor(7) == pytest.approx(12**0.6 / 6**0.6)
    assert Average(alpha=1.0).divisor(7) == 7
    assert Average(alpha=0.5).divisor(9) == pytest.approx(3)
    assert NoPenalty().divisor(7) == 1


# ---- both ------------------------------------------------------------------------------------------

SEARCHES: dict[str, SearchConfig] = {
    "greedy": Greedy(limit=limit(10)),
    "beam": Beam(size=4, nbest=3, limit=limit(10)),
    "certain": Beam(size=3, stop="certain", limit=limit(10)),
    "first": Beam(size=3, stop="first", limit=limit(10)),
    "sample": Sample(samples=3, temperature=0.7, top_k=20, top_p=0.95, limit=limit(10)),
}
each_search = pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())


@each_family
@each_search
def test_a_sentence_has_the_same_answer_alone_and_in_any_batch(cfg, build):
    model, batch = build(200), sources(200, 12)
    together = search(model, batch, cfg)
    backwards = search(model, batch.flip(0), cfg)[::-1]
    for source, a, b in zip(batch, together, backwards, strict=True):
        [c] = search(model, alone(source), cfg)
        assert [h.tokens for h in a] == [h.tokens for h in b] == [h.tokens for h in c]
        assert [h.score for h in a] == pytest.approx([h.score for h in c], abs=1e-5)


@each_family
@each_search
def test_reported_log_probabilities_are_those_of_one_forward_pass(cfg, build):
    model, batch = build(50), sources(50, 10)
    for source, found in zip(batch, search(model, batch, cfg), strict=True):
        assert found == sorted(found, key=lambda h: -h.score)
        for h in found:
            with torch.no_grad():
                p = model(torch.tensor([[BOS, *h.tokens[:-1]]]), alone(source))[0].log_softmax(-1)
            assert h.token_log_probs == pytest.approx(p.gather(1, torch.tensor([h.tokens]).T)[:, 0].tolist(), abs=1e-4)
            assert sum(h.token_log_probs) == pytest.approx(h.log_prob, abs=1e-5)


@each_search
def test_the_cache_does_not_change_the_answer(cfg):
    model, batch = transformer(60), sources(60, 10)
    a, b = (search(model, batch, cfg, policy) for policy in (Cache(layout=Growing()), Cache()))
    assert [[h.tokens for h in found] for found in a] == [[h.tokens for h in found] for found in b]


@each_search
def test_bfloat16_logits_are_searched_in_float32(cfg):
    model, batch = transformer(400), sources(400, 6)
    with torch.autocast("cpu", torch.bfloat16):
        together = search(model, batch, cfg)
    for source, found in zip(batch, together, strict=True):
        for h in found:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                logits = model(torch.tensor([[BOS, *h.tokens[:-1]]]), alone(source))[0]
            p = logits.float().log_softmax(-1).gather(1, torch.tensor([h.tokens]).T)
            assert logits.dtype == torch.bfloat16 and h.log_prob == pytest.approx(p.sum().item(), rel=0.02)


@each_search
def test_padding_and_begin_of_sentence_are_never_generated(cfg):
    model = Recurrent(20)
    with torch.no_grad():
        model.output.bias[[PAD, BOS]] = 30.0
    for found in search(model, sources(20, 10), cfg):
        assert not {PAD, BOS} & {token for h in found for token in h.tokens}
        assert all(h.tokens.index(EOS) == len(h.tokens) - 1 for h in found)


@pytest.mark.parametrize("make", [Greedy, Beam])
def test_a_translation_is_ended_at_its_limit_and_says_so(make):
    model, batch = Recurrent(20), sources(20, 10)
    with torch.no_grad():
        model.output.bias[EOS] = -50.0
    lengths = (batch != PAD).sum(dim=1).tolist()
    found = search(model, batch, make(limit=LengthLimit(tokens=12, ratio=2.0, extra=1)))
    assert [len(h.tokens) for [h] in found] == [min(12, 2 * length + 1) for length in lengths]
    assert all(h.truncated and h.tokens[-1] == EOS for [h] in found)
    model.output.bias.data[EOS] = 50.0
    assert not any(h.truncated for [h] in search(model, batch, make(limit=limit(1))))


def test_no_translation_is_longer_than_the_model_can_say():
    model = Recurrent(20)
    model.max_length = 5
    model.output.bias.data[EOS] = -50.0
    for cfg in (Greedy(), Beam()):
        assert all(len(h.tokens) == 5 for [h] in search(model, sources(20, 4), cfg))


@each_search
def test_a_model_that_answers_with_nan_is_refused(cfg):
    model = Recurrent(20)
    model.output.bias.data[7] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        search(model, sources(20, 4), cfg)


def test_searching_leaves_the_model_in_training_mode_and_uses_no_dropout():
    model = Recurrent(20).train()
    model.embed = nn.Sequential(model.embed, nn.Dropout(0.5))
    batch = sources(20, 4)
    a, b = (search(model, batch, Greedy()) for _ in range(2))
    assert a == b and model.training


def test_states_are_reordered_only_when_beams_change_places():
    class Insisting(Constant):
        """Whatever it has said, it says again."""

        def decode(self, tokens, state):
            logits = super().decode(tokens, state)
            return logits + 20.0 * (tokens > BOS) * nn.functional.one_hot(tokens, logits.shape[-1])

    logits, cfg = [0.0, 0.0, -9.0, 1.0, 2.0, 0.0], Beam(size=2, limit=limit(6))
    model = Insisting(logits)
    search(model, sources(6, 2), cfg)
    assert model.started.log == []
    model = Constant(logits)  # here both beams descend from the better one, again and again
    search(model, sources(6, 2), cfg)
    assert model.started.log


@pytest.mark.parametrize("data", ["greedy", {"kind": "beam", "penalty": "gnmt", "stop": "certain"}])
def test_a_search_is_written_in_a_file(data):
    cfg = from_dict(SearchConfig, data)
    assert from_dict(SearchConfig, to_dict(cfg)) == cfg


@pytest.mark.parametrize(
    "data",
    [
        {"size": 2, "nbest": 3},
        {"size": 0},
        {"penalty": {"kind": "gnmt", "alpha": -1}},
        {"limit": {"tokens": 0}},
        {"penalty": {"kind": "average", "alpha": 300}},
        {"penalty": {"kind": "gnmt", "alpha": math.nan}},
        {"limit": {"tokens": 10**30}},
        {"limit": {"ratio": math.inf}},
        {"kind": "covering_beam", "beta": math.nan},
        {"kind": "diverse_beam", "strength": math.inf},
        {"kind": "speculative", "tokens": 10**30},
        {"kind": "minimum_bayes_risk", "utility": {"order": 10**9}},
        {"kind": "minimum_bayes_risk", "utility": {"beta": 1e200}},
    ],
)
def test_a_search_that_makes_no_sense_is_refused(data):
    with pytest.raises(ConfigError):
        from_dict(SearchConfig, {"kind": "beam"} | data)


# ---- ranking ---------------------------------------------------------------------------------------


def few_values(*shape, kinds=5):
    """Scores with many ties."""
    return torch.randint(-kinds, kinds, shape) / 4


@pytest.mark.parametrize(("B", "W", "V"), [(1, 1, 5), (3, 4, 9), (2, 3, 64), (2, 2, 66), (3, 5, 1000), (1, 2, 40_000)])
@pytest.mark.parametrize("first", [0, 2])
def test_the_best_continuations_are_those_of_a_stable_sort_of_everything(B, W, V, first):
    for count in (1, 4, 10):
        logits, total = few_values(B, W, V), few_values(B, W)
        found = best_continuations(logits, total, count, first)
        scores = logits + (total - log_partition(logits.flatten(0, 1)).view(B, W))[:, :, None]
        scores[:, :, :first] = -torch.inf
        score, index = scores.flatten(1).sort(dim=1, descending=True, stable=True)
        n = min(count, W * (V - first))
        assert torch.equal(found.score[:, :n], score[:, :n])
        assert torch.equal((found.beam * V + found.token)[:, :n], index[:, :n])
        assert found.score.shape == (B, count) and (found.score[:, n:] == -torch.inf).all()


def test_best_is_a_stable_sort_cut_short():
    scores = torch.cat([few_values(4, 60), torch.tensor([[torch.inf, -torch.inf, -torch.inf]]).expand(4, 3)], dim=1)
    assert torch.equal(best(scores, 63), scores.sort(dim=1, descending=True, stable=True).indices)


@pytest.mark.parametrize("shape", [(1, 3), (3, 64), (40, 1000), (9, 40_000), (40, 1025)])
def test_the_first_largest_is_the_first_largest(shape):
    for rows in (
        few_values(*shape),
        torch.randn(*shape),
        torch.zeros(*shape),
        -torch.arange(shape[1]).float().expand(*shape),
    ):
        assert torch.equal(first_largest(rows), rows.sort(dim=1, descending=True, stable=True).indices[:, 0])


@pytest.mark.parametrize("shape", [(1, 3), (3, 64), (40, 1000), (9, 40_000), (40, 1025)])
def test_the_likeliest_token_is_the_first_largest_that_may_be_said_among_all(shape):
    for logits in (few_values(*shape), torch.randn(*shape) * 5, -torch.arange(shape[1]).float().expand(*shape)):
        for first in (0, 2):
            token, log_prob = likeliest(logits, first)
            assert torch.equal(token, first_largest(logits[:, first:]) + first)
            torch.testing.assert_close(log_prob, logits.log_softmax(dim=1).gather(1, token[:, None])[:, 0])


@pytest.mark.parametrize("damaged", [math.nan, math.inf])
def test_a_damaged_logit_leaves_no_log_probability(damaged):
    logits = torch.randn(3, 200)
    logits[1, 150] = damaged
    assert likeliest(logits, 2).log_prob.isfinite().tolist() == [True, False, True]


def test_log_partition_is_logsumexp():
    for shape in [(1, 7), (300, 1000), (2, 140_000)]:
        logits = torch.randn(*shape) * 5
        torch.testing.assert_close(log_partition(logits), logits.logsumexp(dim=1))


@pytest.mark.parametrize("impossible", [slice(0, 100), slice(2, 200), slice(64, 128), slice(150, 300)])
def test_tokens_that_cannot_be_leave_the_others_their_probabilities(impossible):
    logits = torch.randn(3, 300)
    logits[:, impossible] = -torch.inf
    torch.testing.assert_close(log_partition(logits), logits.logsumexp(dim=1))
    token, log_prob = likeliest(logits, 2)
    torch.testing.assert_close(log_prob, logits.log_softmax(dim=1).gather(1, token[:, None])[:, 0])
    assert likeliest(torch.full_like(logits, -torch.inf), 2).log_prob.isnan().all()
