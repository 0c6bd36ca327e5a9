"""A run small enough to be made many times in a test: a toy language, a model of some thousand parameters, 12 steps."""

import json
from pathlib import Path

import torch

from dragoman.checkpoint import RunDirectory
from dragoman.config import merge
from dragoman.train import recipe

WORDS = ["the", "a", "one", "two", "red", "blue", "green", "house", "tree", "car", "dog", "cat", "sees", "big", "small"]
TIMES = ("seconds", "seconds_left", "cpu_seconds", "tokens_per_second", "utilisation")


def write_pairs(path: Path, count: int = 210) -> Path:
    """Every pair has its own words, and the target spells them backwards."""
    draw = torch.Generator().manual_seed(1)
    lines = []
    for number in range(count):
        length = int(torch.randint(1, 5, (), generator=draw))
        words = [WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=draw)] + [f"n{number}"]
        lines.append(" ".join(words) + "\t" + " ".join(word[::-1].upper() for word in words))
    path.write_text("\n".join(lines) + "\n")
    return path


ATTENTION = {"heads": 2, "bias": True, "visibility": "causal"}
BLOCK = {
    "mixer": ATTENTION,
    "mlp": {"kind": "feed_forward", "hidden": 16},
    "norm": "layer_norm",
    "dropout": 0.1,
}
MODEL = {
    "dim": 8,
    "encoder": {"depth": 1, "pattern": [merge(BLOCK, {"mixer": {"visibility": "full"}})]},
    "decoder": {"depth": 1, "pattern": [BLOCK | {"cross": ATTENTION | {"visibility": "full"}}]},
    "position": "sinusoidal",
    "dropout": 0.1,
}


def config(pairs: Path, **train) -> recipe.RunConfig:
    return recipe.load(
        {
            "data": {
                "train": [{"kind": "table", "path": str(pairs)}],
                "hold_out": {"test": 3, "valid": 10, "near": None},
            },
            "tokenizer": "bytes",
            "model": MODEL,
            "train": {
                "budget": {"kind": "steps", "steps": 12},
                "schedule": {"kind": "cosine", "peak": 1e-2, "warmup": 2},
                "batch_tokens": 400,
                "accumulate": 2,
                "average": 0.9,
                "validate_every": 4,
                "save_every": 3,
                "report_every": 2,
                "keep": {"last": 100, "optimizer_states": 100},
                "samples": 0,  # a model that has hardly learned writes on to the limit
                "precision": "float32",
                "products": "torch",
            }
            | train,
        }
    )


def outcome(path: Path) -> dict:
    """All that a run has come to, but for how long it took."""
    run = RunDirectory.open(path)
    content = run.load("last")
    content.progress.pop("seconds")
    content.progress.pop("cpu_seconds")
    content.progress["window"].pop("seconds")
    return {
        "tensors": {
            f"{part}/{name}": value.tolist() for part, named in content.tensors.items() for name, value in named.items()
        },
        "progress": content.progress,
        "best": (path / "best").resolve().name,
        "metrics": [
            {key: value for key, value in row.items() if key not in TIMES} for row in rows(path / "metrics.jsonl")
        ],
        "samples": rows(path / "samples.jsonl"),
    }


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
