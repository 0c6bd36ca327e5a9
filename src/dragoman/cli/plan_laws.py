"""``dragoman plan --laws``: a scaling law fitted to runs, what it predicts, and how a budget is best split."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.cli.plan_numbers import short
from dragoman.errors import DataError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.plan.laws import LawFit, LawRun

CONSTANTS = {"E": "loss that no size takes away", "A": "", "alpha": "by parameters", "B": "", "beta": "by tokens"}
BUDGETS = (1, 10, 100)
"""Budgets that are split, as multiples of the largest run's."""


def print_laws(
    paths: Sequence[Path],
    *,
    predict: tuple[float, float] | None = None,
    flops: float | None = None,
    as_json: bool = False,
    plot: Path | None = None,
) -> None:
    """Fit a law to the runs at ``paths`` and print it.

    The run of the most FLOPs is first predicted from the others, as a trial of the law.

    Args:
        paths: run directories; files and other directories among them, as ``runs/*`` gives, are passed over.
        predict: parameters and tokens of a model whose loss is asked for.
        flops: training FLOPs to split; None for multiples of the largest run's.
        as_json: print one JSON object.
        plot: SVG file to draw the runs and the law in.

    Raises:
        CheckpointError, DataError: no runs, too few, or too much alike.
    """
    from dragoman.checkpoint import CONFIG
    from dragoman.plan.law_runs import read_runs
    from dragoman.plan.laws import fit

    folders = [path for path in paths if path.is_dir() or not path.exists()]
    others = [path for path in folders if path.is_dir() and not (path / CONFIG).exists()]
    if not folders or others == folders:
        raise DataError("--laws: name the directories of runs, such as runs/*: a run has a config.yaml")
    runs, left_out = read_runs([path for path in folders if path not in others])
    left_out = [*(f"{path}: left out: no run, it has no {CONFIG}" for path in others), *left_out]
    fitted, trial = fit(runs), _trial(runs)
    asked = [predict] if predict else []
    budgets = [flops] if flops else [factor * max(run.flops for run in runs) for factor in BUDGETS]
    found = _as_data(fitted, trial, asked, budgets, left_out)
    if as_json:
        print(json_text(found))
    else:
        _print(fitted, found)
    if plot is not None:
        from dragoman.output_file import open_output
        from dragoman.plan.law_plot import draw

        with open_output(plot) as file:
            file.write(draw(fitted).encode())


def _trial(runs: "Sequence[LawRun]") -> "tuple[LawFit, LawRun] | None":
    """Return a fit to all runs but the one of the most FLOPs, and that one; None where they are too few for it."""
    from dragoman.plan.laws import fit

    largest = max(runs, key=lambda run: run.flops)
    try:
        return fit([run for run in runs if run is not largest]), largest
    except DataError:
        return None


def _as_data(
    fitted: "LawFit",
    trial: "tuple[LawFit, LawRun] | None",
    asked: Sequence[tuple[float, float]],
    budgets: Sequence[float],
    left_out: Sequence[str],
) -> dict:
    found: dict = {
        "runs": [asdict(run) for run in fitted.runs],
        "left_out": list(left_out),
        "law": {name: {"value": getattr(fitted.law, name), "interval": fitted.interval(name)} for name in CONSTANTS},
        "error": fitted.error,
        "predictions": [_prediction(fitted, n, d) for n, d in asked],
        "budgets": [],
    }
    if trial is not None:
        without, largest = trial
        found["trial"] = _prediction(without, largest.parameters, largest.tokens) | {
            "run": largest.name,
            "measured": largest.loss,
            "error": without.law.loss(largest.parameters, largest.tokens) / largest.loss - 1,
            "times_larger": largest.parameters / max(run.parameters for run in without.runs),
            "times_flops": largest.flops / max(run.flops for run in without.runs),
        }
    for budget in budgets:
        found["budgets"].append({"flops": budget} | _prediction(fitted, *fitted.law.split(budget)))
    return found


def _prediction(fitted: "LawFit", parameters: float, tokens: float) -> dict:
    loss, low, high = fitted.predicted(parameters, tokens)
    return {
        "parameters": parameters,
        "tokens": tokens,
        "loss": loss,
        "interval": [low, high],
        "unsupported": fitted.unsupported(parameters, tokens),
    }


# ---- the tables -------------------------------------------------------------------------------------


def _print(fitted: "LawFit", found: dict) -> None:
    from dragoman.cli.terminal import console

    screen = console()
    for reason in found["left_out"]:
        screen.print(reason, style="dim", markup=False, soft_wrap=True)
    sizes, tokens = [r.parameters for r in fitted.runs], [r.tokens for r in fitted.runs]
    screen.print(
        f"{len(fitted.runs)} runs: {short(min(sizes))} to {short(max(sizes))} parameters, {short(min(tokens))} to "
        f"{short(max(tokens))} tokens\n\nL(N, D) = E + A / N^alpha + B / D^beta",
        highlight=False,
    )
    _print_constants(found["law"])
    screen.print(f"on its own runs the law is off by {found['error']:.2%} on average\n", highlight=False)
    if trial := found.get("trial"):
        low, high = trial["interval"]
        screen.print(
            f"trial: {trial['run']} was left out ({trial['times_larger']:.1f} times the parameters and "
            f"{trial['times_flops']:.1f} times the FLOPs of any other run). Predicted: {trial['loss']:.3f} "
            f"({low:.3f} to {high:.3f}), measured: {trial['measured']:.3f}, off by {trial['error']:+.1%}\n",
            highlight=False,
            markup=False,
        )
    for one in found["predictions"]:
        low, high = one["interval"]
        screen.print(
            f"{short(one['parameters'])} parameters on {short(one['tokens'])} tokens: loss {one['loss']:.3f} "
            f"({low:.3f} to {high:.3f})",
            highlight=False,
        )
        if one["unsupported"]:
            screen.print(f"not supported: {one['unsupported']}", style="yellow", highlight=False)
    _print_budgets(found["budgets"])


def _print_constants(law: dict) -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "value", "95% interval", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, meaning in CONSTANTS.items():
        low, high = law[name]["interval"]
        table.add_row(name, f"{law[name]['value']:.3g}", f"{low:.3g} to {high:.3g}", meaning)
    console().print(table)


def _print_budgets(budgets: Sequence[dict]) -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("training FLOPs", "parameters", "tokens", "tokens a parameter", "loss", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for one in budgets:
        parameters, tokens = one["parameters"], one["tokens"]
        table.add_row(
            f"{one['flops']:.3g}",
            short(parameters),
            short(tokens),
            f"{tokens / parameters:.3g}",
            f"{one['loss']:.3f}",
            "[yellow]not supported[/yellow]" if one["unsupported"] else "",
        )
    console().print("best split of a budget of 6 N D:", highlight=False)
    console().print(table)
    for reason in dict.fromkeys(one["unsupported"] for one in budgets if one["unsupported"]):
        console().print(f"not supported: {reason}", style="dim", markup=False, highlight=False, soft_wrap=True)
