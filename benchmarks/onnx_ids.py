"""Greedy search over real sentences: the graphs of a run in ONNX Runtime against the run itself, id by id.

    python benchmarks/onnx_ids.py RUN [RUN ...] --texts FILE [--count 200]

A translator translates each line; a language model continues the first half of each. Every graph of the export is
used: the merged decoder for prompts, and one step at a time. Counts the lines with the same ids. Writes
``results/onnx_ids.md`` beside this file, and exits with 1 if a line differs.
"""

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from smoke import add_smoke, tiny_run, write_results

import dragoman
from dragoman.checkpoint import load_writer
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.search import search
from dragoman.decode.search.strategy import LengthLimit
from dragoman.model.interface import SequenceModel
from dragoman.text.tokens.tokenizer import BOS, EOS, PAD

TEXTS = ("This door is open.", "Two dogs run.", "A man in a red shirt.")


class Graphs:
    """Greedy search with the graphs of an export, one text at a time."""

    def __init__(self, folder: Path):
        self.graphs = {path.stem: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")}

    def search(self, source: list[int] | None, prompt: list[int], limit: int) -> list[int]:
        """Return the ids after BOS and the prompt, EOS included."""
        given: dict[str, Any] = {}
        if "encoder" in self.graphs:
            ids = np.array([source])
            given = {"keep": np.ones_like(ids, dtype=bool)}
            (given["memory"],) = self.graphs["encoder"].run(None, {"ids": ids} | given)
        logits, state = self.read([BOS, *prompt], given)
        said: list[int] = []
        while True:
            logits[:, [PAD, BOS]] = -np.inf  # which our search never says
            said.append(int(logits[0].argmax()) if len(said) < limit - 1 else EOS)
            if said[-1] == EOS:
                return said
            logits, state = self.step(said[-1], state, given)

    def read(self, ids: list[int], given: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read the first tokens: at once where there is a merged decoder, else one by one."""
        if "decoder" not in self.graphs:
            logits, *state = self.graphs["begin"].run(None, {"token": np.array([ids[:1]])} | given)
            for token in ids[1:]:
                logits, state = self.step(token, state, given)
            return logits, state
        inputs = {entry.name: entry.shape for entry in self.graphs["decoder"].get_inputs()}
        sizes = [size if isinstance(size, int) else 1 for size in inputs["past"]]
        past = np.zeros((*sizes[:4], 0, sizes[5]), dtype=np.float32)
        mask = np.ones((1, len(ids)), dtype=bool)
        logits, past = self.graphs["decoder"].run(None, {"ids": np.array([ids]), "mask": mask, "past": past} | given)
        return logits[:, -1], [past]

    def step(self, token: int, state: list[np.ndarray], given: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
        names = [entry.name for entry in self.graphs["step"].get_inputs()]
        tensors = {"token": np.array([[token]])} | given
        tensors |= dict(zip([name for name in names if name not in tensors], state, strict=True))
        logits, *state = self.graphs["step"].run(None, {name: tensors[name] for name in names})
        return logits, state


def ours(model: SequenceModel, source: list[int] | None, prompt: list[int], limit: int) -> list[int]:
    """Return the ids that the run says."""
    cfg = Greedy(limit=LengthLimit(tokens=limit, ratio=100.0))
    if source is not None:
        return list(search(model, torch.tensor([source]), cfg)[0][0].tokens)
    strategy, state = cfg.start([limit], model.device), model.start(None)
    logits = model.decode(torch.tensor([[BOS, *prompt]]), state)[:, -1]
    while choice := strategy.step(logits, logits):
        logits = model.decode(choice.tokens[:, None], state)[:, -1]
    return list(strategy.results()[0][0].tokens)


@torch.inference_mode()
def count(run: Path, texts: list[str], limit: int) -> tuple[str, bool]:
    """Return a row of the table, and whether every line has the same ids."""
    model, source_tokenizer, target_tokenizer, _ = load_writer(run, "best")
    with tempfile.TemporaryDirectory() as folder:
        dragoman.export(run, "onnx", Path(folder) / "graphs")
        graphs = Graphs(Path(folder) / "graphs")
        same = tokens = 0
        for text in texts:
            source, prompt = [*source_tokenizer.encode(text), EOS], list[int]()
            if not model.cfg.translates:  # pyright: ignore[reportAttributeAccessIssue]
                whole = target_tokenizer.encode(text)
                source, prompt = None, whole[: (len(whole) + 1) // 2]
            expected = ours(model, source, prompt, limit)
            same += graphs.search(source, prompt, limit) == expected
            tokens += len(expected)
        names = ", ".join(sorted(graphs.graphs))
    return f"| {run.name} | {names} | {same} of {len(texts)} | {tokens:,} |", same == len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="translators and language models")
    parser.add_argument("--texts", type=Path, help="a sentence a line, in the language that the runs read")
    parser.add_argument("--count", type=int, default=200, help="lines")
    parser.add_argument("--limit", type=int, default=40, help="tokens at most")
    add_smoke(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.smoke:
            given.runs, texts = [tiny_run(Path(folder))], list(TEXTS)
        elif not (given.runs and given.texts):
            parser.error("name runs and --texts, or give --smoke")
        else:
            lines = (" ".join(line.split()) for line in given.texts.read_text(encoding="utf-8").splitlines())
            texts = [line for line in lines if line][: given.count]
        found = [count(run, texts, given.limit) for run in given.runs]
    page = "\n".join(
        [
            "# Greedy ids of ONNX Runtime and of the run (benchmarks/onnx_ids.py)",
            "",
            f"{date.today()}, {len(texts)} lines, at most {given.limit} tokens each, float32.",
            "",
            "| run | graphs | lines with the same ids | tokens |",
            "|---|---|---|---|",
            *(row for row, _ in found),
        ]
    )
    print(page)
    write_results("onnx_ids.md", page, smoke=given.smoke)
    sys.exit(not all(same for _, same in found))


if __name__ == "__main__":
    main()
