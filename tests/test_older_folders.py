"""Folders of 2020 and before: no architectures, no model_type, vocab.txt alone, stale classes, names of TensorFlow."""

import json
from pathlib import Path

import foreign
import foreign_text
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.decode.readers.embedder import Embedder
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.architectures import find_family
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint, import_notes, origin_vocabulary
from dragoman.interchange.older_tokenizers import contents

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

NAMES = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "door", "is", "open", "##s", "."]
OLD = {"output_past": True, "torchscript": False, "use_bfloat16": False, "pruned_heads": {}, "finetuning_task": None}


def write(folder, kind, *, prefix="", tensorflow=False, **settings):
    """Write a folder as BERTs of 2020 have it: config.json, vocab.txt and a .bin file; return their model."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**foreign.BERT | {"vocab_size": len(NAMES)} | settings))
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    weights = {name.removeprefix(prefix): value for name, value in load_file(folder / "model.safetensors").items()}
    if tensorflow:
        weights = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in weights.items()
        }
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join(NAMES) + "\n")
    content = json.loads((folder / "config.json").read_text())
    dropped = ("architectures", "model_type", "pad_token_id", "bos_token_id", "eos_token_id", "transformers_version")
    content = {key: value for key, value in content.items() if key not in dropped} | OLD
    (folder / "config.json").write_text(json.dumps(content))
    return model


def same(run, theirs, text="The doors is open."):
    vocabulary = origin_vocabulary(RunDirectory.open(run))
    assert vocabulary is not None
    order = vocabulary.order()
    ids = torch.tensor([[3, *([6, 7, 10, 8, 9, 11] if text else []), 4]])
    with torch.inference_mode():
        ours, wanted = foreign.load_encoder(run)(order.argsort()[ids]), theirs(input_ids=ids)[0]
    wanted = wanted[..., order] if wanted.shape[-1] == len(NAMES) else wanted
    return float((ours - wanted).abs().max())


@pytest.mark.parametrize("tensorflow", [False, True], ids=["", "names of TensorFlow"])
def test_a_folder_that_names_nothing_is_what_as_says(tensorflow, tmp_path, capsys):
    theirs = write(tmp_path / "folder", "BertForMaskedLM", tensorflow=tensorflow)
    arguments = ["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "config.json: names no architectures and no model_type" in said
    assert "--as BertForMaskedLM" in said
    assert main([*arguments, "--as", "BertForMaskedLM"]) == 0
    assert "note: config.json" not in capsys.readouterr().out
    assert same(tmp_path / "run", theirs) < 1e-5
    tokenizer = RunDirectory.open(tmp_path / "run").tokenizers()[0]
    assert tokenizer.decode(tokenizer.encode("The doors is open.")) == "the doors is open."


def test_a_bare_encoder_without_a_prefix_is_read(tmp_path):
    theirs = write(tmp_path / "folder", "BertModel", prefix="bert.")
    import_checkpoint(tmp_path / "folder", tmp_path / "run", architecture="BertModel")
    assert same(tmp_path / "run", theirs) < 1e-5


def test_the_number_of_classes_is_num_labels_where_their_names_are_stale(tmp_path):
    theirs = write(tmp_path / "folder", "BertForSequenceClassification", num_labels=5)
    content = json.loads((tmp_path / "folder" / "config.json").read_text())
    content |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "num_labels": 5}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(content))
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run", architecture="BertForSequenceClassification")
    assert run.config["task"]["labels"] == [f"LABEL_{i}" for i in range(5)]
    assert same(tmp_path / "run", theirs) < 1e-5


def test_an_imported_older_folder_is_exported_as_transformers_opens_it_today(tmp_path):
    write(tmp_path / "folder", "BertForMaskedLM")
    import_checkpoint(tmp_path / "folder", tmp_path / "run", architecture="BertForMaskedLM")
    assert main(["export", str(tmp_path / "run"), "--to", "huggingface", "-o", str(tmp_path / "new")]) == 0
    assert transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new")
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    assert read("the door").input_ids == [3, 6, 7, 4]


# ---- names of architectures ---------------------------------------------------------------------------

SUGGESTED = {
    "LamaForCausalLM": "LlamaForCausalLM",
    "BertForMaskLM": "BertForMaskedLM",
    "bertmodel": None,
    "MBartForConditionalGenration": "MBartForConditionalGeneration",
    "Gemma9ForCausalLM": None,  # another number is another model
    "OPTForCausalLM": None,  # real, and no misspelling of GPT2's
    "PLBartModel": None,
    "RobertaForMultipleChoice": None,
    "LongT5ForConditionalGeneration": None,
    "BertForNextSentencePrediction": None,
}


@pytest.mark.parametrize("name", SUGGESTED)
def test_only_a_misspelling_is_corrected_and_never_another_architecture(name):
    with pytest.raises(ConfigError) as raised:
        find_family({"architectures": [name]}, "config.json")
    said, wanted = str(raised.value), SUGGESTED[name]
    assert (f"Did you mean {wanted!r}?" in said) if wanted else "Did you mean" not in said
    assert f"config.json: architectures: no {name!r} here." in said and "MarianMTModel" in said


def test_texts_of_vocab_txt_are_read_as_bert_reads_them(tmp_path):
    write(tmp_path, "BertForMaskedLM")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inner = foreign_text.Library.from_str(json.dumps(contents(tmp_path, "Bert")[1] | {"post_processor": None}))
    for text in foreign_text.TEXTS:
        assert [3, *inner.encode(text, add_special_tokens=False).ids, 4] == theirs(text).input_ids, text


DAMAGED = {
    "words in another encoding": {"vocab.txt": "[PAD]\nGrüße\n".encode("latin-1")},
    "entries that are cut off": {"vocab.json": b'{"a": ', "merges.txt": b"#version: 0.2\n"},
    "entries in a list": {"vocab.json": b"[]", "merges.txt": b"#version: 0.2\n"},
    "merges without entries": {"merges.txt": b"#version: 0.2\n"},
    "merges that are none": {"vocab.json": b'{"a": 0}', "merges.txt": b"abc\n"},
    "a special token without its content": {"vocab.txt": b"[PAD]\n", "special_tokens_map.json": b'{"pad_token": [5]}'},
    "modules that are cut off": {"vocab.txt": "\n".join(NAMES).encode(), "modules.json": b"[{"},
    "modules without a type": {"vocab.txt": "\n".join(NAMES).encode(), "modules.json": b"[{}]"},
    "modules in a number": {"vocab.txt": "\n".join(NAMES).encode(), "modules.json": b"5"},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_of_an_older_folder_is_refused_in_a_line(case, tmp_path, capsys):
    write(tmp_path / "folder", "BertModel")
    (tmp_path / "folder" / "vocab.txt").unlink()
    for name, content in DAMAGED[case].items():
        (tmp_path / "folder" / name).write_bytes(content)
    command = ["import", str(tmp_path / "folder"), "-o", str(tmp_path / "run"), "--as", "BertModel"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said and str(tmp_path / "folder") in said
    assert not (tmp_path / "run").exists()


def test_a_sentence_encoder_cuts_texts_where_its_library_does_and_computes_in_the_precision_asked_for(tmp_path):
    model = write(tmp_path / "old", "BertModel")
    _describe_sentences(tmp_path / "old", {"max_seq_length": 4, "do_lower_case": False})
    import_checkpoint(tmp_path / "old", tmp_path / "run", architecture="BertModel")
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([[3, 6, 7, 4]])).last_hidden_state[0].mean(0)
    found = {p: Embedder.load(tmp_path / "run", precision=p).embed(["the door is open."])[0] for p in PRECISIONS}
    errors = {p: float((vector - hidden / hidden.norm()).abs().max()) for p, vector in found.items()}
    assert errors["float32"] < 1e-5 < errors["bfloat16"]
    (tmp_path / "run/origin/sentence_bert_config.json").write_text('{"max_seq_length": "long"}')
    with pytest.raises(CheckpointError, match="max_seq_length must be a number of tokens, and is 'long'"):
        Embedder.load(tmp_path / "run")


PRECISIONS = ("float32", "bfloat16")


def test_a_sentence_encoder_reads_lower_case_where_its_library_does_and_keeps_its_longest_text(tmp_path):
    for name, lower in (("any", False), ("lower", True)):
        write(tmp_path / name, "BertModel")
        (tmp_path / name / "tokenizer_config.json").write_text('{"do_lower_case": false}')
        _describe_sentences(tmp_path / name, {"max_seq_length": 6, "do_lower_case": lower})
        import_checkpoint(tmp_path / name, tmp_path / f"{name}-run", architecture="BertModel")
    spelled = ["The DOOR is open.", "the door is open."]
    mixed, lower = (Embedder.load(tmp_path / f"{name}-run").embed(spelled) for name in ("any", "lower"))
    assert not np.allclose(mixed[0], mixed[1]) and np.array_equal(lower[0], lower[1])
    run = tmp_path / "lower-run"
    (run / "origin/dragoman.json").unlink()  # so the export describes the model itself
    export_huggingface(run, tmp_path / "again")
    assert json.loads((tmp_path / "again/sentence_bert_config.json").read_text())["max_seq_length"] == 6
    import_checkpoint(tmp_path / "again", tmp_path / "again-run", architecture="BertModel")
    assert np.array_equal(Embedder.load(tmp_path / "again-run").embed(spelled), lower)


@pytest.mark.parametrize("as_it_came", [True, False])
def test_prompts_of_a_sentence_encoder_are_noted_and_given_back(as_it_came, tmp_path, capsys):
    write(tmp_path / "old", "BertModel")
    _describe_sentences(tmp_path / "old", {"max_seq_length": 4})
    use = {
        "prompts": {"query": "query: ", "text": "passage: "},
        "default_prompt_name": "text",
        "similarity_fn_name": "dot",
    }
    (tmp_path / "old/config_sentence_transformers.json").write_text(json.dumps(use))
    command = ["import", str(tmp_path / "old"), "-o", str(tmp_path / "run"), "--as", "BertModel"]
    assert main(command) == 0
    assert "puts 'passage: ' before each text, and it is not put there here" in " ".join(
        capsys.readouterr().out.split()
    )
    if not as_it_came:
        (tmp_path / "run/origin/dragoman.json").unlink()
    export_huggingface(tmp_path / "run", tmp_path / "again")
    assert json.loads((tmp_path / "again/config_sentence_transformers.json").read_text()) == use


def test_without_a_default_prompt_nothing_is_noted(tmp_path):
    write(tmp_path / "old", "BertModel")
    _describe_sentences(tmp_path / "old", {"max_seq_length": 4})
    use = {"prompts": {"query": "query: ", "text": ""}, "default_prompt_name": "text"}
    (tmp_path / "old/config_sentence_transformers.json").write_text(json.dumps(use))
    imported = import_checkpoint(tmp_path / "old", tmp_path / "run", architecture="BertModel")
    assert not any("prompt" in note for note in import_notes(imported))


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "xlm-roberta"])
def test_older_names_of_the_settings_of_a_sentence_encoder_hold_too(kind, tmp_path):
    found = []
    for name in ("sentence_bert_config.json", f"sentence_{kind}_config.json"):
        folder = tmp_path / name.removesuffix(".json")
        write(folder, "BertModel")
        (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
        _describe_sentences(folder, {"max_seq_length": 6, "do_lower_case": True})
        (folder / "sentence_bert_config.json").rename(folder / name)
        import_checkpoint(folder, folder / "run", architecture="BertModel")
        found.append(Embedder.load(folder / "run", precision="float32").embed(["The DOOR is open. The door"]))
    assert np.array_equal(*found)


def _describe_sentences(folder: Path, settings: dict) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"idx": i, "path": "", "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
