"""Mamba-2: equal to the paper's recurrence, chunks as step by step, and a part of runs like any other mixer."""

import math

import pytest
import torch
import torch.nn.functional as F
from recurrent_runs import CHANGES, ages_are_joined, mixed, positions, texts_are_as_alone, writer
from tiny_run import MODEL
from variants import D, assert_equal, build, gradients, ids

from dragoman.cli import main
from dragoman.config import from_dict, override
from dragoman.errors import ConfigError
from dragoman.machine import autocast
from dragoman.model.init import Gpt2Init, Xavier, initialize
from dragoman.model.mamba2 import Mamba2, Mamba2Layer, chunked_scan, one_step
from dragoman.model.transformer import TransformerConfig
from dragoman.train.optimize import decaying

# ---- the paper -------------------------------------------------------------------------------------------


def by_the_paper(layer: Mamba2Layer, x: torch.Tensor) -> torch.Tensor:
    """The recurrence of arXiv:2405.21060 (equation 1, with one decay for each head), head by head, of one text."""
    cfg, T = layer.cfg, x.shape[0]
    (E, C, H), N, P, G, K = layer.sizes, cfg.state, cfg.head_dim, cfg.groups, cfg.kernel
    gate, inner, step = layer.inputs(x).split((E, C, H), dim=-1)
    weight, bias = layer.convolution.weight[:, 0], layer.convolution.bias
    h, outputs = [x.new_zeros(P, N)] * H, []
    for t in range(T):
        seen = sum(inner[t - back] * weight[:, K - 1 - back] for back in range(min(K, t + 1)))
        u = F.silu(seen if bias is None else seen + bias)
        heads = []
        for i in range(H):
            group = i * G // H
            read = u[i * P : (i + 1) * P]
            b, c = u[E + group * N : E + (group + 1) * N], u[E + (G + group) * N : E + (G + group + 1) * N]
            delta = F.softplus(step[t, i] + layer.step_bias[i])
            delta = delta.clamp(cfg.smallest_step, cfg.largest_step or math.inf)
            state = (-delta * layer.a_log[i].exp()).exp() * h[i] + delta * torch.outer(read, b)
            h = [*h[:i], state, *h[i + 1 :]]
            heads.append(state @ c + layer.skip[i] * read)
        y, z = torch.cat(heads), F.silu(gate[t])
        y = y if cfg.norm_before_gate else y * z
        y = torch.cat([part / (part.square().mean() + cfg.norm_eps).sqrt() for part in y.chunk(G)]) * layer.norm.weight
        outputs.append(y * z if cfg.norm_before_gate else y)
    return layer.out(torch.stack(outputs))


CONFIGS = [
    Mamba2(state=5, head_dim=8, chunk=4),
    Mamba2(state=3, head_dim=4, groups=2, kernel=1, expand=1, chunk=3, norm_before_gate=True, convolution_bias=False),
    Mamba2(state=4, head_dim=48, chunk=100, bias=True, norm_eps=0.1, smallest_step=0.3, largest_step=1.2),
]


def built(cfg: Mamba2) -> Mamba2Layer:
    layer = cfg.build(D)
    initialize(layer, Xavier(), D)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer.double()


@pytest.mark.parametrize("cfg", CONFIGS)
def test_it_is_the_recurrence_of_the_paper(cfg):
    layer, x = built(cfg), torch.randn(2, 13, D, dtype=torch.float64)
    assert_equal(mixed(layer, x, positions(13)), torch.stack([by_the_paper(layer, row) for row in x]))


def test_its_gradients_are_those_of_the_recurrence():
    layer, x, weights = built(CONFIGS[0]), torch.randn(1, 9, D).double(), torch.randn(9, D).double()
    ours = gradients(layer, (mixed(layer, x, positions(9))[0] * weights).sum())
    assert_equal(ours, gradients(layer, (by_the_paper(layer, x[0]) * weights).sum()))


# ---- chunks ----------------------------------------------------------------------------------------------


def inputs(B: int, T: int, H: int, P: int, G: int, N: int) -> list[torch.Tensor]:
    given = [torch.randn(B, T, H, P), torch.rand(B, T, H), -3 * torch.rand(H), torch.randn(B, T, G, N)]
    given += [torch.randn(B, T, G, N), torch.randn(B, G, H // G * P, N)]
    return [t.double().requires_grad_() for t in given]


def one_by_one(given: list[torch.Tensor], starts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    x, step, a, b, c, state = given
    outputs = []
    for t in range(x.shape[1]):
        now = slice(t, t + 1)
        begun = None if starts is None else starts[:, now]
        y, state = one_step(x[:, now], step[:, now], a, b[:, now], c[:, now], state, begun)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("starts", [None, torch.tensor([[True, False, False, True] * 5] * 2), torch.ones(1, 20).bool()])
@pytest.mark.parametrize("chunk", [1, 3, 4, 64])
@pytest.mark.parametrize("T", [2, 8, 19])
def test_chunks_of_any_size_are_as_token_by_token_forwards_and_backwards(T, chunk, starts):
    starts = None if starts is None else starts[:, :T]
    given = inputs(2, T, 6, 4, 3, 5)
    x, step, a, b, c, first = given
    ours, theirs = chunked_scan(x, step, a, b, c, chunk, first, starts), one_by_one(given, starts)
    assert_equal(ours, theirs)
    weights = [torch.randn_like(t) for t in ours]
    for_ours, for_theirs = (
        torch.autograd.grad(sum((t * w).sum() for t, w in zip(found, weights, strict=True)), given)
        for found in (ours, theirs)
    )
    assert_equal(for_ours, for_theirs)


def test_numbers_of_float32_stay_within_its_precision_over_a_long_text():
    x, step, a, b, c, first = given = inputs(1, 700, 2, 4, 1, 8)
    narrow = [t.detach().float() for t in (x, step, a, b, c)]
    torch.testing.assert_close(
        chunked_scan(*narrow, 64, first.float())[0].double(), one_by_one(given, None)[0], rtol=1e-5, atol=1e-4
    )


def test_a_long_text_costs_memory_of_its_length_alone():
    sizes = []
    for T in (256, 512):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            mixed(built(Mamba2(state=4, head_dim=8, chunk=32)), torch.randn(1, T, D).double(), positions(T)).sum()
        sizes.append(sum(kept))
    assert sizes[1] < 2.1 * sizes[0]


# ---- initial values, texts, ages -------------------------------------------------------------------------


@pytest.mark.parametrize("init", [Xavier(), Gpt2Init()])
def test_initial_rates_and_steps_are_those_of_the_authors_whatever_the_initialization(init):
    layer = Mamba2(head_dim=1, state=2).build(256)
    initialize(layer, init, 256)
    rates, steps = layer.a_log.exp(), F.softplus(layer.step_bias)
    assert (rates >= 1).all() and (rates <= 16).all() and rates.std() > 3
    assert (steps > 0.9e-3).all() and (steps < 1.1e-1).all() and steps.log().std() > 0.5
    assert (layer.skip == 1).all() and (layer.norm.weight == 1).all()
    free = decaying(layer, layer.parameters(), 0.1)[1]["params"]
    assert all(any(p is q for q in free) for p in (layer.a_log, layer.skip, layer.step_bias, layer.norm.weight))


@pytest.mark.parametrize("cfg", CONFIGS[:2])
def test_texts_apart_by_padding_and_by_segments_are_as_alone(cfg):
    texts_are_as_alone(built(cfg))


def test_states_of_other_ages_go_on_together():
    ages_are_joined(build("mamba 2", "decoder-only"))


@torch.no_grad()
def test_its_state_does_not_grow_with_the_text():
    model, sizes = build("mamba 2", "decoder-only"), []
    state = model.start(None)
    for token in ids(2, 20).split(1, dim=1):
        model.decode(token, state)
        sizes.append(state.nbytes)
    assert len(set(sizes[3:])) == 1


@torch.no_grad()
def test_step_by_step_is_one_forward_in_float32():
    model, text = build("mamba 2, attention", "decoder-only").float(), ids(2, 30)
    build.cache_clear()
    state = model.start(None)
    found = torch.cat([model.decode(token, state) for token in text.split(1, dim=1)], dim=1)
    torch.testing.assert_close(found, model(text), rtol=1e-5, atol=1e-5)


def test_training_in_bfloat16_is_close_to_float32():
    model = build("mamba 2", "decoder-only").float().train()
    build.cache_clear()
    text, found = ids(3, 40), []
    for precision in ("float32", "bfloat16"):
        with autocast(precision, torch.device("cpu"))():
            loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1).float(), text[:, 1:].flatten())
        found.append((loss.item(), torch.cat([g.flatten() for g in gradients(model, loss).values()])))
    (exact, by_exact), (narrow, by_narrow) = found
    assert math.isclose(exact, narrow, rel_tol=0.02) and by_narrow.isfinite().all()
    assert F.cosine_similarity(by_exact, by_narrow, dim=0) > 0.99


# ---- configuration and runs --------------------------------------------------------------------------------

WRONG = {
    "decoder.pattern.0.mixer.head_dim=5": "model.decoder.pattern.0.mixer.head_dim: heads of 5 channels do not divide",
    "decoder.pattern.0.mixer.groups=3": "model.decoder.pattern.0.mixer.groups: 3 groups do not divide",
    "decoder.pattern.0.mixer.state=0": "decoder.pattern.0.mixer.state: must be greater than 0, got 0",
    "decoder.pattern.0.mixer.chunk=0": "decoder.pattern.0.mixer.chunk: must be greater than 0, got 0",
    "decoder.pattern.0.mixer.heads=2": "decoder.pattern.0.mixer: no 'heads' here. Did you mean 'head_dim'?",
    "decoder.pattern.0.mixer.smallest_step=-1": "mixer.smallest_step: must be greater than or equal to 0, got -1",
    "decoder.pattern.0.mixer={smallest_step: 1.0, largest_step: 0.5}": "largest_step: 0.5 is below smallest_step, 1",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(CHANGES["mamba2"](MODEL), change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["mamba2", "mamba2, alone"])
def test_a_language_model_learns_continues_is_verified_and_goes_to_hugging_face(kind, tmp_path, capsys):
    run = writer(kind, tmp_path)
    assert main(["verify", str(run), "--sentences", "1", "--beam", "2"]) == 0, capsys.readouterr()
    code = main(["export", str(run), "--to", "huggingface", "-o", str(tmp_path / "folder")])
    told = capsys.readouterr()
    assert code == 0, told
    if kind == "mamba2":  # with attention, which no layout has
        assert "pattern.0.mixer" in told.out and "trust_remote_code" in told.out
        return
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "back")]) == 0
