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

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import NO_STEP, Cell, Parts, each_sample
from longstate.ops._transforms import transformed


class Weights(NamedTuple):
    """In the order of PyTorch's kernels."""

    W: Tensor
    U: Tensor
    b: Tensor
    c: Tensor


class Recurrent(Cell):
    """Base of the classical cells. Subclasses set `gates`, and define `_cell` and maybe `_kernel`.

    State: {"h": (b, n)}, and {"c": (b, n)} of an LSTM.

    Args:
        d_model: channels in and out.
        d_state: n, units of the cell.

    Raises:
        ValueError: `d_state` is below 1, or `dt` or `rate` is given to a call: these cells have no
            time step.
    """

    no_time = NO_STEP
    gates: int = 1

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

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        W, U = self.in_proj, self.recurrent
        weights = Weights(*(p.to(x.dtype) for p in (W.weight, U.weight, W.bias, U.bias)))
        loop = mask is not None or reset is not None or x.shape[1] == 1
        loop = loop or torch.compiler.is_compiling() or transformed((x, *state, *weights))
        found = None if loop else self._kernel(x, state, weights)
        if found is not None:
            return found

        driven = F.linear(x, weights.W, weights.b)
        return each_sample(partial(self._advance, weights), (driven,), state, mask, reset)

    def _advance(self, w: Weights, now: Parts, state: Parts) -> Parts:
        return self._cell(now[0], F.linear(state[0], w.U, w.c), state)

    def _cell(self, driven: Tensor, recalled: Tensor, state: Parts) -> Parts:
        """The next state, from W u + b and U h + c (b, gates n) and the state; h is its first."""
        raise NotImplementedError

    def _kernel(self, x: Tensor, state: Parts, w: Weights) -> tuple[Tensor, Parts] | None:
        """h (b, t, n) and the last state by a kernel of PyTorch, if there is one."""
        return None


class Elman(Recurrent):
    """One tanh layer that sees its own last output. Arguments as for `Recurrent`."""

    def _cell(self, driven: Tensor, recalled: Tensor, state: Parts) -> Parts:
        return (torch.tanh(driven + recalled),)

    def _kernel(self, x: Tensor, state: Parts, w: Weights) -> tuple[Tensor, Parts]:
        h, last = torch.rnn_tanh(x, state[0][None], w, True, 1, 0.0, False, False, True)
        return h, (last[0].clone(),)


class GRU(Recurrent):
    """Two gates: what is read of the state, and how much of it is kept. Arguments as for
    `Recurrent`."""

    gates = 3

    def _cell(self, driven: Tensor, recalled: Tensor, state: Parts) -> Parts:
        r_u, z_u, n_u = driven.chunk(3, dim=-1)
        r_h, z_h, n_h = recalled.chunk(3, dim=-1)
        r, z = torch.sigmoid(r_u + r_h), torch.sigmoid(z_u + z_h)
        n = torch.tanh(n_u + r * n_h)
        return (n + z * (state[0] - n),)

    def _kernel(self, x: Tensor, state: Parts, w: Weights) -> tuple[Tensor, Parts]:
        h, last = torch.gru(x, state[0][None], w, True, 1, 0.0, False, False, True)
        return h, (last[0].clone(),)


class LSTM(Recurrent):
    """A cell c with gates that write, keep and read. Its state is twice `d_state` numbers.
    Arguments as for `Recurrent`."""

    gates = 4

    def _sizes(self) -> dict[str, int]:
        return {"h": self.d_state, "c": self.d_state}

    def _cell(self, driven: Tensor, recalled: Tensor, state: Parts) -> Parts:
        i, f, g, o = (driven + recalled).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def _kernel(self, x: Tensor, state: Parts, w: Weights) -> tuple[Tensor, Parts]:
        start = tuple(part[None].contiguous() for part in state)
        y, h, c = torch.lstm(x, start, w, True, 1, 0.0, False, False, True)
        return y, (h[0].clone(), c[0].clone())


class LinearRNN(Recurrent):
    """A dense linear recurrence. Nothing keeps it stable. Arguments as for `Recurrent`."""

    def __init__(self, d_model: int, *, d_state: int = 64):
        super().__init__(d_model, d_state=d_state)
        nn.init.orthogonal_(self.recurrent.weight)

    def _cell(self, driven: Tensor, recalled: Tensor, state: Parts) -> Parts:
        return (driven + recalled,)
