"""Mamba: equal to the paper's recurrence, parallel as step by step, and a part of runs like any other mixer."""

import math

import pytest
import torch
import torch.nn.functional as F
from recurrent_runs import CHANGES, ages_are_joined, mixed, positions, texts_are_as_alone, writer
from tiny_run import MODEL
from torch import nn
from variants import D, assert_equal, build, gradients, ids

from dragoman.cli import main
from dragoman.config import from_dict, override
from dragoman.errors import ConfigError
from dragoman.machine import autocast
from dragoman.model.init import Gpt2Init, InverseSqrtWidth, Xavier, initialize
from dragoman.model.mamba import Mamba, MambaLayer
from dragoman.model.ops import native_scan
from dragoman.model.ops import selective_scan as scans
from dragoman.model.ops.selective_scan import selective_scan
from dragoman.model.transformer import TransformerConfig
from dragoman.native.library import available, unavailable
from dragoman.train.optimize import AdamW, Muon, decaying

# ---- the paper -------------------------------------------------------------------------------------------


def by_the_paper(layer: MambaLayer, x: torch.Tensor) -> torch.Tensor:
    """Algorithm 2 and figure 3 of arXiv:2312.00752, token by token and number by number of a single text."""
    T, (E, N), (R, _, _) = x.shape[0], layer.a_log.shape, layer.sizes
    inner, gate = layer.inputs(x).chunk(2, dim=-1)
    weight, bias, K = layer.convolution.weight[:, 0], layer.convolution.bias, layer.cfg.kernel
    h, outputs = [x.new_zeros(E)] * N, []
    for t in range(T):
        seen = sum(inner[t - back] * weight[:, K - 1 - back] for back in range(min(K, t + 1)))
        u = F.silu(seen if bias is None else seen + bias)
        chosen = layer.selection.weight @ u
        delta = F.softplus(layer.step.weight @ chosen[:R] + layer.step_bias)
        for n in range(N):
            a, b = -layer.a_log[:, n].exp(), chosen[R + n]
            h = [*h[:n], (delta * a).exp() * h[n] + delta * b * u, *h[n + 1 :]]
        y = sum(h[n] * chosen[R + N + n] for n in range(N)) + layer.skip * u
        outputs.append(y * F.silu(gate[t]))
    return layer.out(torch.stack(outputs))


CONFIGS = [Mamba(), Mamba(state=3, kernel=1, expand=1), Mamba(state=7, rank=5, kernel=6, bias=True)]


def built(cfg: Mamba) -> MambaLayer:
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
    layer, x, weights = built(CONFIGS[2]), torch.randn(1, 9, D).double(), torch.randn(9, D).double()
    ours = gradients(layer, (mixed(layer, x, positions(9))[0] * weights).sum())
    assert_equal(ours, gradients(layer, (by_the_paper(layer, x[0]) * weights).sum()))


# ---- the scan --------------------------------------------------------------------------------------------


def inputs(B: int, T: int, E: int, N: int, dtype=torch.float64) -> list[torch.Tensor]:
    given = [
        torch.randn(B, T, E), torch.rand(B, T, E), -3 * torch.rand(N, E), torch.randn(B, T, N), torch.randn(B, T, N),
        torch.randn(B, N, E),
    ]  # fmt: skip
    return [t.to(dtype).requires_grad_() for t in given]


def one_by_one(given: list[torch.Tensor], starts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    x, step, a, b, c, state = given
    outputs = []
    for t in range(x.shape[1]):
        token = [x[:, t : t + 1], step[:, t : t + 1], a, b[:, t : t + 1], c[:, t : t + 1], state]
        y, state = selective_scan(*token, None if starts is None else starts[:, t : t + 1])
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("starts", [None, torch.tensor([[True, False, False, True] * 5] * 2), torch.ones(1, 20).bool()])
@pytest.mark.parametrize("block", [1, 4, 7, 100])
@pytest.mark.parametrize("T", [2, 5, 20])
def test_blocks_and_groups_of_any_size_are_as_token_by_token_forwards_and_backwards(T, block, starts, monkeypatch):
    monkeypatch.setattr(scans, "BLOCK", 1)
    monkeypatch.setattr(scans, "SHORTEST", block)
    starts = None if starts is None else starts[:, :T]
    given = inputs(2, T, 6, 3)
    ours, theirs = selective_scan(*given, starts), one_by_one(given, starts)
    assert_equal(ours, theirs)
    weights = [torch.randn_like(t) for t in ours]
    for_ours, for_theirs = (
        torch.autograd.grad(sum((t * w).sum() for t, w in zip(found, weights, strict=True)), given)
        for found in (ours, theirs)
    )
    assert_equal(for_ours, for_theirs)


def test_numbers_of_float32_stay_within_its_precision_over_a_long_text():
    given = inputs(1, 700, 4, 16)
    narrow = [t.detach().float() for t in given]
    torch.testing.assert_close(selective_scan(*narrow)[0].double(), one_by_one(given, None)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not available(), reason=f"no kernels: {unavailable()}")
@pytest.mark.parametrize(
    "starts", [None, torch.tensor([[True, False, False, True] * 10] * 2), torch.ones(1, 40).bool()]
)
@pytest.mark.parametrize(("T", "E", "N"), [(1, 32, 3), (16, 16, 16), (40, 160, 5), (17, 128, 1)])
def test_the_kernel_computes_what_pytorch_computes_forwards_and_backwards(T, E, N, starts):
    starts = None if starts is None else starts[:, :T]
    exact = inputs(2, T, E, N)
    narrow = [t.detach().float().requires_grad_() for t in exact]
    assert native_scan.supports_scan(*narrow, starts)
    ours, theirs = selective_scan(*narrow, starts), selective_scan(*exact, starts)
    weights = [torch.randn_like(t) for t in theirs]
    for_ours, for_theirs = (
        torch.autograd.grad(sum((t * w.to(t.dtype)).sum() for t, w in zip(found, weights, strict=True)), given)
        for found, given in ((ours, narrow), (theirs, exact))
    )
    for got, wanted in zip((*ours, *for_ours), (*theirs, *for_theirs), strict=True):
        largest = float(wanted.detach().abs().max())
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5 * max(1.0, largest))


def test_the_kernel_steps_aside_for_what_it_does_not_compute():
    narrow = [t.detach().float() for t in inputs(1, 3, 32, 2)]
    assert native_scan.supports_scan(*narrow, None) == available()
    assert not native_scan.supports_scan(*(t.double() for t in narrow), None)
    assert not native_scan.supports_scan(*[t.detach().float() for t in inputs(1, 3, 24, 2)], None)
    assert not native_scan.supports_scan(*[t.detach().float() for t in inputs(1, 3, 16, 257)], None)


def test_no_tensor_of_all_states_is_stored(monkeypatch):
    kept = []
    monkeypatch.setattr(scans, "BLOCK", 1 << 10)
    given = inputs(1, 512, 16, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        selective_scan(*given)
    assert max(kept) <= 512 * 16  # a tensor of states would hold four times as many


def test_a_long_text_costs_memory_of_its_length_alone():
    sizes = []
    for T in (256, 512):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            mixed(built(Mamba()), torch.randn(1, T, D).double(), positions(T)).sum()
        sizes.append(sum(kept))
    assert sizes[1] < 2.01 * sizes[0]


# ---- initial values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [Xavier(), InverseSqrtWidth(), Gpt2Init()])
def test_initial_rates_and_steps_are_those_of_the_paper_whatever_the_initialization(init):
    cfg = Mamba(state=5)
    block = from_dict(TransformerConfig, MODEL | {"encoder": None}).decoder.pattern[0]
    model = writer_config(cfg, init, block).build()
    for layer in (block.mixer for block in model.decoder.blocks):
        assert torch.allclose(layer.a_log.exp(), torch.arange(1.0, 6).expand(2 * D, 5))
        steps = F.softplus(layer.step_bias)
        assert (steps > 0.9e-3).all() and (steps < 1.1e-1).all() and steps.log().std() > 0.5
        assert layer.step.weight.abs().max() <= layer.sizes[0] ** -0.5 and (layer.skip == 1).all()


def writer_config(mixer, init, block) -> TransformerConfig:
    import dataclasses

    block = dataclasses.replace(block, mixer=mixer, cross=None)
    tower = from_dict(TransformerConfig, MODEL).decoder
    return TransformerConfig(vocab=9, dim=D, decoder=dataclasses.replace(tower, depth=2, pattern=(block,)), init=init)


def test_rates_and_steps_do_not_decay_and_are_no_matrices_for_muon():
    model = build("mamba", "decoder-only").float()
    build.cache_clear()
    decayed, free = decaying(model, model.parameters(), 0.1)
    names = {p: name for name, p in model.named_parameters()}
    assert {"a_log", "skip", "step_bias"} <= {names[p].rpartition(".")[2] for p in free["params"]}
    assert {names[p].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    for optimizer in (AdamW(weight_decay=0.5).build(model), Muon().build(model)):
        rates = model.decoder.blocks[0].mixer.a_log
        before = rates.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizer.step()
        assert torch.equal(rates, before)


# ---- texts, rows, ages -----------------------------------------------------------------------------------


def test_texts_apart_by_padding_and_by_segments_are_as_alone():
    texts_are_as_alone(built(CONFIGS[0]))


def test_states_of_other_ages_go_on_together():
    ages_are_joined(build("mamba", "decoder-only"))


@torch.no_grad()
def test_its_state_does_not_grow_with_the_text():
    model, sizes = build("mamba", "decoder-only"), []
    state = model.start(None)
    for token in ids(2, 20).split(1, dim=1):
        model.decode(token, state)
        sizes.append(state.nbytes)
    assert len(set(sizes[3:])) == 1


@torch.no_grad()
def test_step_by_step_is_one_forward_in_float32():
    model, text = build("mamba, attention", "decoder-only").float(), ids(2, 30)
    build.cache_clear()
    state = model.start(None)
    found = torch.cat([model.decode(token, state) for token in text.split(1, dim=1)], dim=1)
    torch.testing.assert_close(found, model(text), rtol=1e-5, atol=1e-5)


def test_training_in_bfloat16_is_close_to_float32():
    model = build("mamba", "decoder-only").float().train()
    build.cache_clear()
    text, found = ids(3, 40), []
    for precision in ("float32", "bfloat16"):
        with autocast(precision, torch.device("cpu"))():
            loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1).float(), text[:, 1:].flatten())
        found.append((loss.item(), torch.cat([g.flatten() for g in gradients(model, loss).values()])))
    (exact, by_exact), (narrow, by_narrow) = found
    assert math.isclose(exact, narrow, rel_tol=0.02) and by_narrow.isfinite().all()
    assert nn.functional.cosine_similarity(by_exact, by_narrow, dim=0) > 0.99


# ---- configuration and runs --------------------------------------------------------------------------------

WRONG = {
    "decoder.pattern.0.mixer.state=0": "decoder.pattern.0.mixer.state: must be greater than 0, got 0",
    "decoder.pattern.0.mixer.rank=0": "decoder.pattern.0.mixer.rank: must be greater than 0, got 0",
    "decoder.pattern.0.mixer.kernel=-1": "decoder.pattern.0.mixer.kernel: must be greater than 0, got -1",
    "decoder.pattern.0.mixer.expand=1.5": "decoder.pattern.0.mixer.expand: expected a whole number, got 1.5",
    "decoder.pattern.0.mixer.position=rotary": "decoder.pattern.0.mixer: no 'position' here.",
    "decoder.pattern.0.mixer.state_size=4": "decoder.pattern.0.mixer: no 'state_size' here. Did you mean 'state'?",
    "decoder.pattern.0.mixer=mamba3": "no 'mamba3' here. Did you mean 'mamba'?",
    "decoder.pattern.0.mlp=no_feedforward": "no 'no_feedforward' here. Did you mean 'no_feed_forward'?",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(CHANGES["mamba"](MODEL), change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["mamba", "mamba, alone"])
def test_a_language_model_learns_continues_is_verified_and_goes_to_hugging_face(kind, tmp_path, capsys):
    run = writer(kind, tmp_path)
    assert main(["verify", str(run), "--sentences", "1", "--beam", "2"]) == 0, capsys.readouterr()
    code = main(["export", str(run), "--to", "huggingface", "-o", str(tmp_path / "folder")])
    told = capsys.readouterr()
    assert code == 0, told
    if kind == "mamba":  # with attention, which no layout has
        assert "pattern.0.mixer" in told.out and "trust_remote_code" in told.out
        return
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "back")]) == 0


def test_an_export_to_ctranslate2_refuses_it_in_one_line(tmp_path, capsys):
    run = writer("mamba, alone", tmp_path)
    capsys.readouterr()
    assert main(["export", str(run), "--to", "ctranslate2", "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "pattern.0.m" in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
