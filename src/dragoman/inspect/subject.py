"""A run that is looked at: its model as it was trained, its tokenizers, and its inputs as the model reads them.

B batch, here 1; T target tokens, S source tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from dragoman.capabilities import TRANSLATES, ability
from dragoman.checkpoint import load_any
from dragoman.data.material import FrameMaterial, IdMaterial, ImageMaterial, Material, material_of, to_device
from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.constraints.utf8 import Utf8Rule, Utf8Table
from dragoman.decode.defaults import BEAM
from dragoman.decode.languages import NO_LANGUAGES
from dragoman.decode.precision import on_device
from dragoman.decode.prompt import PromptReader
from dragoman.decode.search.beam import Beam
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import Rule, SearchStart
from dragoman.decode.search.search import search
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError, DataError
from dragoman.model.contrastive import TwoTowers
from dragoman.model.encoder import Encoder
from dragoman.model.interface import SequenceModel
from dragoman.model.prefixed import PrefixedTransformer
from dragoman.text.cleaning.clean import normalise
from dragoman.text.corpus import source_rows
from dragoman.text.formats.instructions import between_of_run
from dragoman.text.lines import Sourced, check_surrogates
from dragoman.text.tokens.tokenizer import BOS, EOS, Tokenizer

Kind = Literal["translator", "language model", "encoder", "towers"]


@dataclass(frozen=True)
class Inputs:
    """One text, image or pair, as the model reads it."""

    arguments: tuple[Any, ...]
    """Arguments of the model's forward: (target, source), (text,), (image,), or one for each of two towers."""
    source_tokens: tuple[str, ...] = ()
    """Spelling of the tokens that an encoder-decoder's encoder reads."""
    tokens: tuple[str, ...] = ()
    """Spelling of the tokens that the decoder, or an encoder model, reads."""
    targets: tuple[str, ...] = ()
    """Spelling of the token after each of ``tokens``; empty for a model that does not write."""
    target_ids: tuple[int, ...] = ()
    """Their ids."""

    @property
    def source_ids(self) -> Tensor | None:
        """Ids (1, S) of an encoder-decoder's source; None for other models."""
        return self.arguments[1] if self.source_tokens else None


class Subject:
    """A model with its tokenizers."""

    def __init__(
        self,
        model: nn.Module,
        source_tokenizer: Tokenizer | None = None,
        tokenizer: Tokenizer | None = None,
        *,
        materials: Sequence[Material] = (),
        run: Path | None = None,
        translator: Translator | None = None,
        between: str = "",
    ):
        """
        Args:
            model: a model of ours.
            source_tokenizer: of the source of a translator.
            tokenizer: of the target, or of the only text.
            materials: what turns inputs of an encoder, or of each of two towers, into tensors.
            run: the run directory.
            translator: what translates with the model; by default with a search that no run states.
            between: separator between a prompt and its continuation, of a model that learned from instructions.
        """
        self.model, self.run, self.materials, self.between = model, run, materials, between
        self.source_tokenizer, self.tokenizer = source_tokenizer or tokenizer, tokenizer
        self.kind: Kind = _kind(model)
        if translator is None and self.kind == "translator" and self.source_tokenizer and tokenizer:
            translator = Translator(cast(SequenceModel, model), self.source_tokenizer, tokenizer)
        self.translator = translator
        self.opened: dict[str, Any] = {}
        """Arguments of ``open`` besides the run that are not the usual ones."""

    @classmethod
    def open(
        cls,
        run: str | Path,
        checkpoint: str | int = "best",
        *,
        device: str = "cpu",
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> "Subject":
        """Open a run, in float32 and not packed for inference, so that all of its parts can be seen.

        Args:
            run, checkpoint, device, source_language, target_language: as for ``Translator.load``.

        Raises:
            CheckpointError: no such run or checkpoint, or a damaged one.
            ConfigError: no such device, or a language that the model does not have.
        """
        subject = cls._open(run, checkpoint, device, source_language, target_language)
        chosen = {"checkpoint": checkpoint, "source_language": source_language, "target_language": target_language}
        subject.opened = {name: value for name, value in chosen.items() if value not in (None, "best")}
        return subject

    @classmethod
    def _open(
        cls,
        run: str | Path,
        checkpoint: str | int,
        device: str,
        source_language: str | None,
        target_language: str | None,
    ) -> "Subject":
        folder, model, config = load_any(run, checkpoint)
        model = on_device(model, device)
        if isinstance(model, PrefixedTransformer):
            raise ConfigError(f"{run}: its model reads an image before its text: such models cannot be looked into yet")
        if isinstance(model, SequenceModel) and ability(getattr(model, "cfg", None)) is TRANSLATES:
            translator = Translator(model, *folder.tokenizers())
            translator.follow_import(folder.path, source_language, target_language)
            translator.languages.check(source_language, target_language)
            sides = translator.source_tokenizer, translator.target_tokenizer
            return cls(model, *sides, run=folder.path, translator=translator)
        NO_LANGUAGES.check(source_language, target_language)
        if isinstance(model, SequenceModel):
            return cls(model, *folder.tokenizers(), run=folder.path, between=between_of_run(config))
        towers = [model.first, model.second] if isinstance(model, TwoTowers) else [model]
        data = config.get("data") or {}
        tokenizer, materials = None, []
        for tower in towers:
            reads: Any = tower.cfg.inputs  # pyright: ignore[reportAttributeAccessIssue]
            if hasattr(reads, "vocab"):
                tokenizer = tokenizer or folder.tokenizers()[0]
            resize = data.get("other_sizes") == "resize"
            materials.append(material_of(reads, tokenizer, longest=data.get("longest"), resize=resize))
        return cls(model, None, tokenizer, materials=materials, run=folder.path)

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return next(self.model.parameters()).device

    # ---- inputs ----

    def inputs(self, given: Any, target: str | Sequence[int] | None = None, *, beam: int | None = None) -> Inputs:
        """Return what the model reads for a text, an image, or a pair.

        Args:
            given: text; for an encoder of images a path or an array; for two towers a pair of these.
            target: of a translator the translation to explain, as text or as ids with the end; None for its own. Of a
                language model a continuation, which is appended.
            beam: of a translator's own translation, as for ``Translator.translate``.

        Raises:
            DataError: an input that the model cannot read, such as an empty text or one that is too long.
        """
        if isinstance(target, str):
            check_surrogates(target, "target")
        if self.kind == "translator":
            return self._of_pair(_text(given), target, beam)
        if self.kind == "language model":
            return self._of_text(_text(given), target)
        if target is not None:
            raise DataError("target: this model does not write: leave the target out")
        if self.kind == "towers":
            if isinstance(given, str) or len(given) != 2:
                raise DataError("input: this model compares two things: give both")
            read = [self._read(one, material) for one, material in zip(given, self.materials, strict=True)]
            return Inputs(tuple(tensor for tensor, _ in read), tokens=read[0][1])
        tensor, tokens = self._read(given, self.materials[0])
        return Inputs((tensor,), tokens=tokens)

    def _of_pair(self, text: str, target: str | Sequence[int] | None, beam: int | None) -> Inputs:
        source = self._checked(self.encode_source(text), "source")
        ids = torch.tensor([source], device=self.device)
        if target is None:
            target = self.translate(ids, beam)
        elif isinstance(target, str):
            rules = self.translator.rules_of() if self.translator else []
            first = [rule.token for rule in rules if isinstance(rule, FirstToken)]
            target = [*first, *self._tokenizer.encode(normalise(target)), EOS]
        target = self._checked(list(target), "target")
        given = torch.tensor([[BOS, *target[:-1]]], device=self.device)
        return Inputs(
            (given, ids),
            self.spell(source, self.source_tokenizer),
            self.spell([BOS, *target[:-1]]),
            self.spell(target),
            tuple(target),
        )

    def _of_text(self, text: str, target: str | Sequence[int] | None) -> Inputs:
        ids = PromptReader(self._tokenizer, self.between if target else "").ids(text)
        more = self._tokenizer.encode(target) if isinstance(target, str) else list(target or ())
        ids = self._checked([*ids, *more], "text")
        following = [*ids[1:], EOS]
        given = torch.tensor([ids], device=self.device)
        return Inputs((given,), (), self.spell(ids), self.spell(following), tuple(following))

    def _read(self, given: Any, material: Material) -> tuple[Any, tuple[str, ...]]:
        """Return the input of an encoder, and the spelling of its tokens, patches or frames."""
        if isinstance(material, IdMaterial):
            row = material.rows([_text(given)], ["text"])[0]
            return to_device(material.collate([row]), self.device), self.spell(row.tolist())
        if isinstance(material, ImageMaterial):
            place = str(given) if isinstance(given, str | Path) else "image"
            row = material.rows([given], [place])[0]
            return to_device(material.collate([row]), self.device), patch_names(material)
        assert isinstance(material, FrameMaterial)
        row = material.rows([given], ["frames"])[0]
        count = int(material.positions(np.array([len(row)]))[0])
        names = tuple(f"frame {i * material.cfg.stride}" for i in range(count))
        return to_device(material.collate([row]), self.device), names

    def _checked(self, ids: list[int], side: str) -> list[int]:
        longest = getattr(self.model, "max_length", None)
        if longest is not None and len(ids) > longest:
            raise DataError(f"{side}: {len(ids)} tokens, and the model reads {longest}: shorten it")
        return ids

    # ---- texts ----

    @property
    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("tokenizer: this model has none: give it tensors")
        return self.tokenizer

    def encode_source(self, text: str) -> list[int]:
        """Return the ids of a translator's source, as in training."""
        assert self.source_tokenizer is not None
        source = Sourced(normalise(text), "", "")
        return source_rows(self.source_tokenizer, [source], getattr(self.model, "max_length", None))[0]

    def translate(self, source: Tensor, beam: int | None = None) -> list[int]:
        """Return the model's own best translation of a source (1, S), with its end; searched as ``dragoman translate``
        does."""
        if self.translator:
            return list(self.translator.translate_ids(source[0].tolist(), beam).tokens)
        return list(search(cast(SequenceModel, self.model), source, self.beam_search(beam))[0][0].tokens)

    def beam_search(self, beam: int | None = None) -> Beam:
        """Return the search that ``translate`` makes.

        Greedy search is a beam of one. In place of samples there is a beam of the usual size.
        """
        cfg = self.translator.search_of(None, beam) if self.translator else Beam(size=BEAM if beam is None else beam)
        if isinstance(cfg, Beam):
            return cfg
        return Beam(size=1, limit=cfg.limit) if isinstance(cfg, Greedy) else Beam(size=BEAM)

    def rules(self, source: Tensor, *, whole_characters: bool = False) -> list[Rule]:
        """Return the rules of a search for translations of a source (1, S), at its beginning.

        ``whole_characters`` adds the rule under which a search is repeated whose answer is not valid UTF-8.
        """
        start = SearchStart(source.new_full((len(source), 1), BOS), source)
        rules = [rule.start(start) for rule in self.translator.rules_of()] if self.translator else []
        table = Utf8Table.of(self._tokenizer, source.device) if whole_characters else None
        return rules if table is None else [*rules, Utf8Rule(table, len(source), alone=not rules)]

    def spell(self, ids: Sequence[int], tokenizer: Tokenizer | None = None) -> tuple[str, ...]:
        """Return each token as readable text; marks have their names, and bytes that are no text their numbers."""
        tokenizer = tokenizer or self.tokenizer
        return tuple(map(str, ids)) if tokenizer is None else tuple(_spelling(tokenizer, i) for i in ids)


def _kind(model: nn.Module) -> Kind:
    if isinstance(model, TwoTowers):
        return "towers"
    if isinstance(model, Encoder):
        return "encoder"
    cfg: Any = getattr(model, "cfg", None)
    return "translator" if cfg.translates else "language model"


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise DataError(f"text: a text is wanted, got {type(given).__name__}")
    return check_surrogates(given, "text")


def _spelling(tokenizer: Tokenizer, token: int) -> str:
    if token in tokenizer.marks:
        return tokenizer.entries()[token]
    try:
        spelling = tokenizer.spelling(token)
    except ConfigError:  # an imported tokenizer whose tokens are not spelt in bytes
        return tokenizer.entries()[token]
    try:
        return spelling.decode() or tokenizer.entries()[token]
    except UnicodeDecodeError:
        return "".join(f"⟨{byte:02x}⟩" for byte in spelling)


def patch_names(material: ImageMaterial) -> tuple[str, ...]:
    """Return a name for each vector of an image: its class token, and the row and column of each patch."""
    cfg = material.cfg
    rows, columns = (side // cfg.patch for side in cfg.size)
    patches = tuple(f"{r},{c}" for r in range(rows) for c in range(columns))
    return ("class", *patches) if cfg.class_token else patches


def subject_of(given: Any) -> Subject:
    """Return ``given`` as a subject: a run's path, a subject, or a model without a tokenizer."""
    if isinstance(given, Subject):
        return given
    return Subject(given) if isinstance(given, nn.Module) else Subject.open(given)
