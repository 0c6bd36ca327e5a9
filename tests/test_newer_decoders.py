"""Families of language models that came later: settings of theirs that are obeyed or refused in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import foreign
import pytest

from dragoman.errors import ConfigError
from dragoman.interchange.importing import import_checkpoint

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


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
