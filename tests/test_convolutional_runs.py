"""Runs of convolutional models: trained, stopped, resumed to the bit, and asked by every command."""

import copy

import numpy as np
import pytest
import torch
import yaml
from tiny_reader import MODEL as READER
from tiny_reader import quick_disk  # noqa: F401 (a fixture)
from tiny_run import config as translation
from tiny_run import outcome, write_pairs
from variants import assert_equal, ids

from dragoman.cli import main
from dragoman.config import from_dict, merge, to_dict
from dragoman.decode.generator import Generator
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.speculative import Speculative
from dragoman.decode.translator import Translator
from dragoman.model.convolution.blocks import GatedConvolution
from dragoman.model.convolution.stack import ConvolutionStack
from dragoman.model.encoder import EncoderConfig
from dragoman.model.heads import ClassificationHead, Mean
from dragoman.model.inputs import FrameInput
from dragoman.model.interface import Tokens
from dragoman.train import recipe
from dragoman.train.run import resume, start

SHORT = ("--max-new-tokens", "9")

GATED = {"kind": "gated_convolution", "dropout": 0.1}
WIDE = [GATED | {"channels": 8}, GATED | {"channels": 12}]
STACK = {"depth": 2, "pattern": WIDE, "weights": "weight_norm"}
DILATED = {"depth": 2, "pattern": [{"kind": "dilated_residual", "dilation": d, "dropout": 0.1} for d in (1, 2)]}
DILATED |= {"ends": "no_projections", "final_norm": "layer_norm"}
TANH = {"depth": 2, "pattern": [{"kind": "tanh_convolution", "dropout": 0.1}]}
MODELS = {
    "convs2s": {
        "encoder": {"kind": "multi_step_source", "stack": STACK},
        "decoder": STACK,
        "position": {"kind": "learned", "length": 60},
    },
    "bytenet": {"encoder": {"kind": "unfolded_source", "stack": DILATED}, "decoder": DILATED | {"ends": "relu_output"}},
    "cnn-9": {
        "encoder": {"kind": "two_stack_source", "keys": TANH, "values": TANH, "attend_from": [0]},
        "decoder": STACK,
        "tying": "all",
    },
}
WRITER = {"kind": "convolutional", "dim": 8, "decoder": STACK | {"depth": 3}}


def model(name):
    return {"kind": "convolutional", "dim": 8, "dropout": 0.1} | MODELS[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    write_pairs(path / "pairs.tsv")
    (path / "scored.tsv").write_text("one house\tENO ESUOH\nthe red dog\tEHT\n")
    (path / "same.tsv").write_text("".join(f"house n{i}\thouse n{i}\n" for i in range(60)))
    (path / "given.txt").write_text("red dog\none\n")
    return path


def configured(folder, name, **train):
    plain = to_dict(translation(folder / "pairs.tsv", **train))
    return recipe.load(plain | {"model": model(name), "tokenizer": {"kind": "bpe", "vocab": 290}})


@pytest.fixture(scope="module", params=MODELS)
def translator(request, folder):
    list(start(cfg := configured(folder, request.param), folder / request.param).events())
    return folder / request.param, cfg


def test_a_translator_learns_stops_and_goes_on_to_the_bit(translator, folder):
    run, cfg = translator
    stopped = folder / f"{run.name}-stopped"
    stopping = start(cfg, stopped).events()
    for event in stopping:
        if type(event).__name__ == "Saved":
            stopping.close()
            break
    list(resume(stopped).events())
    assert outcome(stopped) == outcome(run)


def test_recomputing_activations_changes_nothing(folder):
    runs = []
    for recompute in (False, True):
        path = folder / f"recompute-{recompute}"
        cfg = configured(folder, "convs2s", recompute=recompute, budget={"kind": "steps", "steps": 3})
        list(start(cfg, path).events())
        runs.append(outcome(path)["tensors"])
    assert runs[0] == runs[1]


SEARCHES = {
    "greedy": Greedy(),
    "beam": Beam(size=3),
    "sample": Sample(seed=1),
    "speculative": Speculative(tokens=3),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_a_translator_translates_by_every_search(translator, search):
    found, cfg = Translator.load(translator[0]), SEARCHES[search]
    texts = ["the red house", "one", "two big cars see a dog"]
    together = found.translate(texts, search=cfg)
    assert [t.text for t in together[1:2]] == [t.text for t in found.translate(texts[1:2], search=cfg)]
    if search == "speculative":
        assert [t.text for t in together] == [t.text for t in found.translate(texts, search=Greedy())]


COMMANDS = [
    "verify RUN --sentences 1 --beam 2 --max-new-tokens 9",
    "score RUN FILE",
    "evaluate RUN --beam 2",
    "calibrate RUN SAME --beam 1",
    "translate RUN GIVEN --beam 2 --cache paged:3+int8 --format json --scores",
    "translate RUN GIVEN --precision int8",
    "average RUN --last 2",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_it(translator, folder, command, capsys):
    words = {"RUN": str(translator[0]), "FILE": str(folder / "scored.tsv"), "GIVEN": str(folder / "given.txt")}
    words["SAME"] = str(folder / "same.tsv")
    assert main([words.get(word, word) for word in command.split()]) == 0, capsys.readouterr()


@pytest.mark.parametrize("to", ["ctranslate2", "onnx"])
def test_an_export_refuses_it_in_one_line(translator, folder, to, capsys):
    assert main(["export", str(translator[0]), "--to", to, "-o", str(folder / to)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("dragoman: model.kind: convolutional") and len(told.strip().splitlines()) == 1
    assert not (folder / to).exists()


def test_words_are_aligned_by_attention_or_it_is_said_that_there_is_none(translator, folder, capsys):
    code = main(["translate", str(translator[0]), str(folder / "given.txt"), "--format", "json", "--alignments"])
    said = capsys.readouterr()
    if translator[0].name == "bytenet":
        assert code == 2 and "does not attend to a source" in said.err
    else:
        assert code == 0 and '"alignment"' in said.out


# ---- beginning with earlier weights ------------------------------------------------------------------


def tuned(folder, name, **start_from):
    plain = to_dict(configured(folder, name, budget={"kind": "steps", "steps": 2}))
    plain |= {"start_from": {"run": str(folder / name)} | start_from}
    return {key: value for key, value in plain.items() if key not in ("tokenizer", "target_tokenizer", "model")}


def test_a_vocabulary_grows_with_the_pieces_of_a_new_domain(translator, folder):
    cfg = tuned(folder, translator[0].name, vocabulary={"kind": "extended", "by": 5})
    path = folder / f"{translator[0].name}-extended"
    list(start(recipe.load(cfg), path).events())
    assert Translator.load(path).translate(["red dog"])


def test_adapters_fit_plain_layers_and_are_refused_for_normalized_weights(translator, folder, capsys):
    name, path = translator[0].name, folder / f"{translator[0].name}-adapted"
    target = {"convs2s": "decoder.*", "bytenet": "decoder.*", "cnn-9": "encoder.*"}[name]
    (folder / "lora.yaml").write_text(yaml.dump(tuned(folder, name, lora={"targets": [target], "rank": 2})))
    code, said = main(["train", str(folder / "lora.yaml"), "--run", str(path)]), capsys.readouterr()
    if name == "convs2s":
        told = said.err.strip().splitlines()[-1]
        assert code == 2 and told.startswith("dragoman: start_from.lora.targets: decoder.")
        assert "normalized weights (weight_norm)" in told
    else:
        assert code == 0, said
        assert Translator.load(path).translate(["red dog"])


# ---- language models and encoders ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer(folder):
    texts = [f"the {word} house sees {word} {i}\n\n" for i, word in enumerate(["red", "big"] * 40)]
    (folder / "text.txt").write_text("".join(texts))
    plain = {
        "task": {"kind": "language_modelling", "context": 24},
        "data": {"kind": "texts", "files": [str(folder / "text.txt")], "documents": "blank_lines"},
        "tokenizer": "characters",
        "model": WRITER,
        "train": {
            "budget": {"kind": "steps", "steps": 4},
            "batch_tokens": 200,
            "schedule": {"kind": "constant", "peak": 1e-2},
            "precision": "float32",
        },
    }
    list(start(recipe.load(plain), folder / "writer").events())
    return folder / "writer"


def test_a_language_model_learns_from_packed_documents_and_continues_them(writer, capsys):
    generator = Generator.load(writer)
    prompts = ["the red", "a", ""]
    together = generator.generate(prompts, search=Greedy(), max_new_tokens=8)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generator.generate([prompt], search=Greedy(), max_new_tokens=8)
        assert alone.continuations[0].tokens == found.continuations[0].tokens
    assert main(["verify", str(writer), "--sentences", "1", "--beam", "2", *SHORT]) == 0, capsys.readouterr()
    assert main(["generate", str(writer), "the", "--stream", "--max-new-tokens", "40"]) == 0
    assert main(["evaluate", str(writer)]) == 0


def test_noise_is_removed_from_texts(writer, folder):
    plain = to_dict(recipe.load(str(writer / "config.yaml")))
    plain |= {"task": {"kind": "denoising", "context": 24}, "model": model("bytenet")}
    list(start(recipe.load(plain), folder / "denoiser").events())


READS = {"depth": 2, "pattern": [GATED, {"kind": "tanh_convolution", "dilation": 2}], "kind": "convolution_stack"}


@pytest.mark.parametrize("head", [{"kind": "classification", "classes": 3, "pooling": "mean"}, "masked_language"])
def test_a_stack_reads_padded_texts_in_encoders(head):
    cfg = merge({key: READER[key] for key in ("kind", "dim")}, {"inputs": {"kind": "token_input", "vocab": 17}})
    model = from_dict(EncoderConfig, cfg | {"tower": READS, "head": head}).build().double().eval()
    text = ids(2, 6)
    longer = torch.nn.functional.pad(text, (2, 3))
    got = model(Tokens(longer, longer != 0))
    assert_equal(got if got.dim() == 2 else got[:, 2:-3], model(text))


def test_a_task_that_needs_an_encoder_says_so(folder, writer, capsys):
    plain = to_dict(configured(folder, "convs2s"))
    (folder / "bad.yaml").write_text(yaml.dump(plain | {"model": WRITER}))
    assert main(["train", str(folder / "bad.yaml"), "--run", str(folder / "bad")]) == 2
    assert "model.encoder: must be given for translation" in capsys.readouterr().err
    assert not (folder / "bad").exists()


def test_a_classifier_whose_weights_are_all_packed_for_inference_still_reads():
    model = EncoderConfig(
        dim=8,
        inputs=FrameInput(channels=3),
        tower=ConvolutionStack(depth=1, pattern=(GatedConvolution(kernel=3),)),
        head=ClassificationHead(classes=2, pooling=Mean()),
    ).build()
    frames = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in (4, 6)]
    plain, packed = (
        Classifier(one, None, {"task": {"labels": ["a", "b"]}})
        for one in (model.eval(), prepare_for_inference(copy.deepcopy(model), "cpu"))
    )
    assert not list(packed.model.parameters())
    assert [found.label for found in packed.classify(frames)] == [found.label for found in plain.classify(frames)]
