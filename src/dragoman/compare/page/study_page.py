"""Page of a study: what can be said, in words first; then every figure with its interval, curves, costs and fairness.

It is one HTML file without a script and without anything from elsewhere.
"""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from dragoman.compare.page.charts import Series, curve_chart, interval_table, key, number
from dragoman.config import dump_yaml

AXES = {
    "step": "steps",
    "tokens": "target tokens",
    "flops": "FLOPs",
    "seconds": "seconds of learning",
}
"""Titles of the horizontal axes of learning curves, by column."""
SHOWN = 12
"""Verdicts that stand at the top; the others fold away."""
Found = Mapping[str, Any]


def study_page(found: Found) -> str:
    """Return the page of a study's results (``results.json``)."""
    parts = (_head, _verdicts, _failed, _left_out, _figures, _learning, _costs, _tuning, _fair, _repeat)
    return framed(f"{found['title']}: a study", "\n".join(part(found) for part in parts))


def framed(title: str, body: str) -> str:
    """Return a whole page around its body, in the style of studies."""
    frame = Template(files("dragoman.compare.page").joinpath("study.html").read_text(encoding="utf-8"))
    return frame.substitute(title=html.escape(title), body=body)


def _numbers(found: Found) -> dict[str, int]:
    return {one["name"]: i for i, one in enumerate(found["contestants"])}


def _text(value: Any) -> str:
    return html.escape(str(value))


# ---- in words -------------------------------------------------------------------------------------


def _head(found: Found) -> str:
    runs, contestants = found["runs"], found["contestants"]
    seeds = len({run["seed"] for run in runs})
    count = f"{len(contestants)} contestants, {seeds} seed{'s' if seeds != 1 else ''} each"
    data = f"; {_text(found['data']['summary'])}" if found["data"].get("summary") else ""
    size = "" if found["size"] == "small" else f"; size: {_text(found['size'])}"
    return (
        f'<h1>{_text(found["title"])}</h1><p class="question">{_text(found["question"])}</p>'
        f'<p class="summary">{count}{data}{size}; {_text(found["date"])}</p>'
    )


def _verdicts(found: Found) -> str:
    verdicts = sorted(found["verdicts"], key=lambda one: one["shown"] == "neither")
    if not verdicts:
        return ""
    rows = [
        f"<li{'' if one['shown'] == 'neither' else ' class=shown'}>{_text(_sentence(one['words']))}</li>"
        for one in verdicts
    ]
    first, rest = "".join(rows[:SHOWN]), "".join(rows[SHOWN:])
    more = f"<details><summary>{len(rows) - SHOWN} more</summary><ul class='verdicts'>{rest}</ul></details>"
    table = _verdict_table(verdicts)
    return f'<ul class="verdicts">{first}</ul>{more if rest else ""}{table}'


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _verdict_table(verdicts: Sequence[Found]) -> str:
    def ends(interval: Sequence[float] | None) -> str:
        return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"

    def one_number(value: float | None) -> str:
        return "" if value is None else number(value)

    headings = (
        "figure",
        "a",
        "b",
        "a - b",
        "95% interval",
        "over seeds",
        "over examples",
        "p",
        "p, Holm",
        "detectable",
    )
    head = "".join(f"<th>{name}</th>" for name in headings)
    rows = ""
    for one in verdicts:
        cells = (
            *map(_text, (one["figure"], one["a"], one["b"])),
            one_number(one["difference"]),
            *map(ends, (one["interval"], one["over_seeds"], one["over_examples"])),
            *map(one_number, (one["p"], one["p_adjusted"], one["detectable"])),
        )
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    note = (
        "The interval is over seeds, which are the same for all, by Student's t with the spread pooled over "
        "contestants; for scores of a test set, the error of drawing its examples is added (paired bootstrap of 1,000 "
        "test sets). Where all seeds show the same and the figure is not exact by nature, p is that of their signs. "
        "p is adjusted for the number of comparisons by Holm's method. Detectable: the difference that four of five "
        "such studies would show."
    )
    return (
        f'<details><summary>In numbers</summary><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
        f'<p class="note">{note}</p></details>'
    )


def _failed(found: Found) -> str:
    if not found["failed"]:
        return ""
    rows = "".join(
        f"<tr><td>{_text(one['contestant'])}</td><td>{one['seed']}</td><td>{_text(one['why'])}</td></tr>"
        for one in found["failed"]
    )
    return (
        f"<h2>Trainings that did not finish</h2><div class='wide'><table><tr><th>contestant</th><th>seed</th>"
        f"<th>what happened</th></tr>{rows}</table></div>"
    )


def _left_out(found: Found) -> str:
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in found["runs"]:
        for name in run.get("left_out", ()):
            seeds.setdefault((name, run["contestant"]), []).append(run["seed"])
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(contestant)}</td><td>{', '.join(map(str, some))}</td></tr>"
        for (name, contestant), some in seeds.items()
    )
    head = "<tr><th>figure</th><th>contestant</th><th>seeds</th></tr>"
    title = "Figures left out, since they are not finite numbers"
    return f"<h2>{title}</h2><div class='wide'><table>{head}{rows}</table></div>" if rows else ""


# ---- figures and curves ---------------------------------------------------------------------------


def _figures(found: Found) -> str:
    numbers, judged = _numbers(found), found["judged"]
    names = [*(name for name in judged if name in found["figures"]), *(n for n in found["figures"] if n not in judged)]
    cards = []
    for name in names:
        figure = found["figures"][name]
        better = {True: "higher is better", False: "lower is better", None: ""}[figure["higher_is_better"]]
        unit = figure["unit"]
        more = ", ".join(filter(None, [unit, better]))
        signature = f'<p class="note">{_text(figure["signature"])}</p>' if figure["signature"] else ""
        table = interval_table(figure["values"], numbers, unit)
        cards.append(
            f'<div class="card"><h3>{_text(name)} <span class="note">{_text(more)}</span></h3>{table}{signature}</div>'
        )
        cards.append(_curve(name, figure, numbers))
    return f'<h2>Figures</h2><div class="cards">{"".join(cards)}</div>' if cards else ""


def _curve(name: str, figure: Found, numbers: Mapping[str, int]) -> str:
    curve = figure["curve"]
    if not curve:
        return ""
    lines = [Series(one, numbers[one], curve["x"], y) for one, y in curve["y"].items()]
    return curve_chart(f"{name} by {curve['x_title']}", lines, curve["x_title"], name)


def _learning(found: Found) -> str:
    numbers = _numbers(found)
    charts = []
    for column, title in AXES.items():
        lines = []
        for name, place in numbers.items():
            curves = [run["curve"] for run in found["runs"] if run["contestant"] == name and run["curve"].get("step")]
            if curves:
                same = [one for one in curves if len(one[column]) == len(curves[0][column])]
                x, y = (
                    [sum(at) / len(at) for at in zip(*(one[key] for one in same), strict=True)]
                    for key in (column, "loss")
                )
                lines.append(Series(name, place, x, y))
        charts.append(curve_chart(f"Validation loss against {title}", lines, title, "validation loss"))
    body = "".join(charts)
    note = '<p class="note">Each line is the mean over seeds.</p>'
    return f'<h2>Learning curves</h2><div class="cards">{body}</div>{note}' if body else ""


def _costs(found: Found) -> str:
    if not any(one["parameters"] for one in found["contestants"]):
        return ""
    numbers = _numbers(found)
    headings = (
        "contestant",
        "parameters",
        "memory, counted",
        "FLOPs a step",
        "steps",
        "FLOPs",
        "tokens a second",
        "seconds",
    )
    rows = ""
    for one in found["contestants"]:
        runs = [run for run in found["runs"] if run["contestant"] == one["name"]]
        cells = (
            f"{key(numbers[one['name']])}{_text(one['name'])}",
            f"{one['parameters']:,}",
            f"{one['memory'] / 1e6:,.0f} MB",
            f"{one['flops_per_step']:.3g}",
            "by time" if one["steps"] is None else f"{one['steps']:,}",
            _mean([run["flops"] for run in runs]),
            _mean([run["tokens_per_second"] for run in runs]),
            _mean([run["seconds"] for run in runs]),
        )
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{name}</th>" for name in headings)
    return f'<h2>Speed, memory and size</h2><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(float(f"{sum(known) / len(known):.3g}")) if known else ""


# ---- fairness -------------------------------------------------------------------------------------


def _tuning(found: Found) -> str:
    numbers = _numbers(found)
    tuned = [(one["name"], one["tuning"]) for one in found["contestants"] if one["tuning"]]
    if not tuned:
        return ""
    lines = [
        Series(name, numbers[name], [t["rate"] for t in one["tried"]], [t["loss"] for t in one["tried"]])
        for name, one in tuned
    ]
    rows = "".join(
        f"<tr><td>{key(numbers[name])}{_text(name)}</td><td>{number(one['chosen']['rate'])}</td>"
        f"<td>{'yes: a rate beyond may be better' if one['at_edge'] else 'no'}</td>"
        f"<td>{', '.join(number(t['rate']) for t in one['tried'] if t['loss'] is None)}</td></tr>"
        for name, one in tuned
    )
    head = "<tr><th>contestant</th><th>rate chosen</th><th>at the edge</th><th>diverged at</th></tr>"
    chart = curve_chart("Validation loss by learning rate", lines, "learning rate", "validation loss")
    table = f'<div class="card wide"><table>{head}{rows}</table></div>'
    return f'<h2>Learning rates</h2><div class="cards">{chart}{table}</div>'


def _fair(found: Found) -> str:
    notes = "".join(
        f"<li{' class=warning' if one.startswith('Not fair') else ''}>{_text(one)}</li>" for one in found["fair"]
    )
    matched = [one for one in found["contestants"] if one["match"]]
    rows = "".join(
        f"<tr><td>{_text(one['name'])}</td><td>{one['match']['found']:,.0f}</td><td>{one['match']['off']:+.2%}</td>"
        f"<td>{_text(_widths(one['match']['widths']))}</td></tr>"
        for one in matched
    )
    table = ""
    if rows:
        hold = _text(matched[0]["match"]["hold"])
        head = f"<tr><th>contestant</th><th>{hold}</th><th>off</th><th>fitted widths</th></tr>"
        table = f'<div class="wide"><table>{head}{rows}</table></div>'
    overlap = found["data"].get("overlap")
    seen = f"<li>{_text(_overlap(overlap))}</li>" if overlap else ""
    return f"<h2>What is held equal</h2><ul>{notes}{seen}</ul>{table}" if notes or table or seen else ""


def _widths(widths: Mapping[str, float]) -> str:
    return ", ".join(f"{path} {width:g}" for path, width in widths.items()) or "as given"


def _overlap(overlap: Found) -> str:
    seen = overlap.get("seen", overlap)
    listed = ", ".join(f"{why}: {count:,}" for why, count in seen.items() if isinstance(count, int))
    return f"Training examples like one of the validation or test set: {listed or 'none'}."


def _repeat(found: Found) -> str:
    machine = found["machine"]
    graphics = f", {machine['gpu']}" if machine["gpu"] else ""
    about = (
        f"{machine['processor']}, {machine['cores']} cores{graphics}, {machine['memory'] / 2**30:.0f} GiB; "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, Dragoman {machine['dragoman']}."
        + (f" Learning took {found['seconds'] / 60:.1f} minutes in all." if found["seconds"] else "")
    )
    study = {name: value for name, value in found["study"].items() if name not in ("kind", "sizes")}
    return (
        f'<h2>To repeat it</h2><pre class="command">{_text(found["command"])}</pre><p class="note">{_text(about)}</p>'
        f"<details><summary>The study in full</summary><pre>{_text(dump_yaml(study))}</pre></details>"
    )
