"""A scaling law fitted to a family of small language models, and how well it predicts one that is larger.

    OMP_NUM_THREADS=1 python benchmarks/scaling_laws.py TEXT [--runs FOLDER]

``TEXT`` is plain text of some four megabytes or more; no run reads any of it twice. Sixteen models (four sizes, four
amounts of text) learn to predict its bytes, each with a schedule of its own. One more, with over three times the
parameters, is kept out of the fit. ``dragoman plan --laws`` then fits the law and predicts that one. Runs that are
there already are not made again, so a study that was interrupted goes on. Learning takes eleven minutes of one core.

The results are ``results/scaling_laws.md`` and ``scaling_laws.svg`` beside it.
"""

import argparse
import io
import json
import platform
import shutil
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from processor import processor
from smoke import RESULTS, add_smoke, write_results

from dragoman.cli.plan_laws import print_laws
from dragoman.train.recipe import load
from dragoman.train.run import resume, start

BATCH = 2048
"""Tokens of a step."""
TRAIN, VALID, VALIDATION = "train.txt", "valid.txt", 0.02
"""Files that the text is divided into, and the share of the second."""


@dataclass(frozen=True)
class Study:
    """Sizes of the models as (width, depth), amounts of text in tokens, and the model to be predicted."""

    sizes: tuple[tuple[int, int], ...] = ((32, 2), (48, 3), (64, 4), (96, 4))
    tokens: tuple[int, ...] = (400_000, 800_000, 1_600_000, 3_200_000)
    held_out: tuple[tuple[int, int], int] = ((160, 5), 3_200_000)

    def runs(self) -> list[tuple[str, int, int, int]]:
        """Return name, width, depth and tokens of each run, the cheapest first."""
        found = [(width, depth, tokens) for tokens in self.tokens for width, depth in self.sizes]
        return [(f"{w}x{d}-{n}", w, d, n) for w, d, n in [*found, (*self.held_out[0], self.held_out[1])]]


TOY = Study(sizes=((8, 1), (16, 1), (24, 1)), tokens=(2048, 4096, 8192), held_out=((32, 2), 8192))


def recipe(folder: Path, width: int, depth: int, tokens: int) -> str:
    """Return the run file of a model."""
    steps = tokens // BATCH
    return f"""
preset: lm-small
task: {{context: 128}}
data: {{kind: texts, files: [{folder / TRAIN}], valid: [{folder / VALID}], overlap: keep}}
tokenizer: bytes
model:
  dim: {width}
  decoder:
    depth: {depth}
    pattern:
      - mixer: {{kind: attention, heads: {max(1, width // 16)}, position: rotary, visibility: causal}}
        mlp: {{kind: gated, hidden: {width * 8 // 3}}}
        norm: rms_norm
        dropout: 0.0
  dropout: 0.0
train:
  budget: {{kind: steps, steps: {steps}}}
  batch_tokens: {BATCH}
  schedule: {{kind: cosine, peak: {0.02 / width**0.5:.5f}, warmup: {max(1, steps // 10)}}}
  validate_every: {max(1, steps // 2)}
  save_every: {steps}
"""


def learn(folder: Path, name: str, width: int, depth: int, tokens: int) -> None:
    """Train one model, unless it has been, or what is left of it."""
    path = folder / name
    if (path / "last").exists():
        run = resume(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
        file = folder / f"{name}.yaml"
        file.write_text(recipe(folder, width, depth, tokens), encoding="utf-8")
        run = start(load(file), path)
    for _ in run.events():
        pass
    print(name, flush=True)


def study(chosen: Study, text: Path, folder: Path, *, smoke: bool) -> None:
    """Train what is missing, fit the law, and write it down."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = text.read_text(encoding="utf-8").splitlines(keepends=True)
    cut = round(VALIDATION * len(lines))
    (folder / VALID).write_text("".join(lines[:cut]), encoding="utf-8")
    (folder / TRAIN).write_text("".join(lines[cut:]), encoding="utf-8")
    for name, width, depth, tokens in chosen.runs():
        learn(folder, name, width, depth, tokens)
    paths = [folder / name for name, *_ in chosen.runs()]
    plot = folder / "scaling_laws.svg"
    with redirect_stdout(io.StringIO()) as told:
        print_laws(paths, as_json=True, plot=plot)
    found = json.loads(told.getvalue())
    lines = "\n".join(report(found, text))
    print(lines)
    write_results("scaling_laws.md", lines, smoke=smoke)
    if not smoke:
        shutil.copyfile(plot, RESULTS / plot.name)


def report(found: dict, text: Path) -> list[str]:
    """Return the lines of the results."""
    trial, law = found["trial"], found["law"]
    low, high = trial["interval"]
    constants = ", ".join(
        f"{name} {value['value']:.3g} ({value['interval'][0]:.3g} to {value['interval'][1]:.3g})"
        for name, value in law.items()
    )
    return [
        "# A scaling law, and how well it predicts",
        "",
        f"{date.today()}; {processor()}, {torch.get_num_threads()} thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}. Language models of the bytes of a text of "
        f"{text.stat().st_size / 1e6:.1f} MB, context 128, one pass at most; losses in nats a byte on text held out.",
        "",
        f"Fitted to {len(found['runs']) - 1} runs, the law predicts {trial['loss']:.3f} ({low:.3f} to {high:.3f}) for "
        f"a model with {trial['times_larger']:.1f} times the parameters of the largest of them. Measured: "
        f"{trial['measured']:.3f}. Error: {trial['error']:+.1%}.",
        "",
        f"Fitted to all runs: {constants}. Mean error on its own runs: {found['error']:.2%}.",
        "",
        "| run (width x depth - tokens) | parameters | tokens | loss |",
        "|---|---:|---:|---:|",
        *(
            f"| {Path(run['name']).name} | {run['parameters']:,.0f} | {run['tokens']:,.0f} | {run['loss']:.4f} |"
            for run in found["runs"]
        ),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, metavar="TEXT", help="a file of plain text")
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling-laws"), help="folder of the runs")
    add_smoke(parser)
    given = parser.parse_args()
    if given.smoke:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "text.txt"
            text.write_text(
                "".join(f"{a} and {b} are {a * b}\n" for a in range(60) for b in range(60)), encoding="utf-8"
            )
            study(TOY, text, Path(folder), smoke=True)
    elif given.text:
        study(Study(), given.text, given.runs.resolve(), smoke=False)
    else:
        parser.error("name a text, or give --smoke")


if __name__ == "__main__":
    main()
