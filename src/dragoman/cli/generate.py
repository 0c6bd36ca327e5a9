"""dragoman generate: a language model continues a text."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli import messages
from dragoman.cli.argument import RULE, STDIN, is_file
from dragoman.cli.lines import image_paths, input_lines, write_lines
from dragoman.cli.live_input import line_batches
from dragoman.cli.options import (
    AsOption,
    CheckpointOption,
    DeviceOption,
    OutputOption,
    PassagesOption,
    PrecisionOption,
    RunArgument,
    SpecialTokensOption,
    TopPassagesOption,
    read_passages,
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
from dragoman.json_files import json_text
from dragoman.text.store import chunks

if TYPE_CHECKING:
    from dragoman.decode.generator import Generation, Generator
    from dragoman.decode.prompt import EncodedPrompt


IMAGES_AT_ONCE = 100
"""Images whose pixels are held in memory at a time."""


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
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="For a model that reads an image before its text: the image to continue, or a folder of them; may be "
            "repeated. Several are named in the output.",
        ),
    ] = None,
    passages: PassagesOption = None,
    top_passages: TopPassagesOption = None,
    stream: Annotated[bool, typer.Option("--stream", help="Write the text as it is generated.")] = False,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Answer conversations by the model's chat template: at the terminal, one message, or a list of "
            "messages in each line of a file.",
        ),
    ] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="With --chat: the system prompt.")] = None,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --chat: a template, instead of the model's own.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of tokens in a continuation; default: the model's, or 256."),
    ] = None,
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
    """Continue a text with a language model, or answer a conversation with --chat.

    The search is the model's own, if it was imported with a generation_config.json; else one sample.
    """
    from dragoman.cli import chat as chats
    from dragoman.decode.generator import Generator
    from dragoman.decode.passage_prompts import prompts_with_passages

    chats.check_options(
        images=bool(image),
        system=system,
        template=chat_template,
        chat=chat,
        special_tokens=special_tokens,
        as_kind=as_kind,
    )
    written = prompt is not None and prompt != STDIN and not is_file(prompt)
    if stream and (not written or output is not None or format is GenerationFormat.json):
        raise ConfigError(
            "--stream: writes the text of one prompt to standard output: give a prompt, and leave --output and "
            "--format out"
        )
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    sampling["samples"] = sample
    settings: dict[str, Any] = {
        "search": chosen_search(search, **sampling),
        "rules": chosen_rules(rule) if rule else None,
        "max_new_tokens": max_new_tokens,
        "stop": stop or (),
        "cache": cache,
    }
    loading: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "precision": precision}
    known = read_passages(passages, top_passages)
    if chat:
        from dragoman.decode.chat import ChatModel

        model = ChatModel.load(run, template=chat_template, **loading)
        settings = _with_defaults(model.generator, settings, search, sampling)
        asked = chats.Chat(model, settings, system, known)
        if chats.is_conversation(prompt) and output is None:
            chats.converse(asked)
        elif stream and prompt is not None:
            chats.stream_answer(asked, prompt)
        else:
            chats.answer(asked, prompt, output, as_json=format is GenerationFormat.json)
        return
    prompts = _prompts(prompt, image, as_kind, written=written, stream=stream)
    generator = Generator.load(run, special_tokens=special_tokens, **loading)
    settings = _with_defaults(generator, settings, search, sampling)
    prompt_of = prompts_with_passages(generator, known, max_new_tokens)
    if image:
        (text,) = prompts
        described = _described(generator, image_paths(image), prompt_of(text), settings)
        is_one = len(image) == 1 and not image[0].is_dir()
        write_lines(_of_images(described, format, generator, is_one=is_one), output)
        return
    if stream:
        for text in prompts:
            _show(generator.stream(prompt_of(text), **settings), generator.prompts.completed(text))
        return

    def found() -> "Iterator[Generation]":
        for batch in line_batches(prompts):
            with progress_bar("generating", len(batch)) as progress:
                generations = generator.generate(list(map(prompt_of, batch)), **settings, progress=progress)
            yield from generations

    write_lines(_formatted(found(), format, generator), output)


def _with_defaults(
    generator: "Generator", settings: dict[str, Any], search: str | None, sampling: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings with what the options leave open as the model's own say, and report these."""
    if not generator.defaults.where or search is not None:
        return settings
    given = {name: value for name, value in sampling.items() if value is not None}
    held = generator.defaults.with_sampling(given)
    if settings["rules"] is not None:
        held = dataclasses.replace(held, rules=tuple(settings["rules"]))
    if not messages.current.quiet:
        print(f"dragoman: {held}", file=sys.stderr)
    return settings | {"search": held.search, "rules": held.rules, "stop": (*settings["stop"], *held.stop)}


def _prompts(
    prompt: str | None, images: list[Path] | None, as_kind: str | None, *, written: bool, stream: bool
) -> Iterable[str]:
    """Return the prompts: one where there are images.

    Raises:
        ConfigError: images with other prompts than one that is written out.
    """
    if images:
        if stream or (prompt is not None and not written):
            raise ConfigError("--image: takes one prompt, or none, and cannot be used with --stream")
        return [prompt or ""]
    return [prompt] if written and prompt is not None else input_lines(prompt, as_kind=as_kind)


def _described(
    generator: "Generator", images: list[Path], prompt: "str | EncodedPrompt", settings: dict[str, Any]
) -> "Iterator[tuple[Path, Generation]]":
    """Yield each image with its continuations."""
    for some in chunks(images, IMAGES_AT_ONCE):
        with progress_bar("generating", len(some)) as progress:
            found = generator.generate([prompt] * len(some), images=some, **settings, progress=progress)
        yield from zip(some, found, strict=True)


def _formatted(found: "Iterable[Generation]", format: GenerationFormat, generator: "Generator") -> Iterator[str]:
    return _as_json(found) if format is GenerationFormat.json else _as_text(found, generator)


def _of_images(
    found: "Iterable[tuple[Path, Generation]]", format: GenerationFormat, generator: "Generator", *, is_one: bool
) -> Iterator[str]:
    """Yield the lines of each image: with its name, except as text of a single image."""
    for path, generation in found:
        if format is GenerationFormat.json:
            yield json_text({"image": str(path)} | dataclasses.asdict(generation))
        else:
            yield from (line if is_one else f"{path}\t{line}" for line in _as_text([generation], generator))


def _as_text(found: "Iterable[Generation]", generator: "Generator") -> Iterator[str]:
    for generation in found:
        prompt = generator.prompts.completed(generation.prompt)
        yield from (prompt + continuation.text for continuation in generation.continuations)


def _as_json(found: "Iterable[Generation]") -> Iterator[str]:
    for generation in found:
        yield json_text(dataclasses.asdict(generation))


def _show(parts: Iterable[str], prompt: str) -> None:
    print(prompt, end="", flush=True)
    for part in parts:
        print(part, end="", flush=True)
    print()
