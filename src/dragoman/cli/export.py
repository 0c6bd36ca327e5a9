"""dragoman export: a run in the layout of another program."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.options import CheckpointOption, RunArgument, writable_folder


class ExportFormat(StrEnum):
    """Programs to export to."""

    huggingface = "huggingface"
    ctranslate2 = "ctranslate2"
    onnx = "onnx"
    gguf = "gguf"


def export(
    run: RunArgument,
    to: Annotated[ExportFormat, typer.Option(help="The program to export to.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder to create; default: the run's name and the format.",
            callback=writable_folder,
        ),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help="For CTranslate2: int8, int16, float16, bfloat16, float32 or int8_float32; "
            "for GGUF: f32, f16, bf16 or q8_0."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the export with the run before it is put in place.")
    ] = True,
    checkpoint: CheckpointOption = "best",
) -> None:
    """Write a run's model so that transformers, CTranslate2, ONNX Runtime or llama.cpp can open it."""
    from dragoman.errors import ConfigError
    from dragoman.interchange.checking import checker_missing

    if quantization is not None and to not in (ExportFormat.ctranslate2, ExportFormat.gguf):
        raise ConfigError(f"--quantization: for --to ctranslate2 or gguf, not {to.value}: leave it out")
    folder = output or Path(f"{run.resolve().name}-{to.value}")
    if to is ExportFormat.huggingface:
        from dragoman.interchange.exporting import export_huggingface

        family = export_huggingface(run, folder, checkpoint, check=check, explain=print)
        trust = ", trust_remote_code=True" if family == "dragoman" else ""
        layout = "with the model's own code" if trust else f"in the layout of {family}"
        print(f"{folder}: {layout}; open it in transformers with from_pretrained({str(folder)!r}{trust})")
    elif to is ExportFormat.onnx:
        from dragoman.interchange.onnx import export_onnx

        print(f"{folder}: {', '.join(export_onnx(run, folder, checkpoint, check=check))}")
    elif to is ExportFormat.gguf:
        from dragoman.interchange.gguf import FILE, export_gguf

        architecture = export_gguf(run, folder, checkpoint, quantization, check=check)
        print(f"{folder / FILE}: of the architecture {architecture}; llama.cpp opens it")
    else:
        from dragoman.interchange.ctranslate2 import export_ctranslate2

        export_ctranslate2(run, folder, checkpoint, quantization, check=check)
        print(f"{folder}: ctranslate2 opens it; words in and out are the entries of the tokenizer beside it")
    missing = checker_missing(to.value)
    if check and missing is None:
        print("compared with the run: the same answers")
    else:
        print(f"not compared with the run: {f'{missing} is not installed' if missing else '--no-check'}")
