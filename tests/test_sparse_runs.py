"""Sparse mixers in runs: each learns, resumes, decodes by every search, is verified, and says what it cannot do."""

import json

import pytest
import torch
from tiny_reader import MODEL as READER
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from tiny_run import BLOCK, MODEL, outcome, write_pairs
from tiny_run import config as translation
from variants import assert_equal, ids

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.config import from_dict, merge, override, to_dict
from dragoman.decode.generator import Generator
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.model.encoder import EncoderConfig
from dragoman.model.interface import Tokens
from dragoman.model.transformer import TransformerConfig
from dragoman.train import recipe
from dragoman.train.run import resume, start

SHORT = ("--max-new-tokens", "9")

MIXERS = {
    "longformer": {"kind": "longformer", "window": 4, "global_every": 4, "heads": 2},
    "longformer, own projections": {"kind": "longformer", "window": 3, "global_projections": True, "bias": True},
    "big bird": {"kind": "big_bird", "block": 2, "window": 4, "random_blocks": 1, "heads": 2},
    "strided": {"kind": "strided_attention", "stride": 4, "heads": 2, "dropout": 0.1},
    "fixed": {"kind": "fixed_attention", "stride": 4, "summary": 2, "heads": 2},
    "reformer": {"kind": "reformer", "buckets": 4, "chunk": 3, "heads": 2, "dropout": 0.1},
}
every_mixer = pytest.mark.parametrize("mixer", MIXERS)


def sparse(model: dict, mixer: dict) -> dict:
    """``model`` with this mixer in the place of self-attention, on both sides."""
    found = dict(model)
    for side in ("encoder", "decoder"):
        if tower := model.get(side):
            (block,) = tower["pattern"]
            found[side] = tower | {"pattern": [block | {"mixer": mixer | {"causal": side == "decoder"}}]}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def translators(folder):
    """A run of each mixer."""
    base = to_dict(translation(write_pairs(folder / "pairs.tsv")))
    configs = {name: recipe.load(base | {"model": sparse(MODEL, mixer)}) for name, mixer in MIXERS.items()}
    for name, cfg in configs.items():
        list(start(cfg, folder / name).events())
    return configs


@every_mixer
def test_a_translator_learns_stops_and_goes_on_to_the_bit(translators, folder, mixer):
    stopping = start(translators[mixer], folder / f"stopped {mixer}").events()
    for event in stopping:
        if type(event).__name__ == "Saved":
            stopping.close()
            break
    list(resume(folder / f"stopped {mixer}").events())
    assert outcome(folder / f"stopped {mixer}") == outcome(folder / mixer)


@every_mixer
@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3), Sample(seed=1)], ids=["greedy", "beam", "sample"])
def test_a_translator_translates_alone_and_in_a_batch(translators, folder, mixer, cfg):
    translator, texts = Translator.load(folder / mixer), ["the red house", "one", "two big cars see a dog"]
    found = translator.translate(texts, search=cfg)
    alone = translator.translate([texts[1]], search=cfg)
    assert len(found) == 3 and found[1].text == alone[0].text


@every_mixer
def test_commands_take_it(translators, folder, mixer, capsys):
    (folder / "scored.tsv").write_text("one house\tENO ESUOH\n")
    run = str(folder / mixer)
    commands = ["score RUN FILE", "average RUN --last 2"]
    if mixer in (
        "longformer",
        "reformer",
    ):  # half a minute each; the language models below are verified for every mixer
        commands.append("verify RUN --sentences 1 --beam 2 --max-new-tokens 9")
    for command in commands:
        words = {"RUN": run, "FILE": str(folder / "scored.tsv")}
        assert main([words.get(word, word) for word in command.split()]) == 0, (command, capsys.readouterr())


@every_mixer
@pytest.mark.parametrize("to", ["ctranslate2", "onnx"])
def test_an_export_refuses_it_in_one_line(translators, folder, mixer, to, capsys):
    assert main(["export", str(folder / mixer), "--to", to, "-o", str(folder / to)]) == 2
    told = capsys.readouterr().err
    assert "pattern.0.mixer" in told and MIXERS[mixer]["kind"] in told and len(told.strip().splitlines()) == 1
    assert not (folder / to).exists()


@every_mixer
def test_it_takes_adapters(translators, folder, mixer, capsys):
    base = to_dict(translators[mixer])
    del base["model"], base["tokenizer"]
    (folder / "adapted.yaml").write_text(json.dumps(base | {"start_from": {"run": str(folder / mixer), "lora": {}}}))
    assert main(["train", str(folder / "adapted.yaml"), "--run", str(folder / f"adapted {mixer}")]) == 0, capsys


@every_mixer
def test_a_language_model_learns_from_packed_documents_and_continues_them(folder, mixer, capsys):
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    block = {key: value for key, value in BLOCK.items() if key != "cross"}
    model = {"dim": 8, "encoder": None, "decoder": {"depth": 1, "pattern": [block]}}
    cfg = recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 48},
            "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": sparse(model, MIXERS[mixer]),
            "train": {
                "budget": {"kind": "steps", "steps": 4},
                "batch_tokens": 200,
                "schedule": {"kind": "constant", "peak": 1e-2},
            },
        }
    )
    run = folder / f"writer {mixer}"
    list(start(cfg, run).events())
    generator = Generator.load(run)
    prompts = ["the red", "a", ""]
    together = generator.generate(prompts, search=Greedy(), max_new_tokens=8)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generator.generate([prompt], search=Greedy(), max_new_tokens=8)
        assert alone.continuations[0].tokens == found.continuations[0].tokens
    assert main(["verify", str(run), "--sentences", "1", "--beam", "2", *SHORT]) == 0, capsys.readouterr()


@every_mixer
def test_it_reads_padded_texts_both_ways_in_encoders(mixer):
    own = MIXERS[mixer] | {"causal": False}
    cfg = merge(READER, {"tower": {"pattern": [READER["tower"]["pattern"][0] | {"mixer": own}]}})
    cfg = merge(cfg, {"head": {"kind": "classification", "classes": 3, "pooling": "mean"}, "inputs": {"vocab": 17}})
    model = from_dict(EncoderConfig, cfg).build().double().eval()
    text = ids(2, 15)
    longer = torch.nn.functional.pad(text, (2, 3))
    assert_equal(model(Tokens(longer, longer != 0)), model(text))
    assert_equal(prepare_for_inference(model, "cpu", "float32")(text[:1]), model(text)[:1])


# ---- configuration ---------------------------------------------------------------------------------------

LAST = "decoder.pattern.0.mixer"
WRONG = {
    "longformer": {
        "window=0": "window: must be greater than 0, got 0",
        "window=3": "window: 3 tokens are fewer than the step of global tokens",
        "global_every=5": "choose a window of 5 or more, or global_every of 4 or less",
        "causal=false": "causal: a decoder must not see what it is to predict",
        "heads=3": "heads: 3 heads do not divide the width 8; set head_dim",
        "kv_heads=3": "kv_heads: 3 key/value heads do not divide 2 query heads",
        "visibility=causal": "no 'visibility' here",
        "position=rotary_grid": "position: rotary_grid turns by rows and columns",
    },
    "big bird": {
        "window=3": "window: 3 tokens are no whole number of blocks of 2: choose 2 or 4",
        "block=8": "window: 4 tokens are no whole number of blocks of 8: choose 8",
        "random_blocks=-1": "random_blocks: must be greater than or equal to 0",
        "causal=false": "causal: a decoder must not see what it is to predict",
    },
    "strided": {
        "stride=0": "stride: must be greater than 0",
        "causal=false": "causal: a decoder must not see what it is to predict",
    },
    "fixed": {
        "summary=3": "summary: 3 tokens do not divide a block of 4",
        "stride=7": "summary: 2 tokens do not divide a block of 7",
        "causal=false": "causal: a decoder must not see what it is to predict",
    },
    "reformer": {
        "buckets=5": "buckets: 5 is odd, and each direction has an opposite: choose 6 or 4",
        "buckets=1": "buckets: 1 is odd, and each direction has an opposite: choose 2",
        "position=alibi": "position: alibi acts on pairs of tokens",
        "position={kind: t5_bias, bidirectional: false}": "position: t5_bias acts on pairs of tokens",
        "position={kind: rotary, scaling: {kind: dynamic_ntk_scaling, trained: 4}}": "position.scaling: dynamic_ntk",
        "kv_heads=1": "no 'kv_heads' here",
        "causal=false": "causal: a decoder must not see what it is to predict",
    },
}


@pytest.mark.parametrize(
    ("mixer", "change"), [(mixer, change) for mixer, changes in WRONG.items() for change in changes]
)
def test_a_mistake_is_named_with_its_path(mixer, change):
    with pytest.raises(ConfigError) as told:
        wrong = override(sparse(MODEL, MIXERS[mixer]), f"{LAST}.{change}")
        from_dict(TransformerConfig, wrong).sized(vocab=9).build()
    assert WRONG[mixer][change] in str(told.value) and LAST in str(told.value) and "\n" not in str(told.value)


def test_attention_is_replaced_by_one_line(folder, capsys):
    (folder / "lines.txt").write_text("the red house sees a dog\n" * 60)
    run = {
        "preset": "lm-tiny",
        "data": {"kind": "texts", "files": [str(folder / "lines.txt")]},
        "tokenizer": "bytes",
        "train": {"budget": {"kind": "steps", "steps": 2}},
    }
    (folder / "lm.yaml").write_text(json.dumps(run))
    change = "model.decoder.pattern.*.mixer={kind: longformer, window: 64, global_every: 32}"
    assert main(["train", str(folder / "lm.yaml"), change, "--run", str(folder / "lm")]) == 0, capsys.readouterr()
    (block,) = RunDirectory.open(folder / "lm").config["model"]["decoder"]["pattern"]
    assert [block["mixer"][name] for name in ("kind", "window", "global_every")] == ["longformer", 64, 32]
