"""Import from and export to other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dragoman.api.run import Run, run_path
from dragoman.config import unknown
from dragoman.errors import ConfigError
from dragoman.interchange import importing
from dragoman.interchange.checking import checker_missing
from dragoman.interchange.ctranslate2 import export_ctranslate2
from dragoman.interchange.exporting import export_huggingface
from dragoman.interchange.tensors import Report

Program = Literal["huggingface", "ctranslate2", "onnx", "gguf"]


def import_checkpoint(folder: str | Path, run: str | Path | None = None, *, progress: Report | None = None) -> Run:
    """Make a run from a Hugging Face folder; every function opens it like one that was trained here.

    Args:
        folder: config.json, safetensors and tokenizer.json.
        run: the run directory to create; by default ``imported/`` and the folder's name.
        progress: called with the bytes done and their number.

    Raises:
        CheckpointError: no such folder, missing or damaged weights, or something at ``run`` already.
        ConfigError: an architecture, or a setting of it, that is not supported.
        DataError: no tokenizer, or one that does not fit the vocabulary.
    """
    goal = Path(run) if run is not None else Path("imported") / Path(folder).resolve().name
    return Run(importing.import_checkpoint(folder, goal, progress).path)


def import_notes(run: str | Path | Run) -> list[str]:
    """Return what an import did not take over from its folder, a sentence each."""
    from dragoman.checkpoint import RunDirectory

    return importing.import_notes(RunDirectory.open(run_path(run)))


@dataclass(frozen=True)
class Exported:
    """A run in the layout of another program."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files, the folder's own first level."""
    layout: str
    """Family whose layout was written; the name of the program where it has one layout."""
    compared: bool
    """True where the export was opened by that program and gave the same answers as the run."""


def export(
    run: str | Path | Run,
    to: Program,
    output: str | Path | None = None,
    *,
    quantization: str | None = None,
    check: bool = True,
    checkpoint: str | int = "best",
) -> Exported:
    """Write a run's model so that transformers, CTranslate2, ONNX Runtime or llama.cpp can open it.

    Args:
        run: a run, or its directory.
        to: ``huggingface``, ``ctranslate2``, ``onnx`` or ``gguf``.
        output: the folder to create; by default the run's name and the program's.
        quantization: for CTranslate2: int8, int16, float16, bfloat16, float32 or int8_float32; for GGUF: f32, f16,
            bf16 or q8_0.
        check: open the export with that program, if it is installed, and compare answers before it is put in place.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.

    Raises:
        ConfigError: no such program, or a model that its layout cannot hold; the message names the setting to blame.
        CheckpointError: no such run, or something at ``output`` already.
    """
    if to not in get_args(Program):
        raise ConfigError(unknown("to", to, get_args(Program)))
    if quantization is not None and to not in ("ctranslate2", "gguf"):
        raise ConfigError(f"quantization: is for ctranslate2 and gguf, not for {to}")
    path = run_path(run)
    folder, layout = Path(output or f"{path.resolve().name}-{to}"), to
    if to == "huggingface":
        layout = export_huggingface(path, folder, checkpoint, check=check)
    elif to == "onnx":
        from dragoman.interchange.onnx import export_onnx

        export_onnx(path, folder, checkpoint, check=check)
    elif to == "gguf":
        from dragoman.interchange.gguf import export_gguf

        layout = export_gguf(path, folder, checkpoint, quantization, check=check)
    else:
        export_ctranslate2(path, folder, checkpoint, quantization, check=check)
    files = tuple(sorted(file.name for file in folder.iterdir()))
    return Exported(folder, files, layout, check and checker_missing(to) is None)
