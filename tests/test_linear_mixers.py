"""Mixers with a state of fixed size as parts of runs: they learn, stop and go on, translate, generate, verify."""

import json

import pytest
import torch
from tiny_run import MODEL, outcome, write_pairs
from tiny_run import config as translation
from torch.utils.flop_counter import FlopCounterMode
from variants import SUMMARIES, VARIANTS, assert_equal, build, ids

from dragoman.cli import main
from dragoman.config import from_dict, to_dict
from dragoman.decode.generator import Generator
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.translator import Translator
from dragoman.model.interface import Tokens
from dragoman.model.transformer import TransformerConfig
from dragoman.train import recipe
from dragoman.train.events import Finished
from dragoman.train.run import resume, start

SHORT = ("--max-new-tokens", "9")

MIXERS = {
    "linear attention": {"kind": "linear_attention", "heads": 2, "position": "rotary"},
    "performer": {"kind": "linear_attention", "heads": 2, "features": {"kind": "favor_features", "redraw": True}},
    "gated delta net": {"kind": "gated_delta_net", "heads": 2},
    "mlstm": {"kind": "mlstm", "heads": 2},
    "min gru": {"kind": "min_gru"},
}
LINFORMER = {"kind": "linformer", "heads": 2, "length": 40, "rank": 4}


def tower(name: str, *mixers: dict, cross: bool = True) -> dict:
    """A tower with these mixers in turn, and attention last."""
    (block,) = MODEL[name]["pattern"]
    block = {key: value for key, value in block.items() if cross or key != "cross"}
    full = {"causal": False} if name == "encoder" else {}
    pattern = [block | {"mixer": mixer | (full if mixer["kind"] == "linear_attention" else {})} for mixer in mixers]
    return MODEL[name] | {"depth": len(mixers) + 1, "pattern": [*pattern, block]}


TRANSLATOR = MODEL | {
    "encoder": tower("encoder", *MIXERS.values(), LINFORMER),
    "decoder": tower("decoder", *MIXERS.values()),
}
"""All mixers, one after another: runs of each would take minutes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def translator(folder):
    cfg = translation(write_pairs(folder / "pairs.tsv"))
    cfg = recipe.load(to_dict(cfg) | {"model": TRANSLATOR})
    list(start(cfg, folder / "translator").events())
    return folder / "translator", cfg


def test_a_translator_learns_stops_and_goes_on_to_the_bit(translator, tmp_path):
    run, cfg = translator
    stopping = start(cfg, tmp_path / "stopped").events()
    for event in stopping:
        if type(event).__name__ == "Saved":
            stopping.close()
            break
    list(resume(tmp_path / "stopped").events())
    assert outcome(tmp_path / "stopped") == outcome(run)


@pytest.mark.parametrize("cfg", [Greedy(), Beam(size=3), Sample(seed=1)], ids=["greedy", "beam", "sample"])
def test_a_translator_translates_by_every_search(translator, cfg):
    found = Translator.load(translator[0]).translate(["the red house", "one", "two big cars see a dog"], search=cfg)
    alone = Translator.load(translator[0]).translate(["one"], search=cfg)
    assert len(found) == 3 and found[1].text == alone[0].text


@pytest.mark.parametrize(
    "command",
    ["verify RUN --sentences 1 --beam 2 --max-new-tokens 9 --format json", "average RUN --last 2", "score RUN FILE"],
)
def test_commands_take_it(translator, folder, command, capsys):
    (folder / "scored.tsv").write_text("one house\tENO ESUOH\n")
    words = {"RUN": str(translator[0]), "FILE": str(folder / "scored.tsv")}
    assert main([words.get(word, word) for word in command.split()]) == 0, capsys.readouterr()
    if command.startswith("verify"):
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert rows and not [row for row in rows if row.get("passed") is False]


@pytest.mark.parametrize("to", ["ctranslate2", "onnx"])
def test_an_export_refuses_it_in_one_line(translator, folder, to, capsys):
    assert main(["export", str(translator[0]), "--to", to, "-o", str(folder / to)]) == 2
    told = capsys.readouterr().err
    assert "pattern.0.mixer" in told and "linear_attention" in told and len(told.strip().splitlines()) == 1
    assert not (folder / to).exists()


@pytest.mark.parametrize("mixer", [*MIXERS, "linformer"])
def test_the_operations_of_a_step_are_counted_from_shapes(mixer):
    one = tower("encoder", MIXERS.get(mixer, LINFORMER | {"length": 64}))
    counts = []
    for length in (32, 64):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = from_dict(TransformerConfig, MODEL | {"vocab": 20, "encoder": one}).build()
            model.encode(Tokens(torch.ones(2, length).long())).x.sum().backward()
        counts.append(counter.get_total_flops())
    assert 0 < counts[0] < counts[1]


# ---- language models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer(folder):
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    cfg = recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 24},
            "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": MODEL | {"encoder": None, "decoder": tower("decoder", *MIXERS.values(), cross=False)},
            "train": {
                "budget": {"kind": "steps", "steps": 4},
                "batch_tokens": 200,
                "schedule": {"kind": "constant", "peak": 1e-2},
            },
        }
    )
    *_, end = start(cfg, folder / "writer").events()
    assert isinstance(end, Finished)
    return folder / "writer"


def test_a_language_model_learns_from_packed_documents_and_continues_them(writer, capsys):
    generator = Generator.load(writer)
    prompts = ["the red", "a", ""]
    together = generator.generate(prompts, search=Greedy(), max_new_tokens=8)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generator.generate([prompt], search=Greedy(), max_new_tokens=8)
        assert alone.continuations[0].tokens == found.continuations[0].tokens
    assert main(["verify", str(writer), "--sentences", "1", "--beam", "2", *SHORT]) == 0, capsys.readouterr()


def test_adapters_learn_in_it(writer, folder, tmp_path):
    cfg = {
        "task": {"kind": "language_modelling", "context": 24},
        "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
        "start_from": {"run": str(writer), "lora": {"rank": 2, "targets": ["*.mixer.*"]}},
        "train": {"budget": {"kind": "steps", "steps": 2}, "batch_tokens": 200},
    }
    *_, end = start(recipe.load(cfg), tmp_path / "adapted").events()
    assert isinstance(end, Finished) and end.complete
    (found,) = Generator.load(tmp_path / "adapted").generate(["the"], search=Greedy(), max_new_tokens=4)
    assert found.continuations[0].tokens


# ---- states ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", SUMMARIES)
@torch.no_grad()
def test_tokens_taken_back_were_never_read(variant):
    model, text = build(variant, "decoder-only"), ids(2, 11)
    state = model.start(None)
    state.allow_rewind(4)
    model.decode(text[:, :5], state)
    model.decode(ids(2, 3), state)
    state.rewind(3)
    got = model.decode(text[:, 5:9], state)
    state.rewind(2)
    got = torch.cat([got[:, :2], model.decode(text[:, 7:], state)], dim=1)
    assert_equal(got, model(text)[:, 5:])


@pytest.mark.parametrize("variant", SUMMARIES)
@torch.no_grad()
def test_rows_are_chosen_and_joined_with_their_past(variant):
    model = build(variant, "decoder-only")
    old, young, new = ids(1, 8), ids(2, 3), ids(4, 5)
    first, second = model.start(None), model.start(None)
    model.decode(old, first)
    model.decode(young, second)
    first.join(second)
    first.select(torch.tensor([2, 0, 1]))
    got = torch.cat([model.decode(token, first) for token in new[:3].split(1, dim=1)], dim=1)
    for row, past in enumerate((young[1:], old, young[:1])):
        alone = model(torch.cat([past, new[row : row + 1]], dim=1))
        assert_equal(got[row : row + 1], alone[:, past.shape[1] :])


@pytest.mark.parametrize("variant", [name for name in SUMMARIES if len(VARIANTS[name].mixers) == 2])
@torch.no_grad()
def test_a_state_is_as_large_after_many_tokens_as_after_a_few(variant):
    model, sizes = build(variant, "decoder-only"), []
    state = model.start(None)
    for token in ids(2, 40).split(1, dim=1):
        model.decode(token, state)
        sizes.append(sum(layer.nbytes for layer in state.tower.layers))
    assert len(set(sizes[5:])) == 1
