"""A step's calls are recorded with their shapes, and run alone on memory of the same shapes, safely and unseen."""

import ctypes

import pytest
import torch

from dragoman.plan.replay import (
    Arena,
    CallTime,
    PointerTo,
    RecordedCall,
    RecordedStep,
    StructSpec,
    TensorSpec,
    estimated,
)
from dragoman.plan.replay import seconds_of as timed

aten = torch.ops.aten


class Pair(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("rows", ctypes.c_int64)]


def recorded(function, *args, **options) -> RecordedCall:
    found = RecordedStep.empty()
    found.observe(function, args, options, False)
    (call,) = found.distinct()
    return call


def test_equal_calls_are_one_and_are_counted_on_either_pass():
    found = RecordedStep.empty()
    for backward in (False, False, True):
        found.observe(aten.mm.default, (torch.ones(2, 3), torch.ones(3, 4)), {}, backward)
    found.observe(aten.mm.default, (torch.ones(2, 3), torch.ones(3, 5)), {}, False)
    found.observe(aten.mm.default, (torch.ones(2, 3).bfloat16(), torch.ones(3, 4).bfloat16()), {}, False)
    assert len(found.distinct()) == 3
    assert (found.forward.total(), found.backward.total()) == (4, 1)


@pytest.mark.parametrize(
    "call",
    [
        recorded(aten.mm.default, torch.ones(4, 3).t(), torch.ones(4, 5)),
        recorded(aten.embedding.default, torch.ones(7, 3), torch.full((2, 5), 6)),
        recorded(aten._softmax.default, torch.ones(2, 3), -1, False),
        recorded(aten.sum.dim_IntList, torch.ones(2, 3), [0], True),
        recorded(aten.bernoulli_.float, torch.ones(4, 4), 0.5),
        recorded(aten.native_layer_norm.default, torch.ones(2, 8), [8], torch.ones(8), torch.ones(8), 1e-5),
        recorded(aten.view.default, torch.ones(2, 3), [6]),
    ],
    ids=lambda call: call.name,
)
def test_a_call_is_timed_and_the_generator_of_random_numbers_is_left_alone(call):
    state = torch.random.get_rng_state()
    found = timed([call], arena=1 << 16)
    assert 0 < found[call].usual <= found[call].first
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "call",
    [
        recorded(aten._pack_padded_sequence.default, torch.ones(3, 2, 4), torch.tensor([3, 1]), False),
        recorded(aten.masked_scatter.default, torch.ones(4), torch.tensor([3, 9, 9, 9]), torch.ones(4)),
        recorded(aten.repeat_interleave.Tensor, torch.tensor([10**9])),
    ],
    ids=lambda call: call.name,
)
def test_what_reads_whole_numbers_of_unknown_meaning_is_not_run_but_estimated(call):
    assert timed([call], arena=1 << 16) == {}
    assert estimated(call, {}, bandwidth=1e9) > 0


def test_a_gradient_that_cannot_be_run_takes_twice_its_forward_pass():
    forward = recorded(aten.silu.default, torch.ones(4))
    backward = recorded(aten.silu_backward.default, torch.ones(4), torch.ones(4))
    assert estimated(backward, {forward: CallTime(0.5, 0.9)}, bandwidth=1e9) == 1.0


def test_a_product_that_was_not_run_is_as_fast_as_those_that_were():
    small = recorded(aten.mm.default, torch.ones(2, 3), torch.ones(3, 4))
    large = [
        recorded(aten.bmm.default, torch.ones(5, 4, 6), torch.ones(5, 6, 8)),
        recorded(aten.addmm.default, torch.ones(24), torch.ones(5, 8), torch.ones(8, 24)),
        recorded(aten.baddbmm.default, torch.ones(2, 5, 6), torch.ones(2, 5, 16), torch.ones(2, 16, 6)),
    ]
    for call in large:
        assert estimated(call, {small: CallTime(0.5, 0.9)}, bandwidth=1e9) == 0.5 * 960 / 24
    assert estimated(small, {}, bandwidth=4.0) == 12 + 6


def test_no_call_is_timed_when_the_time_is_over():
    call = recorded(aten.mm.default, torch.ones(2, 2), torch.ones(2, 2))
    assert timed([call], within=0.0, arena=1 << 16) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.uint8])
@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.t(), lambda x: x[:, ::2], lambda x: x[:0]])
def test_memory_has_the_shape_the_strides_and_the_type_that_were_recorded(dtype, make):
    memory, like = Arena(1 << 12), make(torch.zeros(6, 8).to(dtype))
    memory.modulus = 3
    for _ in range(40):  # around the end of the memory, too
        made = memory.tensor(TensorSpec.of(like))
        assert (made.shape, made.stride(), made.dtype) == (like.shape, like.stride(), like.dtype)
        assert made.numel() == 0 or made.max() < 3


def test_neighbouring_tensors_do_not_share_memory():
    memory, spec = Arena(1 << 14), TensorSpec.of(torch.zeros(5, 5))
    first, second = memory.tensor(spec), memory.tensor(spec)
    first.fill_(7)
    assert second.eq(1).all()


def test_addresses_of_a_kernel_become_tensors_in_structures_too():
    x, found, start = torch.ones(3, 4), RecordedStep.empty(), 1 << 44
    struct = Pair(start, 12)
    found.observe("native.f", (start, ctypes.byref(struct), 64, None), {start: x}, True)
    (call,) = found.distinct()
    assert isinstance(call.arguments, tuple)
    pointer, inner, number, nothing = call.arguments
    assert pointer == PointerTo(TensorSpec.of(x)) and (number, nothing) == (64, None)
    assert inner == StructSpec(Pair, (PointerTo(TensorSpec.of(x)), 12))


def test_experts_have_as_many_sizes_of_products_as_there_are_experts():
    found = RecordedStep.empty()
    found.observe(aten.bincount.default, (torch.zeros(64, dtype=torch.int64),), {"minlength": 4}, False)
    for _ in range(8):
        found.observe(aten.mm.default, (torch.ones(16, 3), torch.ones(3, 5)), {}, False)
    found.observe(aten.mm.default, (torch.ones(64, 3), torch.ones(3, 5)), {}, False)
    assert list(found.ragged().values()) == [4]
