"""Reading of config.json: a Hugging Face folder as our configuration, with notes on what is not obeyed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.capabilities import TRANSCRIBES, ability
from dragoman.config import from_dict, to_dict
from dragoman.errors import CheckpointError
from dragoman.interchange.architectures import as_architecture, find_family
from dragoman.interchange.family import Family
from dragoman.interchange.fields import check_kinds, settings_of, unknown_fields
from dragoman.interchange.generation import unused_generation_settings
from dragoman.interchange.image_processor import with_preprocessing
from dragoman.interchange.multimodal import part_of
from dragoman.interchange.sentences import read_sentence, unused_prompt
from dragoman.json_files import read_json
from dragoman.model.contrastive import TwoTowersConfig
from dragoman.model.encoder import EncoderConfig
from dragoman.model.families import ModelConfig
from dragoman.model.heads import NoHead
from dragoman.model.inputs import PatchInput


@dataclass(frozen=True)
class FolderConfig:
    """Content of a folder's config.json, and what it means here."""

    content: dict[str, Any]
    """The part of it that is taken."""
    family: Family
    cfg: ModelConfig
    """Our configuration; its vocabulary is theirs."""
    notes: list[str]
    """Notes on what is left out or ignored, a line each."""


def read_folder_config(folder: Path, architecture: str | None) -> FolderConfig:
    """Read the config.json of ``folder``, and the files that add to it; see ``importing.import_checkpoint``.

    Raises:
        CheckpointError: no config.json.
        ConfigError: an architecture, or a setting of it, that is not supported.
    """
    path = folder / "config.json"
    content = read_json(path)
    if not content:
        raise CheckpointError(f"{folder}: no config.json here: a Hugging Face folder is wanted")
    if architecture is not None:
        content = as_architecture(content, architecture)
    content, notes = part_of(content, path)
    family = find_family(content, path)
    given = settings_of(content, path, family.model_type)
    for part in (content, *(part for name, part in content.items() if name.endswith("_config"))):
        if isinstance(part, dict):
            check_kinds(part, path)
    cfg = from_dict(ModelConfig, to_dict(family.config(given)), where=f"{path} makes model")
    notes += given.notes
    for where, part in (("", given), *((f"{name}.", part) for name, part in given.parts.items())):
        unread = unknown_fields(part, family.name)
        notes += [f"config.json: {where}{name} is not known here, and is not used" for name in unread]
    speech = ability(cfg) is TRANSCRIBES
    notes += unused_generation_settings(folder, content, family.shape, family.obeyed, speech=speech)
    return FolderConfig(content, family, _completed(cfg, folder, family, notes), notes)


def _completed(cfg: ModelConfig, folder: Path, family: Family, notes: list[str]) -> ModelConfig:
    """Return the configuration with what other files of the folder say."""
    if isinstance(cfg, TwoTowersConfig) and cfg.second:
        return dataclasses.replace(cfg, second=_prepared(cfg.second, folder, family, notes))
    if not isinstance(cfg, EncoderConfig):
        return cfg
    cfg = _prepared(cfg, folder, family, notes)
    sentence = read_sentence(folder) if isinstance(cfg.head, NoHead) else None
    if sentence is None:
        return cfg
    notes += unused_prompt(folder)
    return dataclasses.replace(cfg, head=sentence)


def _prepared(cfg: EncoderConfig, folder: Path, family: Family, notes: list[str]) -> EncoderConfig:
    """Return a model of images with the folder's preparation of them, and with a head that gives a vector."""
    if not isinstance(cfg.inputs, PatchInput):
        return cfg
    inputs = with_preprocessing(cfg.inputs, folder, family, notes)
    head = family.vector if isinstance(cfg.head, NoHead) and family.vector else cfg.head
    return dataclasses.replace(cfg, inputs=inputs, head=head)
