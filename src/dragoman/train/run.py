"""One run from its configuration to its last checkpoint: prepare, learn, validate, save, stop, resume.

What is due at a step (a report, a validation, a checkpoint, the end) is decided from ``Progress`` alone, which every
checkpoint holds: a resumed run therefore does what the uninterrupted one would have done, on a CPU to the bit (with as
many threads as before: their number decides in which order sums are made).
"""

import errno
import functools
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from dragoman.checkpoint import CONFIG, RunDirectory
from dragoman.config import override, to_dict
from dragoman.errors import CheckpointError
from dragoman.machine import autocast, choose_device, choose_precision, keep_memory
from dragoman.migrations import Content
from dragoman.model.linear import multiply_by
from dragoman.model.lora import learned
from dragoman.model.tower import Tower
from dragoman.train import loop, utilisation
from dragoman.train.average import MovingAverage
from dragoman.train.changes import Change, changed
from dragoman.train.events import Event, Finished, Learned, Notice, Saved, Started, Validated
from dragoman.train.interrupt import Interrupts, sigterm_as_ctrl_c
from dragoman.train.lessons import lesson_for
from dragoman.train.lessons.lesson import FOLDER, Lesson
from dragoman.train.optimize import load_state_tensors, state_tensors
from dragoman.train.profile import NoProfile
from dragoman.train.progress import Progress, Window
from dragoman.train.rates import share_out
from dragoman.train.recipe import RunConfig
from dragoman.train.record import Record
from dragoman.train.scaling import scaling_for
from dragoman.train.validate import look


class Run:
    """A run that is about to begin or to go on. ``events`` makes it happen."""

    def __init__(
        self, cfg: RunConfig, directory: RunDirectory, *, content: Content | None = None, changes: Sequence[Change] = ()
    ):
        self.cfg, self.directory, self.content, self.changes = cfg, directory, content, changes
        self.progress = Progress.from_dict(content.progress) if content else Progress()
        self.saved = (self.progress.step, self.progress.validated)
        self.record = Record(directory)
        self.profile = NoProfile()

    def events(self) -> Iterator[Event]:
        """Everything that happens from here to the end of the run.

        Raises:
            DataError, ConfigError: while preparing.
            Diverged: see ``loop.train_step``.
            CheckpointError: the disk is full; what was saved before is as it was.
        """
        try:
            if not (yield from self.begin()):
                return
            for change in self.changes:
                self.record.change(self.progress.step, change)
                yield Notice("changed: {} from {!r} to {!r}".format(*change))
            with Interrupts() as interrupts:
                yield from self.learn(interrupts)
        except loop.Diverged as error:
            raise loop.Diverged(f"{error}. {self.way_back()}") from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = error.filename or self.directory.path
            raise CheckpointError(f"{where}: {error.strerror}: make room and go on with --resume") from error
        finally:
            self.directory.close()

    def way_back(self) -> str:
        """How to go on after steps that led nowhere."""
        if not (checkpoints := self.directory.checkpoints()):
            return f"Nothing was saved yet: remove {self.directory.path} and start again"
        name = checkpoints[-1].path.name
        command = f"dragoman train {self.directory.path} --resume --deliberate train.schedule.peak=..."
        return f"{name} is good; to go on from there with other settings: {command}"

    # ---- setting up -------------------------------------------------------------------------------

    def begin(self) -> Generator[Event, None, bool]:
        """Everything before the first step; False if a signal came meanwhile."""
        try:
            with sigterm_as_ctrl_c():
                yield from self.prepare()
                yield self.set_up(lesson_for(self.cfg).open(self.cfg, self.directory))
            return True
        except KeyboardInterrupt:
            resume = f"go on with: dragoman train {self.directory.path} --resume"
            left = resume if (self.directory.path / CONFIG).exists() else "nothing is left of it"
            yield Finished(self.progress.step, f"stopped before the first step; {left}", False)
            return False

    def prepare(self) -> Iterator[Event]:
        """Make the token stores, if they are not there. A new run that fails at this leaves nothing behind."""
        new = not self.directory.checkpoints() and not (self.directory.path / FOLDER).exists()
        try:
            yield from lesson_for(self.cfg).prepare(self.cfg, self.directory)
        except BaseException:
            if new:
                self.directory.discard()
            raise

    def set_up(self, lesson: Lesson) -> Started:
        self.cfg = lesson.fill(self.cfg)
        self.record.config(self.cfg)
        self.plain_config, train = to_dict(self.cfg), self.cfg.train
        self.device = choose_device(train.device)
        keep_memory()
        torch.manual_seed(train.seed)
        self.model = self.cfg.model.build().to(self.device)
        multiply_by(self.model, train.products)
        for module in self.model.modules():
            if isinstance(module, Tower):
                module.recompute = train.recompute
        if self.cfg.init:
            self.cfg.init.begin(self.model, self.directory, anew=self.content is None)
        self.optimizer = train.optimizer.build(self.model)
        share_out(self.optimizer, train.rates.shares(self.model))
        self.restore()
        self.lesson, self.plan = lesson, lesson.plan(self.cfg)
        precision = autocast(train.precision, self.device)
        self.rules = loop.Rules(
            seed=train.seed,
            clip=train.clip,
            give_up_after=train.give_up_after,
            precision=precision,
            scaling=scaling_for(train.precision),
        )
        self.utilisation = utilisation.measure(self.cfg, lesson, self.plan, self.device)
        self.examination = lesson.examination(self.cfg, self.device)
        if self.progress.total is None:
            self.progress.total = train.budget.total(self.plan.steps_per_epoch)
        self.record.rewind(self.progress)
        return Started(
            summary=lesson.summary,
            parameters=sum(p.numel() for p in self.model.parameters()),
            learning=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            steps_per_epoch=self.plan.steps_per_epoch,
            padding_share=self.plan.padding_share,
            device=str(self.device),
            precision=train.precision,
            step=self.progress.step,
            total=self.progress.total,
        )

    def restore(self) -> None:
        """Weights, optimizer and moving average as the checkpoint has them, if there is one."""
        tensors = self.content.tensors if self.content else {}
        if tensors:
            self.model.load_state_dict(self.directory.base | tensors["model"])
            load_state_tensors(self.optimizer, self.model, tensors["optimizer"])
        decay = self.cfg.train.average
        self.average = MovingAverage(self.model, decay) if decay else None
        if self.average and "average" in tensors:
            self.average.load(self.model, tensors["average"])
        self.content = None  # as large as model and optimizer together

    # ---- learning ---------------------------------------------------------------------------------

    def learn(self, interrupts: Interrupts) -> Iterator[Event]:
        steps = loop.train(
            self.model,
            self.cfg.task.loss,
            self.parts,
            self.optimizer,
            self.progress,
            lr=lambda step: self.cfg.train.schedule.rate(step, self.progress.total),
            rules=self.rules,
        )
        while True:
            improved = False
            if self.validation_due() and (seen := self.validate(interrupts)):
                improved = seen.best
                yield seen
            end = self.end(interrupts)
            new = self.saved != (step := self.progress.step, self.progress.validated)
            if improved or (new and (end or step % self.cfg.train.save_every == 0)):
                yield self.save(best=improved)
            if end:
                self.record.page()
                yield from self.profile.end()
                yield end
                return
            yield from self.step(steps)
            yield from self.profile.after_step()

    def parts(self, step: int) -> list[loop.Part]:
        return loop.whole(self.lesson.batch(rows).to(self.device) for rows in self.plan.at(step))

    def step(self, steps: Iterator[loop.StepReport]) -> Iterator[Event]:
        progress, window, began = self.progress, self.progress.window, time.perf_counter()
        done = next(steps)
        if self.average and not done.skipped:
            self.average.update(done.step)
        for rows in self.plan.at(done.step - 1):
            real, cells = self.lesson.size(rows)
            window.real, window.cells = window.real + real, window.cells + cells
            progress.count(self.lesson.origins(rows))
        seconds = time.perf_counter() - began
        progress.seconds, window.seconds = progress.seconds + seconds, window.seconds + seconds
        if done.skipped:
            figures = f"loss {done.loss:.4g}, gradient norm {done.grad_norm:.4g}"
            now = f"; the loss scale is now {progress.scale:g}" if progress.scale else ""
            yield Notice(f"step {done.step}: {figures}: not finite, step skipped{now}")
        else:
            window.steps, window.tokens = window.steps + 1, window.tokens + done.tokens
            window.loss, window.grad_norm = window.loss + done.loss * done.tokens, window.grad_norm + done.grad_norm
        if progress.total is None and (total := self.cfg.train.budget.measured(progress.step, progress.seconds)):
            progress.total = total
            yield Notice(
                f"{total:,} steps fit into the budget at {progress.step / progress.seconds:.2f} steps a second"
            )
        if done.step % self.cfg.train.report_every == 0 or done.step == progress.total:
            yield self.report(done.lr)

    def report(self, lr: float) -> Learned:
        progress, window = self.progress, self.progress.window
        learned = Learned(
            step=progress.step,
            total=progress.total,
            loss=window.loss / window.tokens if window.tokens else None,
            lr=lr,
            grad_norm=window.grad_norm / window.steps if window.steps else None,
            tokens=progress.tokens,
            padding=1 - window.real / window.cells,
            skipped=progress.skipped,
            sources=dict(progress.sources),
            seconds=progress.seconds,
            tokens_per_second=window.real / window.seconds,
            utilisation=self.utilisation and self.utilisation.share(window.real, window.seconds),
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
        with self.average.applied() if self.average else nullcontext():
            seen = look(self.model, self.examination, self.rules.precision, stop=lambda: interrupts.asked is not None)
        if seen is None:
            return None
        cost = seen.by(self.cfg.train.best_by)
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
        tensors = {"model": learned(self.model), "optimizer": state_tensors(self.optimizer, self.model)}
        if self.average:
            tensors["average"] = self.average.tensors(self.model)
        saved = self.record.save(self.progress, tensors, self.plain_config, self.cfg.train.keep, best=best)
        self.saved = (self.progress.step, self.progress.validated)
        return saved

    def end(self, interrupts: Interrupts) -> Finished | None:
        progress, train = self.progress, self.cfg.train
        if progress.total is not None and progress.step >= progress.total:
            return Finished(
                progress.step,
                f"all {progress.total:,} steps are made; to train longer, resume with a larger train.budget",
                True,
            )
        if train.patience and progress.stale >= train.patience:
            reason = f"no better validation since step {progress.best_step}, {progress.stale} validations ago"
            return Finished(progress.step, f"{reason}; to train on, resume with a larger train.patience", True)
        if interrupts.asked:
            resume = f"dragoman train {self.directory.path} --resume"
            return Finished(progress.step, f"stopped by {interrupts.asked}, all is saved; go on with: {resume}", False)
        return None


# ---- beginning and going on -----------------------------------------------------------------------


def start(cfg: RunConfig, path: str | Path) -> Run:
    """A new run in a new directory.

    Raises:
        ConfigError: sizes that do not fit one another, or no such device: before anything is written.
        CheckpointError: there is something at ``path`` already.
    """
    lesson_for(cfg).check(cfg)
    choose_precision(cfg.train.precision, choose_device(cfg.train.device))
    return Run(cfg, RunDirectory.create(path, cfg))


def resume(
    path: str | Path,
    *,
    cfg: RunConfig | None = None,
    overrides: Sequence[str] = (),
    deliberate: bool = False,
    checkpoint: str = "last",
) -> Run:
    """The run at ``path``, from its last checkpoint on, or from the beginning if it died before the first.

    ``cfg``, the configuration it should have now (None: the one it has), and the ``overrides`` to it may differ in what
    ``changes.FREE`` lists; ``deliberate`` also allows ``changes.DELIBERATE``. Going on from an earlier ``checkpoint``
    sets newer ones aside.

    Raises:
        CheckpointError: no run there, it is being written to, its checkpoint is damaged, or the configuration differs.
    """
    directory = RunDirectory.open(path, write=True)
    try:
        content = directory.load(checkpoint) if checkpoint != "last" or directory.checkpoints() else None
        if content and "optimizer" not in content.tensors:
            raise CheckpointError(
                f"{path}: {checkpoint} holds weights alone: translate with it, but go on from another one"
            )
        wanted = functools.reduce(override, overrides, to_dict(cfg) if cfg else directory.config)
        begun = (directory.path / FOLDER).is_dir()  # what has no tokens yet may still become anything
        had = content.config if content else directory.config if begun else wanted
        new_cfg, changes = changed(had, wanted, deliberate=deliberate, where=str(path))
        if content and checkpoint != "last":
            directory.rewind(directory.find(checkpoint), content.progress["best_step"])
        if content and any(change[0].startswith("train.budget") for change in changes):
            content.progress["total"] = None  # to be worked out anew
        if content and any(change[0] == "train.best_by" for change in changes):
            content.progress.update(best_loss=None, stale=0)  # a figure of another kind
        lesson_for(new_cfg).check(new_cfg)
        return Run(new_cfg, directory, content=content, changes=changes)
    except BaseException:
        directory.close()
        raise
