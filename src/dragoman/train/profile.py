"""Profile of a run: torch's profiler over a few steps, as figures and as a trace."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dragoman import durable
from dragoman.train.events import Notice

TRACE = "profile.json"


class NoProfile:
    """Profile nothing. A run calls ``after_step`` after each step and ``end`` once."""

    def after_step(self) -> Iterator[Notice]:
        return iter(())

    def end(self) -> Iterator[Notice]:
        return iter(())


class Profile(NoProfile):
    """Profile the steps after the first ``skip`` ones, which are slower than the rest: memory is allocated and kernels
    are chosen. The trace is written into ``folder``."""

    def __init__(self, folder: Path, *, skip: int = 10, steps: int = 5):
        self.folder, self.skip, self.steps = folder, skip, steps
        self.seen, self.done = 0, False
        self.gpu = torch.cuda.is_available()
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its own log lines would mix with ours
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.gpu else [])]
        self.profiler = profile(activities=activities, acc_events=True)  # one cycle; torch 2.11 warns of losing others

    def after_step(self) -> Iterator[Notice]:
        self.seen += 1
        if self.seen == self.skip:
            self.profiler.start()
        elif self.seen == self.skip + self.steps:
            self.profiler.stop()
            self.done = True
            yield from self.found()

    def found(self) -> Iterator[Notice]:
        entries = sorted(self.profiler.key_averages(), key=self.seconds, reverse=True)
        total = sum(map(self.seconds, entries))
        yield Notice(f"profile of {self.steps} steps, {total / self.steps:.3g} s of operators a step; most of it:")
        for entry in entries[:5]:
            share = self.seconds(entry) / total if total else 0.0
            yield Notice(f"  {share:6.1%}  {entry.key}, {entry.count / self.steps:,.0f} times a step")
        durable.replace_with(self.folder / TRACE, lambda path: self.profiler.export_chrome_trace(str(path)))
        yield Notice(f"the trace, for ui.perfetto.dev or chrome://tracing: {self.folder / TRACE}")

    def seconds(self, entry: Any) -> float:
        """Return the time spent in this operator itself, without those it calls."""
        return (entry.self_device_time_total if self.gpu else entry.self_cpu_time_total) / 1e6

    def end(self) -> Iterator[Notice]:
        if not self.done:
            if self.seen >= self.skip:
                self.profiler.stop()
            yield Notice(f"no profile: it takes {self.skip + self.steps} steps, and the run made {self.seen}")
