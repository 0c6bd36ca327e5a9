"""A step learns from the mean over its tokens, however they are cut up, and from nothing that is not a number."""

import pytest
import tiny_run
import torch
import torch.nn.functional as F
from torch import nn

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict
from dragoman.data.batch import PairBatch
from dragoman.data.tasks import TranslationTask
from dragoman.errors import CheckpointError
from dragoman.machine import autocast
from dragoman.model.families import ModelConfig
from dragoman.model.loss import plain_r_drop
from dragoman.model.moe import Mixture, auxiliary_loss
from dragoman.model.tower import Tower
from dragoman.train.average import MovingAverage, average_checkpoints
from dragoman.train.distributed.micro_batch import MicroBatch, unsplit
from dragoman.train.loop import Diverged, LoopProgress, StepRules, seed_of, train_step
from dragoman.train.optimize import Adam, state_tensors
from dragoman.train.progress import MetricsWindow

V = 20
TASK = TranslationTask()


def model(**changes):
    torch.manual_seed(0)
    cfg = from_dict(ModelConfig, tiny_run.MODEL | {"vocab": V, "output_bias": True} | changes)
    return cfg.build().train()


def suppressed(module):
    """Without dropout, so that batches cut differently can be compared."""
    return module.eval()


def batch(seed=0, rows=6):
    draw = torch.Generator().manual_seed(seed)
    source, target = (torch.randint(3, V, (rows, 7), generator=draw) for _ in range(2))
    for row in range(rows):
        source[row, 3 + row % 4 :], target[row, 2 + row % 5 :] = 0, 0
    shifted = torch.cat([torch.ones(rows, 1, dtype=torch.long), target[:, :-1]], dim=1)
    return PairBatch(source, torch.where(target == 0, 0, shifted), target)


def cut(whole, *places):
    parts = [tensor.tensor_split(places) for tensor in whole]
    return [PairBatch(*part) for part in zip(*parts, strict=True)]


def step(module, micro_batches, progress=None, *, loss=TASK.loss, optimizer=None, **rules):
    optimizer = optimizer or Adam().build(module)
    rules = StepRules(**{"seed": 1, "clip": None} | rules)
    return train_step(module, loss, unsplit(micro_batches), optimizer, progress or LoopProgress(), lr=1e-3, rules=rules)


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters()}


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# ---- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(1,), (2, 3), (1, 2, 3, 4, 5)], ids=["1+5", "2+1+3", "each alone"])
def test_accumulated_gradients_equal_the_large_batchs(places):
    one, many = suppressed(model()), suppressed(model())
    whole = step(one, [batch()])
    parts = step(many, cut(batch(), *places))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.tokens == whole.tokens == (batch().target_out != 0).sum()
    for name, gradient in gradients(one).items():
        torch.testing.assert_close(gradients(many)[name], gradient, atol=1e-7, rtol=1e-4)


def test_a_step_without_targets_counts_no_token():
    module, progress = model(), LoopProgress()
    nothing = PairBatch(*(torch.zeros_like(tensor) if i == 2 else tensor for i, tensor in enumerate(batch())))
    report = step(module, [nothing], progress)
    assert all(grad is None or not grad.any() for grad in gradients(module).values())
    assert (report.tokens, report.loss, report.skipped, progress.tokens) == (0, 0.0, False, 0)
    window = MetricsWindow()
    window.add(report)
    assert window.tokens == 0 and window.mean_loss is None


def test_clipping_shortens_the_gradient_and_keeps_its_direction():
    free, clipped = suppressed(model()), suppressed(model())
    full = step(free, [batch()])
    short = step(clipped, [batch()], clip=full.grad_norm / 4)
    assert short.grad_norm == full.grad_norm, "the norm before clipping is reported"
    for name, gradient in gradients(free).items():
        torch.testing.assert_close(gradients(clipped)[name], gradient / 4)


def test_a_short_gradient_is_left_alone():
    free, clipped = suppressed(model()), suppressed(model())
    full = step(free, [batch()])
    step(clipped, [batch()], clip=full.grad_norm * 2)
    assert all(torch.equal(gradients(free)[name], g) for name, g in gradients(clipped).items())


def test_a_step_is_a_function_of_seed_and_step_whatever_was_drawn_before():
    def learn(progress, seed, draws):
        module = model()
        torch.rand(draws)
        step(module, [batch()], progress, seed=seed)
        return weights(module)

    def same(a, b):
        return all(torch.equal(a[name], b[name]) for name in a)

    here = learn(LoopProgress(step=5), 1, draws=0)
    assert same(here, learn(LoopProgress(step=5), 1, draws=3))
    assert not same(here, learn(LoopProgress(step=6), 1, draws=0))
    assert not same(here, learn(LoopProgress(step=5), 2, draws=0))


def test_a_micro_batch_draws_by_its_place_whatever_else_is_learned_from_before_it():
    both, alone = model(), model()
    for module, places in ((both, [0, 1]), (alone, [1])):
        parts = [MicroBatch(batch(place), (place,), weight=float(place)) for place in places]
        train_step(
            module, TASK.loss, parts, Adam().build(module), LoopProgress(), lr=1e-3, rules=StepRules(seed=1, clip=None)
        )
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(gradients(both)[name], gradient)


def test_neighbouring_steps_places_and_seeds_draw_unlike_numbers():
    seeds = {seed_of(seed, step, place) % 2**32 for seed in range(30) for step in range(100) for place in range(3)}
    assert len(seeds) == 9000  # torch's generator looks at the lower half alone


def test_gradients_with_recomputation_equal_those_without_dropout_included():
    plain, recomputing = model(), model()
    for module in recomputing.modules():
        if isinstance(module, Tower):
            module.recompute = True
    step(plain, [batch()]), step(recomputing, [batch()])
    assert all(torch.equal(gradients(recomputing)[name], g) for name, g in gradients(plain).items())


def test_bfloat16_keeps_float32_weights_and_learns_nearly_the_same():
    exact, rough = suppressed(model()), suppressed(model())
    a = step(exact, [batch()])
    b = step(rough, [batch()], precision=autocast("bfloat16", torch.device("cpu")))
    assert b.loss == pytest.approx(a.loss, rel=2e-2) and b.loss != a.loss
    assert {p.dtype for p in rough.parameters()} == {torch.float32}


# ---- what is not a number -------------------------------------------------------------------------


def poisoned(where, value):
    """A loss that is multiplied by ``value``, or whose gradient alone is not a number."""

    def loss(module, batch):
        summed, count = TASK.loss(module, batch)
        if where == "loss":
            return summed * value, count
        return summed + module.output.bias.mul(0).sum().sqrt(), count  # 0, but the slope of sqrt there is infinite

    return loss


@pytest.mark.parametrize(("where", "value"), [("loss", float("nan")), ("loss", float("inf")), ("gradient", 1.0)])
def test_a_step_that_is_not_finite_changes_nothing_but_uses_up_its_data(where, value):
    module, progress = model(), LoopProgress()
    optimizer = Adam().build(module)
    tokens = step(module, [batch()], progress, optimizer=optimizer).tokens
    before = weights(module), {k: v.clone() for k, v in state_tensors(optimizer, module).items()}
    report = step(module, [batch(1), batch(2)], progress, optimizer=optimizer, loss=poisoned(where, value))
    assert report.skipped
    assert all(torch.equal(value, before[0][name]) for name, value in weights(module).items())
    assert all(torch.equal(value, before[1][name]) for name, value in state_tensors(optimizer, module).items())
    assert progress == LoopProgress(step=2, tokens=tokens, skipped=1, skipped_in_a_row=1)


def test_too_many_such_steps_in_a_row_stop_the_training_and_say_what_to_do():
    module, progress, bad = model(), LoopProgress(), poisoned("loss", float("nan"))
    for loss in (bad, bad, TASK.loss, bad, bad):
        step(module, [batch()], progress, loss=loss, give_up_after=3)
    with pytest.raises(Diverged, match=r"step 6: loss nan.*for 3 steps in a row: lower the learning rate.*float32"):
        step(module, [batch()], progress, loss=bad, give_up_after=3)
    assert progress.skipped == 5


# ---- the task -------------------------------------------------------------------------------------


def cross_entropy(module, b, smoothing):
    logits, targets = module(b.target_in, b.source).flatten(0, 1), b.target_out.flatten()
    return F.cross_entropy(logits, targets, ignore_index=0, reduction="sum", label_smoothing=smoothing)


def test_the_loss_is_label_smoothed_cross_entropy_summed_over_real_tokens():
    module, b = suppressed(model()), batch()
    for smoothing, ask in ((0.1, TASK.loss), (0.0, TASK.nll)):
        summed, count = ask(module, b)
        torch.testing.assert_close(summed, cross_entropy(module, b, smoothing))
        assert count == (b.target_out != 0).sum()


def test_r_drop_is_two_passes_and_what_they_disagree_on():
    module, b = model(), batch()
    summed, count = TranslationTask(r_drop=5.0).loss(suppressed(module), b)
    assert count == (b.target_out != 0).sum()
    torch.testing.assert_close(summed, TASK.loss(module, b)[0])  # without dropout they agree
    module.train()
    torch.manual_seed(3)
    summed, _ = TranslationTask(r_drop=5.0).loss(module, b)
    torch.manual_seed(3)
    hidden = module.hidden(b.target_in.repeat(2, 1), b.source.repeat(2, 1))
    one, two = (half.flatten(0, 1) for half in hidden.chunk(2))
    ends = module.output.weight, module.output.bias
    expected = plain_r_drop(one, two, *ends, b.target_out.flatten(), alpha=5.0, smoothing=0.1)
    torch.testing.assert_close(summed, expected)


def test_padding_adds_nothing_to_the_loss():
    module, b = suppressed(model()), batch()
    padded = PairBatch(*(F.pad(tensor, (0, 5)) for tensor in b))
    torch.testing.assert_close(TASK.loss(module, padded), TASK.loss(module, b))


def test_a_mixture_of_experts_adds_its_balance_for_every_token():
    mixture = {"kind": "mixture", "expert": {"kind": "feed_forward", "hidden": 16}, "experts": 4}
    plain, b = model(), batch()
    for block in (plain.encoder.blocks[0], plain.decoder.blocks[0]):
        block.mlp = from_dict(Mixture, mixture).build(8)
    for module in plain.modules():
        if isinstance(module, nn.Dropout) or "Dropout" in type(module).__name__:
            module.eval()
    with_balance, count = TASK.loss(plain, b)
    balance = auxiliary_loss(plain)
    torch.testing.assert_close(with_balance, cross_entropy(plain, b, 0.1) + balance * count)
    assert balance > 0


# ---- averages -------------------------------------------------------------------------------------


def test_the_moving_average_follows_its_formula():
    module = model()
    average, optimizer = MovingAverage(module, 0.9), Adam().build(module)
    expected = {name: p.double() for name, p in weights(module).items()}
    for number in range(1, 30):
        step(module, [batch(number)], optimizer=optimizer)
        average.update(number)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * p.double() for name, p in weights(module).items()}
    for name, value in average.tensors(module).items():
        if name in expected:
            torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)


def test_applying_the_average_is_undone_to_the_bit_even_after_an_error():
    module = model()
    average = MovingAverage(module, 0.5)
    step(module, [batch()])
    average.update(1)
    before = weights(module)
    with pytest.raises(KeyboardInterrupt), average.applied():
        assert not torch.equal(module.output.bias, before["output.bias"])
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_averaging_checkpoints_takes_the_mean_of_the_last_and_keeps_ties(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {})
    for number in range(1, 5):
        weight = torch.full((2, 2), float(number))
        run.save(number, tensors={"model": {"a": weight, "b": weight, "n": torch.tensor(7)}}, progress={}, config={})
    made = average_checkpoints(run, last=3)
    mean = run.load(made.path.name).tensors["model"]
    assert mean["a"] is mean["b"] and (mean["a"] == 3.0).all() and mean["n"] == 7
    assert [c.step for c in run.checkpoints()] == [1, 2, 3, 4], "it stands aside"
    with pytest.raises(CheckpointError, match=r"4 checkpoints where 9 are to be averaged.*train\.keep\.last"):
        average_checkpoints(run, last=9)
