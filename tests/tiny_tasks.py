"""Run files that work, one of each task, and the tiny texts and images that they learn from: where draws begin."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ["the", "a", "one", "two", "red", "blue", "green", "house", "tree", "car", "dog", "cat", "sees", "big", "small"]
LABELS = ["bad", "good"]

# ---- what is learned from ---------------------------------------------------------------------------


def write_texts(folder: Path) -> None:
    """A file for each task, and what commands are asked."""
    draw = random.Random(1)
    said = [" ".join(draw.choices(WORDS, k=draw.randint(1, 5))) + f" n{i}" for i in range(60)]

    def lines(name: str, rows: Sequence[str]) -> None:
        (folder / name).write_text("".join(row + "\n" for row in rows))

    lines("pairs.tsv", [f"{text}\t{text[::-1].upper()}" for text in said])
    lines("texts.txt", [line for text in said for line in (text, "")])
    lines("labelled.tsv", [f"{text}\t{LABELS['dog' in text]}" for text in said])
    lines(
        "tagged.conll", [line for text in said for line in (*(f"{w} {LABELS[w in WORDS]}" for w in text.split()), "")]
    )
    asked = [
        {"context": text, "question": "which?", "answers": [{"text": text.split()[0], "start": 0}]} for text in said
    ]
    lines("questions.jsonl", [json.dumps(record) for record in asked])
    lines("given.txt", ["red dog", "a", "z \N{GRINNING FACE}"])  # short: what has hardly learned goes on to the limit
    lines("given.tsv", ["the red dog\tGOD DER", "a\tA"])
    lines("given.jsonl", [json.dumps(record) for record in asked[:3]])
    numbers, labels = np.random.default_rng(1), np.array(LABELS)[np.arange(60) % 2]
    np.savez(folder / "images.npz", x=numbers.integers(0, 255, (60, 4, 4), dtype=np.uint8), y=labels)
    np.savez(folder / "frames.npz", x=numbers.standard_normal((60, 5, 3), dtype=np.float32), y=labels)
    for number in range(20):
        pixels = numbers.integers(0, 255, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image{number}.png")
    lines("captions.tsv", [f"image{number}.png\t{said[number]}" for number in range(20)])
    np.save(folder / "images.npy", numbers.integers(0, 255, (3, 4, 4), dtype=np.uint8))
    np.save(folder / "frames.npy", numbers.standard_normal((3, 4, 3), dtype=np.float32))


# ---- run files that work ----------------------------------------------------------------------------

BLOCK = {
    "mixer": {"heads": 2, "position": "rotary", "visibility": "full"},
    "mlp": {"kind": "feed_forward", "hidden": 16},
    "norm": "layer_norm",
}
CAUSAL = BLOCK | {"mixer": {"heads": 2, "position": "rotary", "visibility": "causal"}}
TRANSLATOR = {
    "dim": 8,
    "encoder": {"depth": 1, "pattern": [BLOCK], "final_norm": "layer_norm"},
    "decoder": {
        "depth": 1,
        "pattern": [CAUSAL | {"cross": {"heads": 2, "visibility": "full"}}],
        "final_norm": "layer_norm",
    },
}
GATED = {"depth": 2, "pattern": [{"kind": "gated_convolution"}], "weights": "weight_norm"}
DILATED = {"depth": 2, "pattern": [{"kind": "dilated_residual", "dilation": d} for d in (1, 2)]}
DILATED |= {"ends": "no_projections", "final_norm": "layer_norm"}
CONVOLUTIONAL = {"kind": "convolutional", "dim": 8, "decoder": GATED}
ATTENDING = CONVOLUTIONAL | {"encoder": {"kind": "multi_step_source", "stack": GATED}}
UNFOLDING = CONVOLUTIONAL | {"encoder": {"kind": "unfolded_source", "stack": DILATED}, "decoder": DILATED}
WRITER = {"dim": 8, "encoder": None, "decoder": {"depth": 2, "pattern": [CAUSAL], "final_norm": "layer_norm"}}
TRAIN = {
    "budget": {"kind": "steps", "steps": 8},
    "schedule": {"kind": "constant", "peak": 1e-2, "warmup": 2},
    "batch_tokens": 200,
    "validate_every": 4,
    "save_every": 4,
    "samples": 1,
    "precision": "float32",
    "products": "torch",
}


def reader(head: Any, inputs: Any = "token_input") -> dict[str, Any]:
    return {"kind": "encoder", "dim": 8, "inputs": inputs, "tower": {"depth": 1, "pattern": [BLOCK]}, "head": head}


SENTENCE = reader("sentence")
IMAGES = {"kind": "patch_input", "size": [4, 4], "patch": 2, "channels": 1}


def run_files(folder: Path) -> dict[str, dict[str, Any]]:
    """One of each task, and of each kind of input."""
    held = {"test": 8, "valid": 8, "near": None}

    def source(name: str, kind: str, of_file: dict[str, Any]) -> dict[str, Any]:
        return {"kind": kind, "train": [of_file | {"path": str(folder / name)}], "hold_out": held}

    def run(task: Any, data: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
        return {"task": task, "data": data, "model": model, "tokenizer": "bytes", "train": TRAIN}

    pairs = source("pairs.tsv", "pairs", {"kind": "table"})
    texts = {"kind": "texts", "files": [str(folder / "texts.txt")], "documents": "blank_lines"}
    labelled = source("labelled.tsv", "labelled_texts", {"kind": "labelled_table", "text": 0, "label": 1})
    tagged = source("tagged.conll", "tagged_texts", {"kind": "tagged_columns"})
    questions = source("questions.jsonl", "questions", {"kind": "question_lines"})
    questions |= {"longest": 64, "longest_question": 16, "stride": 8}
    images, frames = (source(f"{n}.npz", "labelled_arrays", {"kind": "arrays"}) for n in ("images", "frames"))
    captions = source("captions.tsv", "captioned_images", {"kind": "caption_table"})
    captions |= {"hold_out": {"test": 4, "valid": 4, "near": None}}
    shown = {"dim": 8, "inputs": IMAGES, "tower": {"depth": 1, "pattern": [BLOCK]}}
    captioner = {"kind": "prefixed_transformer", "encoder": shown, "decoder": WRITER}
    typed = {"kind": "token_input", "types": 2}
    return {
        "translation": run("translation", pairs, TRANSLATOR),
        "convolutional translation": run("translation", pairs, ATTENDING),
        "unfolding translation": run("translation", pairs, UNFOLDING),
        "convolutional writing": run({"kind": "language_modelling", "context": 32}, texts, CONVOLUTIONAL),
        "denoising": run({"kind": "denoising", "context": 32}, texts, TRANSLATOR),
        "language_modelling": run({"kind": "language_modelling", "context": 32}, texts, WRITER),
        "masked": run({"kind": "masked_language_modelling", "context": 32}, texts, reader("masked_language")),
        "captioning": run("captioning", captions, captioner),
        "classification": run("classification", labelled, reader("classification")),
        "images": run("classification", images, reader("classification", IMAGES)),
        "frames": run("classification", frames, reader("classification", {"kind": "frame_input", "channels": 3})),
        "tagging": run("tagging", tagged, reader("tagging")),
        "question_answering": run("question_answering", questions, reader("spans", typed)),
        "contrastive": run("contrastive", pairs, {"kind": "two_towers", "first": SENTENCE}),
    }
