# ruff: noqa: RUF001  (punctuation of many scripts)
"""The translator, over a model that says its source again: what goes in is known to come out."""

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dragoman
from dragoman.checkpoint import RunDirectory
from dragoman.config import to_dict
from dragoman.decode import translator
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.length_penalty import Gnmt
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.segmentation import segment
from dragoman.decode.sentence_splitting import BySentences
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.model.attention import AttentionConfig
from dragoman.model.caches.cache import parse_cache
from dragoman.model.interface import DecodingState, SequenceModel
from dragoman.model.masks.visibility import Causal, Full
from dragoman.model.mlp import FeedForward
from dragoman.model.norm import LayerNorm
from dragoman.model.positions.position import Learned
from dragoman.model.tower import BlockConfig, TowerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.text.cleaning.clean import normalise
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import EOS, Tokenizer
from dragoman.text.tokens.training import Bytes
from dragoman.train.recipe import load


class Position(DecodingState):
    length = nbytes = 0

    def __init__(self, source):
        self.source, self.at = source, torch.zeros(len(source), 1, dtype=torch.long)

    def expand(self, beams):
        self.beams = beams
        self.source, self.at = (t.repeat_interleave(beams, dim=0) for t in (self.source, self.at))

    def reorder(self, rows):
        self.source, self.at = self.source[rows], self.at[rows]

    def select(self, sentences):
        self.source, self.at = (
            t.unflatten(0, (-1, self.beams))[sentences].flatten(0, 1) for t in (self.source, self.at)
        )

    def join(self, other):
        longest = max(len(self.source[0]), len(other.source[0]))
        sources = [nn.functional.pad(s.source, (0, longest - len(s.source[0])), value=EOS) for s in (self, other)]
        self.source, self.at = torch.cat(sources), torch.cat([self.at, other.at])


class Parrot(SequenceModel):
    """Says its source again, token by token, and remembers which batches it was given."""

    def __init__(self, vocab, max_length=None):
        super().__init__()
        self.output, self.longest, self.batches = nn.Linear(1, vocab), max_length, []

    @property
    def max_length(self):
        return self.longest

    def hidden(self, target, source=None):
        raise NotImplementedError

    def start(self, source, policy=None):
        assert self.longest is None or source.shape[1] <= self.longest
        self.batches.append(tuple(source.shape))
        return Position(source)

    def decode(self, tokens, state):
        said = state.source.gather(1, state.at.clamp(max=state.source.shape[1] - 1))[:, 0].clamp(min=EOS)
        state.at += 1
        return 9.0 * nn.functional.one_hot(said, self.output.out_features)[:, None].float()


BYTES = Tokenizer.train(Bytes(), [])


def parrot(max_length=None):
    return Translator(Parrot(len(BYTES), max_length), BYTES, BYTES)


def texts(translations):
    return [t.text for t in translations]


# ---- as many out as in -----------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_come_in_the_order_of_the_texts(beam):
    given_texts = [f"{'long ' * (i * 7 % 5)}text {i}" for i in range(40)]
    found = parrot().translate(given_texts, beam=beam, batch_tokens=200)
    assert texts(found) == given_texts
    assert [t.row for t in found] == list(range(1, 41)) and [t.source for t in found] == given_texts
    assert not any(t.warnings for t in found)


def test_an_empty_line_stays_empty():
    given_texts = ["", "one", "   ", "\t\n", "two", "\x00\ufeff"]
    found = parrot().translate(given_texts)
    assert texts(found) == ["", "one", "", "\n", "two", ""]
    assert parrot().translate([]) == [] and texts(parrot().translate(["", " "])) == ["", ""]


def test_line_ends_inside_a_text_stay_and_other_white_space_is_a_space():
    assert texts(parrot().translate(["one\ntwo\r\n\r\nthree\u2028four"])) == ["one\ntwo\r\n\r\nthree four"]


def test_no_translation_of_a_line_holds_a_line_end():
    class Broken(Parrot):
        def decode(self, tokens, state):
            line_end, blank = BYTES.encode("\n ")
            logits = super().decode(tokens, state)
            logits[..., line_end] += 2 * logits[..., blank]
            return logits

    assert texts(Translator(Broken(len(BYTES)), BYTES, BYTES).translate(["one two"], beam=1)) == ["one two"]


ENDS = r"(\r\n|\n|\r)"


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6))
def test_any_texts_come_out_one_for_one(given_texts):
    expected = [
        "".join(part if part in ("\r\n", "\n", "\r") else normalise(normalise(part)) for part in re.split(ENDS, text))
        for text in given_texts
    ]
    assert texts(parrot().translate(given_texts, beam=1)) == expected


def test_half_of_a_surrogate_pair_is_refused_with_its_row():
    with pytest.raises(DataError, match=r"row 2: character 4 is \\ud83d"):
        parrot().translate(["fine", "not\ud83d"])
    with pytest.raises(DataError, match="row 6:"):
        list(parrot().stream(["fine"] * 5 + ["\udc80"], chunk=2))


def test_one_text_by_itself_is_not_taken_for_many():
    with pytest.raises(TypeError):
        parrot().translate("text")


def test_a_stream_reads_a_chunk_and_yields_it_before_it_reads_on():
    read = []

    def lines():
        for i in range(10):
            read.append(i)
            yield f"line {i}"

    stream = parrot().stream(lines(), chunk=4)
    assert next(stream).text == "line 0" and len(read) == 4
    rest = list(stream)
    assert texts(rest) == [f"line {i}" for i in range(1, 10)] and [t.row for t in rest] == list(range(2, 11))


# ---- batches ---------------------------------------------------------------------------------------


def test_batches_hold_texts_of_like_length_and_respect_the_budget():
    translator = parrot()
    translator.translate(
        [chr(97 + i) * (1 + i % 17) for i in range(200) if chr(97 + i).isprintable()], beam=2, batch_tokens=100
    )
    batches = translator.model.batches
    assert all(rows * length * 2 <= 100 for rows, length in batches)
    assert [length for _, length in batches] == sorted((length for _, length in batches), reverse=True)


def test_a_text_that_recurs_is_translated_once():
    translator = parrot()
    assert texts(translator.translate(["same"] * 50 + ["other"])) == ["same"] * 50 + ["other"]
    assert sum(rows for rows, _ in translator.model.batches) == 2


def test_progress_reaches_its_total():
    calls = []
    parrot().translate([f"text {i}" for i in range(30)], batch_tokens=50, progress=lambda *call: calls.append(call))
    assert calls[-1] == (30, 30) and calls == sorted(calls) and len(calls) > 1


# ---- candidates ------------------------------------------------------------------------------------


def test_candidates_are_ranked_and_scored():
    cfg = Beam(size=4, nbest=3, penalty=Gnmt(alpha=0.5))
    [found] = parrot().translate(["word"], search=cfg)
    assert len(found.candidates) == 3 and len({c.text for c in found.candidates}) == 3
    scores = [c.score for c in found.candidates]
    assert scores == sorted(scores, reverse=True) and found.score == scores[0] and found.text == "word"
    for c in found.candidates:
        assert c.score == pytest.approx(cfg.score(c.log_prob, len(c.tokens)), abs=1e-5)
        assert len(c.tokens) == len(c.token_log_probs) and c.tokens[-1] == EOS


def test_a_translation_ended_at_its_limit_is_a_warning_that_names_the_row():
    cfg = Beam(size=2, limit=LengthLimit(tokens=4, ratio=0.0, extra=4))
    short, long = parrot().translate(["abc", "abcdef"], search=cfg)
    assert short.warnings == () and long.text == "abc"
    assert "row 2" in long.warnings[0] and "length limit" in long.warnings[0]


# ---- long texts ------------------------------------------------------------------------------------

PARAGRAPH = "The first sentence is here. Is the second? It is, e.g. this one! And (the last.) Ends"


def test_a_text_too_long_for_the_model_is_translated_in_parts_with_a_warning():
    [before, found] = parrot(max_length=34).translate(["short", PARAGRAPH])
    assert found.text == PARAGRAPH and before.warnings == ()
    assert len(found.warnings) == 1 and "row 2" in found.warnings[0] and "5 parts" in found.warnings[0]
    [candidate] = found.candidates
    assert candidate.log_prob == pytest.approx(sum(candidate.token_log_probs))
    assert candidate.tokens.count(EOS) == 5


def test_a_text_longer_than_the_limit_in_characters_is_translated_in_parts():
    assert not parrot().translate([PARAGRAPH])[0].warnings
    [found] = parrot().translate([PARAGRAPH], longest=40)
    assert found.text == PARAGRAPH and found.warnings


def test_a_megabyte_without_a_space_is_translated():
    [found] = parrot(max_length=512).translate(["x" * 100_000 + "é" * 20_000], beam=1)
    assert found.text == "x" * 100_000 + "é" * 20_000


def parts(text, longest):
    return [part.text for part in segment(text, lambda t: len(t) <= longest)]


def test_a_text_is_cut_between_sentences_first_then_clauses_then_words_then_anywhere():
    assert parts(PARAGRAPH, 100) == [PARAGRAPH]
    assert parts(PARAGRAPH, 40) == [
        "The first sentence is here.",
        "Is the second?",
        "It is, e.g. this one!",
        "And (the last.)",
        "Ends",
    ]
    assert parts("when it rains, it pours, he said", 20) == ["when it rains,", "it pours, he said"]
    assert parts("one two three four five", 12) == ["one two", "three", "four five"]
    assert parts("abcdefgh", 4) == ["abcd", "efgh"]
    assert parts("第一句。第二句！第三句", 6) == ["第一句。", "第二句！", "第三句"]


@settings(max_examples=200)
@given(st.text(st.sampled_from('ab ,.!?;é。，\u00a0("1'), max_size=60), st.integers(1, 20))
def test_cutting_loses_nothing_but_space_and_every_part_fits(text, longest):
    text = normalise(text)
    if not text:
        return
    found = segment(text, lambda t: len(t) <= longest)
    assert re.sub(r"\s", "", "".join(p.text for p in found)) == re.sub(r"\s", "", text)
    assert all(0 < len(p.text) <= longest for p in found)


# ---- a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose checkpoint holds a Transformer that was never trained."""
    part = BlockConfig(
        mixer=AttentionConfig(heads=2, visibility=Causal()), mlp=FeedForward(hidden=24), norm=LayerNorm()
    )
    seeing_all = AttentionConfig(heads=2, visibility=Full())
    cfg = TransformerConfig(
        vocab=len(BYTES),
        dim=16,
        encoder=TowerConfig(depth=1, pattern=(replace(part, mixer=seeing_all),)),
        decoder=TowerConfig(depth=1, pattern=(replace(part, cross=seeing_all),)),
        position=Learned(length=40),
    )
    torch.manual_seed(0)
    model = cfg.build().eval()
    plain = {"model": to_dict(cfg)}
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / "x", plain)
    run.write_tokenizers(BYTES, BYTES)
    run.save(1, tensors={"model": model.state_dict()}, progress={}, config=plain, best=True)
    run.close()
    return run.path, model


@pytest.mark.parametrize("beam", [1, 4])
def test_a_loaded_run_translates_as_its_model_does(run, beam):
    path, model = run
    given_texts = ["one", "", "two two", "three, but too long for this model. And again?"]
    loaded, whole = (
        t.translate(given_texts, beam=beam)
        for t in (Translator.load(path, precision="float32"), Translator(model, BYTES, BYTES))
    )
    assert [t.text for t in loaded] == [t.text for t in whole]
    assert [t.candidates[0].tokens for t in loaded] == [t.candidates[0].tokens for t in whole]
    assert [t.score for t in loaded] == pytest.approx([t.score for t in whole], abs=1e-5)  # laid out in another order
    assert loaded[3].warnings and not loaded[1].text
    again = dragoman.Translator.load(path, "last", precision="float32")
    assert list(again.stream(given_texts, beam=beam)) == loaded


@pytest.mark.parametrize(("stated", "parts"), [({"max_characters": 12}, 3), ({"max_characters": None}, 1), ({}, 1)])
def test_a_text_is_cut_where_the_texts_that_a_run_learnt_from_were(monkeypatch, stated, parts):
    config = {"data": {"cleaning": stated}}
    monkeypatch.setattr(translator, "load_writer", lambda *_: (Parrot(len(BYTES)), BYTES, BYTES, config))
    (found,) = Translator.load("run", device="cpu").translate(["One thing. And another. A third."])
    assert found.warnings == (f"row 1: too long to be translated at once: split into {parts} parts",) * (parts > 1)


def test_a_device_that_is_not_there_is_a_mistake_of_the_user(run):
    for device in ("quantum", "cuda:99"):
        with pytest.raises(ConfigError, match=device):
            Translator.load(run[0], device=device)
    with pytest.raises(CheckpointError, match="no such run"):
        Translator.load(run[0] / "nowhere")


def test_the_model_keeps_its_mode_and_gradients_stay_off():
    translator = parrot()
    translator.model.train()
    translator.translate(["text"])
    assert translator.model.training and all(p.grad is None for p in translator.model.parameters())
    assert torch.is_grad_enabled()


# ---- confidence ------------------------------------------------------------------------------------


def test_an_uncalibrated_confidence_is_the_mean_probability_of_a_token():
    found, empty = parrot().translate(["word", ""])
    best = found.candidates[0]
    assert 0 < found.confidence <= 1 and empty.confidence == 1
    assert found.confidence == pytest.approx(math.prod(map(math.exp, best.token_log_probs)) ** (1 / len(best.tokens)))


# ---- precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_run_translates_in_fewer_bits(run, precision):
    exact, rough = Translator.load(run[0], precision="float32"), Translator.load(run[0], precision=precision)
    scored = [translator.score([Pair("a b c", "b c")])[0].log_prob for translator in (exact, rough)]
    assert scored[0] != scored[1]
    assert scored[0] == pytest.approx(scored[1], rel=0.02)
    assert len(rough.translate(["a b c", "", "c"])) == 3


def test_precisions_and_caches_may_be_written_as_other_tools_write_them(run):
    short, long = (Translator.load(run[0], precision=precision) for precision in ("bf16", "bfloat16"))
    assert short.translate(["a b c"]) == long.translate(["a b c"])
    assert parse_cache("paged:3+bf16") == parse_cache("paged:3+bfloat16")
    data = {"train": [{"kind": "table", "path": "a.tsv"}]}
    asked = {"preset": "transformer-tiny", "data": data, "train": {"precision": "bf16"}}
    assert load(asked).train.precision == "bfloat16"


def test_a_precision_that_is_not_known_is_a_mistake_of_the_user(run):
    with pytest.raises(ConfigError, match=r"precision: no 'int9' here\. Did you mean 'int8'\?"):
        Translator.load(run[0], precision="int9")
    with pytest.raises(ConfigError, match="int8 is for CPUs, and this is meta"):
        Translator.load(run[0], precision="int8", device="meta")


@pytest.mark.parametrize("text", ["one\ntwo", "one\n12:30\nthree", "\none\r\n", "12\n13", "One is. Two is!\nthree"])
@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_known_of_a_text_of_several_lines_is_of_one_and_the_same_answer(text, beam):
    translator = parrot()
    translator.splitter = BySentences()
    [found] = translator.translate([text], beam=beam)
    best = found.candidates[0]
    spelt = [translator.target_tokenizer.decode(ids) for ids in ended(best.tokens)]
    assert [part.answer for part in best.parts] == [normalise(one) for one in spelt]
    assert best.log_prob == pytest.approx(sum(best.token_log_probs)) and len(best.tokens) == len(best.token_log_probs)
    assert found.confidence == best.confidence
    lines = [one.candidates[0] for one in translator.translate(re.split(r"\r\n|\n", text), beam=beam)]
    scores = [one.score for one in lines if one.tokens]
    assert best.score == pytest.approx(sum(scores) / max(1, len(scores)))


def ended(tokens):
    rows, row = [], []
    for token in tokens:
        row.append(token)
        if token == 2:
            rows.append(row[:-1])
            row = []
    return rows
