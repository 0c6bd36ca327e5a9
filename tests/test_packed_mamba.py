"""Single tokens of Mamba and Mamba-2 by a kernel in C: the numbers of PyTorch, and PyTorch where it must be."""

import copy
import threading
from dataclasses import replace

import pytest
import torch
from variants import ids

from dragoman.decode.precision import prepare_for_inference
from dragoman.model.inference import packed_mamba
from dragoman.model.inference.layouts import Int8Linear
from dragoman.model.inference.mamba_block import MambaBlock
from dragoman.model.interface import Tokens
from dragoman.model.mamba import Mamba
from dragoman.model.mamba2 import Mamba2
from dragoman.model.transformer import Transformer
from dragoman.native.library import available, unavailable
from dragoman.presets.state_space import state_space

pytestmark = pytest.mark.skipif(not available(), reason=f"no kernels: {unavailable()}")

MIXERS = {
    "mamba": Mamba(),
    "mamba, biases": Mamba(state=5, kernel=1, bias=True, convolution_bias=False),
    "mamba, wide": Mamba(state=300, kernel=2, expand=1),
    "mamba 2": Mamba2(state=16, head_dim=16),
    "mamba 2, other": Mamba2(
        state=32, head_dim=8, groups=2, norm_before_gate=True, smallest_step=0.3, largest_step=0.8, bias=True,
        convolution_bias=False, kernel=6,
    ),
}  # fmt: skip


def built(mixer, dim: int = 32) -> Transformer:
    torch.manual_seed(1)
    model = replace(state_space(mixer, dim=dim, depth=2), vocab=50).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture
def calls(monkeypatch):
    """Which single tokens of a layer the kernels have computed: of its mixer, or of the whole block."""
    found, plain, knows = [], packed_mamba.windows, MambaBlock.knows
    monkeypatch.setattr(packed_mamba, "windows", lambda *given: found.append("mixer") or plain(*given))
    monkeypatch.setattr(MambaBlock, "knows", lambda *given: knows(*given) and (found.append("block") or True))
    return found


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", MIXERS)
@torch.inference_mode()
def test_steps_by_the_kernel_are_one_forward_of_pytorch(name, calls):
    plain, text = built(MIXERS[name]), ids(3, 12)
    fast = prepare_for_inference(copy.deepcopy(plain), "cpu", "float32")
    state = fast.start(None)
    pieces = [text[:, :2], *text[:, 2:].split(1, dim=1)]
    close(torch.cat([fast.decode(piece, state) for piece in pieces], dim=1), plain(text))
    assert len(calls) == 10 * 2


@pytest.mark.parametrize("name", MIXERS)
@torch.inference_mode()
def test_rows_of_other_ages_with_padding_between_their_tokens_go_on_as_in_pytorch(name, calls):
    plain = built(MIXERS[name])
    fast = prepare_for_inference(copy.deepcopy(plain), "cpu", "float32")
    begin, keep = ids(3, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
    other, further, order = ids(1, 2), ids(4, 5), torch.tensor([3, 0, 2, 1])
    outputs = []
    for model in (fast, plain):
        state, young = model.start(None), model.start(None)
        model.decode(Tokens(begin, keep), state)
        model.decode(other, young)
        state.join(young)
        state.select(order)
        outputs.append(torch.cat([model.decode(token, state) for token in further.split(1, dim=1)], dim=1))
    close(*outputs)
    assert len(calls) == 5 * 2


@torch.inference_mode()
def test_the_kernel_steps_aside_for_tokens_that_are_taken_back_and_for_odd_widths(calls):
    for model, rewinds in ((built(Mamba()), True), (built(Mamba(expand=1), dim=24), False)):
        fast = prepare_for_inference(copy.deepcopy(model), "cpu", "float32")
        text, state = ids(2, 6), fast.start(None)
        if rewinds:
            state.allow_rewind(2)
        pieces = text.split([2, 1, 1, 1, 1], dim=1)
        close(torch.cat([fast.decode(piece, state) for piece in pieces], dim=1), model(text))
    assert not calls


@pytest.mark.parametrize("K", [1, 2, 3])
def test_whole_numbers_of_a_layer_with_few_inputs_are_multiplied_as_they_are(K):
    """Small models have a single step size for all channels."""
    layer = torch.nn.Linear(K, 33)
    packed, x = Int8Linear([layer]), torch.randn(5, K)
    torch.testing.assert_close(packed(x), layer(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["mamba", "mamba 2"])
@torch.inference_mode()
def test_a_copy_of_a_packed_model_has_weights_of_its_own(name, calls):
    text = ids(1, 5)
    fast = prepare_for_inference(built(MIXERS[name]), "cpu", "float32")
    found = []
    for model in (fast, copy.deepcopy(fast)):
        state = model.start(None)
        found.append(torch.cat([model.decode(token, state) for token in text.split(1, dim=1)], dim=1))
    assert torch.equal(*found) and len(calls) == 2 * 4 * 2


@pytest.mark.parametrize("name", MIXERS)
@torch.inference_mode()
def test_a_block_of_nothing_but_mamba_is_one_call(name, calls):
    fast = prepare_for_inference(built(MIXERS[name]), "cpu", "float32")
    state = fast.start(None)
    fast.decode(ids(2, 8), state)  # more than any of the convolutions spans
    fast.decode(ids(2, 1), state)
    assert calls == ["block"] * 2


@pytest.mark.parametrize("part", ["mixer", "mixer_residual", "mixer_residual.before"])
@torch.inference_mode()
def test_who_looks_inside_a_block_sees_its_parts(part, calls):
    fast, seen = prepare_for_inference(built(Mamba()), "cpu", "float32"), []
    hook = lambda *given: seen.append(part)  # noqa: E731
    fast.decoder.blocks[0].get_submodule(part).register_forward_hook(hook)
    state = fast.start(None)
    fast.decode(ids(2, 8), state)
    fast.decode(ids(2, 1), state)
    assert calls == ["mixer", "block"] and len(seen) == 2  # the first block steps aside, the second does not


@pytest.mark.parametrize("name", ["mamba", "mamba 2"])
def test_two_threads_that_first_need_a_layer_keep_all_that_its_struct_points_to(name, monkeypatch):
    layer = prepare_for_inference(built(MIXERS[name])).decoder.blocks[0].mixer
    point, one_points, others_are_done = layer.pointer, threading.Event(), threading.Event()

    def slow(weights):
        address = point(weights)
        if threading.current_thread() is first:
            one_points.set()
            others_are_done.wait(0.2)
        return address

    monkeypatch.setattr(layer, "pointer", slow)
    first, second = (threading.Thread(target=lambda: layer.struct) for _ in range(2))
    first.start()
    assert one_points.wait(20)
    second.start()
    second.join(0.2)
    others_are_done.set()
    first.join(20)
    second.join(20)
    kept = {tensor.data_ptr() for tensor in layer.kept_alive}
    assert {layer.struct.convolution, layer.struct.step_bias, layer.struct.skip, layer.struct.rates} <= kept
