"""What happens in a run: prepare, learn, validate, save, stop.

What is due at a step (a report, a validation, a checkpoint, the end) is decided from ``Progress`` alone, which every
checkpoint holds: a resumed run therefore does what the uninterrupted one would have done, on a CPU to the bit (with as
many threads as before: their number decides in which order sums are made).
"""

import json
import math
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.config import from_dict, to_dict
from dragoman.errors import UserError
from dragoman.migrations import Content
from dragoman.train import loop, utilisation
from dragoman.train.changes import Change
from dragoman.train.distributed.micro_batch import MicroBatch, pinned, shared_out
from dragoman.train.distributed.processes import SINGLE_PROCESS, SingleProcess
from dragoman.train.events import Event, Finished, Notice, Saved, Started, StepsReported, Validated, Validating
from dragoman.train.failure import TrainingFailure, failure, fitting, resume_command
from dragoman.train.forecast import Forecast
from dragoman.train.interrupt import Interrupts, as_ctrl_c
from dragoman.train.prefetch import Prefetcher
from dragoman.train.profile import NoProfile
from dragoman.train.progress import MetricsWindow, RunProgress
from dragoman.train.recipe import RunConfig
from dragoman.train.run_logger import NullLogger, RunLogger
from dragoman.train.stopwatch import Stopwatch
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import FOLDER, TaskData
from dragoman.train.train_state import TrainState
from dragoman.train.validate import validate

EXAMPLES = 8
"""Steps whose batches a program is compiled by."""
PREPARED, FILLED = "prepared", "filled"
"""What the first process tells the others: that the data is there, and the whole configuration."""


class Trainer:
    """A run that is about to begin or to go on. ``events`` makes it happen.

    All processes of ``group`` do the same; the first one's ``record`` alone is written.
    """

    def __init__(
        self,
        cfg: RunConfig,
        directory: RunDirectory,
        *,
        content: Content | None = None,
        changes: Sequence[Change] = (),
        group: SingleProcess = SINGLE_PROCESS,
    ):
        self.cfg, self.directory, self.content, self.changes, self.group = cfg, directory, content, changes, group
        self.progress = RunProgress.from_dict(content.progress) if content else RunProgress()
        self.saved = (self.progress.step, self.progress.validated)
        self.logger = RunLogger(directory) if group.first else NullLogger(directory)
        self.profile, self.stopwatch = NoProfile(), Stopwatch()

    def events(self) -> Iterator[Event]:
        """Everything that happens from here to the end of the run.

        Raises:
            DataError, ConfigError: while preparing.
            Diverged, OutOfMemory: see ``loop.train_step``.
            ProcessLost: another process is gone.
            CheckpointError: the disk is full; what was saved before is as it was.
        """
        try:
            failure = yield from self.go()
            if failure is not None:
                if failure.sound:
                    self.rescue()
                raise failure.told(self.directory, self.group)
        finally:
            self.directory.close()

    def go(self) -> Generator[Event, None, TrainingFailure | None]:
        """Set up and learn; what ended it too early."""
        try:
            if not (yield from self.begin()):
                return None
            for change in self.changes:
                self.logger.change(self.progress.step, change)
                yield Notice("changed: {} from {!r} to {!r}".format(*change))
            with Interrupts() as interrupts, self.stopwatch:
                yield from self.learn(interrupts)
        except Exception as error:
            found = failure(error, self.progress.step, self.cfg.train, self.directory, self.group)
            if found is None:
                raise
            return found  # and leave the error, which holds on to memory

    def rescue(self) -> None:
        """Save the last step that was finished, if that can be done without the other processes."""
        if self.saved[0] < self.progress.step and self.learner.exchange.complete:
            with suppress(UserError, MemoryError, RuntimeError):  # the checkpoint before is as good as it was
                self.save(best=False)

    # ---- setting up -------------------------------------------------------------------------------

    def begin(self) -> Generator[Event, None, bool]:
        """Everything before the first step; False if a signal came meanwhile."""
        try:
            with as_ctrl_c():
                yield from self.prepare()
                started = self.set_up(task_data_for(self.cfg).open(self.cfg, self.directory))
                yield from self.compile()
                yield started
            return True
        except KeyboardInterrupt:
            there = (self.directory.path / CONFIG).exists()
            reason = "stopped before the first step" + ("" if there else "; nothing is left of it")
            yield Finished(self.progress.step, reason, False, self.resume_command() if there else "")
            return False

    def prepare(self) -> Iterator[Event]:
        """Make the token stores, if they are not there. A new run that fails at this leaves nothing behind."""
        if not self.group.first:
            self.group.wait_for(PREPARED)
            return
        new = not self.directory.checkpoints() and not (self.directory.path / FOLDER).exists()
        try:
            yield from task_data_for(self.cfg).prepare(self.cfg, self.directory)
        except BaseException:
            if new:
                self.directory.discard()
            raise
        self.group.publish(PREPARED)

    def set_up(self, task_data: TaskData) -> Started:
        self.cfg = self.filled(task_data)
        self.logger.config(self.cfg)
        self.plain_config, train = to_dict(self.cfg), self.cfg.train
        self.learner = TrainState(self.cfg, self.directory, self.content, self.group)
        self.content = None  # as large as model and optimizer together
        self.task_data, self.plan = task_data, task_data.plan(self.cfg)
        self.loss = train.compile.build(self.cfg.task.loss, self.learner.device)
        self.prepared = Prefetcher(self.parts) if self.learner.device.type == "cuda" else self.parts
        self.utilisation = utilisation.measure(self.cfg, task_data, self.plan, self.learner.device)
        self.validator = task_data.validator(self.cfg, self.learner.device)
        if self.progress.total is None:
            self.progress.total, self.progress.forecast = train.budget.total(self.plan.steps_per_epoch), None
        self.logger.rewind(self.progress, train.budget.seconds)
        if self.progress.total is None and self.progress.step:
            self.look_ahead()  # a budget that has changed
        return Started(
            summary=task_data.summary,
            parameters=sum(p.numel() for p in self.learner.model.parameters()),
            learning=sum(p.numel() for p in self.learner.model.parameters() if p.requires_grad),
            steps_per_epoch=self.plan.steps_per_epoch,
            padding_share=self.plan.padding_share,
            device=str(self.learner.device),
            precision=train.precision,
            step=self.progress.step,
            total=self.progress.total,
            processes=self.group.count,
        )

    def filled(self, task_data: TaskData) -> RunConfig:
        """With all that was left open, as the first process finds it: some of that is measured."""
        if not self.group.first:
            return from_dict(RunConfig, json.loads(self.group.wait_for(FILLED)))
        cfg = task_data.fill(self.cfg)
        self.group.publish(FILLED, json.dumps(to_dict(cfg)))
        return cfg

    def compile(self) -> Iterator[Event]:
        """With the batches of the next few steps for examples."""
        steps = range(self.progress.step, self.progress.step + EXAMPLES)
        batches = (part.batch.to(self.learner.device) for step in steps for part in self.parts(step)[0])
        yield from self.loss.prepare(self.learner.model, batches, self.learner.rules.precision)

    # ---- learning ---------------------------------------------------------------------------------

    def learn(self, interrupts: Interrupts) -> Iterator[Event]:
        steps = loop.train(
            self.learner.model,
            self.loss,
            self.upload,
            self.learner.optimizer,
            self.progress,
            lr=lambda step: self.cfg.train.schedule.rate(step, self.progress.horizon(step)),
            rules=self.learner.rules,
        )
        while True:
            improved = False
            if self.validation_due():
                yield Validating(self.progress.step)
                if seen := self.validate(interrupts):
                    improved = seen.best
                    yield seen
            end = self.end(interrupts)
            new = self.saved != (step := self.progress.step, self.progress.validated)
            if improved or (new and (end or step % self.cfg.train.save_every == 0)):
                yield self.save(best=improved)
            if end:
                yield from self.profile.end()
                yield self.logger.close(end, self.cfg.train.keep)
                return
            yield from self.step(steps)
            yield from self.profile.after_step()

    def parts(self, step: int) -> tuple[list[MicroBatch], Sequence[Any]]:
        """What this process learns from in a step, and the rows that all of them do."""
        micro_batches = self.plan.at(step)
        mine = shared_out(micro_batches, self.group.count)[self.group.rank]
        parts = [part._replace(batch=self.task_data.batch(part.batch)) for part in mine]
        return [pinned(part) for part in parts] if self.learner.device.type == "cuda" else parts, micro_batches

    def upload(self, step: int) -> list[MicroBatch]:
        parts, self.rows = self.prepared(step)
        return [part._replace(batch=part.batch.to(self.learner.device)) for part in parts]

    def step(self, steps: Iterator[loop.StepReport]) -> Iterator[Event]:
        progress, window, missed = self.progress, self.progress.window, self.loss.missed
        self.stopwatch.start()
        done = next(steps)
        if self.learner.average and not done.skipped:
            self.learner.average.update(done.step)
        for rows in self.rows:
            real, cells = self.task_data.size(rows)
            window.real, window.cells = window.real + real, window.cells + cells
            progress.count(self.task_data.origins(rows))
        progress.spend(self.stopwatch.lap(progress.seconds / (done.step - 1) if done.step > 1 else 0.0))
        if done.skipped:
            yield Notice.skipped_step(done, progress.scale)
        else:
            window.add(done)
        if done.retries:
            yield Notice.split_step(done, fitting(self.cfg.train))
        if self.loss.missed > missed and self.loss.missed.bit_count() == 1:  # once, twice, four times, ...
            yield Notice.uncompiled_step(done, self.loss.missed)
        self.look_ahead()
        if done.step % self.cfg.train.report_every == 0 or done.step == progress.total:
            yield self.report(done.lr)

    def look_ahead(self) -> None:
        """Forecast the steps in a budget of minutes, where that is due, by the first process's clock."""
        progress, budget = self.progress, self.cfg.train.budget.seconds
        if budget is None or (progress.total is not None and progress.forecast is None):
            return  # a run of earlier versions fixed its steps
        made = self.logger.forecast(progress, budget)
        if total := int(self.group.of_first(made.total if made else 0)):
            progress.seconds = self.group.of_first(made.seconds if made else 0.0)
            progress.total = total
            progress.forecast = Forecast(progress.step, progress.seconds, total, budget)

    def report(self, lr: float) -> StepsReported:
        progress, window = self.progress, self.progress.window
        learned = StepsReported(
            step=progress.step,
            total=progress.total,
            loss=window.mean_loss,
            lr=lr,
            grad_norm=window.mean_grad_norm,
            tokens=progress.tokens,
            padding=1 - window.real / window.cells,
            skipped=progress.skipped,
            sources=dict(progress.sources),
            seconds=progress.seconds,
            seconds_left=progress.seconds_left,
            cpu_seconds=progress.cpu_seconds,
            tokens_per_second=window.real / window.seconds,
            utilisation=self.utilisation and self.utilisation.share(window.real, window.seconds * self.group.count),
        )
        progress.window = MetricsWindow()
        self.logger.learned(learned)
        return learned

    # ---- validating -------------------------------------------------------------------------------

    def validation_due(self) -> bool:
        step = self.progress.step
        now = step % self.cfg.train.validate_every == 0 or step == self.progress.total
        new = self.progress.validated < step or (self.cfg.start_from is not None and self.progress.best_step is None)
        return now and new and self.validator.questions > 0

    def validate(self, interrupts: Interrupts) -> Validated | None:
        """None if a signal came meanwhile: then nothing is counted, and the resumed run validates here first."""
        progress = self.progress
        learner, stop = self.learner, lambda: interrupts.asked is not None
        with learner.examined():
            seen = validate(learner.model, self.validator, learner.rules.precision, stop)
        if self.group.largest(int(seen is None)) or seen is None:
            return None
        cost = self.group.of_first(seen.by(self.cfg.train.best_by))
        best = progress.best_loss is None or cost < progress.best_loss
        progress.validated, progress.stale = progress.step, 0 if best else progress.stale + 1
        if best:
            progress.best_loss, progress.best_step = cost, progress.step
        perplexity = math.exp(min(seen.loss, 700))
        validated = Validated(progress.step, seen.loss, perplexity, best, seen.scores, seen.samples, cost)
        self.logger.validated(validated)
        return validated

    # ---- saving and stopping ----------------------------------------------------------------------

    def save(self, *, best: bool) -> Saved:
        tensors = self.learner.tensors()
        saved = self.logger.save(self.progress, tensors, self.plain_config, self.cfg.train.keep, best=best)
        self.saved = (self.progress.step, self.progress.validated)
        return saved

    def end(self, interrupts: Interrupts) -> Finished | None:
        progress, train = self.progress, self.cfg.train
        if progress.total is not None and progress.step >= progress.total:
            return Finished.budget_spent(progress, train.budget, self.resume_command())
        if train.patience and progress.stale >= train.patience:
            return Finished.patience_spent(progress, train.patience, self.resume_command())
        if asked := self.group.largest(signal.Signals[interrupts.asked] if interrupts.asked else 0):
            by = signal.Signals(asked).name
            return Finished(progress.step, f"stopped by {by}, all is saved", False, self.resume_command())
        return None

    def resume_command(self) -> str:
        return resume_command(self.directory.path, self.group.option)
