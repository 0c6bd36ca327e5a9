"""Decoding with a cache, in whatever pieces, gives what one forward gives; states do as they are told."""

import dataclasses

import pytest
import torch
from variants import (
    ALONE,
    VARIANTS,
    D,
    H,
    V,
    Variant,
    assert_equal,
    batch,
    build,
    build_from,
    every_model,
    every_variant,
    ids,
)

from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import Cache, Growing, Paged, Preallocated
from dragoman.model.interface import PAD, Tokens
from dragoman.model.masks.visibility import Causal, Prefix, Structural
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Alibi
from dragoman.model.positions.rotary import Rotary
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import Transformer, TransformerConfig


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def decoded(model: Transformer, target: torch.Tensor, state, sizes: list[int]) -> torch.Tensor:
    return torch.cat([model.decode(piece, state) for piece in target.split(sizes, dim=1)], dim=1)


EXACT = [
    Cache(layout=Growing()),
    Cache(layout=Preallocated(tokens=4)),
    Cache(layout=Paged(tokens=3)),
]
"""With few tokens, so that buffers fill up and pages end within a test."""


@every_model
def test_decoding_piece_by_piece_equals_one_forward(variant, shape):
    model = build(variant, shape)
    target, source = batch(model, 2, 11, 5)
    if source is not None:
        source[1, 3:] = PAD
    assert_equal(decoded(model, target, model.start(source), [5, 1, 1, 3, 1]), model(target, source))


@every_variant
def test_decoding_token_by_token_equals_one_forward(variant):
    model = build(variant)
    target, source = batch(model, 2, 9, 5)
    state = model.start(source)
    assert_equal(decoded(model, target, state, [1] * 9), model(target, source))
    assert state.length == 9


@every_variant
@pytest.mark.parametrize("policy", EXACT, ids=str)
def test_every_exact_cache_equals_one_forward(variant, policy):
    model = build(variant)
    target, source = batch(model, 2, 9, 5)
    assert_equal(decoded(model, target, model.start(source, policy), [5, 1, 2, 1]), model(target, source))


@pytest.mark.parametrize(("variant", "shape"), [*((name, "encoder-decoder") for name in VARIANTS), *ALONE])
@pytest.mark.parametrize("policy", EXACT, ids=str)
def test_tokens_taken_back_are_as_if_they_had_never_come(variant, shape, policy):
    model = build(variant, shape)
    target, source = batch(model, 3, 12, 5)
    keep = torch.arange(12) >= torch.tensor([[0], [2], [1]])  # padded in front
    state = model.start(source, policy)
    state.allow_rewind(3)
    found = []
    for start, end, mistaken in ((0, 4, 3), (4, 5, 2), (5, 6, 3), (6, 6, 2), (6, 9, 0), (9, 10, 1), (10, 12, 2)):
        wrong = ids(3, mistaken)
        tokens = Tokens(torch.cat([target[:, start:end], wrong], 1), torch.cat([keep[:, start:end], wrong > 0], 1))
        found.append(model.decode(tokens, state)[:, : end - start])
        state.rewind(mistaken)
        assert state.length == end
    every = torch.cat(found, dim=1)
    assert_equal(every[keep], model(Tokens(target, keep), source)[keep])


@pytest.mark.parametrize(("variant", "shape"), [*((name, "encoder-decoder") for name in VARIANTS), *ALONE])
def test_beams_that_part_and_change_places_are_as_rows_of_their_own(variant, shape):
    model, K = build(variant, shape), 3
    prompt, source = batch(model, 4, 2, 5)
    if source is not None:
        source[1, 3:] = PAD
    state = model.start(source)
    model.decode(prompt, state)
    state.expand(K)
    said = prompt.repeat_interleave(K, dim=0)

    def step() -> None:
        nonlocal said
        new = ids(len(said), 1)
        got, said = model.decode(new, state), torch.cat([said, new], dim=1)
        beams = None if source is None else source.repeat_interleave(K, dim=0)
        assert_equal(got[:, 0], model(said, beams)[:, -1])

    step()
    rows = torch.arange(4)[:, None] * K + torch.tensor([[2, 0, 0], [1, 1, 1], [0, 1, 2], [2, 1, 0]])
    state.reorder(rows.flatten())
    said = said[rows.flatten()]
    step()
    sentences = torch.tensor([3, 1])
    state.select(sentences)
    said = said.unflatten(0, (4, K))[sentences].flatten(0, 1)
    source = None if source is None else source[sentences]
    step()
    state.select(torch.tensor([1]))
    said, source = said[K:], None if source is None else source[1:]
    step()
    step()


@every_variant
def test_beams_may_part_before_the_first_token(variant):
    model, source, first = build(variant), ids(2, 5), ids(6, 1)
    state = model.start(source)
    state.expand(3)
    assert_equal(model.decode(first, state), model(first, source.repeat_interleave(3, dim=0)))


@pytest.mark.parametrize("cross", [Causal(), Causal(window=2), Prefix()], ids=["causal", "window", "prefix"])
def test_beams_read_a_source_that_not_everyone_sees(cross):
    plain = VARIANTS["sinusoidal"].config("encoder-decoder")
    (block,) = plain.decoder.pattern
    block = dataclasses.replace(block, cross=dataclasses.replace(block.cross, visibility=cross))
    model = build_from(dataclasses.replace(plain, decoder=dataclasses.replace(plain.decoder, pattern=(block,))))
    source, prompt, target, keep = ids(2, 6), ids(2, 3), ids(6, 4), torch.tensor([[True] * 3, [False, True, True]])
    state = model.start(source)
    model.decode(Tokens(prompt, keep=keep), state)
    state.expand(3)
    said = torch.cat([prompt.repeat_interleave(3, dim=0), target], dim=1)
    kept = torch.cat([keep.repeat_interleave(3, dim=0), torch.ones(6, 4, dtype=torch.bool)], dim=1)
    want = model(Tokens(said, keep=kept), source.repeat_interleave(3, dim=0))
    assert_equal(decoded(model, target, state, [1, 2, 1]), want[:, 3:])


@every_variant
def test_prompts_of_different_length_are_padded_on_either_side(variant):
    model = build(variant, "decoder-only")
    prompts, rest = [ids(1, 2), ids(1, 6)], ids(2, 5)
    alone = [model(torch.cat([prompt, rest[i : i + 1]], dim=1))[:, -5:] for i, prompt in enumerate(prompts)]
    for left in (True, False):
        ends = (4, 0) if left else (0, 4)
        padded = torch.cat([torch.nn.functional.pad(prompts[0], ends, value=PAD), prompts[1]])
        state = model.start(None)
        model.decode(Tokens(padded[:, :3], keep=padded[:, :3] != PAD), state)
        model.decode(Tokens(padded[:, 3:], keep=padded[:, 3:] != PAD), state)
        assert_equal(decoded(model, rest, state, [1, 1, 2, 1]), torch.cat(alone))


@pytest.mark.parametrize("variant", ["sinusoidal", "learned", "rotary", "rotary dynamic", "t5", "window, sinks"])
def test_texts_of_different_length_go_on_where_they_stood_when_others_leave(variant):
    model, prompts, rest = build(variant, "decoder-only"), ids(3, 6), ids(2, 4)
    keep = torch.arange(6) >= torch.tensor([[0], [4], [2]])
    state = model.start(None)
    model.decode(Tokens(prompts, keep=keep), state)
    state.select(torch.tensor([2, 0]))
    texts = torch.cat([prompts[2:, 2:], rest[:1]], dim=1), torch.cat([prompts[:1], rest[1:]], dim=1)
    alone = [model(text)[:, -4:] for text in texts]
    assert_equal(decoded(model, rest, state, [1, 2, 1]), torch.cat(alone))


@every_variant
def test_ids_alone_may_be_a_prompt_padded_on_the_right(variant):
    model = build(variant, "decoder-only")
    prompts, rest = [ids(1, 3), ids(1, 5)], ids(2, 3)
    state = model.start(None)
    model.decode(torch.cat([torch.nn.functional.pad(prompts[0], (0, 2), value=PAD), prompts[1]]), state)
    alone = [model(torch.cat([prompt, rest[i : i + 1]], dim=1))[:, -3:] for i, prompt in enumerate(prompts)]
    assert_equal(decoded(model, rest, state, [1, 1, 1]), torch.cat(alone))


@every_variant
def test_the_last_of_several_packed_texts_goes_on(variant):
    model = build(variant, "decoder-only")
    before, text = ids(1, 4), ids(1, 9)
    packed = Tokens(torch.cat([before, text[:, :4]], dim=1), segment=torch.tensor([[5] * 4 + [2] * 4]))
    state = model.start(None)
    model.decode(packed, state)
    assert_equal(decoded(model, text[:, 4:], state, [1, 3, 1]), model(text)[:, 4:])


@every_variant
def test_a_text_begins_anew_where_its_segment_changes(variant):
    model = build(variant, "decoder-only")
    first, second = ids(1, 5), ids(1, 6)
    state = model.start(None)
    model.decode(Tokens(first, segment=torch.zeros_like(first)), state)
    pieces = second.split([1, 3, 2], dim=1)
    got = [model.decode(Tokens(piece, segment=torch.ones_like(piece)), state) for piece in pieces]
    assert_equal(torch.cat(got, dim=1), model(second))


@pytest.mark.parametrize(
    "visibility", [Prefix(), Structural(sees=((0,), (0, 1)), causal=True)], ids=["prefix", "fields"]
)
def test_a_structured_text_is_decoded_as_in_one_forward(visibility):
    model = build_from(Variant(mixer={"visibility": visibility, "position": Rotary()}).config("decoder-only"))
    tokens, field = ids(2, 8), torch.tensor([[0] * 3 + [1] * 5])
    state = model.start(None)
    got = [model.decode(Tokens(tokens[:, :3], field=field[:, :3]), state)]
    got += [model.decode(Tokens(tokens[:, i : i + 1], field=field[:, i : i + 1]), state) for i in range(3, 8)]
    assert_equal(torch.cat(got, dim=1), model(Tokens(tokens, field=field)))


def test_what_follows_a_prefix_is_none_unless_it_says_so():
    model = build_from(Variant(mixer={"visibility": Prefix()}).config("decoder-only"))
    tokens, field = ids(2, 8), torch.tensor([[0] * 3 + [1] * 5])
    state = model.start(None)
    model.decode(Tokens(tokens[:, :3], field=field[:, :3]), state)
    assert_equal(decoded(model, tokens[:, 3:], state, [2, 1, 2]), model(Tokens(tokens, field=field))[:, 3:])


# ---- what states hold ------------------------------------------------------------------------------


def decoder(*visibilities: Causal) -> Transformer:
    def block(visibility: Causal) -> BlockConfig:
        mixer = AttentionConfig(heads=H, visibility=visibility, position=Alibi())
        return BlockConfig(mixer=mixer, mlp=FeedForward(hidden=8), norm=LayerNorm())

    tower = TowerConfig(depth=len(visibilities), pattern=tuple(map(block, visibilities)))
    return TransformerConfig(vocab=V, dim=D, decoder=tower).build()


def test_layers_with_a_window_forget_what_is_out_of_sight():
    model, sizes = decoder(Causal(), Causal(window=4), Causal(window=6, sinks=2)), []
    for T in (3, 20, 40):
        state = model.start(None, Cache(layout=Growing()))
        decoded(model, ids(2, T), state, [T - 2, 1, 1])
        sizes.append([layer.nbytes // (2 * 2 * D * 4) for layer in state.tower.layers])
    assert sizes == [[3, 3, 3], [20, 3, 7], [40, 3, 7]]


def test_a_state_of_windows_stays_as_small_as_they_are():
    model, sizes = decoder(Causal(window=4), Causal(window=6, sinks=2)), []
    for T in (20, 40):
        state = model.start(None)
        decoded(model, ids(2, T), state, [T - 1, 1])
        sizes.append(state.nbytes)
    assert sizes[0] == sizes[1]


def test_the_source_is_held_once_for_all_beams():
    model, source = build("plain"), ids(2, 5)
    state = model.start(source)
    before = state.nbytes
    state.expand(4)
    assert before == state.nbytes
    layers = model.cfg.decoder.depth
    assert before - 8 * 5 == layers * 2 * 2 * 5 * D * 8  # one int64 position for each column; keys, values in float64


def test_training_remembers_nothing():
    model = decoder(Causal(), Causal(window=3))
    assert model(ids(2, 5)).shape == (2, 5, V)
    assert not any(isinstance(value, torch.Tensor) for m in model.modules() for value in vars(m).values())
