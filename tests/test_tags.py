"""Tags: tokens of their own before a source, the same in training and in use, and nothing a person could type."""

import json
import os

import pytest
import tiny_run
from tiny_run import rows

from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.config import dump_yaml, to_dict
from dragoman.decode.request import Request
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.lines import Pair, Sourced
from dragoman.text.tokens.tokenizer import EOS, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bytes
from dragoman.train.run import start


def tokenizer(*tags):
    return Tokenizer.train(Bytes(), [], [tag_mark(tag) for tag in tags])


def test_a_tag_is_one_token_that_stands_for_no_text():
    tagged = tokenizer("2de", "bt")
    assert tagged.tags == ["2de", "bt"] and tokenizer().tags == []
    assert tagged.decode([tagged.tag("bt"), *tagged.encode("a b")]) == "a b"
    assert tagged.tag("2de") not in tagged.encode("⟨tag 2de⟩ <2de> 2de")
    assert tagged.spelling(tagged.tag("2de")) == b""


def test_an_unknown_tag_is_told_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"tag: no '2fr' here\. Known: 2de, 2es\."):
        tokenizer("2es", "2de").tag("2fr")
    with pytest.raises(ConfigError, match="Known: none, because no source of its training text had one"):
        tokenizer().tag("2fr")
    with pytest.raises(ConfigError, match="'<2de>' is not a tag: write letters, digits"):
        tag_mark("<2de>")


def test_the_store_puts_tags_before_the_source(tmp_path):
    tagged = tokenizer("2de", "bt")
    pairs = [Sourced("a", "b", "x", "2de bt"), Sourced("a", "b", "y")]
    corpus = ParallelCorpus.build(tmp_path / "c", pairs, tagged, tagged)
    assert corpus[0][0].tolist() == [tagged.tag("2de"), tagged.tag("bt"), *tagged.encode("a"), EOS]
    assert corpus[1][0].tolist() == [*tagged.encode("a"), EOS]
    assert corpus[0][1].tolist() == corpus[1][1].tolist() == [*tagged.encode("b"), EOS]


# ---- a model of two languages ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Learns, from the tag, to write a word in capitals, or backwards."""
    folder = tmp_path_factory.mktemp("tags")
    words = [a + b + c for a in "kmt" for b in "aeiou" for c in "lnrs"]
    (folder / "up.tsv").write_text("".join(f"{word}\t{word.upper()}\n" for word in words))
    (folder / "back.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in words))
    plain = to_dict(tiny_run.config(folder / "up.tsv"))
    parts = [
        {
            "kind": "part",
            "tags": [tag],
            "hold_out": held,
            "pairs": {"kind": "table", "path": str(folder / f"{tag}.tsv")},
        }
        for tag, held in (("up", True), ("back", False))
    ]
    plain["data"] |= {"train": parts, "cleaning": {"copies": "keep"}, "hold_out": {"valid": 8, "test": 4, "near": None}}
    plain["train"] |= {"validate_every": 100, "average": None}
    cfg = tiny_run.recipe.load(plain)
    (folder / "run.yaml").write_text(dump_yaml(cfg))
    fsync, os.fsync = os.fsync, lambda handle: None
    try:
        list(start(cfg, folder / "run").events())
    finally:
        os.fsync = fsync
    return folder / "run"


def test_sources_with_different_tags_are_cleaned_apart(run):
    report = json.loads((run / "data" / "report.json").read_text())
    assert report["cleaning"]["kept"] == report["cleaning"]["read"] == 120
    assert report["sources"]["back"]["pairs"] < 60  # what is like a pair held out is in no source


def test_pairs_are_held_out_with_their_tags_and_only_from_where_they_may_be(run):
    held = rows(run / "data" / "valid.jsonl") + rows(run / "data" / "test.jsonl")
    assert len(held) == 12 and all(row["tags"] == ["up"] and row["target"].isupper() for row in held)


def test_a_request_reads_its_tag_as_training_did(run):
    translator = Translator.load(run)
    both = [Request("kal", tags=(tag,)) for tag in ("up", "back")]
    scores = [answer.score for answer in translator.translate(both)]
    assert scores[0] != scores[1] != translator.translate(["kal"])[0].score
    as_stored = translator.score([Sourced("kal", "KAL", "", "up")])[0].log_prob
    assert as_stored != translator.score([Pair("kal", "KAL")])[0].log_prob
    corpus, source = ParallelCorpus.open(run / "data" / "train"), RunDirectory.open(run).tokenizers()[0]
    assert {int(corpus[i][0][0]) for i in range(len(corpus))} == {source.tag("up"), source.tag("back")}


def test_a_long_text_has_its_tag_before_each_part(run):
    translator = Translator.load(run)
    parts = translator.translate([Request("kal. mon.", tags=("up",))], longest=5)[0]
    alone = [translator.translate([Request(text, tags=("up",))])[0].text for text in ("kal.", "mon.")]
    assert parts.text.split() == " ".join(alone).split()


def test_the_command_line_takes_tags_and_lists_those_it_knows(run, capsys, tmp_path):
    assert cli.main(["translate", str(run), "kal", "--tag", "up", "--beam", "1"]) == 0
    capsys.readouterr()
    for command in (["translate", str(run), "kal"], ["score", str(run), str(run.parent / "up.tsv")]):
        assert cli.main([*command, "--tag", "down"]) == 2
        assert capsys.readouterr().err == "dragoman: tag: no 'down' here. Known: back, up.\n"
    assert cli.main(["evaluate", str(run), "--beam", "1", "--metric", "chrf"]) == 0
    mine = ["evaluate", str(run), str(run.parent / "up.tsv"), "--tag", "up", "--beam", "1", "--metric", "chrf"]
    assert cli.main(mine) == 0


def test_a_tag_that_is_no_word_is_refused_before_anything_is_begun(run, tmp_path, capsys):
    command = ["train", str(run.parent / "run.yaml"), "--run", str(tmp_path / "new"), "data.train.0.tags=[a b]"]
    assert cli.main(command) == 2
    assert "dragoman: data.train.tag: 'a b' is not a tag" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_begins_with_another_s_tokenizer_needs_its_tags(run, tmp_path, capsys):
    part = {"kind": "part", "tags": ["sideways"], "pairs": {"kind": "table", "path": str(run.parent / "up.tsv")}}
    data = {"train": [part], "cleaning": {"copies": "keep"}, "hold_out": {"test": 0, "valid": 5}}
    (tmp_path / "run.yaml").write_text(dump_yaml({"start_from": {"run": str(run)}, "data": data}))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "new")]) == 2
    assert "data.train.tag: no 'sideways' here. Known: back, up." in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
