"""Passages before a question: those of BM25, in the model's own form, as many as leave room for an answer."""

import json
import math
from collections import Counter

import pytest
import torch

from dragoman import cli
from dragoman.checkpoint import RunDirectory
from dragoman.cli.chat import Chat
from dragoman.config import from_dict, to_dict
from dragoman.decode.generator import Generator
from dragoman.decode.passage_prompts import prompts_with_passages
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import DataError
from dragoman.model.families import ModelConfig
from dragoman.text.passages import Passages
from dragoman.text.tokens.tokenizer import BOS, Tokenizer
from dragoman.text.tokens.training import Bytes

TEXTS = [
    "The castle was built by King John.",
    "The bridge is made of stone and stone alone.",
    "A bridge crosses the river near the castle.",
    "塔は木でできている。",
]
BYTES = Tokenizer.train(Bytes(), [])


def test_passages_are_ranked_by_bm25():
    known = [text.lower().replace(".", "").split() for text in TEXTS[:3]]
    mean = sum(map(len, known)) / 3

    def score(query, words):
        found = 0.0
        for word in set(query):
            n = sum(word in text for text in known)
            idf, count = math.log(1 + (3 - n + 0.5) / (n + 0.5)), Counter(words)[word]
            found += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(words) / mean))
        return found

    passages = Passages(TEXTS[:3], 3)
    for query in ("stone bridge", "who built the castle", "river", "the the stone"):
        best = passages.index.best(query.split(), 3)
        expected = {row: score(query.split(), words) for row, words in enumerate(known)}
        assert dict(best) == pytest.approx({row: value for row, value in expected.items() if value})
        assert [row for row, _ in best] == sorted(dict(best), key=lambda row: (-expected[row], row))


@pytest.mark.parametrize(
    ("question", "first"),
    [("Who built the CASTLE?", 0), ("What is the bridge made of: stone?", 1), ("river!", 2), ("木の塔", 3)],
)
def test_the_passage_about_a_question_comes_first(question, first):
    assert Passages(TEXTS, 2).find(question)[0] == TEXTS[first]


@pytest.mark.parametrize("question", ["", "?!", "zebra", "\u00a0"])
def test_a_question_about_nothing_there_stands_alone(question):
    passages = Passages(TEXTS, 2)
    assert passages.find(question) == []
    assert passages.prompt(question) == question
    assert passages.context(question) == "\n\n".join(TEXTS[:2])


def test_passages_are_read_from_text_and_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n\n".join(TEXTS) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert Passages.read(str(tmp_path / "a.txt")).texts == Passages.read(str(tmp_path / "a.jsonl")).texts == TEXTS
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt: holds no text"):
        Passages.read(str(tmp_path / "empty.txt"))


BLOCK = {
    "mixer": {"heads": 2, "visibility": "causal"},
    "mlp": {"kind": "feed_forward", "hidden": 16},
    "norm": "layer_norm",
}


def writer(length):
    position = {"kind": "learned", "length": length} if length else "sinusoidal"
    plain = {"dim": 8, "decoder": {"depth": 1, "pattern": [BLOCK]}, "position": position}
    torch.manual_seed(0)
    return from_dict(ModelConfig, plain).sized(vocab=len(BYTES))


def test_as_many_passages_as_leave_room_stand_before_the_question():
    question = "bridge castle stone"
    for length, count in ((None, 3), (400, 3), (150, 2), (60, 0)):
        generator = Generator(writer(length).build(), BYTES)
        prompt = prompts_with_passages(generator, Passages(TEXTS), 20)(question)
        wanted = "\n\n".join([*Passages(TEXTS).find(question)[:count], question])
        assert prompt.text == question
        assert list(prompt.ids) == [BOS, *BYTES.encode(wanted)]
        whole, shown = generator.generate([wanted, prompt], search=Greedy(), max_new_tokens=5)
        assert whole.continuations == shown.continuations
    assert prompts_with_passages(generator, None)(question) == question


# ---- commands ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    reader = {
        "kind": "encoder",
        "dim": 8,
        "inputs": {"kind": "token_input", "types": 2},
        "tower": {"depth": 1, "pattern": [BLOCK | {"mixer": {"heads": 2, "visibility": "full"}}]},
        "head": "spans",
    }
    finds = {"kind": "question_answering", "longest_answer": 20, "unanswerable": False}
    data = {"kind": "questions", "longest": 96, "longest_question": 32, "stride": 16}
    torch.manual_seed(1)
    models = {
        "lm": ("language_modelling", {}, writer(None)),
        "reader": (finds, data, from_dict(ModelConfig, reader).sized(vocab=len(BYTES))),
    }
    for name, (task, data, cfg) in models.items():
        content = {"task": task if isinstance(task, dict) else {"kind": task}, "data": data, "model": to_dict(cfg)}
        run = RunDirectory.create(folder / name, content)
        run.write_tokenizers(BYTES, BYTES)
        run.save(1, tensors={"model": cfg.build().state_dict()}, progress={"step": 1}, config=content, best=True)
        run.close()
    (folder / "facts.txt").write_text("\n\n".join(TEXTS) + "\n")
    return folder


def test_generate_looks_its_question_up(runs, capsys):
    facts, question = str(runs / "facts.txt"), "Who built the castle?"
    options = ["--search", "greedy", "--max-new-tokens", "4", "--format", "json"]
    assert not cli.main(["generate", str(runs / "lm"), question, "--passages", facts, "--top-passages", "1", *options])
    found = json.loads(capsys.readouterr().out)
    assert not cli.main(["generate", str(runs / "lm"), f"{TEXTS[0]}\n\n{question}", *options])
    written_out = json.loads(capsys.readouterr().out)
    assert found["prompt"] == question
    assert found["continuations"] == written_out["continuations"]


def test_answer_finds_its_context(runs, capsys):
    facts = str(runs / "facts.txt")
    asked = ["answer", str(runs / "reader"), "What is the bridge made of?", "--passages", facts]
    assert not cli.main([*asked, "--format", "json", "--top-passages", "2"])
    found = json.loads(capsys.readouterr().out)
    assert found["context"] == "\n\n".join([TEXTS[1], TEXTS[2]])
    assert found["context"][found["start"] :].startswith(found["answer"])
    assert not cli.main(asked)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("answer reader why? --passages none.txt", "none.txt"),
        ("answer reader why? --passages facts.txt --context facts.txt", "--passages: the context is looked up there"),
        ("generate lm why? --passages none.txt", "none.txt"),
        ("generate lm why? --passages facts.txt --top-passages 0", "--top-passages"),
    ],
)
def test_a_wrong_option_is_refused(command, message, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert cli.main(command.split()) == 2
    assert message in capsys.readouterr().err


def test_a_chat_model_gets_passages_in_the_last_message_of_the_user():
    chat = Chat(None, {}, "Be brief.", Passages(TEXTS, 1))  # pyright: ignore[reportArgumentType]
    question = {"role": "user", "content": "Who built the castle?"}
    asked = chat.completed([question])
    assert asked == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{TEXTS[0]}\n\nWho built the castle?"},
    ]
    answered = [question, {"role": "assistant", "content": "King John."}]
    assert chat.completed(answered)[1:] == answered
    assert question["content"] == "Who built the castle?"
