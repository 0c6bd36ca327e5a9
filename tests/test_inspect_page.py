"""The page of dragoman inspect: complete, by itself, small, and clear about what it cannot do."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from foreign import pair
from test_every_command import make

from dragoman.cli import main
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.lens import beam_tree, rotary_decay
from dragoman.inspect.page import write
from dragoman.inspect.page.collect import PageChoice, collect
from dragoman.inspect.subject import Subject


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("translation", "language_model", "classifier", "masked", "embedder", "towers", "images")
    return {kind: make(kind, folder / kind) for kind in kinds}


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("kind", ["translation", "language_model", "classifier", "masked", "embedder"])
def test_a_page_holds_all_that_its_model_has_and_loads_nothing(kind, runs, tmp_path):
    assert main(["inspect", str(runs[kind]), "ab <b>cd</b>", "-o", str(tmp_path / "page.html"), "--steps", "2"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)|@import|url\(|https?://(?!www\.w3\.org)", page)
    data = data_of(page)
    assert data["input"] == "ab <b>cd</b>" and "ab <b>cd" not in page
    writes = kind in ("translation", "language_model")
    assert {"attention", "attribution", "positions", "routing"} <= set(data)
    assert writes == ("candidates" in data) == ("lens" in data) and (kind == "translation") == ("tree" in data)
    ids = [attention["id"] for attention in data["attention"]]
    assert ids == {"translation": ["encoder", "decoder", "cross"], "language_model": ["decoder"]}.get(kind, ["encoder"])


@pytest.mark.parametrize("kind", ["towers", "images"])
def test_pairs_and_images_have_pages_too(kind, runs, tmp_path, capsys):
    given = ["ab", "cd"]
    if kind == "images":
        from PIL import Image

        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "image.png")
        given = [str(tmp_path / "image.png")]
    code = main(["inspect", str(runs[kind]), *given, "-o", str(tmp_path / "page.html"), "--steps", "2"])
    assert code == 0, capsys.readouterr().err
    data = data_of((tmp_path / "page.html").read_text())
    assert ("image" in data) == (kind == "images") and data["attention"]


@pytest.mark.parametrize("suffix", ["html", "json", "svg", "png"])
def test_every_format_is_written(suffix, runs, tmp_path):
    path = tmp_path / f"page.{suffix}"
    assert main(["inspect", str(runs["translation"]), "abc", "-o", str(path), "--steps", "2"]) == 0
    begins = {"html": b"<!doctype html>", "json": b"{", "svg": b"<svg", "png": b"\x89PNG"}
    assert path.read_bytes().startswith(begins[suffix])
    if suffix == "json":
        plain = json.loads(path.read_text())
        weights = np.array(plain["attention"][-1]["layers"][0]["weights"])
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-4)


def test_a_sentence_of_40_tokens_takes_less_than_2_megabytes(tmp_path):
    model = make("translation", tmp_path / "run")
    subject = Subject.open(model)
    given = subject.inputs("a" * 39, "b" * 39)
    assert len(given.source_tokens) == len(given.tokens) == 40
    data = collect(subject, "a" * 39, "b" * 39, PageChoice(steps=2))
    layer = {"layer": 0, "heads": list(range(8)), "weights": np.random.rand(8, 40, 40)}
    for kind in data["attention"]:  # as large as a base Transformer's: 6 layers of 8 heads
        kind["layers"] = [layer] * 6
    assert len(write.as_html(data)) < 2 * 2**20


def test_what_is_packed_comes_back_to_within_a_step_and_zero_exactly():
    values = np.array([[[0.0, 0.25], [0.5, 1.0]]])
    packed = write._bytes(values)
    raw = np.frombuffer(__import__("base64").b64decode(packed["bytes"]), np.uint8)
    np.testing.assert_allclose((packed["low"] + packed["step"] * raw).reshape(values.shape), values, atol=1 / 255)
    signed = write._bytes(np.array([[-3.0, 0.0, 2.0]]))
    raw = np.frombuffer(__import__("base64").b64decode(signed["bytes"]), "<u2")
    np.testing.assert_allclose(signed["low"] + signed["step"] * raw, [-3, 0, 2], atol=1e-3)
    assert signed["low"] + signed["step"] * raw[1] == 0


def test_a_page_that_would_be_too_large_says_what_to_narrow(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(write, "LARGEST", 1000)
    assert main(["inspect", str(runs["translation"]), "abc", "-o", str(tmp_path / "p.html"), "--no-attribution"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "--layers" in err[0] and not (tmp_path / "p.html").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--layers", "7"], "layer 7: this model has the layers 0 to 0, counted from 0"),
        (["--heads", "9"], "head 9: this model has the heads 0 to 1, counted from 0"),
        (["--layers", "x"], "--layers: 'x' is no number: give numbers such as 0,2 or 4-7"),
        (["--layers", "3-"], "--layers: '3-' is no number"),
        (["--layers", "7-4"], "--layers: '7-4' ends before it begins: write 4-7"),
        (["--heads", "0,1-0"], "--heads: '1-0' ends before it begins: write 0-1"),
        (["--heads", ","], "--heads: ',' names none: give numbers such as 0,2 or 4-7"),
        (["-o", "page.pdf"], "page.pdf: a page is written as .html, .json, .svg or .png"),
        (["-o", "nowhere/page.html"], "nowhere/page.html: there is no folder nowhere"),
        (["--checkpoint", "99"], "99"),
    ],
)
def test_what_cannot_be_shown_is_one_line(more, said, runs, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(runs["translation"]), "abc", "--no-attribution", *more]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and said in err[0]


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("translation", [], "text: give a text"),
        ("towers", ["ab"], "this model compares two things: give both"),
        ("classifier", ["ab", "--target", "cd"], "this model does not write: leave the target out"),
        ("images", ["nowhere.png"], "nowhere.png: no such file"),
    ],
)
def test_an_input_that_does_not_fit_the_model_is_one_line(kind, words, said, runs, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(runs[kind]), *words]) == 2
    assert said in capsys.readouterr().err


def test_places_are_listed_with_shapes(runs, capsys):
    assert main(["inspect", str(runs["translation"]), "--places"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"decoder\.0\.cross\.weights +B H T S +attention weights", line) for line in lines)


# ---- views --------------------------------------------------------------------------------------------


def test_the_tree_of_a_search_ends_in_the_answer_and_says_why_others_were_dropped(runs):
    subject = Subject.open(runs["translation"])
    given = subject.inputs("abc")
    nodes = beam_tree(subject, given, 5)
    (chosen,) = [node for node in nodes if node.fate.startswith("chosen")]
    path, node = [], chosen
    while node is not None:
        path.append(node.token)
        node = None if node.parent is None else nodes[node.parent]
    assert tuple(reversed(path)) == given.targets
    assert all(node.parent is None or nodes[node.parent].step == node.step - 1 for node in nodes)
    kept = [node for node in nodes if node.fate == "kept" and node.step == 1]
    dropped = [node for node in nodes if node.fate.startswith("dropped") and node.step == 1]
    assert len(kept) <= 5 and min(n.log_prob for n in kept) >= max((n.log_prob for n in dropped), default=-1e9)


def test_the_lens_of_the_last_layer_is_the_models_answer(runs):
    data = collect(Subject.open(runs["language_model"]), "abcd", None, PageChoice(attributions=False))
    last = data["lens"][max(data["lens"])]
    assert [[c[0] for c in row] for row in last] == [[c[0] for c in row[:3]] for row in data["candidates"]]


def test_experts_of_an_imported_mixture_are_shown_for_each_token(tmp_path):
    run = pair("Mixtral", 0, tmp_path).run
    data = collect(Subject.open(run), "w11 w12 w13", None, PageChoice(attributions=False))
    for routing in data["routing"].values():
        assert routing.shape == (len(data["tokens"]["target"]), 3)
        np.testing.assert_allclose(routing.sum(-1), 1, atol=1e-5)
    assert any(view["kind"] == "rotary" for view in data["positions"].values())


def test_rotary_scores_are_bounded_by_a_curve_that_falls_with_distance():
    curve = rotary_decay(128, 10_000.0, 257)
    assert curve[0] == 1 and curve[256] < 0.5 * curve[8] + 0.5 and curve[128:].max() < curve[:16].min()


# ---- explain ------------------------------------------------------------------------------------------


def test_explain_writes_the_trio_and_its_script_repeats_the_numbers_to_the_byte(runs, tmp_path):
    (tmp_path / "lines.txt").write_text("abc\n\nde fg\n")
    folder = tmp_path / "explained"
    command = ["explain", str(runs["translation"]), str(tmp_path / "lines.txt"), "-o", str(folder), "--seeds", "2"]
    assert main(command) == 0
    assert {path.name for path in folder.iterdir()} == {"page.html", "sensitivity.csv", "sensitivity.svg", "repeat.py"}
    rows = list(csv.DictReader((folder / "sensitivity.csv").read_text().splitlines()))
    assert {"input tokens", "decoder cross", "encoder mixer", "decoder feed_forward"} <= {row["curve"] for row in rows}
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in rows)
    subprocess.run([sys.executable, folder / "repeat.py", tmp_path / "again.csv"], check=True)
    assert (tmp_path / "again.csv").read_bytes() == (folder / "sensitivity.csv").read_bytes()
    page = (folder / "page.html").read_text()
    assert "de fg" in page and "http" not in page


def test_explain_needs_sentences_and_a_model_that_reads_them(runs, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "lines.txt").write_text("ab\n")
    for kind, name, said in (("translation", "empty.txt", "has none"), ("towers", "lines.txt", "single texts")):
        assert main(["explain", str(runs[kind]), str(tmp_path / name), "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_subject_spells_what_no_text_has(runs):
    subject = Subject.open(runs["translation"])
    assert subject.spell([1, 2]) == ("⟨bos⟩", "⟨eos⟩")
    half = subject.spell(subject.encode_source("é")[:1])[0]
    assert re.fullmatch(r"⟨[0-9a-f]{2}⟩", half)
    with pytest.raises(DataError, match="surrogate"):
        subject.inputs("\ud800")
    with pytest.raises(DataError, match=r"target: character 1 .* surrogate"):
        subject.inputs("a", "\ud800")
    with pytest.raises(ConfigError, match="device"):
        Subject.open(runs["translation"], device="nowhere")
    assert torch.equal(subject.inputs("ab").arguments[1], subject.inputs("ab").source_ids)
