"""dragoman generate: a language model continues a text."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.argument import RULE, STDIN, is_file
from dragoman.cli.lines import input_lines, write_lines
from dragoman.cli.live_input import line_batches
from dragoman.cli.options import (
    AsOption,
    CheckpointOption,
    DeviceOption,
    OutputOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
)
from dragoman.cli.searching import (
    MinPOption,
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
from dragoman.cli.terminal import progress_bar
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.generator import Generation


class GenerationFormat(StrEnum):
    """Output format of ``generate``."""

    text = "text"
    json = "json"


def generate(
    run: RunArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT | FILE]",
            help=f"The prompt, or a file with a prompt in each line; default: such lines on standard input. {RULE}",
        ),
    ] = None,
    output: OutputOption = None,
    stream: Annotated[bool, typer.Option("--stream", help="Write the text as it is generated.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens in a continuation.")] = 256,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Stop before this text; may be repeated.")
    ] = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    min_p: MinPOption = None,
    seed: SeedOption = None,
    sample: SampleOption = None,
    search: SearchOption = None,
    rule: RuleOption = None,
    format: Annotated[
        GenerationFormat, typer.Option(help="text: prompt and continuation; json: an object a line.")
    ] = GenerationFormat.text,
    as_kind: AsOption = None,
    cache: Annotated[str, typer.Option(help="Layout of the key/value cache; as for translate.")] = "preallocated",
    special_tokens: SpecialTokensOption = False,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Continue a text with a language model, by sampling unless another search is chosen."""
    from dragoman.decode.generator import Generator

    written = prompt is not None and prompt != STDIN and not is_file(prompt)
    if stream and (not written or output is not None or format is GenerationFormat.json):
        raise ConfigError(
            "--stream: writes the text of one prompt to standard output: give a prompt, and leave --output and "
            "--format out"
        )
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    settings = {
        "search": chosen_search(search, **sampling, samples=sample),
        "rules": chosen_rules(rule),
        "max_new_tokens": max_new_tokens,
        "stop": stop or (),
        "cache": cache,
    }
    prompts = [prompt] if written and prompt is not None else input_lines(prompt, as_kind=as_kind)
    generator = Generator.load(run, which=checkpoint, device=device, special_tokens=special_tokens, precision=precision)
    if stream:
        for text in prompts:
            _show(generator.stream(text, **settings), text)
        return

    def found() -> "Iterator[Generation]":
        for batch in line_batches(prompts):
            with progress_bar("generating", len(batch)) as progress:
                generations = generator.generate(batch, **settings, progress=progress)
            yield from generations

    write_lines(_as_json(found()) if format is GenerationFormat.json else _as_text(found()), output)


def _as_text(found: "Iterable[Generation]") -> Iterator[str]:
    for generation in found:
        yield from (generation.prompt + continuation.text for continuation in generation.continuations)


def _as_json(found: "Iterable[Generation]") -> Iterator[str]:
    for generation in found:
        yield json.dumps(dataclasses.asdict(generation), ensure_ascii=False)


def _show(parts: Iterable[str], prompt: str) -> None:
    print(prompt, end="", flush=True)
    for part in parts:
        print(part, end="", flush=True)
    print()
