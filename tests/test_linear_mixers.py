"""Mixers with a state of fixed size as parts of runs: they learn, stop and go on, translate, generate, verify."""

import json

import pytest
import torch
from tiny_run import MODEL, outcome, write_pairs
from tiny_run import config as translation
from torch.utils.flop_counter import FlopCounterMode

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

MIXERS = {
    "linear attention": {"kind": "linear_attention", "heads": 2, "position": "rotary"},
    "performer": {"kind": "linear_attention", "heads": 2, "features": {"kind": "favor_features", "redraw": True}},
    "gated delta net": {"kind": "gated_delta_net", "heads": 2},
    "mlstm": {"kind": "mlstm", "heads": 2},
}
LINFORMER = {"kind": "linformer", "heads": 2, "length": 40, "rank": 4}
every_mixer = pytest.mark.parametrize("mixer", MIXERS)


def towers(mixer: dict, decoder_only: bool = False) -> dict:
    """The mixer in the first block of each tower, attention in the second; Linformer in the encoder's alone."""
    found = dict(MODEL) | {"encoder": None} if decoder_only else dict(MODEL)
    for name in ("encoder", "decoder"):
        if tower := found.get(name):
            (block,) = tower["pattern"]
            block = {key: value for key, value in block.items() if not (decoder_only and key == "cross")}
            one = mixer | ({"causal": name == "decoder"} if mixer["kind"] == "linear_attention" else {})
            first = block if mixer["kind"] == "linformer" and name == "decoder" else block | {"mixer": one}
            found[name] = tower | {"depth": 2, "pattern": [first, block]}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=[*MIXERS, "linformer"])
def translator(request, folder):
    cfg = translation(write_pairs(folder / "pairs.tsv"))
    mixer = MIXERS.get(request.param, LINFORMER)
    cfg = recipe.load(to_dict(cfg) | {"model": towers(mixer)})
    run = folder / request.param.replace(" ", "-")
    list(start(cfg, run).events())
    return run, cfg


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
    "command", ["verify RUN --sentences 3 --beam 2 --format json", "average RUN --last 2", "score RUN FILE"]
)
def test_commands_take_it(translator, folder, command, capsys):
    (folder / "scored.tsv").write_text("one house\tENO ESUOH\n")
    words = {"RUN": str(translator[0]), "FILE": str(folder / "scored.tsv")}
    assert main([words.get(word, word) for word in command.split()]) == 0, capsys.readouterr()
    if command.startswith("verify"):
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert rows and not [row for row in rows if row.get("passed") is False]


@pytest.mark.parametrize("to", ["ctranslate2", "onnx", "huggingface"])
def test_an_export_refuses_it_in_one_line(translator, folder, to, capsys):
    assert main(["export", str(translator[0]), "--to", to, "-o", str(folder / to)]) == 2
    told = capsys.readouterr().err
    assert "pattern.0.mixer" in told and len(told.strip().splitlines()) == 1
    assert not (folder / to).exists()


@pytest.mark.parametrize("mixer", [*MIXERS, "linformer"])
def test_the_operations_of_a_step_are_counted_from_shapes(mixer):
    model = from_dict(TransformerConfig, towers(MIXERS.get(mixer, LINFORMER)) | {"vocab": 20})
    counts = []
    for length in (32, 64):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            ids = torch.ones(2, length if mixer != "linformer" else 32).long()
            model.build()(Tokens(ids), Tokens(ids)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] > 0 and (counts[0] < counts[1] or mixer == "linformer")


# ---- language models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=MIXERS)
def writer(request, folder):
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    cfg = recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 24},
            "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": towers(MIXERS[request.param], decoder_only=True),
            "train": {
                "budget": {"kind": "steps", "steps": 4},
                "batch_tokens": 200,
                "schedule": {"kind": "constant", "peak": 1e-2},
            },
        }
    )
    run = folder / f"writer-{request.param.replace(' ', '-')}"
    *_, end = start(cfg, run).events()
    assert isinstance(end, Finished)
    return run


def test_a_language_model_learns_from_packed_documents_and_continues_them(writer, capsys):
    generator = Generator.load(writer)
    prompts = ["the red", "a", ""]
    together = generator.generate(prompts, search=Greedy(), max_new_tokens=8)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generator.generate([prompt], search=Greedy(), max_new_tokens=8)
        assert alone.continuations[0].tokens == found.continuations[0].tokens
    assert main(["verify", str(writer), "--sentences", "3", "--beam", "2"]) == 0, capsys.readouterr()


def test_adapters_learn_in_it(writer, folder, tmp_path):
    cfg = {
        "task": {"kind": "language_modelling", "context": 24},
        "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
        "start_from": {"run": str(writer), "lora": {"rank": 2, "targets": ["*.mixer.*"]}},
        "train": {"budget": {"kind": "steps", "steps": 2}, "batch_tokens": 200},
    }
    *_, end = start(recipe.load(cfg), tmp_path / "adapted").events()
    assert isinstance(end, Finished) and end.complete
    assert main(["verify", str(tmp_path / "adapted"), "--sentences", "2", "--beam", "2"]) == 0
