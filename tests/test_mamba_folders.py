"""Folders of Mamba and Mamba-2: sizes that do not fit are one line, and older files hold the same model."""

import json
import shutil

import foreign
import pytest
import torch
from safetensors.torch import load_file, save_file

from dragoman.cli import main
from dragoman.interchange.importing import import_checkpoint

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in ("Mamba", "Mamba-2"):
        made[name] = tmp_path_factory.mktemp(name)
        foreign.make_folder(name, 0, made[name])
    return made


def changed(folder, to, **settings):
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text()) | settings
    (to / "config.json").write_text(json.dumps(config))
    return to


MISTAKES = [
    ("Mamba", {"intermediate_size": 40}, "intermediate_size: 40 does not fit hidden_size 18 and expand 2"),
    ("Mamba", {"expand": 3, "intermediate_size": None}, "mixer.dt_proj.bias is 36, but config.json makes it 54"),
    ("Mamba", {"state_size": 7}, "mixer.A_log is 36 x 16, but config.json makes it 36 x 7"),
    ("Mamba", {"state_size": 0}, "state_size: expected a whole number above 0, got 0"),
    ("Mamba", {"conv_kernel": 3}, "conv1d.weight is 36 x 1 x 4, but config.json makes it 36 x 1 x 3"),
    ("Mamba", {"conv_kernel": 0}, "mixer.kernel: must be greater than 0, got 0"),
    ("Mamba", {"time_step_rank": "some"}, "time_step_rank: expected a whole number above 0, or auto, got 'some'"),
    ("Mamba", {"time_step_rank": 5}, "x_proj.weight is 34 x 36, but config.json makes it 37 x 36"),
    ("Mamba", {"expand": 1.5}, "expand: expected a whole number above 0, got 1.5"),
    ("Mamba", {"expand": "2"}, "expand: expected a whole number above 0, got '2'"),
    ("Mamba", {"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported here, only 'silu' or 'swish'"),
    ("Mamba", {"rms_norm": False}, "rms_norm: False is not supported here, only True"),
    ("Mamba-2", {"num_heads": 8}, "num_heads: 8 heads of head_dim 4 are 32 channels, but expand 2 x"),
    ("Mamba-2", {"head_dim": 6}, "num_heads: 9 heads of head_dim 6 are 54 channels"),
    ("Mamba-2", {"n_groups": 2}, "n_groups: 2 groups do not divide num_heads, 9"),
    ("Mamba-2", {"state_size": 5}, "but config.json makes it 111 x 18"),
    ("Mamba-2", {"time_step_limit": [0.5]}, "time_step_limit: expected two numbers, the smallest and the largest step"),
    ("Mamba-2", {"time_step_limit": [0.5, 0.1]}, "time_step_limit: expected two numbers"),
    ("Mamba-2", {"chunk_size": 0}, "chunk_size: expected a whole number above 0, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "message"), MISTAKES)
def test_sizes_that_do_not_fit_are_one_line_and_leave_nothing(name, settings, message, folders, tmp_path, capsys):
    folder = changed(folders[name], tmp_path / "folder", **settings)
    assert main(["import", str(folder), "--run", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert message in told and str(folder) in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_files_in_the_names_of_the_authors_hold_the_same_model(folders, tmp_path):
    folder = changed(folders["Mamba"], tmp_path / "old", d_inner=36, d_model=18, fused_add_norm=True, ssm_cfg={})
    weights = load_file(folder / "model.safetensors")
    weights["backbone.embedding.weight"] = weights.pop("backbone.embeddings.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    runs = [import_checkpoint(folders["Mamba"], tmp_path / "new-run"), import_checkpoint(folder, tmp_path / "old-run")]
    ours, theirs = (run.weights("last").tensors["model"] for run in runs)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("limit", [[0.0, float("inf")], [0.0, {"__float__": "Infinity"}], None])
def test_a_limit_of_steps_may_be_infinite_in_any_spelling(limit, folders, tmp_path):
    run = import_checkpoint(changed(folders["Mamba-2"], tmp_path / "folder", time_step_limit=limit), tmp_path / "run")
    assert "largest_step: null" in (run.path / "config.yaml").read_text().replace(
        "largest_step:\n", "largest_step: null\n"
    )
