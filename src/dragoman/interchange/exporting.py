"""Export of a run to a Hugging Face folder that `transformers` opens.

An imported run is written in its own layout and order of entries, with its small files as they were. A run trained here
takes the layout of the first family that can express its configuration.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragoman import durable
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict, kind_of
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.checking import check_huggingface, check_tokenizer, checker_missing
from dragoman.interchange.families import FAMILIES
from dragoman.interchange.family import Family, alike, has_mixers, obstacle, shape_of
from dragoman.interchange.fields import settings_of
from dragoman.interchange.image_processor import write_preprocessing
from dragoman.interchange.importing import (
    ORIGIN,
    RECORD,
    SMALL,
    labels_of,
    origin_vocabulary,
    problem_type_of,
    their_problem_type,
)
from dragoman.interchange.known_parts import HUGGINGFACE
from dragoman.interchange.names import TensorPair, pairs
from dragoman.interchange.sentences import write_sentence
from dragoman.interchange.tensors import Report, write_stream
from dragoman.interchange.tokenizer import write_tokenizer
from dragoman.interchange.vocabulary import VocabularyMapping, of_tokenizer
from dragoman.interchange.whitelist import unknown_parts
from dragoman.json_files import read_json, write_json
from dragoman.model.attention import AttentionConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import NoHead, SentenceHead
from dragoman.model.inputs import PatchInput
from dragoman.model.positions.position import Sinusoidal
from dragoman.model.shapes_alone import shapes_alone
from dragoman.model.transformer import TransformerConfig
from dragoman.text.tokens.tokenizer import INPUT_FRAME, PROMPT_FRAME, SOURCE_FRAME, Tokenizer

ModelWeights = Mapping[str, Tensor]
Expressible = TransformerConfig | EncoderConfig


def export_huggingface(
    run: str | Path,
    folder: str | Path,
    which: str | int = "best",
    progress: Report | None = None,
    *,
    check: bool = True,
) -> str:
    """Write the Hugging Face folder ``folder`` and return the name of the family whose layout it has.

    Its answers and ids are compared with the run's first, unless ``check`` is false or transformers is not installed.

    Raises:
        CheckpointError: as ``RunDirectory.load``, something is at ``folder`` already, or the export answers otherwise.
        ConfigError: no layout can express the model; the message names the path that stands in the way.
    """
    directory, folder = RunDirectory.open(run), Path(folder)
    check_free(folder)
    cfg, weights = weights_of(directory, which)
    if not isinstance(cfg, TransformerConfig | EncoderConfig):
        raise ConfigError(f"model.kind: {kind_of(type(cfg))} cannot be expressed in a Hugging Face layout")
    if unknown := next(unknown_parts(cfg, HUGGINGFACE), None):
        raise ConfigError(f"{unknown}: cannot be expressed in a Hugging Face layout")
    family, learned = choose_family(cfg, directory), weights
    vocabulary = _vocabulary(directory)
    if vocabulary is not None and vocabulary.bos is None:
        _check_beginning(weights, vocabulary, family)
    if family.name == "marian" and isinstance(cfg, TransformerConfig):
        weights = with_halved_sinusoids(cfg, weights)
    weights = with_zero_biases(to_layout(cfg, family), weights)
    with durable.folder(folder) as partial:
        prefix = _prefix(directory, family, cfg)
        _write_weights(partial / "model.safetensors", family, cfg, weights, vocabulary, prefix, progress)
        described = None
        if _is_as_it_came(directory, family, cfg, vocabulary):
            _give_back(directory.path / ORIGIN, partial)
        else:
            _describe(partial, family, cfg, directory, vocabulary)
            described = vocabulary
        if check and checker_missing("huggingface") is None:
            _check(partial, family, cfg, learned, vocabulary, described and directory.tokenizers()[0])
    return family.name


def _check(
    folder: Path,
    family: Family,
    cfg: Expressible,
    weights: ModelWeights,
    vocabulary: VocabularyMapping | None,
    tokenizer: Tokenizer | None,
) -> None:
    """Compare a folder with the run; the tokenizer too, where we have written it."""
    headless = isinstance(cfg, EncoderConfig) and isinstance(cfg.head, SentenceHead)
    if headless:
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
    check_huggingface(folder, dataclasses.replace(cfg, head=NoHead()) if headless else cfg, weights, vocabulary)
    if tokenizer is not None and vocabulary is not None:
        default = {"decoder": PROMPT_FRAME, "encoder-decoder": SOURCE_FRAME, "encoder": INPUT_FRAME}[family.shape]
        check_tokenizer(folder, tokenizer, vocabulary, tokenizer.frame(default))


def check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists and is not an empty folder: choose another with -o")


def weights_of(run: RunDirectory, which: str | int) -> tuple[ModelConfig, ModelWeights]:
    """Return the configuration of a run's model and its weights, the moving average where there is one."""
    content = run.weights(which)
    return from_dict(ModelConfig, content.config["model"], where=str(run.path)), content.tensors["model"]


# ---- which layout ----------------------------------------------------------------------------------


def choose_family(cfg: Expressible, run: RunDirectory) -> Family:
    """Return the family that a model was imported from, or else the first that can express it.

    Raises:
        ConfigError: none can; the message names what stands in the way in the nearest one.
    """
    origin = read_json(run.path / ORIGIN / RECORD).get("family")
    found = []
    for family in FAMILIES:
        if origin not in (None, family.name) or family.shape != shape_of(cfg):
            continue
        hindrance = obstacle(family, to_layout(cfg, family))
        if hindrance is None:
            return family
        found.append((family, hindrance))
    family, (path, ours, theirs) = max(found, key=lambda f: (has_mixers(f[0], cfg), f[1][0].count(".")))
    raise ConfigError(
        f"{path}: {ours} cannot be expressed in a Hugging Face layout; the nearest, {family.name}, has {theirs} there. "
        f"Layouts: {', '.join(known.name for known in FAMILIES)}"
    )


def to_layout(cfg: Expressible, family: Family) -> Expressible:
    """Return the configuration as the family writes it.

    For Marian, sines come first and the logits have a bias (of zeros, where we have none). A sentence encoder is
    written without its head, which is in another file.
    """
    if isinstance(cfg, EncoderConfig):
        return dataclasses.replace(cfg, head=NoHead()) if isinstance(cfg.head, SentenceHead) else cfg
    if family.name == "llama":
        return _with_output_biases(cfg)
    if family.name != "marian":
        return cfg
    position = cfg.position
    if isinstance(position, Sinusoidal) and position.layout == "interleaved":
        position = dataclasses.replace(position, layout="halves")
    return dataclasses.replace(cfg, position=position, output_bias=True)


def _with_output_biases(cfg: TransformerConfig) -> TransformerConfig:
    """Return Qwen 2's configuration in the layout of LLaMA, which has a bias on attention's output too.

    The bias is of zeros, where we have none. The layout is changed because transformers reads the text of a folder in
    Qwen 2's layout with the tokenizer of Qwen 2, whatever tokenizer.json states.
    """
    pattern = tuple(
        dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, out_bias=True))
        if isinstance(block.mixer, AttentionConfig) and block.mixer.bias
        else block
        for block in cfg.decoder.pattern
    )
    return dataclasses.replace(cfg, decoder=dataclasses.replace(cfg.decoder, pattern=pattern))


def with_zero_biases(to_layout: Expressible, weights: ModelWeights) -> ModelWeights:
    """Return the weights with zeros for the biases that a layout has and the model has not."""
    with shapes_alone():
        wanted = to_layout.build().named_parameters()
    missing = {name: parameter.shape for name, parameter in wanted if name not in weights and name.endswith(".bias")}
    dtype = next(iter(weights.values())).dtype
    return dict(weights) | {name: torch.zeros(shape, dtype=dtype) for name, shape in missing.items()}


def with_halved_sinusoids(cfg: TransformerConfig, weights: ModelWeights) -> ModelWeights:
    """Return the same model with its channels reordered: those that carry sines first, then those with cosines.

    Where sines and cosines alternate, nothing else says which channel is which, so every matrix that reads or writes
    them is reordered.
    """
    found = dict(weights)
    if "output.bias" not in found:
        found["output.bias"] = torch.zeros(len(found["output.weight"]))
    if not (isinstance(cfg.position, Sinusoidal) and cfg.position.layout == "interleaved"):
        return found
    channels = torch.arange(cfg.dim)
    order = torch.cat([channels[0::2], channels[1::2]])
    done: dict[int, Tensor] = {}
    for name, value in found.items():
        part, leaf = name.rsplit(".", 1)
        last = part.rpartition(".")[2]
        if value.data_ptr() in done:
            found[name] = done[value.data_ptr()]
            continue
        if last in ("q", "k", "v", "up", "tokens", "output") and leaf == "weight" and ".mixer_residual" not in part:
            found[name] = value[:, order]
        elif last == "out" or "_residual." in name:
            found[name] = value[order]
        done[value.data_ptr()] = found[name]
    return found


def _prefix(run: RunDirectory, family: Family, cfg: Expressible) -> str:
    """Return the prefix omitted from names: as it was at import, and for encoders without a head."""
    record = read_json(run.path / ORIGIN / RECORD)
    bare = isinstance(cfg, EncoderConfig) and isinstance(cfg.head, NoHead | SentenceHead)
    return "" if record.get("prefixed", not bare) else family.prefix


# ---- what is written -------------------------------------------------------------------------------


def _vocabulary(run: RunDirectory) -> VocabularyMapping | None:
    if not run.tokenizer_files():
        return None  # a model that reads no text
    if vocabulary := origin_vocabulary(run):
        return vocabulary
    source, target = run.tokenizers()
    if source is not target:
        raise ConfigError(
            "target_tokenizer: this layout has one vocabulary for both sides: train with one tokenizer to export it"
        )
    return of_tokenizer(target)


def _check_beginning(weights: ModelWeights, vocabulary: VocabularyMapping, family: Family) -> None:
    """Check that the row of BOS equals the row that the layout shares between both.

    This concerns layouts where texts begin with the token that also ends (or pads) them.
    """
    table = weights["embed.tokens.weight"]
    position = vocabulary.order().tolist().index(vocabulary.start)
    if not torch.equal(table[1], table[position]):
        raise ConfigError(
            f"model.suppressed: row 1 of embed.tokens.weight, which begins a text, has learned apart from row "
            f"{position}; the layout of {family.name} has one row for both"
        )


def _write_weights(
    path: Path,
    family: Family,
    cfg: Expressible,
    weights: ModelWeights,
    vocabulary: VocabularyMapping | None,
    left_out: str,
    progress: Report | None,
) -> None:
    with shapes_alone():
        model = to_layout(cfg, family).build()
    parameters = dict(model.named_parameters())
    by_name: dict[str, TensorPair] = {
        pair.theirs.removeprefix(left_out): pair for pair in pairs(model, family.table(cfg), family.tables(cfg))
    }

    def produce(name: str) -> Tensor:
        pair = by_name[name]
        return pair.write([weights[ours] for ours in pair.ours], vocabulary)

    listed = [
        (name, by_name[name].shape(parameters, vocabulary), weights[by_name[name].ours[0]].dtype)
        for name in sorted(by_name)
    ]
    write_stream(path, listed, produce, {"format": "pt"}, progress)


def _is_as_it_came(run: RunDirectory, family: Family, cfg: Expressible, vocabulary: VocabularyMapping | None) -> bool:
    """Return whether the small files of the folder that a run was imported from still describe it.

    They do if configuration, vocabulary and labels have not changed.
    """
    origin = run.path / ORIGIN
    if not (origin / RECORD).is_file():
        return False
    content, record = read_json(origin / "config.json"), read_json(origin / RECORD)["vocabulary"]
    return (
        record == (vocabulary and vocabulary.to_dict())
        and alike(to_layout(cfg, family), family.config(settings_of(content, "config.json", family.model_type)))
        and _labels(run) == (labels_of(cfg, content) or None)
        and _problem_type(run) == problem_type_of(content, len(labels_of(cfg, content)) or 2)
    )


def _labels(run: RunDirectory) -> list[str] | None:
    """Return the names of the classes, where the run's task has them."""
    return (run.config.get("task") or {}).get("labels")


def _problem_type(run: RunDirectory) -> str:
    return (run.config.get("task") or {}).get("problem_type", "single_label")


def _give_back(origin: Path, folder: Path) -> None:
    for name in SMALL:
        if (origin / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(origin / name, folder / name)


def _describe(
    folder: Path, family: Family, cfg: Expressible, run: RunDirectory, vocabulary: VocabularyMapping | None
) -> None:
    """Write config.json and the tokenizer's files for a model that was trained here."""
    content: dict[str, Any] = {"architectures": [family.architectures[0]], "model_type": family.model_type}
    content |= family.describe(to_layout(cfg, family))
    if vocabulary is not None:
        content |= {"vocab_size": vocabulary.size}
        content |= write_tokenizer(
            folder, run.tokenizers()[1], vocabulary, shape=family.shape, origin=run.path / ORIGIN
        )
    if labels := _labels(run):
        content |= {"problem_type": their_problem_type(_problem_type(run))}
        content |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.head, SentenceHead):
        write_sentence(folder, cfg.head, cfg.dim)
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.inputs, PatchInput):
        write_preprocessing(folder, cfg.inputs)
    write_json(folder / "config.json", content)
