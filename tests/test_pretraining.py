"""Corrupted text: nothing of it is lost, as much is hidden as was asked for, and what was hidden is learned."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_run import ATTENTION, BLOCK, outcome

from dragoman.checkpoint import RunDirectory
from dragoman.config import merge, to_dict
from dragoman.data.corruption import (
    CorruptionVocabulary,
    Masking,
    RandomDraw,
    SpanCorruption,
    TextInfilling,
    corrupt_texts,
    marks,
    poisson,
)
from dragoman.data.packing import IGNORE, Packed, RowBatches
from dragoman.data.pretraining import CorruptedRows, DocumentRows, FreshlyCorrupted, hide, mask
from dragoman.data.tasks import MaskedLanguageModellingTask
from dragoman.errors import ConfigError
from dragoman.text.store import Store, create_store
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train import recipe
from dragoman.train.events import Saved, Validated
from dragoman.train.run import resume, start

LONGEST = 400
SPANS, INFILLING, MASKING = SpanCorruption(), TextInfilling(), Masking()
VOCABULARIES = {
    cfg: CorruptionVocabulary(Tokenizer.train(Bytes(), [], marks(cfg, LONGEST)), cfg, LONGEST)
    for cfg in (SPANS, INFILLING, MASKING)
}
TEXTS = st.lists(st.integers(3, 258), min_size=1, max_size=60).map(lambda ids: np.array(ids, np.int64))
SEEDS = st.integers(0, 1000)


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield


# ---- corruptions -------------------------------------------------------------------------------------


@given(ids=TEXTS, seed=SEEDS)
def test_spans_and_what_is_left_make_the_text(ids, seed):
    vocabulary = VOCABULARIES[SPANS]
    read, written = SPANS.corrupt(ids, RandomDraw([seed]), vocabulary)
    gaps, lost, whole = set(vocabulary.gaps.tolist()), {}, []
    for one in written.tolist():
        if one in gaps:
            lost[mark := one] = []
        else:
            lost[mark].append(one)
    assert all(lost.values()) and list(lost) == vocabulary.gaps[: len(lost)].tolist(), "marks in their order"
    for one in read.tolist():
        whole += lost[one] if one in gaps else [one]
    assert whole == ids.tolist()
    lengths = [int(side[0]) for side in SPANS.lengths(np.array([len(ids)]))]
    assert [len(read) + 1, len(written) + 1] == lengths
    assert sum(map(len, lost.values())) == max(1, min(round(0.15 * len(ids)), max(len(ids) - 1, 1)))


@given(ids=TEXTS, seed=SEEDS)
def test_what_infilling_leaves_stands_in_the_text_in_its_order(ids, seed):
    cfg, vocabulary = TextInfilling(permute=False), VOCABULARIES[INFILLING]
    read, written = cfg.corrupt(ids, RandomDraw([seed]), vocabulary)
    assert written.tolist() == ids.tolist()
    rest = iter(ids.tolist())
    kept = [one for one in read.tolist() if one != vocabulary.mask]
    assert all(one in rest for one in kept)  # a subsequence
    assert len(ids) - len(kept) == round(0.3 * len(ids))


def test_sentences_change_places_and_stay_whole():
    tokenizer, vocabulary = Tokenizer.train(Bytes(), []), VOCABULARIES[INFILLING]
    cfg = TextInfilling(share=0.001)
    ids = np.array(tokenizer.encode("One is here. Two is there! Three?"), np.int64)
    found = {tokenizer.decode(cfg.corrupt(ids, RandomDraw([seed]), vocabulary)[0]) for seed in range(50)}
    assert len(found) == 6 and all(
        sorted(text.replace("!", "!|").replace("?", "?|").replace("e.", "e.|").split("|"))
        == ["", " Three?", " Two is there!", "One is here."]
        for text in found
    )


def test_of_the_chosen_tokens_most_are_masked_some_exchanged_and_some_stay():
    vocabulary = VOCABULARIES[MASKING]
    ids = np.array([BOS, *np.full(40_000, 77), EOS], np.int64)
    read, targets = MASKING.corrupt(ids, RandomDraw([1]), vocabulary)
    chosen = targets != IGNORE
    assert chosen.sum() == 6000 and (targets[chosen] == 77).all() and (read[~chosen] == ids[~chosen]).all()
    masked, same = (read[chosen] == vocabulary.mask).sum(), (read[chosen] == 77).sum()
    other = 6000 - masked - same
    assert stats.chisquare([masked, other, same], [4800, 600, 600]).pvalue > 0.001
    assert vocabulary.is_text[read[chosen][read[chosen] != vocabulary.mask]].all(), "no mark is put in by chance"


def test_spans_are_as_long_as_poisson_has_them():
    drawn = poisson(3.0, RandomDraw([1]).uniform(20_000))
    expected = 20_000 * stats.poisson.pmf(np.arange(12), 3.0)
    found = np.bincount(np.minimum(drawn, 12), minlength=13)
    assert stats.chisquare(found, [*expected, 20_000 - expected.sum()]).pvalue > 0.001


def test_hidden_places_are_everywhere_alike():
    ids = np.arange(3, 43)
    hits = np.zeros(40)
    for seed in range(2000):
        read, _ = SPANS.corrupt(ids, RandomDraw([seed]), VOCABULARIES[SPANS])
        hits += ~np.isin(ids, read)
    middle = hits[6:-6] / 2000
    assert abs(middle.mean() - 0.15) < 0.02 and middle.std() < 0.02


def test_a_text_without_text_is_left_alone():
    for cfg in (SPANS, INFILLING):
        read, written = corrupt_texts([np.array([BOS, EOS])], [RandomDraw([1])], cfg, VOCABULARIES[cfg])
        assert read[0].tolist() == written[0].tolist() == [EOS]


def test_a_tokenizer_without_marks_is_named():
    for cfg, missing in ((SPANS, "⟨gap 0⟩"), (MASKING, "⟨mask⟩")):
        with pytest.raises(ConfigError, match=f"tokenizer: has no {missing}"):
            CorruptionVocabulary(Tokenizer.train(Bytes(), []), cfg, 100)


# ---- batches -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    draw = np.random.default_rng(0)
    documents = [[BOS, *draw.integers(3, 250, n).tolist(), EOS] for n in draw.integers(1, 50, 60)]
    folder = tmp_path_factory.mktemp("store") / "text"
    with create_store(folder, {"text": 1000}) as built:
        built.write(text=documents)
    return Store.open(folder)


def test_batches_hold_all_of_the_text_and_are_corrupted_anew_each_epoch(store):
    text = store.columns["text"]
    plan = FreshlyCorrupted(RowBatches(Packed(text, 24, 0), 4, seed=1))
    epochs = []
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        batches = [mask(text, rows, 1, MASKING, VOCABULARIES[MASKING]) for step in steps for rows in plan.at(step)]
        restored = torch.cat([torch.where(b.targets != IGNORE, b.targets, b.ids).flatten() for b in batches])
        assert sorted(restored[restored != PAD].tolist()) == sorted(text.ids.tolist())
        epochs.append(sorted(int((b.targets != IGNORE).sum()) for b in batches))
        again = mask(text, plan.at(0)[0], 1, MASKING, VOCABULARIES[MASKING])
        assert torch.equal(again.ids, mask(text, plan.at(0)[0], 1, MASKING, VOCABULARIES[MASKING]).ids)
    row = plan.at(0)[0].rows
    ids = [
        mask(text, CorruptedRows(row, step), 1, MASKING, VOCABULARIES[MASKING]).ids
        for step in (0, plan.steps_per_epoch)
    ]
    assert not torch.equal(*ids)


@pytest.mark.parametrize("cfg", [SPANS, INFILLING], ids=["spans", "infilling"])
def test_what_is_hidden_of_a_row_does_not_depend_on_the_rows_beside_it(store, cfg):
    text, vocabulary = store.columns["text"], VOCABULARIES[cfg]
    pieces = DocumentRows(text, 24, cfg, tokens=200, seed=1)
    rows = pieces.at(0)[0]
    together = hide(text, CorruptedRows(rows, 5), 1, cfg, vocabulary)
    for i, row in enumerate(rows):
        alone = hide(text, CorruptedRows([row], 5), 1, cfg, vocabulary)
        for whole, one in zip(together, alone, strict=True):
            assert whole[i, : one.shape[1]].tolist() == one[0].tolist() and not whole[i, one.shape[1] :].any()
    assert sum(len(batch) for batch in pieces.in_order()) == len(pieces.pieces)


# ---- runs --------------------------------------------------------------------------------------------

SOUNDS = {"cat": "mew", "dog": "bow", "cow": "moo", "hen": "cluck"}
TEXT = "".join(f"the {animal} says {sound}.\n\n" for animal, sound in SOUNDS.items()) * 50
TURNING = merge(BLOCK, {"dropout": 0.0, "mixer": merge(ATTENTION, {"position": "rotary"})})
READER = {
    "kind": "encoder",
    "dim": 16,
    "inputs": {"kind": "token_input"},
    "tower": {
        "depth": 1,
        "pattern": [merge(BLOCK, {"dropout": 0.0, "mixer": merge(ATTENTION, {"position": "rotary"})})],
    },
    "head": {"kind": "masked_language"},
}
CROSS = merge(BLOCK, {"dropout": 0.0, "cross": {"heads": 2, "visibility": "full"}, "mixer": {"visibility": "causal"}})
WRITER = {
    "dim": 16,
    "encoder": {"depth": 1, "pattern": [merge(BLOCK, {"dropout": 0.0, "mixer": {"visibility": "full"}})]},
    "decoder": {"depth": 1, "pattern": [CROSS]},
    "position": "sinusoidal",
}
TASKS = {
    "masked": ({"kind": "masked_language_modelling", "context": 32}, READER),
    "masked stretches": ({"kind": "masked_language_modelling", "context": 32, "across_documents": True}, READER),
    "spans": ({"kind": "denoising", "context": 32}, WRITER),
    "infilling": ({"kind": "denoising", "context": 32, "corruption": "text_infilling"}, WRITER),
    "spans of stretches": ({"kind": "denoising", "context": 32, "across_documents": True}, WRITER),
}


def config(path, task, model, **train):
    return recipe.load(
        {
            "task": task,
            "data": {"kind": "texts", "files": [str(path)], "documents": "blank_lines"},
            "tokenizer": {"kind": "words", "vocab": 270},
            "model": model,
            "train": {
                "budget": {"kind": "steps", "steps": 12},
                "schedule": {"kind": "constant", "peak": 1e-2, "warmup": 5},
                "batch_tokens": 256,
                "accumulate": 2,
                "validate_every": 6,
                "save_every": 3,
                "keep": {"last": 100},
                "samples": 2,
                "precision": "float32",
            }
            | train,
        }
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(text, tmp_path, kind):
    cfg = config(text, *TASKS[kind])
    seen = [event for event in start(cfg, tmp_path / "whole").events() if isinstance(event, Validated)]
    assert [event.step for event in seen] == [6, 12] and len(seen[0].samples) == 2
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 3 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped").events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_words_behind_masks_are_learned_from_those_around_them_and_fine_tuned_for_another_task(text, tmp_path):
    cfg = config(text, *TASKS["masked"], budget={"kind": "steps", "steps": 150}, validate_every=150, save_every=150)
    *_, seen = [event for event in start(cfg, tmp_path / "run").events() if isinstance(event, Validated)]
    assert seen.scores["guessed"] > 80, "a cat says mew; which animal it was is a guess when both are hidden"
    assert "▁" in seen.samples[0].source and "says" in seen.samples[0].output
    (tmp_path / "labels.tsv").write_text("".join(f"{x} {a} says\t{a}\n" for x in "abcdefghijkl" for a in SOUNDS))
    plain = {
        "task": "classification",
        "data": {
            "kind": "labelled_texts",
            "train": [{"kind": "labelled_table", "path": str(tmp_path / "labels.tsv"), "text": 0, "label": 1}],
            "hold_out": {"valid": 4, "test": 0, "near": None},
        },
        "start_from": {"run": str(tmp_path / "run"), "new": ["head.*"]},
        "model": {"head": {"kind": "classification", "pooling": "mean"}},
        "train": to_dict(cfg)["train"] | {"budget": {"kind": "steps", "steps": 2}, "batch_tokens": 64},
    }
    list(start(recipe.load(plain), tmp_path / "fine").events())
    assert (tmp_path / "fine" / "last").exists()


def test_what_was_hidden_is_written(text, tmp_path):
    cfg = config(
        text, *TASKS["spans"], budget={"kind": "steps", "steps": 200}, validate_every=200, save_every=200, accumulate=1
    )
    seen = next(event for event in start(cfg, tmp_path / "run").events() if isinstance(event, Validated))
    assert seen.loss < 1.2
    marks_of_it = RunDirectory.open(tmp_path / "run").tokenizers()[0]
    assert marks_of_it.mark("⟨gap 0⟩") == len(marks_of_it) - len(marks(SPANS, 32))


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("masked", {"model": {"head": {"kind": "no_head"}}}, r"model\.head: .* head of the kind masked_language"),
        ("masked", {"model": WRITER | {"kind": "transformer"}}, "model: masked_language_modelling takes encoder"),
        ("spans", {"model": {"encoder": None}}, r"model\.encoder: must be given for denoising"),
        ("spans", {"model": {"position": {"kind": "learned", "length": 32}}}, r"task\.context: 32 tokens and eos"),
        (
            "masked",
            {"model": {"inputs": {"kind": "token_input", "position": {"kind": "learned", "length": 8}}}},
            r"task\.context: 32 tokens, and model\.inputs take 8",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(text, tmp_path, kind, change, says):
    plain = merge(to_dict(config(text, *TASKS[kind])), change)
    with pytest.raises(ConfigError, match=says):
        start(recipe.load(plain), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_share_no_attention_and_padding_is_not_seen(store):
    """What is guessed of a text does not depend on the texts it shares a row with."""
    text, vocabulary = store.columns["text"], VOCABULARIES[MASKING]
    model = recipe.from_dict(recipe.ModelConfig, READER).sized(vocab=260).build().eval()
    plan = RowBatches(Packed(text, 60, 0), 4, seed=1)
    rows = plan.at(0)[0]
    task, batch = MaskedLanguageModellingTask(context=60), mask(text, CorruptedRows(rows, 0), 1, MASKING, vocabulary)
    summed, count = task.nll(model, batch)
    alone = [
        task.nll(model, mask(text, CorruptedRows([row[i : i + 1]], 0), 1, MASKING, vocabulary))
        for row in rows
        for i in range(len(row))
    ]
    torch.testing.assert_close(summed, sum(one for one, _ in alone), rtol=1e-5, atol=1e-4)
    assert count == sum(n for _, n in alone)
