"""Beams other than the plain one: in groups that avoid each other, and with a penalty for source left untranslated."""

import pytest
import torch
from test_search import Recurrent, each_family, next_log_probs, sources, transformer

from dragoman.config import from_dict, to_dict
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Gnmt
from dragoman.decode.search.search import SearchConfig, search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD

SHORT = LengthLimit(tokens=7, ratio=0.0, extra=7)


def alone(source):
    return source[source != PAD][None]


# ---- groups that avoid each other ------------------------------------------------------------------


def diverse_with_lists(model, source, cfg, limit):
    """One hypothesis list a group, step by step, as in the paper's algorithm 1."""
    each = cfg.size // cfg.groups
    live, finished = [[(0.0, [])] for _ in range(cfg.groups)], []
    for length in range(1, limit + 1):
        said: dict[int, int] = {}
        for group in range(cfg.groups):
            candidates = []
            for row, (total, tokens) in enumerate(live[group]):
                p = next_log_probs(model, source, tokens)
                choices = [EOS] if length == limit else range(EOS, len(p))
                candidates += [
                    (-(total + p[v].item()) + cfg.strength * said.get(v, 0), row, v, total + p[v].item(), [*tokens, v])
                    for v in choices
                ]
            candidates.sort()
            for _, _, token, total, tokens in candidates[:each]:
                if token == EOS:
                    finished.append((-total / cfg.penalty.divisor(length), tokens))
            live[group] = [(total, tokens) for _, _, token, total, tokens in candidates if token != EOS][:each]
            for _, tokens in live[group]:
                said[tokens[-1]] = said.get(tokens[-1], 0) + 1
        finished.sort(key=lambda f: f[0])
        best = max((total for some in live for total, _ in some), default=-torch.inf) / cfg.penalty.divisor(length)
        if len(finished) >= max(cfg.size, cfg.nbest) and -finished[cfg.nbest - 1][0] >= best:
            break
    distinct = list({tuple(tokens): None for _, tokens in finished[: cfg.size]})
    return distinct[: cfg.nbest]


def test_diverse_beam_search_equals_its_slow_twin():
    for seed, (size, groups, strength, vocab) in enumerate([(4, 2, 0.7, 12), (6, 3, 2.0, 90), (3, 3, 0.3, 9)]):
        model, batch = Recurrent(vocab, seed=seed), sources(vocab, 4, seed)
        with torch.no_grad():
            model.output.weight[EOS] += 0.3
        cfg = DiverseBeam(size=size, groups=groups, strength=strength, nbest=2, limit=SHORT)
        for source, found in zip(batch, search(model, batch, cfg), strict=True):
            assert [h.tokens for h in found] == diverse_with_lists(model, alone(source), cfg, 7)


@each_family
def test_one_group_or_no_strength_between_groups_of_one_sentence_is_plain_beam_search(build):
    model, batch = build(60), sources(60, 6)
    plain = search(model, batch, Beam(size=4, nbest=3, limit=SHORT))
    assert search(model, batch, DiverseBeam(size=4, nbest=3, groups=1, strength=5.0, limit=SHORT)) == plain


def test_groups_say_different_things_the_more_the_stronger():
    model, batch = Recurrent(200, sharpness=0.5), sources(200, 12)

    def firsts(cfg):
        return sum(len({h.tokens[0] for h in found}) for found in search(model, batch, cfg))

    plain, weak, strong = (
        firsts(DiverseBeam(size=6, groups=6, nbest=6, strength=strength, limit=SHORT)) for strength in (0.0, 0.2, 9.0)
    )
    assert plain == 12 and plain <= weak < strong


def test_groups_must_divide_the_beam():
    with pytest.raises(ConfigError, match="groups: 4 groups do not divide a beam of 6"):
        DiverseBeam(groups=4)
    cfg = DiverseBeam(size=8, groups=2)
    assert from_dict(SearchConfig, to_dict(cfg)) == cfg and cfg.kind == "diverse_beam"


# ---- source left untranslated ----------------------------------------------------------------------


def coverage(model, source, tokens):
    """Attention to each source token, mean over all heads, summed over the steps, heard in one forward."""
    heard = []
    with torch.no_grad(), recording_attention(attention_taps(model), heard):
        model(torch.tensor([[BOS, *tokens[:-1]]]), source)
    return torch.stack(heard).mean(dim=(0, 2))[0].sum(dim=0)


def test_scores_are_equation_14_with_the_attention_of_one_forward_pass():
    model, batch = transformer(40), sources(40, 6)
    cfg = CoveringBeam(size=4, nbest=3, beta=0.7, penalty=Gnmt(), limit=SHORT)
    for source, found in zip(batch, search(model, batch, cfg), strict=True):
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            penalty = coverage(model, alone(source), h.tokens).clamp(max=1.0).log().sum().item()
            expected = h.log_prob / Gnmt().divisor(len(h.tokens)) + 0.7 * penalty
            assert h.score == pytest.approx(expected, abs=1e-4)


def test_without_weight_coverage_changes_nothing_and_with_much_of_it_translations_cover_more():
    model, batch = transformer(40, seed=1), sources(40, 10)
    plain = search(model, batch, Beam(size=5, nbest=2, stop="certain", limit=SHORT))
    assert search(model, batch, CoveringBeam(size=5, nbest=2, stop="certain", beta=0.0, limit=SHORT)) == plain
    covering = search(model, batch, CoveringBeam(size=5, stop="certain", beta=20.0, limit=SHORT))

    def covered(found):
        pairs = zip(batch, found, strict=True)
        return sum(coverage(model, alone(s), some[0].tokens).clamp(max=1.0).log().sum().item() for s, some in pairs)

    assert covered(covering) > covered(plain)


def test_coverage_is_the_same_alone_and_in_a_batch():
    model, batch = transformer(40, seed=2), sources(40, 8)
    cfg = CoveringBeam(size=3, beta=1.0, limit=SHORT)
    for source, [found] in zip(batch, search(model, batch, cfg), strict=True):
        [[single]] = search(model, alone(source), cfg)
        assert single.tokens == found.tokens and single.score == pytest.approx(found.score, abs=1e-5)


def test_coverage_needs_attention_and_a_penalty_that_is_one():
    with pytest.raises(ConfigError, match="covering_beam: this model does not attend to a source"):
        search(Recurrent(9), sources(9, 2), CoveringBeam())
    with pytest.raises(ConfigError, match="beta: a coverage penalty is a number from 0 up"):
        CoveringBeam(beta=-1.0)


# ---- ties ------------------------------------------------------------------------------------------


def test_exact_ties_fall_the_same_way_in_every_batch():
    """Each token has a twin further on in the vocabulary, which scores the same in each step, whatever was said."""
    model, batch = transformer(300), sources(300, 10)
    with torch.no_grad():
        for table in (model.output.weight, model.embed.tokens.weight):
            table[152:300] = table[4:152]
    for cfg in (Beam(size=4, nbest=4, limit=SHORT), Greedy(limit=SHORT)):
        for source, found in zip(batch, search(model, batch, cfg), strict=True):
            assert [h.tokens for h in search(model, alone(source), cfg)[0]] == [h.tokens for h in found]
