"""Opening what is to be examined: a run, a run file, a preset, or a model that a Python module builds."""

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dragoman.checkpoint import load_any
from dragoman.config import from_dict
from dragoman.errors import CheckpointError, ConfigError, UserError
from dragoman.inspect.doctor.subject import TrainingFacts
from dragoman.model.contrastive import TwoTowers
from dragoman.model.meta_device import on_meta_device
from dragoman.presets import PRESETS
from dragoman.text.corpus import source_rows
from dragoman.text.held_out import read_held_out
from dragoman.text.store import Store
from dragoman.train import recipe
from dragoman.train.budget import Steps
from dragoman.train.schedule import Schedule
from dragoman.train.tasks import task_data_for
from dragoman.train.tasks.reading import ReaderTaskData
from dragoman.train.tasks.translation import TranslationTaskData

VOCABULARY = 300
"""Entries of a vocabulary whose size only the data give; every check works at this size."""
MOST_PARAMETERS = 1_000_000_000
MOST_ROWS = 1_000_000
"""Training rows that are compared with test rows."""


@dataclass(frozen=True)
class OpenedModel:
    """Model to be examined."""

    name: str
    """Part of what was opened; empty where it is all of it."""
    model: nn.Module
    batch: Any
    facts: TrainingFacts


class ModuleError(UserError):
    """Python module or function of the user that cannot be found or that raised."""


def open_models(
    what: str,
    overrides: Sequence[str] = (),
    *,
    checkpoint: str = "best",
    inputs: str | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    facts: str | None = None,
) -> list[OpenedModel]:
    """Return the model to be examined, or both towers of a model that has two.

    Args:
        what: the directory of a run, a run file, a preset, or MODULE:NAME of a model or of a function that builds one.
        overrides: PATH=VALUE settings over a run file or preset.
        inputs: MODULE:NAME of a batch, or of a function that makes one.
        loss: MODULE:NAME of a function of model and batch that returns the loss.
        optimizer: MODULE:NAME of a function of the model that returns an optimizer, or it and its scheduler.
        facts: MODULE:NAME of a dictionary with fields of ``TrainingFacts``, or of a function that returns one.

    Raises:
        CheckpointError: no such run, or a damaged one.
        ConfigError: a run file or preset that is wrong, or a model that is too large.
        ModuleError: a module or name that does not exist, or that raised.
    """
    opened = _open(what, overrides, checkpoint)
    found = []
    for each in opened:
        known = each.facts
        _replace(known, facts)
        batch = each.batch
        if inputs is not None:
            make = _made(inputs, each.model)
            batch, known.batches = make(), make
        if loss is not None:
            known.loss = _callable(loss)
        if optimizer is not None:
            result = _called(optimizer, _callable(optimizer), each.model)
            known.optimizer, known.scheduler = result if isinstance(result, tuple) else (result, None)
            _check_optimizer(optimizer, known.optimizer)
        found.append(OpenedModel(each.name, each.model, batch, known))
    return found


def _open(what: str, overrides: Sequence[str], checkpoint: str) -> list[OpenedModel]:
    path = Path(what)
    if path.is_dir():
        return _run(path, checkpoint)
    if path.suffix in (".yaml", ".yml") or (path.is_file() and path.suffix != ".py"):
        return _config(recipe.load(path, overrides))
    if ":" in what:
        return [_module(what)]
    if what in PRESETS:
        return _config(recipe.load({"preset": what, "data": {"train": []}}, overrides))
    near = get_close_matches(what, PRESETS, n=1)
    hint = f" (or the preset {near[0]}?)" if near else ""
    raise ConfigError(
        f"{what}: no run, run file or preset of this name{hint}: for a model of yours write MODULE:NAME, such as "
        "mymodule:build_model"
    )


# ---- runs and run files ----------------------------------------------------------------------------


def _run(path: Path, checkpoint: str) -> list[OpenedModel]:
    if (path / "config.json").is_file() and not (path / "config.yaml").is_file():
        raise CheckpointError(
            f"{path}: a folder of transformers, not a run: import it first (dragoman import {path}), or examine it by "
            "a function that loads it, MODULE:NAME"
        )
    directory, model, config = load_any(path, checkpoint)
    tokenizers = directory.tokenizers() if directory.tokenizer_files() else None
    train, test = _rows(directory.path / "data", config, tokenizers)
    facts = {
        "rates": _planned(config) or _logged(directory.path / "metrics.jsonl"),
        "tokenizer": tokenizers,
        "train": train,
        "test": test,
        "texts": _texts(directory.path / "data" / "valid.jsonl"),
    }
    return _parts(model, facts)


def _parts(model: nn.Module, facts: Mapping[str, Any]) -> list[OpenedModel]:
    if not isinstance(model, TwoTowers):
        return [OpenedModel("", model, None, TrainingFacts(**facts))]
    towers = [("first tower", model.first), ("second tower", model.second)]
    distinct = towers[:1] if model.first is model.second else towers
    return [OpenedModel(name, tower, None, TrainingFacts(**facts)) for name, tower in distinct]


def _planned(config: dict[str, Any]) -> list[float] | None:
    """Return the learning rates that a run's configuration says, or None where it is of another kind."""
    try:
        cfg = from_dict(recipe.RunConfig, config)
        return _scheduled(cfg.train.schedule, cfg.train.budget)
    except (ConfigError, AssertionError):
        return None


def _logged(path: Path) -> list[float] | None:
    """Return the learning rates that a run has logged, or None."""
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [row["lr"] for row in rows if row.get("kind") == "train" and "lr" in row] or None


def _texts(path: Path) -> list[str]:
    """Return some validation texts of a translator's run."""
    try:
        pairs = read_held_out(path)[:100] if path.is_file() else []
    except UserError:
        return []
    return [text for pair in pairs for text in (pair.source, pair.target)]


def _rows(data: Path, config: dict[str, Any], tokenizers: Any) -> tuple[list[Any] | None, list[Any] | None]:
    """Return training and held-out examples as rows of ids, as far as a run stores both."""
    if not (data / "train").is_dir():
        return None, None
    try:
        train = _stored(data / "train")
    except (UserError, OSError):
        return None, None
    held_out: list[Any] = []
    for read in (lambda: _stored(data / "valid"), lambda: _test_rows(data, config, tokenizers)):
        with suppress(UserError, OSError, KeyError):  # one of them may be gone, or of an earlier version
            held_out += read()
    return train, held_out or None


def _test_rows(data: Path, config: dict[str, Any], tokenizers: Any) -> list[Any]:
    """Return the test examples of a run as ``_stored`` returns training examples; none of tasks that hold out prompts.

    Raises:
        UserError, OSError: they cannot be read.
    """
    if (data / "test").is_dir():
        return _stored(data / "test")
    path, cfg = data / "test.jsonl", from_dict(recipe.RunConfig, config)
    task = task_data_for(cfg)
    if issubclass(task, ReaderTaskData):
        facts = json.loads((data / "facts.json").read_bytes())
        columns = task.store_for(cfg, tokenizers[0], facts).columns(task.read_held_out(path, facts.get("labels", ())))
        return [tuple(tuple(map(int, part)) for part in row) for row in zip(*columns.values(), strict=True)]
    if not issubclass(task, TranslationTaskData):
        return []
    pairs = read_held_out(path)
    targets = ([*tokenizers[1].encode(pair.target), tokenizers[1].eos] for pair in pairs)
    return [(tuple(s), tuple(t)) for s, t in zip(source_rows(tokenizers[0], pairs, None), targets, strict=True)]


def _stored(folder: Path) -> list[Any]:
    store = Store.open(folder)
    columns = list(store.columns.values())
    count = min(MOST_ROWS, min(map(len, columns), default=0))
    return [tuple(tuple(column.raw_row(i).tolist()) for column in columns) for i in range(count)]


def _config(cfg: recipe.RunConfig) -> list[OpenedModel]:
    model: Any = cfg.model
    sizes: dict[str, Any] = {}
    parameters = inspect.signature(model.sized).parameters
    given = getattr(cfg.tokenizer, "vocab", None)
    if "vocab" in parameters:
        known = getattr(model, "vocab", None) or getattr(getattr(model, "inputs", None), "vocab", None)
        sizes["vocab"] = known or min(given or VOCABULARY, VOCABULARY)
    if "classes" in parameters:
        sizes["classes"] = getattr(getattr(model, "head", None), "classes", None) or 2
    sized = model.sized(**sizes)
    with on_meta_device():
        count = sum(p.numel() for p in sized.build().parameters())
    if count > MOST_PARAMETERS:
        raise ConfigError(
            f"model: {count / 1e9:.1f} billion parameters are too many to examine: the wiring is the same in small, "
            "such as with model.decoder.depth=2 and a smaller model.dim"
        )
    width = getattr(model, "dim", None)
    resolved = recipe.resolve_auto(cfg, width) if isinstance(width, int) else cfg
    return _parts(sized.build(), {"rates": _scheduled(resolved.train.schedule, cfg.train.budget)})


def _scheduled(schedule: Schedule, budget: Any) -> list[float]:
    """Return the learning rates of a run; where the budget is no number of steps, those of 20 warm-ups."""
    total = budget.steps if isinstance(budget, Steps) else 20 * max(getattr(schedule, "warmup", 0), 50)
    return [schedule.rate(step, total) for step in range(1, total + 1, max(1, total // 2000))]


# ---- modules of the user ---------------------------------------------------------------------------


def _module(what: str) -> OpenedModel:
    built = _attribute(what)
    result = built if isinstance(built, nn.Module) else _called(what, built)
    batch = None
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], nn.Module):
        result, batch = result
    if not isinstance(result, nn.Module):
        raise ModuleError(f"{what}: gives a {type(result).__name__}: it must be or return a torch.nn.Module")
    return OpenedModel("", result, batch, TrainingFacts())


def _attribute(what: str) -> Any:
    """Return what MODULE:NAME stands for, with modules of the current folder."""
    name, _, path = what.rpartition(":")
    module = _imported(name, what)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f": did you mean {near[0]}?" if near else f": it has {', '.join(_public(found)[:8]) or 'nothing'}"
            raise ModuleError(f"{what}: no {part!r} in {name}{hint}")
        found = getattr(found, part)
    return found


def _public(found: Any) -> list[str]:
    return [name for name in vars(found) if not name.startswith("_") and callable(getattr(found, name))]


def _imported(name: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        if name.endswith(".py"):
            return _from_file(Path(name))
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModuleError(f"{what}: no module {name} in {here} or among the installed packages") from None
        raise _raised(what, error) from None
    except (FileNotFoundError, ValueError, TypeError):
        raise ModuleError(f"{what}: no module {name or '(empty)'}: write MODULE:NAME") from None
    except Exception as error:
        raise _raised(what, error) from None


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(path)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(path.stem)


def _called(what: str, function: Any, *arguments: Any) -> Any:
    """Call a function of the user.

    Raises:
        ModuleError: it is no function, or it raised: with its own error and its line.
    """
    if not callable(function):
        raise ModuleError(f"{what}: is a {type(function).__name__}: it must be a function")
    try:
        return function(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise _raised(what, error) from None


def _raised(what: str, error: Exception) -> ModuleError:
    """Return an error of the user's code as one line with the place of its last line there."""
    frames = list(traceback.extract_tb(error.__traceback__))
    libraries = ("site-packages", "importlib", str(Path(__file__).parents[2]))
    own = [frame for frame in frames if not any(part in frame.filename for part in libraries)]
    own = [frame for frame in own if not frame.filename.startswith("<")]
    text = (str(error).strip().splitlines() or [""])[0]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""
    if isinstance(error, SyntaxError) and error.filename:
        place, text = f"{Path(error.filename).name}:{error.lineno}: ", error.msg
    return ModuleError(f"{what}: {place}{type(error).__name__}: {text}")


def _callable(what: str) -> Callable[..., Any]:
    found = _attribute(what)
    if not callable(found):
        raise ModuleError(f"{what}: is a {type(found).__name__}: it must be a function")
    return found


def _made(what: str, model: nn.Module) -> Callable[[], Any]:
    """Return what makes a batch: the user's function, given the model if it asks for one, or the value itself."""
    found = _attribute(what)
    if not callable(found) or isinstance(found, torch.Tensor):
        return lambda: found
    try:
        asked = [p for p in inspect.signature(found).parameters.values() if p.default is p.empty]
    except ValueError:
        asked = []
    return lambda: _called(what, found, *([model] if len(asked) == 1 else []))


def _replace(facts: TrainingFacts, what: str | None) -> None:
    """Put what MODULE:NAME says into the facts."""
    if what is None:
        return
    found = _attribute(what)
    given = _called(what, found) if callable(found) else found
    known = {field.name for field in fields(TrainingFacts)}
    if not isinstance(given, Mapping) or not set(given) <= known:
        wrong = ", ".join(map(str, set(given) - known)) if isinstance(given, Mapping) else type(given).__name__
        raise ModuleError(f"{what}: {wrong}: it must be a dictionary with some of {', '.join(sorted(known))}")
    for name, value in given.items():
        setattr(facts, name, value)


def _check_optimizer(what: str, optimizer: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ModuleError(
            f"{what}: gives a {type(optimizer).__name__}: it must return a torch.optim.Optimizer, or it and a scheduler"
        )
