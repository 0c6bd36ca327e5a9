"""Their tokenizers as ours, the three special roles under our names and as many entries as the model has rows; and ours
as theirs."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tokenizers

from dragoman.errors import DataError
from dragoman.interchange.files import write_json
from dragoman.interchange.older_tokenizers import contents
from dragoman.interchange.vocabulary import NAMES, Shape, Vocabulary
from dragoman.text.tokens.tokenizer import Tokenizer


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


# ---- out -------------------------------------------------------------------------------------------


def write_tokenizer(folder: Path, tokenizer: Tokenizer, vocabulary: Vocabulary, *, shape: Shape) -> dict[str, Any]:
    """Write the tokenizer; return what config.json has to say of it. Of several roles in one row, one has its name."""
    content = json.loads(tokenizer.inner.to_str())
    has = (vocabulary.pad, vocabulary.bos, vocabulary.eos)
    _take_out(content, [row for row in tokenizer.special_rows if row not in has])
    by_id = {token["id"]: token["content"] for token in content["added_tokens"]}
    bos, eos = vocabulary.start, vocabulary.eos
    pad = eos if vocabulary.pad is None else vocabulary.pad
    names = [by_id[i] for i in (pad, bos, eos)]
    template: list[Any] = [{"Sequence": {"id": "A", "type_id": 0}}]
    used = {}
    if shape != "encoder-decoder":
        template.insert(0, {"SpecialToken": {"id": names[1], "type_id": 0}})
        used[names[1]] = {"id": names[1], "ids": [bos], "tokens": [names[1]]}
    if shape != "decoder":
        template.append({"SpecialToken": {"id": names[2], "type_id": 0}})
        used[names[2]] = {"id": names[2], "ids": [eos], "tokens": [names[2]]}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": used,
    }
    write_json(folder / "tokenizer.json", content)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast"}
        | {f"{role}_token": name for role, name in zip(("pad", "bos", "eos"), names, strict=True)},
    )
    ids = {"pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos}
    ids |= {"decoder_start_token_id": bos, "forced_eos_token_id": None} if shape == "encoder-decoder" else {}
    if shape != "encoder":
        unsaid = sorted({pad, bos} - {eos}) or None
        write_json(folder / "generation_config.json", ids | {"suppress_tokens": unsaid})
    return ids


def _take_out(content: dict[str, Any], rows: Collection[int]) -> None:
    """Remove the entries with these ids, of rows that we added; those behind them move up."""

    def moved(i: int) -> int:
        return i - sum(row < i for row in rows)

    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        content["model"]["vocab"] = [entry for i, entry in enumerate(vocab) if i not in rows]
    else:
        content["model"]["vocab"] = {name: moved(i) for name, i in vocab.items() if i not in rows}
    kept = [token for token in content["added_tokens"] if token["id"] not in rows]
    content["added_tokens"] = [token | {"id": moved(token["id"])} for token in kept]
