"""Import of a Hugging Face folder as a run directory, which opens like one that was trained here.

    FOLDER/config.json  model*.safetensors (or .bin)  tokenizer.json
    RUN/config.yaml  tokenizer.json  checkpoints/step-000000/  origin/ (the folder's small files, as they were)

Only one tensor is in memory at a time, and the run takes its name when all of it is on the disk.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dragoman import durable
from dragoman.checkpoint import CONFIG, FOLDER, RunDirectory
from dragoman.config import dump_yaml, to_dict, unknown
from dragoman.data.tasks.classification import ProblemType
from dragoman.errors import CheckpointError, ConfigError
from dragoman.interchange.family import Family, class_names
from dragoman.interchange.folder_config import read_folder_config
from dragoman.interchange.leftovers import describe_leftovers
from dragoman.interchange.names import TensorPair, pairs
from dragoman.interchange.older_tokenizers import TokenizerContent, contents, has_two_vocabularies
from dragoman.interchange.sentences import keep_settings
from dragoman.interchange.tensors import Report, TensorShards, write_stream
from dragoman.interchange.tokenizer import read_tokenizers
from dragoman.interchange.tokenizer_kinds import tokenizer_kind
from dragoman.interchange.vocabulary import VocabularyMapping, source_ids, special_ids
from dragoman.json_files import read_json, write_json
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import ClassificationHead, NoHead, SentenceHead, SpansHead
from dragoman.model.meta_device import on_meta_device
from dragoman.model.transformer import TransformerConfig
from dragoman.snapshot import Checkpoint, step_name
from dragoman.text.chat_template_files import ADDITIONAL

ORIGIN, RECORD = "origin", "dragoman.json"
SMALL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model",
    "chat_template.jinja", "chat_template.json",
    "vocab.json", "target_vocab.json", "merges.txt", "vocab.txt", "source.spm", "target.spm",
    "preprocessor_config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip
"""Files that an export returns as they were."""
MORE = f"{ADDITIONAL}/*.jinja"
"""Further such files: chat templates for other purposes than the default."""


def import_checkpoint(
    folder: str | Path, run: str | Path, progress: Report | None = None, *, architecture: str | None = None
) -> RunDirectory:
    """Import the Hugging Face folder ``folder`` as the run directory ``run``.

    ``architecture``, such as BertForMaskedLM, is taken instead of the one that config.json names.

    Raises:
        CheckpointError: no such folder, missing or damaged weights, pickled code, tensors of other shapes than
            config.json says, or something at ``run`` already.
        ConfigError: an architecture, or a setting of it, that is not supported.
        DataError: no tokenizer, or one that does not fit the vocabulary.
    """
    folder, run = Path(folder), Path(run)
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise CheckpointError(f"{run}: exists and is not an empty folder: choose another --run name")
    described = read_folder_config(folder, architecture)
    content, family, cfg, notes = described.content, described.family, described.cfg, described.notes
    found = contents(folder, tokenizer_kind(folder, content)) if family.tables(cfg) else None
    vocabulary = found and _vocabulary(folder, content, family, found, _rows(cfg, content))
    tokenizers = found and vocabulary and read_tokenizers(folder, vocabulary, found, content)
    if vocabulary is not None:
        cfg = _sized(cfg, vocabulary)
    with TensorShards(folder) as shards:
        source = _Source(shards, family, cfg, vocabulary)
        try:
            run.parent.mkdir(parents=True, exist_ok=True)
            with durable.folder(run) as partial:
                if tokenizers is not None:
                    RunDirectory(partial).write_tokenizers(*tokenizers)
                _keep_origin(folder, partial / ORIGIN, content, source, notes + source.unused)
                _write(partial, source, {"kind": "run"} | _task(cfg, content) | {"model": to_dict(cfg)}, progress)
        except OSError as error:
            raise CheckpointError(f"{error.filename or run}: cannot create the run: {error.strerror}") from None
    return RunDirectory.open(run)


def _sized(cfg: ModelConfig, vocabulary: VocabularyMapping) -> ModelConfig:
    """Return the configuration with a row for each of our ids."""
    if isinstance(cfg, TwoTowersConfig):
        return cfg.sized(vocab=vocabulary.rows)
    if not isinstance(cfg, TransformerConfig):
        return cfg
    own = vocabulary.source and vocabulary.source.rows
    return dataclasses.replace(cfg, vocab=vocabulary.rows, source_vocab=own, suppressed=vocabulary.suppressed)


def _rows(cfg: ModelConfig, content: dict[str, Any]) -> int:
    """Return the number of entries of a model's vocabulary in config.json."""
    if isinstance(cfg, TwoTowersConfig):
        return getattr(cfg.first.inputs, "vocab", None) or 0
    return content.get("vocab_size") or 0


def _vocabulary(
    folder: Path,
    content: dict[str, Any],
    family: Family,
    tokenizers: tuple[TokenizerContent, TokenizerContent, Path],
    size: int,
) -> VocabularyMapping:
    """Return the mapping of a vocabulary, with that of the source where it has one of its own.

    Raises:
        ConfigError: an encoder without special tokens that differ from one another, or a target without a vocabulary
            of its own where the model has two.
    """
    source, target, path = tokenizers
    if separate := has_two_vocabularies(folder, content):
        size = content.get("decoder_vocab_size") or size
    elif content.get("decoder_vocab_size", size) not in (size, None):
        raise ConfigError(
            f"{path}: the model's target has a vocabulary of its own (decoder_vocab_size in config.json), and "
            "tokenizer_config.json does not state separate_vocabs: true with a target_vocab.json"
        )
    found = special_ids(folder, content, size, shape=family.shape, content=target)
    if separate:
        found = dataclasses.replace(found, source=source_ids(folder, content["vocab_size"], source))
    if family.shape == "encoder" and found.added:
        raise ConfigError(
            f"{folder}: padding, beginning and end of a text must be three tokens of the vocabulary, and are "
            f"{found.start if found.pad is None else found.pad}, {found.start} and {found.eos}: name them as "
            "pad_token, cls_token and sep_token in tokenizer_config.json, which is read before config.json"
        )
    return found


def origin_vocabulary(run: RunDirectory) -> VocabularyMapping | None:
    """Return the mapping of the vocabulary that a run was imported with; None for a run trained here.

    If the run's tokenizer has grown since, the mapping has grown by as many rows."""
    stated = read_json(run.path / ORIGIN / RECORD).get("vocabulary")
    if stated is None:
        return None
    found = VocabularyMapping.from_dict(stated)
    source, target = run.tokenizers()
    own = found.source and dataclasses.replace(found.source, size=len(source) - found.source.added)
    return dataclasses.replace(found, size=len(target) - found.added, source=own)


class _Source:
    """Our tensors, converted one at a time from theirs; all names and shapes are compared before the first is read."""

    def __init__(self, shards: TensorShards, family: Family, cfg: ModelConfig, vocabulary: VocabularyMapping | None):
        self.shards, self.family, self.vocabulary = shards, family, vocabulary
        self.model = _empty_model(cfg, shards.folder)
        self.parameters = dict(self.model.named_parameters())
        self.where: dict[str, tuple[TensorPair, str]] = {}
        """Our name -> the tensor of theirs that holds it, and its name in the file."""
        for pair in pairs(self.model, family.table(cfg), family.tables(cfg), family.zeros):
            stored = _stored_name(pair, shards, family)
            _check_shape(pair, stored, self)
            self.where |= dict.fromkeys(pair.ours, (pair, stored))
        self.unused = describe_leftovers(
            shards,
            {stored for _, stored in self.where.values()},
            {stored for pair, stored in self.where.values() if pair.of_vocabulary},
            family.name,
            headless=isinstance(cfg, EncoderConfig) and isinstance(cfg.head, NoHead | SentenceHead),
        )
        """Notes on tensors of theirs that are known to be unused."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.where:
            return torch.zeros(self.parameters[name].shape, dtype=self.dtype(name))
        pair, stored = self.where[name]
        theirs = self.shards[stored]
        if not bool(theirs.isfinite().all()):
            bad = int((~theirs.isfinite()).sum())
            raise CheckpointError(
                f"{self.shards.folder / self.shards.names[stored]}: {stored} holds {bad} of {theirs.numel()} numbers "
                "that are NaN or infinite: the file is damaged, or the training went wrong"
            )
        return pair.read(theirs, name, self.parameters, self.vocabulary)

    @property
    def prefixed(self) -> bool:
        """True where their names begin with the family's prefix."""
        prefix = self.family.prefix
        return not prefix or any(stored.startswith((prefix, *self.family.within)) for _, stored in self.where.values())

    def dtype(self, name: str) -> torch.dtype:
        _, stored = self.where.get(name) or next(iter(self.where.values()))
        return self.shards.dtype(stored)

    def aliases(self) -> dict[str, str]:
        """Mapping from the names of tied weights to the name under which each is stored."""
        first = {id(parameter): name for name, parameter in self.parameters.items()}
        every = self.model.named_parameters(remove_duplicate=False)
        return {name: first[id(p)] for name, p in every if first[id(p)] != name}


_OLD_NORM = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""Names of norms' tensors in folders that were converted from TensorFlow."""


def _empty_model(cfg: ModelConfig, folder: Path) -> nn.Module:
    """Return the model on the meta device.

    Raises:
        ConfigError: sizes that do not fit; the message opens with config.json.
    """
    try:
        with on_meta_device():
            return cfg.build()
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.json'} makes {error}") from None


def _stored_name(pair: TensorPair, shards: TensorShards, family: Family) -> str:
    names = [pair.theirs, *family.aliases.get(pair.theirs, ())]
    names += [name.replace(new, old) for name in names for new, old in _OLD_NORM.items() if name.endswith(new)]
    candidates = [*names, *(name.removeprefix(family.prefix) for name in names)]
    candidates += [within + name for within in family.within for name in candidates]
    for name in candidates:
        if name in shards.names:
            return name
    raise CheckpointError(f"{shards.folder}: no tensor {pair.theirs}, which config.json calls for ({family.name})")


def _check_shape(pair: TensorPair, stored: str, source: _Source) -> None:
    found, wanted = source.shards.shape(stored), pair.shape(source.parameters, source.vocabulary)
    if found != wanted:
        raise CheckpointError(
            f"{source.shards.folder / source.shards.names[stored]}: {stored} is {_times(found)}, but config.json makes "
            f"it {_times(wanted)}"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def import_notes(run: RunDirectory) -> list[str]:
    """Return notes on what an import ignored in its folder, a line each."""
    return read_json(run.path / ORIGIN / RECORD).get("notes", [])


def _keep_origin(folder: Path, origin: Path, content: dict[str, Any], source: _Source, notes: list[str]) -> None:
    """Keep the small files, and ``content`` as config.json where only a part of the folder's was taken."""
    origin.mkdir()
    copy_small_files(folder, origin)
    keep_settings(folder, origin)
    if content != read_json(folder / "config.json"):
        write_json(origin / "config.json", content)
    vocabulary = source.vocabulary
    record = {
        "family": source.family.name,
        "prefixed": source.prefixed,
        "vocabulary": vocabulary and vocabulary.to_dict(),
        "notes": notes,
    }
    (origin / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def copy_small_files(folder: Path, to: Path) -> None:
    """Copy the files that an export returns as they were."""
    for name in (*SMALL, *(str(path.relative_to(folder)) for path in folder.glob(MORE))):
        if (folder / name).is_file():
            (to / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, to / name)


def labels_of(cfg: ModelConfig, content: dict[str, Any]) -> list[str]:
    """The names of the classes that a config.json gives to a classifier; none for another model.

    Raises:
        ConfigError: classes that are not numbered from 0, or of the same name.
    """
    if not (isinstance(cfg, EncoderConfig) and isinstance(cfg.head, ClassificationHead)):
        return []
    names = class_names(content) or [f"LABEL_{i}" for i in range(cfg.head.classes or 0)]
    if isinstance(names, dict):
        if sorted(names) != sorted(str(i) for i in range(len(names))):
            raise ConfigError(
                f"config.json: id2label: the classes are numbered {', '.join(sorted(names)[:8])}, not from 0"
            )
        names = [names[str(i)] for i in range(len(names))]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"config.json: id2label: {names.count(twice)} classes are called {twice!r}: rename them")
    return list(map(str, names))


def _task(cfg: ModelConfig, content: dict[str, Any]) -> dict[str, Any]:
    """Return the task of the run's configuration, where it adds to the model: question answering, or class names."""
    if isinstance(cfg, EncoderConfig) and isinstance(cfg.head, SpansHead):
        return {"task": {"kind": "question_answering", "longest_answer": 30, "unanswerable": False}}
    if isinstance(cfg, TwoTowersConfig):
        return {"task": {"kind": "contrastive"}}
    labels = labels_of(cfg, content)
    if not labels:
        return {}
    task: dict[str, Any] = {"kind": "classification", "labels": labels}
    problem_type = problem_type_of(content, len(labels))
    return {"task": task if problem_type == "single_label" else task | {"problem_type": problem_type}}


_PROBLEM_TYPES: dict[str, ProblemType] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def problem_type_of(content: dict[str, Any], labels: int) -> ProblemType:
    """Return the meaning of a classifier's logits; like transformers, a single logit is a value by default.

    Raises:
        ConfigError: a type that is not known.
    """
    stated = content.get("problem_type")
    if stated is None:
        return "regression" if labels == 1 else "single_label"
    if stated not in _PROBLEM_TYPES:
        raise ConfigError(f"config.json: {unknown('problem_type', stated, _PROBLEM_TYPES)}")
    return _PROBLEM_TYPES[stated]


def their_problem_type(ours: str) -> str:
    return next(theirs for theirs, known in _PROBLEM_TYPES.items() if known == ours)


def _write(run: Path, source: _Source, config: dict[str, Any], progress: Report | None) -> None:
    (run / CONFIG).write_text(dump_yaml(config), encoding="utf-8")
    checkpoint = run / FOLDER / step_name(0)
    checkpoint.mkdir(parents=True)
    weights = run / FOLDER / ".model.partial"
    listed = [(name, tuple(p.shape), source.dtype(name)) for name, p in source.parameters.items()]
    write_stream(weights, listed, source.__getitem__, {"aliases": json.dumps(source.aliases())}, progress)
    Checkpoint(checkpoint).write({"model": weights}, {"step": 0}, config, beside=RunDirectory(run).tokenizer_files())
    durable.link(run / "last", f"{FOLDER}/{checkpoint.name}")
