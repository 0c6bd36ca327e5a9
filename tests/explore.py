"""Trains run files drawn at random and asks each command of what comes out: ``make explore``.

    python tests/explore.py --draws 300 --seed 0 [--report findings.jsonl]

Each draw (``drawn_runs.py``) begins with the run file of one task, changes some places in it, learns eight steps from
tiny texts or images, and asks every command that fits the task. What has to hold of every draw:

- a command answers with exit code 0, or refuses in one line with exit code 2, which for a run file names a path in the
  configuration or a file; there is never a traceback;
- asked again in the same process it answers the same;
- what it answers has only finite numbers;
- ``dragoman verify`` holds, for the model as commands run it: by kernels in C in one half of the draws, in the other
  by PyTorch.

Whatever does not hold is a finding. It is told with the number of its draw: ``--draw 17 --seed 0`` makes it again, and
``--keep FOLDER`` keeps its run file and its run. The test suite runs a few draws (``test_explore.py``).
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from drawn_runs import changed, with_budget, with_dropout, with_start
from tiny_tasks import run_files, write_texts

from dragoman.cli import main
from dragoman.config import dump_yaml
from dragoman.decode import precision

CHANGES = [0, 2, 4, 8, 8, 16]
"""How many places of a run file are changed."""
WILD = 0.2
"""How often changes are kept that cannot fit."""
PATIENCE = 60
"""Seconds of this process's time that a command may take."""

# ---- what is asked ----------------------------------------------------------------------------------

CACHES = ["growing", "preallocated", "paged:3", "bfloat16", "float8", "int8", "int4", "window:8:2"]
TEXT_READERS = ["embed RUN given.txt", "embed RUN given.txt -o OUT.npy"]
COMMANDS = {
    "translation": [
        "translate RUN given.txt --beam 1",
        "translate RUN given.txt --beam 3 --format json --scores",
        *(f"translate RUN given.txt --beam 2 --cache {cache}" for cache in CACHES),
        "translate RUN given.txt --sample 2 --seed 3",
        "translate RUN given.txt --precision int8",
        "translate RUN given.txt --precision bfloat16 --cache growing",
        "score RUN given.tsv --format json",
        "evaluate RUN given.tsv --beam 1",
        "export RUN --to ctranslate2 -o OUT",
        "export RUN --to huggingface -o OUT",
    ],
    "denoising": ["translate RUN given.txt --beam 2", "export RUN --to huggingface -o OUT"],
    "language_modelling": [
        *(f"generate RUN dog --max-new-tokens 8 --seed 1 --cache {cache}" for cache in CACHES),
        "generate RUN dog --max-new-tokens 8 --search greedy --format json",
        "export RUN --to huggingface -o OUT",
    ],
    "captioning": [
        *(f"generate RUN --image image1.png --max-new-tokens 8 --seed 1 --cache {cache}" for cache in CACHES),
        "generate RUN dog --image image2.png --max-new-tokens 8 --search greedy --format json",
        "generate RUN dog --max-new-tokens 8",
        "evaluate RUN",
        "export RUN --to huggingface -o OUT",
    ],
    "masked": [*TEXT_READERS, "export RUN --to huggingface -o OUT"],
    "classification": ["classify RUN given.txt --format json", "evaluate RUN", *TEXT_READERS],
    "images": ["classify RUN images.npy --format json", "evaluate RUN", "embed RUN images.npy"],
    "frames": ["classify RUN frames.npy --format json", "evaluate RUN", "embed RUN frames.npy"],
    "tagging": ["tag RUN given.txt --format json", "evaluate RUN", *TEXT_READERS],
    "question_answering": ["answer RUN given.jsonl", "evaluate RUN", *TEXT_READERS],
    "contrastive": ["evaluate RUN", *TEXT_READERS, "embed RUN given.txt --tower second"],
}
COMMANDS |= {f"{family} translation": COMMANDS["translation"] for family in ("convolutional", "unfolding")}
COMMANDS |= {"convolutional writing": COMMANDS["language_modelling"]}
FEW = 6
"""Of the commands of a task, as many are asked of one draw."""
VERIFY = "verify RUN --sentences 3 --format json"
ONLY_READ = {"masked", "classification", "images", "frames", "tagging", "question_answering", "contrastive"}
ONCE = ["average RUN --last 2", "train RUN --resume"]
"""Commands that change the run: asked once, at last."""
SECONDS = re.compile(r'"(seconds|seconds_per_\w+)": [\d.e+-]+|in [\d.:]+ ?(s|min)\b|\d[\d.,]* \w+/s')
NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b")
NOT_FINITE = re.compile(r"(?<![\w.])[-+]?(nan|inf|infinity)(?![\w.])", re.IGNORECASE)
NAMED = re.compile(
    r"\b(task|data|start_from|tokenizer|target_tokenizer|model|train)\b|[\w.-]+\.(tsv|conll|jsonl|txt|npz|npy|png|yaml)\b"
)
"""A path in the configuration, or a file."""


@dataclass(frozen=True)
class Finding:
    draw: int
    task: str
    command: str
    what: str
    """What does not hold: the first line of it."""
    more: str = ""
    """A traceback, or what was printed."""


@dataclass
class Outcome:
    draw: int
    task: str
    trained: bool = False
    refused: str = ""
    """Why the run file was refused, or the training was ended."""
    findings: list[Finding] = field(default_factory=list)
    asked: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str
    raised: str = ""
    """A traceback."""


def call(arguments: Sequence[str]) -> Said:
    """Run one command in this process."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"more than {PATIENCE} s")

    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return Said(main(list(arguments)), out.getvalue(), err.getvalue())
    except Exception:
        return Said(1, out.getvalue(), err.getvalue(), traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Explorer:
    """Makes draws in a folder of its own.

    Args:
        folder: an empty one, which becomes the working folder while a draw is made.
        seed: all draws depend on it and on their number.
    """

    def __init__(self, folder: Path, seed: int = 0):
        self.folder, self.seed = folder, seed
        write_texts(folder)
        self.bases = run_files(folder)
        self.files = [str(path) for path in sorted(folder.iterdir())]

    def run_file(self, number: int) -> tuple[str, dict[str, Any]]:
        """The task and the run file of a draw."""
        draw = random.Random(f"{self.seed} {number}")
        task = draw.choice(list(self.bases))
        content = changed(self.bases[task], draw, draw.choice(CHANGES), self.files, wild=draw.random() < WILD)
        content = with_dropout(content) if draw.random() < 0.7 else content
        if draw.random() < 0.2 and isinstance(content.get("train"), dict):
            content = with_budget(content, draw)
        if draw.random() < 0.2:
            content = with_start(content, self.bases[task], self.earlier(task), draw)
        return task, content

    def earlier(self, task: str) -> str:
        """The run of a task's run file as it stands, which others begin with."""
        return str(self.folder / "earlier" / task)

    def explore(self, number: int) -> Outcome:
        """Make a draw, and ask it everything."""
        task, content = self.run_file(number)
        outcome = Outcome(number, task)
        run, yaml = self.folder / "run", self.folder / "run.yaml"
        shutil.rmtree(run, ignore_errors=True)
        if content.get("start_from") and not Path(self.earlier(task)).exists():
            yaml.write_text(dump_yaml(self.bases[task]))
            assert call(["train", str(yaml), "--run", self.earlier(task)]).code == 0
        yaml.write_text(dump_yaml(content))
        kernels = precision.unavailable if number % 2 else lambda: "switched off for this draw"
        with contextlib.chdir(self.folder), swapped(precision, "unavailable", kernels):
            said = call(["train", "run.yaml", "--run", "run"])
            outcome.findings += faults(outcome, "train", said)
            if said.code == 2 and not NAMED.search(said.err):
                outcome.findings.append(Finding(number, task, "train", "a refusal that names no place", said.err))
            outcome.trained, outcome.refused = said.code == 0, said.err.strip().rpartition("\n")[2]
            if outcome.trained:
                self.ask(outcome)
        return outcome

    def ask(self, outcome: Outcome) -> None:
        every = COMMANDS[outcome.task]
        verify = VERIFY if outcome.task in ("images", "frames") else f"{VERIFY} --text given.txt"
        verify += "" if outcome.task in ONLY_READ else " --beam 2"
        for command in [*random.Random(outcome.draw).sample(every, min(FEW, len(every))), verify]:
            first, second = self.answer(command), self.answer(command)
            outcome.asked, outcome.answered = outcome.asked + 1, outcome.answered + (first[0].code == 0)
            found = [*faults(outcome, command, first[0]), *differences(outcome, command, first, second)]
            outcome.findings += found
        for command in ONCE:
            outcome.findings += faults(outcome, command, self.answer(command)[0])

    def answer(self, command: str) -> tuple[Said, dict[str, bytes]]:
        """What is said, and the files that are written."""
        for path in self.folder.glob("out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        said = call(command.replace("RUN", "run").replace("OUT", "out").split())
        written = itertools.chain(self.folder.glob("out*"), self.folder.glob("out/**/*"))
        return said, {path.name: path.read_bytes() for path in sorted(written) if path.is_file()}


def faults(outcome: Outcome, command: str, said: Said) -> Iterator[Finding]:
    """What is wrong with one answer."""

    def finding(what: str, more: str) -> Finding:
        return Finding(outcome.draw, outcome.task, command, what, more)

    told = [line for line in said.err.splitlines() if line.startswith("dragoman: ")]
    if said.raised:
        yield finding(said.raised.strip().splitlines()[-1], said.raised)
    elif command.startswith("verify") and said.code == 1:
        failed = [row for row in map(json.loads, said.out.splitlines()) if not row["passed"]]
        yield finding("verify: " + ", ".join(f"{row['name']}, {row['searched']}" for row in failed), said.out)
    elif said.code not in (0, 2):
        yield finding(f"exit code {said.code}", said.err)
    elif said.code == 2 and (len(told) != 1 or not said.err.endswith(told[0] + "\n")):
        yield finding("a refusal that is not one line at the end", said.err)
    elif said.code == 0 and command != "train" and (wrong := NOT_FINITE.search(said.out)):
        yield finding(f"not a finite number: {wrong[0]}", said.out)


def same_answer(first: str, second: str) -> bool:
    """Equal but for the time taken and the last digits of numbers: a library may add up in another order where an
    array begins elsewhere in memory."""
    texts = [SECONDS.sub("", text) for text in (first, second)]
    if NUMBER.sub("0", texts[0]) != NUMBER.sub("0", texts[1]):
        return False
    one, other = ([float(number) for number in NUMBER.findall(text)] for text in texts)
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-5))


def same_file(first: bytes | None, second: bytes | None) -> bool:
    if first is None or second is None or not first.startswith(b"\x93NUMPY"):
        return first == second
    one, other = (np.load(io.BytesIO(content)) for content in (first, second))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-5))


def differences(
    outcome: Outcome, command: str, first: tuple[Said, dict[str, bytes]], second: tuple[Said, dict[str, bytes]]
) -> Iterator[Finding]:
    """Whether two answers are one, but for the time they took."""
    if first[0].code != second[0].code or not same_answer(first[0].out, second[0].out):
        what = "answers differ" if first[0].code == second[0].code else "exit codes differ"
        yield Finding(outcome.draw, outcome.task, command, what, f"{first[0]}\n{second[0]}")
    elif changes := {n for n in first[1] | second[1] if not same_file(first[1].get(n), second[1].get(n))}:
        yield Finding(outcome.draw, outcome.task, command, f"files differ: {', '.join(sorted(changes))}")


@contextlib.contextmanager
def swapped(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


# ---- the program ------------------------------------------------------------------------------------


def explored(numbers: Sequence[int], seed: int, keep: Path | None = None) -> Iterator[Outcome]:
    """Make these draws, one after the other, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder, swapped(os, "fsync", lambda handle: None):
        explorer = Explorer(Path(folder), seed)
        for number in numbers:
            outcome = explorer.explore(number)
            if keep and outcome.findings:
                target = keep / str(number)
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(explorer.folder / "run.yaml", target / "run.yaml")
            yield outcome


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw run files at random, and ask every command of what they learn.")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--draw", type=int, help="make this one only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="a file for a JSON object a draw")
    parser.add_argument("--keep", type=Path, help="a folder for the run files of findings")
    return parser.parse_args()


def explore() -> int:
    arguments = parsed()
    numbers = (
        [arguments.draw] if arguments.draw is not None else range(arguments.first, arguments.first + arguments.draws)
    )
    counts: Counter[str] = Counter()
    for outcome in explored(numbers, arguments.seed, arguments.keep):
        counts.update(draws=1, trained=outcome.trained, asked=outcome.asked, answered=outcome.answered)
        counts.update(findings=len(outcome.findings))
        for found in outcome.findings:
            print(f"draw {found.draw}, {found.task}: {found.command}: {found.what}", flush=True)
            if arguments.draw is not None:
                print(found.more)
        if arguments.report:
            with arguments.report.open("a") as file:
                file.write(json.dumps(outcome, default=lambda thing: thing.__dict__) + "\n")
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return int(counts["findings"] > 0)


if __name__ == "__main__":
    sys.exit(explore())
