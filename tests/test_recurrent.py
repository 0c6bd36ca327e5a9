"""Recurrent models: equal to torch's own layers and to loops written from the papers, however they are run."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from recurrent_variants import EVERY, LANGUAGE_MODELS, TRANSLATORS, D, V, build, sources, targets, translator
from test_presets import parameters
from torch import nn

from dragoman.config import from_dict, to_dict
from dragoman.decode.alignment import Aligner
from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.verify.checks import run_checks
from dragoman.decode.verify.writing import WritingVerifier, random_beginnings, random_rows
from dragoman.errors import ConfigError
from dragoman.model.families import ModelConfig
from dragoman.model.interface import Tokens
from dragoman.model.positions.tokens import positions_of
from dragoman.model.recurrent.bridge import CopyStates, ProjectOutputs
from dragoman.model.recurrent.cells import Gru, Lstm, RecurrentLayer, VanillaRnn
from dragoman.model.recurrent.gates import GruGates, LstmGates
from dragoman.model.recurrent.looped import step_product
from dragoman.model.recurrent.model import RecurrentConfig
from dragoman.model.recurrent.rows import TextRows, boundaries, scan_rows
from dragoman.model.recurrent.source_attention import Bahdanau, GnmtAttention, Luong, NoSourceAttention, build_attention
from dragoman.model.recurrent.stack import (
    Backward,
    BidirectionalLayers,
    EachStep,
    FirstBidirectional,
    Forward,
    RecurrentStackConfig,
    Shortcut,
    Variational,
)
from dragoman.model.scorer import Dot
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

TOKENIZER = Tokenizer.train(Bytes(), [])
every = pytest.mark.parametrize("name", EVERY)
each_translator = pytest.mark.parametrize("name", TRANSLATORS)
CELLS = {"tanh": VanillaRnn(), "relu": VanillaRnn(activation="relu"), "gru": Gru(), "lstm": Lstm()}
each_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def equal(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# ---- equal to torch's layers ------------------------------------------------------------------------


def theirs(cell, inputs: int, hidden: int, **options) -> nn.RNNBase:
    kind = {Gru: nn.GRU, Lstm: nn.LSTM, VanillaRnn: nn.RNN}[type(cell)]
    more = {"nonlinearity": cell.activation} if isinstance(cell, VanillaRnn) else {}
    return kind(inputs, hidden, batch_first=True, **more, **options).double()


def copy_weights(ours: RecurrentLayer, layer: nn.RNNBase, suffix: str) -> None:
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(ours, name).copy_(getattr(layer, f"{name}_{suffix}"))


@each_cell
@pytest.mark.parametrize("depth", [1, 3])
def test_a_stack_both_ways_equals_torchs_bidirectional_layers_on_packed_sequences(cell, depth):
    torch.manual_seed(0)
    layer = theirs(cell, D, 5, num_layers=depth, bidirectional=True)
    cfg = RecurrentStackConfig(cell=cell, depth=depth, hidden=5, direction=BidirectionalLayers())
    stack = cfg.build(D).double()
    for i, block in enumerate(stack.blocks):
        copy_weights(block.directions["ahead"], layer, f"l{i}")
        copy_weights(block.directions["behind"], layer, f"l{i}_reverse")
    x, lengths = torch.randn(4, 7, D).double(), torch.tensor([4, 7, 1, 6])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, last = layer(packed)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(wanted, batch_first=True)
    keep = torch.arange(7) < lengths[:, None]
    found, states = stack(x, positions_of(Tokens(keep.long(), keep)), True)
    equal(found[keep], wanted[keep])
    last = last if isinstance(last, tuple) else (last,)
    for i, state in enumerate(states):
        for part, of_both in enumerate(last):
            equal(state[part], of_both[2 * i])
            equal(state[len(last) + part], of_both[2 * i + 1])


@each_cell
def test_a_step_equals_torchs_cell_and_a_step_of_the_loop(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 6, 5).double()
    kind = {Gru: nn.GRUCell, Lstm: nn.LSTMCell}.get(type(cell), nn.RNNCell)
    more = {"nonlinearity": cell.activation} if isinstance(cell, VanillaRnn) else {}
    single = kind(6, 5, **more).double()
    layer.load_state_dict(single.state_dict())
    x, state = torch.randn(3, 6).double(), tuple(torch.randn(2, 3, 5).double()[: cell.parts])
    wanted = single(x, state if cell.parts == 2 else state[0])
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    by_input, by_state = F.linear(x, layer.weight_ih, layer.bias_ih), F.linear(state[0], layer.weight_hh, layer.bias_hh)
    for found in (layer.step(x, state), cell.combine(by_input, by_state, state)):
        for a, b in zip(found, wanted, strict=True):
            equal(a, b)


def test_an_lstm_begins_with_the_forget_bias_of_its_configuration_and_no_other():
    bias = RecurrentLayer(Lstm(forget_bias=1.5), 3, 2).bias_ih
    assert bias.tolist() == [0, 0, 1.5, 1.5, 0, 0, 0, 0]


def test_reading_both_ways_is_reading_forward_and_reading_the_reversed_text():
    torch.manual_seed(0)
    both = RecurrentStackConfig(cell=Gru(), depth=1, hidden=5, direction=BidirectionalLayers()).build(D).double()
    one = RecurrentStackConfig(cell=Gru(), depth=1, hidden=5, direction=Forward()).build(D).double()
    x = torch.randn(2, 6, D).double()
    positions = positions_of(Tokens(torch.ones(2, 6, dtype=torch.long)))
    found, _ = both(x, positions)
    for name, text, half in (("ahead", x, found[..., :5]), ("behind", x.flip(1), found[..., 5:].flip(1))):
        one.blocks[0].directions["ahead"].load_state_dict(both.blocks[0].directions[name].state_dict())
        equal(one(text, positions)[0], half)


def test_a_backward_encoder_reads_the_reversed_source():
    forward = translator(NoSourceAttention(), encoder={"direction": Forward()}, bridge=CopyStates())
    backward = translator(NoSourceAttention(), encoder={"direction": Backward()}, bridge=CopyStates())
    one, other = build(forward), build(backward)
    weights = {name.replace(".ahead.", ".behind."): value for name, value in one.state_dict().items()}
    other.load_state_dict(weights)
    source = targets(3, 6)
    equal(one(targets(3, 5), source.flip(1)), other(targets(3, 5), source))


# ---- derivatives written out --------------------------------------------------------------------------


@pytest.mark.parametrize("gates, width", [(LstmGates, 12), (GruGates, 9)])
def test_gates_have_the_right_derivatives(gates, width):
    torch.manual_seed(0)
    given = [torch.randn(2, size, dtype=torch.float64, requires_grad=True) for size in (width, width, 3)]
    assert torch.autograd.gradcheck(gates.apply, given)


def test_a_product_in_a_loop_has_the_gradients_of_a_product_at_each_step():
    torch.manual_seed(0)

    def gradients(loop: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        weight, bias, h = (torch.randn(*size).double().requires_grad_() for size in ((4, 4), (4,), (2, 4)))
        multiply = step_product(weight, bias) if loop else (lambda x: F.linear(x, weight, bias))
        x, total = h, torch.zeros(())
        for _ in range(3):
            x = multiply(x).tanh()
            total = total + x.square().sum()
        return list(torch.autograd.grad(total, (weight, bias, h)))

    for a, b in zip(gradients(loop=True), gradients(loop=False), strict=True):
        equal(a, b)


def test_additive_scores_have_the_right_derivatives():
    torch.manual_seed(0)
    attention = build_attention(Bahdanau(size=3), 4, 5).double()
    q, k = torch.randn(2, 2, 3).double().requires_grad_(), torch.randn(2, 4, 3).double().requires_grad_()

    def scores(q, k, energy):
        return torch.func.functional_call(attention, {"energy": energy}, (q, k), tie_weights=False)

    attention.forward = attention.scores
    assert torch.autograd.gradcheck(scores, (q, k, attention.energy))


# ---- equal to the papers' loops -----------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def matvec(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def attend_by_hand(score, states, query):
    """Weights and context of equations 5 and 6 of Bahdanau et al., in Python's own numbers."""
    energies = [score(query, state) for state in states]
    total = sum(math.exp(e) for e in energies)
    weights = [math.exp(e) / total for e in energies]
    return weights, [sum(w * s[i] for w, s in zip(weights, states, strict=True)) for i in range(len(states[0]))]


def bahdanau_score(attention):
    W, U, b, v = (t.tolist() for t in (attention.q.weight, attention.k.weight, attention.k.bias, attention.energy))
    return lambda s, h: sum(
        x * math.tanh(p + q + c) for x, p, q, c in zip(v, matvec(W, s), matvec(U, h), b, strict=True)
    )


def luong_general(attention):
    W = attention.k.weight.tolist()
    return lambda h, s: sum(a * b for a, b in zip(h, matvec(W, s), strict=True))


def luong_dot(_):
    return lambda h, s: sum(a * b for a, b in zip(h, s, strict=True))


SCORES = {
    "bahdanau": bahdanau_score,
    "gnmt": bahdanau_score,
    "luong": luong_general,
    "luong, no feeding": luong_general,
    "luong, dot, rnn": luong_dot,
    "luong, gru, concat": bahdanau_score,
}


@torch.no_grad()
@pytest.mark.parametrize("name", SCORES)
def test_scores_weights_and_contexts_are_those_of_the_papers(name):
    attention = build(TRANSLATORS[name]).decoder.cross
    torch.manual_seed(3)
    states, query = torch.randn(1, 4, 12).double(), torch.randn(1, 1, 12).double()
    context, weights = attention(attention.q(query), attention.key_value(states), None)
    wanted, by_hand = attend_by_hand(SCORES[name](attention), states[0].tolist(), query[0, 0].tolist())
    equal(weights[0, 0], torch.tensor(wanted, dtype=torch.float64))
    equal(context[0, 0], torch.tensor(by_hand, dtype=torch.float64))


def lstm_by_hand(layer, x, h, c):
    """Hochreiter & Schmidhuber's cell with forget gates, gate by gate."""
    H = layer.hidden
    sums = matvec(layer.weight_ih.tolist(), x), matvec(layer.weight_hh.tolist(), h)
    rows = [sum(of) for of in zip(*sums, layer.bias_ih.tolist(), layer.bias_hh.tolist(), strict=True)]
    i, f, g, o = (rows[k * H : (k + 1) * H] for k in range(4))
    c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(H)]
    return [sigmoid(o[k]) * math.tanh(c[k]) for k in range(H)], c


@torch.no_grad()
@pytest.mark.parametrize("name", ["bahdanau", "gnmt", "luong", "luong, no feeding"])
def test_a_decoder_is_the_papers_loop(name):
    """Bahdanau: c from s_{i-1}, then the state; Luong: the state, then c; GNMT: the lowest layer's c into all."""
    model = build(TRANSLATORS[name])
    source, target = sources(model.cfg, 1, 4), targets(1, 3)
    first, memory = model.encode(source)
    decoder, score = model.decoder, SCORES[name](model.decoder.cross)
    states = [[part[0].tolist() for part in decoder.state_of(first, i)] for i in range(len(decoder.blocks))]
    feed, vectors, found = [0.0] * D, memory.x[0].tolist(), []
    for token in target[0]:
        x = model.embed.tokens.weight[token].tolist()
        if name in ("bahdanau", "gnmt"):
            _, context = attend_by_hand(score, vectors, states[0][0])
        below = x
        for i, layer in enumerate(decoder.blocks):
            given = below
            if name == "gnmt" or (name == "bahdanau" and i == 0):
                given = [*below, *context]
            if name == "luong" and i == 0:
                given = [*below, *feed]
            states[i] = [*lstm_by_hand(layer, given, *states[i])]
            shortcut = decoder.cfg.shortcut.applies(i)
            below = [a + b for a, b in zip(states[i][0], below, strict=True)] if shortcut else states[i][0]
        if name.startswith("luong"):
            _, context = attend_by_hand(score, vectors, below)
            feed = [math.tanh(v) for v in matvec(decoder.readout.weight.tolist(), [*below, *context])]
            found.append(feed)
        elif name == "bahdanau":
            rows = matvec(decoder.readout.weight.tolist(), [*below, *context, *x])
            found.append([math.tanh(v + b) for v, b in zip(rows, decoder.readout.bias.tolist(), strict=True)])
        else:
            found.append(below)
    equal(model.hidden(target, source)[0], torch.tensor(found, dtype=torch.float64))


# ---- however it is run --------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("grad", [False, True])
def test_step_by_step_equals_one_forward(name, grad):
    model = build(EVERY[name])
    source, target = sources(model.cfg, 3, 6), targets(3, 8)
    with torch.set_grad_enabled(grad):
        whole = model(target, source)
        for pieces in ([1] * 8, [3, 1, 4]):
            state = model.start(source)
            equal(torch.cat([model.decode(piece, state) for piece in target.split(pieces, dim=1)], dim=1), whole)
            assert state.length == 8


@every
@torch.no_grad()
def test_in_float32_step_by_step_equals_one_forward_too(name):
    model = build(EVERY[name]).float()
    source, target = sources(model.cfg, 2, 5), targets(2, 6)
    state = model.start(source)
    steps = torch.cat([model.decode(target[:, t : t + 1], state) for t in range(6)], dim=1)
    torch.testing.assert_close(steps, model(target, source), rtol=1e-5, atol=1e-5)


@every
def test_padding_on_either_side_changes_neither_output_nor_gradient(name):
    model = build(EVERY[name])
    source, target = sources(model.cfg, 2, 5), targets(2, 6)

    def run(target, source, columns):
        model.zero_grad()
        out = model(target, source)[:, columns]
        out.square().sum().backward()
        return out, [p.grad.clone() for p in model.parameters()]

    def padded(ids, front, behind):
        wide = F.pad(ids, (front, behind))
        return Tokens(wide, wide != 0)

    wanted = run(target, source, slice(0, 6))
    for front, behind in ((0, 3), (2, 0), (2, 1)):
        wide = None if source is None else padded(source, behind, front)
        found = run(padded(target, front, behind), wide, slice(front, front + 6))
        equal(found[0], wanted[0])
        for a, b in zip(found[1], wanted[1], strict=True):
            equal(a, b)


@every
@torch.no_grad()
def test_a_row_answers_the_same_alone_and_among_others(name):
    model = build(EVERY[name])
    lengths, target = [6, 3, 5], targets(3, 7)
    source = sources(model.cfg, 3, 6)
    if source is not None:
        source = source.masked_fill(torch.arange(6) >= torch.tensor(lengths)[:, None], 0)
    together = model(target, source)
    for i, length in enumerate(lengths):
        equal(together[i : i + 1], model(target[i : i + 1], None if source is None else source[i : i + 1, :length]))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_texts_packed_into_a_row_are_as_in_rows_of_their_own_with_the_same_gradient(name):
    model, text = build(LANGUAGE_MODELS[name]), targets(2, 12)
    segment = torch.tensor([[0] * 5 + [1] * 1 + [2] * 6, [0] * 9 + [1] * 3])

    def gradient(out):
        model.zero_grad()
        out.square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    packed = model(Tokens(text, segment=segment))
    parts = [text[0, :5], text[0, 5:6], text[0, 6:], text[1, :9], text[1, 9:]]
    apart = torch.cat([model(part[None])[0] for part in parts])
    equal(packed.flatten(0, 1), apart)
    for a, b in zip(gradient(packed), gradient(apart), strict=True):
        equal(a, b)


@each_translator
def test_packed_targets_have_no_source_of_their_own(name):
    model = build(TRANSLATORS[name])
    with pytest.raises(ValueError, match="give one target in each row"):
        model.hidden(Tokens(targets(1, 4), segment=torch.tensor([[0, 0, 1, 1]])), sources(model.cfg, 1, 3))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("lengths", [[9, 9, 2, 2, 1], [5], [7, 6, 5, 4, 3, 2, 1], [30, *[2] * 20]], ids=str)
def test_rows_of_any_lengths_are_read_as_if_each_were_alone(lengths, exact):
    torch.manual_seed(0)
    layer = RecurrentLayer(Lstm(), 4, 3).double()
    x, state = torch.randn(len(lengths), lengths[0], 4).double(), tuple(torch.randn(2, len(lengths), 3).double())
    found, after = scan_rows(layer, x, lengths, state, exact=exact)
    for i, length in enumerate(lengths):
        wanted, last = layer.scan(x[i : i + 1, :length], tuple(part[i : i + 1] for part in state))
        equal(found[i, :length], wanted[0])
        if exact:
            for a, b in zip(after, last, strict=True):
                equal(a[i], b[0])


def test_long_rows_go_on_alone_once_a_quarter_of_the_others_has_ended():
    assert boundaries([30, *[2] * 20], exact=False) == [2, 30]
    assert boundaries([9, 9, 9, 9, 9, 8], exact=False) == [9]
    assert boundaries([5, 4, 4, 3], exact=True) == [3, 4, 5]


def test_rows_of_whole_texts_need_no_rearranging():
    ids = torch.ones(2, 3, dtype=torch.long)
    assert TextRows.of(ids, ids > 0, None) is None
    assert TextRows.of(ids, None, torch.zeros_like(ids)) is None


@every
def test_the_future_does_not_leak(name):
    model = build(EVERY[name])
    source, target = sources(model.cfg, 2, 4), targets(2, 6)
    other = target.clone()
    other[:, 3:] = targets(2, 3, seed=9)
    assert torch.equal(model(target, source)[:, :3], model(other, source)[:, :3])


@each_translator
def test_every_source_token_is_seen(name):
    model = build(TRANSLATORS[name])
    source, target = sources(model.cfg, 1, 5), targets(1, 3)
    plain = model(target, source)
    for place in range(5):
        other = source.clone()
        other[0, place] = source[0, place] % 14 + 3
        if other[0, place] != source[0, place]:
            assert (model(target, other) - plain).abs().max() > 1e-6


@every
def test_every_parameter_gets_a_gradient(name):
    model = build(EVERY[name], training=True)
    model(targets(3, 6), sources(model.cfg, 3, 5)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@every
def test_gradients_are_those_of_finite_differences(name):
    model = build(EVERY[name])
    source, target = sources(model.cfg, 2, 3), targets(2, 3)

    def value():
        return model(target, source).clamp(min=-100).square().sum()  # suppressed ids would drown the others

    model.zero_grad()
    value().backward()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            direction = torch.randn(parameter.shape, generator=draw).double()
            slope, small = (parameter.grad * direction).sum(), 1e-6
            parameter += small * direction
            above = value()
            parameter -= 2 * small * direction
            below = value()
            parameter += small * direction
            torch.testing.assert_close((above - below) / (2 * small), slope, rtol=1e-5, atol=1e-5)


@every
def test_recomputing_activations_gives_the_same_gradients_dropout_included(name):
    cfg = EVERY[name]
    dropped = {
        side: dataclasses.replace(getattr(cfg, side), dropout=0.3)
        for side in ("encoder", "decoder")
        if getattr(cfg, side)
    }
    model = build(dataclasses.replace(cfg, dropout=0.2, **dropped), training=True)

    def gradients(recompute: bool):
        for part in (model.decoder, *([model.encoder] if cfg.encoder else [])):
            part.recompute = recompute
        model.zero_grad()
        torch.manual_seed(5)
        model(targets(2, 4), sources(cfg, 2, 3)).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        equal(a, b)


@every
def test_bfloat16_autocast_trains_close_to_float32(name):
    model = build(EVERY[name]).float()
    source, target = sources(model.cfg, 3, 4), targets(3, 5)
    exact = model(target, source)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(target, source)
    rough.float().square().sum().backward()
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@each_cell
def test_long_texts_are_read_step_by_step_in_bfloat16_with_the_same_answer(cell):
    torch.manual_seed(0)
    layer, x = RecurrentLayer(cell, 8, 8), torch.randn(2, 80, 8)
    state = layer.empty(2)
    wanted, last = layer.scan(x, state)
    steps, after = layer.scan_by_steps(x, state)
    torch.testing.assert_close(steps, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, last, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = layer.scan(x, state)
    assert rough.dtype == torch.float32
    assert (rough - wanted).norm() < 0.03 * wanted.norm()


def test_many_small_changes_of_a_long_text_add_up_in_bfloat16():
    layer = RecurrentLayer(Lstm(), 4, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih.copy_(torch.tensor([20.0] * 4 + [0.001] * 2 + [20.0] * 2))  # c grows by 0.001 a step
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, c) = layer.scan(torch.zeros(1, 1000, 4), (torch.zeros(1, 2), torch.ones(1, 2)))
    torch.testing.assert_close(c, torch.full((1, 2), 2.0), rtol=0.01, atol=0)


@every
@torch.no_grad()
def test_bfloat16_weights_keep_their_state_in_float32(name):
    model = build(EVERY[name]).bfloat16()
    state = model.start(sources(model.cfg, 2, 4))
    for t in range(3):
        model.decode(targets(2, 3)[:, t : t + 1], state)
    assert {part.dtype for part in state.summary.value} == {torch.float32}


def test_variational_dropout_drops_the_same_channels_at_every_token():
    x = torch.ones(2, 5, 64)
    torch.manual_seed(0)
    same, fresh = Variational().apply(x, 0.5), EachStep().apply(x, 0.5)
    assert torch.equal(same, same[:, :1].expand_as(same))
    assert not torch.equal(fresh, fresh[:, :1].expand_as(fresh))
    assert torch.equal(Variational().apply(x, 0.0), x)


@every
def test_dropout_is_a_function_of_the_generator_alone_and_acts_only_in_training(name):
    cfg = EVERY[name]
    decoder = dataclasses.replace(cfg.decoder, dropout=0.5)
    model = build(dataclasses.replace(cfg, decoder=decoder), training=True)
    source, target, found = sources(cfg, 2, 4), targets(2, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(target, source))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(model.eval()(target, source), model(target, source))


# ---- decoding -----------------------------------------------------------------------------------------


@every
@torch.no_grad()
def test_a_state_is_expanded_reordered_selected_joined_and_rewound_like_a_cache(name):
    model = build(EVERY[name])
    source, target = sources(model.cfg, 3, 5), targets(3, 7)
    whole = model(target, source)

    def some(rows):
        return None if source is None else source[rows]

    state = model.start(source)
    state.allow_rewind(3)
    model.decode(target[:, :2], state)
    model.decode(targets(3, 3, seed=8), state)
    state.rewind(3)
    equal(model.decode(target[:, 2:4], state), whole[:, 2:4])
    state.expand(2)
    state.reorder(torch.tensor([1, 0, 2, 3, 5, 5]))
    state.select(torch.tensor([2, 0]))
    rows = torch.tensor([2, 2, 0, 0])
    equal(model.decode(target[rows, 4:5], state), whole[rows, 4:5])
    other = model.start(some([1]))
    other.expand(2)
    if source is None:
        other = model.start(None)
        model.decode(target[[1, 1], :3], other)
        other.beams = 2
    else:
        model.decode(target[[1, 1], :3], other)
    state.join(other)
    ends = torch.cat([target[rows, 5:6], target[[1, 1], 3:4]])
    equal(model.decode(ends, state), torch.cat([whole[rows, 5:6], whole[[1, 1], 3:4]]))


@every
@torch.no_grad()
def test_a_state_does_not_grow_with_the_text(name):
    model = build(EVERY[name])
    state = model.start(sources(model.cfg, 2, 5))
    model.decode(targets(2, 1), state)
    before = state.nbytes
    for t in range(20):
        model.decode(targets(2, 20)[:, t : t + 1], state)
    assert state.nbytes == before > 0


SHORT = LengthLimit(tokens=8)


@pytest.mark.parametrize("name", ["bahdanau", "luong", "luong, no feeding, concat, gru", "gnmt", "sutskever"])
@pytest.mark.parametrize(
    "cfg",
    [Greedy(limit=SHORT), Beam(size=3, nbest=3, limit=SHORT), Sample(seed=1, limit=SHORT)],
    ids=["greedy", "beam", "sample"],
)
def test_a_search_finds_the_same_alone_and_in_a_batch(name, cfg):
    model = build(TRANSLATORS[name])
    source = sources(model.cfg, 4, 6)
    source[1:3, 4:] = 0
    together = search(model, source, cfg, seeds=[1, 2, 3, 4])
    for i, wanted in enumerate(together):
        (alone,) = search(model, source[i : i + 1], cfg, seeds=[i + 1])
        assert [h.tokens for h in alone] == [h.tokens for h in wanted]


@pytest.mark.parametrize("name", ["bahdanau", "luong", "gnmt", "sutskever", "luong, no feeding"])
def test_guessing_changes_no_answer(name):
    model = build(TRANSLATORS[name])
    for row in range(3):
        source = sources(model.cfg, 3, 6)[row : row + 1]
        (wanted,), (found,) = (
            search(model, source, cfg) for cfg in (Greedy(limit=SHORT), Speculative(search=Greedy(limit=SHORT)))
        )
        assert [h.tokens for h in found] == [h.tokens for h in wanted]


@pytest.mark.parametrize("name", ["bahdanau", "luong", "sutskever"])
def test_a_beginning_is_forced(name):
    model = build(dataclasses.replace(TRANSLATORS[name], vocab=len(TOKENIZER)))
    rule = ForcedBeginning([Beginning(tuple(b"ab"))], SpelledVocabulary(TOKENIZER), model.device)
    (found,) = search(model, torch.tensor([[50, 60, 2]]), Greedy(limit=SHORT), rules=[rule])
    assert found[0].tokens[:2] == tuple(b"ab")


VERIFIED = {name: EVERY[name] for name in ("bahdanau", "luong, gru, concat", "sutskever", "lstm")}


@pytest.mark.parametrize("name", VERIFIED)
def test_it_is_verified(name):
    model = build(dataclasses.replace(VERIFIED[name], vocab=len(TOKENIZER))).float()
    rows = (random_rows if model.cfg.translates else random_beginnings)(len(TOKENIZER), 2, 6)
    checks = list(run_checks(WritingVerifier(model, TOKENIZER, rows, beam=2, max_new_tokens=12)))
    assert [check for check in checks if not check.passed] == []
    skipped = {check.name for check in checks if check.skipped}
    attends = not isinstance(model.cfg.attention, NoSourceAttention)
    assert ("explicit attention" in skipped) is not attends
    assert any(name.startswith("cache ") for name in skipped) is not attends


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["bahdanau", "luong", "gnmt", "lstm"])
def test_it_is_prepared_for_inference(name, precision):
    model = build(EVERY[name]).float()
    source, target = sources(model.cfg, 2, 4), targets(2, 5)
    wanted = model(target, source)
    ready = prepare_for_inference(copy.deepcopy(model), "cpu", precision)
    state = ready.start(source)
    found = torch.cat([ready.decode(target[:, t : t + 1], state) for t in range(5)], dim=1).float()
    assert (found - wanted).norm() < (1e-4 if precision == "float32" else 0.05) * wanted.norm()


# ---- attention that can be seen -----------------------------------------------------------------------


@each_translator
@torch.no_grad()
def test_attention_to_the_source_can_be_recorded_without_changing_the_output(name):
    model = build(TRANSLATORS[name])
    source, target = sources(model.cfg, 2, 5), targets(2, 4)
    source[1, 3:] = 0
    plain, taps, recorded = model(target, source), attention_taps(model), []
    with recording_attention(taps, recorded):
        assert torch.equal(model(target, source), plain)
    if isinstance(model.cfg.attention, NoSourceAttention):
        assert not taps
        return
    (weights,) = recorded
    assert weights.shape == (2, 1, 4, 5)
    equal(weights.sum(dim=-1), torch.ones(2, 1, 4).double())
    assert weights[1, :, :, 3:].abs().max() == 0


def test_words_are_aligned_and_coverage_is_scored():
    model = build(translator(Luong(), vocab=len(TOKENIZER))).float()
    pair = ([*TOKENIZER.encode("a bc"), 2], [*TOKENIZER.encode("x y z"), 2])
    (links,) = Aligner(model, TOKENIZER, TOKENIZER).align([pair])
    assert [word for _, word in links] == [0, 1, 2]
    assert search(model, torch.tensor([pair[0]]), CoveringBeam(size=2, limit=SHORT))[0]


def test_a_model_without_attention_says_that_there_is_nothing_to_align_by():
    model = build(translator(NoSourceAttention(), bridge=ProjectOutputs(), vocab=len(TOKENIZER))).float()
    with pytest.raises(ConfigError, match="does not attend to a source"):
        Aligner(model, TOKENIZER, TOKENIZER)


# ---- configuration ------------------------------------------------------------------------------------


@every
def test_a_model_is_described_by_plain_data(name):
    cfg = EVERY[name]
    read = from_dict(ModelConfig, to_dict(cfg))
    assert read == cfg
    with torch.device("meta"):
        built, again = ({name: p.shape for name, p in one.build().named_parameters()} for one in (cfg, read))
    assert built == again


S = RecurrentStackConfig
WRONG = {
    "source unseen": (
        RecurrentConfig(vocab=V, dim=D, encoder=S(cell=Gru(), depth=1), decoder=S(cell=Gru(), depth=1)),
        "model.attention: the decoder would not see the source: choose an attention, or a bridge",
    ),
    "attention, no encoder": (
        RecurrentConfig(vocab=V, dim=D, decoder=S(cell=Gru(), depth=1), attention=Luong()),
        "model.attention: luong, and there is no encoder to read: give one or leave this out",
    ),
    "bridge, no encoder": (
        RecurrentConfig(vocab=V, dim=D, decoder=S(cell=Gru(), depth=1), bridge=CopyStates()),
        "model.bridge: copy_states, and there is no encoder to read: give one or leave this out",
    ),
    "decoder both ways": (
        translator(Bahdanau(), decoder={"direction": BidirectionalLayers()}),
        "model.decoder.direction: bidirectional_layers: a decoder must not see what it is to predict: use forward",
    ),
    "decoder backward": (
        translator(NoSourceAttention(), decoder={"direction": Backward()}),
        "model.decoder.direction: backward: a decoder must not see what it is to predict: use forward",
    ),
    "dot of other widths": (
        translator(Luong(score=Dot()), encoder={"hidden": 5}),
        "model.attention.score: dot compares vectors of equal width, and the decoder's have 12 channels, the encoder's "
        "10: use general, or set hidden",
    ),
    "copied from both ways": (
        translator(Luong(), bridge=CopyStates()),
        "model.bridge.kind: copy_states needs an encoder that reads one way: use project_outputs",
    ),
    "copied to another cell": (
        translator(Luong(), encoder={"direction": Forward(), "cell": Gru()}, bridge=CopyStates()),
        "model.bridge.kind: copy_states needs layers that are alike, and the encoder has 2 x 12 gru, the decoder "
        "2 x 12 lstm: use project_outputs",
    ),
    "shortcut of other widths": (
        translator(GnmtAttention(), encoder={"direction": FirstBidirectional(), "shortcut": Shortcut(first=2)}),
        "model.encoder.shortcut: layer 2 reads 24 channels and gives 12: begin with a later layer, or set hidden",
    ),
    "decoder's shortcut": (
        translator(Bahdanau(), decoder={"hidden": 9, "shortcut": Shortcut(first=1)}, tying="none"),
        "model.decoder.shortcut: layer 1 reads 12 channels and gives 9: begin with a later layer, or set hidden",
    ),
    "odd width": (
        dataclasses.replace(translator(Bahdanau()), dim=13),
        "model.encoder.hidden: two directions cannot share an odd width 13: give the channels of each",
    ),
    "tied vocabularies": (
        dataclasses.replace(translator(Bahdanau()), source_vocab=17),
        "model.tying: 'all' shares one matrix between source and target, but their vocabularies have 17 and 29 "
        "entries; use 'target' or a joint tokenizer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_parts_that_do_not_fit_are_named_by_their_path(mistake):
    cfg, message = WRONG[mistake]
    with pytest.raises(ConfigError) as caught:
        cfg.build()
    assert str(caught.value) == message


def test_a_translator_needs_a_source_and_a_continuation_takes_none():
    with pytest.raises(ValueError, match="this model translates: it needs a source"):
        build(TRANSLATORS["luong"]).start(None)
    with pytest.raises(ValueError, match="this model has no encoder"):
        build(LANGUAGE_MODELS["gru"]).start(targets(1, 3))


@pytest.mark.parametrize("name", ["bahdanau", "luong", "gnmt", "sutskever"])
def test_it_learns_to_copy(name):
    torch.manual_seed(0)
    model = dataclasses.replace(TRANSLATORS[name], vocab=12, dim=24).build().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        text = torch.randint(3, 12, (32, 4))
        loss = F.cross_entropy(model(F.pad(text[:, :-1], (1, 0), value=1), text).flatten(0, 1), text.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    text = torch.randint(3, 12, (64, 4))
    with torch.no_grad():
        found = model.eval()(F.pad(text[:, :-1], (1, 0), value=1), text).argmax(dim=-1)
    assert (found == text).float().mean() > 0.9


# ---- presets ------------------------------------------------------------------------------------------

SIZES = {
    **dict.fromkeys(["lstm-bahdanau", "lstm-luong", "lstm-sutskever", "gru", "rnn", "gnmt-small"], "transformer-small"),
    "lstm-lm-small": "lm-small",
    "lstm-classifier-tiny": "classifier-tiny",
    "lstm-tagger-small": "tagger-small",
}


@pytest.mark.parametrize("name", SIZES)
def test_a_preset_has_as_many_parameters_as_the_transformer_beside_it(name):
    assert parameters(name) == pytest.approx(parameters(SIZES[name]), rel=0.02)


def test_gnmt_has_the_parameters_of_its_paper():
    D, V = 1024, 32_000

    def layer(inputs):
        return 4 * D * (inputs + D) + 8 * D

    encoder = 2 * layer(D) + layer(2 * D) + 6 * layer(D)  # the first layer reads both ways
    decoder, attention = 8 * layer(2 * D), 2 * D * D + 2 * D  # every layer reads the context
    assert parameters("gnmt") == 3 * V * D + encoder + decoder + attention
    assert parameters("gnmt") == pytest.approx(280e6, rel=0.01)
