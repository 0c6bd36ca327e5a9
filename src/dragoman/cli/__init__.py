"""Command line: one file per command; each parses, calls one function, and prints what it returned."""

import atexit
import errno
import functools
import os
import sys
from typing import Any, NoReturn

import typer

from dragoman.cli import (
    answer,
    augment,
    average,
    bulk_plan,
    calibrate,
    check,
    checklist,
    claims,
    classify,
    compare,
    configuration,
    data,
    datastore,
    demo,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    generate,
    import_,
    inspect_,
    merge,
    messages,
    patch,
    plan,
    probe,
    score,
    search_mixture,
    serve,
    tag,
    trace,
    train,
    transcribe,
    translate,
    verify,
)
from dragoman.cli.global_options import complete, with_optional_values
from dragoman.cli.standard_streams import finish, use_utf8
from dragoman.errors import ProcessLost, UserError
from dragoman.serve.heap import collect_rarely
from dragoman.train.distributed.launch import STOPPED, in_a_group, leave

# How long threads that wait for each other spin before they sleep; read when torch loads its thread pool. Steps per
# second of a small model with two threads, on two free cores and on two busy ones: unlimited 8.8 and 0.4, with this
# limit 7.8 and 0.9, without spinning 5.0 and 2.7.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
app = typer.Typer(
    name="dragoman",
    help="Train, run and explain Transformers: parallel text in, a measured translator out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
TRAIN, USE, EXAMINE, DATA, EXCHANGE = "Train", "Use", "Examine", "Data and configuration", "Exchange"
app.command("train", rich_help_panel=TRAIN)(train.train)
app.command("search-mixture", rich_help_panel=TRAIN)(search_mixture.search_mixture)
app.command("compare", rich_help_panel=TRAIN)(compare.compare)
app.command("weigh", hidden=True)(search_mixture.search_mixture)  # its earlier name
app.command("plan", rich_help_panel=TRAIN)(plan.plan)
app.command("average", rich_help_panel=TRAIN)(average.average)
app.command("merge", rich_help_panel=TRAIN)(merge.merge)
app.command("demo", rich_help_panel=TRAIN)(demo.demo)
app.command("translate", rich_help_panel=USE)(translate.translate)
app.command("datastore", rich_help_panel=USE)(datastore.datastore)
app.command("generate", rich_help_panel=USE)(generate.generate)
app.command("classify", rich_help_panel=USE)(classify.classify)
app.command("tag", rich_help_panel=USE)(tag.tag)
app.command("answer", rich_help_panel=USE)(answer.answer)
app.command("embed", rich_help_panel=USE)(embed.embed)
app.command("transcribe", rich_help_panel=USE)(transcribe.transcribe)
app.command("serve", rich_help_panel=USE)(serve.serve)
app.command("evaluate", rich_help_panel=EXAMINE)(evaluate.evaluate)
app.command("score", rich_help_panel=EXAMINE)(score.score)
app.command("calibrate", rich_help_panel=EXAMINE)(calibrate.calibrate)
app.command("checklist", rich_help_panel=EXAMINE)(checklist.checklist)
app.command("check", rich_help_panel=EXAMINE)(check.check)
app.command("verify", rich_help_panel=EXAMINE)(verify.verify)
app.command("inspect", rich_help_panel=EXAMINE)(inspect_.inspect)
app.command("explain", rich_help_panel=EXAMINE)(explain.explain)
app.command("claims", rich_help_panel=EXAMINE)(claims.claims)
app.command("doctor", rich_help_panel=EXAMINE)(doctor.doctor)
app.command("probe", rich_help_panel=EXAMINE)(probe.probe)
app.command("patch", rich_help_panel=EXAMINE)(patch.patch)
app.command("trace", rich_help_panel=EXAMINE)(trace.trace)
app.command("import", rich_help_panel=EXCHANGE)(import_.import_)
app.command("export", rich_help_panel=EXCHANGE)(export.export)
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.add_typer(augment.app, name="augment", rich_help_panel=DATA)
app.add_typer(configuration.app, name="config", rich_help_panel=DATA)


REFUSALS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
    if hasattr(errno, name)
}
"""System errors that the user can correct."""


@functools.cache
def root_command() -> Any:
    """Return the whole command line; made once, for programs that run several commands."""
    return complete(app)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return 0 on success, 2 after an error that the user can correct, reported in one line."""
    messages.reset()
    try:
        root_command()(with_optional_values(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except ProcessLost as lost:
        if not lost.reported_elsewhere:
            messages.report_error(str(lost))
        return lost.exit_code
    except UserError as mistake:
        messages.report_error(str(mistake))
        return 2
    except OSError as failure:
        if failure.errno not in REFUSALS:
            raise
        messages.report_error(f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure.strerror))
        return 2
    finally:
        messages.current.end()
        bulk_plan.stop_template()
    return 0


LONG = {"train", "demo", "search-mixture", "weigh", "compare"}
"""Commands that run for long, and leave much behind for the collector."""


def command() -> NoReturn:
    """Run ``main`` as a shell command, with its exit code."""
    if not LONG & set(sys.argv):
        collect_rarely()
    use_utf8()
    messages.show_log("dragoman.native.library")  # it tells when kernels are built, which takes some seconds
    code = finish(main())
    if in_a_group() or code == STOPPED:  # a thread that Ctrl-C cannot interrupt may be running
        leave(code)
    if not (LONG | {"serve"}) & set(sys.argv):
        atexit._run_exitfuncs()
        leave(code)  # taking a process with torch apart takes a third of a second, longer than a translation
    sys.exit(code)
