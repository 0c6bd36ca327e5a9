"""dragoman evaluate of language models: perplexity per token, byte and word, of files and of what was held out."""

import json
import math
import os
import shutil

import pytest
from test_language_modelling import config
from typer.testing import CliRunner

from dragoman.cli import app
from dragoman.decode.generator import Generator
from dragoman.evaluate.language_modelling import (
    encode_answers,
    encode_documents,
    evaluate,
    is_language_model,
    stored_documents,
)
from dragoman.presets import PRESETS
from dragoman.text.formats.documents import Document
from dragoman.text.lines import Pair
from dragoman.text.tokens.framing import FrameTemplate
from dragoman.train import recipe
from dragoman.train.events import Validated
from dragoman.train.run import start
from dragoman.train.tasks.texts import store_answers, store_documents

TEXT = "".join(f"line {i} says {'abcdef'[i % 6] * (i % 5 + 1)}\n\n" for i in range(60))
NEW = "line 7 says bbb\n\nline 8 says größer\n\nsays line\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "t.txt").write_text(TEXT)
    (folder / "new.txt").write_text(NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        for name, tokenizer, steps in (("a", "characters", 12), ("b", "bytes", 6)):
            plain = recipe.to_dict(config(folder / "t.txt", budget={"kind": "steps", "steps": steps}, average=None))
            cfg = recipe.load(plain | {"tokenizer": tokenizer, "model": plain["model"]})
            seen = [e for e in start(cfg, folder / name).events() if isinstance(e, Validated)]
            (folder / f"{name}.loss").write_text(str(seen[-1].loss))
    return folder


@pytest.fixture
def run(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def printed(*words, code=0):
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def scores(*words):
    return json.loads(printed(*words, "--format", "json", "--precision", "float32"))


def test_the_perplexity_of_a_token_of_held_out_text_is_that_of_the_validation_loss(runs, run):
    found = scores(run, "--checkpoint", "last")
    assert math.log(found["scores"]["perplexity_token"]["value"]) == pytest.approx(
        float((runs / "a.loss").read_text()), abs=1e-4
    )
    assert json.loads((run / "evaluations" / "valid" / "scores.json").read_text()) == found


def test_all_figures_are_of_one_sum_over_other_counts(runs, run):
    found = scores(run, runs / "new.txt")
    documents = NEW.strip().split("\n\n")
    assert found["documents"] == 3
    assert found["bytes"] == sum(len(text.encode()) for text in documents)
    assert found["words"] == sum(len(text.split()) for text in documents)
    for unit in ("token", "byte", "word"):
        mean = found["nll"] / found[{"token": "tokens", "byte": "bytes", "word": "words"}[unit]]
        assert found["scores"][f"perplexity_{unit}"]["value"] == pytest.approx(math.exp(mean))
    assert found["scores"]["bits_per_byte"]["value"] == pytest.approx(found["nll"] / found["bytes"] / math.log(2))
    lines = (run / "evaluations" / "new" / "outputs.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["nll"] for line in lines) == pytest.approx(found["nll"])


def test_the_sum_is_what_the_generator_finds_for_the_same_tokens(runs):
    generator = Generator.load(runs / "a", precision="float32")
    text = encode_documents(["line 7"], generator.tokenizer)
    found = evaluate(generator, text, context=99)
    answer = encode_answers([Pair("line", " 7")], "", generator.tokenizer)
    begun = encode_answers([Pair("", "line")], "", generator.tokenizer)
    apart = evaluate(generator, answer, context=99).documents[0, 0]
    start_alone = evaluate(generator, begun, context=99).documents[0]
    assert found.documents[0, 1] == len(text[0].ids) - 1
    assert apart < found.documents[0, 0], "the prompt is read and not scored"
    assert start_alone[1] == len(generator.tokenizer.encode("line")) + 1


@pytest.mark.parametrize("frame", [None, FrameTemplate((), (), {}), FrameTemplate(("⟨bos⟩", "⟨bos⟩"), (), {})])
def test_every_token_whose_bytes_are_counted_is_scored_whatever_begins_a_text(runs, frame, tmp_path):
    generator = Generator.load(runs / "b", precision="float32")
    if frame is not None:
        generator.tokenizer.__dict__["template"] = frame  # as imported tokenizers have one
    text, prompt = "line 7 says", "line"
    store_documents(tmp_path / "texts", [Document(text)], generator.tokenizer)
    store_answers(tmp_path / "pairs", [Pair("", text)], generator.tokenizer, between="")
    begun = [
        encode_documents([text], generator.tokenizer),
        encode_answers([Pair("", text)], "", generator.tokenizer),
        stored_documents(tmp_path / "texts", generator.tokenizer),
        stored_documents(tmp_path / "pairs", generator.tokenizer),
    ]
    for documents in begun:
        found = evaluate(generator, documents, context=99)
        assert found.documents[0, 1:].tolist() == [len(text) + 1, len(text), 3], "a byte is a token, and the end is one"
        assert found.documents[0, 0] == evaluate(generator, begun[0], context=99).documents[0, 0]
    asked = encode_answers([Pair(prompt, text[len(prompt) :])], "", generator.tokenizer)
    assert asked[0].ids[-len(text) - 1 :] == begun[0][0].ids[-len(text) - 1 :]
    assert evaluate(generator, asked, context=99).documents[0, 1] == len(text) - len(prompt) + 1


@pytest.mark.parametrize("context", [1, 2, 3, 5, 16, 1000])
def test_every_token_is_scored_once_whatever_is_read_at_a_time(runs, context):
    generator = Generator.load(runs / "a", precision="float32")
    documents = stored_documents(runs / "a" / "data" / "valid", generator.tokenizer)
    found = evaluate(generator, documents, context=context)
    assert found.documents[:, 1].tolist() == [len(one.ids) - 1 for one in documents]
    asked = encode_answers([Pair("line 3 says", " bb"), Pair("x", "line 12 says")], " ", generator.tokenizer)
    answers = [len(generator.tokenizer.encode(text)) + 1 for text in (" bb", "line 12 says")]
    assert evaluate(generator, asked, context=context).documents[:, 1].tolist() == answers


def test_two_runs_are_compared_on_the_same_bytes_and_words_whatever_their_tokenizers(runs, run):
    for named in ([], [runs / "new.txt"]):
        found = scores(run, *named, "--against", runs / "b")
        differences = found["against"]["differences"]
        assert differences.keys() == {"perplexity_byte", "perplexity_word", "bits_per_byte"}
        assert differences["perplexity_byte"]["a"] == pytest.approx(found["scores"]["perplexity_byte"]["value"])
    alone = scores(runs / "b", runs / "new.txt")
    assert differences["bits_per_byte"]["b"] == pytest.approx(alone["scores"]["bits_per_byte"]["value"])
    shutil.rmtree(runs / "b" / "evaluations")
    same = scores(run, runs / "new.txt", "--against", run)["against"]["differences"]["perplexity_word"]
    assert same["a"] == same["b"] and same["interval"] == [0, 0]


def test_text_without_spaces_has_no_perplexity_per_word(runs, run, tmp_path):
    (tmp_path / "long.txt").write_text("\n\n".join("好" * 600 for _ in range(3)), encoding="utf-8")
    found = scores(runs / "b", tmp_path / "long.txt", "--against", runs / "b")
    assert found["nll"] / found["words"] > 710, "its exponential is no float"
    assert found["scores"].keys() == {"perplexity_token", "perplexity_byte", "bits_per_byte"}
    assert found["against"]["differences"].keys() == {"perplexity_byte", "bits_per_byte"}
    shutil.rmtree(runs / "b" / "evaluations")


def test_every_checkpoint_is_followed_and_the_lowest_perplexity_is_best(run):
    shown = printed(run, "--follow", "--precision", "float32")
    lines = [json.loads(line) for line in (run / "evaluations" / "valid.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["scores"]["perplexity per token"])
    assert f"best by perplexity per token: step {best['step']}" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--beam", "4"], "--beam: is for translators"),
        (["--metric", "bleu"], "--metric: is for translators"),
        (["--columns", "a,b"], "--columns: is for translators"),
        (["--tag", "x"], "--tag: is for translators"),
        (["notes.docx"], "a Word document"),
        (["empty.txt"], "holds no text"),
        (["absent.txt"], "absent.txt"),
    ],
)
def test_what_does_not_fit_is_one_line(run, tmp_path, words, says, monkeypatch, capsys):
    from dragoman.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.docx").write_text("PK")
    (tmp_path / "empty.txt").write_text("\n")
    assert main(["evaluate", str(run), *words]) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.strip().splitlines()) == 1


def test_which_runs_continue_text():
    writer, translator = (PRESETS[name]()["model"] for name in ("lm-tiny", "transformer-small"))
    assert is_language_model({"task": {"kind": "language_modelling"}})
    assert is_language_model({"kind": "run", "model": writer}), "an import, which states no task"
    assert not is_language_model({"kind": "run", "model": translator})
    assert not is_language_model({"task": {"kind": "translation"}, "model": writer})
    assert not is_language_model({})
