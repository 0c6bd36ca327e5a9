"""Mixtures of experts: what they equal when they are simple, and what routing promises."""

import copy

import pytest
import torch
from torch import Tensor, nn
from variants import assert_equal

from dragoman.errors import ConfigError
from dragoman.model.mlp import FeedForward, Gated
from dragoman.model.moe import Mixture, MixtureLayer, auxiliary_loss

D, N = 8, 40
EXPERT = Gated(hidden=12)


def layer(**options: object) -> MixtureLayer:
    return Mixture(**{"experts": 4, "expert": EXPERT} | options).build(D).double().eval()


def tokens(*size: int) -> Tensor:
    return torch.randn(*(size or (2, N // 2)), D, dtype=torch.float64)


def weighted(mixture: MixtureLayer, x: Tensor, active: int, normalize: bool = True) -> Tensor:
    """The slow twin: each token's best experts by probability, one token at a time."""
    out = torch.zeros_like(x)
    for i, token in enumerate(x):
        p = (mixture.router.weight @ token).softmax(0)
        best = p.argsort(descending=True)[:active]
        total = p[best].sum() if normalize else 1.0
        out[i] = sum(p[e] / total * mixture.experts[e](token) for e in best) + sum(e(token) for e in mixture.shared)
    return out


@pytest.mark.parametrize("expert", [EXPERT, FeedForward(hidden=12)], ids=["gated", "plain"])
def test_one_expert_is_a_dense_layer(expert):
    mixture, dense = layer(experts=1, active=1, expert=expert), expert.build(D).double()
    mixture.experts[0].load_state_dict(dense.state_dict())
    x = tokens()
    assert_equal(mixture(x), dense(x), 1e-12)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("active", [1, 2, 4])
def test_a_token_gets_the_weighted_sum_of_its_best_experts_and_all_shared_ones(active, shared, normalize):
    mixture, x = layer(active=active, shared=shared, normalize=normalize), tokens(N)
    assert_equal(mixture(x), weighted(mixture, x, active, normalize), 1e-12)


def outcome(mixture: MixtureLayer, x: Tensor) -> Tensor:
    """Which tokens any expert took (N)."""
    return (mixture(x) != 0).any(dim=-1)


def test_without_a_capacity_no_token_is_dropped_however_uneven():
    mixture = layer(active=1).train()
    nn.init.zeros_(mixture.router.weight)
    mixture.router.weight.data[2] = 1.0
    x = tokens(N).abs()  # all of them choose expert 2
    assert outcome(mixture, x).all()
    assert mixture.load.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("capacity, taken", [(1.0, 10), (2.0, 20), (0.01, 1), (4.0, 40)])
def test_a_capacity_drops_the_later_tokens_of_a_crowded_expert_while_training(capacity, taken):
    mixture = layer(active=1, capacity=capacity).train()
    nn.init.zeros_(mixture.router.weight)
    mixture.router.weight.data[2] = 1.0
    x = tokens(N).abs()
    assert outcome(mixture, x).tolist() == [i < taken for i in range(N)]
    assert outcome(mixture.eval(), x).all()


def test_a_dropped_token_still_goes_to_its_other_experts_and_the_shared_ones():
    mixture, x = layer(active=2, capacity=0.5, shared=1).train(), tokens(N)
    kept = mixture(x)
    everything = weighted(mixture, x, 2)
    assert not torch.allclose(kept, everything)
    shared = mixture.shared[0](x)
    assert_equal(kept[:3], everything[:3], 1e-12)  # the first tokens find room
    assert ((kept - shared).abs().sum(-1) > 0).sum() < N


@pytest.mark.parametrize("training", [True, False])
def test_padding_goes_to_no_expert_and_counts_in_no_loss(training):
    mixture = layer(capacity=0.8 if training else None).train(training)
    x, real = tokens(3, 10), torch.rand(3, 10) > 0.4
    got = mixture(x, real)
    loss, load = mixture.auxiliary, mixture.load
    alone = mixture(x[real])
    assert_equal(got[real], alone, 1e-12)
    assert (got[~real] == 0).all()
    assert torch.equal(load, mixture.load)
    if training:
        assert_equal(loss, mixture.auxiliary, 1e-12)


def test_a_batch_of_nothing_but_padding_is_zeros_and_no_loss():
    mixture = layer().train()
    x = tokens(2, 3).requires_grad_()
    out = mixture(x, torch.zeros(2, 3, dtype=torch.bool))
    (out.sum() + mixture.auxiliary).backward()
    assert (out == 0).all()
    assert mixture.auxiliary == 0
    assert (x.grad == 0).all()


def test_the_balance_loss_is_its_weight_when_all_experts_get_their_share():
    mixture = layer(experts=4, active=1, balance=0.3).train()
    mixture.router.weight.data = 1e-9 * torch.eye(4, D, dtype=torch.float64)
    mixture(torch.eye(4, D, dtype=torch.float64).repeat(5, 1))
    assert mixture.load.tolist() == [0.25] * 4
    assert_equal(mixture.auxiliary.item(), 0.3)


@pytest.mark.parametrize("active", [1, 2])
def test_the_balance_loss_is_largest_when_the_same_experts_get_everything(active):
    mixture = layer(experts=4, active=active, balance=1.0).train()
    mixture.router.weight.data = torch.zeros(4, D, dtype=torch.float64)
    mixture.router.weight.data[:active] = 100.0
    mixture(tokens(N).abs())
    assert_equal(mixture.auxiliary.item(), 4 / active)


def test_the_router_loss_is_the_mean_squared_log_sum_exp():
    mixture, x = layer(balance=0.0, router_z=0.5).train(), tokens(N)
    mixture(x)
    assert_equal(mixture.auxiliary, 0.5 * (x @ mixture.router.weight.T).logsumexp(-1).square().mean())


def test_losses_push_an_uneven_router_towards_even():
    mixture, x = layer(active=1, balance=1.0).train(), tokens(200).abs()
    mixture.router.weight.data[1] += 1.0
    mixture(x)
    before = mixture.load.max()
    for _ in range(100):
        mixture(x)
        (gradient,) = torch.autograd.grad(mixture.auxiliary, mixture.router.weight)
        mixture.router.weight.data -= 0.3 * gradient
    mixture(x)
    assert mixture.load.max() < before


@pytest.mark.parametrize("normalize, active", [(True, 2), (False, 1)])
def test_the_output_teaches_the_router(normalize, active):
    mixture = layer(active=active, normalize=normalize, balance=0.0)
    mixture(tokens()).square().sum().backward()
    assert (mixture.router.weight.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("capacity", [None, 0.7])
def test_gradients_are_right(capacity):
    cfg = Mixture(experts=3, expert=Gated(hidden=2), shared=1, balance=0.5, router_z=0.1, capacity=capacity)
    mixture = cfg.build(3).double().train()
    names = [name for name, _ in mixture.named_parameters()]
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.func.functional_call(mixture, dict(zip(names, parameters, strict=True)), (x,))
        return out, mixture.auxiliary

    assert torch.autograd.gradcheck(run, (x, *mixture.parameters()))


def test_losses_are_of_the_last_training_forward_and_end_with_it():
    model = nn.ModuleList([layer(), layer()])
    assert auxiliary_loss(model) == 0.0
    for mixture in model.train():
        mixture(tokens())
    assert_equal(auxiliary_loss(model), model[0].auxiliary + model[1].auxiliary)
    for mixture in model.eval():
        mixture(tokens())
    assert auxiliary_loss(model) == 0.0
    assert auxiliary_loss(nn.Linear(2, 2)) == 0.0


def test_where_there_are_shapes_only_each_expert_takes_its_even_share():
    with torch.device("meta"):
        mixture = Mixture(experts=3, active=2, expert=EXPERT, shared=1).build(D)
        x, real = torch.zeros(2, 5, D), torch.ones(2, 5, dtype=torch.bool)
        taken = []
        for expert in mixture.experts:
            expert.register_forward_hook(lambda module, given, out: taken.append(len(out)))
        assert mixture(x, real).shape == x.shape
    assert taken == [7, 7, 6]


def test_a_mixture_can_be_copied_after_training_forwards():
    mixture = layer().train()
    mixture(tokens())
    twin, x = copy.deepcopy(mixture), tokens()
    assert twin.auxiliary is None
    assert torch.equal(twin(x), mixture(x))


def test_more_active_experts_than_there_are_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^active: 5 active experts of 4"):
        layer(active=5)
