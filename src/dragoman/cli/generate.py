"""dragoman generate: a language model goes on with a text."""

import dataclasses
import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, RunArgument, SpecialTokensOption
from dragoman.cli.searching import (
    RuleOption,
    SampleOption,
    SearchOption,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    chosen_rules,
    chosen_search,
)
from dragoman.errors import ConfigError


class Format(StrEnum):
    text = "text"
    json = "json"


def generate(
    run: RunArgument,
    prompt: Annotated[
        str | None, typer.Argument(help="How the text begins; default: a prompt in each line of standard input.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Write the text as it comes.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a continuation.")] = 256,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this; any number of them.")] = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = None,
    sample: SampleOption = None,
    search: SearchOption = None,
    rule: RuleOption = None,
    format: Annotated[
        Format, typer.Option(help="text: prompt and continuation; json: an object a line.")
    ] = Format.text,
    cache: Annotated[str, typer.Option(help="What decoding keeps, and how; as for translate.")] = "preallocated",
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Continue a text with a language model, by sampling unless told otherwise."""
    from dragoman.decode.generator import Generator
    from dragoman.text.formats.lines import decode_lines

    if stream and (prompt is None or format is Format.json):
        raise ConfigError("--stream: writes the text of one prompt: give a prompt, and leave --format out")
    settings = {
        "search": chosen_search(search, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, samples=sample),
        "rules": chosen_rules(rule),
        "max_new_tokens": max_new_tokens,
        "stop": stop or (),
        "cache": cache,
    }
    generator = Generator.load(run, which=checkpoint, device=device, special_tokens=special_tokens)
    if stream and prompt is not None:
        _show(generator.stream(prompt, **settings), prompt)
        return
    prompts = list(decode_lines(sys.stdin.buffer, "standard input")) if prompt is None else [prompt]
    for generation in generator.generate(prompts, **settings):
        if format is Format.json:
            print(json.dumps(dataclasses.asdict(generation), ensure_ascii=False))
        else:
            print("\n".join(generation.prompt + continuation.text for continuation in generation.continuations))


def _show(pieces: Iterable[str], prompt: str) -> None:
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
