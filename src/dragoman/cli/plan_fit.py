"""dragoman plan --fit: batch, accumulation, checkpointing and precision that fit into memory."""

import dataclasses
from typing import TYPE_CHECKING, Any

from dragoman.errors import ConfigError
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.cli.plan_subject import PlanSubject
    from dragoman.plan.fit import Fit, FitSetting

LOWER = {"float32": ("bfloat16",)}
"""Precisions that need less memory, and that the command may propose."""


def run(subject: "PlanSubject", given: dict[str, Any]) -> int:
    """Print the settings that fit; return the exit code.

    Raises:
        ConfigError: nothing fits: the message has the least that was found.
    """
    found, parts = find_fit(subject, given)
    largest = max(parts, key=parts.__getitem__)
    if found.nearest is None:
        raise ConfigError(
            f"{subject.name}: nothing fits into {_size(found.available)}: the least found needs "
            f"{_size(found.memory)}; {largest} take {_size(parts[largest])} of what is asked for: take a smaller "
            "model, more memory, or several devices with train.parallel=sharded"
        )
    if given["json"]:
        print(json_text(dataclasses.asdict(found) | {"limited_by": largest}))
    else:
        _print(subject, found, parts, largest)
    return 0


def find_fit(subject: "PlanSubject", given: dict[str, Any]) -> "tuple[Fit, dict[str, int]]":
    """Return the settings that fit into the memory of a device, and the memory of the wanted ones by part."""
    from dragoman.cli.plan_counted import USUAL_MFU, PlanOptions, cluster_of, plan_training
    from dragoman.plan.fit import FitSetting, fit, linear_memory

    question = PlanOptions(**{name: given[name] for name in PlanOptions.__dataclass_fields__})
    question = dataclasses.replace(question, hardware=given["hardware"] or "here", mfu=USUAL_MFU)  # times nothing
    cluster, train = cluster_of(question.hardware), subject.cfg.train
    first = plan_training(subject, question)
    length = first.length
    wanted = FitSetting(
        max(length, question.batch_tokens or train.batch_tokens), train.accumulate, train.recompute, first.precision
    )

    def memory(setting: FitSetting) -> int:
        changed = dataclasses.replace(
            train,
            batch_tokens=setting.batch_tokens,
            accumulate=setting.accumulate,
            recompute=setting.recompute,
            precision=setting.precision,
        )
        subject_then = dataclasses.replace(subject, cfg=dataclasses.replace(subject.cfg, train=changed))
        return plan_training(subject_then, question, rows=max(1, setting.batch_tokens // length)).memory.total

    grows = linear_memory(memory, length, 4 * length)
    found = fit(
        lambda setting: grows(setting), wanted, cluster.device.memory, precisions=LOWER.get(first.precision, ())
    )
    return found, dataclasses.asdict(first.memory)


def _print(subject: "PlanSubject", found: "Fit", parts: dict[str, int], largest: str) -> None:
    from dragoman.cli.terminal import console

    say = console().print
    share = 100 * parts[largest] / max(1, sum(parts.values()))
    verb = "fits" if found.fits else "does not fit"
    say(f"{subject.name}: {_named(found.wanted)}", soft_wrap=True, markup=False)
    say(f"needs {_size(found.needed)} of {_size(found.available)}: it {verb}", soft_wrap=True)
    say(f"limited by {largest}: {share:.0f}% of it", soft_wrap=True)
    assert found.nearest is not None
    if not found.fits:
        say(f"fits in {_size(found.memory)}: [bold]{found.nearest.settings(found.wanted)}[/bold]", soft_wrap=True)
    elif found.largest and found.largest != found.wanted:
        say(f"largest batch that fits: [bold]{found.largest.settings(found.wanted)}[/bold]", soft_wrap=True)


def _named(setting: "FitSetting") -> str:
    times = f", {setting.accumulate} of them a step" if setting.accumulate > 1 else ""
    checkpointing = ", activation checkpointing" if setting.recompute else ""
    return f"batches of {setting.batch_tokens:,} tokens{times}, {setting.precision}{checkpointing}"


def _size(number: float) -> str:
    from dragoman.plan.measured import size

    return size(number)
