"""Their tokenizers as ours: the three special roles under our names, as many entries as the model has rows."""

import copy
import json
from pathlib import Path
from typing import Any

import tokenizers

from dragoman.errors import DataError
from dragoman.interchange.older_tokenizers import contents
from dragoman.interchange.vocabulary import NAMES, Vocabulary
from dragoman.text.tokenizer import Tokenizer


def read_tokenizers(folder: Path, vocabulary: Vocabulary) -> tuple[Tokenizer, Tokenizer]:
    """The source's and the target's tokenizer; the same object where a folder has one for both.

    Raises:
        DataError: none, or one that does not fit the vocabulary.
    """
    source, target, path = contents(folder)
    read = adapt_tokenizer(target, path, vocabulary)
    return (read if source is target else adapt_tokenizer(source, path, vocabulary)), read


def adapt_tokenizer(content: dict[str, Any], path: Path, vocabulary: Vocabulary) -> Tokenizer:
    """With this ``content``, as many entries as the model has rows, and the three roles under our names.

    Raises:
        DataError: not one of the library's, or more entries than the vocabulary has rows.
    """
    content = copy.deepcopy(content)
    roles = zip(NAMES, (vocabulary.pad, vocabulary.bos, vocabulary.eos), strict=True)
    _rename(content, {row: name for name, row in roles if row is not None}, path)
    content["post_processor"] = None
    try:
        inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing more precise
        raise DataError(f"{path}: not a tokenizer.json of the tokenizers library: {error}") from None
    entries = 1 + max(inner.get_vocab().values(), default=-1)
    if entries > vocabulary.size:
        raise DataError(
            f"{path}: {entries} entries, but the model has {vocabulary.size} rows (vocab_size in config.json): "
            "this tokenizer belongs to another model"
        )
    inner.add_tokens([f"⟨unused {i}⟩" for i in range(entries, vocabulary.size)])
    inner.add_special_tokens(
        [tokenizers.AddedToken(NAMES[i], special=True, normalized=False) for i in vocabulary.silent]
    )
    tokenizer = Tokenizer(inner)
    if tokenizer.special_rows != vocabulary.special:
        raise DataError(f"{path}: entry {vocabulary.eos}, which ends a text, is not in this tokenizer")
    return tokenizer


def _rename(content: dict[str, Any], names: dict[int, str], path: Path) -> None:
    """Give the entries with these ids other names, wherever they stand."""
    model = content.get("model", {})
    vocab = model.get("vocab")
    old: dict[str, str] = {}
    for token in content.get("added_tokens", []):
        if token["id"] in names:
            old[token["content"]] = names[token["id"]]
            token |= {"content": names[token["id"]], "special": True, "normalized": False}
    if isinstance(vocab, dict):
        old |= {name: names[i] for name, i in vocab.items() if i in names}
        model["vocab"] = {old.get(name, name): i for name, i in vocab.items()}
    elif isinstance(vocab, list):
        old |= {row[0]: names[i] for i, row in enumerate(vocab) if i in names}
        model["vocab"] = [[names.get(i, name), score] for i, (name, score) in enumerate(vocab)]
    if model.get("unk_token") in old:
        model["unk_token"] = old[model["unk_token"]]
    if missing := set(names.values()) - set(old.values()):
        ids = [i for i, name in names.items() if name in missing]
        raise DataError(f"{path}: no entry {ids[0]}, which config.json names as a special token")
