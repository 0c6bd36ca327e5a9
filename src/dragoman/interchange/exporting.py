"""Export of a run to a Hugging Face folder that `transformers` opens.

An imported run is written in its own layout and order of entries, with its small files as they were. A run trained here
takes the layout of the first family that can express its configuration. Where none can, the folder holds the model's
own code, for ``trust_remote_code``.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragoman import durable
from dragoman.capabilities import TRANSCRIBES, ability
from dragoman.checkpoint import RunDirectory
from dragoman.config import from_dict
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.checking import check_huggingface, check_tokenizer, checker_missing
from dragoman.interchange.family import Expressible, Family, alike
from dragoman.interchange.fields import settings_of
from dragoman.interchange.image_processor import write_preprocessing
from dragoman.interchange.importing import (
    ORIGIN,
    RECORD,
    copy_small_files,
    labels_of,
    origin_vocabulary,
    problem_type_of,
    their_problem_type,
)
from dragoman.interchange.layouts import (
    Layout,
    ModelWeights,
    find_layout,
    stated_longest,
    to_layout,
    with_halved_sinusoids,
    with_zero_biases,
)
from dragoman.interchange.names import TensorPair, pairs
from dragoman.interchange.older_tokenizers import TARGET
from dragoman.interchange.remote_code.opening import open_with_code
from dragoman.interchange.remote_code.writing import (
    MODEL_TYPE,
    describe_network,
    shape_with_code,
    write_code,
    write_network,
)
from dragoman.interchange.sentences import write_sentence
from dragoman.interchange.tensors import Report, write_stream
from dragoman.interchange.tokenizer import write_chat_templates, write_tokenizer
from dragoman.interchange.vocabulary import Shape, VocabularyMapping, of_tokenizer
from dragoman.json_files import read_json, write_json
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import NoHead, SentenceHead
from dragoman.model.inputs import PatchInput, TokenInput
from dragoman.model.meta_device import on_meta_device
from dragoman.model.prefixed import PrefixedTransformerConfig
from dragoman.model.transformer import TransformerConfig
from dragoman.text.tokens.tokenizer import INPUT_FRAME, PROMPT_FRAME, SOURCE_FRAME, Tokenizer


def export_huggingface(
    run: str | Path,
    folder: str | Path,
    checkpoint: str | int = "best",
    progress: Report | None = None,
    *,
    check: bool = True,
    explain: Callable[[str], None] | None = None,
) -> str:
    """Write the Hugging Face folder ``folder`` and return the name of the family whose layout it has.

    A model that no layout can express is written with its own code, and ``dragoman`` is returned.
    Its answers and ids are compared with the run's first, unless ``check`` is false or transformers is not installed.

    Args:
        run: a run directory.
        folder: the folder to create.
        checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
        progress: called with the numbers of tensors written and to be written.
        check: compare before the folder is put in place.
        explain: called with the reason, where no layout can express the model.

    Raises:
        CheckpointError: as ``RunDirectory.load``, something is at ``folder`` already, or the export answers otherwise.
        ConfigError: an imported model that its own layout can no longer express, or a part that cannot be exported.
    """
    directory, folder = RunDirectory.open(run), Path(folder)
    check_free(folder)
    cfg, weights = weights_of(directory, checkpoint)
    try:
        layout = find_layout(cfg, weights, directory)
    except ConfigError as error:
        if (directory.path / ORIGIN / RECORD).is_file():
            raise
        if obstacle := code_obstacle(cfg):
            raise ConfigError(obstacle) from None
        if explain:
            explain(str(error))
        _write_with_code(directory, folder, cfg, weights, check=check)
        return MODEL_TYPE
    vocabulary = vocabulary_of(directory)
    _check_two_vocabularies(layout, vocabulary)
    with durable.folder(folder) as partial:
        described = _write_layout(partial, directory, layout, vocabulary, progress)
        if check and checker_missing("huggingface") is None:
            tokenizer = directory.tokenizers()[0] if described else None
            _check(partial, layout.family.shape, cfg, weights, vocabulary, tokenizer)
    return layout.family.name


def _write_layout(
    folder: Path,
    directory: RunDirectory,
    layout: Layout,
    vocabulary: VocabularyMapping | None,
    progress: Report | None,
) -> bool:
    """Write a model in the layout of a family; return whether its tokenizer is written by us, not as it came."""
    family, cfg, weights = layout.family, layout.cfg, layout.weights
    if vocabulary is not None and vocabulary.bos is None and isinstance(cfg, TransformerConfig):
        _check_beginning(weights, vocabulary, family)
    if family.name == "marian" and isinstance(cfg, TransformerConfig):
        weights = with_halved_sinusoids(cfg, weights)
    weights = with_zero_biases(to_layout(cfg, family), weights)
    prefix = _prefix(directory, family, cfg)
    _write_weights(folder / "model.safetensors", family, cfg, weights, vocabulary, prefix, progress)
    if _is_as_it_came(directory, family, cfg, vocabulary):
        _give_back(directory, folder)
        return False
    content = {"architectures": [family.architectures[0]], "model_type": family.model_type}
    content |= family.describe(to_layout(cfg, family))
    if longest := stated_longest(layout, directory):
        content |= {"max_position_embeddings": longest}
    _describe(folder, content, family.shape, cfg, directory, vocabulary)
    return vocabulary is not None


def code_obstacle(cfg: ModelConfig) -> str | None:
    """Return why a model cannot be written with its own code; None where it can."""
    if isinstance(cfg, PrefixedTransformerConfig):
        return "model: prefixed_transformer cannot be exported: its images have no place in the folders of any format"
    return None


def _write_with_code(
    directory: RunDirectory, folder: Path, cfg: ModelConfig, weights: ModelWeights, *, check: bool
) -> None:
    """Write a model with its own code, for ``trust_remote_code``.

    A target that has a tokenizer of its own has it in a folder below, ``target_tokenizer``.
    """
    shape = shape_with_code(cfg)
    source = directory.tokenizers()[0] if directory.tokenizer_files() else None
    vocabulary = vocabulary_of(directory)
    with durable.folder(folder) as partial:
        write_code(partial, cfg)
        write_network(partial / "model.safetensors", cfg, weights)
        _describe(partial, describe_network(cfg), shape, cfg, directory, vocabulary)
        if check and checker_missing("huggingface") is None:
            _check(partial, shape, cfg, weights, vocabulary, source)


def _check(
    folder: Path,
    shape: Shape,
    cfg: ModelConfig,
    weights: ModelWeights,
    vocabulary: VocabularyMapping | None,
    tokenizer: Tokenizer | None,
) -> None:
    """Compare a folder with the run; the tokenizer too, where we have written it."""
    with_code = read_json(folder / "config.json")["model_type"] == MODEL_TYPE
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.head, SentenceHead) and not with_code:
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
        cfg = dataclasses.replace(cfg, head=NoHead())
    opener = open_with_code(folder) if with_code else None
    check_huggingface(folder, cfg, weights, vocabulary, opener)
    if tokenizer is not None and vocabulary is not None:
        default = {"decoder": PROMPT_FRAME, "encoder-decoder": SOURCE_FRAME}.get(shape, INPUT_FRAME)
        check_tokenizer(folder, tokenizer, vocabulary.of_source, tokenizer.frame(default), with_code=with_code)


def check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists and is not an empty folder: choose another with -o")


def weights_of(run: RunDirectory, checkpoint: str | int) -> tuple[ModelConfig, ModelWeights]:
    """Return the configuration of a run's model and its weights, the moving average where there is one."""
    content = run.weights(checkpoint)
    return from_dict(ModelConfig, content.config["model"], where=str(run.path)), content.tensors["model"]


# ---- what is written -------------------------------------------------------------------------------


def _prefix(run: RunDirectory, family: Family, cfg: Expressible) -> str:
    """Return the prefix omitted from names: as it was at import, and for encoders without a head."""
    record = read_json(run.path / ORIGIN / RECORD)
    bare = isinstance(cfg, EncoderConfig) and isinstance(cfg.head, NoHead | SentenceHead)
    return "" if record.get("prefixed", not bare) else family.prefix


def vocabulary_of(run: RunDirectory) -> VocabularyMapping | None:
    """Return the mapping of a run's vocabulary to that of an export; None for a model that reads no text.

    Where source and target have tokenizers of their own, it holds both.
    """
    if not run.tokenizer_files():
        return None  # a model that reads no text
    if vocabulary := origin_vocabulary(run):
        return vocabulary
    source, target = run.tokenizers()
    own = None if source is target else of_tokenizer(source)
    return dataclasses.replace(of_tokenizer(target), source=own)


def _check_two_vocabularies(layout: Layout, vocabulary: VocabularyMapping | None) -> None:
    """Check that a layout holds two vocabularies, where a run has two.

    Raises:
        ConfigError: it has one matrix of embeddings for both sides.
    """
    shared = isinstance(layout.cfg, TransformerConfig) and layout.cfg.tying in ("all", "inputs")
    if vocabulary is not None and vocabulary.source is not None and shared:
        raise ConfigError(
            "target_tokenizer: this layout has one vocabulary for both sides: train with one tokenizer to export it"
        )


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
    with on_meta_device():
        model = to_layout(cfg, family).build()
    parameters = dict(model.named_parameters())
    by_name: dict[str, TensorPair] = {
        pair.theirs.removeprefix(left_out): pair
        for pair in pairs(model, family.table(cfg), family.tables(cfg), family.zeros)
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


def _give_back(run: RunDirectory, folder: Path) -> None:
    """Copy the small files of the folder that a run was imported from, with the run's own chat template if it has
    one."""
    copy_small_files(run.path / ORIGIN, folder)
    path = folder / "tokenizer_config.json"
    stated = read_json(path)
    fields = write_chat_templates(folder, run.path / ORIGIN)
    if "chat_template" in stated and not fields:
        write_json(path, {key: value for key, value in stated.items() if key != "chat_template"})


def _describe(
    folder: Path,
    content: dict[str, Any],
    shape: Shape,
    cfg: ModelConfig,
    run: RunDirectory,
    vocabulary: VocabularyMapping | None,
) -> None:
    """Write config.json and the tokenizer's files for a model that was trained here."""
    if vocabulary is not None:
        part = content["text_config"] if shape == "towers" and "text_config" in content else content
        part |= {"vocab_size": vocabulary.of_source.size}
        if "decoder_vocab_size" in content:
            content |= {"decoder_vocab_size": vocabulary.size}
        content |= _write_tokenizers(folder, run, vocabulary, shape, cfg)
    if labels := _labels(run):
        content |= {"problem_type": their_problem_type(_problem_type(run))}
        content |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    with_code = content["model_type"] == MODEL_TYPE
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.head, SentenceHead) and not with_code:
        write_sentence(folder, cfg.head, cfg.dim, run.path / ORIGIN)
    seen = cfg.second if isinstance(cfg, TwoTowersConfig) else cfg
    if isinstance(seen, EncoderConfig) and isinstance(seen.inputs, PatchInput):
        write_preprocessing(folder, seen.inputs)
    features = run.path / ORIGIN / "preprocessor_config.json"
    if ability(cfg) is TRANSCRIBES and features.is_file():
        shutil.copyfile(features, folder / features.name)
    write_json(folder / "config.json", content)


def _write_tokenizers(
    folder: Path, run: RunDirectory, vocabulary: VocabularyMapping, shape: Shape, cfg: ModelConfig
) -> dict[str, Any]:
    """Write the tokenizer; return its fields of config.json.

    A target that has a tokenizer of its own has it in a folder below, and then settings of generation and these fields
    are the target's.
    """
    source, target = run.tokenizers()
    origin = run.path / ORIGIN
    fields = write_tokenizer(folder, source, vocabulary.of_source, shape=shape, origin=origin, types=_token_types(cfg))
    if target is source:
        return fields
    (folder / TARGET).mkdir()
    fields = write_tokenizer(folder / TARGET, target, vocabulary, shape=shape, origin=origin)
    os.replace(folder / TARGET / "generation_config.json", folder / "generation_config.json")
    return fields


def _token_types(cfg: ModelConfig) -> int:
    """Return the number of token types that a model tells apart."""
    inputs = cfg.inputs if isinstance(cfg, EncoderConfig) else None
    return inputs.types if isinstance(inputs, TokenInput) else 0
