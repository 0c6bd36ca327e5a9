"""The command line: one file a command; each parses, calls one function, and prints what it returned."""

import os
import sys
from typing import NoReturn

import typer

from dragoman.cli import (
    answer,
    augment,
    average,
    calibrate,
    classify,
    configuration,
    data,
    demo,
    embed,
    evaluate,
    export,
    generate,
    import_,
    merge,
    score,
    tag,
    train,
    translate,
    verify,
    weigh,
)
from dragoman.errors import ProcessLost, UserError
from dragoman.train.together.launch import STOPPED, in_a_group, leave

# How long threads that wait for each other spin before they sleep; read when torch loads its thread pool. Steps a
# second of a small model with two threads, on two free cores and on two busy ones: without a limit 8.8 and 0.4, with
# this one 7.8 and 0.9, without spinning 5.0 and 2.7.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# How many products, each with code of its own for its sizes, oneDNN remembers: as lengths vary, the 1,024 that it would
# come to take gigabytes (LOG.md), and those of the last few steps serve as well.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")

app = typer.Typer(
    name="dragoman",
    help="Train, run and explain Transformers: parallel text in, a measured translator out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("translate")(translate.translate)
app.command("evaluate")(evaluate.evaluate)
app.command("classify")(classify.classify)
app.command("tag")(tag.tag)
app.command("answer")(answer.answer)
app.command("embed")(embed.embed)
app.command("score")(score.score)
app.command("calibrate")(calibrate.calibrate)
app.command("generate")(generate.generate)
app.command("verify")(verify.verify)
app.command("average")(average.average)
app.command("merge")(merge.merge)
app.command("weigh")(weigh.weigh)
app.command("demo")(demo.demo)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.add_typer(data.app, name="data")
app.add_typer(augment.app, name="augment")
app.add_typer(configuration.app, name="config")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 2 on a mistake that its user can mend, told in one line."""
    try:
        app(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except ProcessLost as lost:
        if not lost.told:
            print(f"dragoman: {lost}", file=sys.stderr)
        return 2
    except UserError as mistake:
        print(f"dragoman: {mistake}", file=sys.stderr)
        return 2
    return 0


def command() -> NoReturn:
    """What a shell calls: ``main`` with its exit code."""
    code = main()
    if in_a_group() or code == STOPPED:  # a thread that Ctrl-C cannot reach may be at work
        leave(code)
    sys.exit(code)
