"""Recurrent cells: vanilla RNN, GRU and LSTM, and one layer of them, over a whole text or step by step.

Weights are laid out as in ``torch.nn.LSTMCell`` and its siblings, whose fused kernels compute whole texts. Gates,
states and their sums are float32 where weights or products are narrower.

B rows, T length, K inputs, H channels of the state, G gates.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.config import OneOf, config
from dragoman.machine import onednn_has
from dragoman.model.caches.summary import Summary
from dragoman.model.linear import Multiplying
from dragoman.model.ops.elementwise import uses_bfloat16
from dragoman.model.recurrent import gates
from dragoman.model.recurrent.looped import step_product

# ---- configurations ---------------------------------------------------------------------------------


@config
class VanillaRnn:
    """Elman's network, h = f(W x + U h + b) (Elman 1990)."""

    activation: Literal["tanh", "relu"] = "tanh"
    gates, parts = 1, 1

    def scan(self, x: Tensor, state: Summary, weights: list[Tensor]) -> tuple[Tensor, ...]:
        kernel = torch.rnn_tanh if self.activation == "tanh" else torch.rnn_relu
        return kernel(x, state[0], weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)

    def step(self, x: Tensor, state: Summary, weights: list[Tensor]) -> Summary:
        kernel = torch.rnn_tanh_cell if self.activation == "tanh" else torch.rnn_relu_cell
        return (kernel(x, state[0], *weights),)

    def combine(self, by_input: Tensor, by_state: Tensor, state: Summary) -> Summary:
        return (gates.vanilla(by_input, by_state, self.activation),)

    def initialize(self, bias: Tensor, hidden: int) -> None:
        """Initialize a bias of zeros further: no gate has another one here."""


@config
class Gru:
    """Gated recurrent unit (Cho et al., arXiv:1406.1078), with the reset gate after the product, as in PyTorch."""

    gates, parts = 3, 1

    def scan(self, x: Tensor, state: Summary, weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.gru(x, state[0], weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)

    def step(self, x: Tensor, state: Summary, weights: list[Tensor]) -> Summary:
        return (torch.gru_cell(x, state[0], *weights),)

    def combine(self, by_input: Tensor, by_state: Tensor, state: Summary) -> Summary:
        return (gates.GruGates.apply(by_input, by_state, state[0]),)

    def initialize(self, bias: Tensor, hidden: int) -> None:
        """Initialize a bias of zeros further: no gate has another one here."""


@config
class Lstm:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000)."""

    forget_bias: float = 1.0
    """Initial bias of the forget gate: positive, so that a new cell remembers (Jozefowicz et al. 2015)."""
    gates, parts = 4, 2

    def scan(self, x: Tensor, state: Summary, weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.lstm(x, list(state), weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)

    def step(self, x: Tensor, state: Summary, weights: list[Tensor]) -> Summary:
        return torch.lstm_cell(x, list(state), *weights)

    def combine(self, by_input: Tensor, by_state: Tensor, state: Summary) -> Summary:
        return gates.LstmGates.apply(by_input, by_state, state[1])

    def initialize(self, bias: Tensor, hidden: int) -> None:
        bias[hidden : 2 * hidden] = self.forget_bias


RecurrentCell = Annotated[VanillaRnn | Gru | Lstm, OneOf()]
"""Cell of a recurrent layer: its gates, and the tensors of its state, of which the first is its output."""

ROUNDED = 64
"""Longest texts that fused kernels read in bfloat16: they round the state at each step, so that changes below 1/256 of
it are lost, and a long text would have many of them. Loops over steps take up to 1.7 times as long."""

# ---- one layer --------------------------------------------------------------------------------------


class RecurrentLayer(Multiplying):
    """One layer in one direction. Its state is (h,), or (h, c) of an LSTM, in float32 at least."""

    def __init__(self, cell: VanillaRnn | Gru | Lstm, inputs: int, hidden: int):
        super().__init__()
        self.cell, self.inputs, self.hidden = cell, inputs, hidden
        rows = cell.gates * hidden
        self.weight_ih, self.weight_hh = (
            nn.Parameter(torch.empty(rows, inputs)),
            nn.Parameter(torch.empty(rows, hidden)),
        )
        self.bias_ih, self.bias_hh = nn.Parameter(torch.zeros(rows)), nn.Parameter(torch.zeros(rows))
        self.outputs = nn.Identity()  # for forward hooks: receives h of all steps as other layers read it, (B, T, H)
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Initialize each gate by itself: Xavier from the inputs, orthogonal from the state (Saxe et al. 2014)."""
        for weight in self.weight_ih.chunk(self.cell.gates):
            nn.init.xavier_uniform_(weight)
        for weight in self.weight_hh.chunk(self.cell.gates):
            nn.init.orthogonal_(weight)
        self.cell.initialize(self.bias_ih, self.hidden)

    @property
    def weights(self) -> list[Tensor]:
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def empty(self, rows: int) -> Summary:
        """Return the state before the first token: zeros."""
        dtype = torch.promote_types(self.weight_hh.dtype, torch.float32)
        return (self.weight_hh.new_zeros(rows, self.hidden, dtype=dtype),) * self.cell.parts

    def scan(
        self, x: Float[Tensor, "B T K"], state: Summary, longest: int | None = None
    ) -> tuple[Float[Tensor, "B T H"], Summary]:
        """Read T tokens of each row after ``state``; return all outputs, and the state after them.

        ``longest`` is the length of the texts that these tokens are a part of; None for T.
        """
        narrow = x.dtype == torch.bfloat16 or uses_bfloat16(x.device)
        if narrow and ((longest or x.shape[1]) > ROUNDED or self._lacks_kernel(x.device)):
            return self.scan_by_steps(x, state)
        given = tuple(part.to(x.dtype)[None] for part in state)
        outputs, *after = self.cell.scan(x.contiguous(), given, self.weights)
        return outputs, tuple(new[0].to(old.dtype) for new, old in zip(after, state, strict=True))

    def _lacks_kernel(self, device: torch.device) -> bool:
        """Return whether PyTorch has no fused kernel for this cell in bfloat16 on the device."""
        return isinstance(self.cell, Lstm) and device.type == "cpu" and not onednn_has("bfloat16")

    def scan_by_steps(self, x: Float[Tensor, "B T K"], state: Summary) -> tuple[Float[Tensor, "B T H"], Summary]:
        """Return the same as the fused kernel, with gates and states in float32 at least, and products as they are."""
        by_state, outputs = step_product(self.weight_hh, self.bias_hh, self.product), []
        for by_input in self.product(x.transpose(0, 1).contiguous(), self.weight_ih, self.bias_ih).unbind(0):
            state = self.cell.combine(by_input, by_state(state[0]), state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1).to(x.dtype), state

    def step(self, x: Float[Tensor, "B K"], state: Summary) -> Summary:
        """Read one token of each row; return the state after it, whose first tensor is the output."""
        if x.dtype == state[0].dtype:
            return self.cell.step(x, state, self.weights)
        by_input = torch.nn.functional.linear(x, self.weight_ih, self.bias_ih)
        by_state = torch.nn.functional.linear(state[0].to(x.dtype), self.weight_hh, self.bias_hh)
        return self.cell.combine(by_input, by_state, state)
