"""Vocabularies in another order: with us padding is 0, the beginning 1 and the end 2; elsewhere they may be anywhere.

Importing moves rows of embeddings and logits, exporting moves them back, so that nothing else needs to know. Where
they have one token for two of the three roles, or none for padding, we add a row. It is *suppressed* (its logit is so
low that it has no share in the softmax) and a copy of the row that they start from, so that all else has the same
numbers. V their vocabulary size, N the rows we add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.errors import ConfigError, DataError
from dragoman.interchange.tokenizer_kinds import tokenizer_kind, usual_roles
from dragoman.json_files import read_json
from dragoman.model.vocabulary import SUPPRESSED_LOGIT
from dragoman.text.tokens.tokenizer import Tokenizer

Shape = Literal["decoder", "encoder-decoder", "encoder", "towers"]
"""Shape of a family's models."""
NAMES = ("⟨pad⟩", "⟨bos⟩", "⟨eos⟩")


@dataclass(frozen=True)
class VocabularyMapping:
    """Positions of the three roles in their vocabulary."""

    size: int
    """Number of their rows V."""
    pad: int | None
    """Padding; None where there is none, or where it is the beginning or end as well."""
    bos: int | None
    """First token of a text or, with an encoder, of the target; None where that is padding or the end as well."""
    eos: int
    start: int
    """First token, whether or not it has another role."""
    source: "VocabularyMapping | None" = None
    """Mapping of the source's vocabulary, where it has one of its own."""

    @property
    def of_source(self) -> "VocabularyMapping":
        """Mapping of the ids of sources."""
        return self.source or self

    def of(self, name: str) -> "VocabularyMapping":
        """Return the mapping of the rows of our tensor ``name``."""
        return self.of_source if name == SOURCE_TABLE else self

    @property
    def added(self) -> int:
        return (self.pad is None) + (self.bos is None)

    @property
    def rows(self) -> int:
        """Number of our rows."""
        return self.size + self.added

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Our ids of the rows we add."""
        return tuple(i for i, theirs in enumerate((self.pad, self.bos)) if theirs is None)

    @property
    def special(self) -> tuple[int, int, int]:
        """Padding, beginning and end in their order, with the added rows behind their own."""
        pad = self.size if self.pad is None else self.pad
        bos = self.size + (self.pad is None) if self.bos is None else self.bos
        return pad, bos, self.eos

    def order(self) -> Tensor:
        """Index of their row for each of ours; from V on it is one we add."""
        taken = torch.tensor(self.special)
        rest = torch.arange(self.size + self.added)
        return torch.cat([taken, rest[~torch.isin(rest, taken)]])

    def read(self, theirs: Float[Tensor, "V *D"], name: str) -> Float[Tensor, "V+N *D"]:
        """Return our rows, made from theirs."""
        order = self.order()
        ours = theirs.new_zeros(len(order), *theirs.shape[1:])
        known = order < self.size
        ours[known] = theirs[order[known]]
        if name == "output.bias":
            ours[list(self.suppressed)] = SUPPRESSED_LOGIT
        elif self.bos is None and name != "output.weight":
            ours[1] = theirs[self.start]
        return ours

    def write(self, ours: Float[Tensor, "V+N *D"]) -> Float[Tensor, "V *D"]:
        """Return their rows, made from ours."""
        order = self.order()
        theirs = ours.new_empty(self.size, *ours.shape[1:])
        known = order < self.size
        theirs[order[known]] = ours[known]
        return theirs

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        return plain if self.source else {name: value for name, value in plain.items() if name != "source"}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "VocabularyMapping":
        """Return the mapping that ``to_dict`` described."""
        source = plain.get("source")
        return cls(**{**plain, "source": source and cls(**source)})


SOURCE_TABLE = "source_embed.tokens.weight"
TABLES = frozenset({"embed.tokens.weight", SOURCE_TABLE, "output.weight", "output.bias"})
"""Tensors of a Transformer with a row for each entry of the vocabulary."""


def share_beginning(model: nn.Module, vocabulary: VocabularyMapping) -> None:
    """Tie the row that a text begins with, a copy of another row, to that row during training.

    Elsewhere both are one row. Both get the sum of their gradients, and so stay equal to the bit.
    """
    table = model.get_parameter("embed.tokens.weight")
    if table.requires_grad:
        both = [1, vocabulary.order().tolist().index(vocabulary.start)]

        def shared(gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            gradient[both] = gradient[both].sum(dim=0)
            return gradient

        table.register_hook(shared)


def of_tokenizer(tokenizer: Tokenizer) -> VocabularyMapping:
    """Return the mapping of a model that we trained: every role has its own row."""
    pad, bos, eos = tokenizer.special_rows
    return VocabularyMapping(len(tokenizer), pad, bos, eos, bos)


# ---- special tokens of a Hugging Face folder --------------------------------------------------------


def special_ids(
    folder: Path,
    config: Mapping[str, Any],
    size: int,
    *,
    shape: Shape,
    content: Mapping[str, Any] | None = None,
) -> VocabularyMapping:
    """Return the roles that the files of ``folder`` name; ``content`` is that of tokenizer.json, if it has been read.

    The tokenizer's own map comes before config.json, which is often older. For the end of a text,
    generation_config.json comes first.

    Raises:
        ConfigError: no token ends a text, or an id is none or lies outside of the vocabulary.
    """
    named = {role: i for role, i in named_ids(folder, content).items() if i < size}
    generation = read_json(folder / "generation_config.json")

    def find(*names: str, sources: Sequence[Mapping[str, Any]] = (named, generation, config)) -> int | None:
        for source in sources:
            for name in names:
                value = source.get(name)
                if value is not None and value != []:
                    try:
                        return _first(value, named.get(name))
                    except (TypeError, ValueError):
                        raise ConfigError(f"{folder}: {name}: expected the id of a token, got {value!r}") from None
        return None

    reads = shape in ("encoder", "towers")  # its texts are framed by cls and sep, where the tokenizer has these
    first_cls = ("cls_token_id", "bos_token_id") if reads else ("bos_token_id", "cls_token_id")
    first_sep = ("sep_token_id", "eos_token_id") if reads else ("eos_token_id", "sep_token_id")
    eos = find(*first_sep, sources=(named, config) if reads else (generation, named, config))
    pad, bos = find("pad_token_id"), find(*first_cls)
    if eos is None:
        raise ConfigError(f"{folder / 'config.json'}: eos_token_id: must be given, to know where a text ends")
    start = bos
    if shape == "encoder-decoder":
        start = find("decoder_start_token_id", sources=(generation, config))
        start = start if start is not None else bos if bos is not None else pad
    start = eos if start is None else start
    for name, value in (("pad_token_id", pad), ("eos_token_id", eos), ("bos_token_id", start)):
        if value is not None and not 0 <= value < size:
            raise ConfigError(f"{folder / 'config.json'}: {name}: {value} is not below vocab_size, {size}")
    pad = None if pad == eos else pad
    return VocabularyMapping(size, pad, None if start in (pad, eos) else start, eos, start)


def source_ids(folder: Path, size: int, content: Mapping[str, Any]) -> VocabularyMapping:
    """Return the roles in the vocabulary of a source that has one of its own.

    Raises:
        ConfigError: no token ends a source.
    """
    named = {role: i for role, i in named_ids(folder, content).items() if i < size}
    eos, pad, bos = (named.get(f"{role}_token_id") for role in ("eos", "pad", "bos"))
    if eos is None:
        raise ConfigError(f"{folder / 'vocab.json'}: has no eos_token, with which a source ends")
    pad = None if pad == eos else pad
    start = next(i for i in (bos, pad, eos) if i is not None)
    return VocabularyMapping(size, pad, None if bos in (pad, eos) else bos, eos, start)


def further_ends(folder: Path, config: Mapping[str, Any], vocabulary: VocabularyMapping) -> list[int]:
    """Return the tokens that end a text besides ``vocabulary.eos``, where a folder names several."""
    sources = read_json(folder / "generation_config.json").get("eos_token_id", config.get("eos_token_id"))
    several = sources if isinstance(sources, list) else []
    return sorted({i for i in several if isinstance(i, int) and 0 <= i < vocabulary.size} - {vocabulary.eos})


def _first(value: Any, preferred: int | None) -> int:
    """Return, of several ends, the one that the tokenizer names, or the first."""
    if not isinstance(value, list):
        return int(value)
    return preferred if preferred is not None and preferred in value else int(value[0])


def named_ids(folder: Path, content: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Return the ids of the special tokens that tokenizer_config.json and special_tokens_map.json name.

    ``content`` is that of tokenizer.json, if it has been read.
    """
    if content is None:
        content = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    names: dict[str, Any] = dict(usual_roles(tokenizer_kind(folder, read_json(folder / "config.json"))))
    names |= read_json(folder / "special_tokens_map.json") | settings
    try:
        added = {token["content"]: int(i) for i, token in settings.get("added_tokens_decoder", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        path = folder / "tokenizer_config.json"
        raise DataError(f"{path}: added_tokens_decoder: expected a token with its content for each id") from None
    ids = entries(folder, content) | added
    found = {}
    for role in ("pad", "bos", "eos", "cls", "sep"):
        token = names.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in ids:
            found[f"{role}_token_id"] = ids[token]
    return found


def entries(folder: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of each entry of a folder's tokenizer.

    Raises:
        DataError: a tokenizer.json whose entries are none.
    """
    if not content:
        if (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            return {line: i for i, line in enumerate(lines)}
        return read_json(folder / "vocab.json")
    try:
        vocab = (content.get("model") or {}).get("vocab") or {}
        ids = {row[0]: i for i, row in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
        return ids | {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise DataError(f"{folder / 'tokenizer.json'}: not a tokenizer.json of the tokenizers library") from None
