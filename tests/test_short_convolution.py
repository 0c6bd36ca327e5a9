"""The short convolution: as in LFM2, of both directions in encoders, and a part of runs like any other mixer."""

import pytest
import torch
from tiny_reader import MODEL as READER
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from tiny_run import BLOCK, MODEL, outcome, write_pairs
from tiny_run import config as translation
from transformers import Lfm2Config
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from variants import D, assert_equal, batch, build, ids

from dragoman.cli import main
from dragoman.config import from_dict, merge, override, to_dict
from dragoman.decode.generator import Generator
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.interchange.ctranslate2 import obstacles
from dragoman.model.caches.cache import Cache, Window, parse_cache
from dragoman.model.caches.state import VisibleKeys, stateless
from dragoman.model.encoder import EncoderConfig
from dragoman.model.interface import Tokens
from dragoman.model.masks.visibility import Full
from dragoman.model.positions.effect import RelativeScheme
from dragoman.model.positions.tokens import Positions
from dragoman.model.short_convolution import ConvolutionState, ShortConvolution
from dragoman.model.transformer import TransformerConfig
from dragoman.train import recipe
from dragoman.train.run import resume, start

BRIEF = ("--max-new-tokens", "9")

SHORT = {"kind": "short_convolution", "kernel": 3}
CENTRED = SHORT | {"causal": False}

# ---- the layer -------------------------------------------------------------------------------------------


def mixed(layer, x: torch.Tensor, places: Positions) -> torch.Tensor:
    """What the layer makes of whole texts."""
    seen = VisibleKeys(places, None, layer.visibility)
    context = layer.context(places, seen, RelativeScheme(), places.keep, torch.float64)
    return layer(x, context, layer.new_state(stateless))


def at_once(length: int) -> Positions:
    return Positions(torch.arange(length)[None])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 4, 9])
def test_it_is_the_short_convolution_of_lfm2(kernel, bias):
    cfg = Lfm2Config(
        hidden_size=D, conv_L_cache=kernel, conv_bias=bias, num_hidden_layers=1, layer_types=["conv"], vocab_size=9
    )
    theirs, ours = Lfm2ShortConv(cfg, 0), ShortConvolution(kernel=kernel, bias=bias).build(D)
    for our, their in {"inputs": "in_proj", "out": "out_proj", "convolution": "conv"}.items():
        getattr(ours, our).load_state_dict(getattr(theirs, their).state_dict())
    x = torch.randn(2, 7, D)
    torch.testing.assert_close(mixed(ours, x, at_once(7)), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("causal", "reach"), [(True, (4, 0)), (False, (2, 2))])
def test_a_token_takes_in_its_neighbours_and_nothing_else(causal, reach):
    layer = ShortConvolution(kernel=5, causal=causal).build(D).double()
    x = torch.randn(1, 12, D, dtype=torch.float64, requires_grad=True)
    (by_input,) = torch.autograd.grad(mixed(layer, x, at_once(12))[0, 6].sum(), x)
    seen = by_input.abs().sum(dim=2)[0] > 0
    assert seen.tolist() == [6 - reach[0] <= i <= 6 + reach[1] for i in range(12)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_texts_apart_by_padding_and_by_segments_are_as_alone(causal, kernel):
    layer = ShortConvolution(kernel=kernel, causal=causal, bias=True).build(D).double()
    x = torch.randn(2, 9, D, dtype=torch.float64)
    keep = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]]).bool()  # in the middle, too
    segment = torch.tensor([[4, 4, 4, 4, 4, 4, 4, 4, 4], [1, 1, 1, 2, 2, 2, 2, 1, 1]])
    pos = torch.tensor([[-1, 0, 1, 1, 1, 2, 3, 4, 4], [0, 1, 2, 0, 1, 2, 3, 0, 1]])
    got = mixed(layer, x, Positions(pos, keep, segment))
    for row, columns in ((0, [1, 2, 5, 6, 7]), (1, [0, 1, 2]), (1, [3, 4, 5, 6]), (1, [7, 8])):
        assert_equal(got[row, columns], mixed(layer, x[row : row + 1, columns], at_once(len(columns)))[0])


# ---- decoding --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_it_remembers_as_many_tokens_as_it_needs_however_long_the_text():
    model = build("short convolution", "decoder-only")
    state = model.start(None)
    for token in ids(2, 20).split(1, dim=1):
        model.decode(token, state)
    first, second = state.tower.layers
    assert isinstance(first, ConvolutionState) and first.past.shape[1] == 2 and second.past.shape[1] == 4


@torch.no_grad()
def test_a_window_of_a_cache_takes_nothing_from_it():
    model = build("short convolution", "decoder-only")
    target = ids(2, 9)
    state = model.start(None, Cache(layout=Window(tokens=1, sinks=0)))
    got = torch.cat([model.decode(token, state) for token in target.split(1, dim=1)], dim=1)
    assert_equal(got, model(target))
    assert model.decoder.sees_as_trained(parse_cache("window:1:0"))


@torch.no_grad()
def test_states_of_other_ages_go_on_together():
    model = build("short convolution, attention", "decoder-only")
    old, young, new = ids(1, 8), ids(2, 3), ids(3, 5)
    first, second = model.start(None), model.start(None)
    model.decode(old, first)
    model.decode(young, second)
    first.join(second)
    got = torch.cat([model.decode(token, first) for token in new.split(1, dim=1)], dim=1)
    assert_equal(got[:1], model(torch.cat([old, new[:1]], dim=1))[:, 8:])
    assert_equal(got[1:], model(torch.cat([young, new[1:]], dim=1))[:, 3:])


@torch.no_grad()
def test_a_hybrid_is_decoded_by_pytorch_and_says_so(caplog):
    plain = build("short convolution, attention").float()
    target, source = batch(plain, 2, 4, 5)
    wanted = plain(target, source)
    with caplog.at_level("INFO"):
        ready = prepare_for_inference(build("short convolution, attention").float(), "cpu", "float32")
    build.cache_clear()
    assert "steps by PyTorch, for model.decoder.pattern.0.mixer: short_convolution" in caplog.text
    torch.testing.assert_close(ready(target, source), wanted, rtol=1e-4, atol=1e-4)


# ---- configuration ---------------------------------------------------------------------------------------


def hybrid(model: dict, **changes) -> dict:
    """Each tower's first block convolves, the second attends."""
    found = dict(model)
    for name in ("encoder", "decoder"):
        if tower := model.get(name):
            (block,) = tower["pattern"]
            short = SHORT | {"causal": name == "decoder"} | changes
            found[name] = tower | {"depth": 2, "pattern": [block | {"mixer": short}, block]}
    return found


WRONG = {
    "decoder.pattern.0.mixer.kernel=0": "decoder.pattern.0.mixer.kernel: must be greater than 0, got 0",
    "decoder.pattern.0.mixer.kernel=x": "decoder.pattern.0.mixer.kernel: expected a whole number, got 'x'",
    "decoder.pattern.0.mixer.position=rotary": "decoder.pattern.0.mixer: no 'position' here.",
    "decoder.pattern.0.mixer.heads=2": "decoder.pattern.0.mixer: no 'heads' here.",
    "decoder.pattern.0.mixer.causal=false": "model.decoder.pattern.0.mixer.causal: a decoder must not see what it is",
    "encoder.pattern.0.mixer.kernel=4": "model.encoder.pattern.0.mixer.kernel: 4 tokens have no middle one",
    "decoder.pattern.0.mixer=short_convolutions": "no 'short_convolutions' here. Did you mean 'short_convolution'?",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(hybrid(MODEL), change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)


def test_a_mixer_without_a_kind_is_attention_as_it_was():
    cfg = from_dict(TransformerConfig, hybrid(MODEL))
    assert [block.mixer.kind for block in cfg.decoder.pattern] == ["short_convolution", "attention"]
    assert ShortConvolution(causal=False).visibility == Full()


# ---- runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def translator(folder):
    cfg = translation(write_pairs(folder / "pairs.tsv"))
    cfg = recipe.load(to_dict(cfg) | {"model": hybrid(MODEL)})
    list(start(cfg, folder / "translator").events())
    return folder / "translator", cfg


def test_a_translator_learns_stops_and_goes_on_to_the_bit(translator, folder):
    run, cfg = translator
    stopping = start(cfg, folder / "stopped").events()
    for event in stopping:
        if type(event).__name__ == "Saved":
            stopping.close()
            break
    list(resume(folder / "stopped").events())
    assert outcome(folder / "stopped") == outcome(run)


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3), Sample(seed=1)], ids=["greedy", "beam", "sample"])
def test_a_translator_translates_by_every_search(translator, cfg):
    found = Translator.load(translator[0]).translate(["the red house", "one", "two big cars see a dog"], search=cfg)
    alone = Translator.load(translator[0]).translate(["one"], search=cfg)
    assert len(found) == 3 and found[1].text == alone[0].text


@pytest.mark.parametrize(
    "command", ["verify RUN --sentences 1 --beam 2 --max-new-tokens 9", "average RUN --last 2", "score RUN FILE"]
)
def test_commands_take_it(translator, folder, command, capsys):
    (folder / "scored.tsv").write_text("one house\tENO ESUOH\n")
    words = {"RUN": str(translator[0]), "OUT": str(folder / "averaged"), "FILE": str(folder / "scored.tsv")}
    assert main([words.get(word, word) for word in command.split()]) == 0, capsys.readouterr()


@pytest.mark.parametrize("to", ["ctranslate2"])
def test_an_export_refuses_it_in_one_line(translator, folder, to, capsys):
    assert main(["export", str(translator[0]), "--to", to, "-o", str(folder / to)]) == 2
    told = capsys.readouterr().err
    assert "pattern.0.mixer" in told and "short_convolution" in told and len(told.strip().splitlines()) == 1
    assert not (folder / to).exists()


def test_ctranslate2_is_told_of_it_in_a_later_block():
    cfg = from_dict(TransformerConfig, hybrid(MODEL))
    assert any("short_convolution" in line for line in obstacles(cfg))


def test_a_language_model_learns_from_packed_documents_and_continues_them(folder, capsys):
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    block = {key: value for key, value in BLOCK.items() if key != "cross"}
    cfg = recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 24},
            "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": hybrid({"dim": 8, "encoder": None, "decoder": {"depth": 1, "pattern": [block]}}),
            "train": {
                "budget": {"kind": "steps", "steps": 4},
                "batch_tokens": 200,
                "schedule": {"kind": "constant", "peak": 1e-2},
            },
        }
    )
    list(start(cfg, folder / "writer").events())
    generator = Generator.load(folder / "writer")
    prompts = ["the red", "a", ""]
    together = generator.generate(prompts, search=Greedy(), max_new_tokens=8)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generator.generate([prompt], search=Greedy(), max_new_tokens=8)
        assert alone.continuations[0].tokens == found.continuations[0].tokens
    assert main(["verify", str(folder / "writer"), "--sentences", "1", "--beam", "2", *BRIEF]) == 0, capsys.readouterr()


def test_a_centred_one_reads_padded_texts_in_encoders():
    cfg = merge(READER, {"tower": {"pattern": [READER["tower"]["pattern"][0] | {"mixer": CENTRED}]}})
    cfg = merge(cfg, {"head": {"kind": "classification", "classes": 3, "pooling": "mean"}, "inputs": {"vocab": 17}})
    model = from_dict(EncoderConfig, cfg).build().double().eval()
    text = ids(2, 6)
    longer = torch.nn.functional.pad(text, (2, 3))
    assert_equal(model(Tokens(longer, longer != 0)), model(text))
    assert_equal(prepare_for_inference(model, "cpu", "float32")(text[:1]), model(text)[:1])
