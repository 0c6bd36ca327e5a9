"""A run as one configuration: what is learned, from which text, by which model, and how.

A run file is YAML: ``preset: transformer-small`` and what differs from it. ``load`` lays the file over the preset and
the command line's ``PATH=VALUE`` over both; ``fill`` puts in what only the tokenizer and the machine can tell.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from dragoman.checkpoint import run_config
from dragoman.config import OneOf, config, from_dict, kind_of, load_yaml, merge, override, to_dict, unknown
from dragoman.data.arrays import LabelledArrays
from dragoman.data.captions import CaptionedImages
from dragoman.data.mixture import Concatenate, SourceMixture
from dragoman.data.noise import Noise, NoNoise
from dragoman.data.order import Order, Shuffled
from dragoman.data.tasks import ContrastiveTask, DenoisingTask, LanguageModellingTask, Task, TranslationTask
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
from dragoman.model.interface import SequenceModel
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
    """Read one after the other."""
    mixture: SourceMixture = Concatenate()
    """How much of each of them is learned from."""
    order: Order = Shuffled()
    """Which pairs come when."""
    context: Context = NoContext()
    """What is read of the document before each source."""
    noise: Noise = NoNoise()
    """What is done to sources while training."""
    cleaning: Cleaning = Cleaning()
    """Rules for the training text; validation and test sets that are given stay as they are."""
    hold_out: HoldOut = HoldOut()
    """How many pairs of the training text become test and validation set, where none is given below."""
    valid: PairSource | None = None
    """Chooses the best checkpoint."""
    test: PairSource | None = None
    """Only for the final figures."""
    overlap: Literal["drop", "keep"] = "drop"
    """What to do with training pairs that are like one of a given validation or test set."""


Data = Annotated[
    CaptionedImages | PairsConfig | Instructions | LabelledArrays | LabelledTexts | Questions | TaggedTexts | Texts,
    OneOf(usual="pairs"),
]
"""Which kind a task takes, its lesson says (``lessons/``)."""


@config
class Keep:
    last: PositiveInt = 2
    """The newest so many checkpoints; averaging needs as many as it averages. The best one is always kept."""
    every: PositiveInt | None = None
    """Besides, those after a multiple of so many steps."""
    optimizer_states: PositiveInt = 1
    """When the run has finished, the newest so many keep the optimizer's state, without which none can be resumed."""


@config
class TrainConfig:
    budget: Budget = Steps(steps=10_000)
    """How long to train."""
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine(peak=1e-3)
    """Learning rate by step."""
    rates: Rates = Uniform()
    """Where parts of the model learn faster or slower than the schedule says."""
    batch_tokens: PositiveInt = 4096
    """Tokens in a batch, padding included; of pairs, those of the larger side."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are summed before each step, for large batches in little memory."""
    clip: PositiveFloat | None = 1.0
    """Longest gradient; None for no limit."""
    precision: Annotated[Precision, BeforeValidator(full_dtype_name)] = "auto"
    """auto: bfloat16 where the machine multiplies it faster, else float32. Weights are float32 in any case."""
    products: Products = "auto"
    """Whose products of float32 matrices a CPU runs: torch's own or oneDNN's, which differ in the last bits. auto:
    whichever is measured to be faster when the run begins."""
    on_memory: OnMemory = Split()
    """What to do about a batch that does not fit into memory."""
    parallel: Parallel = Replicated()
    """What each of several processes has of the model; how many there are changes no step."""
    compile: Compile = Off()
    """Whether a step's pass is made one program, before the first of them: see ``compiling.On``."""
    recompute: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more time."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, such as 0.999, to validate and use in their place; None for none."""
    validate_every: PositiveInt = 500
    """Steps between validations, each of which also saves if it is the best one."""
    save_every: PositiveInt = 500
    """Steps between checkpoints."""
    report_every: PositiveInt = 20
    """Steps that a line of metrics.jsonl sums up."""
    keep: Keep = Keep()
    """Checkpoints that stay."""
    best_by: str | None = None
    """What the best checkpoint is chosen by: loss, or a figure of the task's in percent (BLEU or chrF of the ``scored``
    sentences; accuracy or macro F1; exact match or F1). None for accuracy where labels are told, for F1 of answers,
    else for the loss."""
    patience: PositiveInt | None = None
    """Validations without improvement after which training stops; None to use up the budget."""
    samples: NonNegativeInt = 5
    """Validation examples that are answered and shown at each validation."""
    scored: NonNegativeInt = 0
    """Validation sentences that are translated and scored (BLEU, chrF) at each validation; takes time, 0 for none."""
    give_up_after: PositiveInt = 10
    """Steps in a row without a finite gradient, skipped, after which training stops."""
    seed: NonNegativeInt = 1
    """Of initial weights, order of the data, and dropout."""
    device: Device = "auto"
    """auto: the GPU if there is one."""


@config
class RunConfig:
    task: Task = TranslationTask()
    data: Data
    start_from: WarmStart | None = None
    """What to begin with; None for weights at random."""
    tokenizer: TokenizerConfig = Bpe(vocab=8000)
    """Trained on both sides together, unless the target has its own."""
    target_tokenizer: TokenizerConfig | None = None
    """For the target alone; None for one tokenizer for both."""
    model: ModelConfig
    train: TrainConfig = TrainConfig()


# ---- reading and completing -----------------------------------------------------------------------


def load(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file (or its content) describes, with its ``preset`` below and ``overrides`` on top.

    Raises:
        ConfigError: no such file or preset, an unknown key, a missing key, or an ill-typed value, with its path.
    """
    where = "" if isinstance(source, Mapping) else str(source)
    given = dict(source) if isinstance(source, Mapping) else load_yaml(Path(source))
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, such as 'preset: transformer-small'")
    given, overrides = renamed(given), [renamed_assignment(text) for text in overrides]
    preset = given.pop("preset", None)
    data = merge(_preset(preset, where), given) if preset is not None else given
    if isinstance(start := data.get("start_from"), dict) and "run" in start:
        data = merge(_earlier(start["run"]), data)
    if overrides:
        data = _spelled_out(data)
    for assignment in overrides:
        data = override(data, assignment)
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
    """What to say instead of a mistake in ``data`` that has no kind, and so was read as pairs of sentences."""
    task, given = data.get("task"), data.get("data")
    kind = task.get("kind") if isinstance(task, dict) else task
    pairs, prefix = (None, *map(kind_of, (TranslationTask, ContrastiveTask))), f"{where}." if where else ""
    if kind in pairs or not mistake.startswith(f"{prefix}data.") or not isinstance(given, dict) or "kind" in given:
        return None
    known = ", ".join(sorted(map(kind_of, get_args(get_args(Data)[0]))))
    return f"{prefix}data: without a kind it is pairs of sentences, not for {kind}: set data.kind, to one of {known}"


def _earlier(run: str) -> dict[str, Any]:
    """What a run hands on to one that begins with its weights."""
    config = run_config(run)
    return {name: config[name] for name in ("task", "tokenizer", "target_tokenizer", "model") if name in config}


def _without_sizes(data: dict[str, Any]) -> dict[str, Any]:
    """A run whose vocabulary grows: how large it will be, only the text tells."""
    for holder in (data["model"], data["model"].get("inputs", {})):
        holder |= {name: None for name in ("vocab", "source_vocab") if name in holder}
    return data


def _check_padding(value: Any, path: str) -> None:
    """Raises ConfigError for a model that takes another id for padding than batches hold: what it says of a text would
    depend on the texts beside it."""
    if isinstance(value, TokenInput) and value.pad != PAD:
        raise ConfigError(f"{path}.pad: {value.pad}, but texts are padded with {PAD}: leave it out")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_padding(getattr(value, field.name), f"{path}.{field.name}")


def _check_tokenizers(cfg: RunConfig, start: WarmStart) -> None:
    """
    Raises:
        ConfigError: the run file asks for other tokenizers than those of the run it begins with.
    """
    config = run_config(start.run)
    usual = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    for name in ("tokenizer", "target_tokenizer"):
        if to_dict(getattr(cfg, name)) != config.get(name, to_dict(usual[name])):
            raise ConfigError(
                f"{name}: what begins with {start.run} has its tokenizers: leave this out (and a preset that says "
                "it), or add pieces to them with start_from.vocabulary"
            )


def _preset(name: Any, where: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ConfigError(unknown(f"{where}: preset" if where else "preset", name, PRESETS))
    return PRESETS[name]()


def _spelled_out(data: dict[str, Any]) -> dict[str, Any]:
    """With every default written in, so that an override finds its place; unchanged where it still lacks something."""
    try:
        return to_dict(from_dict(RunConfig, data))
    except ConfigError:
        return data


def writer(cfg: RunConfig) -> TransformerConfig:
    """The model, which is to write text.

    Raises:
        ConfigError: it is of a family that does not.
    """
    if not isinstance(cfg.model, TransformerConfig):
        task, model = kind_of(type(cfg.task)), kind_of(type(cfg.model))
        raise ConfigError(f"model: {model} writes no text, which {task} needs: use transformer")
    return cfg.model


def outline(cfg: RunConfig) -> SequenceModel:
    """The model in shape alone, without memory for its weights: shows what does not fit before anything is begun.

    Raises:
        ConfigError: sizes that do not fit one another, or a task that the model is not made for, with the path.
    """
    model = writer(cfg)
    if isinstance(cfg.task, TranslationTask | DenoisingTask) and model.encoder is None:
        task = kind_of(type(cfg.task))
        raise ConfigError(f"model.encoder: must be given for {task}: a decoder alone reads no source")
    if isinstance(cfg.task, LanguageModellingTask) and model.encoder is not None:
        raise ConfigError("model.encoder: a language model reads nothing but what it writes: set it to null")
    vocab = model.vocab or 1000  # any number, while there is no tokenizer to tell
    own = None if cfg.target_tokenizer is None else model.source_vocab or vocab + 1
    with torch.device("meta"):
        return model.sized(vocab=vocab, source_vocab=own).build()


def fill(cfg: RunConfig, *, vocab: int, source_vocab: int | None) -> RunConfig:
    """``cfg`` with everything decided: vocabulary sizes, the width that Noam scales by, the precision.

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
    """``cfg`` with what the width ``dim`` and the machine decide."""
    schedule = cfg.train.schedule
    if isinstance(schedule, Noam) and schedule.dim is None:
        schedule = dataclasses.replace(schedule, dim=dim)
    device = choose_device(cfg.train.device)
    precision = choose_precision(cfg.train.precision, device)
    products = choose_products(cfg.train.products, device, precision)
    train = dataclasses.replace(cfg.train, schedule=schedule, precision=precision, products=products)
    return dataclasses.replace(cfg, train=train)
