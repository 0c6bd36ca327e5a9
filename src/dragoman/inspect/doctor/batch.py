"""One batch of a model under examination: its arguments by name, and the role of each.

B rows, T positions, C channels.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.errors import UserError
from dragoman.inspect.doctor.declared import is_triangular, padding_id, writes

Call = Callable[[nn.Module, dict[str, Any]], Any]
"""Runs a model on named arguments."""

TOKENS = ("decoder_input_ids", "tgt", "trg", "target_ids", "input_ids", "pixel_values", "idx", "ids", "tokens", "x")
SOURCES = ("src", "source", "encoder_input", "encoder_input_ids", "source_ids")
LABELS = ("labels", "label", "targets", "target", "y")
KEEPS = ("attention_mask", "decoder_attention_mask", "keep", "source_keep")
IGNORES = ("padding_mask", "ignore")
IGNORED_LABEL = -100


class BatchError(UserError, ValueError):
    """Batch that cannot be used or guessed. The message says what to pass."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """Padding mask of a sequence."""

    name: str
    """Argument that holds it."""
    of: str
    """Argument of the sequence."""
    keeps: bool = True
    """True where the mask is 1 on tokens; False where it is 1 on padding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputBatch:
    """Arguments of one call, and what they mean.

    ``as_batch`` infers the roles from a tensor, a tuple or a dictionary; build one to say them yourself.
    """

    arguments: dict[str, Any]
    tokens: str
    """Argument with the sequence whose positions the outputs have: ids (B, T), vectors (B, T, C) or images
    (B, C, height, width)."""
    source: str | None = None
    """Argument with the sequence that an encoder reads, where the tokens are those of a decoder."""
    masks: tuple[Mask, ...] = ()
    labels: Tensor | None = None
    """Right answers, where they are no argument."""
    labels_name: str | None = None
    """Argument that holds the right answers, where it is one."""
    causal: bool | None = None
    """True where an output must not depend on later tokens; None where nothing says so."""
    why_causal: str = "you said so"
    pad: int | None = None
    """Id of padding, where the model recognizes padding by its id."""
    batch_dim: int = 0
    """Dimension of rows, 0 or 1; the other one of the two is time."""
    call: Call = lambda model, arguments: model(**arguments)

    # ---- sizes ----

    @property
    def is_ids(self) -> bool:
        return not self.value.is_floating_point()

    @property
    def is_image(self) -> bool:
        return self.value.is_floating_point() and self.value.ndim == 4

    @property
    def value(self) -> Tensor:
        """Tokens as given."""
        return self.arguments[self.tokens]

    @property
    def rows(self) -> int:
        return self.value.shape[self.batch_dim]

    @property
    def length(self) -> int | None:
        """Positions T; None for images, and for one vector a row."""
        positions = self.value.ndim == (2 if self.is_ids else 3)
        return self.value.shape[1 - self.batch_dim] if positions else None

    def masks_of(self, name: str) -> list[Mask]:
        """Return the padding masks of a sequence."""
        return [mask for mask in self.masks if mask.of == name and isinstance(self.arguments.get(mask.name), Tensor)]

    @property
    def answers(self) -> Tensor | None:
        """Right answers, wherever they are; None where there are none."""
        return self.labels if self.labels is not None else self.arguments.get(self.labels_name or "")

    # ---- variations ----

    def replace(self, **arguments: Any) -> "InputBatch":
        """Return the batch with other arguments."""
        return dataclasses.replace(self, arguments=self.arguments | arguments)

    def run(self, model: nn.Module) -> Any:
        """Call the model."""
        return self.call(model, self.arguments)

    def with_tokens(self, value: Tensor, name: str | None = None) -> "InputBatch":
        """Return the batch with other tokens, or with another sequence ``name``."""
        return self.replace(**{name or self.tokens: value})

    def select_rows(self, rows: Sequence[int]) -> "InputBatch":
        """Return these rows of every argument."""
        index = torch.tensor(list(rows))
        changed = {name: self._rows_of(name, value, index) for name, value in self.arguments.items()}
        labels = self.labels
        if labels is not None and labels.ndim and self.rows in labels.shape[:2]:
            labels = labels.index_select(self.batch_dim if labels.ndim > 1 else 0, index.to(labels.device))
        return dataclasses.replace(self, arguments=changed, labels=labels)

    def _rows_of(self, name: str, value: Any, index: Tensor) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or self._is_square(name, value):
            return value
        dim = 0 if value.ndim == 1 or name in {mask.name for mask in self.masks} else self.batch_dim
        return value.index_select(dim, index.to(value.device)) if value.shape[dim] == self.rows else value

    def _is_square(self, name: str, value: Tensor) -> bool:
        """Return whether a tensor is a mask of positions by positions."""
        padding = name in {mask.name for mask in self.masks}
        return "mask" in name and not padding and value.ndim == 2 and value.shape[0] == value.shape[1]

    def select_times(self, start: int, stop: int) -> "InputBatch":
        """Return the tokens of these positions, with their mask, square masks and labels."""
        changed = dict(self.arguments)
        for name, value in self.arguments.items():
            if isinstance(value, Tensor) and self._is_square(name, value) and value.shape[0] == self.length:
                changed[name] = value[start:stop, start:stop]
            elif self._has_times(name, value):
                changed[name] = value.narrow(self._time_dim(name), start, stop - start)
        labels = self.labels
        if labels is not None and labels.ndim > 1 and labels.shape[1 - self.batch_dim] == self.length:
            labels = labels.narrow(1 - self.batch_dim, start, stop - start)
        return dataclasses.replace(self, arguments=changed, labels=labels)

    def _time_dim(self, name: str) -> int:
        return 1 if name in {mask.name for mask in self.masks} else 1 - self.batch_dim

    def _has_times(self, name: str, value: Any) -> bool:
        if not isinstance(value, Tensor) or value.ndim < 2:
            return False
        mask = next((mask for mask in self.masks if mask.name == name), None)
        of_tokens = name == self.tokens or (mask is not None and mask.of == self.tokens)
        named = "position" in name or "token_type" in name or name == self.labels_name
        return value.shape[self._time_dim(name)] == self.length and (of_tokens or named)

    def keep_of(self, name: str) -> Tensor | None:
        """Return the mask of a sequence as booleans (B, T), True on tokens; None where nothing says it."""
        value = self.arguments[name]
        for mask in self.masks_of(name):
            given = self.arguments[mask.name]
            return given.bool() if mask.keeps else ~given.bool()
        if self.pad is not None and not value.is_floating_point():
            ids = value if self.batch_dim == 0 else value.T
            return ids != self.pad
        return None

    def padded(self, name: str, lengths: Sequence[int], side: str = "right") -> "InputBatch":
        """Return the batch with the rows of a sequence cut to ``lengths`` and padded on ``side``.

        Raises:
            KeyError: the sequence has neither a mask nor an id of padding.
        """
        value, masks = self.arguments[name], self.masks_of(name)
        if not masks and self.pad is None:
            raise KeyError(name)
        by_row = value if self.batch_dim == 0 else value.transpose(0, 1)
        longest = by_row.shape[1]
        keep = torch.zeros(by_row.shape[:2], dtype=torch.bool, device=value.device)
        filled = by_row.clone()
        for row, length in enumerate(lengths):
            gap = longest - length
            where = slice(0, length) if side == "right" else slice(gap, longest)
            keep[row, where] = True
            filled[row, where] = by_row[row, :length]
        if self.pad is not None and not value.is_floating_point():
            filled = torch.where(keep, filled, torch.full_like(filled, self.pad))
        changed: dict[str, Any] = {name: filled if self.batch_dim == 0 else filled.transpose(0, 1)}
        changed |= {mask.name: self._as_mask(keep, mask) for mask in masks}
        if name == self.tokens and self.labels_name is not None:
            labels = self.arguments[self.labels_name]
            if labels.shape == keep.shape:
                changed[self.labels_name] = labels.masked_fill(~keep, IGNORED_LABEL)
        return self.replace(**changed)

    def _as_mask(self, keep: Tensor, mask: Mask) -> Tensor:
        return (keep if mask.keeps else ~keep).to(self.arguments[mask.name].dtype)


# ---- roles of what a user gives --------------------------------------------------------------------


def as_batch(
    model: nn.Module,
    given: Any,
    *,
    causal: bool | None = None,
    pad: int | None = None,
    batch_dim: int | None = None,
) -> InputBatch:
    """Return a batch with the role of each argument, inferred from names, types and shapes.

    A tensor is the first argument of ``model.forward``; a tuple is its arguments in order, and what is left over are
    the labels; a mapping is its arguments by name, and a key that ``forward`` does not take holds the labels.

    Raises:
        BatchError: another type, or no tensor of ids, vectors or images in it.
    """
    if isinstance(given, InputBatch):
        return given if causal is None else dataclasses.replace(given, causal=causal, why_causal="you said so")
    arguments, labels, call = _named(model, given)
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.ndim}
    labels_name = next((name for name in tensors if name in LABELS and len(tensors) > 1), None)
    masks, sequences = [], []
    for name, value in tensors.items():
        kind = "mask" if "mask" in name or name in (*KEEPS, *IGNORES) else "sequence"
        if kind == "sequence" and name != labels_name and value.ndim >= 2:
            sequences.append(name)
    if not sequences:
        raise BatchError(
            f"the batch of {type(model).__name__} holds no ids (rows, positions), vectors or images: pass a tensor, a "
            "tuple of arguments, or a dictionary of arguments by name"
        )
    tokens = next((name for name in TOKENS if name in sequences), sequences[-1] if len(sequences) == 2 else None)
    tokens = tokens or sequences[0]
    source = next((name for name in sequences if name != tokens and (name in SOURCES or _first(sequences, name))), None)
    for name, value in tensors.items():
        if "mask" in name or name in KEEPS:
            mask = _mask_role(name, value, tokens, source, arguments)
            masks += [mask] if mask else []
    says, why = writes(model, arguments[tokens], arguments.get(labels_name or "", labels), source)
    return InputBatch(
        arguments=arguments,
        tokens=tokens,
        source=source,
        masks=tuple(masks),
        labels=labels,
        labels_name=labels_name,
        causal=says if causal is None else causal,
        why_causal=why if causal is None else "you said so",
        pad=padding_id(model) if pad is None else pad,
        batch_dim=_rows_dim(model) if batch_dim is None else batch_dim,
        call=call,
    )


def _first(sequences: Sequence[str], name: str) -> bool:
    """Return whether a sequence stands before another one: (source, target) is the order of translators."""
    return len(sequences) == 2 and sequences[0] == name


def _rows_dim(model: nn.Module) -> int:
    """Return 1 for PyTorch's own sequence-first modules, else 0."""
    return int(type(model).__module__.startswith("torch.nn") and getattr(model, "batch_first", True) is False)


def _named(model: nn.Module, given: Any) -> tuple[dict[str, Any], Tensor | None, Call]:
    parameters = [
        p for p in inspect.signature(model.forward).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.KEYWORD_ONLY)
    ]
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    if isinstance(given, Mapping):
        return _named_mapping(model, given)
    if isinstance(given, Tensor):
        given = (given,)
    if not isinstance(given, tuple | list) or not given:
        raise BatchError(
            f"the batch is a {type(given).__name__}: pass a tensor, a tuple of arguments, or a dictionary of "
            "arguments by name"
        )
    variadic = len(names) < len(parameters)
    most = len(given) if variadic else len(names)
    if len(given) == 2 and _second_is_labels(parameters, given):
        most = 1
    if len(given) > most + 1:
        raise BatchError(f"the batch has {len(given)} parts, but {type(model).__name__}.forward takes {most}")
    labels = given[most] if len(given) > most else None
    if labels is not None and not isinstance(labels, Tensor):
        raise BatchError(f"the last part of the batch, the labels, is a {type(labels).__name__}: pass a tensor")
    names += [f"argument {i}" for i in range(len(names), len(given))]
    arguments = dict(zip(names, given[:most], strict=False))
    return arguments, labels, lambda model, arguments: model(*arguments.values())


def _second_is_labels(parameters: Sequence[inspect.Parameter], given: Sequence[Any]) -> bool:
    """Return whether (inputs, labels) was given to a model whose second argument is an option of another meaning."""
    if len(parameters) < 2 or parameters[1].default is inspect.Parameter.empty or not isinstance(given[1], Tensor):
        return False
    name, value = parameters[1].name, given[1]
    if name in (*LABELS, *TOKENS, *SOURCES) or value.is_floating_point() or value.dtype == torch.bool:
        return False
    return bool(value.max() > 1) or value.ndim == 1


def _named_mapping(model: nn.Module, given: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor | None, Call]:
    signature = inspect.signature(model.forward)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    given = _with_decoder_inputs(model, given)
    taken = {name: value for name, value in given.items() if open_ended or name in signature.parameters}
    left = [name for name in given if name not in taken]
    if len(left) > 1 or (left and left[0] not in LABELS):
        raise BatchError(
            f"the batch has {', '.join(map(repr, left))}, which {type(model).__name__}.forward does not take: leave it "
            f"out, or name the labels one of {', '.join(LABELS)}"
        )
    return taken, given[left[0]] if left else None, lambda model, arguments: model(**arguments)


def _with_decoder_inputs(model: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments with the decoder's inputs, which models of `transformers` make from the labels."""
    pairs = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if not pairs or make is None or "labels" not in given or "decoder_input_ids" in given:
        return given
    return {**given, "decoder_input_ids": make(labels=given["labels"])}


def _mask_role(name: str, value: Tensor, tokens: str, source: str | None, arguments: Mapping[str, Any]) -> Mask | None:
    """Return the role of a padding mask; None for a mask of positions by positions."""
    of_source = source is not None and any(part in name for part in ("src", "source", "memory", "encoder"))
    if source is not None and name == "attention_mask":
        of_source = True
    of = source if of_source and source is not None else tokens
    if value.ndim != 2 or value.shape not in (arguments[of].shape[:2], arguments[of].transpose(0, 1).shape[:2]):
        return None
    keeps = "padding" not in name and "ignore" not in name
    if keeps and name not in KEEPS and is_triangular(value):  # shapes alone do not tell as many rows as positions apart
        return None
    return Mask(name, of, keeps)
