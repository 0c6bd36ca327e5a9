"""The model as a module: built, copied, saved, run in other precisions, recomputed; and the mistakes one can make."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from variants import (
    MODELS,
    VARIANTS,
    D,
    H,
    V,
    Variant,
    assert_equal,
    batch,
    build,
    build_from,
    every_variant,
    gradients,
    ids,
)

from dragoman.config import from_dict, override, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.model.interface import PAD, Tokens
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.moe import MixtureLayer, auxiliary_loss
from dragoman.model.positions.position import Learned
from dragoman.model.transformer import Transformer, TransformerConfig

# ---- built, copied, saved --------------------------------------------------------------------------

kinds_of_weights = pytest.mark.parametrize(
    "variant", ["biases", "learned", "t5", "shaw", "multiplicative", "additive", "mixture, shared", "DeepNorm"]
)


@every_variant
def test_a_model_is_described_by_plain_data(variant):
    cfg = VARIANTS[variant].config("encoder-decoder")
    assert from_dict(TransformerConfig, to_dict(cfg)) == cfg


@kinds_of_weights
def test_a_model_is_built_without_memory_to_count_it(variant):
    cfg = VARIANTS[variant].config("encoder-decoder")
    with torch.device("meta"):
        empty = cfg.build()
    assert all(t.is_meta for t in [*empty.parameters(), *empty.buffers()])
    shapes, real = ({n: t.shape for n, t in m.state_dict().items()} for m in (empty, build(variant)))
    assert shapes == real


@every_variant
def test_every_parameter_gets_a_gradient(variant):
    model = build(variant)
    loss = model(*batch(model, 6, 20, 20)).logsumexp(-1).sum()
    unused = {name for name, g in gradients(model, loss).items() if (g == 0).all()}
    for name, mixture in model.named_modules():
        if isinstance(mixture, MixtureLayer):  # an expert to whom no token went has nothing to learn
            idle = [f"{name}.experts.{i}." for i, load in enumerate(mixture.load) if load == 0]
            unused = {weight for weight in unused if not weight.startswith(tuple(idle))}
    # a bias on keys moves all scores of a query alike, and softmax forgets it
    assert all(name.endswith(("k.bias", "k_norm.bias")) for name in unused)


def test_keys_biases_move_no_score_when_nothing_turns_them():
    model = build("biases")
    loss = model(*batch(model, 4, 9, 7)).logsumexp(-1).sum()
    moved = {name: g.abs().max().item() for name, g in gradients(model, loss).items() if name.endswith("k.bias")}
    assert moved and max(moved.values()) < 1e-12


@kinds_of_weights
def test_a_copy_computes_the_same_and_shares_nothing(variant):
    model = build(variant)
    given = batch(model, 2, 6, 5)
    want = model(*given)  # leaves nothing behind that could not be copied
    twin = copy.deepcopy(model)
    assert torch.equal(twin(*given), want)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(model(*given), want)


@kinds_of_weights
def test_weights_loaded_into_a_new_model_give_the_same_answer(variant):
    model = build(variant)
    fresh = MODELS[variant].config("encoder-decoder").build().double().eval()
    fresh.load_state_dict(model.state_dict())
    given = batch(model, 2, 6, 5)
    assert torch.equal(fresh(*given), model(*given))


def test_weights_are_known_by_where_they_stand():
    model = build("rotary, gqa, qk norm")
    attention = ["q.weight", "k.weight", "v.weight", "out.weight", "q_norm.weight", "k_norm.weight"]
    norm = ["before.weight", "before.bias"]
    mlp = ["up.weight", "up.bias", "out.weight", "out.bias"]

    def block(*sublayers: tuple[str, list[str]]) -> set[str]:
        return {f"{part}.{name}" for part, names in sublayers for name in names}

    encoder = block(("mixer", attention), ("mlp", mlp), ("mixer_residual", norm), ("mlp_residual", norm))
    decoder = encoder | block(("cross", attention), ("cross_residual", norm))
    assert set(model.state_dict()) == {
        "embed.tokens.weight",
        "source_embed.tokens.weight",
        "output.weight",
        *(f"{tower}.final_norm.{name}" for tower in ("encoder", "decoder") for name in ("weight", "bias")),
        *(f"encoder.blocks.{i}.{name}" for i in range(2) for name in encoder),
        *(f"decoder.blocks.{i}.{name}" for i in range(2) for name in decoder),
    }


@pytest.mark.parametrize(
    "tying, distinct", [("all", 1), ("target", 2), ("inputs", 2), ("none", 3)], ids=["all", "target", "inputs", "none"]
)
def test_tied_matrices_are_one(tying, distinct):
    model = build_from(Variant(model={"tying": tying}).config("encoder-decoder"))
    matrices = {id(m.weight) for m in (model.embed.tokens, model.source_embed.tokens, model.output)}
    assert len(matrices) == distinct
    untied = build_from(Variant(model={"tying": "none"}).config("encoder-decoder"))
    saved = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in model.parameters())
    assert saved == (3 - distinct) * V * D


@pytest.mark.parametrize("shared, tables", [(True, 1), (False, 2)])
def test_layers_share_a_position_table_if_they_are_told_to(shared, tables):
    cfg = MODELS["t5"].config("decoder-only")
    (block,) = cfg.decoder.pattern
    position = dataclasses.replace(block.mixer.position, shared=shared)
    block = dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, position=position))
    cfg = dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=(block,)))
    assert sum("schemes" in name for name, _ in cfg.build().named_parameters()) == tables


def test_a_pattern_of_blocks_repeats():
    wide, narrow = (Variant(mixer={"visibility": Causal(window=w)}).config("decoder-only").decoder for w in (None, 2))
    pattern = (narrow.pattern[0], narrow.pattern[0], wide.pattern[0])
    cfg = TransformerConfig(vocab=V, dim=D, decoder=dataclasses.replace(wide, depth=5, pattern=pattern))
    windows = [block.mixer.cfg.visibility.window for block in cfg.build().decoder.blocks]
    assert windows == [2, 2, None, 2, 2]


# ---- precision -------------------------------------------------------------------------------------


@every_variant
def test_a_model_turned_to_float64_computes_all_of_it_in_float64(variant):
    model = build(variant)
    target, source = batch(model, 2, 12, 9)
    got = model(target, source)
    torch.set_default_dtype(torch.float64)  # whatever is made on the way is float64 now: nothing may change
    try:
        want = model(target, source)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got, want)


@every_variant
def test_bfloat16_autocast_trains_every_variant(variant):
    model = build(variant).float()
    try:
        model.train()
        target, source = batch(model, 3, 9, 7)
        target[1, 6:], source[0, 4:] = PAD, PAD
        exact = model(target, source)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(target, source)
            loss = logits.float().logsumexp(-1).sum() + auxiliary_loss(model)
        assert all(g.isfinite().all() for g in gradients(model, loss).values())
        assert (logits - exact).norm() < 0.1 * exact.norm()
    finally:
        build.cache_clear()


@every_variant
def test_bfloat16_weights_translate(variant):
    model = copy.deepcopy(build(variant)).bfloat16()
    target, source = batch(model, 2, 6, 5)
    with torch.no_grad():
        state = model.start(source)
        logits = torch.cat([model.decode(piece, state) for piece in target.split([3, 1, 2], dim=1)], dim=1)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


# ---- recomputation and dropout ---------------------------------------------------------------------


def with_dropout(variant: str, share: float = 0.3) -> Transformer:
    data = to_dict(MODELS[variant].config("encoder-decoder"))
    for place in ("dropout", "*.pattern.*.dropout", "*.pattern.*.mixer.dropout", "decoder.pattern.*.cross.dropout"):
        data = override(data, f"{place}={share}")
    if "expert" not in data["decoder"]["pattern"][0]["mlp"]:
        data = override(data, f"*.pattern.*.mlp.dropout={share}")
    return build_from(from_dict(TransformerConfig, data)).train()


@pytest.mark.parametrize(
    "variant", ["plain", "rotary dynamic", "t5", "shaw", "window, sinks", "additive", "DeepNorm", "mixture, capacity"]
)
def test_recomputing_activations_gives_the_same_gradients_dropout_included(variant):
    model = with_dropout(variant)
    given, results = batch(model, 2, 7, 5), []
    for recompute in (False, True):
        model.encoder.recompute = model.decoder.recompute = recompute
        torch.manual_seed(3)
        loss = model(*given).logsumexp(-1).sum() + auxiliary_loss(model)
        results.append((loss, gradients(model, loss)))
    assert_equal(results[0], results[1], 1e-12)


def test_dropout_acts_in_each_of_its_places_and_only_in_training():
    data = to_dict(MODELS["swiglu"].config("encoder-decoder"))
    places = ["dropout"]
    for tower in ("encoder", "decoder"):
        places += [f"{tower}.pattern.0.{part}" for part in ("dropout", "mixer.dropout", "mlp.dropout")]
    for place in [*places, "decoder.pattern.0.cross.dropout"]:
        model = build_from(from_dict(TransformerConfig, override(data, f"{place}=0.5")))
        given = batch(model, 2, 7, 5)
        assert torch.equal(model(*given), model(*given))
        model.train()
        assert not torch.equal(model(*given), model(*given)), place


# ---- mistakes --------------------------------------------------------------------------------------

MISTAKES = {
    "heads that do not divide": (
        "decoder.pattern.0.mixer.heads=5",
        "model.decoder.pattern.0.mixer.heads: 5 heads do not",
    ),
    "in the encoder": ("encoder.pattern.0.mixer.heads=5", "model.encoder.pattern.0.mixer.heads: 5 heads do not divide"),
    "across": ("decoder.pattern.0.cross.heads=7", "model.decoder.pattern.0.cross.heads: 7 heads do not divide"),
    "key/value heads": (
        "decoder.pattern.0.mixer.kv_heads=3",
        "model.decoder.pattern.0.mixer.kv_heads: 3 key/value heads do not divide 4 query heads",
    ),
    "odd channels": (
        "decoder.pattern.0.mixer={head_dim: 5, position: {kind: rotary}}",
        "model.decoder.pattern.0.mixer.position: rotary needs pairs of channels, and would rotate 5 of 5",
    ),
    "odd width": ("{dim: 25, position: {kind: sinusoidal}}", "model.position: sinusoidal positions come in pairs"),
    "positions across": (
        "decoder.pattern.0.cross.position={kind: alibi}",
        "model.decoder.pattern.0.cross.position: source and target share no positions",
    ),
    "no cross-attention": ("decoder.pattern.0.cross=null", "model.decoder.pattern.0.cross: must be given"),
    "no encoder": ("encoder=null", "model.decoder.pattern.0.cross: there is no encoder to attend to"),
    "an encoder that crosses": (
        "encoder.pattern.0.cross={heads: 4, visibility: {kind: full}}",
        "model.encoder.pattern.0.cross: only a decoder attends across",
    ),
    "two vocabularies in one matrix": (
        "source_vocab=31",
        "model.tying: 'all' shares one matrix between source and target, but their vocabularies have 31 and 29 entries",
    ),
    "no vocabulary": ("vocab=null", "model.vocab: must be given before the model is built"),
    "no blocks": ("decoder.pattern=[]", "model.decoder.pattern: must have at least one entry"),
    "too many active experts": (
        "decoder.pattern.0.mlp={kind: mixture, experts: 2, active: 3, expert: {kind: gated, hidden: 8}}",
        "model.decoder.pattern.0.mlp.active: 3 active experts of 2",
    ),
    "sums without a norm": (
        "encoder.pattern.0.residual={kind: deep_norm}",
        "model.encoder.pattern.0.residual: deep_norm needs a norm after each sum: set placement to post, it is pre",
    ),
    "too few buckets": (
        "decoder.pattern.0.mixer.position={kind: t5_bias, buckets: 8, reach: 2, bidirectional: true}",
        "model.decoder.pattern.0.mixer.position: 8 buckets hold distances up to 2 one by one already",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_sizes_that_do_not_fit_are_named_by_their_path(mistake):
    change, says = MISTAKES[mistake]
    data = to_dict(MODELS["plain"].config("encoder-decoder"))
    for assignment in ("dim=25", "position={kind: sinusoidal}") if mistake == "odd width" else (change,):
        data = override(data, assignment)
    with pytest.raises(ConfigError) as error:
        from_dict(TransformerConfig, data).build()
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_learned_positions_end_somewhere_and_padding_needs_none():
    model = build_from(Variant(model={"position": Learned(length=6)}).config("encoder-decoder"))
    fits = ids(2, 6)
    padded = torch.nn.functional.pad(fits, (0, 5), value=PAD)
    with torch.no_grad():
        assert_equal(model(padded, padded)[:, :6], model(fits, fits))
    for target, source in ((ids(2, 7), fits), (fits, ids(2, 7))):
        with pytest.raises(
            DataError, match=r"^model\.position: a text of 7 tokens, and learned positions for 6: shorten"
        ):
            model(target, source)
    state = model.start(fits)
    model.decode(fits, state)
    with pytest.raises(DataError, match="a text of 7 tokens"):
        model.decode(fits[:, :1], state)


def test_a_translator_needs_a_source_and_a_continuation_takes_none():
    with pytest.raises(ValueError, match="this model translates: it needs a source"):
        build("plain")(ids(1, 3))
    with pytest.raises(ValueError, match="this model translates: it needs a source"):
        build("plain").start(None)
    with pytest.raises(ValueError, match="this model has no encoder"):
        build("plain", "decoder-only")(ids(1, 3), ids(1, 3))


@pytest.mark.parametrize("shape", ["decoder-only", "encoder-decoder"])
def test_a_decoder_must_not_see_the_future(shape):
    cfg = Variant(mixer={"visibility": Full()}).config(shape)
    with pytest.raises(
        ConfigError, match=r"model\.decoder\.pattern\.0\.mixer\.visibility: full: a decoder must not see"
    ):
        cfg.build()
    second = dataclasses.replace(
        cfg, decoder=dataclasses.replace(cfg.decoder, pattern=(plain(shape), *cfg.decoder.pattern), depth=2)
    )
    with pytest.raises(ConfigError, match=r"model\.decoder\.pattern\.1\.mixer\.visibility"):
        second.build()


def plain(shape):
    return Variant().config(shape).decoder.pattern[0]


def test_heads_of_any_size_are_counted_in_the_projections():
    cfg = Variant(attention={"heads": H, "head_dim": 5, "kv_heads": 2}).config("decoder-only")
    mixer = cfg.build().decoder.blocks[0].mixer
    assert [tuple(part.weight.shape) for part in (mixer.q, mixer.k, mixer.v, mixer.out)] == [
        (20, D),
        (10, D),
        (10, D),
        (D, 20),
    ]


def test_logits_come_for_every_token(shape=(3, 4, V)):
    model = build("plain")
    logits: Tensor = model(*batch(model, 3, 4, 2))
    assert logits.shape == shape


# ---- what stands between hidden vectors and logits ---------------------------------------------------


def logits_by_hand(model: Transformer, target: Tensor, source: Tensor | None) -> Tensor:
    return model.hidden(target, source) @ model.output.weight.T


def test_a_cap_on_logits_is_a_tanh_of_that_height():
    model = build("capped logits")
    target, source = batch(model, 2, 5, 4)
    plain = logits_by_hand(model, target, source)
    assert_equal(model(target, source), 1.5 * torch.tanh(plain / 1.5))
    assert plain.abs().max() > 1.5 > model(target, source).abs().max()


def test_a_scaled_output_is_divided_by_the_root_of_the_width():
    cfg = MODELS["plain"].config("encoder-decoder")
    plain, scaled = (build_from(dataclasses.replace(cfg, scale_output=scale)) for scale in (False, True))
    given = batch(plain, 2, 5, 4)
    assert_equal(scaled(*given), plain(*given) / D**0.5)


@pytest.mark.parametrize("pad", [7, None])
def test_padding_is_told_by_the_id_that_is_configured(pad):
    cfg = MODELS["sinusoidal"].config("encoder-decoder")
    model = build_from(dataclasses.replace(cfg, pad=pad))
    source, target = torch.tensor([[3, 0, 5, 7, 7]]), torch.tensor([[4, 0, 2]])
    keep = torch.tensor([[True, True, True, pad is None, pad is None]])
    assert_equal(model(target, source), model(Tokens(target), Tokens(source, keep)))
    state = model.start(source)
    assert_equal(model.decode(target, state), model(target, source))
