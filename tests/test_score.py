"""What a model says of translations that are given to it, against what search said of them and one pass at a time."""

import json
import math
from dataclasses import replace

import pytest
import torch
from test_search import Recurrent, each_family, sources
from test_translator import BYTES
from tiny_run import config as tiny_config
from tiny_run import write_pairs

from dragoman.cli import main
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.repetition import CountPenalty, Forbidden, MinimumLength, NoRepeat, RepetitionPenalty
from dragoman.decode.scoring import perplexity
from dragoman.decode.search import beam
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.diverse import DiverseBeam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import SearchStart
from dragoman.decode.search.sample import Sample
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.decode.search.teacher_forcing import token_log_probs
from dragoman.decode.translator import Translator
from dragoman.errors import CheckpointError, DataError
from dragoman.text.lines import Pair
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD, Tokenizer
from dragoman.text.tokens.training import Bpe
from dragoman.train.run import start


def translator(max_length=None):
    model = Recurrent(len(BYTES))
    model.max_length = max_length
    return Translator(model, BYTES, BYTES)


def rows(batch):
    return [row[row != PAD].tolist() for row in batch]


@each_family
def test_what_search_reports_of_each_of_its_hypotheses_is_what_scoring_says_of_them(build):
    model, batch = build(50), sources(50, 12)
    found = search(model, batch, Beam(size=5, nbest=4, limit=LengthLimit(tokens=12)))
    pairs = [(source, h) for source, some in zip(rows(batch), found, strict=True) for h in some]
    scored = token_log_probs(model, [source for source, _ in pairs], [h.tokens for _, h in pairs], batch_tokens=60)
    for (_, h), values in zip(pairs, scored, strict=True):
        assert values == pytest.approx(h.token_log_probs, abs=1e-5)
        assert sum(values) == pytest.approx(h.log_prob, abs=1e-5)


RULES = [
    RepetitionPenalty(factor=1.5),
    RepetitionPenalty(factor=0.7),
    CountPenalty(presence=-0.5, frequency=-0.25),  # a rule may make what is chosen likelier than the model does
    NoRepeat(),
]
SEARCHES = [Greedy(), Beam(size=4, nbest=3), DiverseBeam(size=4, groups=2), Sample(samples=3)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("cfg", SEARCHES, ids=str)
@pytest.mark.parametrize("fast", [True, False])
def test_under_rules_log_probabilities_are_still_the_models_own(rule, cfg, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(beam, "kernels_read", lambda *_: False)
    model, batch = Recurrent(50), sources(50, 6)
    start = SearchStart(batch.new_full((len(batch), 1), BOS), batch)
    found = search(model, batch, replace(cfg, limit=LengthLimit(tokens=12)), rules=[rule.start(start)])
    pairs = [(source, h) for source, some in zip(rows(batch), found, strict=True) for h in some]
    scored = token_log_probs(model, [source for source, _ in pairs], [h.tokens for _, h in pairs])
    for (_, h), values in zip(pairs, scored, strict=True):
        assert h.token_log_probs == pytest.approx(values, abs=2e-5)
        assert h.log_prob == pytest.approx(sum(values), abs=1e-4)


@pytest.mark.parametrize("cfg", SEARCHES, ids=str)
def test_a_first_token_that_is_given_has_no_log_probability_in_any_search(cfg):
    model, batch = Recurrent(50), sources(50, 6)
    rule = FirstToken(token=7).start(SearchStart(batch.new_full((len(batch), 1), BOS), batch))
    found = search(model, batch, replace(cfg, limit=LengthLimit(tokens=12)), rules=[rule])
    pairs = [(source, h) for source, some in zip(rows(batch), found, strict=True) for h in some]
    scored = token_log_probs(model, [source for source, _ in pairs], [h.tokens for _, h in pairs])
    for (_, h), values in zip(pairs, scored, strict=True):
        assert h.token_log_probs == pytest.approx((0.0, *values[1:]), abs=1e-5)


@pytest.mark.parametrize("cfg", SEARCHES, ids=str)
@pytest.mark.parametrize("fast", [True, False])
def test_a_minimum_length_raises_the_limit_and_no_end_comes_before_it(cfg, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(beam, "kernels_read", lambda *_: False)
    model, batch = Recurrent(50), sources(50, 6)
    cfg, start = replace(cfg, limit=LengthLimit(tokens=6)), SearchStart(batch.new_full((len(batch), 1), BOS), batch)
    found = search(model, batch, cfg, rules=[MinimumLength(tokens=15).start(start)])
    assert all(len(h.tokens) == 16 for some in found for h in some)
    endless = [rule.start(start) for rule in (MinimumLength(tokens=15), Forbidden(tokens=(EOS,)))]
    found = search(model, batch, cfg, rules=endless)
    assert all(h.truncated for some in found for h in some), "the limit alone ended it"


@each_family
def test_a_score_does_not_depend_on_the_batch(build):
    model, given = build(300), rows(sources(300, 9))
    targets = [[*reversed(row[:-1]), EOS] for row in given]
    together = token_log_probs(model, given, targets)
    for source, target, values in zip(given, targets, together, strict=True):
        with torch.no_grad():
            p = model(torch.tensor([[BOS, *target[:-1]]]), torch.tensor([source]))[0].log_softmax(-1)
        assert values == pytest.approx(p.gather(1, torch.tensor([target]).T)[:, 0].tolist(), abs=1e-5)
        assert token_log_probs(model, [source], [target])[0] == pytest.approx(values, abs=1e-5)


def test_pairs_come_back_in_their_order_normalised_as_in_training():
    given = [Pair("one", "one"), Pair("  a \t b", "a  b"), Pair("long " * 20, "x"), Pair("", "")]
    scored = translator().score(given, batch_tokens=40)
    assert [p.row for p in scored] == [1, 2, 3, 4] and [p.source for p in scored] == [p.source for p in given]
    assert scored[1].tokens == (*BYTES.encode("a b"), EOS) and scored[3].tokens == (EOS,)
    for pair in scored:
        assert pair.log_prob == pytest.approx(sum(pair.token_log_probs)) and len(pair.tokens) == len(
            pair.token_log_probs
        )
    total, tokens = sum(p.log_prob for p in scored), sum(len(p.tokens) for p in scored)
    assert perplexity(scored) == pytest.approx(math.exp(-total / tokens))
    assert translator().score([]) == []


def test_a_pair_that_is_too_long_for_the_model_is_named():
    with pytest.raises(DataError, match=r"row 2: the target has 9 tokens and the model takes 6"):
        translator(max_length=6).score([Pair("one", "one"), Pair("two", "too long")])


def test_a_model_that_answers_nan_is_a_damaged_checkpoint():
    broken = translator()
    broken.model.output.bias.data[7] = math.nan
    with pytest.raises(CheckpointError, match="NaN"):
        broken.score([Pair("one", "one")])


def test_the_pieces_of_a_text_spell_it():
    texts = ["naïve café — 日本語", "a b  c", "100 % Ω"]
    for tokenizer in (BYTES, Tokenizer.train(Bpe(vocab=262), texts * 9)):
        for text in texts:
            ids = tokenizer.encode(text)
            assert b"".join(map(tokenizer.spelling, ids)).decode().removeprefix(" ") == text
            assert len(tokenizer.token_texts(ids)) == len(ids)
        assert tokenizer.spelling(EOS) == tokenizer.spelling(PAD) == b""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    cfg = tiny_config(write_pairs(folder / "pairs.tsv", 60), budget={"kind": "steps", "steps": 4})
    list(start(cfg, folder / "r").events())
    return folder / "r"


def test_score_prints_a_line_a_pair_and_the_perplexity_of_all(run, tmp_path, capsys):
    table = tmp_path / "given.tsv"
    table.write_text("the cat\tEHT TAC\na dog\tA GOD\n")
    assert main(["score", str(run), str(table), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["target"] for r in records] == ["EHT TAC", "A GOD"]
    expected = Translator.load(run).score([Pair("the cat", "EHT TAC"), Pair("a dog", "A GOD")])
    assert [r["log_prob"] for r in records] == pytest.approx([p.log_prob for p in expected])
    assert records[0]["tokens"] == [*"EHT TAC", ""] and len(records[0]["token_log_probs"]) == 8
    assert f"2 pairs, 14 tokens: perplexity {perplexity(expected):.4g}" in err
    assert main(["score", str(run), str(table), "-o", str(tmp_path / "out.tsv")]) == 0
    lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [line[1:] for line in lines] == [["8", "the cat", "EHT TAC"], ["6", "a dog", "A GOD"]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_score_computes_in_the_precision_that_is_named(precision, run, tmp_path, capsys):
    table = tmp_path / "given.tsv"
    table.write_text("the cat\tEHT TAC\na dog\tA GOD\n")
    assert main(["score", str(run), str(table), "--format", "json", "--precision", precision]) == 0
    found = [json.loads(line)["log_prob"] for line in capsys.readouterr().out.splitlines()]
    expected = Translator.load(run, precision=precision).score([Pair("the cat", "EHT TAC"), Pair("a dog", "A GOD")])
    assert found == [pair.log_prob for pair in expected]


def test_score_refuses_a_file_that_is_not_there_in_one_line(run, capsys):
    assert main(["score", str(run), "nowhere.tsv"]) == 2
    assert capsys.readouterr().err == "dragoman: nowhere.tsv: no such file\n"
