"""Run directory: all files of a run, written atomically and verified before use.

    runs/NAME/
      config.yaml   tokenizer.json (or source.tokenizer.json and target.tokenizer.json)
      base.safetensors (where adapters learn: the weights that do not; checkpoints then hold the others)
      metrics.jsonl   samples.jsonl   report.html   forecasts.jsonl (of a budget of minutes)
      checkpoints/step-000500/   model.safetensors   optimizer.safetensors   average.safetensors (a moving average)
                                 config.json   progress.json   manifest.json (format; size and hash of all the others)
      best -> checkpoints/...    last -> checkpoints/...

A checkpoint is renamed to its name after every byte of it is on the disk, so a folder with a name is complete. Nothing
in it is pickled.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dragoman import durable
from dragoman.capabilities import wrong_command_error
from dragoman.config import CONFIG, dump_yaml, from_dict, load_yaml
from dragoman.errors import CheckpointError
from dragoman.json_files import read_json
from dragoman.migrations import Content, renamed
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.families import ModelConfig
from dragoman.model.inputs import TokenInput
from dragoman.model.interface import SequenceModel
from dragoman.model.loading import load
from dragoman.model.lora import Lora, fold
from dragoman.run_lock import LOCK, RunLock
from dragoman.snapshot import Checkpoint, Damaged, encode, read_shapes, read_tensors, step_name
from dragoman.text.tokens.tokenizer import Tokenizer

FOLDER = "checkpoints"
JOINT, SOURCE, TARGET = "tokenizer.json", "source.tokenizer.json", "target.tokenizer.json"
BASE = "base.safetensors"


# ---- the run --------------------------------------------------------------------------------------


class RunDirectory:
    """Folder of a run. Any number of processes may read it; one at a time may write."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.folder = self.path / FOLDER
        self._lock = RunLock(self.path)

    @classmethod
    def create(cls, path: str | Path, config: Any) -> "RunDirectory":
        """Create a run directory with ``config`` (a config object or plain data), and open it for writing.

        Raises:
            CheckpointError: there is a run, or anything else, at ``path``.
        """
        run = cls(path)
        if (run.path / CONFIG).exists():
            raise CheckpointError(
                f"{path}: there is a run here already: go on with it (--resume) or choose another --run name"
            )
        if run.path.exists() and not (run.path.is_dir() and all(p.name.startswith(".") for p in run.path.iterdir())):
            raise CheckpointError(f"{path}: exists and is not an empty folder: choose another --run name")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._lock.claim()
            run.write_config(config)
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: cannot create the run: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> "RunDirectory":
        """Open the run at ``path``; ``write`` claims it for this process and removes the remains of a crash.

        Raises:
            CheckpointError: no run there, another process is writing to it, or it cannot be written to.
        """
        run = cls(path)
        if not os.path.isfile(run.path / CONFIG):  # unlike Path, no error for what can be no name
            raise CheckpointError(f"{path}: {_what_is_there(run.path)}")
        if write:
            try:
                run._lock.claim()
                run._mend()
            except OSError as error:
                run.close()
                raise CheckpointError(f"{path}: cannot be written to: {error.strerror}") from None
        return run

    def is_being_written(self) -> bool:
        """Return whether a process has locked the run for writing."""
        return self._lock.is_held()

    def _mend(self) -> None:
        """Remove the remains of a crash, and update the links ``last`` and ``best`` if the crash prevented that."""
        durable.sweep(self.path)
        durable.sweep(self.folder)
        for newest in self.checkpoints()[-1:]:
            self._link("last", newest.path.name)
            with suppress(CheckpointError):  # of a damaged file, which ``load`` reports
                self._link_best(read_json(newest.path / "progress.json").get("best_step"))

    def _link(self, name: str, checkpoint: str) -> None:
        """Make the link ``name`` lead to a checkpoint, if it does not yet."""
        if (self.path / name).resolve() != (self.folder / checkpoint).resolve():
            durable.link(self.path / name, f"{FOLDER}/{checkpoint}")

    def _link_best(self, step: int | None) -> None:
        """Make the checkpoint after ``step`` steps the best one, if there is one."""
        if step is not None and (self.folder / step_name(step)).is_dir():
            self._link("best", step_name(step))

    def discard(self) -> None:
        """Remove the files of a run that has no checkpoint, and the folder if it is empty then."""
        self.close()
        for name in (CONFIG, JOINT, SOURCE, TARGET, BASE, LOCK):
            (self.path / name).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def close(self) -> None:
        """Unlock the run for other writers."""
        self._lock.release()

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the run as plain data."""
        return renamed(load_yaml(self.path / CONFIG))

    def write_config(self, config: Any) -> None:
        durable.replace(self.path / CONFIG, dump_yaml(config).encode())

    def write_tokenizers(self, source: Tokenizer, target: Tokenizer) -> None:
        """Write the tokenizers, one file if both are the same object, else two."""
        files = {JOINT: source} if source is target else {SOURCE: source, TARGET: target}
        for name, tokenizer in files.items():
            durable.replace_with(self.path / name, tokenizer.save)

    def tokenizer_files(self) -> list[Path]:
        return [path for path in (self.path / name for name in (JOINT, SOURCE, TARGET)) if path.exists()]

    def write_base(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the frozen weights, once for all checkpoints."""
        durable.replace(self.path / BASE, encode(tensors))

    @property
    def base(self) -> dict[str, Tensor]:
        """Frozen weights; empty where every checkpoint holds all weights."""
        return read_tensors(self.path / BASE) if (self.path / BASE).exists() else {}

    @property
    def beside(self) -> list[Path]:
        """Files that every checkpoint requires."""
        return [*self.tokenizer_files(), *([self.path / BASE] if (self.path / BASE).exists() else [])]

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Load the tokenizers of source and target; the same object if the run has one for both."""
        if (self.path / JOINT).exists():
            return (joint := Tokenizer.load(self.path / JOINT)), joint
        return Tokenizer.load(self.path / SOURCE), Tokenizer.load(self.path / TARGET)

    # ---- checkpoints ------------------------------------------------------------------------------

    def checkpoints(self) -> list[Checkpoint]:
        """List the checkpoints written while training, oldest first."""
        found = [c for c in map(Checkpoint, self.folder.glob("step-*")) if c.step is not None]
        return sorted(found, key=lambda c: c.step or 0)

    def save(
        self,
        step: int | str,
        *,
        tensors: Mapping[str, Mapping[str, Tensor]],
        progress: Mapping[str, Any],
        config: Mapping[str, Any],
        best: bool = False,
    ) -> Checkpoint:
        """Write a checkpoint and make it the last one (and the best one, if it is).

        A text instead of a step names a separate checkpoint, such as an average of several. Additional memory of the
        size of the largest part of ``tensors`` is needed.

        Raises:
            CheckpointError: it cannot be written, for instance because the disk is full. All others stay unchanged.
        """
        path = self.folder / (step_name(step) if isinstance(step, int) else step)
        needed = sum(t.nbytes for part in tensors.values() for t in part.values())
        try:
            with durable.folder(path) as partial:
                Checkpoint(partial).write(tensors, progress, config, beside=self.beside)
            if isinstance(step, int):
                self._link("last", path.name)
            if best:
                self._link("best", path.name)
        except OSError as error:
            free = shutil.disk_usage(self.path).free
            raise CheckpointError(
                f"{path}: cannot save: {error.strerror} ({needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free). "
                f"Earlier checkpoints are untouched: make room and go on with --resume"
            ) from error
        return Checkpoint(path)

    @property
    def _best(self) -> str | None:
        link = self.path / "best"
        return Path(os.readlink(link)).name if link.is_symlink() else None

    def find(self, which: str | int = "last") -> Checkpoint:
        """Return the checkpoint ``which``: ``last``, ``best`` (the last one if there is no best yet), a step or a name.

        Raises:
            CheckpointError: there is none of that name; the message lists the existing ones.
        """
        known = self.checkpoints()
        if which == "best":
            which = self._best or "last"
        if which == "last":
            if not known:
                raise CheckpointError(f"{self.path}: no checkpoint yet: train on with --resume")
            return known[-1]
        path = self.folder / (step_name(int(which)) if str(which).isdecimal() else str(which))
        if not path.is_dir():
            names = ", ".join(c.path.name for c in known) or "none"
            raise CheckpointError(f"{path}: no such checkpoint; there are: {names}")
        return Checkpoint(path)

    def load(self, which: str | int = "last", parts: Iterable[str] | None = None) -> Content:
        """Verify and read the checkpoint ``which``; ``parts`` as in ``Checkpoint.load``.

        Raises:
            CheckpointError: there is none; it is damaged (the message names the file, and the newest intact
                checkpoint); or it has a format that this version does not read.
        """
        checkpoint = self.find(which)
        try:
            return checkpoint.load(parts)
        except Damaged as damage:
            if which in ("last", "best") and not checkpoint.path.exists():
                return self.load(which, parts)  # a run that goes on has pruned it meanwhile
            others = (c.path.name for c in reversed(self.checkpoints()) if c != checkpoint and _is_intact(c))
            intact = next(others, None)
            remedy = f"use the newest intact one with --checkpoint {intact}" if intact else "no other one is intact"
            raise CheckpointError(f"{damage}: {remedy}") from None

    def weights(self, which: str | int = "last", parts: Iterable[str] = ("model", "average")) -> Content:
        """Read the checkpoint ``which`` with all weights under ``model``: its moving average, if it has one and
        ``parts`` include it, with adapters folded in.

        Raises:
            CheckpointError: same as ``load``.
        """
        content = self.load(which, parts)
        own = content.tensors["model"] | content.tensors.get("average", {})
        if (self.path / BASE).exists():
            own = fold(self.base | own, from_dict(Lora, content.config["start_from"]["lora"], where=str(self.path)))
        return dataclasses.replace(content, tensors={"model": own})

    def shapes(self, which: str | int = "last") -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights that ``weights`` returns, without reading or verifying them."""
        files = [self.path / BASE, self.find(which).path / "model.safetensors"]
        return {name: shape for file in files if file.exists() for name, shape in read_shapes(file).items()}

    def prune(self, *, keep: int, every: int | None = None) -> None:
        """Remove checkpoints, except the newest ``keep``, those at multiples of ``every`` steps, and the best.

        Raises:
            CheckpointError: one cannot be removed.
        """
        for checkpoint in self.checkpoints()[: -max(keep, 1)]:
            if checkpoint.path.name != self._best and not (every and checkpoint.step and checkpoint.step % every == 0):
                try:
                    durable.remove(checkpoint.path)
                except OSError as error:
                    said = f"{checkpoint.path}: cannot remove it: {error.strerror}; all is saved"
                    raise CheckpointError(said) from error

    def rewind(self, checkpoint: Checkpoint, best: int | None) -> None:
        """Make ``checkpoint`` the last one, and the one after ``best`` steps the best one.

        Newer ones are renamed to ``step-....abandoned`` and not used again.
        """
        for newer in reversed(self.checkpoints()):
            if (newer.step or 0) > (checkpoint.step or 0):
                aside = newer.path.with_suffix(".abandoned")
                if aside.exists():
                    durable.remove(aside)
                os.rename(newer.path, aside)
        self._link("last", checkpoint.path.name)
        (self.path / "best").unlink(missing_ok=True)
        self._link_best(best)


def _what_is_there(path: Path) -> str:
    """Describe what stands where no run is, and what to do."""
    if (whole := run_folder(path)) != path and os.path.isfile(whole / CONFIG):
        return f"is a checkpoint of {whole}: use --checkpoint {path.resolve().name}"
    there = "not a run directory, it has no config.yaml" if os.path.exists(path) else "no such run directory"
    return f"{there}: start one with `dragoman {'import' if os.path.isfile(path / 'config.json') else 'train'}`"


def _is_intact(checkpoint: Checkpoint) -> bool:
    with suppress(Damaged):
        checkpoint.verify()
        return True
    return False


# ---- the trained model ----------------------------------------------------------------------------


def load_any(path: str | Path, checkpoint: str | int = "best") -> tuple[RunDirectory, nn.Module, dict[str, Any]]:
    """Same as ``load_model``, but for any kind of model: return the run, its model, and its configuration."""
    run, checkpoint = run_and_checkpoint(path, checkpoint)
    content = run.weights(checkpoint)
    model = load(from_dict(ModelConfig, content.config["model"], where=str(run.path)).build, content.tensors["model"])
    return run, model.eval(), content.config


def load_model(path: str | Path, checkpoint: str | int = "best") -> tuple[SequenceModel, Tokenizer, Tokenizer]:
    """Same as ``load_writer``, without the configuration."""
    return load_writer(path, checkpoint)[:3]


def load_writer(path: str | Path, checkpoint: str | int) -> tuple[SequenceModel, Tokenizer, Tokenizer, dict[str, Any]]:
    """Return the model of a run in evaluation mode, its tokenizers (source, target) and the checkpoint's configuration.

    ``path`` is a run directory or a checkpoint. Averaged weights are taken where a run keeps them. Raises
    CheckpointError as ``RunDirectory.load``; or for a model that writes no text.
    """
    run, model, config = load_any(path, checkpoint)
    if not isinstance(model, SequenceModel):
        raise wrong_command_error(run.path, model)
    return model, *run.tokenizers(), config


def load_reader(
    path: str | Path, checkpoint: str | int = "best", *, tower: str = "first"
) -> tuple[Encoder, Tokenizer | None, dict[str, Any]]:
    """Load the encoder model of a run, its tokenizer if it reads texts, and the run's configuration.

    ``tower`` chooses one of two towers, ``first`` or ``second``.

    Raises:
        CheckpointError: same as ``RunDirectory.load``; or a model that generates text.
    """
    run, model, config = load_any(path, checkpoint)
    if isinstance(model, TwoTowers):
        model = model.second if tower == "second" else model.first
    elif tower != "first":
        raise CheckpointError(f"{run.path}: its model is no pair of towers: there is no second one")
    if not isinstance(model, Encoder):
        raise wrong_command_error(run.path, model)
    return model, run.tokenizers()[0] if isinstance(model.cfg.inputs, TokenInput) else None, config


def checkpoint_at(path: str | Path, checkpoint: str | int = "best") -> Checkpoint:
    """Return the checkpoint that ``load_model`` would read.

    Raises:
        CheckpointError: no such run or checkpoint.
    """
    run, name = run_and_checkpoint(path, checkpoint)
    return run.find(name)


def run_config(path: str | Path) -> dict[str, Any]:
    """Return the configuration of a run (see ``load_model``) as plain data; raise CheckpointError without one."""
    return run_and_checkpoint(path, "best")[0].config


def run_folder(path: str | Path) -> Path:
    """Return the directory of a run, given as in ``load_model``; it need not exist."""
    whole = Path(path).resolve()
    return whole.parent.parent if whole.parent.name == FOLDER else Path(path)


def run_and_checkpoint(path: str | Path, checkpoint: str | int) -> tuple[RunDirectory, str | int]:
    """Return the run at ``path``, which may be that of a checkpoint, and its checkpoint: the one at ``path`` then."""
    whole = run_folder(path)
    return RunDirectory.open(whole), checkpoint if whole == Path(path) else Path(path).resolve().name
