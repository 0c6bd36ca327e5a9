"""Alignments where the truth is known, and confidence that keeps its promise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_output import candidate
from test_search import Recurrent
from test_translator import parrot
from tiny_run import config as tiny_config
from tiny_run import write_pairs

from dragoman.cli import main
from dragoman.config import to_dict
from dragoman.decode.alignment import Aligner, AlignmentHeads, anchors, error_rate, learn, links
from dragoman.decode.calibration import Calibration
from dragoman.decode.confidence import FEATURES, Confidence
from dragoman.decode.documents.line_translation import LineSettings, LineTranslator
from dragoman.decode.search.attention_taps import attention_taps, recording_attention
from dragoman.decode.translation import Translation
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.evaluate.calibrate import calibrate, calibration_error, fit_confidence
from dragoman.model.attention import AttentionConfig
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.transformer import BlockConfig, TowerConfig, TransformerConfig
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Words
from dragoman.train.run import start

NAMES = [a + b for a in "bdfgkl" for b in "aeiou"]
TOKENIZER = Tokenizer.train(Words(vocab=259 + len(NAMES)), [" ".join(NAMES)] * 3)
FIRST = 3 + 256


def swapped(rows, seed=0):
    """Sources of words, and the same with the halves of each exchanged: the truth about who came from where."""
    draw = torch.Generator().manual_seed(rows + 1000 * seed)
    sources = torch.randint(FIRST, len(TOKENIZER), (rows, 6), generator=draw)
    return sources, torch.cat([sources[:, 3:], sources[:, :3]], dim=1)


TRUTH = tuple(zip([3, 4, 5, 0, 1, 2], range(6), strict=True))


@pytest.fixture(scope="module")
def translator():
    """Learns in seconds to exchange the halves of six words, which attention across alone can do."""
    torch.manual_seed(0)
    across = AttentionConfig(heads=2, visibility=Full())
    own = AttentionConfig(heads=2, visibility=Causal())

    def tower(mixer, cross, depth):
        block = BlockConfig(mixer=mixer, cross=cross, mlp=FeedForward(hidden=64), norm=LayerNorm())
        return TowerConfig(depth=depth, pattern=(block,))

    cfg = TransformerConfig(
        vocab=len(TOKENIZER),
        dim=48,
        encoder=tower(across, None, 1),
        decoder=tower(own, across, 2),
        position=Sinusoidal(),
    )
    model = cfg.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for step in range(220):
        source, target = swapped(48, seed=step + 1)
        end = torch.full((len(source), 1), EOS)
        logits = model(torch.cat([torch.full_like(end, BOS), target], dim=1), torch.cat([source, end], dim=1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.cat([target, end], dim=1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2, loss.item()
    return Translator(model.eval(), TOKENIZER, TOKENIZER)


def ids(rows):
    return [([*s, EOS], [*t, EOS]) for s, t in zip(*(side.tolist() for side in swapped(rows)), strict=True)]


# ---- alignments ------------------------------------------------------------------------------------


def test_learnt_heads_find_the_known_alignment_of_sentences_they_were_not_learnt_on(translator):
    aligner = Aligner(translator.model, TOKENIZER, TOKENIZER)
    pairs = ids(40)
    aligner.heads, rate = learn(aligner, pairs, [TRUTH] * len(pairs))
    assert rate < 0.05
    assert error_rate(aligner.align(ids(30)), [TRUTH] * 30) < 0.05


def test_words_in_common_teach_the_same_as_known_alignments(translator):
    aligner = Aligner(translator.model, TOKENIZER, TOKENIZER)
    pairs = ids(40)
    gold = [anchors(TOKENIZER.decode(s), TOKENIZER.decode(t)) for s, t in pairs]
    aligner.heads, _ = learn(aligner, pairs, gold)
    assert error_rate(aligner.align(ids(30)), [TRUTH] * 30) < 0.05


def test_translations_carry_the_alignment_of_each_candidate(translator):
    heads, _ = learn(Aligner(translator.model, TOKENIZER, TOKENIZER), ids(40), [TRUTH] * 40)
    translator.calibration = Calibration(heads=heads)
    text = "ba de fi go ku la"
    [found] = translator.translate([text], alignments=True)
    assert found.text == "go ku la ba de fi" and found.candidates[0].alignment == TRUTH
    assert translator.translate([text])[0].candidates[0].alignment is None
    [empty] = translator.translate([""], alignments=True)
    assert empty.candidates[0].alignment is None
    translator.calibration = Calibration()


def test_the_texts_of_a_translation_are_aligned_in_batches(translator, monkeypatch):
    texts, batches, attention = ["ba de fi go ku la", "go ku la", "de fi ba", "la"], [], Aligner.attention
    alone = [translator.translate([text], alignments=True, nbest=2)[0] for text in texts]

    def noted(*given):
        for rows, weights in attention(*given):
            batches.append(rows)
            yield rows, weights

    monkeypatch.setattr(Aligner, "attention", noted)
    together = translator.translate(texts, alignments=True, nbest=2)
    assert [[c.alignment for c in t.candidates] for t in together] == [
        [c.alignment for c in t.candidates] for t in alone
    ]
    assert len(batches) == 1 and len(batches[0]) == sum(len(t.candidates) for t in together)


def test_alignments_of_a_long_text_count_words_on_from_part_to_part(translator):
    text = "ba de fi. go ku la"
    [found] = translator.translate([text], alignments=True, longest=10)
    words = (len(text.split()), len(found.text.split()))
    assert found.warnings and all(s < words[0] and t < words[1] for s, t in found.candidates[0].alignment)
    assert max(s for s, _ in found.candidates[0].alignment) >= 3


@pytest.mark.parametrize("text", ["12:30", "5  6", "%s 5", "--"])
def test_what_has_no_word_to_translate_has_no_alignment_in_lines_as_in_texts(text, translator):
    lines = LineTranslator(LineSettings(run=Path("run"), search=None, alignments=True), translator)
    [of_text], [of_line] = translator.translate([text], alignments=True), lines.stream([text])
    assert of_text.candidates[0].alignment is None and of_line.candidates[0].alignment is None
    assert of_text.text == of_line.text


def test_padding_and_batch_do_not_change_an_alignment(translator):
    aligner = Aligner(translator.model, TOKENIZER, TOKENIZER)
    pairs = [([*s[: 2 + i % 4], EOS], [*t[: 1 + i % 5], EOS]) for i, (s, t) in enumerate(ids(20))]
    assert aligner.align(pairs) == [aligner.align([pair])[0] for pair in pairs]


def test_nothing_listens_once_an_alignment_is_made(translator):
    Aligner(translator.model, TOKENIZER, TOKENIZER).align(ids(2))
    assert not any(tap._forward_hooks for tap in attention_taps(translator.model))
    with pytest.raises(RuntimeError), recording_attention(attention_taps(translator.model), []):
        raise RuntimeError
    assert not any(tap._forward_hooks for tap in attention_taps(translator.model))


def test_a_model_without_attention_to_its_source_cannot_align():
    with pytest.raises(ConfigError, match="nothing to align by"):
        parrot().translate(["x"], alignments=True)
    assert Recurrent(9).max_length is None


def test_error_rate_is_its_formula():
    assert error_rate([((0, 0), (1, 1))], [((0, 0), (1, 1))]) == 0
    assert error_rate([((0, 0), (0, 1), (2, 2))], [((0, 0), (1, 1))]) == pytest.approx(1 - 2 * 1 / 4)
    assert links(np.array([[0.1, 0.9], [0.5, 0.5]])) == ((1, 0), (0, 1))
    assert anchors("the 5 cats in 5 houses called Bo", "Bo die 7") == ((7, 0),)


def test_heads_look_at_the_last_two_layers_unless_told_otherwise():
    weights = [torch.full((1, 2, 3, 4), float(layer)) for layer in range(3)]
    assert [int(w.mean()) for w in AlignmentHeads().of(weights)] == [1, 1, 2, 2]
    assert [int(w.mean()) for w in AlignmentHeads(heads=((0, 1),)).of(weights)] == [0]
    assert len(AlignmentHeads().of(weights[:1])) == 2


# ---- confidence ------------------------------------------------------------------------------------


def judged(count, seed=0):
    """Translations that are right as often as a known function of their mean log-probability says."""
    draw = np.random.default_rng(seed)
    found, right = [], []
    for row in range(count):
        mean = -draw.exponential(0.7)
        length = int(draw.integers(1, 20))
        found.append(Translation(row, "x" * 10, (candidate("y" * 10, mean * 2),) if length else ()))
        right.append(draw.random() < 1 / (1 + math.exp(-(2 + 3 * mean))))
    return found, np.array(right)


def test_confidence_comes_close_to_the_frequency_of_success_on_new_sentences():
    found, right = judged(800)
    judge = fit_confidence(found, right, good=70.0)
    new, new_right = judged(2000, seed=1)
    plain = np.array([t.candidates[0].mean_probability for t in new])
    sure = np.array([judge.of(t.source, t.candidates[0]) for t in new])
    assert calibration_error(sure, new_right) < 0.04 < calibration_error(plain, new_right)


def test_calibration_error_is_its_formula():
    sure, right = np.array([0.1] * 10 + [0.9] * 10), np.array([True] * 1 + [False] * 9 + [True] * 9 + [False])
    assert calibration_error(sure, right, bins=2) == pytest.approx(0)
    assert calibration_error(np.full(20, 0.75), right, bins=1) == pytest.approx(0.25)


def test_fitting_survives_sentences_that_are_all_right():
    found, _ = judged(60)
    judge = fit_confidence(found, np.ones(60, bool), good=70.0)
    assert all(0.9 < judge.of(t.source, t.candidates[0]) <= 1 for t in found)


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    judge = Confidence(weights=(1.0,) * len(FEATURES), bias=0.5, good=70.0, sentences=9)
    made = Calibration(confidence=judge, heads=AlignmentHeads(heads=((0, 1),)))
    made.write(tmp_path)
    assert Calibration.read(tmp_path) == made and Calibration.read(tmp_path / "none") == Calibration()
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration.json: cannot be used .* make it with dragoman calibrate"):
        Calibration.read(tmp_path)
    (tmp_path / "calibration.json").write_text(
        json.dumps(to_dict(made) | {"confidence": to_dict(judge) | {"weights": [1]}})
    )
    with pytest.raises(CheckpointError):
        Calibration.read(tmp_path)


def every_candidate_has_its_confidence(run, capsys):
    """Check that JSON has the confidence in each candidate, whether the run is calibrated or not."""
    (run.parent / "in.txt").write_text("the cat\n12:30\n\n" + "the cat sat. " * 30 + "\n")
    judge, counts = Translator.load(run).calibration.confidence, []
    assert (
        main(["translate", str(run), str(run.parent / "in.txt"), "--beam", "2", "--nbest", "2", "--format", "json"])
        == 0
    )
    for told in map(json.loads, capsys.readouterr().out.splitlines()):
        sure = [one["confidence"] for one in told["candidates"]]
        counts.append(len(sure))
        assert all(isinstance(one, float) and 0 <= one <= 1 for one in sure) and sure[0] == told["confidence"]
        if judge is None and len(told["candidates"][0]["tokens"]) and not told["candidates"][0]["parts"]:
            means = [math.exp(one["log_prob"] / len(one["tokens"])) for one in told["candidates"]]
            assert sure == pytest.approx(means)
    assert counts == [2, 1, 1, 2]


def test_calibrate_writes_what_translate_then_uses(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.tsv", 130)
    list(start(tiny_config(pairs, budget={"kind": "steps", "steps": 4}), tmp_path / "run").events())
    before = Translator.load(tmp_path / "run").translate(["the cat"])[0].confidence
    every_candidate_has_its_confidence(tmp_path / "run", capsys)
    assert main(["calibrate", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "dragoman: 10 pairs are too few to calibrate on: 50 at least\n"
    assert main(["calibrate", str(tmp_path / "run"), str(pairs), "--beam", "1", "--good", "5"]) == 0
    told = capsys.readouterr().out
    assert "expected calibration error" in told
    assert told.count("to review; of the rest") == 3
    every_candidate_has_its_confidence(tmp_path / "run", capsys)
    loaded = Translator.load(tmp_path / "run")
    [found] = loaded.translate(["the cat"])
    assert loaded.calibration.confidence.sentences == 130
    assert found.confidence == loaded.calibration.confidence.of("the cat", found.candidates[0]) != before
    with pytest.raises(DataError):
        calibrate(loaded, [Pair("a", "b")])
    assert main(["translate", str(tmp_path / "run"), "the cat", "--alignments", "--flag-below", "1"]) == 0
    assert capsys.readouterr().out.rstrip("\n").split("\t")[-1] == "review"
    assert (
        main(["calibrate", str(tmp_path / "run"), str(pairs), "--beam", "1", "--good", "5", "--precision", "int8"]) == 0
    )
    assert Translator.load(tmp_path / "run").calibration.confidence != loaded.calibration.confidence
