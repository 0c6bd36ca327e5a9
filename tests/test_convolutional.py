"""What must hold of every convolutional model: step by step, padded, packed, reordered, joined, taken back, learned."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from convolutional_variants import ATTENDING, TRANSLATORS, VARIANTS, WRITERS, V, batch, build
from torch import Tensor
from variants import assert_equal, gradients

from dragoman.config import from_dict, to_dict
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.verify.checks import run_checks
from dragoman.decode.verify.writing import WritingVerifier, random_beginnings, random_rows
from dragoman.errors import DataError
from dragoman.model.caches.cache import parse_cache
from dragoman.model.families import ModelConfig
from dragoman.model.interface import Tokens
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_translator = pytest.mark.parametrize("variant", TRANSLATORS)
every_writer = pytest.mark.parametrize("variant", WRITERS)

# ---- described, built, learned -----------------------------------------------------------------------


@every_variant
def test_a_model_is_described_by_plain_data(variant):
    assert from_dict(ModelConfig, to_dict(VARIANTS[variant])) == VARIANTS[variant]


@every_variant
def test_a_model_is_built_without_memory_to_count_it(variant):
    with torch.device("meta"):
        empty = VARIANTS[variant].sized(vocab=V).build()
    assert all(t.is_meta for t in [*empty.parameters(), *empty.buffers()])
    shapes, real = ({n: t.shape for n, t in m.state_dict().items()} for m in (empty, build(variant)))
    assert shapes == real


@every_variant
def test_every_parameter_gets_a_gradient(variant):
    model = build(variant)
    loss = model(*batch(model, 6, 20, 20)).logsumexp(-1).sum()
    assert {name for name, g in gradients(model, loss).items() if (g == 0).all()} == set()


@every_variant
def test_blocks_that_are_computed_again_give_the_same_gradients(variant):
    model = copy.deepcopy(build(variant)).train()
    given = batch(model, 2, 7, 5)
    kept = gradients(model, model(*given).square().sum())
    for part in model.modules():
        if hasattr(part, "recompute"):
            part.recompute = True
    again = gradients(model, model(*given).square().sum())
    assert_equal(again, kept)


@every_variant
def test_the_future_does_not_leak(variant):
    model = build(variant)
    target, source = batch(model, 2, 9, 5)
    other = torch.cat([target[:, :6], torch.randint(3, V, (2, 3))], dim=1)
    assert torch.equal(model(target, source)[:, :6], model(other, source)[:, :6])


# ---- the state ---------------------------------------------------------------------------------------


def stepwise(model, source, *pieces: Tensor | Tokens, policy=None) -> Tensor:
    state = model.start(source) if policy is None else model.start(source, policy)
    return torch.cat([model.decode(piece, state) for piece in pieces], dim=1)


@torch.no_grad()
@every_variant
def test_decoding_step_by_step_equals_one_forward(variant):
    model = build(variant)
    target, source = batch(model, 3, 14, 6)
    want = model(target, source)
    for sizes in ([1] * 14, [4, 1, 1, 5, 3], [14]):
        assert_equal(stepwise(model, source, *target.split(sizes, dim=1)), want)


@torch.no_grad()
@every_variant
def test_in_float32_steps_equal_one_forward_to_rounding(variant):
    model = copy.deepcopy(build(variant)).float()
    target, source = batch(model, 3, 14, 6)
    got = stepwise(model, source, *target.split(1, dim=1))
    torch.testing.assert_close(got, model(target, source), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@every_variant
def test_the_state_is_as_large_as_the_receptive_field_however_long_the_text(variant):
    model = build(variant)
    target, source = batch(model, 2, 24, 6)
    state, sizes = model.start(source), []
    for token in target.split(1, dim=1):
        model.decode(token, state)
        sizes.append(state.nbytes)
    assert len(set(sizes[1:])) == 1
    long = model.start(source)
    model.decode(target, long)
    assert long.nbytes == sizes[-1]
    channels = [block.convolution.linear.in_features // block.convolution.kernel for block in model.decoder.blocks]
    floats = sum(c * block.convolution.reach for c, block in zip(channels, model.decoder.blocks, strict=True))
    assert sum(layer.nbytes for layer in state.tower.layers) == 2 * 8 * floats


@torch.no_grad()
@every_variant
def test_rows_are_reordered_selected_and_expanded(variant):
    model = build(variant)
    target, source = batch(model, 4, 8, 6)
    state = model.start(source)
    model.decode(target[:, :3], state)
    state.select(torch.tensor([2, 0]))
    state.expand(2)
    beams = target[[2, 2, 0, 0]]
    beams[1, 3:], beams[3, 3:] = target[1, 3:], target[3, 3:]
    model.decode(beams[:, 3:6], state)
    state.reorder(torch.tensor([1, 0, 3, 3]))
    beams = beams[[1, 0, 3, 3]]
    of = None if source is None else source[[2, 2, 0, 0]]
    assert_equal(model.decode(beams[:, 6:], state), model(beams, of)[:, 6:])


@torch.no_grad()
@pytest.mark.parametrize("cache", ["growing", "preallocated:2"])
@every_variant
def test_rows_of_states_that_were_joined_go_on_as_they_would_have(variant, cache):
    model, policy = build(variant), parse_cache(cache)
    (one, first), (two, second) = batch(model, 2, 12, 7), batch(model, 3, 9, 4)
    if first is not None:
        first[0, 4:] = 0
    a, b = model.start(first, policy), model.start(second, policy)
    model.decode(one[:, :5], a)
    model.decode(two[:, :2], b)
    a.join(b)
    if first is not None:
        second = F.pad(second, (0, 3))
    both = torch.cat([one[:, 5:12], two[:, 2:9]])
    got = torch.cat([model.decode(token, a) for token in both.split(1, dim=1)], dim=1)
    assert_equal(got[:2], model(one, first)[:, 5:])
    assert_equal(got[2:], model(two, second)[:, 2:])
    a.select(torch.tensor([4, 1]))
    assert a.rows == 2


@torch.no_grad()
@every_variant
def test_tokens_are_taken_back_as_if_they_had_never_been_read(variant):
    model = build(variant)
    target, source = batch(model, 2, 10, 6)
    state = model.start(source)
    model.decode(target[:, :2], state)
    state.allow_rewind(3)
    for taken, wrong in itertools.product((0, 1, 3), (3, 5)):
        model.decode(torch.randint(3, V, (2, wrong)), state)
        state.rewind(min(taken, wrong))
        left = wrong - taken
        if left:
            state = model.start(source)
            model.decode(target[:, :2], state)
            state.allow_rewind(3)
            read = torch.randint(3, V, (2, wrong))
            model.decode(read, state)
            state.rewind(taken)
            text = torch.cat([target[:, :2], read[:, :left], target[:, 2:]], dim=1)
            assert_equal(model.decode(target[:, 2:], state), model(text, source)[:, 2 + left :])


@torch.no_grad()
@every_writer
def test_tokens_are_taken_back_in_rows_with_padding(variant):
    model = build(variant)
    text = torch.randint(3, V, (2, 9))
    state = model.start(None)
    state.allow_rewind(3)
    model.decode(text[:, :4], state)
    ids = torch.tensor([[7, 8, 9], [7, 0, 9]])
    model.decode(Tokens(ids, ids != 0), state)
    state.rewind(2)
    want = torch.cat([text[:, :4], ids[:, :1], text[:, 4:]], dim=1)
    assert_equal(model.decode(text[:, 4:], state), model(want)[:, 5:])


# ---- padding and packed texts ------------------------------------------------------------------------


@torch.no_grad()
@every_translator
@pytest.mark.parametrize("rows", [1, 3])
def test_padding_of_the_source_on_either_side_changes_nothing(variant, rows):
    model = build(variant)
    target, source = batch(model, rows, 7, 5)
    want = model(target, source)
    assert_equal(model(target, F.pad(source, (0, 4))), want)
    for wide in (F.pad(source, (3, 0)), F.pad(source, (2, 2)), F.pad(source[:, :2], (1, 1))):
        tokens = Tokens(wide, wide != 0)
        assert_equal(model(target, tokens), model(target, wide[:, wide[0] != 0]))
        assert_equal(stepwise(model, tokens, *target.split(1, dim=1)), model(target, tokens))


@torch.no_grad()
@every_variant
def test_rows_of_a_batch_do_not_see_one_another(variant):
    model = build(variant)
    target, source = batch(model, 3, 7, 6)
    lengths = [(7, 6), (4, 2), (2, 5)]
    for row, (t, s) in enumerate(lengths):
        target[row, t:] = 0
        if source is not None:
            source[row, s:] = 0
    together = model(target, source)
    for row, (t, s) in enumerate(lengths):
        alone = model(target[row : row + 1, :t], None if source is None else source[row : row + 1, :s])
        assert_equal(together[row : row + 1, :t], alone)


@torch.no_grad()
@every_variant
@pytest.mark.parametrize("holes", [[0, 0, 0], [0, 5], [3], [2, 2, 5], [9]])
def test_padding_of_the_target_changes_nothing_wherever_it_stands(variant, holes):
    model = build(variant)
    target, source = batch(model, 2, 9, 5)
    columns = list(range(9))
    for hole in holes:
        columns.insert(hole, -1)
    place = torch.tensor(columns)
    wide = torch.where(place >= 0, target[:, place.clamp(min=0)], 0)
    tokens, real = Tokens(wide, wide != 0), place >= 0
    want = model(target, source)
    assert_equal(model(tokens, source)[:, real], want)
    state, got = model.start(source), []
    for first, last in ((0, 4), (4, 5), (5, len(columns))):
        got.append(model.decode(Tokens(wide[:, first:last], wide[:, first:last] != 0), state))
    assert_equal(torch.cat(got, dim=1)[:, real], want)


@torch.no_grad()
@every_writer
def test_packed_texts_do_not_see_one_another(variant):
    model = build(variant)
    texts = [torch.randint(3, V, (1, n)) for n in (4, 1, 6)]
    segment = torch.tensor([[0] * 4 + [1] + [2] * 6])
    want = torch.cat([model(text) for text in texts], dim=1)
    packed = torch.cat(texts, dim=1)
    assert_equal(model(Tokens(packed, segment=segment)), want)
    padded = Tokens(F.pad(packed, (2, 1)), F.pad(packed, (2, 1)) != 0, F.pad(segment, (2, 1), value=7))
    assert_equal(model(padded)[:, 2:-1], want)


@torch.no_grad()
@pytest.mark.parametrize("variant", ATTENDING)
def test_packed_pairs_read_their_own_source(variant):
    model = build(variant)
    pairs = [batch(model, 1, t, s) for t, s in ((3, 5), (6, 2))]
    want = torch.cat([model(*pair) for pair in pairs], dim=1)
    sides = [torch.cat([pair[side] for pair in pairs], dim=1) for side in (0, 1)]
    target, source = (
        Tokens(ids, segment=torch.tensor([[0] * n + [1] * (ids.shape[1] - n)]))
        for ids, n in zip(sides, (3, 5), strict=True)
    )
    assert_equal(model(target, source), want)


# ---- attention ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", ATTENDING)
def test_attention_to_the_source_is_seen_and_seeing_it_changes_nothing(variant):
    model = build(variant)
    target, source = batch(model, 2, 6, 5)
    source[1, 3:] = 0
    want, weights = model(target, source), []
    with recording_attention(attention_taps(model), weights):
        assert_equal(model(target, source), want)
    attending = model.cfg.encoder.attending(model.cfg.decoder.depth)
    assert [w.shape for w in weights] == [(2, 1, 6, 5)] * len(attending)
    for seen in weights:
        assert_equal(seen.sum(dim=-1), torch.ones_like(seen[..., 0]))
        assert (seen[1, ..., 3:] == 0).all()


@pytest.mark.parametrize("variant", [name for name in TRANSLATORS if name not in ATTENDING])
def test_a_decoder_that_unfolds_attends_to_nothing(variant):
    assert attention_taps(build(variant)) == []


# ---- search ------------------------------------------------------------------------------------------


@every_translator
@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3, nbest=3)], ids=["greedy", "beam"])
def test_a_search_finds_the_same_alone_and_in_a_batch(variant, cfg):
    model, (_, sources) = build(variant), batch(build(variant), 5, 1, 6)
    for source, wanted in zip(sources, search(model, sources, cfg), strict=True):
        (alone,) = search(model, source[None], cfg)
        assert [h.tokens for h in alone] == [h.tokens for h in wanted]


TOKENIZER = Tokenizer.train(Bytes(), [])


@pytest.mark.parametrize("variant", ["convs2s", "bytenet", "language model"])
def test_a_model_is_verified(variant):
    torch.manual_seed(1)
    model = VARIANTS[variant].sized(vocab=len(TOKENIZER)).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    rows = (random_rows if model.cfg.translates else random_beginnings)(len(TOKENIZER), 2, 6)
    checks = list(run_checks(WritingVerifier(model, TOKENIZER, rows, beam=2, max_new_tokens=12)))
    assert [check for check in checks if not check.passed] == []
    skipped = {check.name: check.skipped for check in checks if check.skipped}
    if variant in ATTENDING:
        assert set(skipped) == {"compiled"}
        return
    caches = {name for name in skipped if name.startswith("cache ")}
    assert set(skipped) == {"compiled", "explicit attention"} | caches
    assert all("keeps no keys and values" in skipped[name] for name in caches)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["convs2s", "bytenet", "cnn-9", "language model"])
def test_a_model_is_laid_out_for_decoding_and_says_how(variant, caplog):
    model = copy.deepcopy(build(variant)).float()
    target, source = batch(model, 2, 6, 5)
    want = model(target, source)
    with caplog.at_level("INFO"):
        ready = prepare_for_inference(model, "cpu", "float32")
    assert "decoding in float32" in caplog.text
    torch.testing.assert_close(ready(target, source), want, rtol=1e-4, atol=1e-4)
    assert not any(name.endswith("gain") for name, _ in ready.named_parameters())


# ---- mistakes ----------------------------------------------------------------------------------------


def test_a_source_is_given_where_there_is_an_encoder_and_only_there():
    with pytest.raises(ValueError, match="needs a source"):
        build("convs2s").start(None)
    with pytest.raises(ValueError, match="no encoder"):
        build("language model")(torch.ones(1, 3).long(), torch.ones(1, 3).long())


def test_a_text_longer_than_its_positions_is_refused():
    model = build("convs2s")
    with pytest.raises(DataError, match="a text of 41 tokens, and learned positions for 40"):
        model(*batch(model, 1, 41, 5))
    with pytest.raises(DataError, match="a text of 41 tokens, and learned positions for 40"):
        model(*batch(model, 1, 4, 41))


# ---- learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["convs2s", "bytenet", "cnn-9"])
def test_it_learns_to_copy(variant):
    torch.manual_seed(0)
    model = VARIANTS[variant].sized(vocab=12).build()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        text = torch.randint(3, 12, (32, 5))
        shifted = F.pad(text[:, :-1], (1, 0), value=1)
        loss = F.cross_entropy(model(shifted, text).flatten(0, 1), text.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    text = torch.randint(3, 12, (64, 5))
    said = model.eval()(F.pad(text[:, :-1], (1, 0), value=1), text).argmax(dim=-1)
    assert (said == text).float().mean() > 0.95
