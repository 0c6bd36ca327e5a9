"""Positions: what each scheme promises about distance, and the numbers of those who invented it."""

import math

import pytest
import torch
from torch import Tensor
from variants import assert_equal, ids

from dragoman.errors import ConfigError
from dragoman.interchange.hub_config import HubConfig
from dragoman.interchange.rope import read_rotary
from dragoman.model.positions.position import (
    Alibi,
    AlibiScheme,
    Learned,
    LearnedEmbedding,
    Shaw,
    Sinusoidal,
    SinusoidalEmbedding,
    T5Bias,
    T5BiasScheme,
)
from dragoman.model.positions.rotary import (
    DynamicNtkScaling,
    DynamicRotaryEffect,
    LinearScaling,
    Llama3Scaling,
    LongRope,
    NoScaling,
    NtkScaling,
    Rotary,
    RotaryScheme,
    Yarn,
    frequencies,
)
from dragoman.model.positions.tokens import Positions, Tokens, positions_of
from dragoman.model.scorer import Dot, Multiplicative, ScaledDot

DTYPE = torch.float64


def at(*pos: int) -> Positions:
    return Positions(torch.tensor([pos]))


# ---- added to embeddings ---------------------------------------------------------------------------


def pe(dim: int, *pos: int, **options: object) -> Tensor:
    return Sinusoidal(**options).build(dim).sinusoids(torch.tensor([pos]))[0]


def test_sinusoids_are_the_papers_formula():
    got = pe(12, 0, 1, 7, 5000)
    for row, position in zip(got, (0, 1, 7, 5000), strict=True):
        for i in range(6):
            angle = position / 10_000 ** (2 * i / 12)
            assert_equal(row[2 * i : 2 * i + 2].tolist(), [math.sin(angle), math.cos(angle)], 1e-12)


def test_positions_that_texts_share_are_computed_once_and_the_same():
    place, pos = Sinusoidal().build(16), torch.tensor([[-1, 0, 1, 2], [3, 4, 5, 6], [90, 91, 92, 93]])
    for some in (pos[:2], pos, pos[2:]):
        x = torch.randn(len(some), 4, 16)
        assert torch.equal(place(x, some), x + place.sinusoids(some).float())


def test_the_two_layouts_hold_the_same_waves():
    interleaved, halves = pe(12, 3, 9), pe(12, 3, 9, layout="halves")
    assert torch.equal(halves, torch.cat([interleaved[:, 0::2], interleaved[:, 1::2]], dim=1))


@pytest.mark.parametrize("k", [1, 5, 100])
def test_a_step_of_k_positions_is_one_rotation_of_the_sinusoids_wherever_it_starts(k):
    C, start = 16, (0, 1, 30, 4000)
    angle = k * 10_000.0 ** (-torch.arange(0, C, 2, dtype=DTYPE) / C)
    turns = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    rotation = torch.block_diag(*turns)
    assert_equal(rotation @ rotation.T, torch.eye(C, dtype=DTYPE), 1e-12)
    assert_equal(pe(C, *(p + k for p in start)), pe(C, *start) @ rotation.T, 1e-11)


def test_wavelengths_go_from_2_pi_to_10_000_times_2_pi():
    slowest = 10_000 ** (510 / 512)
    cos_sin = SinusoidalEmbedding(Sinusoidal(), 512).sinusoids(torch.tensor([[0, 1]]))[0]
    assert_equal(cos_sin[1, 0].item(), math.sin(1), 1e-12)
    assert_equal(cos_sin[1, 510].item(), math.sin(1 / slowest), 1e-12)


def test_learned_positions_add_their_row_and_padding_takes_one_that_exists():
    table = LearnedEmbedding(4, 6)
    x = torch.randn(2, 3, 6)
    assert torch.equal(table(x, torch.tensor([[0, 2, 3]])), x + table.weight[[0, 2, 3]])
    assert torch.equal(table(x, torch.tensor([[-1, 0, 9]])), x + table.weight[[0, 0, 3]])


# ---- rotary ----------------------------------------------------------------------------------------

ROTARY = {
    "halves": Rotary(),
    "neighbours": Rotary(pairs="neighbours"),
    "part": Rotary(fraction=0.5),
    "linear": Rotary(scaling=LinearScaling(factor=4.0)),
    "ntk": Rotary(scaling=NtkScaling(factor=4.0)),
    "yarn": Rotary(scaling=Yarn(factor=4.0, trained=16)),
}


def score(cfg: Rotary, q: Tensor, k: Tensor, m: int, n: int, scorer: object = ScaledDot()) -> float:
    scheme, scorer = cfg.build(1, q.shape[-1]), scorer.build(1, q.shape[-1]).to(q.dtype)
    q, k = (
        scheme.effect(at(m), at(m), q.dtype).rotate(scorer.project(q)),
        scheme.effect(at(n), at(n), q.dtype).rotate(k),
    )
    return scorer.scores(q, k).item()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("cfg", ROTARY.values(), ids=ROTARY)
def test_rotary_scores_depend_on_distance_only(cfg, dtype, tolerance):
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=dtype) / 4
    for distance in (0, 1, 17):
        scores = [score(cfg, q, k, start + distance, start) for start in (0, 3, 200, 5000)]
        assert max(scores) - min(scores) <= tolerance
    assert abs(score(cfg, q, k, 9, 0) - score(cfg, q, k, 0, 9)) > 1e-4


def test_rotary_scores_depend_on_distance_only_for_a_learned_product_too():
    q, k, scorer = *torch.randn(2, 1, 1, 1, 16, dtype=DTYPE), Multiplicative()
    scores = []
    for start in (0, 50):
        torch.manual_seed(1)
        scores.append(score(Rotary(), q, k, start + 7, start, scorer))
    assert_equal(scores[0], scores[1])


@pytest.mark.parametrize("cfg", [ROTARY["halves"], ROTARY["neighbours"]], ids=["halves", "neighbours"])
def test_rotation_keeps_lengths_and_turns_pairs_as_complex_numbers(cfg):
    x = torch.randn(1, 1, 1, 8, dtype=DTYPE)
    turned = cfg.build(1, 8).effect(at(5), at(5), DTYPE).rotate(x)
    assert_equal(turned.norm(), x.norm(), 1e-12)
    angle = 5 * frequencies(10_000.0, 8)
    pairs = [(i, i + 4) if cfg.pairs == "halves" else (2 * i, 2 * i + 1) for i in range(4)]
    for (a, b), turn in zip(pairs, angle, strict=True):
        before, after = torch.complex(x[..., a], x[..., b]), torch.complex(turned[..., a], turned[..., b])
        assert_equal(after, before * torch.polar(torch.ones((), dtype=DTYPE), turn), 1e-12)


def test_a_fraction_of_the_channels_stays_as_it_is():
    x = torch.randn(1, 1, 1, 8, dtype=DTYPE)
    turned = Rotary(fraction=0.5).build(1, 8).effect(at(5), at(5), DTYPE).rotate(x)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert (turned[..., :4] != x[..., :4]).all()


def hugging_face(
    kind: str, channels: int, trained: int, factor: float, length: int | None = None
) -> tuple[Tensor, float]:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_theta": 10_000.0, "rope_type": kind, "factor": factor}
    if kind in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = trained
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    cfg = transformers.LlamaConfig(
        hidden_size=channels, num_attention_heads=1, max_position_embeddings=trained, rope_parameters=rope
    )
    return ROPE_INIT_FUNCTIONS[kind](cfg, "cpu", seq_len=length)


@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("trained", [16, 2048])
@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
def test_scaled_frequencies_are_those_of_hugging_face(factor, trained, channels):
    for kind, scaling in (
        ("linear", LinearScaling(factor=factor)),
        ("yarn", Yarn(factor=factor, trained=trained)),
        ("llama3", Llama3Scaling(factor=factor, trained=trained)),
    ):
        want, magnitude = hugging_face(kind, channels, trained, factor)
        got = scaling.frequencies(10_000.0, channels)
        torch.testing.assert_close(got, want, rtol=2e-6, atol=0, check_dtype=False)
        assert scaling.magnitude == pytest.approx(magnitude)
    scaling = DynamicNtkScaling(factor=factor, trained=trained)
    for length in (1, trained, trained + 1, 5 * trained):
        want, _ = hugging_face("dynamic", channels, trained, factor, length)
        (got,) = scaling.stretched(torch.tensor([length]), 10_000.0, channels)
        torch.testing.assert_close(got, want, rtol=2e-6, atol=0, check_dtype=False)


@pytest.mark.parametrize("attention_factor", [None, 1.3])
def test_long_rope_is_that_of_hugging_face_on_both_sides_of_the_trained_length(attention_factor):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    short, long = (1.0, 1.5, 2.0, 3.0), (2.0, 5.0, 9.0, 20.0)
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": list(short), "long_factor": list(long),
            "original_max_position_embeddings": 16, "attention_factor": attention_factor}  # fmt: skip
    cfg = transformers.LlamaConfig(
        hidden_size=8, num_attention_heads=1, max_position_embeddings=64, rope_parameters=rope
    )
    magnitude = read_rotary(HubConfig(cfg.to_dict())).scaling.magnitude
    scaling = LongRope(trained=16, short=short, long=long, magnitude=magnitude)
    for length in (1, 16, 17, 64):
        want, wanted_magnitude = ROPE_INIT_FUNCTIONS["longrope"](cfg, "cpu", seq_len=length)
        got = scaling.selected(positions_of(Tokens(ids(1, length))), 10_000.0, 8)
        torch.testing.assert_close(got, want.expand_as(got), rtol=2e-6, atol=0, check_dtype=False)
        assert magnitude == pytest.approx(wanted_magnitude)


def test_long_rope_goes_by_the_length_of_each_text_of_a_batch_and_of_a_row():
    scaling = LongRope(trained=3, short=(1.0, 1.0), long=(2.0, 2.0))
    row = Tokens(ids(1, 8), segment=torch.tensor([[4, 4, 4, 7, 7, 7, 7, 7]]))
    long = scaling.selected(positions_of(row), 100.0, 4)[0, :, 0] == 0.5
    assert long.tolist() == [False] * 3 + [True] * 5
    keep = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    rows = scaling.selected(positions_of(Tokens(ids(2, 5), keep)), 100.0, 4)[:, :, 0] == 0.5
    assert rows.tolist() == [[False] * 5, [True] * 5]


def test_ntk_interpolates_the_slowest_pair_and_keeps_the_fastest():
    plain, stretched = frequencies(10_000.0, 64), NtkScaling(factor=8.0).frequencies(10_000.0, 64)
    assert stretched[0] == plain[0]
    assert_equal(stretched[-1], plain[-1] / 8, 1e-12)


def test_dynamic_scaling_is_none_up_to_the_trained_length():
    q, k = torch.randn(2, 1, 2, 6, 8, dtype=DTYPE)
    where = positions_of(Tokens(ids(1, 6)))
    dynamic = Rotary(scaling=DynamicNtkScaling(trained=6)).build(2, 8).effect(where, where, DTYPE)
    plain = Rotary().build(2, 8).effect(where, where, DTYPE)
    ((turned_q, turned_k),) = dynamic.parts(q, k)
    assert torch.equal(turned_q, plain.rotate(q))
    assert torch.equal(turned_k, plain.rotate(k))


def test_dynamic_scaling_gives_each_query_beyond_the_trained_length_its_own_frequencies():
    where = positions_of(Tokens(ids(1, 7)))
    scaling = DynamicNtkScaling(trained=4, factor=2.0)
    position_effect = Rotary(scaling=scaling).build(1, 8).effect(where, where, DTYPE)
    q, k = torch.randn(2, 1, 1, 7, 8, dtype=DTYPE)
    parts = position_effect.parts(q, k)
    assert [part.shape[2] for part, _ in parts] == [4, 1, 1, 1]
    for t, (turned, keys) in zip((4, 5, 6), parts[1:], strict=True):
        growth = 2.0 * (t + 1) / 4 - 1
        alone = NtkScaling(factor=growth)  # the same base as for a text of t + 1 tokens
        scheme = RotaryScheme(Rotary(scaling=alone), 8)
        assert_equal(turned, scheme.effect(at(t), at(t), DTYPE).rotate(q[:, :, t : t + 1]))
        assert_equal(keys, scheme.effect(where, where, DTYPE).rotate(k))


def test_dynamic_scaling_starts_anew_with_each_packed_text():
    segment = torch.tensor([[0] * 6 + [1] * 2])
    where = positions_of(Tokens(ids(1, 8), segment=segment))
    position_effect = Rotary(scaling=DynamicNtkScaling(trained=4)).build(1, 8).effect(where, where, DTYPE)
    assert isinstance(position_effect, DynamicRotaryEffect)
    assert position_effect.sizes == [4, 1, 1, 1, 1]


# ---- biases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20])
def test_alibi_slopes_are_those_of_its_authors(heads):
    def power_of_2(n: int) -> list[float]:  # from the code published with the paper
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def slopes(n: int) -> list[float]:
        if math.log2(n).is_integer():
            return power_of_2(n)
        closest = 2 ** math.floor(math.log2(n))
        return power_of_2(closest) + slopes(2 * closest)[0::2][: n - closest]

    assert AlibiScheme(heads).slopes() == pytest.approx(slopes(heads), rel=1e-12)


def test_alibi_charges_by_distance():
    where = at(0, 1, 2, 3)
    bias = Alibi().build(2, 8).effect(where, where, DTYPE).bias(torch.zeros(1, 2, 4, 8, dtype=DTYPE), 1.0)
    assert bias.shape == (1, 2, 4, 4)
    for head, slope in enumerate(AlibiScheme(2).slopes()):
        for i in range(4):
            for j in range(4):
                assert bias[0, head, i, j] == -slope * abs(i - j)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("buckets, reach", [(32, 128), (16, 40), (6, 20)])
def test_t5_buckets_are_those_of_hugging_face(buckets, reach, bidirectional):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    ours = T5BiasScheme(T5Bias(buckets=buckets, reach=reach, bidirectional=bidirectional), 2)
    back = torch.arange(-300, 301)[None, None]
    want = theirs(-back, bidirectional=bidirectional, num_buckets=buckets, max_distance=reach)
    assert torch.equal(ours.bucket(back), want)
    assert want.max() < buckets


def test_t5_needs_buckets_that_widen():
    with pytest.raises(ConfigError, match="32 buckets hold distances up to 16 one by one already"):
        T5Bias(buckets=32, reach=16, bidirectional=False).build(2, 8)
    with pytest.raises(ConfigError, match="1 buckets"):
        T5Bias(buckets=1, bidirectional=False).build(2, 8)


@pytest.mark.parametrize("scorer", [ScaledDot(), Dot(), ScaledDot(scale=0.3)], ids=["scaled", "dot", "scale"])
def test_shaw_adds_a_vector_for_each_clipped_distance_to_keys_and_values(scorer):
    H, T, C, reach = 2, 7, 4, 2
    scheme, scorer = Shaw(reach=reach).build(H, C).double(), scorer.build(H, C)
    where = at(*range(T))
    position_effect = scheme.effect(where, where, DTYPE)
    q, k, v = torch.randn(3, 1, H, T, C, dtype=DTYPE)
    weights = torch.rand(1, H, T, T, dtype=DTYPE)
    scores = scorer.scores(q, k) + position_effect.bias(q, scorer.scale)
    values = weights @ v + position_effect.values(weights)
    index = [[max(-reach, min(reach, i - j)) + reach for j in range(T)] for i in range(T)]
    for i in range(T):
        keys = k[0] + scheme.key_table.weight[index[i]]  # (H, T, C)
        assert_equal(scores[0, :, i], scorer.scale * (q[0, :, i, None] * keys).sum(-1))
        seen = v[0] + scheme.value_table.weight[index[i]]
        assert_equal(values[0, :, i], (weights[0, :, i, :, None] * seen).sum(1))


# ---- where tokens stand ----------------------------------------------------------------------------


def positions(tokens: Tokens, last: Positions | None = None) -> list[list[int]]:
    return positions_of(tokens, last).pos.tolist()


def test_a_position_counts_the_tokens_of_the_same_text_before():
    T, F = True, False
    assert positions(Tokens(ids(3, 4))) == [[0, 1, 2, 3]]
    assert positions(Tokens(ids(2, 4), keep=torch.tensor([[F, F, T, T], [T, T, T, F]]))) == [
        [-1, -1, 0, 1],
        [0, 1, 2, 2],
    ]
    assert positions(Tokens(ids(1, 6), segment=torch.tensor([[4, 4, 4, 1, 1, 4]]))) == [[0, 1, 2, 0, 1, 0]]
    keep, segment = torch.tensor([[T, T, F, F, T, T]]), torch.tensor([[1, 1, 1, 2, 2, 2]])
    assert positions(Tokens(ids(1, 6), keep=keep, segment=segment)) == [[0, 1, 1, -1, 0, 1]]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_positions_go_on_where_a_text_was_cut(cut):
    T, F = True, False
    keep = torch.tensor([[F, F, T, T, F, T], [T, T, T, T, T, T], [F, F, F, F, F, F]])
    segment = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 2, 2, 2, 3, 3], [1, 1, 1, 1, 1, 1]])
    whole = Tokens(ids(3, 6), keep, segment)
    first, second = Tokens(*(t[:, :cut] for t in whole[:3])), Tokens(*(t[:, cut:] for t in whole[:3]))
    before = positions_of(first)
    after = positions_of(second, before.select_columns(slice(-1, None)))
    assert before.followed_by(after).pos.tolist() == positions_of(whole).pos.tolist()


def test_a_mistaken_position_names_its_place():
    with pytest.raises(
        ConfigError, match=r"^position: sinusoidal positions come in pairs of channels, and the width 7 is odd"
    ):
        Sinusoidal().build(7)
    with pytest.raises(ConfigError, match=r"^position: rotary needs pairs of channels, and would rotate 5 of 5"):
        Rotary().build(2, 5)
    with pytest.raises(ConfigError, match=r"^position: rotary needs pairs of channels, and would rotate 1 of 4"):
        Rotary(fraction=0.3).build(2, 4)
    with pytest.raises(ConfigError, match=r"^position.scaling: NTK scaling needs two pairs of channels"):
        Rotary(scaling=NtkScaling(factor=2.0), fraction=0.25).build(2, 8)
    assert Learned(length=5).length == 5
    assert Rotary(scaling=NoScaling()).scaling.magnitude == 1
