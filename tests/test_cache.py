"""Caches: how numbers are stored, how they lie in memory, and what that takes; the line that names one."""

import dataclasses
import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import ALONE, H, Variant, assert_equal, batch, build, build_from, combine, ids
from variants import PARTS as VARIANT_PARTS

from dragoman.cli import main
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.errors import ConfigError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import (
    Cache,
    CacheLayout,
    Growing,
    Paged,
    Preallocated,
    SharedPages,
    Window,
    parse_cache,
)
from dragoman.model.caches.layout import GrowingLayout
from dragoman.model.caches.paged import PagedLayout, PagePool
from dragoman.model.caches.storage import KV, Bfloat16, Float8, Float32, Int4, Int8, Storage, Unchanged
from dragoman.model.longformer import LongformerPattern
from dragoman.model.masks.visibility import Causal, Prefix
from dragoman.model.positions.position import Alibi
from dragoman.model.positions.tokens import Tokens, positions_of
from dragoman.text.tokens.tokenizer import EOS, PAD

STORAGES = [Unchanged(), Float32(), Bfloat16(), Float8(), Int8(), Int4()]
ROUNDING = STORAGES[2:]
LAID = [Growing(), Preallocated(tokens=4), Paged(tokens=3)]
every_storage = pytest.mark.parametrize("storage", STORAGES, ids=lambda s: type(s).__name__)
every_arrangement = pytest.mark.parametrize("laid", LAID, ids=lambda a: type(a).__name__)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


# ---- storage --------------------------------------------------------------------------------------

SLACK = 1 + 1e-5  # of the arithmetic in float32
BOUNDS = {
    Bfloat16: lambda x, most: 2**-8 * x,
    Float8: lambda x, most: torch.maximum(2**-4 * x, most * 2**-18),
    Int8: lambda x, most: most / 254 * (1 + 2**-8),
    Int4: lambda x, most: most / 14 * (1 + 2**-8),
}


@given(seed=st.integers(0, 10**6), power=st.integers(-20, 20), spread=st.integers(0, 4), channels=st.integers(1, 9))
@settings(max_examples=60)
def test_what_is_read_lies_within_the_bounds_that_the_format_sets(seed, power, spread, channels):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, channels, generator=draw) * 2.0**power
    x = x * 10.0 ** -torch.randint(0, spread + 1, x.shape, generator=draw)  # channels of very different size
    x[0, 0, 0] = 0
    for storage in ROUNDING:
        read = storage.read(storage.write(x), channels, torch.float32)
        bound = BOUNDS[type(storage)](x.abs(), x.abs().amax(dim=-1, keepdim=True))
        assert (((read - x).abs()) <= bound * SLACK).all(), storage


@every_storage
def test_a_vector_is_stored_the_same_whatever_else_is(storage):
    x = torch.randn(3, 2, 4, 8)
    for part, alone in zip(storage.write(x), storage.write(x[1:2, :, 2:3]), strict=True):
        assert torch.equal(part[1:2, :, 2:3], alone)


@every_storage
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_who_says_to_be_exact_is(storage, dtype):
    x = torch.randn(50, 8, dtype=dtype)
    read = storage.read(storage.write(x), 8, dtype)
    assert read.dtype == dtype
    assert torch.equal(read, x) == storage.is_exact(dtype)


@pytest.mark.parametrize(
    ("storage", "bits"), [(Unchanged(), 32), (Float32(), 32), (Bfloat16(), 16), (Float8(), 8), (Int8(), 8), (Int4(), 4)]
)
@pytest.mark.parametrize("kv_heads", [None, 8, 1])
def test_a_layer_of_32_heads_takes_what_the_formula_says(storage, bits, kv_heads):
    """8,192 numbers for each token with 32 key/value heads of 128 channels, 2,048 with 8, 256 with one."""
    attention = AttentionConfig(heads=32, kv_heads=kv_heads, head_dim=128, visibility=Causal()).build(16)
    state = attention.new_state(Cache(layout=Growing(), storage=storage))
    state.extend(attention.key_value(torch.randn(1, 10, 16)))
    heads = kv_heads or 32
    scales = 0 if bits >= 16 else 2 * heads * 2  # one of 16 bits for each key and each value vector
    assert state.nbytes / 10 == 2 * heads * 128 * bits / 8 + scales


# ---- arrangement ----------------------------------------------------------------------------------


@every_storage
@every_arrangement
def test_rows_that_are_reordered_hold_what_they_did_and_then_part(laid: CacheLayout, storage: Storage):
    state, reference = (Cache(layout=a, storage=storage).new_state(Causal()) for a in (laid, Growing()))
    state.reorder(torch.tensor([0]))  # nothing to reorder yet
    B = 2
    for rows in ([1, 1, 0], [2, 0], [1, 0], [0, 0, 1, 1], [3, 0]):
        new = KV(torch.randn(B, 2, 2, 5), torch.randn(B, 2, 2, 5))
        for ours, theirs in zip(state.extend(new), reference.extend(new), strict=True):
            assert torch.equal(ours, theirs)
        for one in (state, reference):
            one.reorder(torch.tensor(rows))
        B = len(rows)


@given(data=st.data())
@settings(max_examples=30)
def test_pages_are_those_in_use_and_none_when_all_are_done(data):
    """Whatever rows do: add tokens, change places, leave, forget, take back; and a pool serves several at a time."""
    gc.freeze()  # so that the collection at the end looks at what was made here, not at all that is loaded
    pool = PagePool(data.draw(st.integers(1, 4)))
    pairs = [(PagedLayout(pool, private=False), GrowingLayout()) for _ in range(2)]
    rows = [data.draw(st.integers(1, 3)) for _ in pairs]
    for _ in range(data.draw(st.integers(1, 6))):
        which = data.draw(st.integers(0, 1))
        (paged, reference), B = pairs[which], rows[which]
        new = (torch.randn(data.draw(st.integers(1, 5)), B, 1, 2),)
        ((ours,), (theirs,)) = (layout.extend(new, None) for layout in (paged, reference))
        assert torch.equal(ours, theirs)
        known = len(theirs)
        match data.draw(st.sampled_from(["reorder", "forget", "rewind"])):
            case "reorder":
                order = torch.tensor(data.draw(st.lists(st.integers(0, B - 1), min_size=1, max_size=4)))
                paged.reorder(order)
                reference.reorder(order)
                rows[which] = len(order)
            case "rewind":
                back = data.draw(st.integers(0, len(new[0])))
                paged.rewind(back)
                reference.rewind(back)
            case "forget":
                retained = torch.tensor(sorted(data.draw(st.sets(st.integers(0, known - 1)))), dtype=torch.int64)
                more = (torch.randn(1, B, 1, 2),)
                keep = torch.cat([retained, torch.tensor([known])])
                for layout in (paged, reference):
                    layout.extend(more, keep)
        held = torch.cat([p.table.flatten() for p, _ in pairs if p.table is not None])
        assert pool.used == len(held.unique())
        assert torch.equal(pool.reference_counts, torch.bincount(held, minlength=len(pool.reference_counts)))
    del paged, pairs
    gc.collect()
    gc.unfreeze()
    assert pool.used == 0


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=4, nbest=2)], ids=["greedy", "beam"])
@pytest.mark.parametrize("variant", ["plain", "window, sinks"])
def test_no_page_is_left_after_a_search(variant, cfg):
    pool, model, source = PagePool(2), build(variant), ids(5, 6)
    source[:, -1] = EOS
    want = search(model, source, cfg, Cache(layout=Growing()))
    got = search(model, source, cfg, SharedPages(pool, Unchanged()))
    assert [[h.tokens for h in some] for some in got] == [[h.tokens for h in some] for some in want]
    assert len(pool.reference_counts) > 0
    assert pool.used == 0


def test_beams_share_the_pages_of_a_common_past():
    model, prompt = build("plain", "decoder-only"), ids(1, 12)
    pool = PagePool(4)
    state = model.start(None, SharedPages(pool, Unchanged()))
    model.decode(prompt, state)
    alone = pool.used
    state.expand(5)
    assert pool.used == alone
    model.decode(ids(5, 1), state)
    assert pool.used == alone + 2 * 5  # a page for each beam in each of two layers


def test_reordering_pages_moves_no_data():
    state = Cache(layout=Paged(tokens=2)).new_state(Causal())
    state.extend(KV(torch.randn(3, 1, 5, 4), torch.randn(3, 1, 5, 4)))
    before = [part.data_ptr() for part in state.layout.pool.parts]
    copy = [part.clone() for part in state.layout.pool.parts]
    state.reorder(torch.tensor([2, 2, 0]))
    assert before == [part.data_ptr() for part in state.layout.pool.parts]
    for part, was in zip(state.layout.pool.parts, copy, strict=True):
        torch.testing.assert_close(part, was, rtol=0, atol=0, equal_nan=True)  # what is not yet in use may be anything


def test_buffers_that_are_full_double():
    state, sizes = Cache(layout=Preallocated(tokens=4)).new_state(Causal()), []
    for _ in range(9):
        state.extend(KV(torch.randn(1, 1, 1, 2), torch.randn(1, 1, 1, 2)))
        sizes.append(state.nbytes // (2 * 2 * 4))
    assert sizes == [4, 4, 4, 4, 8, 8, 8, 8, 16]


@pytest.mark.parametrize("policy", ["growing", "preallocated:4", "paged:3", "paged:3+int8", "window:4:1+int4"])
@pytest.mark.parametrize("beams", [1, 3])
def test_nbytes_counts_every_tensor_that_a_state_holds(policy, beams):
    model, source = build("window, sinks"), ids(2, 5)
    source[1, 3:] = PAD
    state = model.start(source, parse_cache(policy))
    state.expand(beams)
    for tokens in ids(2 * beams, 7).split([4, 1, 2], dim=1):
        model.decode(tokens, state)
    assert state.nbytes == sum(t.nbytes for t in tensors(state))


def tensors(value, known=None) -> list[torch.Tensor]:
    """All that can be reached from a state, each once."""
    known = {} if known is None else known
    if id(value) in known or isinstance(value, type):
        return []
    known[id(value)] = value
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for one in value.values() for t in tensors(one, known)]
    if isinstance(value, list | tuple):
        return [t for one in value for t in tensors(one, known)]
    return tensors(vars(value), known) if hasattr(value, "__dict__") else []


# ---- whole models ---------------------------------------------------------------------------------

HEADS, POSITIONS = VARIANT_PARTS["heads"], VARIANT_PARTS["position"]
EXACT = ["preallocated:4", "paged:3", "growing+float32"]


@pytest.fixture(scope="module")
def models():
    return {
        (heads, position): build_from(combine({"heads": heads, "position": position}).config("encoder-decoder"))
        for heads in HEADS
        for position in POSITIONS
    }


def said(model, source, cfg, policy):
    return [[(h.tokens, h.log_prob) for h in some] for some in search(model, source, cfg, policy)]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("heads", HEADS)
def test_exact_caches_give_the_answers_and_scores_of_the_reference(models, heads, position):
    model, source = models[heads, position], ids(4, 5)
    source[:, -1] = EOS
    source[1:3, 3:] = torch.tensor([EOS, PAD])
    limit = LengthLimit(tokens=6)
    for cfg in (Greedy(limit=limit), Beam(size=3, nbest=2, limit=limit)):
        want = said(model, source, cfg, parse_cache("growing"))
        for policy in EXACT[:2]:
            got = said(model, source, cfg, parse_cache(policy))
            assert [[t for t, _ in some] for some in got] == [[t for t, _ in some] for some in want]
            assert_equal([[p for _, p in some] for some in got], [[p for _, p in some] for some in want], 1e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("heads", HEADS)
def test_what_a_rounding_cache_changes_grows_with_what_it_rounds(models, heads, position):
    """Errors of logits, relative to their size, fall from 4 bits to 8 to 16; none of them is a defect's size."""
    model = models[heads, position]
    target, source = batch(model, 3, 8, 5)
    want, errors = model(target, source), {}
    for storage in ("bfloat16", "int8", "float8", "int4"):
        state = model.start(source, parse_cache(f"paged:3+{storage}"))
        pieces = [model.decode(piece, state) for piece in target.split([4, 1, 3], dim=1)]
        errors[storage] = float((torch.cat(pieces, dim=1) - want).norm() / want.norm())
    assert 0 < errors["bfloat16"] < errors["int4"]
    assert errors["int8"] < errors["int4"]
    assert errors["bfloat16"] < 0.02
    assert errors["int8"] < 0.05
    assert errors["float8"] < 0.2
    assert errors["int4"] < 0.6


@pytest.mark.parametrize("storage", ["int8", "int4", "float8", "bfloat16"])
def test_a_rounding_cache_answers_alike_in_whatever_pieces(storage):
    model = build("rotary, gqa, qk norm")
    target, source = batch(model, 2, 9, 5)
    found = []
    for pieces in ([9], [1] * 9, [4, 3, 2]):
        state = model.start(source, parse_cache(storage))
        found.append(torch.cat([model.decode(piece, state) for piece in target.split(pieces, dim=1)], dim=1))
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


@pytest.mark.parametrize("policy", ["window:4:1", "window:3:0"])
def test_a_window_cache_is_a_model_with_that_window(policy):
    window = parse_cache(policy).layout
    plain = Variant(mixer={"position": Alibi()}).config("encoder-decoder")
    (block,) = plain.decoder.pattern
    visibility = Causal(window=window.tokens, sinks=window.sinks)
    narrow = dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, visibility=visibility))
    model = build_from(plain)
    narrower = build_from(dataclasses.replace(plain, decoder=dataclasses.replace(plain.decoder, pattern=(narrow,))))
    target, source = batch(model, 2, 12, 5)
    state = model.start(source, parse_cache(policy))
    got = torch.cat([model.decode(piece, state) for piece in target.split([3, 1, 5, 1, 2], dim=1)], dim=1)
    assert_equal(got, narrower(target, source))
    assert (got - model(target, source)).abs().max() > 1e-3


def test_a_window_cache_stops_growing():
    model, sizes = build("plain", "decoder-only"), []
    for length in (30, 60, 90):
        state = model.start(None, parse_cache("window:8:2"))
        for tokens in ids(2, length).split(1, dim=1):
            model.decode(tokens, state)
        sizes.append(state.nbytes)
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_narrower_layer_keeps_its_own_window():
    window = Window(tokens=8, sinks=4)
    assert window.restricted(Causal(window=5, sinks=1)) == Causal(window=5, sinks=1)
    assert window.restricted(Causal(window=50, sinks=6)) == Causal(window=8, sinks=6)


@given(
    st.one_of(
        st.builds(Causal, window=st.none() | st.integers(1, 12), sinks=st.integers(0, 3)),
        st.builds(
            LongformerPattern, window=st.integers(1, 12), first=st.integers(0, 3), every=st.none(), causal=st.just(True)
        ),
    ),
    st.builds(Window, tokens=st.integers(1, 12), sinks=st.integers(0, 3)),
)
def test_a_window_shows_no_token_that_the_layer_or_the_window_hides(visibility, window):
    pos = positions_of(Tokens(torch.ones(1, 24, dtype=torch.long)))
    limits = Causal(window=window.tokens, sinks=max(window.sinks, getattr(visibility, "sinks", 0)))
    shown = window.restricted(visibility).allows(pos, pos)
    assert not (shown & ~visibility.allows(pos, pos)).any() and not (shown & ~limits.allows(pos, pos)).any()
    assert shown[0].diagonal().all()


def test_a_window_refuses_layers_that_do_not_look_back_alone():
    model = build_from(Variant(mixer={"visibility": Prefix()}).config("decoder-only"))
    with pytest.raises(ConfigError, match=r"cache: a window fits layers that see the past, and .* visibility prefix"):
        model.decode(ids(1, 3), model.start(None, parse_cache("window:4")))


@pytest.mark.parametrize(("variant", "shape"), ALONE[:3])
@pytest.mark.parametrize("policy", ["paged:3+int8", "window:5:1"])
def test_beams_of_every_cache_are_as_rows_of_their_own(variant, shape, policy):
    model, K = build(variant, shape), 3
    prompt, rest = ids(2, 3), ids(6, 4)
    rows = torch.tensor([2, 0, 0, 4, 4, 5])
    together, apart = (model.start(None, parse_cache(policy)) for _ in range(2))
    model.decode(prompt, together)
    together.expand(K)
    model.decode(rest[:, :2], together)
    together.reorder(rows)
    got = model.decode(rest[:, 2:], together)
    said = torch.cat([prompt.repeat_interleave(K, dim=0), rest[:, :2]], dim=1)[rows]
    assert_equal(got, model.decode(torch.cat([said, rest[:, 2:]], dim=1), apart)[:, 5:])


# ---- the line that names one ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cache"),
    [
        ("growing", Cache(layout=Growing())),
        ("paged:8+int8", Cache(layout=Paged(tokens=8), storage=Int8())),
        ("int4", Cache(storage=Int4())),
        ("float8+window:64", Cache(layout=Window(tokens=64), storage=Float8())),
        ("window:64:0", Cache(layout=Window(tokens=64, sinks=0))),
        ("preallocated", Cache()),
    ],
)
def test_a_cache_is_a_line(text, cache):
    assert parse_cache(text) == cache
    assert parse_cache(str(cache)) == cache


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "pagde:16",
            "cache: no 'pagde' here. Did you mean 'paged'? Known: growing, preallocated, window, paged, unchanged, "
            "float32, bfloat16, float8, int8, int4.",
        ),
        ("", "cache: no '' here. Known: growing"),
        ("int8+int4", "cache: 'int8+int4' names more than one storage: keep one"),
        ("paged:16:2", "cache: 'paged:16:2' does not fit: write paged:TOKENS, with whole numbers"),
        ("paged:x", "cache: 'paged:x' does not fit: write paged:TOKENS, with whole numbers"),
        ("int8:3", "cache: 'int8:3' does not fit: write int8, with whole numbers"),
        ("window", "cache: window.tokens: must be given"),
        ("paged:0", "cache: paged.tokens: must be greater than 0, got 0"),
    ],
)
def test_a_line_that_names_none_says_what_there_is(text, complaint, capsys, tmp_path):
    assert main(["translate", str(tmp_path), "a text", "--cache", text, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"dragoman: {complaint}")
    assert not (tmp_path / "out").exists()


def test_heads_that_share_keys_share_what_is_kept():
    sizes = {}
    for kv_heads in (None, 2, 1):
        model = build_from(Variant(attention={"kv_heads": kv_heads}).config("decoder-only"))
        state = model.start(None, Cache(layout=Growing()))
        model.decode(ids(2, 6), state)
        sizes[kv_heads] = sum(layer.nbytes for layer in state.tower.layers)
    assert sizes[None] == H // 2 * sizes[2] == H * sizes[1]
