"""Base of all readers: a trained model that reads complete inputs (texts, images or frames) in batches.

B examples.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from dragoman.capabilities import Ability, check
from dragoman.checkpoint import load_reader
from dragoman.data.material import IdMaterial, material_of, to_device
from dragoman.decode.arguments import check_items, check_list
from dragoman.decode.brief import described
from dragoman.decode.origin import with_stated_length
from dragoman.decode.precision import prepare_for_inference
from dragoman.decode.search.strategy import not_numbers
from dragoman.decode.search.teacher_forcing import batches_by_length
from dragoman.model.encoder import Encoder
from dragoman.model.positions.tokens import Frames
from dragoman.text.tokens.tokenizer import Tokenizer

BATCH_TOKENS = 8192
"""Positions computed at a time, padding included."""
Progress = Callable[[int, int], None]
"""Called with the number of examples done and in all."""

Reader = TypeVar("Reader", bound="InputReader")


class InputReader:
    """A model with its tokenizer and the configuration of its run."""

    ability: ClassVar[Ability | None] = None
    """Ability that the model must have; None for any."""

    def __init__(self, model: Encoder, tokenizer: Tokenizer | None, config: dict[str, Any]):
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.compute: Callable[[Sequence[np.ndarray]], list[Tensor]] | None = None
        """Computes the outputs instead of ``of_rows``, where several users share the model."""
        data = config.get("data", {})
        self.material = material_of(
            model.cfg.inputs, tokenizer, longest=data.get("longest"), resize=data.get("other_sizes") == "resize"
        )

    def __repr__(self) -> str:
        labels = getattr(self, "labels", ())
        return described(self, self.model, {"labels": len(labels)} if labels else {})

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str | int = "best",
        *,
        device: str = "auto",
        tower: str = "first",
        special_tokens: bool = False,
        precision: str = "auto",
    ):
        """Load the model of a run.

        Args:
            run: a run directory, or one of its checkpoints.
            checkpoint: ``best``, ``last``, a step number, or the name of a checkpoint.
            device: as torch names it; ``auto`` is the GPU if there is one.
            tower: ``first`` or ``second``, for a run that has two.
            special_tokens: read the spelling of a special token in a text as this token.
            precision: ``float32``, ``bfloat16``, ``int8`` or ``auto``; see ``decode/precision.py``. In bfloat16, the
                entries of a vector of length 1 differ by about 0.003.

        Raises:
            CheckpointError: no such run or checkpoint, a damaged one, or one whose model has another ability.
            ConfigError: no such device or precision.
        """
        model, tokenizer, config = load_reader(run, checkpoint, tower=tower)
        if cls.ability:
            check(run, model, cls.ability)
        if special_tokens and tokenizer is not None:
            tokenizer = tokenizer.with_special_tokens()
        return cls(prepare_for_inference(model, device, precision), tokenizer, with_stated_length(config, run))

    def checked(self, given: Any, argument: str) -> list[Any]:
        """Return ``given`` as a list of inputs.

        Raises:
            TypeError: ``given`` is no list, or an entry is no text where texts are read.
        """
        if isinstance(self.material, IdMaterial):
            return check_items(given, argument)
        return check_list(given, argument, what=self.material.what)

    def answers(
        self, given: Sequence[Any], progress: Progress | None = None, places: Sequence[str] | None = None
    ) -> list[Tensor]:
        """Return the output of ``answer`` for each text, image or array, in their order.

        Raises:
            DataError: an input that the model cannot read; the message names its entry in ``places``.
            CheckpointError: a model whose output is not numbers.
        """
        places = [f"example {i + 1}" for i in range(len(given))] if places is None else places
        return self.outputs(self.material.rows(given, places), progress)

    def outputs(self, rows: Sequence[np.ndarray], progress: Progress | None = None) -> list[Tensor]:
        """Return the outputs for inputs that ``material`` has prepared, whoever computes them."""
        return self.of_rows(rows, progress) if self.compute is None else self.compute(rows)

    def using(self: Reader, compute: Callable[[Sequence[np.ndarray]], list[Tensor]]) -> Reader:
        """Return a reader with the same model whose outputs ``compute`` computes."""
        other = copy.copy(self)
        other.compute = compute
        return other

    @torch.inference_mode()
    def of_rows(self, rows: Sequence[np.ndarray], progress: Progress | None = None) -> list[Tensor]:
        """Return the outputs for inputs that ``material`` has prepared; they are read in batches of similar length.

        Raises:
            CheckpointError: a model whose output is not numbers.
        """
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))  # packed weights are neither
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        lengths, done = self.material.positions(np.array([len(row) for row in rows], np.int64)), 0
        for batch in batches_by_length(lengths.tolist(), BATCH_TOKENS):
            with self.model.without_dropout():
                answers = self.answer(to_device(self.material.collate([rows[i] for i in batch]), device)).float().cpu()
            for i, answer in zip(batch, answers, strict=True):
                read = answer if answer.dim() == 1 else answer[: int(lengths[i])]  # padding may be anything
                if not bool(read.isfinite().all()):
                    raise not_numbers()
                found[i] = answer
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return found

    def answer(self, inputs: Tensor | Frames) -> Tensor:
        """Return the output of the model's head for a batch."""
        return self.model(inputs)
