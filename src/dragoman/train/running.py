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
from dragoman.train.ahead import Ahead
from dragoman.train.changes import Change
from dragoman.train.events import Event, Finished, Learned, Notice, Saved, Started, Validated, Validating
from dragoman.train.failure import Failure, failure, fitting, resume_command
from dragoman.train.forecast import Forecast
from dragoman.train.interrupt import Interrupts, as_ctrl_c
from dragoman.train.learner import Learner
from dragoman.train.lessons import lesson_for
from dragoman.train.lessons.lesson import FOLDER, Lesson
from dragoman.train.profile import NoProfile
from dragoman.train.progress import Progress, Window
from dragoman.train.recipe import RunConfig
from dragoman.train.record import Record, Unrecorded
from dragoman.train.stopwatch import Stopwatch
from dragoman.train.together.part import Part, pinned, shared_out
from dragoman.train.together.processes import ALONE, Alone
from dragoman.train.validate import look

EXAMPLES = 8
"""Steps whose batches a program is compiled by."""
PREPARED, FILLED = "prepared", "filled"
"""What the first process tells the others: that the data is there, and the whole configuration."""


class Run:
    """A run that is about to begin or to go on. ``events`` makes it happen.

    All processes of ``team`` do the same; the first one's ``record`` alone is written.
    """

    def __init__(
        self,
        cfg: RunConfig,
        directory: RunDirectory,
        *,
        content: Content | None = None,
        changes: Sequence[Change] = (),
        team: Alone = ALONE,
    ):
        self.cfg, self.directory, self.content, self.changes, self.team = cfg, directory, content, changes, team
        self.progress = Progress.from_dict(content.progress) if content else Progress()
        self.saved = (self.progress.step, self.progress.validated)
        self.record = Record(directory) if team.first else Unrecorded(directory)
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
                raise failure.told(self.directory, self.team)
        finally:
            self.directory.close()

    def go(self) -> Generator[Event, None, Failure | None]:
        """Set up and learn; what ended it too early."""
        try:
            if not (yield from self.begin()):
                return None
            for change in self.changes:
                self.record.change(self.progress.step, change)
                yield Notice("changed: {} from {!r} to {!r}".format(*change))
            with Interrupts() as interrupts, self.stopwatch:
                yield from self.learn(interrupts)
        except Exception as error:
            found = failure(error, self.progress.step, self.cfg.train, self.directory, self.team)
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
                started = self.set_up(lesson_for(self.cfg).open(self.cfg, self.directory))
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
        if not self.team.first:
            self.team.hear(PREPARED)
            return
        new = not self.directory.checkpoints() and not (self.directory.path / FOLDER).exists()
        try:
            yield from lesson_for(self.cfg).prepare(self.cfg, self.directory)
        except BaseException:
            if new:
                self.directory.discard()
            raise
        self.team.tell(PREPARED)

    def set_up(self, lesson: Lesson) -> Started:
        self.cfg = self.filled(lesson)
        self.record.config(self.cfg)
        self.plain_config, train = to_dict(self.cfg), self.cfg.train
        self.learner = Learner(self.cfg, self.directory, self.content, self.team)
        self.content = None  # as large as model and optimizer together
        self.lesson, self.plan = lesson, lesson.plan(self.cfg)
        self.loss = train.compile.build(self.cfg.task.loss, self.learner.device)
        self.prepared = Ahead(self.parts) if self.learner.device.type == "cuda" else self.parts
        self.utilisation = utilisation.measure(self.cfg, lesson, self.plan, self.learner.device)
        self.examination = lesson.examination(self.cfg, self.learner.device)
        if self.progress.total is None:
            self.progress.total, self.progress.forecast = train.budget.total(self.plan.steps_per_epoch), None
        self.record.rewind(self.progress, train.budget.seconds)
        if self.progress.total is None and self.progress.step:
            self.look_ahead()  # a budget that has changed
        return Started(
            summary=lesson.summary,
            parameters=sum(p.numel() for p in self.learner.model.parameters()),
            learning=sum(p.numel() for p in self.learner.model.parameters() if p.requires_grad),
            steps_per_epoch=self.plan.steps_per_epoch,
            padding_share=self.plan.padding_share,
            device=str(self.learner.device),
            precision=train.precision,
            step=self.progress.step,
            total=self.progress.total,
            processes=self.team.count,
        )

    def filled(self, lesson: Lesson) -> RunConfig:
        """With all that was left open, as the first process finds it: some of that is measured."""
        if not self.team.first:
            return from_dict(RunConfig, json.loads(self.team.hear(FILLED)))
        cfg = lesson.fill(self.cfg)
        self.team.tell(FILLED, json.dumps(to_dict(cfg)))
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
                yield self.record.close(end, self.cfg.train.keep)
                return
            yield from self.step(steps)
            yield from self.profile.after_step()

    def parts(self, step: int) -> tuple[list[Part], Sequence[Any]]:
        """What this process learns from in a step, and the rows that all of them do."""
        micro_batches = self.plan.at(step)
        mine = shared_out(micro_batches, self.team.count)[self.team.rank]
        parts = [part._replace(batch=self.lesson.batch(part.batch)) for part in mine]
        return [pinned(part) for part in parts] if self.learner.device.type == "cuda" else parts, micro_batches

    def upload(self, step: int) -> list[Part]:
        parts, self.rows = self.prepared(step)
        return [part._replace(batch=part.batch.to(self.learner.device)) for part in parts]

    def step(self, steps: Iterator[loop.StepReport]) -> Iterator[Event]:
        progress, window, missed = self.progress, self.progress.window, self.loss.missed
        self.stopwatch.start()
        done = next(steps)
        if self.learner.average and not done.skipped:
            self.learner.average.update(done.step)
        for rows in self.rows:
            real, cells = self.lesson.size(rows)
            window.real, window.cells = window.real + real, window.cells + cells
            progress.count(self.lesson.origins(rows))
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
        made = self.record.forecast(progress, budget)
        if total := int(self.team.of_first(made.total if made else 0)):
            progress.seconds = self.team.of_first(made.seconds if made else 0.0)
            progress.total = total
            progress.forecast = Forecast(progress.step, progress.seconds, total, budget)

    def report(self, lr: float) -> Learned:
        progress, window = self.progress, self.progress.window
        learned = Learned(
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
            utilisation=self.utilisation and self.utilisation.share(window.real, window.seconds * self.team.count),
        )
        progress.window = Window()
        self.record.learned(learned)
        return learned

    # ---- validating -------------------------------------------------------------------------------

    def validation_due(self) -> bool:
        step = self.progress.step
        now = step % self.cfg.train.validate_every == 0 or step == self.progress.total
        new = self.progress.validated < step or (self.cfg.init is not None and self.progress.best_step is None)
        return now and new and self.examination.questions > 0

    def validate(self, interrupts: Interrupts) -> Validated | None:
        """None if a signal came meanwhile: then nothing is counted, and the resumed run validates here first."""
        progress = self.progress
        learner, stop = self.learner, lambda: interrupts.asked is not None
        with learner.examined():
            seen = look(learner.model, self.examination, learner.rules.precision, stop)
        if self.team.largest(int(seen is None)) or seen is None:
            return None
        cost = self.team.of_first(seen.by(self.cfg.train.best_by))
        best = progress.best_loss is None or cost < progress.best_loss
        progress.validated, progress.stale = progress.step, 0 if best else progress.stale + 1
        if best:
            progress.best_loss, progress.best_step = cost, progress.step
        perplexity = math.exp(min(seen.loss, 700))
        validated = Validated(progress.step, seen.loss, perplexity, best, seen.scores, seen.samples, cost)
        self.record.validated(validated)
        return validated

    # ---- saving and stopping ----------------------------------------------------------------------

    def save(self, *, best: bool) -> Saved:
        tensors = self.learner.tensors()
        saved = self.record.save(self.progress, tensors, self.plain_config, self.cfg.train.keep, best=best)
        self.saved = (self.progress.step, self.progress.validated)
        return saved

    def end(self, interrupts: Interrupts) -> Finished | None:
        progress, train = self.progress, self.cfg.train
        if progress.total is not None and progress.step >= progress.total:
            return Finished.budget_spent(progress, train.budget, self.resume_command())
        if train.patience and progress.stale >= train.patience:
            return Finished.patience_spent(progress, train.patience, self.resume_command())
        if asked := self.team.largest(signal.Signals[interrupts.asked] if interrupts.asked else 0):
            by = signal.Signals(asked).name
            return Finished(progress.step, f"stopped by {by}, all is saved", False, self.resume_command())
        return None

    def resume_command(self) -> str:
        return resume_command(self.directory.path, self.team.option)
