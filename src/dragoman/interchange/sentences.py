"""Sentence encoders as the sentence-transformers library stores them: modules.json beside the model, pooling below.

modules.json                 sequence of modules: the model, a pooling, perhaps a normalization
1_Pooling/config.json        how one vector is made of many
sentence_bert_config.json    the longest text, in tokens, and whether texts are read in lower case; older folders name
                             it after another kind of model
config_sentence_transformers.json    prompts that are put before texts
"""

import json
from pathlib import Path
from typing import Any

from dragoman.errors import ConfigError
from dragoman.json_files import read_json
from dragoman.model.heads import First, Mean, Pooling, SentenceHead

POOLINGS: dict[str, Pooling] = {"pooling_mode_mean_tokens": Mean(), "pooling_mode_cls_token": First()}
_KINDS = "sentence_transformers.models."
_SETTINGS, _USE = "sentence_bert_config.json", "config_sentence_transformers.json"
_OLDER = tuple(
    f"sentence_{kind}_config.json" for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


def read_sentence(folder: Path) -> SentenceHead | None:
    """Return the head of a sentence encoder; None for a folder that describes none.

    Raises:
        ConfigError: another pooling than the mean or the first token, or modules that we do not have or that are none.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        kinds = [module["type"].rpartition(".")[2] for module in json.loads(path.read_text(encoding="utf-8"))]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: expected a list of modules, each with its type") from None
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise ConfigError(f"{path}: modules of type {', '.join(sorted(unknown))} are not supported")
    pooling = folder / "1_Pooling" / "config.json"
    modes = [key for key, used in read_json(pooling).items() if key.startswith("pooling_mode") and used is True]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ConfigError(
            f"{pooling}: {', '.join(modes) or 'no pooling'} is not supported; known: {', '.join(POOLINGS)}"
        )
    return SentenceHead(pooling=POOLINGS[modes[0]], normalize="Normalize" in kinds)


def reads_lower_case(folder: Path) -> bool:
    """Return whether a sentence encoder reads its texts in lower case, whatever its tokenizer does."""
    return _settings(folder).get("do_lower_case") is True


def _settings(folder: Path) -> dict[str, Any]:
    found = (folder / name for name in (_SETTINGS, *_OLDER))
    return next((read_json(path) for path in found if path.is_file()), {})


def keep_settings(folder: Path, origin: Path) -> None:
    """Keep the settings of a sentence encoder under their usual name, where an older folder has them under another."""
    if not (folder / _SETTINGS).is_file() and (settings := _settings(folder)):
        _write(origin / _SETTINGS, settings)


def unused_prompt(folder: Path) -> list[str]:
    """Return a note on the prompt that the sentence-transformers library puts before each text, if there is one."""
    stated = read_json(folder / _USE)
    name, prompts = stated.get("default_prompt_name"), stated.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not prompt:
        return []
    return [
        f"{_USE}: default_prompt_name={name}: the sentence-transformers library puts {prompt!r} before each text, and "
        "it is not put there here: write it into the texts"
    ]


def write_sentence(folder: Path, head: SentenceHead, dim: int, origin: Path) -> None:
    """Write the head of a sentence encoder, as ``read_sentence`` reads it.

    Args:
        origin: the small files of the folder that the run was imported from, which may state the longest text and
            prompts. That texts are read in lower case is part of the tokenizer since the import.

    Raises:
        ConfigError: a projection, or a pooling that has no name there.
    """
    modes = {key: pooling == head.pooling for key, pooling in POOLINGS.items()}
    if head.size is not None or not any(modes.values()):
        raise ConfigError("model.head: only the mean or the first token, without a projection, has a name there")
    kinds = ["Transformer", "Pooling", *(["Normalize"] if head.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": i, "name": str(i), "path": paths[i], "type": _KINDS + kind} for i, kind in enumerate(kinds)]
    (folder / "1_Pooling").mkdir()
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim} | modes)
    if longest := read_json(origin / _SETTINGS).get("max_seq_length"):
        _write(folder / _SETTINGS, {"max_seq_length": longest, "do_lower_case": False})
    if use := read_json(origin / _USE):
        _write(folder / _USE, use)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
