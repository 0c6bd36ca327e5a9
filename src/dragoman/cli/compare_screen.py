"""Terminal of ``dragoman compare``: the list of studies, what one will cost, and what happens while it runs."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.cli.terminal import console, duration, progress_console

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from dragoman.compare.study_plan import StudyPlan
    from dragoman.compare.study_request import StudyRequest
    from dragoman.compare.study_run import StudyEvent, StudyFinished, StudyTrialFinished


def table(*headings: str, words: int = 1) -> "Table":
    """Return a table without lines, whose first columns are ``words``."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="left" if i < words else "right", overflow="fold")
    return made


# ---- the list -------------------------------------------------------------------------------------


def show_list() -> None:
    """Print the studies that come with the package, and which of them have results."""
    from rich.markup import escape

    from dragoman.compare.study import RESULTS, read_study, shipped

    shown = table("study", "asks", "minutes", "result of", words=2)
    for name in shipped():
        study, result = read_study(name), RESULTS / f"{name}.json"
        when = json.loads(result.read_text(encoding="utf-8"))["date"] if result.exists() else ""
        shown.add_row(name, escape(study.question or study.title), f"{study.minutes or 0:g}", when)
    console().print(shown)


# ---- the plan -------------------------------------------------------------------------------------


def show_plan(request: "StudyRequest") -> None:
    """Print what a study will cost, without beginning it; data is prepared in a temporary folder."""
    from rich.markup import escape

    from dragoman.compare.study_run import plan_study

    folder = Path(tempfile.mkdtemp(prefix="dragoman-plan-"))
    try:
        plan = _decided(request, folder, plan_study)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say = console().print
    say(f"[bold]{escape(request.study.title)}[/bold]: {escape(request.study.question)}", soft_wrap=True)
    if not request.study.trains:
        say(
            f"{len(plan.contestants)} contestants, {request.study.seeds} times each; nothing is trained", soft_wrap=True
        )
        return
    shown = table("contestant", "parameters", "FLOPs a step", "steps", "s a step", "memory", "off")
    for one in plan.contestants:
        steps = "" if one.steps is None else f"{one.steps:,}"
        off = f"{one.matched.off:+.2%}" if one.matched else ""
        pace = "" if one.step_seconds is None else f"{one.step_seconds:.3g}"
        figures = (f"{one.parameters:,}", f"{one.flops_per_step:.3g}", steps, pace, f"{one.memory / 1e6:,.0f} MB", off)
        shown.add_row(escape(one.name), *figures)
    say(shown)
    for note in plan.notes:
        say(escape(note), soft_wrap=True)
    runs = len(plan.contestants) * request.study.seeds
    more = f", and up to {plan.further_trainings} more that tune learning rates" if plan.further_trainings else ""
    about = f": about {duration(plan.seconds)} with one at a time" if plan.seconds is not None else ""
    say(f"{runs} trainings{more}{about}", soft_wrap=True)


def _decided(request: "StudyRequest", folder: Path, plan_study: Any) -> "StudyPlan":
    from dragoman.train.events import Preparing

    steps = plan_study(request, folder)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value
        if isinstance(event, Preparing):
            console(errors=True).print(f"{event.stage} ...", soft_wrap=True, markup=False)


# ---- running --------------------------------------------------------------------------------------


def run(
    request: "StudyRequest", folder: Path, *, processes: int | None, ray: str | None, keep: bool
) -> "StudyFinished":
    """Run a study and show what happens; return its end."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from dragoman.compare.on_ray import RayTrials
    from dragoman.compare.study_run import StudyFinished, StudyRun
    from dragoman.compare.workers import LocalTrials

    folder = folder if ray is None else folder.resolve()  # workers of a cluster begin elsewhere
    workers = LocalTrials(processes or 1) if ray is None else RayTrials(ray, processes, folder / "stop")
    study = StudyRun(request, folder, workers=workers, keep=keep)
    finished: StudyFinished | None = None
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
    )
    with progress_console() as shown:
        live = Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal or shown.quiet)
        with live:
            screen = StudyScreen(folder, live)
            for event in study.events():
                screen.show(event)
                if isinstance(event, StudyFinished):
                    finished = event
    assert finished is not None, "events end with one"
    return finished


class StudyScreen:
    """Terminal display of a study's events."""

    def __init__(self, path: Path, live: "Progress"):
        self.path, self.live = path, live
        self.bar = live.add_task("preparing", total=None, figures="")

    def say(self, text: str) -> None:
        self.live.console.print(text, soft_wrap=True, markup=False)

    def show(self, event: "StudyEvent") -> None:
        from dragoman.compare.study_run import (
            RateTuned,
            StudyFinished,
            StudyPlanned,
            StudyProgress,
            StudyTrialFinished,
        )
        from dragoman.train.events import Preparing

        match event:
            case Preparing(stage):
                self.live.update(self.bar, description=stage)
            case StudyPlanned(plan, trials, done):
                for note in plan.notes:
                    self.say(note)
                before = f", {done} of them done before" if done else ""
                self.say(f"{len(plan.contestants)} contestants, {trials} trials{before}")
                self.live.update(self.bar, description="trials", total=trials, completed=done)
            case StudyProgress(name, number, _, step, total):
                figures = f"{name}  step {step:,}" + (f" of {total:,}" if total else "")
                self.live.update(self.bar, completed=max(0, number - 1), figures=figures)
            case RateTuned(name, tuning):
                losses = ", ".join(
                    f"{one.rate:.3g}: {one.loss:.3f}" if one.loss is not None else f"{one.rate:.3g}: diverged"
                    for one in tuning.tried
                )
                edge = "; at the edge of those tried" if tuning.at_edge else ""
                self.say(f"{name}: learning rate {tuning.chosen.rate:.3g} (validation loss by rate: {losses}){edge}")
            case StudyTrialFinished():
                self.finished(event)
            case StudyFinished():
                self.ended(event)

    def finished(self, e: "StudyTrialFinished") -> None:
        figures = [f"{name} {one.value:.4g}" for name, one in e.result.figures.items()][:3]
        figures += [f"{name} not finite, left out" for name in e.result.left_out]
        figures = figures if e.result.finished else [e.result.failure]
        before = "  (before)" if e.before else f"  {duration(e.result.seconds)} of learning" if e.result.steps else ""
        self.say(f"{e.number:>3} of {e.trials}  {e.name}, seed {e.seed}: {', '.join(figures)}{before}")
        self.live.update(self.bar, completed=e.number)

    def ended(self, e: "StudyFinished") -> None:
        if not e.complete:
            self.say("Stopped; the same command goes on.")
            return
        for words in e.words:
            self.say(f"{words[0].upper()}{words[1:]}.")
        if e.failed:
            self.say(f"{e.failed} trainings did not finish: the page says why.")
        self.say(f"{self.path}: report.html, results.json")


def publish(folder: Path, name: str) -> None:
    """Copy results and page of a study to the results that come with the package; in a checkout, write the pages of
    claims and of all studies anew."""
    from dragoman.compare.claims import judge, read_all_results, read_claims
    from dragoman.compare.published import write_claims, write_gallery
    from dragoman.compare.results import REPORT, RESULTS
    from dragoman.compare.study import RESULTS as SHIPPED_RESULTS
    from dragoman.compare.study import SHIPPED

    SHIPPED_RESULTS.mkdir(parents=True, exist_ok=True)
    for file, ending in ((RESULTS, ".json"), (REPORT, ".html")):
        shutil.copyfile(folder / file, SHIPPED_RESULTS / f"{name}{ending}")
    console().print(f"{SHIPPED_RESULTS}: {name}.json, {name}.html", soft_wrap=True, markup=False)
    docs = SHIPPED.parents[2] / "docs"
    if (docs / "claims.md").exists():
        claims, results = read_claims(SHIPPED / "claims.yaml"), read_all_results(SHIPPED_RESULTS)
        verdicts = [judge(claim, results) for claim in claims]
        write_claims(docs / "claims.md", claims, verdicts, results)
        write_gallery(docs / "studies.md", claims, verdicts, results)
