"""What the pages tell people to write is read by the program."""

import re
import shlex
from pathlib import Path

import pytest

from dragoman.config import load_yaml, merge
from dragoman.train import recipe
from dragoman.train.tasks import task_data_for

PAGE = Path(__file__).parent.parent / "docs" / "train.md"
BASE = {"preset": "transformer-tiny", "data": {"train": [{"kind": "table", "path": "pairs.tsv"}]}}


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.strip().splitlines()[-1].strip()[:40])
def test_a_run_file_on_the_page_is_one(text):
    cfg = recipe.load(merge(BASE, load_yaml(text)))
    task_data_for(cfg).check(cfg)


@pytest.mark.parametrize("text", re.findall(r"`(\{kind: [^`]*\})`", PAGE.read_text()))
def test_a_choice_on_the_page_is_one(text):
    name = "budget" if any(kind in text for kind in ("steps, ", "epochs, ", "minutes, ")) else "schedule"
    recipe.load(BASE, [f"train.{name}={text}"])


def test_settings_on_the_commands_of_the_page_lead_somewhere():
    lines = [line for text in blocks("") for line in text.splitlines() if line.startswith("dragoman train")]
    settings = [
        word for line in lines for word in shlex.split(line, comments=True) if re.match(r"(train|model)\.", word)
    ]
    assert len(settings) >= 4
    recipe.load(BASE, settings)
