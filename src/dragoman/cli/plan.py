"""dragoman plan: what a run or a server will cost, before it runs."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dragoman.cli import plan_numbers
from dragoman.cli.options import writable_file
from dragoman.cli.plan_questions import FIT, LAWS, RECONCILE, SERVE, check_options, question_of
from dragoman.errors import ConfigError
from dragoman.json_files import json_text


def plan(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="PRESET | RUN_FILE | RUN [PATH=VALUE]...",
            help="A preset, a run file (YAML), a run or an imported folder; then settings to change, such as "
            "train.batch_tokens=8192. With --laws, runs.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Training text: plans for its length, and one epoch of it.")] = None,
    hardware: Annotated[
        str | None, typer.Option(help="Devices, such as h100x8 or a100-40gx1024; here: this machine, measured.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens to train on, such as 300e9 or 300B.")] = None,
    mfu: Annotated[
        float | None, typer.Option(help="Share of the devices' peak that training reaches, from 0 to 1.")
    ] = None,
    batch_tokens: Annotated[str | None, typer.Option(help="Tokens of a batch on each device.")] = None,
    length: Annotated[str | None, typer.Option(help="Tokens of a text in training.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Plan a server instead of training.")] = False,
    users: Annotated[str | None, typer.Option(help="With --serve: texts at once; default: 1.")] = None,
    context: Annotated[str | None, typer.Option(help="With --serve: tokens of each text.")] = None,
    cache: Annotated[
        str | None, typer.Option(help="With --serve: cache of keys and values, such as int8 or paged:16+int8.")
    ] = None,
    beams: Annotated[str | None, typer.Option(help="With --serve: hypotheses of each text; default: 1.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --serve: number format of the weights, such as int8; default: bfloat16.")
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Find the settings that fit into memory.")] = False,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Compare what was predicted for a run with what it measured.")
    ] = False,
    laws: Annotated[bool, typer.Option("--laws", help="Fit a scaling law to runs, and split a budget by it.")] = False,
    predict: Annotated[
        str | None,
        typer.Option(help="With --laws: parameters and tokens of a model whose loss to predict, such as 10M,200M."),
    ] = None,
    flops: Annotated[str | None, typer.Option(help="With --laws: training FLOPs to split, such as 1e18.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object instead of a table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw into this SVG file: memory by batch size; with --serve by context; with --laws the law."
        ),
    ] = None,
) -> None:
    """Predict the memory, time and cost of a training or a server, from the model itself.

    dragoman plan transformer-big --hardware h100x8

    dragoman plan gpt3-175b --tokens 300e9 --hardware a100-40gx1024 --mfu 0.45

    dragoman plan llama-2-7b --serve --users 64 --context 4096 --cache int8

    dragoman plan --laws runs/* --flops 1e18
    """
    settings = [word for word in what if "=" in word and not os.path.exists(word)]
    names = [word for word in what if word not in settings]
    question = question_of({SERVE: serve, FIT: fit, RECONCILE: reconcile, LAWS: laws})
    options = {
        "--data": data,
        "--hardware": hardware,
        "--tokens": tokens,
        "--mfu": mfu,
        "--batch-tokens": batch_tokens,
        "--length": length,
        "--users": users,
        "--context": context,
        "--cache": cache,
        "--beams": beams,
        "--weights": weights,
        "--predict": predict,
        "--flops": flops,
        "--plot": plot,
    }
    check_options(question, options, settings)
    given: dict[str, Any] = {
        "data": data,
        "hardware": hardware,
        "tokens": plan_numbers.count_of(tokens, "--tokens"),
        "mfu": plan_numbers.share_of(mfu, "--mfu"),
        "batch_tokens": plan_numbers.whole(batch_tokens, "--batch-tokens"),
        "length": plan_numbers.whole(length, "--length"),
        "json": as_json,
        "plot": writable_file(plot),
    }
    if laws:
        from dragoman.cli.plan_laws import print_laws

        size = plan_numbers.pair_of(predict, "--predict")
        budget = plan_numbers.count_of(flops, "--flops")
        print_laws([*map(Path, names)], predict=size, flops=budget, as_json=as_json, plot=given["plot"])
        return
    if len(names) != 1:
        raise ConfigError(
            f"{names[1]}: one preset, run file or run at a time; settings are written PATH=VALUE"
            if names
            else "plan: name a preset, a run file or a run; dragoman config presets lists them"
        )
    if reconcile:
        from dragoman.cli.plan_reconcile import show_reconciliation

        show_reconciliation(Path(names[0]), as_json=as_json)
        return
    from dragoman.cli.plan_subject import find_subject

    subject = find_subject(names[0], settings)
    if fit:
        from dragoman.cli import plan_fit

        raise typer.Exit(plan_fit.run(subject, given))
    if serve:
        serving = {
            "users": plan_numbers.whole(users, "--users") or 1,
            "beams": plan_numbers.whole(beams, "--beams") or 1,
            "context": plan_numbers.whole(context, "--context") or subject.usual_length(),
            "cache": cache,
            "precision": "bfloat16" if weights is None else weights,
            "hardware": hardware,
        }
        _serve(subject, serving, given)
    else:
        _train(subject, given)


def _train(subject: Any, given: dict[str, Any]) -> None:
    from dataclasses import replace

    from dragoman.cli.plan_counted import PlanOptions, plan_training
    from dragoman.cli.plan_table import print_text, print_training

    question = PlanOptions(**{name: given[name] for name in PlanOptions.__dataclass_fields__})
    if given["data"]:
        from dragoman.cli.plan_text import measure_text

        text = measure_text(given["data"], pairs=subject.reads_pairs)
        question = replace(question, length=question.length or text.length, tokens=question.tokens or text.tokens)
        if not given["json"]:
            print_text(text)
    found = plan_training(subject, question)
    if given["plot"]:
        from dragoman.cli.plan_curves import plot_training

        plot_training(subject, question, found, given["plot"])
    _show(found, given, print_training)


def _serve(subject: Any, serving: dict[str, Any], given: dict[str, Any]) -> None:
    from dragoman.cli.plan_served import plan_serving
    from dragoman.cli.plan_table import print_serving

    found = plan_serving(subject, **serving)
    if given["plot"]:
        from dragoman.cli.plan_curves import plot_serving

        plot_serving(subject, serving, found, given["plot"])
    _show(found, given, print_serving)


def _show(found: Any, given: dict[str, Any], print_table: Any) -> None:
    if given["json"]:
        print(json_text(found.record()))
    else:
        print_table(found)
