"""Multiple choice: likelihoods as transformers computes them, files as people have them, accuracies that count."""

import json
from pathlib import Path
from typing import Any

import foreign_text
import pytest
import torch

import dragoman
from dragoman.cli import main
from dragoman.decode.generator import Generator
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.multiple_choice import MultipleChoiceQuestion, evaluate, likelihoods, question_of, read_questions
from dragoman.interchange.importing import import_checkpoint

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

PAIRS = [
    ("The door is", " open"), ("The door is", " open."), ("The light is on the", " room and I'll ask"), ("a", " b"),
    ("The door ", "is open"), ("line one\n", "line two"), ("", "The door"), ("door", "s"), ("你好", "世界"),
]  # fmt: skip


@pytest.fixture(scope="module", params=[("LLaMA", True), ("Mistral", False)], ids=["with a beginning", "without"])
def world(request, tmp_path_factory) -> tuple[Path, Any, Any]:
    path = tmp_path_factory.mktemp("choice")
    tokenizer, theirs = foreign_text.make(foreign_text.Case(*request.param), path / "folder")
    import_checkpoint(path / "folder", path / "run")
    return path / "run", tokenizer, theirs


@torch.inference_mode()
def theirs_of(tokenizer: Any, model: Any, before: str, after: str) -> tuple[float, bool]:
    """Return the log-likelihood of a continuation and whether it is greedy, from the logits of transformers."""
    stripped = before.rstrip()
    before, after = stripped, before[len(stripped) :] + after
    first = tokenizer(before).input_ids
    whole = tokenizer(before + after).input_ids
    if not first:
        first, whole = [tokenizer.bos_token_id], [tokenizer.bos_token_id, *whole]
    count = len(whole) - len(first)
    logits = model(torch.tensor([whole])).logits[0, -count - 1 : -1].log_softmax(dim=-1)
    wanted = torch.tensor(whole[-count:])
    return float(logits.gather(1, wanted[:, None]).sum()), bool((logits.argmax(dim=-1) == wanted).all())


def test_likelihoods_are_those_of_transformers(world):
    run, tokenizer, theirs = world
    generator = Generator.load(run, precision="float32")
    pairs = [pair for pair in PAIRS if len(tokenizer(pair[0].rstrip() + "x").input_ids)]
    for found, pair in zip(likelihoods(generator, pairs), pairs, strict=True):
        log_prob, greedy = theirs_of(tokenizer, theirs, *pair)
        assert found.log_prob == pytest.approx(log_prob, abs=2e-4) and found.greedy == greedy, pair


def test_likelihoods_do_not_depend_on_the_batch_and_long_texts_lose_their_beginning(world, monkeypatch):
    generator = Generator.load(world[0], precision="float32")
    together = likelihoods(generator, PAIRS)
    for pair, found in zip(PAIRS, together, strict=True):
        assert likelihoods(generator, [pair])[0].log_prob == pytest.approx(found.log_prob, abs=1e-4)
    monkeypatch.setattr(type(generator.model), "max_length", 20)
    [cut] = likelihoods(generator, [("The light is on. " * 50, "door")])
    assert cut.log_prob < 0


def test_the_choice_is_the_likeliest_and_accuracies_count_the_right_ones(world):
    generator = Generator.load(world[0], precision="float32")
    questions = [
        MultipleChoiceQuestion("The door is", ("open", "a line of words that is longer", "x"), i % 3) for i in range(9)
    ]
    found = evaluate(generator, questions)
    scores = [
        each.log_prob for each in likelihoods(generator, [("The door is", f" {c}") for c in questions[0].choices])
    ]
    best = max(range(3), key=scores.__getitem__)
    assert [output["choice"] for output in found.outputs] == [best] * 9
    assert found.scores["accuracy"].value == pytest.approx(100 / 3)
    lengths = [len(choice) for choice in questions[0].choices]
    per_byte = max(range(3), key=lambda i: scores[i] / lengths[i])
    assert found.outputs[0]["choice_per_byte"] == per_byte
    assert found.baseline["accuracy"].value == pytest.approx(100 / 3)


FORMS = [
    {"prompt": "p", "choices": ["a", "b"], "answer": 1},
    {"question": "p", "options": ["a", "b"], "answer": "B"},
    {"ctx": "p", "endings": ["a", "b"], "label": "1"},
    {"question": "p", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"},
    {"query": "p", "choices": ["a", "b"], "gold": 1, "id": 7},
    {"context": "p", "choices": ["a", "b"], "answer": "b"},
    {"prompt": "p", "question": "q", "context": "c", "choices": ["a", "b"], "answer": "b"},
    {"question": "p", "query": "p", "choices": ["a", "b"], "answer": "b"},
]


@pytest.mark.parametrize("record", FORMS)
def test_questions_are_read_under_their_usual_names(record):
    assert question_of(record, "x") == MultipleChoiceQuestion("p", ("a", "b"), 1)


@pytest.mark.parametrize(
    ("labels", "answer", "index"),
    [
        (["1", "2", "3"], 1, 0),
        ([1, 2, 3], 1, 0),
        ([1, 2, 3], "3", 2),
        ([2, 0, 1], 0, 1),
        (["C", "A", "B"], "A", 1),
        (["A", "B", "C"], 1, 1),  # no label is a number: the choices are counted from 0
        (["A", "B", "C"], "y", 1),
        ([1, 2, 3], 0, None),
        ([1, 2, 3], "0", None),
        (["A", "B"], "A", None),
        (["A", "A", "B"], "A", None),
        ("ABC", "A", None),
    ],
)
def test_stated_labels_come_before_numbers(labels, answer, index):
    record = {"question": "p", "choices": {"text": ["x", "y", "z"], "label": labels}, "answerKey": answer}
    if index is not None:
        assert question_of(record, "q.jsonl:1").answer == index
        return
    with pytest.raises(DataError, match=r"^q.jsonl:1: (answer: .*give its label|choices: label: a label of its own)"):
        question_of(record, "q.jsonl:1")


BAD: dict[str, tuple[str, str]] = {
    "not JSON": ("{", r":2: not JSON"),
    "no object": ("[1]", r":2: a JSON object with prompt"),
    "no prompt": ('{"choices": ["a", "b"], "answer": 0}', r":2: no prompt \(or question"),
    "one choice": ('{"prompt": "p", "choices": ["a"], "answer": 0}', r":2: choices: a list of two or more"),
    "a number": ('{"prompt": "p", "choices": ["a", 3], "answer": 0}', r":2: choice 2: a text is expected, got 3"),
    "no such choice": ('{"prompt": "p", "choices": ["a", "b"], "answer": 2}', r":2: answer: 2 is none of the choices"),
    "no such letter": ('{"prompt": "p", "choices": ["a", "b"], "answer": "C"}', r":2: answer: 'C' is none"),
    "true": ('{"prompt": "p", "choices": ["a", "b"], "answer": true}', r":2: answer: True is none"),
    "two prompts": (
        '{"context": "c", "question": "q", "choices": ["a", "b"], "answer": 0}',
        r":2: question and context: give all that stands before the choices as one text, prompt",
    ),
    "nothing": ('{"prompt": null, "choices": ["a", "b"], "answer": 0}', r":2: prompt: a text is expected, got None"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD)
def test_a_broken_line_is_named(tmp_path, line, said):
    (tmp_path / "q.jsonl").write_text(json.dumps(FORMS[0]) + "\n" + line + "\n")
    with pytest.raises(DataError, match=said):
        read_questions(tmp_path / "q.jsonl")


def test_the_command_and_the_function_give_the_same_figures(world, tmp_path, capsys):
    run = world[0]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(form) + "\n" for form in FORMS))
    assert main(["evaluate", str(run), str(tmp_path / "q.jsonl"), "--multiple-choice", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = dragoman.evaluate(run, FORMS, multiple_choice=True)
    assert said["scores"]["accuracy"]["value"] == found.scores["accuracy"].value
    assert len((run / "evaluations" / "q" / "outputs.jsonl").read_text().splitlines()) == len(FORMS)
    assert main(["evaluate", str(run), "--multiple-choice"]) == 2
    assert "name a file of questions" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="multiple choice needs questions"):
        dragoman.evaluate(run, multiple_choice=True)
