"""Every field of a config.json is obeyed, refused, noted or known to be harmless, for every family."""

import contextlib
import json
import re

import foreign
import foreign_families
import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors.torch import load_file, save_file

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.errors import ConfigError
from dragoman.interchange.architectures import find_family
from dragoman.interchange.families import FAMILIES
from dragoman.interchange.fields import COMPUTING, HARMLESS, check_kinds, settings_of, unknown_fields
from dragoman.interchange.importing import import_checkpoint, import_notes

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CLASSES = {
    "llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config",
    "gpt2": "GPT2Config", "mixtral": "MixtralConfig", "gemma2": "Gemma2Config", "gemma3": "Gemma3TextConfig",
    "marian": "MarianConfig", "bart": "BartConfig", "t5": "T5Config", "bert": "BertConfig",
    "roberta": "RobertaConfig", "vit": "ViTConfig", "dinov2": "Dinov2Config",
    "siglip": "SiglipVisionConfig", "siglip_towers": "SiglipConfig", "whisper": "WhisperConfig",
    "qwen3_moe": "Qwen3MoeConfig", "olmo2": "Olmo2Config", "phi3": "Phi3Config", "smollm3": "SmolLM3Config",
    "mamba": "MambaConfig", "mamba2": "Mamba2Config", "lfm2": "Lfm2Config", "xlstm": "xLSTMConfig",
}  # fmt: skip
CLASSES |= foreign_families.CLASSES
BY_NAME = {family.name: family for family in FAMILIES}
every_family = pytest.mark.parametrize("name", CLASSES)


def defaults(name):
    """The content of a config.json that says everything, as transformers has it where nothing is said."""
    content = json.loads(getattr(transformers, CLASSES[name])().to_json_string(use_diff=False))
    return content | {"architectures": [BY_NAME[name].architectures[0]]}


def read(name, content):
    given = settings_of(content, "config.json", BY_NAME[name].model_type)
    return given, BY_NAME[name].config(given)


def test_every_family_is_here():
    assert CLASSES.keys() == BY_NAME.keys()


@every_family
def test_every_field_that_transformers_has_is_obeyed_refused_or_harmless(name):
    given, _ = read(name, defaults(name))
    assert given.content.keys() - given.read - HARMLESS - COMPUTING == set()


WRONG = ([], {}, ["x"], [[1]], {"a": 1}, "x", 1.5, True, 0, -1)


@every_family
def test_a_value_of_the_wrong_kind_is_read_or_refused_by_name_and_breaks_nothing(name):
    content = defaults(name)
    content |= {"rope_parameters": None, "rope_scaling": None, "id2label": None}
    for field in content:
        for wrong in WRONG:
            spoiled = content | {field: wrong}
            with contextlib.suppress(ConfigError, TypeCheckError):  # types of parameters are checked in tests alone
                find_family(spoiled, "config.json")
                check_kinds(spoiled, "config.json")
                read(name, spoiled)


def test_one_architecture_without_a_list_is_that_architecture(tmp_path):
    foreign.make_folder("BERT", 1, tmp_path / "folder")
    named = json.loads((tmp_path / "folder" / "config.json").read_text())["architectures"][0]
    change(tmp_path / "folder", architectures=named)
    run = import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert run.config["model"]["head"]["kind"] == "classification"


@every_family
def test_the_defaults_of_transformers_are_supported_and_raise_no_note(name):
    given, _ = read(name, defaults(name))
    assert unknown_fields(given, name) == []


@every_family
def test_a_field_left_out_is_what_transformers_takes_for_it(name):
    content = defaults(name)
    given, whole = read(name, content)
    differing = []
    for field in sorted(given.read & content.keys()):
        shorter = {key: value for key, value in content.items() if key != field}
        if field in ("rope_parameters", "architectures"):
            continue  # older folders say the first in other fields; the other chooses what is made
        try:
            if read(name, shorter)[1] != whole:
                differing.append(field)
        except ConfigError as error:
            assert "must be given" in str(error)
    assert differing == []


@every_family
@pytest.mark.parametrize("field", sorted(COMPUTING))
def test_a_field_that_changes_what_is_computed_is_never_ignored(name, field):
    """It gives another model, or it is refused, or it was read and decided about."""
    content = defaults(name)
    content[field] = 7 if content.get(field) is None else content[field]
    try:
        given, _ = read(name, content)
        unknown_fields(given, name)
    except (ConfigError, TypeError) as error:
        assert isinstance(error, ConfigError), error
    else:
        assert field in given.read or not content[field]


# ---- whole folders ---------------------------------------------------------------------------------


def change(folder, **fields):
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


TEMPLATE = {
    "type": "TemplateProcessing", "pair": [], "special_tokens": {},
    "single": [{"SpecialToken": {"id": "<nope>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
}  # fmt: skip


def rewrite(folder, **parts):
    content = json.loads((folder / "tokenizer.json").read_text()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(content))


def add(folder, **tensors):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | tensors, folder / "model.safetensors", {"format": "pt"})


def spoil(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


BIAS = {"model.layers.0.self_attn.q_proj.bias": torch.ones(20)}
REFUSED = {
    "attention biases that config.json denies": (lambda f: add(f, **BIAS), r"q_proj.bias, for which the model of"),
    "a tensor of another model": (lambda f: add(f, **{"vision.proj.weight": torch.ones(2)}), "vision.proj.weight"),
    "a scale of quantized weights": (
        lambda f: add(f, **{"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)}), "weight_scale"),
    "an output layer that is tied and differs": (
        lambda f: (change(f, tie_word_embeddings=True), add(f, **{"lm_head.weight": torch.ones(31, 20)})), "lm_head"),
    "a layer more than config.json says": (lambda f: change(f, num_hidden_layers=1), r"model.layers.1.* and \d+ more"),
    "weights that are NaN": (lambda f: spoil(f, float("nan")), "model.norm.weight holds 1 of 20 numbers that are NaN"),
    "infinite weights": (lambda f: spoil(f, float("-inf")), "model.norm.weight holds 1 of 20 numbers"),
    "biases that the file has not": (lambda f: change(f, attention_bias=True), "no tensor .*bias, which config.json"),
    "a window": (lambda f: change(f, sliding_window=8), "sliding_window: 8 is not supported for llama"),
    "capped logits": (lambda f: change(f, final_logit_softcapping=30.0), "final_logit_softcapping: 30.0 is not"),
    "part of a rotation": (lambda f: change(f, partial_rotary_factor=0.5), "partial_rotary_factor: 0.5 is not"),
    "a setting of yarn": (
        lambda f: change(f, rope_parameters={"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}), "mscale of yarn is"),
    "heads that are none": (lambda f: change(f, num_attention_heads=0), "num_attention_heads: expected a whole number"),
    "a size in quotes": (lambda f: change(f, hidden_size="20"), "hidden_size: expected a whole number above 0"),
    "a number in quotes": (lambda f: change(f, rms_norm_eps="1e-5"), "rms_norm_eps: expected a number, got '1e-5'"),
    "a negative depth": (lambda f: change(f, num_hidden_layers=-1), "num_hidden_layers: expected a whole number"),
    "a scaling without its factor": (
        lambda f: change(f, rope_parameters={"rope_type": "linear"}), "rope_parameters: factor: expected a number"),
    "a factor in quotes": (
        lambda f: change(f, rope_parameters={"rope_type": "yarn", "factor": "2"}), "expected a number for yarn"),
    "a scaling that nobody knows": (
        lambda f: change(f, rope_parameters={"rope_type": "proportional"}), "'proportional' is not supported"),
    "a template without its token": (
        lambda f: rewrite(f, post_processor=TEMPLATE), "the template of the tokenizer names <nope>"),
    "an unknown activation": (lambda f: change(f, hidden_act="snake"), "hidden_act: no 'snake' here"),
    "an activation that is a list": (lambda f: change(f, hidden_act=["silu"]), "hidden_act: expected a name, got"),
    "settings in the place of a size": (lambda f: change(f, hidden_size={"a": 1}), "hidden_size: expected a whole nu"),
    "architectures that are a number": (lambda f: change(f, architectures=5), "architectures: expected a list of nam"),
    "a model_type that is a list": (lambda f: change(f, model_type=["llama"]), "model_type: expected a name, got"),
    "ids in the place of padding": (lambda f: change(f, pad_token_id=[1]), "pad_token_id: expected the id of a token"),
    "an end that is a word": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": "</s>"}'), "eos_token_id: expected the"),
    "added tokens in a list": (
        lambda f: (f / "tokenizer_config.json").write_text('{"added_tokens_decoder": [1]}'), "added_tokens_decoder: e"),
    "entries that are a number": (lambda f: rewrite(f, added_tokens=5), "tokenizer.json: not a tokenizer.json of"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_folder_holds_and_the_model_does_not_use_is_refused_in_a_line(case, tmp_path, capsys):
    foreign.make_folder("LLaMA", 0, tmp_path / "folder")
    spoiled, message = REFUSED[case]
    spoiled(tmp_path / "folder")
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(message, said), said
    assert not (tmp_path / "run").exists()


def test_what_is_known_to_be_unused_is_listed(tmp_path, capsys):
    foreign.make_folder("LLaMA", 0, tmp_path / "folder")
    add(tmp_path / "folder", **{f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in (0, 1)})
    change(tmp_path / "folder", my_own_field=3)
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: {note}" for note in import_notes(RunDirectory.open(tmp_path / "run"))]
    assert "my_own_field" in notes[0] and "frequencies of rotary positions" in notes[1] and "(2)" in notes[1]


def test_a_copy_of_tied_weights_and_an_unused_pooler_are_no_reason_to_refuse(tmp_path):
    foreign.make_folder("LLaMA", 1, tmp_path / "tied")
    add(
        tmp_path / "tied",
        **{"lm_head.weight": load_file(tmp_path / "tied" / "model.safetensors")["model.embed_tokens.weight"].clone()},
    )
    import_checkpoint(tmp_path / "tied", tmp_path / "tied-run")
    foreign.make_folder("BERT", 2, tmp_path / "tagger")
    add(
        tmp_path / "tagger",
        **{"bert.pooler.dense.weight": torch.ones(20, 20), "bert.pooler.dense.bias": torch.ones(20)},
    )
    run = import_checkpoint(tmp_path / "tagger", tmp_path / "tagger-run")
    assert any("pooler" in note for note in import_notes(run))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"0": "a", "5": "b", "7": "c"}, "id2label: the classes are numbered 0, 5, 7, not from 0"),
        ({"a": "x", "b": "y", "c": "z"}, "id2label: the classes are numbered a, b, c, not from 0"),
        ({"0": "a", "1": "a", "2": "b"}, "id2label: 2 classes are called 'a'"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused_in_a_line(labels, says, tmp_path, capsys):
    foreign.make_folder("BERT", 1, tmp_path / "folder")
    change(tmp_path / "folder", id2label=labels)
    assert main(["import", str(tmp_path / "folder"), "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert says in said and not (tmp_path / "run").exists()


GENERATION = {"num_beam_groups": 2, "encoder_no_repeat_ngram_size": 3, "diversity_penalty": 0.5, "guidance_scale": 1.2}
OBEYED = {"num_beams": 4, "no_repeat_ngram_size": 3, "forced_bos_token_id": 3, "repetition_penalty": 1.2}


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_settings_of_generation_that_change_answers_are_listed(name, tmp_path, capsys):
    folder = tmp_path / "folder"
    foreign.make_folder("BART", 0, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    harmless = {"bad_words_ids": [[1]], "pad_token_id": 1, "length_penalty": 1.0, "max_length": 99}
    (folder / name).write_text(json.dumps(content | GENERATION | OBEYED | harmless))
    assert main(["import", str(folder), "--run", str(tmp_path / "run")]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert note.startswith(
        f"note: {name}: num_beam_groups=2, encoder_no_repeat_ngram_size=3, diversity_penalty=0.5, gui"
    )
    assert not [name for name in OBEYED if f" {name}=" in note] and "length" not in note and "bad_words" not in note
