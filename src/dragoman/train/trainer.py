"""Trainer: what happens in a run. Prepare, learn, validate, save, stop.

``due.py`` decides from ``RunProgress`` alone what is due at a step (a report, a validation, a checkpoint, the end), and
every checkpoint holds the progress. A resumed run therefore does what the uninterrupted one would have done, on a CPU
to the bit (with the same number of threads: it determines the order in which sums are made).
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress

from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.config import to_dict
from dragoman.errors import UserError
from dragoman.migrations import Content
from dragoman.plan.measured import MemoryMeter
from dragoman.train import due, loop, utilisation
from dragoman.train.changes import Change
from dragoman.train.distributed.processes import SINGLE_PROCESS, SingleProcess
from dragoman.train.events import Event, Finished, Notice, Saved, Started, StepsReported, Validated, Validating
from dragoman.train.failure import TrainingFailure, failure, resume_command, smaller_batches
from dragoman.train.forecast import Forecast
from dragoman.train.interrupt import Interrupts, as_ctrl_c, who_asked
from dragoman.train.planner import NoPlanner
from dragoman.train.preparation import complete_config, nothing_left_behind, prepare_data
from dragoman.train.profile import NoProfile
from dragoman.train.progress import MetricsWindow, RunProgress
from dragoman.train.recipe import RunConfig
from dragoman.train.run_logger import NullLogger, RunLogger
from dragoman.train.step_batches import StepBatches
from dragoman.train.stopwatch import Stopwatch
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.task_data import TaskData, check_unvalidated
from dragoman.train.train_state import TrainState
from dragoman.train.validate import record, validate

EXAMPLES = 8
"""Steps whose batches a program is compiled with."""


class Trainer:
    """A run that starts or resumes; ``events`` runs it.

    All processes of ``group`` do the same steps; only the first one's ``logger`` writes.
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
        self.profile, self.stopwatch, self.planner = NoProfile(), Stopwatch(), NoPlanner()
        self.meter: MemoryMeter | None = None
        self.held: int | None = None
        """Most memory of learning, measured until the first validation."""
        self.has_validated = False
        self.stop_wanted: Callable[[], bool] = lambda: False
        """Asked after each step; True stops the run as Ctrl-C does, so that it may be resumed."""

    def events(self) -> Iterator[Event]:
        """Yield everything that happens from here to the end of the run.

        Raises:
            DataError, ConfigError: while preparing.
            Diverged, OutOfMemory: see ``loop.train_step``.
            ProcessLost: another process is gone.
            CheckpointError: the disk is full; earlier checkpoints are unchanged.
        """
        try:
            failure = yield from self._run()
            if failure is not None:
                if failure.weights_valid:
                    self._save_after_failure()
                raise failure.to_error(self.directory, self.group)
        finally:
            self.directory.close()

    def _run(self) -> Generator[Event, None, TrainingFailure | None]:
        """Set up and learn; return the failure that ended it too early."""
        try:
            if not (yield from self._start()):
                return None
            for change in self.changes:
                self.logger.change(self.progress.step, change)
                yield Notice("changed: {} from {!r} to {!r}".format(*change))
            if count := len(self.state.forgotten):
                yield Notice(f"the new optimizer begins without memory of past gradients for {count:,} weights")
            yield from Notice.long_warmup(self.cfg.train.schedule.warmup, self.progress)
            with Interrupts(self.stop_wanted) as interrupts, self.stopwatch, closing(self.batches):
                yield from self._learn(interrupts)
        except Exception as error:
            held = self.meter.peak() if self.meter else None
            found = failure(error, self.progress.step, self.cfg.train, self.directory, self.group, held)
            if found is None:
                raise
            return found  # and leave the handler: the error references tensors, and saving needs memory

    def _save_after_failure(self) -> None:
        """Save the last finished step, if that can be done without the other processes."""
        if self.saved[0] < self.progress.step and self.state.exchange.complete:
            with suppress(UserError, MemoryError, RuntimeError):  # the checkpoint before is still good
                self._save(best=False)

    # ---- setting up -------------------------------------------------------------------------------

    def _start(self) -> Generator[Event, None, bool]:
        """Do everything before the first step; return False if a signal came meanwhile."""
        try:
            with as_ctrl_c():
                with nothing_left_behind(self.directory, self.group):
                    yield from prepare_data(self.cfg, self.directory, self.group)
                    task_data = task_data_for(self.cfg).open(self.cfg, self.directory)
                    self.cfg = complete_config(self.cfg, task_data, self.group)
                self.plan = task_data.plan(self.cfg, self.progress.spent)
                if self.progress.total is None:
                    self.progress.set_length(self.cfg.train.budget, self.plan.steps_per_epoch)
                yield from self.planner.events(
                    self.cfg, task_data, self.plan, self.directory, self.group, self.progress
                )
                started = self._set_up(task_data)
                yield from self._compile()
                yield started
            return True
        except KeyboardInterrupt:
            there = (self.directory.path / CONFIG).exists()
            reason = "stopped before the first step" + ("" if there else "; nothing is left of it")
            yield Finished(self.progress.step, reason, False, self._resume_command() if there else "")
            return False

    def prepare(self) -> Iterator[Event]:
        """Prepare the data alone: see ``preparation.prepare_data``."""
        with nothing_left_behind(self.directory, self.group):
            yield from prepare_data(self.cfg, self.directory, self.group)

    def _set_up(self, task_data: TaskData) -> Started:
        self.logger.config(self.cfg)
        self.plain_config, train = to_dict(self.cfg), self.cfg.train
        self.meter = MemoryMeter(self.group.device(train.device))
        self.state = TrainState(self.cfg, self.directory, self.content, self.group)
        self.content = None  # as large as model and optimizer together
        self.loss = train.compile.build(self.cfg.task.loss, self.state.device)
        self.batches = StepBatches(task_data, self.plan, self.state.device, self.group)
        self.utilisation = utilisation.measure(self.cfg, task_data, self.plan, self.state.device)
        self.validator = task_data.validator(self.cfg, self.state.device)
        if not self.validator.num_batches:
            check_unvalidated(self.cfg)
        self.logger.rewind(self.progress, train.budget.seconds)
        if self.progress.total is None and self.progress.step:
            self._update_forecast()  # the budget has changed
        return Started(
            summary=task_data.summary,
            parameters=sum(p.numel() for p in self.state.model.parameters()),
            learning=sum(p.numel() for p in self.state.model.parameters() if p.requires_grad),
            steps_per_epoch=self.plan.steps_per_epoch,
            padding_share=self.plan.padding_share,
            device=str(self.state.device),
            precision=train.precision,
            step=self.progress.step,
            total=self.progress.total,
            processes=self.group.count,
        )

    def _compile(self) -> Iterator[Event]:
        """Compile the loss, with the batches of the next few steps as examples."""
        steps = range(self.progress.step, self.progress.step + EXAMPLES)
        yield from self.loss.prepare(self.state.model, self.batches.examples(steps), self.state.rules.precision)

    # ---- learning ---------------------------------------------------------------------------------

    def _learn(self, interrupts: Interrupts) -> Iterator[Event]:
        steps = loop.train(
            self.state.model,
            self.loss,
            self.batches.upload,
            self.state.optimizer,
            self.progress,
            lr=lambda step: self.cfg.train.schedule.rate(step, self.progress.horizon(step)),
            rules=self.state.rules,
        )
        while True:
            improved = False
            if self.validator.num_batches and due.validation_due(self.progress, self.cfg):
                yield Validating(self.progress.step)
                if validated := self._validate(interrupts):
                    improved = validated.best
                    yield validated
            end = self._end(interrupts)
            if improved or due.checkpoint_due(self.progress, self.cfg.train, saved=self.saved, end=end is not None):
                yield self._save(best=improved)
            if end:
                yield from self.profile.end()
                yield self.logger.close(end, self.cfg.train.keep)
                return
            yield from self._step(steps)
            yield from self.profile.after_step()

    def _step(self, steps: Iterator[loop.StepReport]) -> Iterator[Event]:
        progress, missed = self.progress, self.loss.missed
        self.stopwatch.start()
        epochs = progress.passes(self.plan.steps_per_epoch)
        done = next(steps)
        progress.epochs = epochs + 1 / self.plan.steps_per_epoch
        if self.state.average and not done.skipped:
            self.state.average.update(done.step)
        self.batches.count(progress)
        progress.spend(self.stopwatch.lap(progress.seconds / (done.step - 1) if done.step > 1 else 0.0))
        if done.skipped:
            yield Notice.skipped_step(done, progress.scale)
        else:
            progress.window.add(done)
        if done.retries:
            yield Notice.split_step(done, smaller_batches(self.cfg.train))
        if self.loss.missed > missed and self.loss.missed.bit_count() == 1:  # once, twice, four times, ...
            yield Notice.uncompiled_step(done, self.loss.missed)
        total = progress.total
        self._update_forecast()
        if total is None:  # the first forecast
            yield from Notice.long_warmup(self.cfg.train.schedule.warmup, progress)
        if due.report_due(progress, self.cfg.train):
            yield self._report(done.lr)

    def _update_forecast(self) -> None:
        """Forecast the steps in a budget of minutes, where that is due, by the first process's clock."""
        progress, budget = self.progress, self.cfg.train.budget.seconds
        if budget is None or (progress.total is not None and progress.forecast is None):
            return  # runs of earlier versions have a fixed number of steps
        made = self.logger.forecast(progress, budget)
        if total := int(self.group.broadcast(made.total if made else 0)):
            progress.seconds = self.group.broadcast(made.seconds if made else 0.0)
            progress.total = total
            progress.forecast = Forecast(progress.step, progress.seconds, total, budget)

    def _report(self, lr: float) -> StepsReported:
        window, processes = self.progress.window, self.group.count
        used = self.utilisation and self.utilisation.share(window.real, window.seconds * processes)
        report = StepsReported.of(self.progress, lr, used)
        self.progress.window = MetricsWindow()
        self.logger.learned(report)
        if self.meter and not self.has_validated:  # a validation needs memory of its own
            self.held = self.meter.peak()
        return report

    # ---- validating, saving, stopping --------------------------------------------------------------

    def _validate(self, interrupts: Interrupts) -> Validated | None:
        """Validate; None if a signal came meanwhile: then nothing is counted, and the resumed run validates first."""
        state = self.state
        with state.evaluation_weights():
            result = validate(state.model, self.validator, state.rules.precision, lambda: bool(interrupts.asked))
        self.has_validated = True
        if self.group.all_reduce_max(int(result is None)) or result is None:
            return None
        validated = record(result, self.progress, cost=self.group.broadcast(result.by(self.cfg.train.best_by)))
        self.logger.validated(validated)
        return validated

    def _save(self, *, best: bool) -> Saved:
        tensors = self.state.tensors()
        saved = self.logger.save(self.progress, tensors, self.plain_config, self.cfg.train.keep, best=best)
        self.saved = (self.progress.step, self.progress.validated)
        if self.held is not None:
            self.logger.measured({"memory": self.held, "device": str(self.state.device)})
        return saved

    def _end(self, interrupts: Interrupts) -> Finished | None:
        """Return the end of the run if its budget or patience is spent, or if any process got a signal."""
        if end := due.finished(self.progress, self.cfg.train, self._resume_command()):
            return end
        if number := self.group.all_reduce_max(interrupts.asked):
            reason = f"stopped by {who_asked(number)}, all is saved"
            return Finished(self.progress.step, reason, False, self._resume_command())
        return None

    def _resume_command(self) -> str:
        return resume_command(self.directory.path, self.group.option)
