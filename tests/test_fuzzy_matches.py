"""Fuzzy matches of a translation memory: found exactly, never a sentence's own, and copied from by a model that has
learnt to read them."""

import json
import sys

import numpy as np
import pytest
import torch

from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.config import merge
from dragoman.data.batch import collate
from dragoman.data.match_dropout import drop_matches
from dragoman.data.pretraining import CorruptedRows
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.text.corpus import ParallelCorpus, source_rows
from dragoman.text.fuzzy import FuzzyIndex
from dragoman.text.held_out import held_out_line, read_held_out
from dragoman.text.lines import MATCH, TRANSLATION, Pair, Sourced
from dragoman.text.memory import TranslationMemory
from dragoman.text.retrieval import FuzzyMatches
from dragoman.text.tokens.tokenizer import EOS, Tokenizer, tag_mark
from dragoman.text.tokens.training import Bytes
from dragoman.train import recipe
from dragoman.train.run import resume, start

MEMORY = [
    ("Open the file.", "Öffne die Datei."),
    ("Open the folder.", "Öffne den Ordner."),
    ("Close all windows now.", "Schließe jetzt alle Fenster."),
    ("Delete {name}?", "{name} löschen?"),
    ("打开文件", "Open the file"),
]


def index(pairs=MEMORY):
    return FuzzyIndex([Pair(*pair) for pair in pairs])


def find(text, pairs=MEMORY, **how):
    return index(pairs).find(text, **{"threshold": 0.5, "count": 3, "candidates": None} | how)


# ---- finding --------------------------------------------------------------------------------------------


def test_similarity_counts_edits_of_words_and_signs():
    assert [(m.source, m.similarity) for m in find("Open the door.")] == [
        ("Open the file.", 0.75),
        ("Open the folder.", 0.75),
    ]
    assert find("OPEN THE FILE.")[0].similarity == 1.0
    assert find("Good morning") == ()


def test_a_script_without_spaces_counts_characters():
    assert [m.similarity for m in find("打开文档")] == [0.75]


def test_a_match_has_the_placeholders_of_the_text():
    assert find("Delete {file}?")[0].target == "{file} löschen?"


@pytest.mark.parametrize("target", ["Borrar %1$s ya", "Borrar %s ya, {x}", "Borrar ya"])
def test_a_pair_whose_sides_have_other_placeholders_matches_with_its_translation_as_it_is(target):
    found = find("Delete %d now", [*MEMORY, ("Delete %s now", target)])
    assert [match.target for match in found] == [target]


@pytest.mark.parametrize("text", ["", " ", "?", "{name}", "\u00a0", "🙂"])
def test_a_text_of_almost_nothing_has_no_match(text):
    assert find(text, candidates=8) == () == find(text)


def test_candidates_by_ngrams_find_what_exact_search_finds():
    draw = np.random.default_rng(1)
    words = [f"w{i}" for i in range(60)]
    pairs = [(" ".join(draw.choice(words, 8)), str(i)) for i in range(400)]
    made, found = index(pairs), 0
    for source, target in pairs[:100]:
        query = " ".join(word if draw.random() > 0.15 else "new" for word in source.split())
        exact, fast = (made.find(query, threshold=0.5, count=1, candidates=n) for n in (None, 32))
        assert fast == exact
        found += exact[0].target == target if exact else 0
    assert found > 90


def test_matches_of_a_text_do_not_depend_on_the_order_of_questions():
    made, asked = index(), ["Open the door.", "Close the windows now.", "Delete {x}?"]
    alone = [FuzzyIndex([Pair(*pair) for pair in MEMORY]).find(t, threshold=0.3, count=2, candidates=8) for t in asked]
    assert [made.find(t, threshold=0.3, count=2, candidates=8) for t in reversed(asked)] == alone[::-1]


def test_a_pair_is_never_its_own_match():
    pairs = [Sourced(*pair, "x") for pair in [*MEMORY, ("Open the file.", "Datei öffnen.")]]
    cfg, index_of_all = FuzzyMatches(threshold=0.4, matches=4), FuzzyIndex([pair.pair for pair in pairs])
    attached = [cfg.attach(pair, index_of_all) for pair in pairs]
    own = [texts for pair in attached if pair.source == "Open the file." for texts in pair.matches]
    assert own == [("Öffne den Ordner.",)] * 2


def test_a_prefix_before_a_text_does_not_hide_that_a_pair_is_its_own():
    pair = Sourced("translate English to German: Open the file.", "x", "x")
    attached = FuzzyMatches(threshold=0.2, matches=4).attach(pair, index())
    assert attached.matches == (("Öffne den Ordner.",),)


# ---- reading --------------------------------------------------------------------------------------------


MARKED = Tokenizer.train(Bytes(), [], [tag_mark("de"), *MATCH, *TRANSLATION, "⟨sep⟩"])
END, BETWEEN, TAG = MARKED.mark(*MATCH), MARKED.mark(*TRANSLATION), MARKED.tag("de")


def ids(text):
    return MARKED.encode(text)


def test_matches_stand_between_tags_and_context_and_the_best_is_nearest():
    pair = Sourced("c", "C", "", "de", ("b",), (("far",), ("near",)))
    row = [TAG, *ids("far"), END, *ids("near"), END, *ids("b"), MARKED.mark("⟨sep⟩"), *ids("c"), EOS]
    assert source_rows(MARKED, [pair]) == [row]
    both = source_rows(MARKED, [pair._replace(matches=(("s", "t"),))])[0]
    assert both[1:6] == [*ids("s"), BETWEEN, *ids("t"), END, *ids("b")]


def test_a_match_that_does_not_fit_is_left_out():
    pair = Sourced("abc", "x", "", "", (), (("1234567",), ("12",)))
    whole = source_rows(MARKED, [pair])[0]
    assert source_rows(MARKED, [pair], len(whole))[0] == whole
    assert source_rows(MARKED, [pair], len(whole) - 1)[0] == whole[len(ids("1234567")) + 1 :]


def test_held_out_pairs_keep_their_matches(tmp_path):
    pairs = [Sourced("a", "A", "", "", (), (("s", "t"), ("u", "v"))), Sourced("b", "B", "")]
    (tmp_path / "valid.jsonl").write_text("".join(map(held_out_line, pairs)))
    assert read_held_out(tmp_path / "valid.jsonl") == pairs


def test_match_dropout_is_a_function_of_seed_step_and_row(tmp_path):
    pairs = [Sourced(f"a{i}", "A", "", "de", ("b",), (("match",),)) for i in range(200)]
    corpus = ParallelCorpus.build(tmp_path / "corpus", pairs, MARKED, MARKED)
    cfg = FuzzyMatches(without=0.25)

    def dropped(rows, step):
        rows = np.array(rows)
        batch = drop_matches(collate(corpus, rows), CorruptedRows(rows, step), cfg, 7, MARKED)
        plain = source_rows(MARKED, [pairs[row]._replace(matches=()) for row in rows])
        lost = []
        for row, ids, without in zip(rows.tolist(), batch.source.tolist(), plain, strict=True):
            real = [one for one in ids if one]
            assert real in (without, corpus[row][0].tolist())
            lost += [row] if real == without else []
        return lost

    some = dropped(range(200), 3)
    assert 30 < len(some) < 70
    assert dropped(range(200), 3) == some != dropped(range(200), 4)
    assert dropped([199, 5, 17], 3) == [row for row in (199, 5, 17) if row in some]


# ---- learning -------------------------------------------------------------------------------------------


WORDS = {"red": "rot", "blue": "blau", "green": "grün", "big": "groß", "small": "klein", "old": "alt", "new": "neu"}
NAMES = [f"{letter}on" for letter in "bdfgklmnprstvwxz"]
PARTS = [letter + vowel for letter in "bdfgklmnpr" for vowel in "aeio"]  # digits would count as alike when holding out


STEPS = 220


def clusters(first, count):
    """Sentences about products whose names in the other language nobody could guess; each product has two sentences."""
    draw = np.random.default_rng(1)
    codes, names = draw.permutation(len(PARTS) ** 2), draw.integers(len(NAMES), size=len(PARTS) ** 2)
    pairs = []
    for code, name in zip(codes[first : first + count], names[first:], strict=False):
        product = f"{PARTS[code // 40]} {PARTS[code % 40]}"
        for word in draw.choice(list(WORDS), 2, replace=False):
            pairs.append((f"{product} {product} is {word}", f"{NAMES[name]} ist {WORDS[str(word)]}"))
    return pairs


BLOCK = {
    "mixer": {"heads": 4, "visibility": "causal"},
    "mlp": {"kind": "feed_forward", "hidden": 32},
    "norm": "layer_norm",
}
FULL = {"heads": 4, "visibility": "full"}
MODEL = {
    "dim": 32,
    "encoder": {"depth": 1, "pattern": [merge(BLOCK, {"mixer": FULL})], "final_norm": "layer_norm"},
    "decoder": {"depth": 1, "pattern": [BLOCK | {"cross": FULL}], "final_norm": "layer_norm"},
    "position": "sinusoidal",
    "scale_embedding": True,
}


def config(path, **changes):
    data = {
        "data": {
            "train": [{"kind": "table", "path": str(path)}],
            "hold_out": {"test": 8, "valid": 8, "near": None},
            "cleaning": {"copies": "keep"},
            "retrieval": {"kind": "fuzzy_matches", "threshold": 0.8, "without": 0.1},
        },
        "tokenizer": {"kind": "words", "vocab": 700},
        "task": {"kind": "translation", "label_smoothing": 0.0},
        "model": MODEL,
        "train": {
            "budget": {"kind": "steps", "steps": STEPS},
            "schedule": {"kind": "cosine", "peak": 5e-3, "warmup": 30},
            "batch_tokens": 1200,
            "validate_every": STEPS,
            "save_every": STEPS,
            "precision": "float32",
            "products": "torch",
        },
    }
    return recipe.load(merge(data, changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzy")
    pairs = clusters(0, 1200)
    (folder / "pairs.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in pairs))
    list(start(config(folder / "pairs.tsv"), folder / "run").events())
    return folder / "run"


NEW = clusters(1500, 30)


QUESTIONS = [source for source, _ in NEW[1::2]]
ANSWERS = [target for _, target in NEW[1::2]]


@pytest.fixture(scope="module")
def memory_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "team.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in NEW[::2]))
    return path


@pytest.fixture(scope="module")
def translators(trained, memory_file):
    return Translator.load(trained), Translator.load(trained, memory=TranslationMemory.read([str(memory_file)]))


def test_with_matches_a_model_copies_what_it_cannot_know(translators):
    without, with_memory = ([t.text for t in each.translate(QUESTIONS, beam=1)] for each in translators)
    right = [text == answer for text, answer in zip(with_memory, ANSWERS, strict=True)]
    guessed = [text == answer for text, answer in zip(without, ANSWERS, strict=True)]
    known = [text.split()[1:] == answer.split()[1:] for text, answer in zip(without, ANSWERS, strict=True)]
    assert sum(right) >= 27
    assert sum(guessed) <= 8
    assert sum(known) >= 25  # and what it has learnt it translates either way


def test_a_batch_with_matches_equals_each_text_alone(translators):
    _, translator = translators
    texts = [*QUESTIONS[:6], "is red", "nothing like it"]
    for beam in (1, 3):
        together = translator.translate(texts, beam=beam, batch_tokens=64)
        alone = [translator.translate([text], beam=beam)[0] for text in texts]
        assert [t.text for t in together] == [t.text for t in alone]
        assert [t.matches for t in together] == [t.matches for t in alone]
        assert sum(bool(t.matches) for t in together) == 6


def run(*arguments):
    return cli.main(["translate", *map(str, arguments)])


def test_lines_are_translated_with_the_memory_and_say_so(trained, memory_file, capsys, tmp_path):
    (tmp_path / "in.txt").write_text(f"{QUESTIONS[0]}\n{NEW[0][0]}\n\nis red\n")
    assert not run(trained, tmp_path / "in.txt", "--memory", memory_file, "--beam", 1, "--format", "json")
    fuzzy, exact, empty, none = map(json.loads, capsys.readouterr().out.splitlines())
    assert fuzzy["text"] == ANSWERS[0]
    found = {"source": NEW[0][0], "target": NEW[0][1], "similarity": pytest.approx(5 / 6), "cosine": None}
    assert fuzzy["matches"] == [found]
    assert exact["text"] == NEW[0][1]
    assert exact["matches"][0]["similarity"] == 1.0
    assert (empty["matches"], none["matches"]) == ([], [])


def test_documents_tell_which_entries_had_a_match(trained, memory_file, capsys, tmp_path):
    texts = {"a": QUESTIONS[0], "b": NEW[0][0], "c": "is red"}
    (tmp_path / "en.json").write_text(json.dumps(texts))
    output, report = tmp_path / "de.json", tmp_path / "report.html"
    options = ("-o", output, "--memory", memory_file, "--beam", 1, "--report", report)
    assert not run(trained, tmp_path / "en.json", *options)
    filled = json.loads(output.read_text())
    assert (filled["a"], filled["b"]) == (ANSWERS[0], NEW[0][1])
    assert "(1 from memory) (1 by the model with fuzzy matches)" in capsys.readouterr().err
    assert "model, with a match of 83%" in report.read_text()


def test_held_out_pairs_are_evaluated_with_their_matches(trained):
    held_out = [pair for name in ("valid", "test") for pair in read_held_out(trained / "data" / f"{name}.jsonl")]
    assert any(pair.matches for pair in held_out)
    counts = json.loads((trained / "data" / "report.json").read_text())["matches"]
    assert counts["train"]["with matches"] > 0.5 * counts["train"]["pairs"]


def tiny(path, **changes):
    return config(path, **merge({"train": {"budget": {"steps": 12}, "validate_every": 4, "save_every": 3}}, changes))


def test_a_resumed_run_with_matches_equals_an_uninterrupted_one(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in clusters(0, 60)))
    few = {"data": {"hold_out": {"test": 2, "valid": 2}, "retrieval": {"without": 0.5, "layout": "pair"}}}
    list(start(tiny(path, **few), tmp_path / "whole").events())
    for event in start(tiny(path, **few), tmp_path / "cut").events():
        if getattr(event, "step", 0) >= 7:
            break
    list(resume(tmp_path / "cut").events())
    whole, cut = (RunDirectory.open(tmp_path / name).load("last").tensors["model"] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


# ---- refusals ---------------------------------------------------------------------------------------------


def test_a_run_without_any_match_says_what_to_do(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("one two\teins zwei\nthree four\tdrei vier\nfive six\tfünf sechs\nseven ten\tsieben zehn\n")
    cfg = config(path, data={"hold_out": {"test": 0, "valid": 0}})
    with pytest.raises(DataError, match=r"data\.retrieval: no training pair has a match of similarity 0\.8 or more"):
        list(start(cfg, tmp_path / "run").events())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0}, r"data\.retrieval\.threshold"),
        ({"matches": 0}, r"data\.retrieval\.matches"),
        ({"layout": "both"}, r"data\.retrieval\.layout"),
        ({"treshold": 0.5}, r"Did you mean 'threshold'"),
    ],
    ids=["threshold", "matches", "layout", "misspelt"],
)
def test_a_wrong_setting_is_refused_with_its_path(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path / "pairs.tsv", data={"retrieval": changes})


def test_a_missing_memory_is_refused_before_training(tmp_path, trained, capsys):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in clusters(0, 20)))
    cfg = config(path, data={"retrieval": {"memory": [{"kind": "table", "path": str(tmp_path / "none.tsv")}]}})
    with pytest.raises(DataError, match=r"none\.tsv: no such file"):
        list(start(cfg, tmp_path / "run").events())
    assert run(trained, "some text", "--memory", tmp_path / "none.tsv") == 2
    assert "none.tsv" in capsys.readouterr().err


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(ConfigError, match=r"pip install rapidfuzz \(the extra retrieval\)"):
        index()
