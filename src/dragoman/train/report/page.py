"""``report.html``: a run's curves, its outputs over time and its settings on one self-contained page.

The page's frame, style and script are in ``report.html`` beside this file.
"""

import html
import json
import statistics
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

from dragoman import durable
from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.data.tasks.usual import task_of
from dragoman.journal import Journal
from dragoman.train.report.chart import COLOURS, ChartLine, draw, short

ReportRow = dict[str, Any]


class LossUnit(NamedTuple):
    """Unit that a task's loss is a mean over, in singular and plural."""

    singular: str
    plural: str
    writes: bool = False
    """True if the units are tokens of a text, so that the loss is the logarithm of a perplexity."""


TOKENS = LossUnit("token", "tokens", writes=True)
LEARNED = {
    "classification": LossUnit("example", "examples"),
    "contrastive": LossUnit("pair", "pairs"),
    "question_answering": LossUnit("text", "texts"),
    "tagging": LossUnit("word", "words"),
    "translation": LossUnit("target token", "target tokens", writes=True),
}
"""Unit by task; ``TOKENS`` for the others."""
SHOWN_OUTPUTS = 6
"""Outputs shown of each sample: the first, the last, and some between."""


def write(run: RunDirectory) -> None:
    """Write the page from the contents of the run directory; readers see the old one or the new one."""
    metrics = list(Journal(run.path / "metrics.jsonl").lines())
    train = [row for row in metrics if row["kind"] == "train"]
    valid = [row for row in metrics if row["kind"] == "valid"]
    frame = Template(files("dragoman.train.report").joinpath("report.html").read_text(encoding="utf-8"))
    unit = LEARNED.get(task_of(run.config).get("kind", ""), TOKENS)
    page = frame.substitute(
        title=html.escape(run.path.name),
        summary=_summary(train),
        tiles=_tiles(train, valid, unit),
        charts=_charts(train, valid, unit) + _followed(run),
        scores=_scores(run),
        samples=_samples(list(Journal(run.path / "samples.jsonl").lines())),
        preparation=_preparation(run, train),
        config=html.escape((run.path / CONFIG).read_text(encoding="utf-8")),
    )
    durable.replace(run.path / "report.html", page.encode())


# ---- figures --------------------------------------------------------------------------------------


def _summary(train: Sequence[ReportRow]) -> str:
    if not train:
        return "not a step yet"
    step, total = train[-1]["step"], train[-1]["total"]
    return f"step {step:,}" + (f" of {total:,}" if total else "")


def _tiles(train: Sequence[ReportRow], valid: Sequence[ReportRow], unit: LossUnit) -> str:
    tiles: list[tuple[str, str, str]] = []
    if valid:
        best = min(valid, key=lambda row: row.get("cost", row["loss"]))
        when = f"at step {best['step']:,}, the best"
        figure = f"{best['perplexity']:.2f}" if unit.writes else f"{best['loss']:.3f}"
        tiles.append((f"validation {'perplexity' if unit.writes else 'loss'}", figure, when))
        tiles += [(f"validation {name}", f"{value:.1f}", when) for name, value in best["scores"].items()]
    if train:
        now = train[-1]
        speed = statistics.median(row["tokens_per_second"] for row in train)
        tiles.append(("learning time", _duration(now["seconds"]), f"{short(now['tokens'])} {unit.plural}"))
        tiles.append(("tokens a second", f"{speed:,.0f}", "of all text read"))
        if used := [row["utilisation"] for row in train if row.get("utilisation") is not None]:
            share = f"{100 * statistics.median(used):.0f}%"
            tiles.append(("model FLOP utilisation", share, "of this machine's peak, by products of real tokens"))
        tiles.append(("padding", f"{100 * statistics.fmean(row['padding'] for row in train):.1f}%", "of all positions"))
        if now["skipped"]:
            tiles.append(("skipped steps", f"{now['skipped']:,}", "loss or gradient not finite"))
    return "".join(
        f'<div class="tile"><span>{html.escape(name)}</span><b>{value}</b><small>{note}</small></div>'
        for name, value, note in tiles
    )


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _charts(train: Sequence[ReportRow], valid: Sequence[ReportRow], unit: LossUnit) -> str:
    loss = [_line("training", train, "loss"), _line("validation", valid, "loss", dots=True)]
    percent = [row | {"padding": 100 * row["padding"]} for row in train]
    used = [row | {"utilisation": 100 * row["utilisation"]} for row in train if row.get("utilisation") is not None]
    charts = [
        draw(f"Loss per {unit.singular}", loss, axis="loss"),
        draw("Learning rate", [_line("learning rate", train, "lr")], axis="learning rate"),
        draw(
            "Gradient norm, before clipping", [_line("gradient norm", train, "grad_norm")], axis="norm", from_zero=True
        ),
        draw(
            "Tokens a second", [_line("tokens a second", train, "tokens_per_second")], axis="tokens/s", from_zero=True
        ),
        draw(
            "Model FLOP utilisation, %",
            [_line("utilisation", used, "utilisation")],
            axis="% of the peak",
            from_zero=True,
        ),
        draw("Padding, % of positions", [_line("padding", percent, "padding")], axis="% of positions", from_zero=True),
    ]
    names = sorted({name for row in valid for name in row["scores"]})
    if names:
        flat = [row | row["scores"] for row in valid]
        charts.insert(
            1, draw("Validation scores", [_line(name, flat, name, dots=True) for name in names], axis="score")
        )
    return "".join(charts)


def _followed(run: RunDirectory) -> str:
    """Draw the scores of every checkpoint that ``dragoman evaluate --follow`` has written."""
    charts = []
    for path in sorted(run.path.glob("evaluations/*.jsonl")):
        by_step = {row["step"]: row["scores"] for row in Journal(path).lines()}  # the later one where a step has two
        rows = [{"step": step} | by_step[step] for step in sorted(by_step)]
        names = [name for name in (rows[-1] if rows else ()) if name != "step"]
        title = f"{path.stem}: scores of every checkpoint"
        charts.append(draw(title, [_line(name, rows, name, dots=True) for name in names[:COLOURS]], axis="score"))
    return "".join(charts)


def _line(name: str, rows: Iterable[ReportRow], field: str, *, dots: bool = False) -> ChartLine:
    points = [(row["step"], row[field]) for row in rows if row.get(field) is not None]
    return ChartLine(name, [x for x, _ in points], [y for _, y in points], dots)


# ---- tables ---------------------------------------------------------------------------------------


def _samples(validations: Sequence[ReportRow]) -> str:
    """Return a card per sample of the newest validation that has some, with its output at a few validations.

    Which examples are shown, and how many, may differ from one validation to another: a resumed run may change
    ``train.samples``.
    """
    newest = next((validation["samples"] for validation in reversed(validations) if validation["samples"]), [])
    outputs: dict[tuple[str, str], dict[int, str]] = {(one["source"], one["reference"]): {} for one in newest}
    for validation in validations:
        for one in validation["samples"]:
            outputs.get((one["source"], one["reference"]), {})[validation["step"]] = one["output"]
    cards = "".join(_card(*example, list(by_step.items())) for example, by_step in outputs.items())
    return f'<h2>Answers over time</h2><div class="cards">{cards}</div>' if cards else ""


def _card(source: str, reference: str, outputs: Sequence[tuple[int, str]]) -> str:
    """Return the card of an example, with the first and the last of its outputs and some between."""
    count = min(SHOWN_OUTPUTS, len(outputs))
    chosen = sorted({round(i * (len(outputs) - 1) / max(count - 1, 1)) for i in range(count)})
    body = "".join(
        f'<tr><th>{step:,}</th><td dir="auto">{html.escape(output)}</td></tr>'
        for step, output in map(outputs.__getitem__, chosen)
    )
    return (
        f'<div class="card"><p class="source" dir="auto">{html.escape(source)}</p><table>{body}'
        f'<tr class="reference"><th>reference</th><td dir="auto">{html.escape(reference)}</td></tr></table></div>'
    )


def _scores(run: RunDirectory) -> str:
    """Return tables of the scores that evaluations have left in the run directory; those with the votes of a datastore
    stand apart."""
    alone, with_votes = list[str](), list[str]()
    for path in sorted(run.path.glob("evaluations/*/scores.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = "".join(map(_score, found["scores"].values()))
        if baseline := found.get("baseline"):
            name_of_baseline = html.escape(found["baseline_name"])
            rows += f'<tr><th class="note" colspan="4">a baseline: {name_of_baseline}</th></tr>'
            rows += "".join(map(_score, baseline.values()))
        name = html.escape(path.parent.name)
        size = f"{found['documents']:,} documents" if "documents" in found else f"{found['sentences']:,} sentences"
        table = f"<table>{rows}</table>{_confusion(found)}"
        if votes := found.get("neighbours"):
            settings = ", ".join(f"{key} {value}" for key, value in votes.items() if key != "kind")
            with_votes.append(f'<h3>{name}, {size}</h3><p class="note">{html.escape(settings)}</p>{table}')
        else:
            alone.append(f"<h3>{name}, {size}</h3>{table}")
    headed = {"Final figures": alone, "Figures with the votes of a datastore": with_votes}
    return "".join(f"<h2>{heading}</h2>{''.join(tables)}" for heading, tables in headed.items() if tables)


def _score(score: ReportRow) -> str:
    low, high = score["interval"]
    name, signature = html.escape(score["name"]), html.escape(score["signature"])
    figures = f"<b>{_figure(score['value'])}</b></td><td>{_figure(low)} to {_figure(high)}</td>"
    return f'<tr><th>{name}</th><td>{figures}<td class="note">{signature}</td></tr>'


def _figure(value: float) -> str:
    """Return a score as people compare it: perplexities and bits of less than ten differ in later digits."""
    return f"{value:.1f}" if value == 0 or abs(value) >= 10 else f"{value:.3g}"


def _confusion(found: ReportRow) -> str:
    """Return the table of true against predicted labels, where there are labels."""
    if "confusion" not in found:
        return ""
    labels = [html.escape(label) for label in found["labels"]]
    head = "".join(f"<th>{label}</th>" for label in labels)
    rows = "".join(
        f"<tr><th>{label}</th>{''.join(f'<td>{count:,}</td>' for count in row)}</tr>"
        for label, row in zip(labels, found["confusion"], strict=True)
    )
    return f'<div class="wide"><table><tr><th>label, taken for:</th>{head}</tr>{rows}</table></div>'


def _preparation(run: RunDirectory, train: Sequence[ReportRow]) -> str:
    """Return a table of the text that was removed, and why, and of each source's part in training."""
    path = run.path / "data" / "report.json"
    if not path.exists():
        return ""
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = _of_pairs(report) if "cleaning" in report else report["table"]
    body = "".join(f"<tr><th>{html.escape(name)}</th><td>{count:,}</td></tr>" for name, count in rows)
    return f"<h2>Text</h2><table>{body}</table>{_sources(report.get('sources', {}), train)}"


def _sources(stored: dict[str, ReportRow], train: Sequence[ReportRow]) -> str:
    """Return a table of several sources: what each holds and how much of it was learned from."""
    if len(stored) < 2:
        return ""
    seen = train[-1].get("sources", {}) if train else {}
    together = sum(seen.values()) or 1
    rows = ""
    for name, there in stored.items():
        tokens = seen.get(name, 0)
        times = tokens / max(there["tokens"], 1)
        figures = (
            f"{there['pairs']:,}",
            f"{there['tokens']:,}",
            f"{tokens:,}",
            f"{tokens / together:.1%}",
            f"{times:.2f}",
        )
        rows += f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{figure}</td>' for figure in figures)}</tr>"
    head = "".join(f"<th>{name}</th>" for name in ("source", "pairs", "tokens", "tokens seen", "share", "times"))
    return f"<h2>Sources</h2><table><tr>{head}</tr>{rows}</table>"


def _of_pairs(report: ReportRow) -> list[tuple[str, int]]:
    cleaning = report["cleaning"]
    rows = [("pairs read", cleaning["read"])]
    rows += [(f"removed: {rule}", count) for rule, count in cleaning["removed"].items() if count]
    rows += [(f"held apart: {why} as one held out", count) for why, count in report["held_out"].items() if count]
    overlap = report.get("overlap", {}).get("seen", {})
    rows += [(f"overlap with given sets: {why}", count) for why, count in overlap.items() if count]
    return rows + [(f"kept for {use}", count) for use, count in report["pairs"].items()]
