"""Both directions of a causal mixer: one layer forwards and one on the reversed text, in encoders alone."""

import pytest
import torch
from recurrent_runs import APART, CHANGES, MIXERS, TEXTS, mixed, positions, texts_are_as_alone
from tiny_reader import MODEL as READER
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from tiny_run import MODEL, outcome, write_pairs
from tiny_run import config as translation
from variants import D, assert_equal, ids

from dragoman.cli import main
from dragoman.config import choices, from_dict, merge, override, to_dict
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.model.bidirectional import Bidirectional, RecurrentMixer, reversed_columns
from dragoman.model.encoder import EncoderConfig
from dragoman.model.interface import Tokens
from dragoman.model.positions.tokens import Positions
from dragoman.model.transformer import TransformerConfig
from dragoman.train import recipe
from dragoman.train.run import resume, start

SHORT = ("--max-new-tokens", "9")

SIZES = {"gated_delta_net": {"heads": 2}, "mlstm": {"heads": 2}}
INNER = {
    kind: from_dict(RecurrentMixer, MIXERS.get(kind, {"kind": kind} | SIZES.get(kind, {})))
    for kind in (choice.kind for choice in choices(RecurrentMixer))
}
every_inner = pytest.mark.parametrize("kind", INNER)

# ---- the layer -------------------------------------------------------------------------------------------


@every_inner
def test_it_is_forward_plus_reversed(kind):
    layer, x = Bidirectional(mixer=INNER[kind]).build(D).double(), torch.randn(2, 11, D, dtype=torch.float64)
    ahead = mixed(layer.forwards, x, positions(11))
    behind = mixed(layer.backwards, x.flip(1), positions(11)).flip(1)
    assert_equal(mixed(layer, x, positions(11)), ahead + behind)


@every_inner
def test_every_token_sees_every_token_of_its_text(kind):
    layer = Bidirectional(mixer=INNER[kind]).build(D).double()
    x = torch.randn(1, 8, D, dtype=torch.float64, requires_grad=True)
    for token in (0, 4, 7):
        (by_input,) = torch.autograd.grad(mixed(layer, x, positions(8))[0, token].sum(), x)
        assert (by_input.abs().sum(dim=2) > 0).all()


@every_inner
def test_texts_apart_by_padding_and_by_segments_are_as_alone(kind):
    texts_are_as_alone(Bidirectional(mixer=INNER[kind]).build(D).double())


def test_tokens_change_places_with_those_of_their_text_and_padding_stays():
    columns = reversed_columns(APART)
    assert columns is not None and torch.equal(columns.gather(1, columns), torch.arange(9).expand(2, -1))
    for row, text in TEXTS:
        assert columns[row, text].tolist() == text[::-1]
    assert columns[0, [0, 3, 4, 8]].tolist() == [0, 3, 4, 8]
    assert reversed_columns(positions(4)) is None
    nothing = Positions(torch.tensor([[-1, -1]]), torch.zeros(1, 2, dtype=torch.bool))
    assert reversed_columns(nothing).tolist() == [[0, 1]]


# ---- configuration ---------------------------------------------------------------------------------------

WRONG = {
    "decoder.pattern.0.mixer={kind: bidirectional, mixer: mamba}": (
        "model.decoder.pattern.0.mixer.kind: bidirectional reads later tokens too, and a decoder must not see what it "
        "is to predict: use mamba"
    ),
    "encoder.pattern.0.mixer=bidirectional": "encoder.pattern.0.mixer.mixer: must be given",
    "encoder.pattern.0.mixer.mixer=attention": "encoder.pattern.0.mixer.mixer: no 'attention' here. Known: mamba",
    "encoder.pattern.0.mixer.mixer=bidirectional": "encoder.pattern.0.mixer.mixer: no 'bidirectional' here.",
    "encoder.pattern.0.mixer.mixer.state=0": "encoder.pattern.0.mixer.mixer.state: must be greater than 0",
    "encoder.pattern.0.mixer.mixer={kind: mamba2, head_dim: 7}": (
        "model.encoder.pattern.0.mixer.mixer.head_dim: heads of 7 channels do not divide the"
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_mistake_is_named_with_its_path(change):
    with pytest.raises(ConfigError) as told:
        from_dict(TransformerConfig, override(CHANGES["mamba"](MODEL), change)).sized(vocab=9).build()
    assert WRONG[change] in str(told.value) and "\n" not in str(told.value)


def test_an_encoder_may_also_read_one_way():
    plain = CHANGES["mamba"](MODEL)
    cfg = from_dict(TransformerConfig, override(plain, "encoder.pattern.0.mixer=mamba"))
    assert cfg.sized(vocab=9).build()(ids(2, 4, vocab=9), ids(2, 5, vocab=9)).isfinite().all()


# ---- runs ------------------------------------------------------------------------------------------------


def test_towers_of_several_inner_mixers_share_no_context():
    """Layers of other inner mixers, of other kernels and of one class must each get their own context."""
    several = [{"kind": "mamba", "kernel": 2}, {"kind": "mamba", "kernel": 5}, MIXERS["mamba2"]]
    (block,) = READER["tower"]["pattern"]
    pattern = [block | {"mixer": {"kind": "bidirectional", "mixer": inner}} for inner in several]
    model = reader({"depth": 3, "pattern": pattern})
    text = ids(2, 6)
    longer = torch.nn.functional.pad(text, (2, 3))
    assert_equal(model(Tokens(longer, longer != 0)), model(text))
    assert_equal(prepare_for_inference(model, "cpu", "float32")(text[:1]), model(text)[:1])


def reader(tower):
    cfg = merge(READER, {"tower": tower})
    cfg = merge(cfg, {"head": {"kind": "classification", "classes": 3, "pooling": "mean"}, "inputs": {"vocab": 17}})
    return from_dict(EncoderConfig, cfg).build().double().eval()


@pytest.mark.parametrize("kind", MIXERS)
def test_a_translator_learns_resumes_translates_and_is_verified(kind, tmp_path, capsys):
    few = {"budget": {"kind": "steps", "steps": 4}, "save_every": 2, "validate_every": 4, "samples": 1}
    cfg = translation(write_pairs(tmp_path / "pairs.tsv", 60), **few)
    few_tokens = {"kind": "words", "vocab": 400}  # a text of bytes takes ten times as many steps
    cfg = recipe.load(to_dict(cfg) | {"model": CHANGES[kind](MODEL), "tokenizer": few_tokens})
    run = tmp_path / "translator"
    list(start(cfg, run).events())
    stopping = start(cfg, tmp_path / "stopped").events()
    for event in stopping:
        if type(event).__name__ == "Saved":
            stopping.close()
            break
    list(resume(tmp_path / "stopped").events())
    assert outcome(tmp_path / "stopped") == outcome(run)
    for search in (Greedy(), Beam(size=3)):
        found = Translator.load(run).translate(["a dog", "one"], search=search)
        (alone,) = Translator.load(run).translate(["one"], search=search)
        assert found[1].text == alone.text
    assert main(["verify", str(run), "--sentences", "1", "--beam", "2", *SHORT]) == 0, capsys.readouterr()
