"""Text-to-text: a T5 folder reads the task in a prefix as its own library does, and learns with one; a BERT learns to
answer questions."""

import json
import os

import foreign
import pytest
import tiny_run
import torch
from test_question_answering import questions, write_lines
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from dragoman import cli
from dragoman.config import dump_yaml
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.translator import Translator
from dragoman.interchange.importing import import_checkpoint

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

PREFIX = "translate English to German: "


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def write_words(folder, words):
    """A tokenizer of whole words and signs, with special tokens where ``config.json`` has them."""
    config = json.loads((folder / "config.json").read_text())
    special = {config.get(f"{role}_token_id"): f"<{role}>" for role in ("pad", "bos", "eos")}
    free = iter([*words, *(f"w{i}" for i in range(config["vocab_size"]))])
    vocab = {special.get(i) or next(free): i for i in range(config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=max(vocab, key=lambda word: vocab[word])))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[:.?]"), "isolated")]
    )
    tokenizer.add_special_tokens([name for i, name in special.items() if i is not None])
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocab


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    theirs = foreign.make_folder("T5", 0, folder / "folder")
    vocab = write_words(folder / "folder", [*PREFIX.replace(":", "").split(), ":", "dog", "cat", "hen"])
    import_checkpoint(folder / "folder", folder / "run")
    return folder / "run", theirs, vocab


def test_a_prefixed_text_is_read_as_its_own_library_reads_it(t5):
    run, theirs, vocab = t5
    texts = ["translate English to German: dog cat", "translate German to English: dog cat", "dog cat"]
    names = {i: word for word, i in vocab.items()}
    for text, ours in zip(texts, Translator.load(run).translate(texts, beam=1), strict=True):
        ids = torch.tensor([[*(vocab[word] for word in text.replace(":", " :").split()), theirs.config.eos_token_id]])
        said = ours.text.split()
        found = theirs.generate(
            ids, max_new_tokens=max(1, len(said)), do_sample=False, num_beams=1, suppress_tokens=[0]
        )
        assert said == [names[i] for i in found[0, 1:].tolist() if i != theirs.config.eos_token_id]


def test_a_source_may_have_a_prefix_of_its_own_that_cleaning_does_not_see(t5, tmp_path, capsys):
    run, _, _ = t5
    (tmp_path / "ours.tsv").write_text("".join(f"dog {w}\thund {w}\n" for w in "abcdefghij") + "cat\tcat\n")
    (tmp_path / "valid.tsv").write_text("hen\thenne\n")
    part = {"kind": "part", "prefix": PREFIX}
    given = {
        name: part | {"pairs": {"kind": "table", "path": str(tmp_path / f"{name}.tsv")}} for name in ("ours", "valid")
    }
    data = {"train": [given["ours"]], "valid": given["valid"], "hold_out": {"test": 2, "near": None}}
    train = {"budget": {"kind": "steps", "steps": 1}, "batch_tokens": 200, "precision": "float32", "samples": 1}
    (tmp_path / "run.yaml").write_text(dump_yaml({"init": {"run": str(run)}, "data": data, "train": train}))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "new")]) == 0
    capsys.readouterr()
    report = json.loads((tmp_path / "new" / "data" / "report.json").read_text())
    assert report["cleaning"]["removed"]["copy"] == 1 and report["pairs"]["training"] == 8
    for name in ("valid", "test"):
        held = tiny_run.rows(tmp_path / "new" / "data" / f"{name}.jsonl")
        assert held and all(row["source"].startswith(PREFIX) for row in held)
    (shown,) = tiny_run.rows(tmp_path / "new" / "samples.jsonl")[-1:]
    assert PREFIX + "hen" in json.dumps(shown)


@pytest.mark.slow
def test_an_imported_bert_learns_to_answer_questions(tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 64}
    config = transformers.BertConfig(**foreign.BERT | sizes | {"vocab_size": 200})
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "folder")
    examples = list(questions(300))
    signs = str.maketrans({sign: f" {sign} " for sign in ".?"})
    texts = [text.translate(signs).split() for one in examples for text in (one.context, one.question)]
    write_words(tmp_path / "folder", list(dict.fromkeys(w for text in texts for w in text if not w[1:].isdigit())))
    import_checkpoint(tmp_path / "folder", tmp_path / "bert")
    lines = {"kind": "question_lines", "path": str(write_lines(tmp_path / "q.jsonl", examples))}
    plain = {
        "init": {"run": str(tmp_path / "bert"), "new": ["head.*"]},
        "task": "question_answering",
        "data": {
            "kind": "questions",
            "train": [lines],
            "longest_question": 16,
            "hold_out": {"test": 20, "valid": 20, "near": None},
        },
        "model": {"head": "spans"},
        "train": {
            "budget": {"kind": "steps", "steps": 60},
            "schedule": {"kind": "constant", "peak": 3e-3},
            "batch_tokens": 1000,
            "validate_every": 60,
            "precision": "float32",
        },
    }
    (tmp_path / "run.yaml").write_text(dump_yaml(plain))
    assert cli.main(["train", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "run")]) == 0
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    scores = json.loads((tmp_path / "run" / "evaluations" / "test" / "scores.json").read_text())
    assert scores["scores"]["exact_match"]["value"] > scores["baseline"]["f1"]["value"]
    said = Answerer.load(tmp_path / "run").ask([("al has a cup in the barn.", "where is it?")])[0]
    assert "al has a cup in the barn."[said.start or 0 :].startswith(said.answer)
