"""Language models from plain text: rows that hold every token once, documents apart, exact resumes."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import ATTENTION, BLOCK, outcome

from dragoman.cli import main
from dragoman.config import from_dict, merge
from dragoman.data.packing import IGNORE, Packed, RowBatches, Stretches, collate
from dragoman.data.tasks import LanguageModellingTask
from dragoman.decode.generator import Generator
from dragoman.decode.prompt import EncodedPrompt
from dragoman.decode.search.greedy import Greedy
from dragoman.errors import ConfigError, DataError
from dragoman.inspect.subject import Subject
from dragoman.model.caches.cache import DEFAULT
from dragoman.model.families import ModelConfig
from dragoman.serve.http.openai_api.generating import prompt_tokens
from dragoman.text.formats.documents import BlankLines, Drawn, Marker, Tail, Texts
from dragoman.text.store import Store, create_store
from dragoman.text.tokens.tokenizer import BOS, EOS
from dragoman.train import recipe
from dragoman.train.events import Saved, Validated
from dragoman.train.run import resume, start

MODEL = {"dim": 16, "encoder": None, "decoder": {"depth": 1, "pattern": [BLOCK | {"dropout": 0.0}]}}
LEARNED = MODEL | {"position": {"kind": "learned", "length": 16}}
ROTARY = merge(MODEL, {"decoder": {"pattern": [merge(BLOCK, {"dropout": 0.0, "mixer": {"position": "rotary"}})]}})


def stored(folder, documents):
    with create_store(folder, {"text": 100}) as store:
        store.write(text=documents)
    return Store.open(folder)


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # these tests stop runs, not machines
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


# ---- rows -----------------------------------------------------------------------------------------

DOCUMENTS = st.lists(
    st.lists(st.integers(3, 99), max_size=12).map(lambda ids: [BOS, *ids, EOS]), min_size=1, max_size=9
)


@settings(max_examples=30)
@given(documents=DOCUMENTS, context=st.integers(1, 9), size=st.integers(1, 3), accumulate=st.integers(1, 3))
def test_packed_rows_answer_every_token_once_an_epoch(folder, documents, context, size, accumulate):
    text = stored(folder / "packed", documents).columns["text"]
    batches = RowBatches(Packed(text, context), size, seed=1, accumulate=accumulate)
    for epoch in (0, 1):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        rows = [row for step in steps for batch in batches.at(step) for row in batch]
        answered = sorted(b + i + 1 for row in rows for b, n in row for i in range(n))
        begins = set(text.starts.tolist())
        assert answered == [i for i in range(len(text.ids)) if i not in begins]
        assert all(row[:, 1].sum() <= context for row in rows)
    ids = collate(text, batches.at(0)[0])
    assert ids.ids.shape == ids.targets.shape and ids.ids.shape[1] <= context


@settings(max_examples=30)
@given(documents=DOCUMENTS, context=st.integers(1, 9))
def test_stretches_are_consecutive_and_leave_out_less_than_two_rows(folder, documents, context):
    text = stored(folder / "stretches", documents).columns["text"]
    batches = RowBatches(Stretches(text, context), 2, seed=1)
    in_order = sorted(b + i + 1 for rows in batches.in_order() for row in rows for b, n in row for i in range(n))
    assert in_order == list(range(1, len(text.ids)))
    for epoch in (0, 1):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        rows = [row for step in steps for batch in batches.at(step) for row in batch]
        answered = sorted(b + i + 1 for row in rows for b, n in row for i in range(n))
        assert answered == list(range(answered[0], answered[0] + len(answered)))
        assert len(text.ids) - 1 - len(answered) < 2 * context


def test_packing_wastes_little(folder):
    draw = np.random.default_rng(0)
    documents = [[BOS, *[5] * int(n), EOS] for n in draw.integers(1, 60, 300)]
    batches = RowBatches(Packed(stored(folder / "many", documents).columns["text"], 64), 8, seed=1)
    assert batches.padding_share < 0.05  # one document a row: 0.5


@pytest.mark.parametrize("model", [LEARNED, ROTARY], ids=["learned", "rotary"])
def test_packed_documents_are_read_as_if_each_had_a_row_of_its_own(folder, model):
    documents = [[BOS, *torch.randint(3, 40, (n,)).tolist(), EOS] for n in (3, 9, 1, 5, 4)]
    text = stored(folder / "alone", documents).columns["text"]
    model = from_dict(ModelConfig, model | {"vocab": 40}).build().eval()
    task = LanguageModellingTask(context=16)
    rows = RowBatches(Packed(text, 16), 8, seed=1).at(0)[0]
    packed = collate(text, rows)
    assert packed.segment is not None and len(rows) < len(documents)
    alone = [task.loss(model, collate(text, [piece[None]])) for row in rows for piece in row]
    summed, count = task.loss(model, packed)
    torch.testing.assert_close(summed, sum(s for s, _ in alone))
    assert count == sum(n for _, n in alone) == sum(len(d) - 1 for d in documents)
    gradients = torch.autograd.grad(summed, list(model.parameters()))
    separate = torch.autograd.grad(sum(s for s, _ in alone), list(model.parameters()))
    torch.testing.assert_close(gradients, separate, rtol=1e-4, atol=1e-5)


def test_what_is_not_to_be_learned_has_no_target(folder):
    with create_store(folder / "counted", {"text": 100, "counted": 2}) as store:
        store.write(text=[[BOS, 7, 8, 9, EOS]], counted=[[0, 0, 0, 1, 1]])
    columns = Store.open(folder / "counted").columns
    batch = collate(columns["text"], [np.array([[0, 4]])], columns["counted"])
    assert batch.targets.tolist() == [[IGNORE, IGNORE, 9, EOS]]


# ---- text -----------------------------------------------------------------------------------------


def test_documents_are_cut_as_the_run_file_says(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n\n\n")
    (tmp_path / "b.txt").write_text("one\n<|endoftext|>\n two\n")
    (tmp_path / "c.jsonl").write_text('{"text": "one\\n\\ntwo"}\n{"text": "three"}\n')

    def read(name, cut):
        texts = Texts(files=(str(tmp_path / name),), documents=cut)
        return [document.text for document in texts.read(texts.files)]

    assert read("a.txt", BlankLines()) == ["one\ntwo", "three"]
    assert read("b.txt", Marker()) == ["one", " two"]
    assert read("c.jsonl", BlankLines()) == ["one\n\ntwo", "three"]


@settings(max_examples=30)
@given(texts=st.lists(st.text("ab", min_size=1), min_size=1), share=st.floats(0.01, 0.9))
def test_the_tail_and_what_comes_before_it_are_the_whole(tmp_path_factory, texts, share):
    path = tmp_path_factory.getbasetemp() / "tail.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    split = Texts(files=(str(path),), hold_out=Tail(share=share)).split().split
    train, valid = split.train, split.valid
    assert "".join(d.text for d in [*train, *valid]) == "".join(texts)
    assert len("".join(d.text for d in valid)) == pytest.approx(share * len("".join(texts)), abs=1)


def test_drawn_documents_and_their_likes_are_not_trained_on(tmp_path):
    path = tmp_path / "d.jsonl"
    texts = [f"document number {'abcdefghij'[i]} speaks of {'klmnopqrst'[i] * 9}" for i in range(10)] * 2
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = Texts(files=(str(path),), hold_out=Drawn(documents=3)).split()
    train, valid = found.split.train, found.split.valid
    assert len(valid) == 3 and not {d.text for d in valid} & {d.text for d in train} and found.removed


# ---- runs -----------------------------------------------------------------------------------------

TEXT = "".join(f"line {i} says {'abcdef'[i % 6] * (i % 5 + 1)}\n\n" for i in range(120))


def config(path, task=None, model=None, **train):
    return recipe.load(
        {
            "task": {"kind": "language_modelling", "context": 16} | (task or {}),
            "data": {"kind": "texts", "files": [str(path)], "documents": "blank_lines"},
            "tokenizer": "characters",
            "model": model or merge(ROTARY, {"decoder": {"pattern": [merge(BLOCK, {"mixer": ATTENTION})]}}),
            "train": {
                "budget": {"kind": "steps", "steps": 12},
                "schedule": {"kind": "cosine", "peak": 1e-2, "warmup": 2},
                "batch_tokens": 128,
                "accumulate": 2,
                "average": 0.9,
                "validate_every": 4,
                "save_every": 3,
                "report_every": 2,
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


@pytest.mark.parametrize("across", [False, True], ids=["packed", "stretches"])
def test_a_run_that_was_stopped_comes_to_the_same_end_to_the_bit(text, tmp_path, across):
    cfg = config(text, {"across_documents": across})
    events = list(start(cfg, tmp_path / "whole").events())
    seen = [event for event in events if isinstance(event, Validated)]
    assert [event.step for event in seen] == [4, 8, 12] and len(seen[0].samples) == 2
    stopped = start(cfg, tmp_path / "stopped").events()
    assert any(isinstance(event, Saved) and event.step == 6 for event in stopped)
    stopped.close()
    list(resume(tmp_path / "stopped").events())
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_what_repeats_is_learned_and_counted_in_bits(tmp_path):
    (tmp_path / "t.txt").write_text("abcd" * 2500)
    cfg = config(
        tmp_path / "t.txt",
        {"across_documents": True},
        budget={"kind": "steps", "steps": 100},
        validate_every=100,
        accumulate=1,
        average=None,
        schedule={"kind": "constant", "peak": 2e-2, "warmup": 5},
    )
    seen = next(event for event in start(cfg, tmp_path / "run").events() if isinstance(event, Validated))
    assert seen.scores["bits/byte"] == seen.scores["bits/character"] < 0.4
    assert (
        seen.samples[0].reference[:8] in "abcdabcdabcd" and seen.samples[0].output[:6] == seen.samples[0].reference[:6]
    )


def test_of_prompts_and_answers_only_answers_are_learned(tmp_path):
    (tmp_path / "p.tsv").write_text("".join(f"say {x}{y}\t{y}{x}!\n" for x in "abcdefgh" for y in "ijklmnop"))
    plain = recipe.to_dict(config(tmp_path / "p.tsv", budget={"kind": "steps", "steps": 4}))
    source = {"kind": "table", "path": str(tmp_path / "p.tsv")}
    data = {"kind": "instructions", "train": [source], "hold_out": {"valid": 8, "test": 0, "near": None}}
    run = start(recipe.load(plain | {"data": data}), tmp_path / "run")
    seen = [event for event in run.events() if isinstance(event, Validated)][-1]
    task_data = run.batches.task_data
    for row in range(10):
        text, counted = (task_data.train.columns[name][row] for name in ("text", "counted"))
        prompt, answer = task_data.tokenizer.decode(text[counted == 0]), task_data.tokenizer.decode(text[counted == 1])
        assert prompt == f"say {answer[1]}{answer[0]}\n" and answer.endswith("!") and text[-1] == EOS
    sample = seen.samples[0]
    assert sample.source.startswith("say ") and sample.source.endswith("\n") and sample.reference.endswith("!")
    assert "bits/byte" not in seen.scores


def test_prompts_are_read_as_in_training_wherever_a_model_that_learned_from_instructions_continues_them(
    tmp_path, capsys
):
    (tmp_path / "p.tsv").write_text("".join(f"say {x}{y}\t{y}{x}!\n" for x in "abcdefgh" for y in "ijklmnop"))
    plain = recipe.to_dict(config(tmp_path / "p.tsv", budget={"kind": "steps", "steps": 4}))
    source = {"kind": "table", "path": str(tmp_path / "p.tsv")}
    data = {"kind": "instructions", "train": [source], "hold_out": {"valid": 8, "test": 0}, "between": " =>\n"}
    list((run := start(recipe.load(plain | {"data": data}), tmp_path / "run")).events())
    text, counted = (run.batches.task_data.train.columns[name][0] for name in ("text", "counted"))
    learned = text[counted == 0].tolist()
    generator = Generator.load(tmp_path / "run", device="cpu", precision="float32")
    prompt = run.batches.task_data.tokenizer.decode(learned).removesuffix(" =>\n")
    for one in (prompt, f"{prompt} =>\n", EncodedPrompt(prompt, tuple(learned))):
        assert generator.job(Greedy(), 4, ((), ()), (), DEFAULT).encode(one, 1) == learned
        assert prompt_tokens(generator, one) == len(learned)
    assert generator.prompts.ids("") == [BOS], "an empty prompt starts a text"
    subject = Subject.open(tmp_path / "run")
    assert subject.inputs(prompt, "ia!").arguments[0][0, : len(learned)].tolist() == learned
    assert len(subject.inputs(prompt).arguments[0][0]) < len(learned), "a text alone stays as it is"
    for option in ((), ("--stream",)):
        assert main(["generate", str(tmp_path / "run"), prompt, "--max-new-tokens", "4", *option]) == 0
        assert capsys.readouterr().out.startswith(f"{prompt} =>\n")


def test_instructions_of_which_none_is_held_out_are_all_learned_from(tmp_path):
    (tmp_path / "p.tsv").write_text("".join(f"say {x}{y}\t{y}{x}!\n" for x in "abcdefgh" for y in "ijklmnop"))
    plain = recipe.to_dict(config(tmp_path / "p.tsv", budget={"kind": "steps", "steps": 4}))
    source = {"kind": "table", "path": str(tmp_path / "p.tsv")}
    data = {"kind": "instructions", "train": [source], "hold_out": {"valid": 0, "test": 0}}
    for across in (False, True):
        cfg = recipe.load(plain | {"data": data}, [f"task.across_documents={across}".lower()])
        events = list((run := start(cfg, tmp_path / f"run{across}")).events())
        assert events[-1].complete and not [event for event in events if isinstance(event, Validated)]
        assert len(run.batches.task_data.train.columns["text"]) == 64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {"kind": "data", "train": []}}, "data: language_modelling takes texts or instructions, not pairs"),
        (
            {"model": {"position": {"kind": "learned", "length": 8}}},
            r"task\.context: 16 tokens, and model\.position .* 8",
        ),
        ({"model": {"encoder": {"depth": 1, "pattern": [BLOCK]}}}, r"model\.encoder: a language model .* null"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_fit_is_named_before_anything_is_written(text, tmp_path, change, says):
    plain = merge(recipe.to_dict(config(text)), change)
    with pytest.raises(ConfigError, match=says):
        start(recipe.load(plain), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_without_text_is_one_line_and_leaves_no_run(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt: holds no text"):
        list(start(config(tmp_path / "empty.txt"), tmp_path / "run").events())
    assert not (tmp_path / "run").exists()
