"""Readers: from questions on texts to the parts that answer them, with the sentence likest to the question beside."""

import collections
import io
import json
import re
import string
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_reader import config, quick_disk, trained  # noqa: F401 (a fixture)
from tiny_run import outcome

import dragoman
from dragoman.cli import main
from dragoman.data import answers
from dragoman.data.spans import (
    ContextLayout,
    ContextWindow,
    EncodedQuestions,
    SpanBatch,
    SpanScore,
    as_fields,
    best_answer,
    best_span,
    selectable,
    tokens_of,
)
from dragoman.data.spans import windows as cut
from dragoman.data.tasks.question_answering import span_loss
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.tagger import Tagger
from dragoman.errors import CheckpointError, ConfigError, DataError
from dragoman.evaluate.question_answering import evaluate, likest_sentence
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.formats.questions import (
    Answer,
    Question,
    QuestionLines,
    Questions,
    Squad,
    guess_questions,
    read_questions,
)
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer
from dragoman.text.tokens.training import Bpe, Bytes, Characters, Unigram, Words
from dragoman.train.events import Saved
from dragoman.train.run import resume, start

PEOPLE, THINGS, PLACES = ["al", "bo", "cy", "di"], ["cup", "hat", "key", "pen"], ["barn", "lake", "shed", "yard"]


def questions(count=300, seed=1):
    """Who has what, and where; some texts do not say where."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        who, what, where = (str(draw.choice(some)) for some in (PEOPLE, THINGS, PLACES))
        context = f"{who} has a {what}" + (f" in the {where}" if draw.random() < 0.7 else "") + f". so says n{number}."
        word, right = [("who", who), ("what", what), ("where", where)][int(draw.integers(3))]
        answer = (Answer(right, context.index(right)),) if right in context else ()
        yield Question(context, f"{word} is it?", answer)


def write_lines(path, examples):
    path.write_text("".join(json.dumps(example.record()) + "\n" for example in examples))
    return path


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("text") / "where.jsonl", questions())


def run_config(path, steps=12, data=None, **train):
    held = {"test": 20, "valid": 20, "near": None}
    data = {"kind": "questions", "train": [{"kind": "question_lines", "path": str(path)}], "hold_out": held} | (
        data or {}
    )
    model = {"dim": 32, "inputs": {"kind": "token_input", "types": 2}, "tower": {"depth": 2}, "head": "spans"}
    return config("question_answering", data, model, steps, vocab=300, **{"batch_tokens": 800} | train)


@pytest.fixture(scope="module")
def run(lines, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    _, seen = trained(run_config(lines, steps=40), path)
    assert seen.scores["exact match"] > 80
    return path


# ---- learning -------------------------------------------------------------------------------------


def test_where_a_thing_is_and_that_nobody_says_is_learned_and_the_baseline_knows_neither(run):
    found = evaluate(Answerer.load(run), list(questions(60, seed=9)))
    assert found.scores["exact_match"].value > 80 > found.baseline["f1"].value + 20
    assert found.baseline["f1"].value > 10


def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(lines, tmp_path):
    cfg = run_config(lines, validate_every=4)
    list(start(cfg, tmp_path / "whole").events())
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped", cfg=cfg).events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_questions_are_answered_alike_alone_and_among_others(run):
    answerer = Answerer.load(run)
    asked = [(one.context, one.question) for one in questions(12, seed=3)] + [("Ünknown!", ""), ("x", "who?")]
    for one, together in zip(asked, answerer.ask(asked), strict=True):
        alone = answerer.ask([one])[0]
        assert (alone.answer, alone.start) == (together.answer, together.start)
        assert alone.probability == pytest.approx(together.probability, abs=1e-5)
        if together.start is not None:
            assert one[0][together.start :].startswith(together.answer)
    assert answerer.ask([]) == []


def test_of_a_context_longer_than_a_window_the_window_that_knows_answers(run, monkeypatch):
    answerer = Answerer.load(run)
    (mark,) = {*answerer.form.tokenizer.encode("so#")} - {*answerer.form.tokenizer.encode("so")}
    monkeypatch.setattr(answerer, "answer", lambda ids: 9.0 * (ids == mark)[..., None].repeat(1, 1, 2).float())
    answerer.form = EncodedQuestions(answerer.form.tokenizer, ContextLayout(40, 12, 6))
    for before in (0, 1, 7, 30):
        context = "it is so." * before + "so#" + " it is so." * 12
        said = answerer.ask([(context, "who is it?")])[0]
        assert (said.answer, said.start) == ("#", context.index("#"))


def test_a_reader_is_verified_on_texts_and_without_any(run, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("it is so#\n\nwho is it?\n")
    for more in ([], ["--text", str(tmp_path / "texts.txt")]):
        assert main(["verify", str(run), "--sentences", "6", *more]) == 0
        assert "6 of 6 hold." in capsys.readouterr().out


def test_a_reader_is_no_tagger_and_says_so(run):
    with pytest.raises(CheckpointError, match="finds the answer to a question in a text: use `dragoman answer`"):
        Tagger.load(run)


# ---- rows -----------------------------------------------------------------------------------------

TEXTS = ["Anna sings in Lima, Peru.", "  Zwölf Häuser\n\tam Meer — 東京 😀😀 ok", "the cat. The cat! (the cat)", "éa"]


@pytest.mark.parametrize("cfg", [Bpe(vocab=272), Unigram(vocab=290), Words(vocab=268), Characters(), Bytes()], ids=str)
def test_offsets_are_those_of_the_text_as_it_was_given_whatever_the_tokenizer(cfg):
    tokenizer = Tokenizer.train(cfg, TEXTS * 5)
    for text in TEXTS:
        ids, offsets = tokenizer.encode_with_offsets(text)
        assert ids == tokenizer.encode(text)
        assert offsets[0][0] == 0 and offsets[-1][1] == len(text)
        for (_, end), (begin, after) in pairwise(offsets):
            assert begin <= end <= after, "nothing is left out between tokens"


@pytest.mark.parametrize("cfg", [Bpe(vocab=272), Unigram(vocab=290), Words(vocab=268), Characters(), Bytes()], ids=str)
@pytest.mark.parametrize("layout", [ContextLayout(400, 8, 100), ContextLayout(30, 8, 3)], ids=["whole", "windows"])
def test_the_tokens_of_every_answer_say_it(cfg, layout):
    """The shortest span of tokens that covers it: trimmed of spaces it is the answer, or what cannot be cut further."""
    tokenizer = Tokenizer.train(cfg, TEXTS * 5)
    for text in TEXTS:
        for match in re.finditer(r"\S+", text):
            answer, held = Answer(match[0], match.start()), 0
            for window in cut(tokenizer.encode("who?"), *tokenizer.encode_with_offsets(text), layout):
                first, last = window.span(tokens_of(answer, tokenizer.encode_with_offsets(text)[1]))
                if last:
                    begin, end = window.characters(first, last)
                    assert text[begin:end].strip() == answer.text
                    inside = window.ids[first : last + 1]
                    assert tokenizer.decode(inside).strip() == answer.text
                    held += 1
            assert held or len(match[0]) > layout.stride, "some window holds it whole"


def test_a_row_is_the_question_and_the_context_and_answers_stand_in_the_context_alone(tmp_path):
    tokenizer = Tokenizer.train(Bytes(), [])
    form = EncodedQuestions(tokenizer, ContextLayout(50, 10, 10))
    context = "a b a"
    form.store(tmp_path / "store", [Question(context, "a?", (Answer("a", 4),)), Question("bb", "a?", ())])
    batch = form.batch(Store.open(tmp_path / "store"), np.array([0, 1]))
    a, b, space, mark = (tokenizer.encode(letter)[0] for letter in "ab ?")
    assert batch.ids.tolist() == [
        [BOS, a, mark, EOS, a, space, b, space, a, EOS],
        [BOS, a, mark, EOS, b, b, EOS, 0, 0, 0],
    ]
    assert batch.spans.tolist() == [[8, 8], [0, 0]]
    tokens = as_fields(batch.ids)
    assert tokens.field is not None and tokens.field[0].tolist() == [0] * 4 + [1] * 6
    assert tokens.keep is not None and tokens.keep[1].tolist() == [True] * 7 + [False] * 3
    assert selectable(batch.ids).nonzero().tolist() == [[0, i] for i in (0, 4, 5, 6, 7, 8)] + [
        [1, i] for i in (0, 4, 5)
    ]


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 40])
@pytest.mark.parametrize("stride", [1, 3, 6, 100])
def test_windows_cover_all_of_the_context_and_fit(length, stride):
    context, offsets = list(range(10, 10 + length)), [(i, i + 1) for i in range(length)]
    found = list(cut([7, 8, 9], context, offsets, ContextLayout(11, 3, stride)))
    assert {i for window in found for i, _ in window.offsets} == set(range(length))
    for window in found:
        assert len(window.ids) <= 11 and window.ids[: window.begin] == [BOS, 7, 8, 9, EOS]
        assert window.ids[window.begin : -1] == [10 + i for i, _ in window.offsets] and window.ids[-1] == EOS
    assert len(found) == 1 or length > 5


# ---- loss and choice ------------------------------------------------------------------------------


def rows(count=6, seed=0):
    draw = np.random.default_rng(seed)
    longest, ids = 14, []
    for _ in range(count):
        row = [BOS, *draw.integers(5, 9, 3), EOS, *draw.integers(5, 9, draw.integers(2, 8)), EOS]
        ids.append(row + [0] * (longest - len(row)))
    return torch.tensor(np.array(ids)), torch.randn(count, longest, 2, generator=torch.Generator().manual_seed(seed))


def inside(row):
    first = row.index(EOS) + 1
    return range(first, row.index(EOS, first))


def test_the_loss_is_that_of_both_ends_over_the_context_and_position_0():
    ids, logits = rows()
    spans = torch.tensor([[0, 0], *([inside(row)[0], inside(row)[-1]] for row in ids[1:].tolist())])
    summed, count = span_loss(logits, SpanBatch(ids, spans))
    expected = 0.0
    for row, of_row, both in zip(ids.tolist(), logits.double().numpy(), spans.tolist(), strict=True):
        for side in (0, 1):
            own = np.exp(of_row[[0, *inside(row)], side])
            expected -= np.log(np.exp(of_row[both[side], side]) / own.sum())
    assert float(summed) == pytest.approx(expected, rel=1e-5) and float(count) == len(ids)


@pytest.mark.parametrize("longest", [1, 2, 30])
def test_the_best_span_is_the_best_of_all_pairs(longest):
    for row, of_row in zip(*rows(40, seed=longest), strict=True):
        found, tokens = best_span(of_row, row, longest), inside(row.tolist())
        pairs = [(i, j) for i in tokens for j in tokens if i <= j < i + longest]
        scores = {(i, j): float(of_row[i, 0] + of_row[j, 1]) for i, j in pairs}
        assert (found.first, found.last) == max(scores, key=scores.__getitem__)
        assert found.score == pytest.approx(max(scores.values()), abs=1e-6)
        assert found.none == pytest.approx(float(of_row[0].sum()), abs=1e-6) and 0 < found.probability < 1


def test_no_answer_is_said_where_it_may_be_and_every_window_is_surer_of_it_than_of_any_span():
    window = ContextWindow([BOS, 5, EOS, 6, EOS], 3, 0, [(0, 5)])
    one, other = SpanScore(3, 3, 2.0, 3.0, 0.4), SpanScore(3, 3, 1.0, 2.5, 0.1)
    assert best_answer(" abcd", [(window, one), (window, other)], null_threshold=None) == ("abcd", 1, 0.4)
    assert best_answer(" abcd", [(window, one), (window, other)], null_threshold=0.0)[:2] == ("", None)
    surer = other._replace(none=1.5)
    assert best_answer(" abcd", [(window, one), (window, surer)], null_threshold=0.0) == ("abcd", 1, 0.4)


@pytest.mark.parametrize(("threshold", "answer"), [(0.4, ""), (0.5, "abcd"), (3.0, "abcd"), (-9.0, "")])
def test_no_answer_must_exceed_the_best_span_by_more_than_the_threshold(threshold, answer):
    window = ContextWindow([BOS, 5, EOS, 6, EOS], 3, 0, [(0, 5)])
    read = [(window, SpanScore(3, 3, 2.0, 2.5, 0.4))]
    assert best_answer(" abcd", read, null_threshold=threshold).text == answer


def test_the_threshold_of_no_answer_is_the_runs_or_that_of_the_command(run, lines, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("al has a cup. so says n1.\n")
    command = ["answer", str(run), "where is it?", "--context", str(tmp_path / "text.txt")]
    told = []
    for more in ([], ["--null-threshold", "1e9"], ["--null-threshold", "-1e9"]):
        assert main([*command, *more]) == 0
        told.append(capsys.readouterr().out.strip())
    assert told[0] == told[2] == "" and told[1] in "al has a cup. so says n1." and told[1]
    data = {"hold_out": {"test": 20, "valid": 60, "near": None}}
    cfg = run_config(lines, steps=2, data=data)
    always = replace(cfg, task=replace(cfg.task, null_threshold=1e9))
    _, seen = trained(always, tmp_path / "always")
    assert all(sample.output != "(no answer)" for sample in seen.samples)
    assert Answerer.load(tmp_path / "always").null_threshold == 1e9
    asked = [("al has a cup. so says n1.", "where is it?")]
    from_python = [Answerer.load(run, null_threshold=score).ask(asked)[0].answer for score in (None, 1e9, -1e9)]
    assert (
        from_python
        == told
        == [dragoman.Run(run).answerer(null_threshold=s).ask(asked)[0].answer for s in (0, 1e9, -1e9)]
    )


@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_a_threshold_that_is_no_finite_number_is_refused(score, run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("al has a cup.\n")
    command = ["answer", str(run), "where?", "--context", str(tmp_path / "text.txt"), "--null-threshold", score]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "null_threshold: expected a finite number" in told and told.count("\n") == 1
    with pytest.raises(ConfigError, match="null_threshold: expected a finite number"):
        Answerer.load(run, null_threshold=float(score))
    (tmp_path / "run.yaml").write_text(f"task: {{kind: question_answering, null_threshold: .{score[-3:]}}}\n")
    assert main(["train", str(tmp_path / "run.yaml")]) == 2
    assert "task.null_threshold: expected a finite number" in capsys.readouterr().err


def test_questions_with_and_without_an_answer_are_scored_apart(run):
    examples = list(questions(60, seed=9))
    found = evaluate(Answerer.load(run), examples)
    with_answer = [one for one in examples if one.answers]
    apart = {"answerable": with_answer, "unanswerable": [one for one in examples if not one.answers]}
    for kind, some in apart.items():
        alone = evaluate(Answerer.load(run), some)
        assert alone.scores.keys() == {"exact_match", "f1"}
        for name, score in alone.scores.items():
            assert found.scores[f"{name}_{kind}"].value == pytest.approx(score.value)
            assert found.baseline[f"{name}_{kind}"].value == pytest.approx(alone.baseline[name].value)


def test_an_end_token_that_a_question_spells_makes_none_of_it_an_answer(run, monkeypatch):
    answerer = Answerer.load(run, special_tokens=True)
    (end,) = [text for text in ("</s>", "⟨eos⟩", "<eos>") if list(answerer.tokenizer.encode(text)) == [EOS]]
    context, question = "al has a cup.", "who is it?"
    for spelled in (f"who {end}is it?", f"{end}{end}{question}", f"{question}{end}"):
        ((window,),) = answerer.form.windows([(context, spelled)])
        marked = selectable(torch.tensor([window.ids]))[0].nonzero()[1:, 0].tolist()
        assert marked == list(range(window.begin, window.begin + len(window.offsets)))


# ---- figures --------------------------------------------------------------------------------------


def official(measure, guess, golds):
    """SQuAD 2.0's rules, stated anew: evaluate-v2.0.py's compute_exact and compute_f1 under the best of the answers."""

    def plain(text):
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())

    def f1(gold):
        gold_toks, pred_toks = plain(gold).split(), plain(guess).split()
        same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
        if len(gold_toks) == 0 or len(pred_toks) == 0:
            return int(gold_toks == pred_toks)
        if same == 0:
            return 0
        precision, recall = 1.0 * same / len(pred_toks), 1.0 * same / len(gold_toks)
        return (2 * precision * recall) / (precision + recall)

    golds = [gold for gold in golds if plain(gold)] or [""]
    return max((f1(gold) if measure == "f1" else int(plain(gold) == plain(guess))) for gold in golds)


def test_exact_match_and_f1_are_squads():
    draw = np.random.default_rng(1)
    parts = ["The", "a", "cat", "Cat,", "sat", "an", "U.S.", "it's", "(the)", "…", "—", "theory", "  ", "\n", "5%"]
    for _ in range(500):
        guess, *golds = (" ".join(draw.choice(parts, draw.integers(0, 5))) for _ in range(int(draw.integers(1, 4))))
        assert answers.best(answers.exact, guess, golds) == official("exact", guess, golds)
        assert answers.best(answers.f1, guess, golds) == pytest.approx(official("f1", guess, golds), abs=1e-12)


def test_the_baseline_is_the_sentence_that_shares_most_words_with_the_question():
    context = "Anna sings. Bo is in the old barn! He sleeps there.\nThe barn is red"
    assert likest_sentence(context, "Where is Bo?") == "Bo is in the old barn!"
    assert likest_sentence(context, "?") == "Anna sings."


# ---- files ----------------------------------------------------------------------------------------


def squad(answers, **more):
    asked = {"question": "who?", "id": "1", "answers": answers} | more
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Bo, I say: Bo", "qas": [asked]}]}]}


def test_files_of_every_kind_say_the_same(tmp_path):
    expected = [Question("Bo, I say: Bo", "who?", (Answer("Bo", 0), Answer("Bo", 11)))]
    both = {"context": "Bo, I say: Bo", "question": "who?"}
    pairs = [("Bo", 0), ("Bo", 11)]
    files = {
        "a.json": squad([{"text": text, "answer_start": start} for text, start in pairs]),
        "b.jsonl": both | {"answers": [{"text": text, "start": start} for text, start in pairs]},
        "c.jsonl": both | {"answers": {"text": ["Bo", "Bo"], "answer_start": [0, 11]}},
        "d.jsonl": expected[0].record(),
    }
    for name, record in files.items():
        (tmp_path / name).write_text(json.dumps(record))
        assert read_questions(guess_questions(str(tmp_path / name))) == expected, name


def test_a_question_may_have_no_answer(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(squad([], is_impossible=True, plausible_answers=[])))
    (tmp_path / "b.jsonl").write_text('{"context": "c", "question": "q", "answers": []}\n\n')
    assert read_questions(Squad(path=str(tmp_path / "a.json")))[0].answers == ()
    assert read_questions(QuestionLines(path=str(tmp_path / "b.jsonl"))) == [Question("c", "q", ())]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.json",
            squad([{"text": "Bo", "answer_start": 3}]),
            r"a\.json: data\.0\.paragraphs\.0\.qas\.0: answer 'Bo' should begin at character 3, where there is ' I'; "
            "it is at 0",
        ),
        ("a.json", squad([{"text": "Al", "answer_start": 40}]), "character 40, where there is nothing; it is not in"),
        ("a.json", squad([{"text": "Bo"}]), r"qas\.0: an answer is an object with 'text' and 'start'"),
        ("a.json", squad("Bo"), r"qas\.0: expected an object with 'answers': a list"),
        ("a.json", {"data": [{}]}, r"a\.json: data\.0: expected an object with 'paragraphs': a list"),
        ("a.json", {"data": []}, r"a\.json: holds no questions"),
        ("a.json", [1], r"a\.json: expected an object with 'data': a list"),
        ("a.jsonl", {"context": "c", "question": " ", "answers": []}, r"a\.jsonl:1: expected .* 'question': a text"),
        ("a.jsonl", {"context": "c", "question": "q"}, r"a\.jsonl:1: expected an object with 'answers': a list"),
        (
            "a.jsonl",
            {"context": "c", "question": "q", "answers": {"text": ["c"], "answer_start": []}},
            r"a\.jsonl:1: 1 answers and 0 starts",
        ),
        ("a.jsonl", {"context": "c", "question": "q", "answers": [{"text": "c", "start": -1}]}, "at character -1"),
        ("a.jsonl", {"context": "c", "question": "q", "answers": [{"text": "c", "start": True}]}, "an integer"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        read_questions(guess_questions(str(tmp_path / name)))


def test_a_name_that_tells_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"name it \.json \(the format of SQuAD\) or \.jsonl"):
        guess_questions("a.txt")


def test_questions_on_a_context_are_held_out_together_and_none_is_lost(tmp_path):
    contexts = [chr(97 + i) * 9 for i in range(26)]
    some = [Question(context, word, (Answer(context, 0),)) for context in contexts for word in ("who?", "what?")]
    source = QuestionLines(path=str(write_lines(tmp_path / "a.jsonl", some)))
    found = Questions(train=(source,), hold_out=HoldOut(test=5, valid=4, near=None)).split()
    parts = [found.split.train, found.split.valid, found.split.test]
    assert [len(part) for part in parts] == [34, 8, 10] and sorted(chain(*parts)) == sorted(some)
    assert not {one.context for one in parts[0]} & {one.context for one in parts[1] + parts[2]}
    assert dict(found.table)["contexts read"] == 26 and dict(found.table)["questions for test"] == 10


def test_nothing_to_learn_is_told(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [one._replace(answers=()) for one in questions(60)])
    with pytest.raises(DataError, match="no question to train on has an answer"):
        list(start(run_config(path), tmp_path / "run").events())


def test_what_does_not_fit_is_named_before_anything_is_written(lines, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.longest: 20 tokens, and a question alone may have 64"):
        start(run_config(lines, data={"longest": 20}), tmp_path / "run")
    nothing = {"kind": "questions", "train": []}
    with pytest.raises(ConfigError, match=r"model\.head: question_answering takes a head of the kind spans"):
        start(config("question_answering", nothing, {"head": "tagging"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- the command line -----------------------------------------------------------------------------


def test_answer_prints_the_answer_to_each_question_on_a_text(run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("al has a key in the lake. so says n3.\n")
    (tmp_path / "asked.txt").write_text("who is it?\nwhere is it?\n")
    on = ["--context", str(tmp_path / "text.txt")]
    assert main(["answer", str(run), "what is it?", *on]) == 0
    assert capsys.readouterr().out == "key\n"
    assert main(["answer", str(run), str(tmp_path / "asked.txt"), *on]) == 0
    assert capsys.readouterr().out == "al\nlake\n"
    assert main(["answer", str(run), "what is it?", *on, "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["answer"] == "key" and record["start"] == 9 and 0 < record["probability"] <= 1


def test_lines_of_json_come_in_and_go_out(run, tmp_path, capsys, monkeypatch):
    asked = {"context": "bo has a cup. so says n3.", "question": "where is it?"}
    (tmp_path / "in.jsonl").write_text(json.dumps(asked) + "\n\n" + json.dumps(asked | {"question": "who is it?"}))
    assert main(["answer", str(run), str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]) == 0
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["answer"], first["start"]) == ("", None) and (second["answer"], second["start"]) == ("bo", 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(asked).encode())))
    assert main(["answer", str(run), "--format", "text"]) == 0
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"context": "c"}\n', "in.jsonl:1: expected an object with 'question': a text"),
        ("who?\n", "in.jsonl:1: not JSON"),
        (None, "in.jsonl: no such file"),
        ("", "name it with --context"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_line(run, tmp_path, capsys, content, says):
    if content:
        (tmp_path / "in.jsonl").write_text(content)
    asked = "who has a cup?" if content == "" else str(tmp_path / "in.jsonl")
    assert main(["answer", str(run), asked]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err


def test_an_empty_context_is_refused(run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n")
    assert main(["answer", str(run), "who?", "--context", str(tmp_path / "text.txt")]) == 2
    assert "text.txt: holds no text to find answers in" in capsys.readouterr().err


def test_evaluate_shows_both_figures_and_the_baselines(run, tmp_path, capsys):
    path = write_lines(tmp_path / "own.jsonl", questions(30, seed=7))
    assert main(["evaluate", str(run), str(path)]) == 0
    out = capsys.readouterr().out
    assert "exact match" in out and "F1" in out and "the sentence with most words" in out
    kept = json.loads((run / "evaluations" / "own" / "scores.json").read_text())
    apart = {f"{name}_{kind}" for name in ("exact_match", "f1") for kind in ("answerable", "unanswerable")}
    assert set(kept["scores"]) == set(kept["baseline"]) == {"exact_match", "f1"} | apart
    assert main(["evaluate", str(run)]) == 0, "and on what the run has held out"
    assert Path(run / "evaluations" / "test" / "outputs.jsonl").is_file()
