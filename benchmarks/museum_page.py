"""The page ``docs/museum.md``: every planted mistake, what the doctor says of it, and its measured harm."""

import warnings
from pathlib import Path

import torch
from museum.entries import EXHIBITS, OURS, Exhibit

from dragoman.inspect.doctor import Finding, examine

DOCS = Path(__file__).parents[1] / "docs"
OPENING = """# Bug museum

Each of these mistakes is planted by itself in a small model (`tests/museum/`). The [doctor](doctor.md) finds it,
names it and says where it is; the same model without it is free of it (`tests/test_museum.py`). The sentences are the
doctor's own, and the numbers are of these models, before any training. The curves show the training loss: grey
without the mistake, red with it. The harm is measured as [the table of results](../benchmarks/results/museum.md)
says. Letters are written one by one, so a loss that looks good is no comfort.

This page is written by `benchmarks/museum.py`.
"""
MODELS = {
    "TinyGPT": "a GPT from scratch",
    "Translator17": "a translator on `nn.Transformer`",
    "DeepEncoder": "a classifier on `nn.TransformerEncoder`",
    "LSTMWithAttention": "a language model on `nn.LSTM`",
    "LSTMClassifier": "a classifier on `nn.LSTM`",
    "HalfRotary": "a model of sums of rotated embeddings",
    "gpt": "the training of a GPT",
    "<lambda>": "a model in bfloat16",
}


def write_page(harms: dict[str, list[str]]) -> None:
    """Write the page; ``harms`` has the cells of the table by mistake."""
    sections = [section(exhibit, harms.get(exhibit.bug)) for exhibit in EXHIBITS]
    others = [
        f"## Learned otherwise\n\n{shown(name, harms[name])}"
        for name in ("no_warm_up_pre_norm", "copied_embedding")
        if name in harms and name not in {exhibit.bug for exhibit in EXHIBITS}
    ]
    planted = ", ".join(bug.bug for bug in OURS)
    ours = f"## In models of this package\n\nPlanted in the built model and found by the same checks: {planted}."
    text = "\n\n".join([OPENING.rstrip(), *sections, *others, ours])
    (DOCS / "museum.md").write_text(text + "\n", encoding="utf-8")


def section(exhibit: Exhibit, harm: list[str] | None) -> str:
    finding = finding_of(exhibit)
    lines = [
        f"## {exhibit.bug}",
        f"In {MODELS[exhibit.build.__name__]}. **{finding.title[0].upper()}{finding.title[1:]}** ({finding.severity}, "
        f"check `{finding.check}`, at `{finding.where}`).",
        f"- Evidence: {finding.evidence}.",
        f"- Likely cause: {finding.cause}.",
        f"- Remedy: {finding.remedy}.",
    ]
    if harm:
        lines.append(f"- Harm: {shown(exhibit.bug, harm)}")
    return f"{lines[0]}\n\n{lines[1]}\n\n" + "\n".join(lines[2:])


def shown(bug: str, cells: list[str]) -> str:
    says, right, wrong, letters, with_it, here = cells[1:]
    return (
        f"last loss {right} without, {wrong} with it; letters right {letters} without, {with_it} with it. "
        f'Folklore: "{says}". Here: {here}.\n\n![Training loss with and without {bug}](museum/{bug}.svg)'
    )


def finding_of(exhibit: Exhibit) -> Finding:
    """Return what the doctor says of an exhibit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = exhibit.build(exhibit.bug)
        report = examine(model, exhibit.batch(), **exhibit.options(exhibit.bug, model))
    fitting = [f for f in report.findings if f.check == exhibit.check and f.where.startswith(exhibit.where)]
    assert fitting, f"{exhibit}: {report.findings}"
    return fitting[0]
