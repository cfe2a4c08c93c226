"""A recurrent cell that raises its sums to a learned power, between 1 and a polynomial's degree.

    z_t = [u_t; h_{t-1}]
    s_r = W_r z_t                                                  r = 1, ..., R
    h_t = tanh( sum over r of sign(s_r) (|s_r| + e)^p - sign(s_r) e^p + b )       e = 1e-3
    y_t = W_out h_t

p is a positive number for each unit, 1 at first: the cell is then that of Elman, with R summed
matrices. A larger power keeps a state longer and is less stable; tanh bounds it here.

Qiu et al., "On the Memory Mechanism of Tensor-Power Recurrent Models", AISTATS 2021,
arXiv:2103.01521. Reconstruction: the paper's code was not available. Differs from the paper: the
power is of each sum and not of an outer product of states, which is the same at R = 1 and whole p
up to signs; e bounds the gradient at 0 where p < 1; the power is learned for each unit, and a
power that depends on the state is left out.

Axes: b batch, t time, d channels, n state, r matrices.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import NO_STEP, Cell, Parts, each_sample

_OFFSET = 1e-3


class TensorPower(Cell):
    """A cell of learned powers.

    State: {"h": (b, n)}.

    Args:
        d_model: channels in and out.
        d_state: n, units of the cell.
        rank: R, matrices whose powers are summed.

    Raises:
        ValueError: a size is below 1, or `dt` or `rate` is given to a call: the cell has no time
            step.
    """

    no_time = NO_STEP

    def __init__(self, d_model: int, *, d_state: int = 64, rank: int = 2):
        super().__init__()
        for name, value in {"d_state": d_state, "rank": rank}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        self.d_model, self.d_state, self.rank = d_model, d_state, rank
        self.in_proj = nn.Linear(d_model, rank * d_state, bias=False)
        self.recurrent = nn.Linear(d_state, rank * d_state, bias=False)
        self.bias = nn.Parameter(torch.zeros(d_state))
        self.log_power = nn.Parameter(torch.zeros(d_state))
        self.out_proj = nn.Linear(d_state, d_model)
        for p in (self.in_proj.weight, self.recurrent.weight):
            nn.init.uniform_(p, -(d_state**-0.5), d_state**-0.5)

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        W, U, b = (p.to(x.dtype) for p in (self.in_proj.weight, self.recurrent.weight, self.bias))
        power = self.log_power.to(x.dtype).exp()
        advance = partial(self._advance, U, b, power)
        return each_sample(advance, (F.linear(x, W),), state, mask, reset)

    def _advance(self, U: Tensor, b: Tensor, power: Tensor, now: Parts, state: Parts) -> Parts:
        s = (now[0] + F.linear(state[0], U)).unflatten(-1, (self.rank, self.d_state))
        raised = s.sign() * ((s.abs() + _OFFSET) ** power - _OFFSET**power)
        return (torch.tanh(raised.sum(-2) + b),)
