"""Matches by meaning: an encoder's nearest sentences beside those that share words, never a sentence's own, and the
same wherever and however often they are computed."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from test_knn import BYTES, make
from tiny_run import MODEL, write_pairs
from tiny_run import config as tiny_config
from tiny_tasks import ATTENDING, SENTENCE, WRITER, reader

from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.decode.memory_vectors import KEPT, MemoryVectors
from dragoman.decode.sentence_encoder import SentenceEncoder
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.text.fuzzy import FuzzyIndex
from dragoman.text.lines import MATCH, TRANSLATION, Pair, Sourced
from dragoman.text.memory import TranslationMemory
from dragoman.text.retrieval import EncoderCandidates, FuzzyMatches
from dragoman.train import recipe
from dragoman.train.merging import merge_adapters
from dragoman.train.run import resume, start
from dragoman.train.tasks.fuzzy_matches import TrainingVectors


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


MEMORY = [
    Pair("The vehicle halted.", "Das Fahrzeug hielt an."),
    Pair("Open the file.", "Öffne die Datei."),
    Pair("A cat sleeps.", "Eine Katze schläft."),
    Pair("The vehicle halted.", "Das Auto hielt."),
]
MEANINGS = {"car": (1, 0, 0), "vehicle": (1, 0.1, 0), "file": (0, 1, 0), "document": (0, 1, 0.2), "cat": (0, 0, 1)}


class Meanings:
    """Vectors by hand: a sentence means what its one known word means."""

    def __init__(self):
        self.asked = []

    def of_memory(self, texts):
        rows = [
            next((MEANINGS[w] for w in text.casefold().strip(".").split() if w in MEANINGS), (1, 1, 1))
            for text in texts
        ]
        vectors = np.array(rows, np.float32).reshape(-1, 3)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def of_queries(self, texts):
        self.asked += texts
        return self.of_memory(texts)


def matches(text, *, ngrams=True, **how):
    made = FuzzyIndex(MEMORY, Meanings(), ngrams=ngrams)
    return made.find(text, **{"threshold": 0.7, "count": 3, "candidates": 2, "least_cosine": 0.9} | how)


# ---- finding --------------------------------------------------------------------------------------------


def test_a_paraphrase_that_shares_no_words_is_found_by_its_meaning():
    text = "My car stopped"
    assert FuzzyIndex(MEMORY).find(text, threshold=0.7, count=3, candidates=32) == ()
    first, second = matches(text)
    assert (first.source, first.target, first.similarity) == ("The vehicle halted.", "Das Fahrzeug hielt an.", 0.0)
    assert second.target == "Das Auto hielt."
    assert first.cosine == pytest.approx(1 / np.hypot(1, 0.1))


def test_a_similar_sentence_comes_before_one_that_means_the_like():
    pairs = [*MEMORY, Pair("Read that document.", "Lies das Dokument.")]
    index = FuzzyIndex(pairs, Meanings())
    found = index.find("Open the document.", threshold=0.7, count=2, candidates=8, least_cosine=0.9)
    assert [(m.target, m.similarity, m.cosine is None) for m in found] == [
        ("Öffne die Datei.", 0.75, True),
        ("Lies das Dokument.", pytest.approx(0.5), False),
    ]


def test_without_a_least_cosine_candidates_must_be_as_similar_as_others():
    assert matches("My car stopped", least_cosine=None) == ()
    found = matches("Open the document.", least_cosine=None, ngrams=False)
    assert [(m.target, m.cosine) for m in found] == [("Öffne die Datei.", None)]


def test_the_encoder_alone_misses_what_its_vectors_do_not_show():
    text = "Open the cat."
    assert [m.target for m in matches(text, ngrams=False, candidates=1)] == ["Eine Katze schläft."]
    assert [m.target for m in matches(text, candidates=1)] == ["Öffne die Datei.", "Eine Katze schläft."]


def test_all_candidates_are_computed_where_none_are_chosen():
    assert [m.target for m in matches("Open the document.", candidates=None, least_cosine=None)] == ["Öffne die Datei."]
    assert len(matches("My car stopped", candidates=None, least_cosine=-1.0, count=9)) == 4


@pytest.mark.parametrize("text", ["", " ", "\u00a0"])
def test_a_text_of_nothing_is_not_read_by_the_encoder(text):
    vectors = Meanings()
    assert FuzzyIndex(MEMORY, vectors).find(text, threshold=0.1, count=3, candidates=8, least_cosine=0.1) == ()
    assert vectors.asked == []


def test_an_empty_memory_has_no_matches():
    index = FuzzyIndex([], Meanings())
    assert index.find("My car stopped", threshold=0.1, count=3, candidates=8, least_cosine=0.1) == ()


def test_texts_asked_for_together_have_the_matches_of_each_alone():
    texts, how = ["My car stopped", "", "Open the document.", "My car stopped", "a cat"], {"threshold": 0.5, "count": 2}
    index = FuzzyIndex(MEMORY, Meanings())
    together = index.find_all(texts, **how, candidates=3, least_cosine=0.8)
    assert together == [index.find(text, **how, candidates=3, least_cosine=0.8) for text in texts]
    assert sum(map(bool, together)) == 4


def test_a_pair_is_never_its_own_match_by_meaning_either():
    cfg = FuzzyMatches(threshold=0.9, matches=9, encoder=EncoderCandidates(threshold=0.5))
    pairs = [Sourced(*pair, "x") for pair in [*MEMORY, Pair("My car stopped", "Mein Auto hielt an")]]
    made = cfg.index([pair.pair for pair in pairs], Meanings())
    attached = [cfg.attach(pair, made).matches for pair in pairs]
    assert attached[0] == attached[3] == (("My car stopped", "Mein Auto hielt an"),)
    assert {texts[1] for texts in attached[4]} == {"Das Fahrzeug hielt an.", "Das Auto hielt."}


def test_a_match_by_meaning_is_read_with_its_source_and_a_similar_one_without():
    cfg = FuzzyMatches(matches=2, encoder=EncoderCandidates(threshold=0.9))
    index = cfg.index([*MEMORY, Pair("Read that document.", "Lies das Dokument.")], Meanings())
    (found,) = cfg.search(index, ["Open the document."])
    assert cfg.shown(found) == (("Read that document.", "Lies das Dokument."), ("Öffne die Datei.",))
    assert cfg.marks == (MATCH[0], TRANSLATION[0])
    assert FuzzyMatches(encoder=EncoderCandidates()).marks == MATCH[:1]


# ---- the encoder of a run -------------------------------------------------------------------------------


TEXTS = ["one dog", "two cats", "a house and a tree", "tea", "one dog and two cats"]
STACK = {"cell": "gru", "depth": 1}
RECURRENT = {"kind": "recurrent", "dim": 8, "encoder": STACK, "decoder": STACK, "attention": "luong"}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    return make(tmp_path_factory.mktemp("earlier") / "run", MODEL, 1)


def test_an_encoder_whose_output_is_not_numbers_gives_no_vectors(earlier):
    encoder = SentenceEncoder.load(earlier)
    with torch.no_grad():
        next(encoder.pool.args[0].parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="the model answers with NaN or infinity"):
        encoder.vectors(TEXTS)


def test_vectors_have_length_1_and_unlike_sentences_are_far_apart(earlier):
    encoder = SentenceEncoder.load(earlier)
    vectors = encoder.centre(TEXTS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert encoder.vectors(TEXTS) == pytest.approx(vectors, abs=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[~np.eye(5, dtype=bool)].mean() < 0.1  # without the mean vector all would be near 1


def test_a_vector_is_the_mean_of_the_states_of_its_tokens(earlier):
    encoder = SentenceEncoder.load(earlier)
    run = RunDirectory.open(earlier)
    model = from_dict(recipe.ModelConfig, run.config["model"]).build().eval()
    model.load_state_dict(run.weights("last").tensors["model"])
    ids = torch.tensor([[*BYTES.encode("two cats"), 2]])
    with torch.inference_mode():
        mean = model.encode(ids).x[0].mean(dim=0)
    assert encoder.vectors(["two cats"])[0] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    together = encoder.vectors(TEXTS)
    assert together[1] == pytest.approx(encoder.vectors(["two cats"])[0], abs=1e-5)


@pytest.mark.parametrize(
    "model", [RECURRENT, reader("masked_language"), SENTENCE], ids=["recurrent", "encoder", "sentence vectors"]
)
def test_other_families_have_vectors_too(model, tmp_path):
    encoder = SentenceEncoder.load(make(tmp_path / "run", model, 1))
    assert encoder.centre(TEXTS).shape == (5, 8)


def test_an_encoder_that_was_kept_has_the_same_vectors(earlier, tmp_path):
    encoder = SentenceEncoder.load(earlier)
    vectors = encoder.centre(TEXTS)
    encoder.save(tmp_path / "kept")
    kept = SentenceEncoder.open(tmp_path / "kept")
    assert kept.identity == encoder.identity
    assert (kept.vectors(TEXTS) == vectors).all()
    (tmp_path / "kept" / "mean.npy").write_bytes(b"?")
    with pytest.raises(DataError, match=r"mean\.npy: cannot be read"):
        SentenceEncoder.open(tmp_path / "kept")


@pytest.mark.parametrize("model", [WRITER, ATTENDING], ids=["language model", "convolutional"])
def test_a_run_without_such_an_encoder_is_refused(model, tmp_path):
    with pytest.raises(CheckpointError, match="has no encoder that reads texts as a whole: name a Transformer"):
        SentenceEncoder.load(make(tmp_path / "run", model, 1))


def test_training_reads_each_sentence_once(earlier):
    encoder = SentenceEncoder.load(earlier)
    read, pool = [], encoder.pool
    encoder.pool = lambda texts: (read.append(list(texts)), pool(texts))[1]
    vectors = TrainingVectors(encoder, ["tea", "one dog", "tea", " one  dog "])
    assert read == [["tea", "one dog"]]
    assert (vectors.of_memory(["one dog", "tea"])[::-1] == vectors.of_queries(["tea", "one dog"])).all()


# ---- vectors that are kept ------------------------------------------------------------------------------


@pytest.fixture
def counted(earlier):
    """Return an encoder, and the texts that it has read."""
    encoder = SentenceEncoder.load(earlier)
    encoder.centre(TEXTS)
    read, pool = [], encoder.pool
    encoder.pool = lambda texts: (read.extend(texts), pool(texts))[1]
    return encoder, read


def test_the_vectors_of_a_memory_are_computed_once(counted, tmp_path):
    encoder, read = counted
    first = MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS)
    assert (MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS) == first).all()
    assert read == TEXTS
    assert not [path for path in (tmp_path / "vectors").iterdir() if path.suffix != ".vectors"]
    MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS[:2])
    assert read == [*TEXTS, *TEXTS[:2]]


def damage(path, encoder):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def cut(path, encoder):
    path.write_bytes(path.read_bytes()[:-8])


def empty(path, encoder):
    path.write_bytes(b"")


def belong_to_another(path, encoder):
    header, _, content = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(header) | {"encoder": "0" * 64}).encode() + b"\n" + content)


@pytest.mark.parametrize("spoil", [damage, cut, empty, belong_to_another])
def test_a_file_that_is_not_what_it_should_be_is_not_used(spoil, counted, tmp_path):
    encoder, read = counted
    vectors = MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS)
    (path,) = (tmp_path / "vectors").iterdir()
    whole = path.read_bytes()
    spoil(path, encoder)
    assert (MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS) == vectors).all()
    assert read == TEXTS * 2
    assert path.read_bytes() == whole


def test_another_mean_vector_is_another_encoder(counted, tmp_path):
    encoder, _ = counted
    MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS)
    encoder.centre(TEXTS[:3])
    MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS)
    assert len(list((tmp_path / "vectors").iterdir())) == 2


def test_only_the_newest_files_are_kept(counted, tmp_path):
    encoder, _ = counted
    vectors = MemoryVectors(encoder, tmp_path / "vectors")
    for i in range(KEPT + 2):
        vectors.of_memory([f"text {i}"])
        for age, path in enumerate(sorted((tmp_path / "vectors").iterdir(), key=os.path.getmtime, reverse=True)):
            os.utime(path, (1000 - age, 1000 - age))
    assert len(list((tmp_path / "vectors").iterdir())) == KEPT


def test_where_nothing_can_be_kept_matches_are_found_all_the_same(counted, tmp_path):
    encoder, read = counted
    (tmp_path / "vectors").write_text("a file, and no folder")
    assert MemoryVectors(encoder, tmp_path / "vectors").of_memory(TEXTS).shape == (5, 8)
    assert read == TEXTS


# ---- training and translating -----------------------------------------------------------------------------


def config(folder, encoder, start_from=None):
    cfg = to_dict(tiny_config(write_pairs(folder / "pairs.tsv", 40)))
    cfg["data"]["retrieval"] = {"kind": "fuzzy_matches", "threshold": 0.9, "encoder": encoder}
    cfg["train"]["budget"] = {"kind": "steps", "steps": 2}
    if start_from:
        cfg = {"data": cfg["data"], "train": cfg["train"], "start_from": start_from}
    return recipe.load(cfg)


@pytest.fixture(scope="module")
def trained(earlier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    named = shutil.copytree(earlier, folder / "named", symlinks=True)
    for event in start(config(folder, {"run": str(named), "threshold": 0.3}), folder / "run").events():
        if getattr(event, "step", 0) >= 1:
            break
    shutil.rmtree(named)
    list(resume(folder / "run").events())  # which needs no other run
    return folder / "run"


def test_a_run_learns_from_matches_by_meaning_and_says_how_many(trained):
    train = json.loads((trained / "data" / "report.json").read_text())["matches"]["train"]
    assert 0 < train["by meaning alone"] <= train["with matches"] <= train["pairs"]


def test_translating_finds_the_matches_that_training_would(trained):
    pairs = [Pair(*line.split("\t")) for line in (trained.parent / "pairs.tsv").read_text().splitlines()]
    translator = Translator.load(trained, "last", memory=TranslationMemory(pairs))
    texts = ["the red house", "one blue cat", "n1 n2"]
    together = translator.translate(texts, beam=1)
    assert [t.matches for t in together] == [translator.translate([text], beam=1)[0].matches for text in texts]
    assert any(match.cosine is not None for t in together for match in t.matches)
    assert len(list((trained / "vectors").iterdir())) == 1
    again = Translator.load(trained, "last", memory=TranslationMemory(pairs)).translate(texts, beam=1)
    assert [t.matches for t in again] == [t.matches for t in together]


def test_a_report_tells_matches_by_meaning_from_others(trained, tmp_path):
    (tmp_path / "en.json").write_text(json.dumps({"a": "the red house", "b": "one blue cat"}))
    options = ("-o", tmp_path / "de.json", "--memory", trained.parent / "pairs.tsv", "--report", tmp_path / "r.html")
    assert not cli.main(["translate", *map(str, (trained, tmp_path / "en.json", *options, "--beam", 1))])
    assert "model, with a match by meaning (cosine 0." in (tmp_path / "r.html").read_text()


def test_a_run_is_resumed_without_the_encoder_that_it_was_begun_with(trained):
    assert not (trained.parent / "named").exists()
    assert RunDirectory.open(trained).load("last").progress["step"] == 2


def test_a_run_of_adapters_takes_the_encoder_it_starts_from_and_keeps_it_when_merged(trained, tmp_path):
    adapters = {"run": str(trained), "lora": {"rank": 1, "targets": ["*"]}}
    list(start(config(tmp_path, {"threshold": 0.3}, adapters), tmp_path / "run").events())
    merge_adapters(tmp_path / "run", tmp_path / "merged", "last")
    theirs = RunDirectory.open(trained).weights("best").tensors["model"]
    for run in ("run", "merged"):
        kept = RunDirectory.open(tmp_path / run / "data" / "encoder").weights("last").tensors["model"]
        assert all(torch.equal(kept[name], theirs[name]) for name in theirs)
    memory = TranslationMemory([Pair("the red house", "x")])
    (found,) = Translator.load(tmp_path / "merged", "last", memory=memory).translate(["the red houses"], beam=1)
    assert [match.target for match in found.matches] == ["x"]


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, r"data\.retrieval\.encoder\.threshold"),
        ({"search": "hnsw"}, r"data\.retrieval\.encoder\.search"),
        ({"ngram": False}, "Did you mean 'ngrams'"),
    ],
    ids=["threshold", "search", "misspelt"],
)
def test_a_wrong_setting_is_refused_with_its_path(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, settings)


def test_a_run_that_is_yet_to_be_trained_must_be_given_an_encoder(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.retrieval\.encoder\.run: must be given: a run that is yet"):
        list(start(config(tmp_path, {}), tmp_path / "run").events())


def test_an_encoder_that_is_missing_is_refused_before_the_text_is_read(tmp_path):
    cfg = config(tmp_path, {"run": str(tmp_path / "none")})
    (tmp_path / "pairs.tsv").unlink()
    with pytest.raises(CheckpointError, match=r"data\.retrieval\.encoder\.run: .*none: no such run directory"):
        list(start(cfg, tmp_path / "run").events())


def test_approximate_search_without_the_library_is_refused_before_the_text_is_read(earlier, tmp_path, monkeypatch):
    cfg = config(tmp_path, {"run": str(earlier), "search": "approximate"})
    (tmp_path / "pairs.tsv").unlink()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"data\.retrieval\.encoder\.search: approximate search needs faiss"):
        list(start(cfg, tmp_path / "run").events())


def test_an_encoder_of_another_language_is_refused(tmp_path, earlier):
    named = shutil.copytree(earlier, tmp_path / "named", symlinks=True)
    written = RunDirectory.open(named)
    written.write_config(written.config | {"data": {"cleaning": {"source_language": "fr"}}})
    cfg = to_dict(config(tmp_path, {"run": str(named)}))
    cfg["data"]["cleaning"]["source_language"] = "en"
    with pytest.raises(ConfigError, match=r"named reads fr, and the sources of this run are in en"):
        list(start(recipe.load(cfg), tmp_path / "run").events())


def test_a_run_that_lost_its_encoder_translates_without_a_memory_alone(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "data" / "encoder")
    assert cli.main(["translate", str(run), "the red house", "--beam", "1"]) == 0
    capsys.readouterr()
    memory = str(trained.parent / "pairs.tsv")
    assert cli.main(["translate", str(run), "the red house", "--memory", memory]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data/encoder: the encoder that finds matches for this run is missing" in line
