"""Speculative decoding against the plain search: the same answers, with fewer questions to the model."""

import pytest
import torch
from scipy import stats
from test_sample import ruled
from test_search import Recurrent, limit, sources, transformer
from variants import build

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.decode.constraints.repetition import NoRepeat, RepetitionPenalty
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.minimum_risk import MinimumBayesRisk
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import SearchConfig, beams_of, own_seeds, search
from dragoman.decode.search.speculative import (
    Drafter,
    DraftModel,
    ModelDrafter,
    PromptLookup,
    PromptLookupDrafter,
    Speculative,
    SpeculativeSession,
)
from dragoman.decode.search.strategy import Choice
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.model.caches.cache import DEFAULT, Cache, Growing, Paged
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Bytes

SEARCHES = {
    "greedy": Greedy(limit=limit(11)),
    "sample": Sample(limit=limit(11)),
    "samples": Sample(samples=3, temperature=0.8, top_p=0.9, limit=limit(11)),
}
TOLD_APART = ["gqa", "learned", "rotary dynamic", "alibi", "t5", "shaw", "window", "window, sinks, dynamic", "mixture"]
TOLD_APART += ["short convolution", "attention, short convolution", "mamba", "gated delta net, attention", "min gru"]
each_search = pytest.mark.parametrize("cfg", SEARCHES.values(), ids=SEARCHES.keys())


class Forgetful(Drafter):
    """Spoils every third guess or so of another one, and sometimes has none."""

    def __init__(self, inner):
        self.inner, self.draw = inner, torch.Generator().manual_seed(5)

    def begin(self, prompt):
        self.inner.begin(prompt)

    def follow(self, choice):
        self.inner.follow(choice)

    def guess(self, count):
        found = self.inner.guess(int(torch.randint(0, count + 1, (), generator=self.draw)))
        wrong = torch.rand(found.shape, generator=self.draw) < 0.3
        return torch.where(wrong, (found + 1).clamp(max=9), found)


@torch.inference_mode()
def read_ahead(model, batch, cfg, make, most=4, policy=DEFAULT):
    """The answers, and how often the model was asked for them."""
    strategy = cfg.start([cfg.limit.tokens] * len(batch), batch.device, own_seeds(batch))
    reader = SpeculativeSession(model, batch, policy, strategy.beams, make(strategy), most)
    logits = reader.first(batch.new_full((len(batch), 1), BOS))
    while choice := strategy.step(logits, logits):
        logits = reader.next(choice)
    return strategy.results(), reader.forwards


def said(results):
    return [[h.tokens for h in found] for found in results]


@pytest.mark.parametrize(
    ("variant", "search_name"),
    [*((variant, "greedy") for variant in TOLD_APART), *(("plain", name) for name in SEARCHES)],
)
def test_whatever_is_guessed_the_answer_is_that_of_the_plain_search(variant, search_name):
    model, batch, cfg = build(variant), sources(17, 3), SEARCHES[search_name]
    plain = search(model, batch, cfg)
    makers = (
        lambda strategy: Forgetful(ModelDrafter(model, batch, DEFAULT, strategy, 4)),
        lambda strategy: Forgetful(PromptLookupDrafter(batch, 3, model.output.out_features)),
    )
    for make in makers:
        found, _ = read_ahead(model, batch, cfg, make)
        assert said(found) == said(plain)
        for a, b in zip(found, plain, strict=True):
            assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)


@each_search
def test_right_guesses_save_forwards(cfg):
    model, [source] = transformer(50), sources(50, 1)
    model.output.weight.data[EOS] -= 9  # to the limit
    results, asked = read_ahead(model, source[None], cfg, lambda s: ModelDrafter(model, source[None], DEFAULT, s, 4))
    assert said(results) == said(search(model, source[None], cfg))
    assert asked <= 1 + -(-10 // 5)


def test_a_greedy_parrot_is_foreseen_in_its_source():
    look = PromptLookupDrafter(torch.tensor([[5, 6, 7, 8, 9, EOS], [9, 8, 7, 9, 8, EOS]]), longest=3, vocab=9)
    look.begin(torch.full((2, 1), BOS))
    assert look.guess(3).numel() == 0
    look.follow(Choice(None, None, torch.tensor([6, 9])))
    assert look.guess(3).tolist() == [[7, 8, EOS], [8, EOS, BOS]]  # 9 is not in this target's vocabulary
    look.follow(Choice(None, None, torch.tensor([8, 8])))
    look.follow(Choice(None, None, torch.tensor([8, 7])))
    assert look.guess(2).tolist()[1] == [EOS, 8]  # after 9 8 7, not after the 8 or the 7 alone


@pytest.mark.parametrize("policy", [Cache(layout=Growing()), Cache(layout=Paged(tokens=4))], ids=str)
def test_any_cache_that_can_take_tokens_back_will_do(policy):
    model, batch, cfg = transformer(50), sources(50, 4), SEARCHES["samples"]
    found, _ = read_ahead(
        model, batch, cfg, lambda s: Forgetful(ModelDrafter(model, batch, policy, s, 4)), policy=policy
    )
    assert said(found) == said(search(model, batch, cfg))


def test_rules_hold_while_guessing():
    model, batch = build("plain"), sources(17, 3)
    for cfg in (SEARCHES["greedy"], SEARCHES["samples"]):
        for rules in ([NoRepeat(tokens=2)], [RepetitionPenalty(factor=3.0)]):
            found = ruled(model, batch, Speculative(search=cfg), rules)
            assert said(found) == said(ruled(model, batch, cfg, rules))


def test_a_guess_is_never_longer_than_the_model_can_read():
    model, batch = build("learned"), sources(17, 3)  # 24 positions
    cfg = Greedy(limit=limit(24))
    assert said(search(model, batch, Speculative(search=cfg, tokens=9))) == said(search(model, batch, cfg))


def test_the_distribution_of_samples_is_the_models_however_poor_the_draft():
    model, draft, source = transformer(6, seed=1), transformer(6, seed=2), torch.tensor([[5, EOS]])
    cfg = Sample(samples=4000, limit=limit(2))
    [found], _ = read_ahead(model, source, cfg, lambda s: ModelDrafter(draft, source, DEFAULT, s, 3), most=3)
    counts = torch.tensor([h.tokens[0] for h in found]).bincount(minlength=6)[EOS:]
    with torch.no_grad():
        p = model(torch.tensor([[BOS]]), source)[0, 0, EOS:].softmax(0) * counts.sum()
    assert stats.chisquare(counts.numpy(), p.numpy(), sum_check=False).pvalue > 0.01


def test_a_sampling_draft_hits_as_often_as_its_bound_promises():
    model, draft, batch = transformer(40, seed=1), transformer(40, seed=1), sources(40, 1)
    draft.output.weight.data += 0.1 * torch.randn_like(draft.output.weight)
    model.output.weight.data[EOS] -= 9
    draft.output.weight.data[EOS] -= 9
    hits = steps = 0
    for seed in range(6):
        cfg = Sample(seed=seed, limit=limit(20))
        _, asked = read_ahead(model, batch, cfg, lambda s: ModelDrafter(draft, batch, DEFAULT, s, 1), most=1)
        hits, steps = hits + 20 - asked, steps + asked - 1
    with torch.no_grad():
        p, q = (m(torch.tensor([[BOS]]), batch)[0, 0, EOS:].softmax(0) for m in (model, draft))
    distance = 0.5 * (p - q).abs().sum().item()
    assert hits / steps > (1 - distance) / (1 + distance) - 0.2


# ---- as people use it ------------------------------------------------------------------------------


def save_run(path, model, tokenizer):
    run = RunDirectory.create(path, {"model": {}})
    run.write_tokenizers(tokenizer, tokenizer)
    tensors = {"model": dict(model.state_dict())}
    run.save(1, tensors=tensors, progress={}, config={"model": to_dict(model.cfg)})
    run.close()
    return str(path)


@pytest.fixture(scope="module")
def drafts(tmp_path_factory):
    """Run directories: a model, another of the same vocabulary, and one of another vocabulary."""
    path, tokenizer = tmp_path_factory.mktemp("runs"), Tokenizer.train(Bytes(), [])
    models = {
        "big": transformer(len(tokenizer)),
        "small": transformer(len(tokenizer), seed=3),
        "other": transformer(99),
    }
    return {name: save_run(path / name, model, tokenizer) for name, model in models.items()}


def test_a_translator_with_a_draft_model_says_what_it_says_without(drafts):
    translator, texts = Translator.load(drafts["big"]), ["some text", ""]
    for plain in (Greedy(limit=limit(8)), Sample(limit=limit(8))):
        expected = [t.text for t in translator.translate(texts, search=plain)]
        for draft in (PromptLookup(), DraftModel(run=drafts["small"])):
            found = translator.translate(texts, search=Speculative(search=plain, draft=draft, tokens=3))
            assert [t.text for t in found] == expected


def test_a_draft_of_another_vocabulary_and_a_state_that_sums_up_are_refused(drafts):
    translator = Translator.load(drafts["big"])
    with pytest.raises(ConfigError, match=r"other has 99 tokens and the model 259: train it with the same tokenizers"):
        translator.translate(["a"], search=Speculative(draft=DraftModel(run=drafts["other"])))
    with pytest.raises(ConfigError, match="cannot take tokens back"):
        search(Recurrent(20), sources(20, 2), Speculative())


def test_it_is_written_in_a_file():
    data = {"kind": "speculative", "search": "greedy", "draft": {"kind": "draft_model", "run": "runs/small"}}
    assert from_dict(SearchConfig, data) == Speculative(draft=DraftModel(run="runs/small"))


@pytest.mark.parametrize(
    "cfg",
    [
        Greedy(),
        Beam(size=3),
        DiverseBeam(size=6, groups=3),
        Sample(samples=4),
        MinimumBayesRisk(),
        Speculative(),
        Speculative(search=Sample(samples=2)),
    ],
    ids=lambda cfg: type(cfg).__name__,
)
def test_the_hypotheses_of_a_search_are_told_without_starting_it(cfg):
    assert beams_of(cfg) == cfg.start([5], torch.device("cpu"), [0]).beams
