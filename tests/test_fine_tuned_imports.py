"""From an import, through a few steps, back to its own library: the same numbers there, whatever has learned."""

import json
import os

import foreign
import pytest
import torch
from tokenizers import Tokenizer as Library

from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, kind_of
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint, origin_vocabulary
from dragoman.model.families import ModelConfig
from dragoman.text.tokens.tokenizer import BOS, EOS
from dragoman.train import recipe
from dragoman.train.run import start

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WORDS = [f"w{i}" for i in range(8, 28)]
"""Words that every one of these small vocabularies has."""
TRAIN = {
    "budget": {"kind": "steps", "steps": 3},
    "schedule": {"kind": "cosine", "peak": 1e-2, "warmup": 1},
    "batch_tokens": 120,
    "validate_every": 3,
    "precision": "float32",
    "samples": 0,
}
WAYS = {
    "full": {},
    "lora": {"lora": {"rank": 2, "targets": ["*"]}},
    "vocabulary": {"vocabulary": {"kind": "extended", "by": 3}},
}
AUTO = {
    "decoder": "AutoModelForCausalLM",
    "translation": "AutoModelForSeq2SeqLM",
    "classification": "AutoModelForSequenceClassification",
}
CASES = {
    "LLaMA": ("LLaMA", 0, "decoder"),
    "LLaMA, tied": ("LLaMA", 1, "decoder"),
    "GPT-2": ("GPT-2", 0, "decoder"),
    "Marian": ("Marian", 0, "translation"),
    "T5": ("T5", 0, "translation"),
    "BERT": ("BERT", 1, "classification"),
}


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def sentences(count):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(len(WORDS), (count, 6), generator=draw).tolist()
    return [" ".join([WORDS[i] for i in row] + ["neu", f"neuer{n % 2}"]) for n, row in enumerate(rows)]


def data(kind, folder):
    """A run file's ``data`` and ``task``, of the same few sentences."""
    texts = sentences(40)
    if kind == "translation":
        (folder / "pairs.tsv").write_text("".join(f"{text}\t{text}\n" for text in texts))
        table = {"kind": "table", "path": str(folder / "pairs.tsv")}
        given = {"train": [table], "valid": table, "test": table, "overlap": "keep"}
        return {"data": given | {"cleaning": {"copies": "keep"}}}
    if kind == "classification":
        lines = [{"text": text, "label": f"LABEL_{n % 3}"} for n, text in enumerate(texts)]
        (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        source = {"kind": "labelled_lines", "path": str(folder / "texts.jsonl")}
        given = {"train": [source], "valid": source, "test": source, "overlap": "keep"}
        return {"data": {"kind": "labelled_texts"} | given, "task": "classification"}
    (folder / "text.txt").write_text("\n".join(texts))
    hold_out = {"kind": "tail", "share": 0.2}
    texts = {"kind": "texts", "files": [str(folder / "text.txt")], "hold_out": hold_out}
    return {"data": texts, "task": {"context": 12}}  # of the kind that the import passes on


def fine_tune(imported, path, kind, init, **more):
    plain = data(kind, path) | {"train": TRAIN, "start_from": {"run": str(imported)} | init} | more
    list(start(recipe.load(plain), path / "run").events())
    return RunDirectory.open(path / "run")


def model_of(run):
    content = run.weights("last")
    model = from_dict(ModelConfig, content.config["model"]).build()
    model.load_state_dict(content.tensors["model"])
    return model.eval()


def said_by_both(run, folder, kind, text):
    """What our model and, in its own order, theirs say of a text."""
    ids = run.tokenizers()[1].encode(text)
    theirs = getattr(transformers, AUTO[kind]).from_pretrained(folder).eval()
    their_ids = Library.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    vocabulary = origin_vocabulary(run)
    order = vocabulary.order()
    assert order[torch.tensor(ids)].tolist() == their_ids, "both read the same entries"
    if kind == "classification":
        ours, read = [BOS, *ids, EOS], [vocabulary.bos, *their_ids, vocabulary.eos]
        return model_of(run)(torch.tensor([ours])), theirs(input_ids=torch.tensor([read])).logits
    source = (torch.tensor([[*ids, EOS]]),) if kind == "translation" else ()
    given = {"input_ids": torch.tensor([[*their_ids, vocabulary.eos]])} if source else {}
    begun = torch.tensor([[vocabulary.start, *their_ids]])
    found = theirs(**given, **{"decoder_input_ids" if source else "input_ids": begun}).logits
    ours = model_of(run)(torch.tensor([[BOS, *ids]]), *source)
    return ours[..., order < vocabulary.size], found[..., order[order < vocabulary.size]]


@pytest.fixture(scope="module", params=CASES)
def imported(request, tmp_path_factory):
    name, size, kind = CASES[request.param]
    path = tmp_path_factory.mktemp("imported")
    foreign.make_folder(name, size, path / "folder")
    import_checkpoint(path / "folder", path / "run")
    return path, kind


TASKS = {
    "LLaMA": (0, "language_modelling"),
    "Mamba": (0, "language_modelling"),
    "Marian": (0, "translation"),
    "BERT": (0, "masked_language_modelling"),
}
"""Families by the task of the model that an import holds."""


@pytest.mark.parametrize("family", TASKS)
def test_a_run_that_starts_from_an_import_takes_over_the_task_of_its_model(family, tmp_path):
    size, task = TASKS[family]
    foreign.make_folder(family, size, tmp_path / "folder")
    import_checkpoint(tmp_path / "folder", tmp_path / "imported")
    given = data("translation" if task == "translation" else "decoder", tmp_path)
    trainer = start(recipe.load(given | {"start_from": {"run": str(tmp_path / "imported")}}), tmp_path / "run")
    trainer.directory.close()
    assert kind_of(type(trainer.cfg.task)) == task


def test_a_run_file_may_give_an_import_another_task(tmp_path):
    foreign.make_folder("BERT", 0, tmp_path / "folder")
    import_checkpoint(tmp_path / "folder", tmp_path / "imported")
    begun = {"start_from": {"run": str(tmp_path / "imported"), "new": ["head.*"]}, "model": {"head": "classification"}}
    cfg = recipe.load(data("classification", tmp_path) | begun)
    assert kind_of(type(cfg.task)) == "classification" and cfg.model.inputs.vocab == 31


@pytest.mark.parametrize("way", WAYS)
def test_a_fine_tuned_import_goes_back_to_its_own_library(imported, way, tmp_path):
    path, kind = imported
    run = fine_tune(path / "run", tmp_path, kind, WAYS[way])
    export_huggingface(run.path, tmp_path / "out", "last")
    with torch.inference_mode():
        text = " ".join([*WORDS[:5], "neu", "neuer1"] if way == "vocabulary" else WORDS[:5])
        ours, theirs = said_by_both(run, tmp_path / "out", kind, text)
        before, _ = said_by_both(RunDirectory.open(path / "run"), path / "folder", kind, " ".join(WORDS[:5]))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert ours.shape != before.shape or not torch.allclose(ours, before, atol=1e-3), "it has learned"
    same = (path / "folder" / "config.json").read_text() == (tmp_path / "out" / "config.json").read_text()
    assert same == (way != "vocabulary")


def test_a_new_head_is_described_with_its_labels(tmp_path):
    foreign.make_folder("BERT", 0, tmp_path / "folder")
    import_checkpoint(tmp_path / "folder", tmp_path / "masked")
    head = {"model": {"head": {"kind": "classification", "activation": "tanh"}}}
    run = fine_tune(tmp_path / "masked", tmp_path, "classification", {"new": ["head.*"]}, **head)
    export_huggingface(run.path, tmp_path / "out", "last")
    with torch.inference_mode():
        ours, theirs = said_by_both(run, tmp_path / "out", "classification", " ".join(WORDS[:5]))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["architectures"] == ["BertForSequenceClassification"]
    assert said["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
