"""Classical recurrent networks under the contract of a layer, to compare with.

    Elman       h_t = tanh(W u_t + U h_{t-1} + b)
    GRU         r, z = sigmoid(...)      n = tanh(W_n u_t + b_n + r (U_n h_{t-1} + c_n))
                h_t = (1 - z) n + z h_{t-1}
    LSTM        i, f, o = sigmoid(...)   g = tanh(...)
                c_t = f c_{t-1} + i g    h_t = o tanh(c_t)
    LinearRNN   h_t = U h_{t-1} + W u_t + b            U dense, a random rotation at first

    y_t = W_out h_t

Elman, "Finding Structure in Time", 1990; Cho et al., "Learning Phrase Representations using RNN
Encoder-Decoder", 2014, arXiv:1406.1078; Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997.
The equations are those of `torch.nn`: the GRU resets after the product U h, and an LSTM has a
forget gate. Differs from `torch.nn`: an output projection makes the number of states independent of
`d_model`, and masks and resets may lie anywhere.

Every sample waits for the one before it. A sequence without gaps runs in PyTorch's own kernel;
masks, resets, `torch.compile` and the transforms of `torch.func` take a loop over time.

Axes: b batch, t time, d channels, n state.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._base import (
    Layer,
    State,
    check_call,
    full_precision,
    of_no_rows,
    zero_masked,
)
from longstate.ops._transforms import transformed

States = tuple[Tensor, ...]
"""Tensors (b, n): h, and c of an LSTM."""


class Weights(NamedTuple):
    """In the order of PyTorch's kernels."""

    W: Tensor
    U: Tensor
    b: Tensor
    c: Tensor


class Recurrent(Layer):
    """Base of the classical cells. Subclasses set `gates`, and define `_cell` and maybe `_kernel`.

    State: {"h": (b, n)}, and {"c": (b, n)} of an LSTM.

    Args:
        d_model: channels in and out.
        d_state: n, units of the cell.

    Raises:
        ValueError: `d_state` is below 1, or `dt` or `rate` is given to a call: these cells have no
            time step.
    """

    gates: int = 1
    parts: tuple[str, ...] = ("h",)

    def __init__(self, d_model: int, *, d_state: int = 64):
        super().__init__()
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1; got {d_state}")
        self.d_model, self.d_state = d_model, d_state
        self.in_proj = nn.Linear(d_model, self.gates * d_state)
        self.recurrent = nn.Linear(d_state, self.gates * d_state)
        self.out_proj = nn.Linear(d_state, d_model)
        for p in (*self.in_proj.parameters(), *self.recurrent.parameters()):
            nn.init.uniform_(p, -(d_state**-0.5), d_state**-0.5)  # as torch.nn does

    def init_state(self, batch: int) -> State:
        """Zero."""
        zero = self.out_proj.weight.new_zeros(batch, self.d_state, dtype=self._dtype())
        return {part: zero.clone() for part in self.parts}

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        if dt is not None or rate != 1:
            name = type(self).__name__
            raise ValueError(f"{name} takes neither dt nor rate: it has no time step. S5 does")
        state = check_call(self, u, state, dt, mask, reset)
        if len(u) == 0:
            return of_no_rows(self, u)
        x = zero_masked(u.to(self._dtype()), mask)
        before = tuple(state[part] for part in self.parts)
        loop = mask is not None or reset is not None or u.shape[1] == 1
        with full_precision(u):
            weights = Weights(*(p.to(x.dtype) for p in self._own()))
            loop = loop or torch.compiler.is_compiling() or transformed((x, *before, *weights))
            found = None if loop else self._kernel(x, before, weights)
            h, after = self._loop(x, before, weights, mask, reset) if found is None else found
            y = self.out_proj(h.to(self.out_proj.weight.dtype))
        return zero_masked(y, mask).to(u.dtype), dict(zip(self.parts, after, strict=True))

    def _own(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        W, U = self.in_proj, self.recurrent
        return W.weight, U.weight, W.bias, U.bias

    def _loop(
        self, x: Tensor, state: States, w: Weights, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, States]:
        """h (b, t, n) and the last state, one sample after another."""
        driven = F.linear(x, w.W, w.b)
        outputs = []
        for t in range(x.shape[1]):
            if reset is not None:
                state = tuple(torch.where(reset[:, t, None], 0, part) for part in state)
            new = self._cell(driven[:, t], F.linear(state[0], w.U, w.c), state)
            if mask is not None:
                kept = mask[:, t, None]
                new = tuple(torch.where(kept, a, b) for a, b in zip(new, state, strict=True))
            state = new
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def _cell(self, driven: Tensor, recalled: Tensor, state: States) -> States:
        """The next state, from W u + b and U h + c (b, gates n) and the state; h is its first."""
        raise NotImplementedError

    def _kernel(self, x: Tensor, state: States, w: Weights) -> tuple[Tensor, States] | None:
        """`_loop` without gaps by a kernel of PyTorch, if there is one."""
        return None

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.out_proj.weight.dtype, torch.float32)


class Elman(Recurrent):
    """One tanh layer that sees its own last output. Arguments as for `Recurrent`."""

    def _cell(self, driven: Tensor, recalled: Tensor, state: States) -> States:
        return (torch.tanh(driven + recalled),)

    def _kernel(self, x: Tensor, state: States, w: Weights) -> tuple[Tensor, States]:
        h, last = torch.rnn_tanh(x, state[0][None], w, True, 1, 0.0, False, False, True)
        return h, (last[0].clone(),)


class GRU(Recurrent):
    """Two gates: what is read of the state, and how much of it is kept. Arguments as for
    `Recurrent`."""

    gates = 3

    def _cell(self, driven: Tensor, recalled: Tensor, state: States) -> States:
        r_u, z_u, n_u = driven.chunk(3, dim=-1)
        r_h, z_h, n_h = recalled.chunk(3, dim=-1)
        r, z = torch.sigmoid(r_u + r_h), torch.sigmoid(z_u + z_h)
        n = torch.tanh(n_u + r * n_h)
        return (n + z * (state[0] - n),)

    def _kernel(self, x: Tensor, state: States, w: Weights) -> tuple[Tensor, States]:
        h, last = torch.gru(x, state[0][None], w, True, 1, 0.0, False, False, True)
        return h, (last[0].clone(),)


class LSTM(Recurrent):
    """A cell c with gates that write, keep and read. Its state is twice `d_state` numbers.
    Arguments as for `Recurrent`."""

    gates = 4
    parts = ("h", "c")

    def _cell(self, driven: Tensor, recalled: Tensor, state: States) -> States:
        i, f, g, o = (driven + recalled).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def _kernel(self, x: Tensor, state: States, w: Weights) -> tuple[Tensor, States]:
        start = tuple(part[None].contiguous() for part in state)
        y, h, c = torch.lstm(x, start, w, True, 1, 0.0, False, False, True)
        return y, (h[0].clone(), c[0].clone())


class LinearRNN(Recurrent):
    """A dense linear recurrence. Nothing keeps it stable. Arguments as for `Recurrent`."""

    def __init__(self, d_model: int, *, d_state: int = 64):
        super().__init__(d_model, d_state=d_state)
        nn.init.orthogonal_(self.recurrent.weight)

    def _cell(self, driven: Tensor, recalled: Tensor, state: States) -> States:
        return (driven + recalled,)
