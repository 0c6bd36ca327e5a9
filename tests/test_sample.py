"""Sampling and rules against transformers, which has the same formulas, against loops with lists, against chance."""

import pytest
import torch
from scipy import stats
from test_search import Constant, Recurrent, alone, limit, sources, transformer
from transformers.generation import logits_process as theirs

from dragoman.config import from_dict
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.repetition import (
    CountPenalty,
    Forbidden,
    MinimumLength,
    NoRepeat,
    RepetitionPenalty,
    RuleConfig,
)
from dragoman.decode.search import rng as chance
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import SearchStart
from dragoman.decode.search.sample import Sample, apply_temperature, keep_min_p, keep_top_k, keep_top_p, keep_typical
from dragoman.decode.search.search import SearchConfig, search
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import Choice
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bytes

# ---- shaping ---------------------------------------------------------------------------------------

SHAPERS = [
    (apply_temperature, theirs.TemperatureLogitsWarper, [0.3, 1.0, 2.5]),
    (keep_top_k, theirs.TopKLogitsWarper, [1, 3, 50, 1000]),
    (keep_top_p, theirs.TopPLogitsWarper, [0.01, 0.3, 0.9, 0.999]),
    (keep_min_p, theirs.MinPLogitsWarper, [0.001, 0.1, 0.5, 1.0]),
    (keep_typical, theirs.TypicalLogitsWarper, [0.01, 0.2, 0.9, 0.99]),
]
SHAPINGS = [(ours, their(amount), amount) for ours, their, amounts in SHAPERS for amount in amounts]


@pytest.mark.parametrize(("ours", "their", "amount"), SHAPINGS, ids=lambda x: getattr(x, "__name__", None))
def test_each_shaping_is_that_of_transformers(ours, their, amount):
    for spread in (0.1, 1.0, 5.0):
        logits = torch.randn(20, 97) * spread
        torch.testing.assert_close(ours(logits, amount), their(torch.tensor([[0]]), logits.clone()))


@pytest.mark.parametrize("ours", [keep_top_p, keep_min_p, keep_typical])
def test_shaping_leaves_all_of_it_where_everything_is_asked_for(ours):
    logits = torch.randn(5, 30)
    assert torch.equal(ours(logits, 1e-9 if ours is keep_min_p else 1.0).isfinite(), logits.isfinite())


def test_shapings_follow_one_another_in_the_order_of_transformers():
    cfg = Sample(temperature=0.8, top_k=30, top_p=0.9, min_p=0.02, typical=0.8)
    logits = expected = torch.randn(40, 97) * 2
    for their, amount in zip(SHAPERS, (0.8, 30, 0.9, 0.02, 0.8), strict=True):
        expected = their[1](amount)(torch.tensor([[0]]), expected)
    torch.testing.assert_close(cfg.shape(logits), expected)


# ---- chance ----------------------------------------------------------------------------------------


def test_times_are_exponential_and_independent_of_key_step_and_token():
    keys = torch.tensor([chance.key(0, i) for i in range(60)])
    drawn = torch.stack([chance.exponentials(keys, step, 50) for step in range(40)])  # step, key, token
    assert stats.kstest(drawn.flatten().numpy(), "expon").pvalue > 0.01
    uniform = (-drawn.double()).exp()
    for axis in range(3):
        one, other = (uniform.transpose(0, axis)[part] for part in (slice(1, None), slice(-1)))
        pairs = torch.histogramdd(torch.stack([one.flatten(), other.flatten()], 1), [8, 8], range=[0, 1, 0, 1]).hist
        assert stats.chisquare(pairs.flatten().numpy()).pvalue > 0.01


def test_a_draw_is_a_function_of_key_and_step_alone():
    keys, logits = torch.tensor([chance.key(7, i) for i in range(30)]), torch.randn(30, 200)
    together, order = chance.draw(logits, keys, 3), torch.randperm(30)
    assert torch.equal(chance.draw(logits[order], keys[order], 3), together[order])
    assert torch.equal(torch.cat([chance.draw(logits[i : i + 1], keys[i : i + 1], 3) for i in range(30)]), together)
    assert not torch.equal(chance.draw(logits, keys, 4), together)


def test_samples_have_the_distribution_of_the_model():
    model = Constant([0.0, 0.0, 0.5, 1.0, -1.0, 2.0, 0.3])
    batch, cfg = torch.tensor([[5, EOS]]), Sample(samples=10_000, temperature=0.8, limit=limit(3))
    [found] = search(model, batch, cfg)
    p = (model.logits[EOS:] / 0.8).softmax(0)
    for step in range(2):
        alive = [h.tokens[step] for h in found if len(h.tokens) > step and (step == 0 or h.tokens[step - 1] != EOS)]
        counts = torch.tensor(alive).bincount(minlength=7)[EOS:]
        assert stats.chisquare(counts.numpy(), (p / p.sum() * counts.sum()).numpy(), sum_check=False).pvalue > 0.01


def test_shaped_samples_have_the_shaped_distribution_and_nothing_else():
    model = Constant([0.0, 0.0, 0.5, 1.0, -1.0, 2.0, 0.3])
    [found] = search(model, torch.tensor([[5, EOS]]), Sample(samples=10_000, top_k=3, limit=limit(2)))
    counts = torch.tensor([h.tokens[0] for h in found]).bincount(minlength=7)
    kept = torch.tensor([2, 3, 5])
    assert counts.sum() == counts[kept].sum()
    expected = model.logits[kept].softmax(0) * counts.sum()
    assert stats.chisquare(counts[kept].numpy(), expected.numpy(), sum_check=False).pvalue > 0.01


# ---- sampling --------------------------------------------------------------------------------------

SAMPLE = Sample(samples=3, top_p=0.95, limit=limit(12))


@pytest.mark.parametrize("build", [Recurrent, transformer])
def test_the_batch_its_order_and_its_padding_do_not_change_a_sample(build):
    model, batch = build(80), sources(80, 16)
    together = search(model, batch, SAMPLE)
    wider = search(model, torch.nn.functional.pad(batch, (0, 4), value=PAD), SAMPLE)
    order = torch.randperm(16).tolist()
    shuffled = search(model, batch[order], SAMPLE)
    for i, found in enumerate(together):
        [single] = search(model, alone(batch[i]), SAMPLE)
        answers = [[h.tokens for h in some] for some in (found, single, wider[i], shuffled[order.index(i)])]
        assert answers == [answers[0]] * 4


def test_more_samples_contain_the_fewer():
    model, batch = Recurrent(80), sources(80, 10)
    few, many = (search(model, batch, Sample(samples=n, limit=limit(12))) for n in (2, 7))
    assert all({h.tokens for h in a} <= {h.tokens for h in b} for a, b in zip(few, many, strict=True))


def test_another_seed_gives_other_samples_and_the_same_seed_the_same():
    model, batch = Recurrent(80), sources(80, 10)
    a, b, c = (search(model, batch, Sample(seed=seed, limit=limit(12))) for seed in (1, 1, 2))
    assert a == b != c
    d, e = (search(model, batch, Sample(limit=limit(12)), seeds=seeds) for seeds in (range(10), [0] * 10))
    assert d[0] == e[0] and d != e


def test_the_samples_of_a_source_differ_and_their_log_probabilities_are_the_models():
    model, source = Recurrent(80), torch.tensor([[7, 9, EOS]])
    [found] = search(model, source, Sample(samples=20, temperature=0.7, top_k=30, limit=limit(8)))
    assert len({h.tokens for h in found}) > 15
    for h in found:
        with torch.no_grad():
            p = model(torch.tensor([[BOS, *h.tokens[:-1]]]), source)[0].log_softmax(-1)
        assert h.token_log_probs == pytest.approx(p.gather(1, torch.tensor([h.tokens]).T)[:, 0].tolist(), abs=1e-4)


def test_one_token_left_to_draw_is_greedy():
    model, batch = transformer(80), sources(80, 10)
    greedy = search(model, batch, Greedy(limit=limit(9)))
    for cfg in (Sample(top_k=1, limit=limit(9)), Sample(temperature=1e-4, limit=limit(9))):
        assert [h.tokens for [h] in search(model, batch, cfg)] == [h.tokens for [h] in greedy]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"typical": 0.0}, "typical"),
        ({"samples": 0}, "samples"),
        ({"seed": 2**70}, "seed"),
        ({"top_q": 1}, "Did you mean 'top_p'|Did you mean 'top_k'"),
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused_by_name(data, says):
    with pytest.raises(ConfigError, match=says):
        from_dict(SearchConfig, {"kind": "sample"} | data)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "minimum_length", "tokens": 10**30},
        {"kind": "forbidden", "tokens": [10**30]},
        {"kind": "first_token", "token": 10**30},
        {"kind": "count_penalty", "presence": 1e308},
        {"kind": "count_penalty", "frequency": float("nan")},
        {"kind": "repetition_penalty", "factor": float("inf")},
        {"kind": "repetition_penalty", "factor": 1e-300},
    ],
)
def test_a_rule_that_no_number_of_a_model_can_keep_is_refused(data):
    with pytest.raises(ConfigError, match="|".join(data.keys() - {"kind"})):
        from_dict(RuleConfig, data, where="rule")


def test_a_seed_of_more_than_64_bits_is_refused_from_python():
    with pytest.raises(ConfigError, match="seed"):
        Sample(seed=2**70)


# ---- rules against repetition and others -----------------------------------------------------------

PROMPTS = torch.tensor([[PAD, PAD, BOS, 5, 6, 5, 6], [BOS, 7, 8, 9, 7, 8, 3], [PAD, BOS, 4, 4, 4, 4, 4]])
AS_THEIRS = [
    (RepetitionPenalty(factor=1.7), theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    (RepetitionPenalty(factor=0.6), theirs.RepetitionPenaltyLogitsProcessor(0.6)),
    *((NoRepeat(tokens=n), theirs.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3, 4, 5, 20)),
    (Forbidden(tokens=(3, 8, 9)), theirs.SuppressTokensLogitsProcessor([3, 8, 9])),
    (MinimumLength(tokens=0), lambda ids, logits: logits),
    (MinimumLength(tokens=3), theirs.MinNewTokensLengthLogitsProcessor(7, 3, EOS)),
]


@pytest.mark.parametrize(("cfg", "their"), AS_THEIRS, ids=lambda x: getattr(x, "kind", ""))
def test_each_rule_is_that_of_transformers(cfg, their):
    rule, said = cfg.start(SearchStart(PROMPTS)), PROMPTS
    for step in range(12):
        logits = torch.randn(len(said), 12)
        ours, untouched = rule.apply(logits), logits.clone()
        expected = their(said, logits.clone())
        assert torch.equal(logits, untouched), "a rule changes a copy"
        torch.testing.assert_close(ours[:, EOS:], expected[:, EOS:])  # below stands what is never said
        tokens = torch.randint(EOS + 1, 8, (len(said),))
        rule.follow(Choice(None, None, tokens))
        said = torch.cat([said, tokens[:, None]], dim=1)
        assert step < 20


def test_a_count_penalty_is_its_formula():
    rule = CountPenalty(presence=0.5, frequency=0.25).start(SearchStart(PROMPTS))
    for token in (3, 4, 3, 3):
        rule.follow(Choice(None, None, torch.full((3,), token)))
    fallen = torch.zeros(3, 8) - rule.apply(torch.zeros(3, 8))
    assert fallen[0].tolist() == [0, 0, 0, 0.5 + 3 * 0.25, 0.5 + 0.25, 0, 0, 0] and torch.equal(fallen[0], fallen[2])


RULES = {
    "repetition": (RepetitionPenalty(factor=3.0),),
    "counts": (CountPenalty(presence=2.0, frequency=1.0),),
    "no repeat": (NoRepeat(tokens=2),),
    "minimum": (MinimumLength(tokens=6),),
    "several": (Forbidden(tokens=(5, 6)), NoRepeat(tokens=1), MinimumLength(tokens=2)),
}
SEARCHES = {"greedy": Greedy(limit=limit(12)), "beam": Beam(size=4, nbest=3, limit=limit(12)), "sample": SAMPLE}


def ruled(model, batch, cfg, rules):
    begun = SearchStart(torch.full((len(batch), 1), BOS), batch)
    return search(model, batch, cfg, rules=[rule.start(begun) for rule in rules])


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())
def test_rules_follow_their_rows_whatever_the_search_and_the_batch(cfg, rules):
    model, batch = Recurrent(30, sharpness=1.0), sources(30, 12)
    model.output.bias.data[EOS] += 2.0  # so that answers end at different steps
    together = ruled(model, batch, cfg, rules)
    assert together != search(model, batch, cfg), "the rules made no difference"
    for source, found in zip(batch, together, strict=True):
        [single] = ruled(model, alone(source), cfg, rules)
        assert [h.tokens for h in found] == [h.tokens for h in single]


@pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())
def test_what_rules_forbid_is_never_said(cfg):
    model, batch = Recurrent(12, sharpness=1.0), sources(12, 20)
    for found in ruled(model, batch, cfg, [NoRepeat(tokens=2), Forbidden(tokens=(5, 999)), MinimumLength(tokens=3)]):
        for h in found:
            pairs = list(zip(h.tokens, h.tokens[1:], strict=False))
            assert len(pairs) == len(set(pairs)) and 5 not in h.tokens and len(h.tokens) > 3


@pytest.mark.parametrize("cfg", [*SEARCHES.values(), Speculative(search=Greedy(limit=limit(12)))], ids=lambda c: c.kind)
def test_rules_that_allow_nothing_are_an_error_and_no_end(cfg):
    model, batch = transformer(12), sources(12, 3)
    for rules in ([Forbidden(tokens=tuple(range(12)))], [MinimumLength(tokens=5), NoRepeat(tokens=1)]):
        forbidden = [*rules, Forbidden(tokens=tuple(range(EOS + 3, 12)))]
        with pytest.raises(ConfigError, match="the rules forbid every possible continuation"):
            ruled(model, batch, cfg, forbidden)


@pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_first_token_begins_every_answer_and_an_unknown_one_is_ignored(cfg):
    model, batch = Recurrent(12, sharpness=1.0), sources(12, 5)
    for found in ruled(model, batch, cfg, [FirstToken(token=7)]):
        assert {h.tokens[0] for h in found} == {7}
    plain, unknown = ruled(model, batch, cfg, []), ruled(model, batch, cfg, [FirstToken(token=999)])
    assert [[h.tokens for h in found] for found in plain] == [[h.tokens for h in found] for found in unknown]


def test_a_first_token_that_is_asked_for_begins_a_translation():
    tokenizer = Tokenizer.train(Bytes(), [])
    translator = Translator(Recurrent(len(tokenizer)), tokenizer, tokenizer)
    [token] = tokenizer.encode("x")
    translator.first = FirstToken(token=token + 1)  # that of a language
    for rules, first in (([FirstToken(token=token)], token), ([], token + 1), (None, token + 1)):
        assert translator.translate(["abc"], beam=1, rules=rules)[0].candidates[0].tokens[0] == first


@torch.no_grad()
def test_a_greedy_search_under_rules_is_the_loop_with_lists():
    model, batch, rules = Recurrent(30), sources(30, 10), RULES["repetition"]
    for source, [found] in zip(batch, ruled(model, batch, Greedy(limit=limit(12)), rules), strict=True):
        tokens = [BOS]
        while len(tokens) < 12 and tokens[-1] != EOS:
            logits = model(torch.tensor([tokens]), alone(source))[0, -1]
            for token in set(tokens):
                logits[token] = logits[token] / 3.0 if logits[token] > 0 else logits[token] * 3.0
            tokens.append(EOS + int(logits[EOS:].argmax()))
        assert list(found.tokens) == (tokens[1:] if tokens[-1] == EOS else [*tokens[1:], EOS])


def test_rules_are_written_in_a_file():
    found = from_dict(tuple[RuleConfig, ...], ["repetition_penalty", {"kind": "no_repeat", "tokens": 4}])
    assert found == (RepetitionPenalty(), NoRepeat(tokens=4))
