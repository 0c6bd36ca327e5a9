"""Configuration of a run: what is learned, from which text, by which model, and how.

A run file is YAML: ``preset: transformer-small`` and the settings that differ from it. ``load`` merges the file over
the preset and the command line's ``PATH=VALUE`` over both; ``fill`` adds what only the tokenizer and the machine can
determine.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from dragoman.checkpoint import run_config
from dragoman.config import OneOf, config, from_dict, kind_of, load_yaml, merge, override, to_dict, unknown
from dragoman.data.arrays import LabelledArrays
from dragoman.data.captions import CaptionedImages
from dragoman.data.mixture import Concatenate, SourceMixture
from dragoman.data.noise import Noise, NoNoise
from dragoman.data.order import Order, Shuffled
from dragoman.data.segmentation import BestSegmentation, Segmentation
from dragoman.data.tasks import ContrastiveTask, DenoisingTask, LanguageModellingTask, Task, TranslationTask
from dragoman.data.tasks.usual import task_of
from dragoman.errors import ConfigError
from dragoman.machine import (
    Device,
    Precision,
    Products,
    choose_device,
    choose_precision,
    choose_products,
    full_dtype_name,
)
from dragoman.migrations import renamed, renamed_assignment
from dragoman.model.families import ModelConfig
from dragoman.model.inputs import TokenInput
from dragoman.model.interface import SequenceConfig, SequenceModel
from dragoman.model.meta_device import on_meta_device
from dragoman.model.recurrent.model import RecurrentConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.presets import PRESETS
from dragoman.text.cleaning.clean import Cleaning
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.context import Context, NoContext
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.labelled import LabelledTexts
from dragoman.text.formats.pairs import PairSource
from dragoman.text.formats.questions import Questions
from dragoman.text.formats.tagged import TaggedTexts
from dragoman.text.retrieval import NoRetrieval, Retrieval
from dragoman.text.tokens.extension import Kept
from dragoman.text.tokens.tokenizer import PAD
from dragoman.text.tokens.training import Bpe, TokenizerConfig
from dragoman.train.budget import Budget, Steps
from dragoman.train.compiling import Compile, Off
from dragoman.train.distributed.parallel import Parallel, Replicated
from dragoman.train.memory import OnMemory, Split
from dragoman.train.optimize import AdamW, Optimizer
from dragoman.train.rates import Rates, Uniform
from dragoman.train.schedule import Cosine, Noam, Schedule
from dragoman.train.warm_start import WarmStart

# ---- the tree -------------------------------------------------------------------------------------


@config
class PairsConfig:
    """Pairs of sentences, for translation."""

    train: tuple[PairSource, ...]
    """Sources of training pairs, read one after the other."""
    mixture: SourceMixture = Concatenate()
    """Proportion in which the sources are drawn."""
    order: Order = Shuffled()
    """Order in which pairs are drawn."""
    context: Context = NoContext()
    """Preceding sentences of the document that are read before each source."""
    retrieval: Retrieval = NoRetrieval()
    """Similar sentences of a translation memory, whose translations are read before each source."""
    noise: Noise = NoNoise()
    """Noise added to sources while training."""
    segmentation: Segmentation = BestSegmentation()
    """Segmentation of training texts into subwords: the best one, or a random one each time a pair is used."""
    cleaning: Cleaning = Cleaning()
    """Rules for the training text; given validation and test sets stay as they are."""
    hold_out: HoldOut = HoldOut()
    """Number of training pairs held out as test and validation set, where none is given below."""
    valid: PairSource | None = None
    """Pairs that choose the best checkpoint."""
    test: PairSource | None = None
    """Pairs used only for the final scores."""
    overlap: Literal["drop", "keep"] = "drop"
    """Treatment of training pairs that are like one of a given validation or test set."""


Data = Annotated[
    CaptionedImages | PairsConfig | Instructions | LabelledArrays | LabelledTexts | Questions | TaggedTexts | Texts,
    OneOf(usual="pairs"),
]
"""Data of a run. Each task says which kinds it takes (``train/tasks/``)."""


@config
class Keep:
    """Checkpoints that remain."""

    last: PositiveInt = 2
    """Number of newest checkpoints to keep; averaging needs as many as it averages. The best one is always kept."""
    every: PositiveInt | None = None
    """Also keep those after every multiple of this number of steps."""
    optimizer_states: PositiveInt = 1
    """Number of newest checkpoints that keep the optimizer's state once the run has finished; without it none can be
    resumed."""


@config
class TrainConfig:
    """How a model is trained."""

    budget: Budget = Steps(steps=10_000)
    """Length of training."""
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine(peak=1e-3)
    """Learning rate by step."""
    rates: Rates = Uniform()
    """Learning rates of parts of the model, relative to the schedule."""
    batch_tokens: PositiveInt = 4096
    """Tokens in a batch, padding included; of pairs, those of the larger side."""
    accumulate: PositiveInt = 1
    """Gradient accumulation: batches summed before each step, for large batches in little memory."""
    clip: PositiveFloat | None = 1.0
    """Largest gradient norm (gradient clipping); None for no limit."""
    precision: Annotated[Precision, BeforeValidator(full_dtype_name)] = "auto"
    """auto: bfloat16 where the machine multiplies it faster, else float32. Weights are float32 in any case."""
    products: Products = "auto"
    """Implementation of float32 matrix products on a CPU: torch's own or oneDNN's, which differ in the last bits. auto:
    whichever is measured to be faster when the run begins."""
    on_memory: OnMemory = Split()
    """Treatment of a batch that does not fit into memory."""
    parallel: Parallel = Replicated()
    """Distribution of the model over several processes; the number of processes changes no step."""
    compile: Compile = Off()
    """Compile a step's forward and backward pass into one program before the first step: see ``compiling.On``."""
    recompute: bool = False
    """Activation (gradient) checkpointing: keep only each layer's input for the backward pass and compute the rest
    again, which takes less memory and a third more time."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average (EMA) of the weights, such as 0.999, to validate and use in their place;
    None for none."""
    validate_every: PositiveInt = 500
    """Steps between validations, each of which also saves if it is the best one."""
    save_every: PositiveInt = 500
    """Steps between checkpoints."""
    report_every: PositiveInt = 20
    """Steps that a line of metrics.jsonl summarizes."""
    keep: Keep = Keep()
    """Checkpoints that remain."""
    best_by: str | None = None
    """Metric that the best checkpoint is chosen by: loss, or a score of the task in percent (BLEU or chrF of the
    ``scored`` sentences; accuracy or macro F1; exact match or F1). None for accuracy where labels are predicted, F1
    where answers are, else the loss."""
    patience: PositiveInt | None = None
    """Early stopping: validations without improvement after which training stops; None to use up the budget."""
    samples: NonNegativeInt = 5
    """Validation examples whose output is shown at each validation."""
    scored: NonNegativeInt = 0
    """Validation sentences that are translated and scored (BLEU, chrF) at each validation; takes time, 0 for none."""
    give_up_after: PositiveInt = 10
    """Steps in a row without a finite gradient, skipped, after which training stops."""
    seed: NonNegativeInt = 1
    """Seed of initial weights, order of the data, and dropout."""
    device: Device = "auto"
    """auto: the GPU if there is one."""


@config
class RunConfig:
    """Complete configuration of a run, as its ``config.yaml`` has it."""

    task: Task = TranslationTask()
    data: Data
    start_from: WarmStart | None = None
    """Earlier run whose weights this one starts from; None for random weights."""
    tokenizer: TokenizerConfig = Bpe(vocab=8000)
    """Tokenizer trained on both sides together, unless the target has its own."""
    target_tokenizer: TokenizerConfig | None = None
    """Tokenizer for the target alone; None for one tokenizer for both."""
    model: ModelConfig
    train: TrainConfig = TrainConfig()


AUTO = "auto"
"""Name of the preset that ``automatic.py`` chooses."""
SECTIONS = ("task", "data", "tokenizer", "model", "train")
"""Settings of a run that cannot be null."""

# ---- reading and completing -----------------------------------------------------------------------


def read_run_file(path: str | Path) -> dict[str, Any]:
    """Return the content of a run file. A section without settings is left out, as if its line were not there.

    Raises:
        ConfigError: no such file, not YAML, or no mapping.
    """
    given = load_yaml(Path(path))
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, such as 'preset: transformer-small'")
    return {name: value for name, value in given.items() if value is not None or name not in SECTIONS}


def chosen_preset(preset: Any, overrides: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the preset that the last ``preset=NAME`` among ``overrides`` puts in the place of the file's, and the
    other overrides."""
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("preset=")]
    return (chosen[-1] if chosen else preset), [text for text in overrides if not text.startswith("preset=")]


def load(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run that a YAML file (or its content) describes, with its ``preset`` below and ``overrides`` on top.

    Raises:
        ConfigError: no such file or preset, an unknown key, a missing key, or an ill-typed value, with its path.
    """
    where = "" if isinstance(source, Mapping) else str(source)
    given = dict(source) if isinstance(source, Mapping) else read_run_file(source)
    given, overrides = renamed(given), [renamed_assignment(text) for text in overrides]
    preset, overrides = chosen_preset(given.pop("preset", None), overrides)
    data = merge(_preset(preset, where), given) if preset is not None else given
    data |= _starting_point(data.get("start_from"), overrides)
    if isinstance(start := data.get("start_from"), dict) and "run" in start:
        data = merge(_earlier(start["run"]), data)
    if overrides:
        data = _spelled_out(data)
    for assignment in overrides:
        data = override(data, assignment)
    data = renamed(data)
    try:
        cfg = from_dict(RunConfig, data, where=where)
    except ConfigError as error:
        raise ConfigError(_kind_missing(data, str(error), where) or str(error)) from None
    _check_padding(cfg.model, f"{where}: model" if where else "model")
    if cfg.start_from is None:
        return cfg
    _check_tokenizers(cfg, cfg.start_from)
    return cfg if isinstance(cfg.start_from.vocabulary, Kept) else from_dict(RunConfig, _without_sizes(to_dict(cfg)))


def _kind_missing(data: Mapping[str, Any], mistake: str, where: str) -> str | None:
    """Return the error for ``data`` that has no kind and so was read as pairs of sentences; None if that is not the
    mistake."""
    task, given = data.get("task"), data.get("data")
    kind = task.get("kind") if isinstance(task, dict) else task
    pairs, prefix = (None, *map(kind_of, (TranslationTask, ContrastiveTask))), f"{where}." if where else ""
    if kind in pairs or not mistake.startswith(f"{prefix}data.") or not isinstance(given, dict) or "kind" in given:
        return None
    known = ", ".join(sorted(map(kind_of, get_args(get_args(Data)[0]))))
    return f"{prefix}data: without a kind it is pairs of sentences, not for {kind}: set data.kind, to one of {known}"


def _starting_point(start: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the run file's ``start_from`` with the run that ``overrides`` put there, under its name: that run's
    configuration comes before all other overrides. Empty where neither names one."""
    found = {} if start is None else {"start_from": start}
    for assignment in overrides:
        if assignment.partition("=")[0] in ("start_from", "start_from.run", "*.run"):
            found = override({} if found.get("start_from") is None else found, assignment)
    return found


def _earlier(run: str) -> dict[str, Any]:
    """Return the configuration that a run passes on to one that starts from its weights."""
    config = run_config(run)
    passed_on = {name: config[name] for name in ("tokenizer", "target_tokenizer", "model") if name in config}
    return {"task": task} | passed_on if (task := task_of(config)) else passed_on


def _without_sizes(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` without vocabulary sizes: the vocabulary grows, and only the text determines by how much."""
    for holder in (data["model"], data["model"].get("inputs", {})):
        holder |= {name: None for name in ("vocab", "source_vocab") if name in holder}
    return data


def _check_padding(value: Any, path: str) -> None:
    """Check that the model's padding id is the one batches are padded with.

    Raises:
        ConfigError: it is another one, so that the output for a text would depend on the texts beside it in a batch.
    """
    if isinstance(value, TokenInput | TransformerConfig | RecurrentConfig) and value.pad != PAD:
        raise ConfigError(f"{path}.pad: {value.pad}, but texts are padded with {PAD}: leave it out")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_padding(getattr(value, field.name), f"{path}.{field.name}")


def _check_tokenizers(cfg: RunConfig, start: WarmStart) -> None:
    """Check that the run file asks for the tokenizers of the run it starts from.

    Raises:
        ConfigError: it asks for other tokenizers.
    """
    config = run_config(start.run)
    usual = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    for name in ("tokenizer", "target_tokenizer"):
        if to_dict(getattr(cfg, name)) != config.get(name, to_dict(usual[name])):
            raise ConfigError(
                f"{name}: a run that starts from {start.run} has its tokenizers: leave this out (and a preset that "
                "sets it), or add pieces to them with start_from.vocabulary"
            )


def _preset(name: Any, where: str) -> dict[str, Any]:
    if name == AUTO:
        raise ConfigError("preset: auto is chosen when training starts: use dragoman train, or name another preset")
    place = f"{where}: preset" if where else "preset"
    if not isinstance(name, str):
        raise ConfigError(f"{place}: expected a name, got {name!r}")
    if name not in PRESETS:
        raise ConfigError(unknown(place, name, PRESETS))
    return PRESETS[name]()


def _spelled_out(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` with every default written in, so that an override finds its place; unchanged where it is
    incomplete."""
    try:
        return to_dict(from_dict(RunConfig, data))
    except ConfigError:
        return data


def writer(cfg: RunConfig) -> SequenceConfig:
    """Return the model of a run that generates text.

    Raises:
        ConfigError: the model's family generates no text.
    """
    if not isinstance(cfg.model, SequenceConfig):
        task, model = kind_of(type(cfg.task)), kind_of(type(cfg.model))
        raise ConfigError(f"model: {model} generates no text, which {task} needs: use transformer")
    return cfg.model


def outline(cfg: RunConfig) -> SequenceModel:
    """Build the model on the meta device, without memory for its weights: finds sizes that do not fit before training.

    Raises:
        ConfigError: sizes that do not fit one another, or a task that the model is not made for, with the path.
    """
    model = writer(cfg)
    if isinstance(cfg.task, TranslationTask | DenoisingTask) and not model.translates:
        task = kind_of(type(cfg.task))
        raise ConfigError(f"model.encoder: must be given for {task}: a decoder alone reads no source")
    if isinstance(cfg.task, LanguageModellingTask) and model.translates:
        raise ConfigError("model.encoder: a language model reads only its own output: set it to null")
    vocab = model.vocab or 1000  # any size does before there is a tokenizer
    own = model.source_vocab or (None if cfg.target_tokenizer is None else vocab + 1)
    with on_meta_device():
        return model.sized(vocab=vocab, source_vocab=own).build()


def fill(cfg: RunConfig, *, vocab: int, source_vocab: int | None) -> RunConfig:
    """Return ``cfg`` with everything determined: vocabulary sizes, the width that Noam scales by, the precision.

    Raises:
        ConfigError: sizes were given that are not the tokenizer's.
    """
    model = writer(cfg)
    for name, found in (("vocab", vocab), ("source_vocab", source_vocab)):
        if (given := getattr(model, name)) not in (None, found):
            raise ConfigError(
                f"model.{name}: {given} given, but the tokenizer has {found} entries: leave it out, it is filled in"
            )
    return resolve_auto(dataclasses.replace(cfg, model=model.sized(vocab=vocab, source_vocab=source_vocab)), model.dim)


def resolve_auto(cfg: RunConfig, dim: int) -> RunConfig:
    """Return ``cfg`` with every setting that the width ``dim`` and the machine determine."""
    schedule = cfg.train.schedule
    if isinstance(schedule, Noam) and schedule.dim is None:
        schedule = dataclasses.replace(schedule, dim=dim)
    device = choose_device(cfg.train.device)
    precision = choose_precision(cfg.train.precision, device)
    products = choose_products(cfg.train.products, device, precision)
    train = dataclasses.replace(cfg.train, schedule=schedule, precision=precision, products=products)
    return dataclasses.replace(cfg, train=train)
