"""OPUS-MT folders with a vocabulary for each side: read, answered and given back as their own library does."""

import dataclasses
import json
import re
import shutil

import exported
import foreign
import foreign_text
import pytest
import torch
from test_fine_tuned_imports import fine_tune

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.length_penalty import Average
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.translator import Translator
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint
from dragoman.text.tokens.tokenizer import Tokenizer
from dragoman.text.tokens.training import Bytes

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

TEXTS = [text for text in foreign_text.TEXTS if text.strip() == text and text.replace(" ", "").isalpha()]
LIMIT = LengthLimit(tokens=foreign.LONGEST, ratio=0.0, extra=foreign.LONGEST)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the path, with a folder and the run that it becomes, and their tokenizer and model."""
    path = tmp_path_factory.mktemp("two")
    tokenizer, model = foreign_text.make(foreign_text.Case(foreign.TWO_VOCABULARIES, True), path / "folder")
    with torch.no_grad():
        model.final_logits_bias.normal_()
        foreign.make_ends_likely(model)
    model.generation_config.suppress_tokens = [model.config.decoder_start_token_id]
    model.generation_config.max_length = None
    model.save_pretrained(path / "folder")
    import_checkpoint(path / "folder", path / "run")
    return path, tokenizer, model


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_is_translated_into_the_text_of_generate(made, beams):
    path, tokenizer, model = made
    search = Greedy(limit=LIMIT) if beams == 1 else Beam(size=3, penalty=Average(), stop="heuristic", limit=LIMIT)
    translator, compared = Translator.load(path / "run", precision="float32"), 0
    for text, found in zip(TEXTS, translator.translate(TEXTS, search=search), strict=True):
        given = tokenizer([text], return_tensors="pt")
        said = model.generate(**given, num_beams=beams, max_new_tokens=foreign.LONGEST, early_stopping=False)[0]
        if model.config.eos_token_id in said:
            # their decoder knows the source's special tokens alone: what a target starts from would be text
            assert found.text == tokenizer.decode(said[1:], skip_special_tokens=True), text
            compared += 1
    assert compared > 4


def test_source_and_target_have_rows_of_their_own_and_come_back(made, tmp_path):
    path, _, model = made
    sizes = model.config.vocab_size, model.config.decoder_vocab_size
    assert sizes[0] != sizes[1]
    weights = RunDirectory.open(path / "run").load("last").tensors["model"]
    assert [len(weights[name]) - 1 for name in ("source_embed.tokens.weight", "embed.tokens.weight")] == [*sizes]
    assert export_huggingface(path / "run", tmp_path / "folder") == "marian"
    assert {file.name for file in (path / "folder").glob("*.[js]*")} <= {
        f.name for f in (tmp_path / "folder").iterdir()
    }


def test_it_goes_on_to_ctranslate2(made, tmp_path):
    pytest.importorskip("ctranslate2")
    assert main(["export", str(made[0] / "run"), "--to", "ctranslate2", "-o", str(tmp_path / "out")]) == 0


def test_a_run_with_two_tokenizers_is_written_as_marian_and_read_again(tmp_path):
    source, target = Tokenizer.train(Bytes(), []), Tokenizer.train(Bytes(), [], marks=["⟨mask⟩"])
    plain = exported.small_config("transformer-base", len(target))
    cfg = dataclasses.replace(plain, source_vocab=len(source), tying="target")
    run = exported.save_run(cfg, tmp_path / "run", tokenizer=source, target=target)
    assert export_huggingface(run.path, tmp_path / "folder") == "marian"
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert (config["vocab_size"], config["decoder_vocab_size"]) == (len(source), len(target))
    import_checkpoint(tmp_path / "folder", tmp_path / "again")
    texts = ["a b", "Grüße"]
    said = [[t.text for t in Translator.load(path, precision="float32").translate(texts, search=Greedy(limit=LIMIT))]
            for path in (run.path, tmp_path / "again")]  # fmt: skip
    assert said[0] == said[1]


@pytest.mark.parametrize("init", [{}, {"vocabulary": {"kind": "extended", "by": 3}}], ids=["as it is", "extended"])
def test_a_fine_tuned_one_goes_back_to_its_own_library(made, init, tmp_path):
    run = fine_tune(made[0] / "run", tmp_path, "translation", init)
    assert export_huggingface(run.path, tmp_path / "out", "last") == "marian"  # compares answers and ids by itself
    model = transformers.MarianMTModel.from_pretrained(tmp_path / "out")
    grown = 3 if init else 0
    assert model.config.decoder_vocab_size == made[2].config.decoder_vocab_size + grown
    assert not torch.equal(model.final_logits_bias[0, :9], made[2].final_logits_bias[0, :9])
    assert (tmp_path / "out" / "target_tokenizer").is_dir() == bool(init)


def _without(name):
    return lambda folder: (folder / name).unlink()


def _change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def _gap(folder):
    path = folder / "target_vocab.json"
    _change(path, **{"<pad>": 9000})


def _unstated(folder):
    _change(folder / "tokenizer_config.json", separate_vocabs=False)


def _endless(folder):
    path = folder / "vocab.json"
    numbers = json.loads(path.read_text())
    path.write_text(json.dumps({"other" if name == "</s>" else name: i for name, i in numbers.items()}))
    _change(folder / "tokenizer_config.json", added_tokens_decoder={})


FAULTS = {
    "no target_vocab.json": (_without("target_vocab.json"), "target_vocab.json: missing or empty"),
    "no target.spm": (_without("target.spm"), "one is missing"),
    "ids with a gap": (_gap, "target_vocab.json: its .* entries are not numbered from 0"),
    "two vocabularies that are not stated": (_unstated, "separate_vocabs"),
    "a source without an end": (_endless, "vocab.json: has no eos_token"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_in_a_line(made, tmp_path, fault, capsys):
    break_it, said = FAULTS[fault]
    shutil.copytree(made[0] / "folder", tmp_path / "folder")
    break_it(tmp_path / "folder")
    assert main(["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error) and "\n" not in error
    assert not (tmp_path / "run").exists()
