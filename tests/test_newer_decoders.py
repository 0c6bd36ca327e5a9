"""Families of language models that came later: settings of theirs that are obeyed or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from safetensors.torch import load_file, save_file

from dragoman.checkpoint import RunDirectory
from dragoman.cli import main
from dragoman.errors import ConfigError
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.importing import import_checkpoint, import_notes

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a function that makes a folder of a family, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("family")
            foreign.make_folder(name, 0, made[name])
        return made[name]

    return make


LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [1.2, 6.0]}
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "layers without experts that are no list": (
        "Qwen 3 MoE", {"mlp_only_layers": 1}, "mlp_only_layers: expected a list of numbers of layers, got 1",
    ),
    "a step between experts that is none": (
        "Qwen 3 MoE", {"decoder_sparse_step": 0}, "decoder_sparse_step: expected a whole number above 0, got 0",
    ),
    "more active experts than there are": (
        "Qwen 3 MoE", {"num_experts_per_tok": 9}, "active: 9 active experts of 4",
    ),
    "positions for fewer layers": (
        "SmolLM 3", {"no_rope_layers": [1]}, "no_rope_layers: expected 1 (with positions) or 0 for each of 2 layers",
    ),
    "positions that are none": (
        "SmolLM 3", {"no_rope_layers": [1, 2]}, "no_rope_layers: expected 1 (with positions) or 0 for each of 2",
    ),
    "an interval that is none": (
        "SmolLM 3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_interval: expected a whole",
    ),
    "factors for other heads": (
        "Phi 3", {"rope_parameters": LONG_ROPE | {"long_factor": [1.0, 2.0, 3.0]}},
        "position.scaling.long: 3 factors, for 2 pairs of channels",
    ),
    "settings of positions that are none": (
        "LLaMA", {"rope_parameters": None, "rope_scaling": [8]}, "rope_scaling: expected settings by name, got [8]",
    ),
    "settings of positions that are none, of another family": (
        "Phi 3", {"rope_parameters": "longrope"}, "rope_parameters: expected settings by name, got 'longrope'",
    ),
    "factors that are none": (
        "Phi 3", {"rope_parameters": LONG_ROPE | {"short_factor": [1.0, "2"]}},
        "rope_parameters: short_factor: expected a list of numbers above 0 for longrope, got [1.0, '2']",
    ),
    "no factors": (
        "LLaMA", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0, 2.0]}},
        "rope_parameters: short_factor: expected a list of numbers above 0 for longrope, got None",
    ),
    "no length that longrope was trained for": (
        "LLaMA", {"rope_parameters": LONG_ROPE, "max_position_embeddings": None},
        "rope_parameters: longrope needs original_max_position_embeddings, a length in tokens",
    ),
    "a factor that is none": (
        "LLaMA", {"rope_parameters": {"rope_type": "dynamic"}},
        "rope_parameters: factor: expected a number for dynamic, got None",
    ),
    "no length for dynamic": (
        "LLaMA", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": None},
        "dynamic needs max_position_embeddings",
    ),
    "a part of a head, where heads are whole": (
        "LLaMA", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor: 0.5 is not supported here, only 1.0",
    ),
    "more than a head": (
        "Phi 3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.5}},
        "partial_rotary_factor: 1.5 is not supported here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_setting_that_cannot_be_obeyed_is_refused_with_its_name(mistake, folder_of, tmp_path):
    name, changes, message = MISTAKES[mistake]
    shutil.copytree(folder_of(name), tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError) as raised:
        import_checkpoint(tmp_path / "folder", tmp_path / "run")
    assert message in str(raised.value) and "config.json" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_mixture_folder_of_before_is_read_as_one_of_today(folder_of, tmp_path):
    """Published Qwen 3 folders say ``num_experts``, newer ones ``num_local_experts``."""
    shutil.copytree(folder_of("Qwen 3 MoE"), tmp_path / "older")
    path = tmp_path / "older" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"num_experts": content.pop("num_local_experts")}))
    runs = [
        import_checkpoint(folder, tmp_path / f"run-{i}")
        for i, folder in enumerate((folder_of("Qwen 3 MoE"), path.parent))
    ]
    assert (runs[0].path / "config.yaml").read_text() == (runs[1].path / "config.yaml").read_text()


# ---- LongRoPE and dynamic scaling ----------------------------------------------------------------------


def imported(folder: Path, run: Path, **changes: Any) -> foreign.Pair:
    """Return a pair of models, ours and theirs, of a folder whose config.json is changed."""
    shutil.copytree(folder, run.parent / f"{run.name}-folder")
    path = run.parent / f"{run.name}-folder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent).eval()
    import_checkpoint(path.parent, run)
    return foreign.Pair("", theirs, foreign.load_model(run)[0], path.parent, run)


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_the_first_phi_folders_name_long_rope_otherwise(kind, folder_of, tmp_path):
    """``su`` transformers 5 does not open."""
    older = {"type": kind, "short_factor": [1.0, 1.5], "long_factor": [1.2, 6.0]}
    changes = {"rope_parameters": None, "rope_scaling": older, "rope_theta": 500.0, "sliding_window": None,
               "original_max_position_embeddings": 5}  # fmt: skip
    pair = imported(folder_of("Phi 3"), tmp_path / "run", **changes)
    assert max(foreign.logit_errors(pair, "right")) < TOLERANCE
    assert pair.ours.limits == (5,)
    path = pair.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_scaling": older | {"type": "su"}}))
    first = import_checkpoint(pair.folder, tmp_path / "first")
    assert (first.path / "config.yaml").read_text() == (pair.run / "config.yaml").read_text()


def test_a_text_that_grows_beyond_the_trained_length_is_continued_as_generate_continues_it(folder_of, tmp_path):
    rope = LONG_ROPE | {"rope_theta": 100.0}
    pair = imported(
        folder_of("Phi 3"), tmp_path / "run", rope_parameters=rope, original_max_position_embeddings=6,
        sliding_window=None,
    )  # fmt: skip
    assert all(pair.ours.limits[0] - len(text) in range(-3, 5) for text in pair.texts(6, seed=3))
    for beams in (1, 3):
        same, compared = foreign.identical(pair, beams, 6)
        assert same == compared > 3


def test_dynamic_scaling_is_theirs_up_to_the_trained_length_and_said_to_differ_beyond(folder_of, tmp_path):
    rope = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}
    pair = imported(folder_of("LLaMA"), tmp_path / "run", rope_parameters=rope, max_position_embeddings=9)
    for side in ("left", "right"):
        assert max(foreign.logit_errors(pair, side)) < TOLERANCE
    assert max(foreign.cached_errors(pair)) < TOLERANCE
    (note,) = [note for note in import_notes(RunDirectory.open(pair.run)) if "dynamic" in note]
    assert "up to 9 tokens" in note
    (longer,) = pair.texts(1, shortest=14, longest=14)
    theirs, ours = pair.reference(longer, None), pair.ours(pair.inverse[longer][None])
    assert (pair.without_added(ours[0]) - pair.in_our_order(theirs)).abs().max() > 0.01
    assert foreign.comes_back(pair, tmp_path)


# ---- GPT-2's factors of scores --------------------------------------------------------------------------


@pytest.mark.parametrize("numbered", [False, True], ids=["of each layer alike", "by number of layer"])
@pytest.mark.parametrize("by_size", [False, True], ids=["not by size", "by size"])
def test_scores_of_gpt2_are_scaled_as_its_file_says(by_size, numbered, folder_of, tmp_path):
    settings = {"scale_attn_weights": by_size, "scale_attn_by_inverse_layer_idx": numbered}
    pair = imported(folder_of("GPT-2"), tmp_path / "run", **settings)
    assert max(foreign.logit_errors(pair, "right")) < TOLERANCE
    assert max(foreign.cached_errors(pair)) < TOLERANCE
    assert foreign.comes_back(pair, tmp_path)


# ---- Gemma 3 in its multimodal folder --------------------------------------------------------------------


@pytest.fixture(scope="module")
def multimodal(tmp_path_factory):
    """A folder of Gemma 3 that reads images, as published: its config.json leaves out what is usual."""
    folder = tmp_path_factory.mktemp("gemma3")
    torch.manual_seed(0)
    text = transformers.Gemma3TextConfig(
        **foreign.ONE | foreign.GEMMA | {"num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 24},
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        layer_types=["sliding_attention", "full_attention"],
    )
    vision = transformers.SiglipVisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    cfg = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=28, boi_token_index=29,
        eoi_token_index=30, eos_token_id=[1, 5],
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        foreign.make_ends_likely(Ends(model))
    model.save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    usual = ("num_attention_heads", "num_key_value_heads", "hidden_activation", "rms_norm_eps", "rope_parameters",
             "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "attention_bias")  # fmt: skip
    text = {name: value for name, value in content["text_config"].items() if name not in usual}
    content["text_config"] = text | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "config.json").rename(folder / "whole.json")  # the tokenizer has names for single tokens
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}))
    foreign.write_tokenizer(folder, 31)
    (folder / "whole.json").rename(folder / "config.json")
    return folder


class Ends:
    """The model with the configuration of its text model where ``foreign`` looks for sizes."""

    def __init__(self, model: Any):
        self.model, self.config = model, model.config.get_text_config()

    def __call__(self, **given: Any) -> Any:
        return self.model(**given)

    def get_output_embeddings(self) -> Any:
        return self.model.get_output_embeddings()


def multimodal_pair(folder: Path, run: Path) -> foreign.Pair:
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    import_checkpoint(folder, run)
    return foreign.Pair("", theirs, foreign.load_model(run)[0], folder, run)


def test_the_text_model_of_a_multimodal_folder_says_what_the_whole_says(multimodal, tmp_path):
    pair = multimodal_pair(multimodal, tmp_path / "run")
    for side in ("left", "right"):
        assert max(foreign.logit_errors(pair, side)) < TOLERANCE
    assert max(foreign.cached_errors(pair)) < TOLERANCE
    for beams in (1, 3):
        same, compared = foreign.identical(pair, beams, 6)
        assert same == compared > 2


def test_what_reads_images_is_said_to_be_left_out(multimodal, tmp_path, capsys):
    assert main(["import", str(multimodal), "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "note: config.json: vision_config: what reads images is left out" in said
    stored = load_file(multimodal / "model.safetensors")
    images = [name for name in stored if name.startswith(("vision_tower.", "multi_modal_projector."))]
    assert f"note: weights: not used: what reads images ({len(images)})" in said
    assert main(["generate", str(tmp_path / "run"), "w11 w12"]) == 0


def test_a_text_model_out_of_a_multimodal_folder_is_exported_as_a_text_model(multimodal, tmp_path):
    pair = multimodal_pair(multimodal, tmp_path / "run")
    assert export_huggingface(pair.run, tmp_path / "text") == "gemma3"
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert type(alone).__name__ == "Gemma3ForCausalLM"
    (text,) = pair.texts(1)
    torch.testing.assert_close(alone(input_ids=text[None]).logits[0], pair.reference(text, None))
    import_checkpoint(tmp_path / "text", tmp_path / "again")
    runs = (pair.run, tmp_path / "again")
    assert len({(run / "checkpoints/step-000000/model.safetensors").read_bytes() for run in runs}) == 1


def test_names_of_weights_as_newer_files_have_them_are_read(multimodal, tmp_path):
    shutil.copytree(multimodal, tmp_path / "newer")
    tensors = load_file(tmp_path / "newer" / "model.safetensors")
    newer = {
        name.replace("language_model.model.", "model.language_model.")
        if name.startswith("language_model.model.")
        else f"model.{name}": tensor
        for name, tensor in tensors.items()
    }
    newer["lm_head.weight"] = newer["model.language_model.embed_tokens.weight"].clone()
    save_file(newer, tmp_path / "newer" / "model.safetensors")
    runs = [
        import_checkpoint(folder, tmp_path / f"run-{i}") for i, folder in enumerate((multimodal, tmp_path / "newer"))
    ]
    assert len({(run.path / "checkpoints/step-000000/model.safetensors").read_bytes() for run in runs}) == 1


def test_a_multimodal_folder_without_a_text_part_is_refused(multimodal, tmp_path):
    shutil.copytree(multimodal, tmp_path / "folder")
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_config": None}))
    with pytest.raises(ConfigError, match=r"config.json: text_config: must be given"):
        import_checkpoint(tmp_path / "folder", tmp_path / "run")
