"""State of training: model, optimizer and moving average, as this process holds them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from dragoman.checkpoint import RunDirectory
from dragoman.machine import autocast, keep_memory
from dragoman.migrations import Content
from dragoman.model.layer_stack import LayerStack
from dragoman.model.linear import multiply_by
from dragoman.model.lora import trainable_weights
from dragoman.train import loop
from dragoman.train.average import MovingAverage
from dragoman.train.distributed.processes import SingleProcess
from dragoman.train.memory import KeepWhole, OnMemory, Stop
from dragoman.train.optimize import load_state_tensors, state_tensors
from dragoman.train.part_weights import copy_part_weights
from dragoman.train.rates import apply_rate_factors
from dragoman.train.recipe import RunConfig
from dragoman.train.scaling import scaling_for
from dragoman.train.tasks import task_data_for

INITIALISED = "begun"
"""Key that the first process publishes once its model has its initial weights."""


class TrainState:
    """Model, optimizer and average of a run; restored from ``content`` if there is a checkpoint to resume from."""

    def __init__(self, cfg: RunConfig, directory: RunDirectory, content: Content | None, group: SingleProcess):
        train, tensors = cfg.train, content.tensors if content else {}
        self.device, self.exchange = group.device(train.device), train.parallel.build(group)
        keep_memory()
        torch.manual_seed(train.seed)
        self.model = cfg.model.build()
        multiply_by(self.model, train.products)
        for module in self.model.modules():
            if isinstance(module, LayerStack):
                module.recompute = train.recompute
        if cfg.start_from:
            if not group.first:
                group.wait_for(INITIALISED)
            cfg.start_from.begin(self.model, directory, new_run=content is None and group.first)
            group.publish(INITIALISED)
        if content is None:
            copy_part_weights(cfg.task, self.model)
        if tensors:
            self.model.load_state_dict(directory.base | tensors["model"])
        self.exchange.place(self.model, self.device)
        self.optimizer = train.optimizer.build(self.model)
        apply_rate_factors(self.optimizer, train.rates.shares(self.model))
        self.forgotten: list[str] = []
        """Weights whose optimizer state was another optimizer's, so that it begins anew."""
        if tensors:
            state = self.exchange.share(self.model, tensors["optimizer"])
            self.forgotten = load_state_tensors(self.optimizer, self.model, dict(state))
        self.average = MovingAverage(self.model, train.average) if train.average else None
        if self.average and "average" in tensors:
            self.average.load(self.model, dict(self.exchange.share(self.model, tensors["average"])))
        self.rules = loop.StepRules(
            seed=train.seed,
            clip=train.clip,
            give_up_after=train.give_up_after,
            precision=autocast(train.precision, self.device),
            exchange=self.exchange,
            scaling=scaling_for(train.precision),
            on_memory=self._on_memory(cfg),
        )

    def _on_memory(self, cfg: RunConfig) -> OnMemory | KeepWhole:
        if not task_data_for(cfg).rows_are_independent:
            return KeepWhole()
        return cfg.train.on_memory if self.exchange.complete else Stop()

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the parts of a checkpoint. All processes must call this at the same step."""
        parts = {"model": trainable_weights(self.model), "optimizer": state_tensors(self.optimizer, self.model)}
        if self.average:
            parts["average"] = self.average.tensors(self.model)
        return {part: self.exchange.full(self.model, tensors) for part, tensors in parts.items()}

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Inside the block the model is as it will be used: with the averaged weights if there are any, and all of them
        here."""
        with self.average.applied() if self.average else nullcontext(), self.exchange.whole(self.model):
            yield
