"""Families of language models that came later: settings of theirs that are obeyed or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import pytest

from dragoman.checkpoint import RunDirectory
from dragoman.errors import ConfigError
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
