"""Every optimizer learns, goes on from its saved state to the bit, and leaves alone what is frozen."""

import re

import pytest
import tiny_run
import torch
from test_loop import batch, model, step, weights
from tiny_run import outcome

from dragoman.config import from_dict, to_dict
from dragoman.errors import CheckpointError
from dragoman.model.families import ModelConfig
from dragoman.model.meta_device import on_meta_device
from dragoman.plan.parameters import count_parameters
from dragoman.presets import PRESETS
from dragoman.train import muon
from dragoman.train.distributed.micro_batch import unsplit
from dragoman.train.loop import LoopProgress, StepRules, train_step
from dragoman.train.optimize import (
    Adafactor,
    Adam,
    AdamW,
    Muon,
    Optimizer,
    hidden_matrices,
    load_state_tensors,
    state_tensors,
)
from dragoman.train.run import resume, start

ALL = [Adam(), AdamW(), Muon(), Adafactor()]
PEAKS = {"adam": 1e-2, "adam_w": 1e-2, "muon": 1e-2, "adafactor": 1e-1}


def kind(choice) -> str:
    return choice.kind


@pytest.fixture(params=ALL, ids=kind)
def choice(request):
    return request.param


def learn(module, optimizer, progress, count):
    for _ in range(count):
        step(module, [batch(progress.step)], progress, optimizer=optimizer)


# ---- all of them ----------------------------------------------------------------------------------


def test_a_batch_is_learned_by_heart(choice):
    module, optimizer, progress = model(), None, LoopProgress()
    optimizer, losses = choice.build(module), []
    for _ in range(60):
        done = train_step(
            module, plain_loss, unsplit([batch()]), optimizer, progress, lr=PEAKS[choice.kind], rules=StepRules(seed=1)
        )
        losses.append(done.loss)
    assert losses[-1] < 0.6 * losses[0]


def plain_loss(module, b):
    logits = module(b.target_in, b.source).flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(logits, b.target_out.flatten(), ignore_index=0, reduction="sum")
    return summed, (b.target_out != 0).sum()


def test_an_optimizer_goes_on_from_its_saved_tensors_to_the_bit(choice):
    whole, first, second = model(), model(), model()
    learn(whole, choice.build(whole), LoopProgress(), 4)
    optimizer, progress = choice.build(first), LoopProgress()
    learn(first, optimizer, progress, 2)
    saved = {name: value.clone() for name, value in state_tensors(optimizer, first).items()}
    second.load_state_dict(first.state_dict())
    optimizer = choice.build(second)
    load_state_tensors(optimizer, second, saved)
    assert state_tensors(optimizer, second).keys() == saved.keys()
    learn(second, optimizer, progress, 2)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(second).items())


def test_every_weight_is_in_one_group_and_gets_the_learning_rate_even_after_loading(choice):
    module = model()
    optimizer = choice.build(module)
    learn(module, optimizer, LoopProgress(), 1)
    load_state_tensors(optimizer, module, state_tensors(optimizer, module))
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == set(module.parameters())
    before = weights(module)
    step(module, [batch()], optimizer=optimizer)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    assert all(not torch.equal(value, before[name]) for name, value in weights(module).items())


def test_what_is_frozen_stays_as_it_is_and_takes_no_memory(choice):
    module = model()
    frozen = [name for name, _ in module.named_parameters() if name.startswith("encoder.")]
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    before, optimizer = weights(module), choice.build(module)
    learn(module, optimizer, LoopProgress(), 2)
    assert all(torch.equal(weights(module)[name], before[name]) for name in frozen)
    assert not [key for key in state_tensors(optimizer, module) if key.startswith("encoder.")]


def test_a_learning_rate_of_zero_changes_nothing(choice):
    module = model()
    before, optimizer = weights(module), choice.build(module)
    train_step(module, plain_loss, unsplit([batch()]), optimizer, LoopProgress(), lr=0.0, rules=StepRules(seed=1))
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_it_survives_the_way_through_a_file(choice):
    assert from_dict(Optimizer, to_dict(choice)) == choice


def test_optimizer_state_of_another_model_is_refused_by_name(choice):
    module = model()
    with pytest.raises(CheckpointError, match=r"'encoder.old.weight', which the model does not have"):
        load_state_tensors(choice.build(module), module, {"encoder.old.weight:exp_avg": torch.zeros(1)})


@pytest.mark.parametrize("choice", [Muon(), Adafactor()], ids=kind)
def test_a_run_that_was_stopped_equals_the_uninterrupted_one(choice, tmp_path):
    pairs, ways = tiny_run.write_pairs(tmp_path / "pairs.tsv"), (tmp_path / "whole", tmp_path / "stopped")
    cfg = tiny_run.config(pairs, optimizer=to_dict(choice), budget={"kind": "steps", "steps": 8})
    list(start(cfg, ways[0]).events())
    events = start(cfg, ways[1]).events()
    assert any(type(event).__name__ == "Saved" for event in events), "at step 3"
    events.close()
    list(resume(ways[1]).events())
    assert outcome(ways[1]) == outcome(ways[0])


# ---- one by one -----------------------------------------------------------------------------------


def test_only_matrices_decay_and_no_embedding():
    module = model()
    groups = {
        g["weight_decay"]: {id(p) for p in g["params"]} for g in AdamW(weight_decay=0.1).build(module).param_groups
    }
    names = {name: id(p) for name, p in module.named_parameters()}
    decaying = {name for name, p in names.items() if p in groups[0.1]}
    assert "decoder.blocks.0.mlp.up.weight" in decaying
    assert not [name for name in decaying if "embed" in name or "norm" in name or "bias" in name or "residual" in name]
    assert len(groups[0.1]) + len(groups[0.0]) == len(names)


@pytest.mark.parametrize("tying", ["all", "none"])
def test_muon_takes_the_hidden_matrices_and_adamw_all_else(tying):
    module = model(tying=tying)
    optimizer = Muon().build(module)
    learn(module, optimizer, LoopProgress(), 1)
    kept = {key.rpartition(":")[0]: key.rpartition(":")[2] for key in state_tensors(optimizer, module)}
    by_muon = {name for name, what in kept.items() if what == "momentum_buffer"}
    assert by_muon == {
        name for name, p in module.named_parameters() if p.ndim == 2 and name.startswith(("encoder.", "decoder."))
    }
    assert kept.keys() == dict(module.named_parameters()).keys()


ENDS = {
    "captioner-tiny": {"encoder.inputs.project.weight", "decoder.embed.tokens.weight", "decoder.output.weight"},
    "vit-tiny": {"inputs.project.weight", "head.output.weight"},
    "clip-tiny": {
        *("first.inputs.tokens.weight", "first.head.output.weight"),
        *("second.inputs.project.weight", "second.head.output.weight"),
    },
}
"""Matrices of presets with a side of pixels, words, classes or the answer: none maps hidden vectors to hidden ones."""


@pytest.mark.parametrize("name", ENDS)
def test_muon_takes_no_input_layer_and_no_output_wherever_in_the_model_it_is(name):
    module = untied_outline(name)
    taken = {name for name, p in module.named_parameters() if p in set(hidden_matrices(module))}
    matrices = {name for name, p in module.named_parameters() if p.ndim == 2 and not name.endswith("position.weight")}
    assert matrices - taken == ENDS[name]


@pytest.mark.parametrize("name", [*ENDS, "t5-small", "lstm-bahdanau"])
def test_muon_takes_the_matrices_that_a_plan_counts_as_hidden(name):
    module = untied_outline(name)
    vectors = {
        name: p for name, p in module.named_parameters() if p.ndim < 2 and not re.search(r"\b(inputs|head)\b", name)
    }
    between = [*hidden_matrices(module), *vectors.values()]
    assert count_parameters(module).hidden == sum(p.numel() for p in between)


def untied_outline(name):
    plain = PRESETS[name]()["model"]
    if "projector" in plain:
        plain["decoder"]["tying"] = "none"
    cfg = from_dict(ModelConfig, plain)
    with on_meta_device():
        return cfg.sized(vocab=40, **({"classes": 3} if name == "vit-tiny" else {})).build()


def test_memory_of_a_matrix_that_muon_no_longer_takes_begins_anew_and_is_named():
    module = model(tying="none")
    saved = {"output.weight:momentum_buffer": torch.ones_like(module.output.weight)}
    assert load_state_tensors(Muon().build(module), module, saved) == ["output.weight"]


def test_muon_moves_a_matrix_along_the_nearest_orthogonal_one():
    """Against the definition: G = U S V^T moves the weight along U V^T. Five Newton-Schulz steps leave singular
    values between 0.7 and 1.2, by design."""
    module = model()
    before, optimizer = weights(module), Muon(momentum=0.0, weight_decay=0.0).build(module)
    step(module, [batch()], optimizer=optimizer)
    name = "decoder.blocks.0.mlp.up.weight"
    u, s, v = torch.linalg.svd(module.get_parameter(name).grad.double(), full_matrices=False)
    moved = (before[name] - weights(module)[name]).double() / (1e-3 * 0.2 * max(before[name].shape) ** 0.5)
    along = torch.einsum("ij,ir,jr->r", moved, u, v.T)
    real = along[s > 0.05 * s[0]]
    assert ((real > 0.6) & (real < 1.3)).all(), real


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("together", [1, 2**22], ids=["one by one", "in batches"])
def test_muon_equals_pytorchs(together, bfloat16, monkeypatch):
    """Up to rounding in bfloat16, with which PyTorch makes momentum orthogonal."""
    monkeypatch.setattr(muon, "TOGETHER", together)
    monkeypatch.setattr(muon, "_multiplies_bfloat16", lambda device: bfloat16)
    shapes = [(8, 8), (8, 24), (24, 8), (8, 24), (8, 8)]
    ours, theirs = ([torch.nn.Parameter(torch.randn(shape)) for shape in shapes] for _ in range(2))
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p)
    optimizers = (
        muon.MuonOptimizer(ours, weight_decay=0.1, momentum=0.9, iterations=5),
        torch.optim.Muon(theirs, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.05
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=0.01, rtol=0)  # they move by 0.2


def test_adafactor_remembers_a_row_and_a_column_of_each_matrix():
    module = model()
    optimizers = {choice.kind: choice.build(module) for choice in (AdamW(), Adafactor())}
    sizes = {}
    for name, optimizer in optimizers.items():
        learn(module, optimizer, LoopProgress(), 1)
        sizes[name] = sum(value.numel() for value in state_tensors(optimizer, module).values())
    assert sizes["adafactor"] < 0.35 * sizes["adam_w"], "of tiny matrices; of large ones next to nothing is left"


def test_adafactor_steps_are_a_share_of_the_tensors_size():
    """Equations of Shazeer & Stern, algorithm 4, in float64, for the first step: V is the mean of squares itself."""
    module = model()
    before, optimizer = weights(module), Adafactor().build(module)
    step(module, [batch()], optimizer=optimizer)
    name = "decoder.blocks.0.mlp.up.weight"
    gradient = module.get_parameter(name).grad.double()
    squares = gradient.square()
    expected = squares.mean(1, keepdim=True) @ squares.mean(0, keepdim=True) / squares.mean()
    update = gradient / expected.clamp(min=torch.finfo(torch.float32).eps ** 2).sqrt()
    update /= max(1.0, update.square().mean().sqrt())
    size = max(1e-3, before[name].double().square().mean().sqrt())
    moved = (before[name] - weights(module)[name]).double()
    torch.testing.assert_close(moved, 1e-3 * size * update, atol=1e-7, rtol=1e-3)
