"""Nearest-neighbour translation: exact search, the published mixture, and a datastore's translations found again."""

import json
import math
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_run import MODEL
from tiny_tasks import ATTENDING

import dragoman
from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.decode import knn
from dragoman.decode.knn import Datastore, NearestNeighbours, build_datastore
from dragoman.decode.request import Request
from dragoman.decode.search.attention_taps import twin_of
from dragoman.decode.search.coverage import CoveringBeam
from dragoman.decode.state_index import FILE, StateIndex, build_state_index
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.model.families import ModelConfig
from dragoman.text.context import SEPARATOR
from dragoman.text.held_out import held_out_line
from dragoman.text.lines import Pair, Sourced
from dragoman.text.store import MANIFEST
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bytes

BYTES = Tokenizer.train(Bytes(), [])
PAIRS = [Pair("one dog", "ein Hund"), Pair("two cats", "zwei Katzen"), Pair("a house", "ein Haus"), Pair("tea", "Tee")]
SOURCES = [pair.source for pair in PAIRS]


def make(path, model, seed, tokenizer=BYTES, **data):
    """Write a run of random weights."""
    cfg = from_dict(ModelConfig, model).sized(vocab=len(tokenizer))
    content = {"task": {"kind": "translation"}, "data": data, "model": to_dict(cfg)}
    torch.manual_seed(seed)
    run = RunDirectory.create(path, content)
    run.write_tokenizers(tokenizer, tokenizer)
    run.save(1, tensors={"model": cfg.build().state_dict()}, progress={"step": 1}, config=content, best=True)
    run.close()
    return path


@pytest.fixture(scope="module", params=[MODEL, ATTENDING], ids=["transformer", "convolutional"])
def run(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("run") / "run", request.param, 1)


@pytest.fixture(scope="module")
def store(run):
    assert build_datastore(run, PAIRS, run.parent / "store") == sum(len(BYTES.encode(p.target)) + 1 for p in PAIRS)
    return run.parent / "store"


def settings(store, **more):
    return NearestNeighbours(store=str(store), **{"k": 4, "temperature": 1e-4, "weight": 0.99} | more)


# ---- search and mixture -------------------------------------------------------------------------------


def test_search_is_exact_however_the_states_are_divided(store, monkeypatch):
    whole, draw = Datastore(store), torch.Generator().manual_seed(1)
    keys = torch.from_numpy(np.array(whole.keys, np.float32))
    queries = torch.randn(5, whole.width, generator=draw)
    wanted = torch.cdist(queries.double(), keys.double()) ** 2
    expected, rows = wanted.sort(dim=1)
    for chunk, in_memory in ((1 << 16, 1 << 30), (3, 1 << 30), (3, 0)):
        monkeypatch.setattr(knn, "CHUNK", chunk)
        monkeypatch.setattr(knn, "IN_MEMORY", in_memory)
        distances, tokens = Datastore(store).nearest(queries, 4)
        torch.testing.assert_close(distances.double(), expected[:, :4], rtol=1e-4, atol=1e-4)
        assert torch.equal(tokens, whole.tokens[rows[:, :4]])
    assert Datastore(store).nearest(queries, 10_000)[0].shape == (5, len(keys))


def test_the_mixture_is_that_of_the_paper(run, store):
    cfg = settings(store, weight=0.3, temperature=2.0)
    model = Translator.load(run, knn=cfg).model
    states, logits = torch.randn(2, model.datastore.width), torch.randn(2, len(BYTES))
    distances, tokens = model.datastore.nearest(states, cfg.k)
    mixed = model.mixed(logits, states).exp()
    for row in range(2):
        votes = [math.exp(-float(d) / 2.0) for d in distances[row]]
        expected = 0.7 * logits[row].softmax(dim=0)
        for token, vote in zip(tokens[row].tolist(), votes, strict=True):
            expected[token] += 0.3 * vote / sum(votes)
        torch.testing.assert_close(mixed[row], expected, rtol=1e-4, atol=1e-6)
        assert float(mixed[row].sum()) == pytest.approx(1, abs=1e-5)


def test_an_index_of_one_cluster_finds_what_exact_search_finds(run, tmp_path):
    pytest.importorskip("faiss")
    build_datastore(run, PAIRS, tmp_path / "store", index=True)
    exact, index = Datastore(tmp_path / "store"), Datastore(tmp_path / "store", approximate=True)
    queries = torch.randn(5, exact.width, generator=torch.Generator().manual_seed(1))
    for k in (4, 10_000):
        for one, other in zip(exact.nearest(queries, k), index.nearest(queries, k), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    translated = Translator.load(run, knn=settings(tmp_path / "store", search="approximate")).translate(SOURCES, beam=1)
    assert [t.text for t in translated] == [pair.target for pair in PAIRS]


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_copies_of_a_model_share_its_datastore(search, tmp_path):
    if search == "approximate":
        pytest.importorskip("faiss")
    run = make(tmp_path / "run", MODEL, 1)
    build_datastore(run, PAIRS, tmp_path / "store", index=search == "approximate")
    translator = Translator.load(run, knn=settings(tmp_path / "store", search=search))
    assert twin_of(translator.model).model.datastore is translator.model.datastore
    found = translator.translate(SOURCES, beam=1, alignments=True)
    assert [t.text for t in found] == [pair.target for pair in PAIRS]
    assert all(t.candidates[0].alignment for t in found)
    assert translator.translate(SOURCES, search=CoveringBeam(size=2, nbest=1))


@pytest.mark.parametrize("size", [1, 2, 12, 40, 300])
def test_an_index_of_few_states_is_built_without_a_word(size, tmp_path, capfd):
    pytest.importorskip("faiss")
    build_state_index(tmp_path, np.random.default_rng(1).standard_normal((size, 8)).astype(np.float16))
    assert capfd.readouterr() == ("", "")
    distances, _ = StateIndex(tmp_path, size, 8).nearest(np.zeros((1, 8), np.float32), 1)
    assert np.isfinite(distances).all()


def test_an_index_visits_some_clusters_and_finds_most(tmp_path):
    pytest.importorskip("faiss")
    keys = np.random.default_rng(1).normal(size=(4000, 4)).astype(np.float16)
    build_state_index(tmp_path, keys)
    queries = keys[:200].astype(np.float32)
    distances, rows = StateIndex(tmp_path, 4000, 4).nearest(queries, 8)
    exact = np.argsort(((queries[:, None] - keys[None].astype(np.float32)) ** 2).sum(axis=2), axis=1)[:, :8]
    assert (rows[:, 0] == np.arange(200)).all()
    assert distances[:, 0] == pytest.approx(np.zeros(200), abs=1e-4)
    assert sum(len({*some} & {*all_}) for some, all_ in zip(rows.tolist(), exact.tolist(), strict=True)) > 1000


def test_an_index_of_other_states_or_a_damaged_one_is_refused(tmp_path):
    pytest.importorskip("faiss")
    keys = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float16)
    build_state_index(tmp_path, keys)
    with pytest.raises(DataError, match="is of other states"):
        StateIndex(tmp_path, 51, 4)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:40])
    with pytest.raises(DataError, match=r"states\.faiss: damaged"):
        StateIndex(tmp_path, 50, 4)


# ---- translating ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 3])
def test_the_translations_of_a_datastore_are_found_again_alone_and_in_a_batch(run, store, beam):
    translator = Translator.load(run, knn=settings(store))
    together = [t.text for t in translator.translate(SOURCES, beam=beam)]
    alone = [translator.translate([source], beam=beam)[0].text for source in SOURCES]
    assert together == alone == [pair.target for pair in PAIRS]
    assert [t.text for t in Translator.load(run).translate(SOURCES, beam=beam)] != together


def test_without_weight_the_model_answers_alone(run, store):
    how = {"precision": "float32"}
    plain, mixed = Translator.load(run, **how), Translator.load(run, knn=settings(store, weight=0.0), **how)
    for beam in (1, 3):
        ours, theirs = (t.translate(SOURCES, beam=beam) for t in (plain, mixed))
        assert [t.text for t in ours] == [t.text for t in theirs]
        assert [t.candidates[0].log_prob for t in ours] == pytest.approx(
            [t.candidates[0].log_prob for t in theirs], rel=1e-4
        )


# ---- commands ---------------------------------------------------------------------------------------------


def test_a_datastore_is_built_and_used_by_commands(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("".join(f"{p.source}\t{p.target}\n" for p in PAIRS))
    (tmp_path / "in.txt").write_text("\n".join(SOURCES) + "\n")
    assert not cli.main(["datastore", str(run), "pairs.tsv", "-o", "store"])
    assert "states of 4 pairs" in capsys.readouterr().out
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pairs.tsv").write_text((tmp_path / "pairs.tsv").read_text())
    for named in ("folder", "folder/*.tsv"):  # as --memory and train --pairs take them
        assert not cli.main(["datastore", str(run), named, "-o", "same"])
        assert "states of 4 pairs" in capsys.readouterr().out
    chosen = "{store: store, k: 4, temperature: 0.0001, weight: 0.99}"
    assert not cli.main(["translate", str(run), "in.txt", "--knn", chosen, "--format", "json"])
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == [p.target for p in PAIRS]
    assert not cli.main(["translate", str(run), "tea", "--knn", "store"])


def test_a_run_is_evaluated_with_its_datastore(run, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(store)
    (tmp_path / "pairs.tsv").write_text("".join(f"{p.source}\t{p.target}\n" for p in PAIRS))
    chosen = "{store: store, k: 4, temperature: 0.0001, weight: 0.99}"
    mine = ["evaluate", str(run), "pairs.tsv", "--beam", "1", "--metric", "exact_match", "--format", "json"]

    def score(*options):
        assert not cli.main([*mine, *options])
        return json.loads(capsys.readouterr().out)["scores"]["exact_match"]["value"]

    assert score("--knn", chosen) == 100 and score() == 0
    assert score("--knn", chosen, "--against", str(run)) == 100, "against the run without it"
    assert cli.main([*mine[:3], "--knn", chosen, "--follow"]) == 2
    assert "--knn: cannot be used with --follow" in capsys.readouterr().err


def test_scores_with_a_datastore_leave_those_of_the_run_alone(run, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("evaluations"))
    (tmp_path / "pairs.tsv").write_text("".join(f"{p.source}\t{p.target}\n" for p in PAIRS))
    mine = ["evaluate", "run", "pairs.tsv", "--beam", "1", "--metric", "exact_match"]
    assert not cli.main(mine)
    kept = [tmp_path / "run" / name for name in ("evaluations/pairs/scores.json", "measured.json")]
    before = [path.read_bytes() for path in kept]
    cfg = settings(store, k=3)
    assert not cli.main([*mine, "--knn", json.dumps(to_dict(cfg))])
    assert [path.read_bytes() for path in kept] == before
    with_votes = json.loads((tmp_path / "run/evaluations/pairs-knn/scores.json").read_text())
    assert with_votes["neighbours"] == to_dict(cfg) and json.loads(before[0])["neighbours"] is None
    final, apart = (
        (tmp_path / "run/report.html").read_text().split("<h2>Final figures</h2>")[1].split("<h2>Figures with")
    )
    assert "pairs-knn" not in final and "pairs-knn" in apart and "k 3, temperature" in apart
    shutil.rmtree(tmp_path / "run/evaluations/pairs-knn")
    found = dragoman.evaluate("run", "pairs.tsv", beam=1, metrics=["exact_match"], knn=cfg)
    assert found.neighbours == cfg and found.scores["exact_match"].value == 100
    assert (tmp_path / "run/evaluations/pairs-knn").is_dir() and kept[0].read_bytes() == before[0]


TWO = [("2de", "ein Hund"), ("2es", "un perro")]


def test_a_datastore_knows_translations_by_the_tag_of_their_source(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train(Bytes(), [], [tag_mark(tag) for tag, _ in TWO])
    run = make(tmp_path / "run", MODEL, 1, tokenizer)
    build_datastore(run, [Sourced("one dog", text, "", tag) for tag, text in TWO], tmp_path / "store")
    translator = Translator.load(run, knn=settings(tmp_path / "store"))
    found = translator.translate([Request("one dog", tags=(tag,)) for tag, _ in TWO], beam=1)
    assert [one.text for one in found] == [text for _, text in TWO]
    for tag, text in TWO:
        (tmp_path / f"{tag}.tsv").write_text(f"one dog\t{text}\n")
        assert not cli.main(["datastore", str(run), f"{tag}.tsv", "--tag", tag, "-o", tag])
        build_datastore(run, [Sourced("one dog", text, "", tag)], tmp_path / "same")
        assert np.array_equal(Datastore(tag).keys, Datastore("same").keys)
    (run / "data").mkdir()
    (run / "data/valid.jsonl").write_text("".join(held_out_line(Sourced("one dog", t, "", tag)) for tag, t in TWO))
    parts = json.dumps([{"kind": "part", "tags": [t], "pairs": {"kind": "table", "path": f"{t}.tsv"}} for t, _ in TWO])
    for named in (str(run / "data/valid.jsonl"), parts):
        assert not cli.main(["datastore", str(run), named, "-o", "both"])
        assert np.array_equal(Datastore("both").keys, Datastore("store").keys)


def test_a_datastore_knows_translations_by_the_sentence_before_their_source(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train(Bytes(), [], SEPARATOR[:1])
    run = make(tmp_path / "run", MODEL, 1, tokenizer, context={"kind": "sentences_before", "sentences": 1})
    (tmp_path / "pairs.tsv").write_text("tea\tTee\none dog\tein Hund\n\ncats\tKatzen\none dog\tder Hund\n")
    assert not cli.main(["datastore", str(run), "pairs.tsv", "-o", "store"])
    translator = Translator.load(run, knn=settings(tmp_path / "store"))
    asked = [Request("one dog", context=(before,)) for before in ("tea", "cats")]
    assert [one.text for one in translator.translate(asked, beam=1)] == ["ein Hund", "der Hund"]


def of_an_earlier_version(store):
    manifest = json.loads((store / MANIFEST).read_text())
    del manifest["reads"]
    (store / MANIFEST).write_text(json.dumps(manifest))


def test_an_older_datastore_is_refused_where_the_run_reads_more_than_it_did(tmp_path, capsys):
    marks = {
        "tags": (tag_mark("2de"),),
        "context": SEPARATOR[:1],
        "tags and context": (tag_mark("2de"), *SEPARATOR[:1]),
    }
    for name, marked in marks.items():
        data = {"context": {"kind": "sentences_before", "sentences": 1}} if "context" in name else {}
        run, store = tmp_path / name / "run", tmp_path / name / "store"
        make(run, MODEL, 1, Tokenizer.train(Bytes(), [], marked), **data)
        build_datastore(run, PAIRS, store)
        Translator.load(run, knn=settings(store))
        of_an_earlier_version(store)
        assert cli.main(["translate", str(run), "tea", "--knn", str(store)]) == 2
        told = capsys.readouterr().err
        assert f"store: an earlier version built it without the {name} of sources" in told
        assert "build it again (dragoman datastore)" in told
        if name == "context":
            Translator.load(run, knn=settings(store), context=0)


def test_an_older_datastore_of_a_run_that_reads_sources_alone_is_still_right(tmp_path):
    run = make(tmp_path / "run", MODEL, 1)
    build_datastore(run, PAIRS, tmp_path / "store")
    of_an_earlier_version(tmp_path / "store")
    found = Translator.load(run, knn=settings(tmp_path / "store")).translate(SOURCES, beam=1)
    assert [one.text for one in found] == [pair.target for pair in PAIRS]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("none", "none: no such datastore: `dragoman datastore RUN PAIRS -o none` makes one"),
        (".", ".: is no datastore: `dragoman datastore RUN PAIRS -o .` makes one"),
        ("{store: store, kk: 3}", "--knn: no 'kk' here. Did you mean 'k'?"),
        ("{store: store, weight: 1}", "--knn.weight"),
        ("{store: store, temperature: 0}", "--knn.temperature"),
        ("{k: 3}", "--knn.store"),
        ("{store: store, search: hnsw}", "--knn.search"),
        ("{store: store, search: approximate}", "approximate search"),  # no index, or no library
    ],
    ids=["no store", "another folder", "misspelt", "weight", "temperature", "unnamed", "search", "no index"],
)
def test_a_wrong_choice_is_one_line(chosen, message, run, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(store)
    assert cli.main(["translate", str(run), "tea", "--knn", chosen]) == 2
    assert message in capsys.readouterr().err


def test_an_index_without_the_library_is_refused_before_anything_is_computed(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install faiss-cpu \(the extra retrieval\)"):
        build_datastore(run, PAIRS, tmp_path / "store", index=True)
    assert not (tmp_path / "store").exists()


def test_the_datastore_of_another_model_is_refused(run, store, tmp_path):
    other = make(tmp_path / "other", MODEL, 2)
    with pytest.raises(ConfigError, match=r"was built with another model than that of .*other: build it again"):
        Translator.load(other, knn=settings(store))


def test_damaged_and_foreign_folders_are_refused(run, store, tmp_path):
    build_datastore(run, PAIRS, tmp_path / "store")
    content = bytearray((tmp_path / "store" / "key.ids").read_bytes())
    content[5] ^= 1
    (tmp_path / "store" / "key.ids").write_bytes(content)
    with pytest.raises(DataError, match=r"key\.ids: damaged"):
        Translator.load(run, knn=settings(tmp_path / "store"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="exists and is not"):
        build_datastore(run, PAIRS, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "x"
    with pytest.raises(DataError, match="no pairs to build a datastore of"):
        build_datastore(run, [Pair("", "x")], tmp_path / "empty")


def test_a_language_model_has_no_datastore(tmp_path):
    cfg = {
        "dim": 8,
        "decoder": {"depth": 1, "pattern": [{k: v for k, v in MODEL["decoder"]["pattern"][0].items() if k != "cross"}]},
    }
    with pytest.raises(CheckpointError, match="use `dragoman generate`"):
        build_datastore(make(tmp_path / "lm", cfg, 1), PAIRS, tmp_path / "store")


def test_a_precision_that_the_device_does_not_support_is_refused(run, store):
    with pytest.raises(ConfigError, match="int8 is for CPUs, and this is meta"):
        Translator.load(run, knn=settings(store), precision="int8", device="meta")


def test_threads_that_share_a_model_look_up_their_own_states(run, store, monkeypatch):
    model = Translator.load(run, knn=settings(store)).model
    texts = [torch.tensor([[*BYTES.encode(source), EOS]]) for source in ("one dog", "tea")]

    def step(source):
        with torch.inference_mode(), model.without_dropout():
            return model.decode(torch.tensor([[BOS]]), model.start(source))

    alone, together = [step(source) for source in texts], threading.Barrier(2)
    decode = model.model.decode

    def at_once(*given):
        logits = decode(*given)
        together.wait(20)  # both output layers have run
        return logits

    monkeypatch.setattr(model.model, "decode", at_once)
    found = list(ThreadPoolExecutor(2).map(step, texts))
    assert not torch.equal(*alone)
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other)
