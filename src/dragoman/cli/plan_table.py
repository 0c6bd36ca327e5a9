"""Tables of ``dragoman plan``, for people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dragoman.cli.plan_counted import TrainingPlan, budget_of
from dragoman.cli.plan_numbers import amount, bar, flops, size, time
from dragoman.cli.terminal import console

if TYPE_CHECKING:
    from dragoman.cli.plan_served import ServingPlan
    from dragoman.cli.plan_text import PlannedText

NAMES = {
    "embedding": "embedding",
    "attention": "attention and other mixers",
    "feed_forward": "feed-forward",
    "output": "output and loss",
    "other": "norms and the rest",
}
MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "averages": "moving average",
    "activations": "activations",
    "logits": "logits and loss",
    "workspace": "workspace",
    "allowance": "lost by the allocator",
}
FORMULAS = {"6ND": "6 N D", "8ND": "8 N D, recomputed", "counted": "counted"}


def print_text(text: "PlannedText") -> None:
    """Print the size of the training text."""
    _heading(text.summary)


def print_training(plan: TrainingPlan) -> None:
    """Print what training takes."""
    parameters, found = plan.parameters, plan.count.counted
    active = "" if parameters.active == parameters.total else f", {amount(parameters.active)} active for each token"
    _heading(f"{plan.subject.name}: {amount(parameters.total)} parameters{active}")
    _shares([(NAMES[part], number, amount(number)) for part, number in parameters.by_part.items()])
    forward, backward = found.flops(backward=False) / plan.tokens, found.flops(backward=True) / plan.tokens
    _heading(
        f"work for a token: {flops(forward + backward)}, forward {flops(forward)}, backward {flops(backward)}"
        f" (6 N: {flops(6 * parameters.active)})"
    )
    if found.recomputed:
        _line(f"of which activation checkpointing computes {flops(found.recomputed / plan.tokens)} again")
    _shares([(NAMES[part], number, flops(number / plan.tokens)) for part, number in found.by_part().items()])
    _print_memory(plan)
    if plan.seconds is not None:
        rate = plan.tokens / plan.seconds
        _heading(f"time of a step: {time(plan.seconds)}, {rate:,.0f} tokens/s on one {plan.cluster.device.title}")
    _print_budget(plan)


def _print_memory(plan: TrainingPlan) -> None:
    memory, optimizer = plan.memory, type(plan.subject.cfg.train.optimizer).__name__
    each = f", on each of {plan.cluster.count:,}" if plan.cluster and plan.cluster.count > 1 else ""
    _heading(
        f"memory of training{each}: {size(memory.total)} ({plan.rows:,} x {plan.length:,} tokens, {plan.precision}, "
        f"{optimizer}{', activation checkpointing' if plan.subject.cfg.train.recompute else ''})"
    )
    _shares([(name, getattr(memory, part), size(getattr(memory, part))) for part, name in MEMORY.items()])
    if plan.cluster and memory.total > plan.cluster.device.memory:
        _print_too_large(plan)


def _print_too_large(plan: TrainingPlan) -> None:
    """Say that a device has less memory; and what each would hold if they shared the model."""
    from dragoman.plan.training_memory import training_memory

    device, averaged = plan.cluster.device, plan.subject.cfg.train.average is not None
    shared = training_memory(plan.count, averaged=averaged, devices=plan.cluster.count, sharded=True).total
    hint = ""
    if plan.cluster.count > 1 and shared < plan.memory.total:
        fits = ", which fits" if shared <= device.memory else ""
        hint = f"; train.parallel=sharded: {size(shared)} each{fits}"
    _line(f"[bold]does not fit[/bold] into the {size(device.memory)} of one {device.title}{hint}")


def _print_budget(plan: TrainingPlan) -> None:
    budget = budget_of(plan)
    if budget is None:
        return
    if plan.cluster is None:
        _heading(f"{amount(budget['tokens'])} tokens")
        _rows([(FORMULAS[name], flops(work)) for name, work in budget["flops"].items()])
        _line("name --hardware for days, energy and cost")
        return
    _heading(f"{amount(budget['tokens'])} tokens on {plan.cluster.count:,} x {plan.cluster.device.title}{_share(plan)}")
    rows = [("", "FLOP", "time", "device hours", "energy", "cost")]
    for name, work in budget["flops"].items():
        kwh, dollars = budget["kwh"][name], budget["dollars"][name]
        energy = "" if kwh is None else f"{kwh / 1000:,.3g} MWh" if kwh >= 1000 else f"{kwh:,.3g} kWh"
        cost = "" if dollars is None else f"${dollars:,.{0 if dollars >= 100 else 2}f}"
        hours = budget["device_hours"][name]
        hours = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
        rows.append((FORMULAS[name], f"{work:.3g}", time(budget["seconds"][name]), hours, energy, cost))
    _rows(rows)


def _share(plan: TrainingPlan) -> str:
    """Return the share of the peak that a budget is computed at, and where it is from."""
    if plan.question.mfu:
        return f" at {plan.mfu:.0%} of their peak"
    if plan.mfu == plan.reached:
        return ", each step as above; --mfu sets another share of their peak"
    return f" at {plan.mfu:.0%} of their peak, assumed; --mfu sets it"


def print_serving(plan: "ServingPlan") -> None:
    """Print what serving takes."""
    found = plan.count
    rows = f"{plan.users:,} users" + (f" with {plan.beams} beams each" if plan.beams > 1 else "")
    _heading(f"{plan.subject.name}: {amount(plan.parameters.total)} parameters; {rows}, {plan.context:,} tokens each")
    _heading(f"memory of serving: {size(found.total)} (weights in {plan.precision}, cache {plan.cache})")
    _shares(
        [
            ("weights", found.weights, size(found.weights)),
            ("cache", found.cache, f"{size(found.cache)}, {size(found.cache / max(1, found.rows))} a row"),
            ("workspace", found.workspace, size(found.workspace)),
        ]
    )
    if plan.cluster and found.total > plan.cluster.count * plan.cluster.device.memory:
        _line(f"[bold]does not fit[/bold] into {size(plan.cluster.count * plan.cluster.device.memory)}")
    step, prompt = found.step.flops(), found.prompt.flops()
    _heading(f"work: {flops(prompt)} for the prompts, {flops(step)} for one token of every row")
    if plan.seconds is not None:
        _line(
            f"{found.rows / plan.seconds:,.0f} tokens/s together, {1 / plan.seconds:,.1f} for each row, on one "
            f"{plan.cluster.device.title}"
        )
        _line(f"first token after {time(plan.prompt_seconds or 0)}")
    elif plan.cluster and plan.cluster.count > 1:
        _line(f"no speed: one {plan.cluster.device.title} does not hold it, and several together are not predicted")


# ---- lines --------------------------------------------------------------------------------------------


def _heading(text: str) -> None:
    console().print()
    console().print(text, style="bold", highlight=False, markup=False)


def _line(text: str) -> None:
    console().print(f"  {text}", highlight=False)


def _shares(rows: Iterable[tuple[str, float, str]]) -> None:
    """Print a line for each row (name, number, its text) that is not 0, with its share as a bar."""
    from rich.table import Table

    rows = [row for row in rows if row[1]]
    total = sum(number for _, number, _ in rows) or 1
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for name, number, text in rows:
        table.add_row(f"  {name}", text, f"{number / total:.1%}", bar(number / total))
    console().print(table)


def _rows(rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for i in range(len(rows[0])):
        table.add_column(justify="right" if i else "left", no_wrap=True)
    for name, *cells in rows:
        table.add_row(f"  {name}", *cells)
    console().print(table)
