"""The declared table of presets and formats: compared with trials at toy size, and with the page that shows it."""

import os
import re
from pathlib import Path

import exported
import pytest

from dragoman.checkpoint import RunDirectory
from dragoman.errors import ConfigError
from dragoman.interchange.ctranslate2 import ctranslate2_obstacle
from dragoman.interchange.exportable import EXPORTS, table
from dragoman.interchange.exporting import code_obstacle
from dragoman.interchange.gguf import gguf_obstacle
from dragoman.interchange.layouts import find_layout
from dragoman.interchange.nearest import nearest_preset
from dragoman.interchange.onnx import graphs_of
from dragoman.presets import PRESETS

pytest.importorskip("onnxscript")
PAGE = Path(__file__).parents[1] / "docs" / "export.md"


def test_every_preset_is_declared():
    assert list(EXPORTS) == list(PRESETS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    """A run that was trained here, whatever its model."""
    return exported.save_preset("lm-tiny", tmp_path_factory.mktemp("table") / "run")


@pytest.mark.parametrize("name", sorted(set(exported.distinct().values()), key=list(PRESETS).index))
def test_each_format_holds_a_preset_or_refuses_it_as_declared(name, run):
    """The trials that write files and compare answers are in benchmarks/exports.py."""
    cfg = exported.small_config(name, 259)
    model, found = cfg.build().eval(), []
    try:
        layout = find_layout(cfg, model.state_dict(), run)
        found.append(layout.family.name)
    except ConfigError:
        layout = None
        found.append("none" if code_obstacle(cfg) else "code")
    if ctranslate2_obstacle(cfg) is None:
        found.append("ctranslate2")
    try:
        graphs_of(cfg, model)
        found.append("onnx")
    except ConfigError:
        pass
    if layout is not None and gguf_obstacle(layout) is None:
        found.append("gguf")
    assert tuple(found) == EXPORTS[name]


def test_the_page_shows_the_table():
    """``UPDATE_EXPORTS=1 pytest tests/test_export_table.py`` writes it."""
    if os.environ.get("UPDATE_EXPORTS"):
        before, _, after = PAGE.read_text(encoding="utf-8").partition("| preset | transformers |")
        PAGE.write_text(before + table() + "\n" + re.sub(r"^.*\n(\|.*\n)*", "", after, count=1), encoding="utf-8")
    assert table() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "layout", "nearest"),
    [
        ("lm-hybrid-small", "gguf", "lm-small"),
        ("gnmt-small", "ctranslate2", "transformer"),
        ("lstm-lm-small", "gguf", "lm"),
    ],
)
def test_the_nearest_preset_is_of_the_same_kind(name, layout, nearest):
    assert nearest in nearest_preset(exported.small_config(name, 259), layout)
