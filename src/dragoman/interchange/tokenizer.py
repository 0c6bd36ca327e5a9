"""Conversion of tokenizers: theirs to ours, with our names for the three special roles and as many entries as the model
has rows; and ours to theirs."""

import copy
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from dragoman.errors import DataError
from dragoman.interchange.framing import TheirFrame, read_frame
from dragoman.interchange.older_tokenizers import TokenizerContent
from dragoman.interchange.sentences import reads_lower_case
from dragoman.interchange.vocabulary import NAMES, Shape, VocabularyMapping, further_ends
from dragoman.json_files import read_json, write_json
from dragoman.text.chat_template_files import ADDITIONAL, FILE, read_template_sources, write_template_sources
from dragoman.text.tokens.framing import FrameTemplate, TextFrame
from dragoman.text.tokens.tokenizer import Tokenizer


def read_tokenizers(
    folder: Path,
    vocabulary: VocabularyMapping,
    found: tuple[TokenizerContent, TokenizerContent, Path],
    config: Mapping[str, Any],
) -> tuple[Tokenizer, Tokenizer]:
    """Return the source's and the target's tokenizer; the same object where a folder has one for both.

    Args:
        vocabulary: mapping of the target's vocabulary, with that of the source where it has one of its own.
        found: their contents and their file, as ``older_tokenizers.contents`` returns them.
        config: the content of config.json.

    Raises:
        DataError: one that does not fit the vocabulary.
    """
    source, target, path = found
    ends = further_ends(folder, config, vocabulary)

    def adapted(content: dict[str, Any], own: VocabularyMapping) -> Tokenizer:
        if config.get("model_type") == "qwen2":
            content = as_qwen2(folder, content)
        if reads_lower_case(folder):
            content = in_lower_case(content)
        frame = read_frame(folder, content, config)
        return adapt_tokenizer(content, path, own, frame, ends if own is vocabulary else ())

    read = adapted(target, vocabulary)
    return (read if source is target else adapted(source, vocabulary.of_source)), read


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def as_qwen2(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer with Qwen 2's normalizer and pre-tokenizer, where a Qwen 2 folder names no other class.

    transformers uses these there, whatever tokenizer.json states.
    """
    named = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class") or "Qwen2Tokenizer")
    generic = named.removesuffix("Fast") in ("Qwen2Tokenizer", "PreTrainedTokenizer", "TokenizersBackend")
    if content["model"].get("type") != "BPE" or not generic:
        return content
    prefix = bool(read_json(folder / "tokenizer_config.json").get("add_prefix_space"))
    split = {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": False}
    return content | {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }


def in_lower_case(content: TokenizerContent) -> TokenizerContent:
    """Return a tokenizer that turns texts to lower case before all else."""
    first, then = {"type": "Lowercase"}, content.get("normalizer")
    return content | {"normalizer": {"type": "Sequence", "normalizers": [first, then]} if then else first}


def adapt_tokenizer(
    content: dict[str, Any], path: Path, vocabulary: VocabularyMapping, frame: TheirFrame, ends: Sequence[int] = ()
) -> Tokenizer:
    """Return a tokenizer with this ``content``, as many entries as the model has rows, and our names for the roles.

    ``frame`` are the tokens around a text, and ``ends`` further tokens that end one.

    Raises:
        DataError: not one of the library's, or more entries than the vocabulary has rows.
    """
    content = copy.deepcopy(content)
    roles = zip(NAMES, (vocabulary.pad, vocabulary.bos, vocabulary.eos), strict=True)
    originals = _rename(content, {row: name for name, row in roles if row is not None}, path)
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
        [tokenizers.AddedToken(NAMES[i], special=True, normalized=False) for i in vocabulary.suppressed]
    )
    names = [[_name_of(i, inner, path) for i in ids] for ids in (*frame, ends)]
    template = FrameTemplate(tuple(names[0]), tuple(names[1]), originals, tuple(names[3]), tuple(names[2]))
    framed = json.loads(inner.to_str()) | {"post_processor": template.to_processor(inner)}
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(framed)))
    if tokenizer.special_rows != vocabulary.special:
        raise DataError(f"{path}: entry {vocabulary.eos}, which ends a text, is not in this tokenizer")
    return tokenizer


def _name_of(row: int, inner: tokenizers.Tokenizer, path: Path) -> str:
    name = inner.id_to_token(row)
    if name is None:
        raise DataError(f"{path}: entry {row}, which stands around a text or ends one, is not in this tokenizer")
    return name


def _rename(content: dict[str, Any], names: dict[int, str], path: Path) -> dict[str, str]:
    """Rename the entries with these ids everywhere; return the new name of each -> the old."""
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
    return {new: theirs for theirs, new in old.items()}


# ---- out -------------------------------------------------------------------------------------------


def write_tokenizer(
    folder: Path,
    tokenizer: Tokenizer,
    vocabulary: VocabularyMapping,
    *,
    shape: Shape,
    origin: Path | None = None,
    types: int = 0,
) -> dict[str, Any]:
    """Write the tokenizer; return its fields of config.json. Of several roles in one row, one has its name.

    A model that tells two token ``types`` apart gets the second for the second text of a pair.

    An imported tokenizer gets its own names back, and the settings of generation that came with it in ``origin``. The
    chat templates of the run are written as ``write_chat_templates`` does.
    """
    content = json.loads(tokenizer.inner.to_str())
    has = (vocabulary.pad, vocabulary.bos, vocabulary.eos)
    _take_out(content, [row for row in tokenizer.special_rows if row not in has])
    template = tokenizer.template
    by_name = {token["content"]: token["id"] for token in content["added_tokens"]}
    if template is not None:
        restored = {by_name[ours]: theirs for ours, theirs in template.originals.items() if ours in by_name}
        _rename(content, restored, folder / "tokenizer.json")
    by_id = {token["id"]: token["content"] for token in content["added_tokens"]} | _names_by_id(content)
    bos, eos = vocabulary.start, vocabulary.eos
    pad = eos if vocabulary.pad is None else vocabulary.pad
    reads = shape in ("encoder", "towers")
    if template is None:
        before, after = ([] if shape == "encoder-decoder" else [bos]), ([] if shape == "decoder" else [eos])
        between = [eos] if reads else []
    else:
        order = vocabulary.order().tolist()
        frame = tokenizer.frame(TextFrame())
        before, after, between = ([order[i] for i in ids] for ids in (frame.before, frame.after, frame.between))
    content["post_processor"] = _processor(before, after, between, by_id, second=int(types > 1))
    write_json(folder / "tokenizer.json", content)
    names = {f"{role}_token": by_id[i] for role, i in zip(("pad", "bos", "eos"), (pad, bos, eos), strict=True)}
    stated = {} if origin is None else _stated_settings(origin, by_id.values()) | write_chat_templates(folder, origin)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | stated | names)
    ids = {"pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos}
    ids |= {"decoder_start_token_id": bos, "forced_eos_token_id": None} if shape == "encoder-decoder" else {}
    if not reads:
        generation = read_json(origin / "generation_config.json") if origin else {}
        suppressed = sorted({pad, bos, *(generation.get("suppress_tokens") or ())} - {eos}) or None
        several = (
            {"eos_token_id": generation["eos_token_id"]} if isinstance(generation.get("eos_token_id"), list) else {}
        )
        write_json(folder / "generation_config.json", generation | ids | {"suppress_tokens": suppressed} | several)
    return ids


_ROLES = ("unk_token", "sep_token", "cls_token", "mask_token")
_SETTINGS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces")


def _stated_settings(origin: Path, entries: Collection[str]) -> dict[str, Any]:
    """Return what an import's tokenizer_config.json states and every class of tokenizers obeys.

    That is how texts are cut and padded, and the tokens of further roles, where they are among the ``entries``.
    """
    stated = read_json(origin / "special_tokens_map.json") | read_json(origin / "tokenizer_config.json")
    roles = {role: stated.get(role) for role in _ROLES}
    spelt = {role: token.get("content") if isinstance(token, dict) else token for role, token in roles.items()}
    kept = {role: token for role, token in spelt.items() if token in entries}
    return kept | {name: stated[name] for name in _SETTINGS if stated.get(name) is not None}


def _names_by_id(content: dict[str, Any]) -> dict[int, str]:
    vocab = content["model"]["vocab"]
    return {i: row[0] for i, row in enumerate(vocab)} if isinstance(vocab, list) else {i: n for n, i in vocab.items()}


def _processor(
    before: Sequence[int], after: Sequence[int], between: Sequence[int], by_id: dict[int, str], *, second: int = 0
) -> dict[str, Any]:
    """Return a post-processor with these ids around one text, and around and between two.

    ``second`` is the type of the second text and of what ends it.
    """
    head, tail, middle = (
        [{"SpecialToken": {"id": by_id[i], "type_id": 0}} for i in ids] for ids in (before, after, between)
    )
    first, other = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", second)))
    last = [{"SpecialToken": part["SpecialToken"] | {"type_id": second}} for part in tail]
    named = (*before, *after, *between)
    return {
        "type": "TemplateProcessing",
        "single": [*head, first, *tail],
        "pair": [*head, first, *middle, other, *last] if middle else [first, other],
        "special_tokens": {by_id[i]: {"id": by_id[i], "ids": [i], "tokens": [by_id[i]]} for i in named},
    }


def write_chat_templates(folder: Path, origin: Path) -> dict[str, Any]:
    """Write the chat templates of a run: its own, else those that it was imported with, as they came.

    Args:
        folder: the folder of the export, which may hold those of the import already.
        origin: the folder in the run that holds the files of its import.

    Returns:
        The field of tokenizer_config.json that states them; nothing where files do.
    """
    if own := read_template_sources(origin.parent):
        shutil.rmtree(folder / ADDITIONAL, ignore_errors=True)
        (folder / "chat_template.json").unlink(missing_ok=True)
        write_template_sources(folder, own.sources)
        return {}
    for name in (FILE, "chat_template.json"):
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    if (origin / ADDITIONAL).is_dir():
        shutil.copytree(origin / ADDITIONAL, folder / ADDITIONAL, dirs_exist_ok=True)
    settings = read_json(origin / "tokenizer_config.json")
    return {key: settings[key] for key in ("chat_template",) if key in settings}


def _take_out(content: dict[str, Any], rows: Collection[int]) -> None:
    """Remove the entries with these ids, which belong to rows that we added; later entries move up."""

    def moved(i: int) -> int:
        return i - sum(row < i for row in rows)

    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        content["model"]["vocab"] = [entry for i, entry in enumerate(vocab) if i not in rows]
    else:
        content["model"]["vocab"] = {name: moved(i) for name, i in vocab.items() if i not in rows}
    restored = [token for token in content["added_tokens"] if token["id"] not in rows]
    content["added_tokens"] = [token | {"id": moved(token["id"])} for token in restored]
