"""The Python of the documents runs, at toy size: blocks of a page one after the other, as a reader would type them."""

import re
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import tiny_tasks
from docs_world import make_chat_model

from dragoman.config import to_dict
from dragoman.presets import PRESETS

DOCS = Path(__file__).parent.parent / "docs"
WORDS = ["door", "window", "house", "tree", "river", "stone", "bird", "fish", "wolf", "bear"]
SMALLER = [  # what a page says -> the same in small
    (r"\bminutes=\d+", "steps=2"),
    (r"steps=2\)( +# or longer)", r"steps=3)\1"),
    (r"steps=(\d), run=\"runs/stoppable\"", r'steps=\1, run="runs/stoppable"'),
    (r', preset="auto"', ', preset="transformer-tiny"'),
    (r"threading.Timer\(3600, stop.set\).start\(\)", ""),
    (r"max_new_tokens=100", "max_new_tokens=4"),
    (r'"key", \.\.\.\)', "*map(str, range(40)))"),
    (r'("Cierre la ventana."\)), \.\.\.\]', r"\1, *MORE]"),
]


def toy() -> dict[str, Any]:
    made = to_dict(tiny_run.config(Path("none.tsv")))
    post = made["model"]
    for side in ("encoder", "decoder"):
        for block in post[side]["pattern"]:
            block["placement"] = "post"
    parts = {name: made[name] for name in ("tokenizer", "train")} | {"model": post}
    return parts | {"data": {"hold_out": {"test": 2, "valid": 60, "near": None}}}


def toy_classifier() -> dict[str, Any]:
    given = {"tokenizer": "bytes", "task": "classification", "model": tiny_tasks.reader("classification")}
    data = {"kind": "labelled_texts", "overlap": "keep", "hold_out": {"test": 4, "valid": 4, "near": None}}
    return given | {"train": tiny_tasks.TRAIN, "data": data}


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("transformer-tiny", "transformer-small"):
        monkeypatch.setitem(PRESETS, name, toy)
    monkeypatch.setitem(PRESETS, "classifier-tiny", toy_classifier)
    (tmp_path / "glossary.tsv").write_text("source\ttarget\nwindow\tventana\n")
    return tmp_path


def code(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for long, short in SMALLER:
        found = [re.sub(long, short, block) for block in found]
    return found


def run_page(page: str, **names: Any) -> dict[str, Any]:
    for number, block in enumerate(code(page), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore")
def test_the_python_page_runs(world, capsys):
    pytest.importorskip("pandas")
    pytest.importorskip("ctranslate2")
    more = [(f"{a} {b} {c}", f"{c} {b} {a}".upper()) for a in WORDS for b in WORDS for c in WORDS[:3]]
    found = run_page("python.md", MORE=more)
    assert found["run"].finished.complete and found["exported"].files
    assert len(found["translation"].text) and found["seen"].cross


def test_the_chat_page_runs(world, capsys):
    pytest.importorskip("transformers")
    make_chat_model(world / "imported" / "chat")
    found = run_page("chat.md")
    assert found["answer"].continuations[0].ended in ("end", "length", "stop")
