"""CfC: a nonlinear cell with the elapsed time in closed form.

    v = backbone([u_t; h_{t-1}])                 layers of f(x) = 1.7159 tanh(0.666 x)
    g = tanh(W_g v)     k = tanh(W_k v)          values after no time and after a long time, or the
    s = sigmoid(dt_t (W_a v) + W_b v)            reverse, by the sign of W_a v
    h_t = (1 - s) g + s k                        variant "default"
    h_t = g + s k                                variant "no_gate"
    h_t = A - A exp(-dt_t (|w| + |p|)) p         variant "pure", with p = W_p v
    y_t = W_out h_t

It replaces the differential equation of a liquid time-constant network, which needs a solver, by an
expression in the time dt since the previous sample. W_g to W_p have biases. The time dependence is
learned, not exact: a split step or a redundant sample changes the state. For steps that may be
split use S5 or S4D.

Hasani et al., "Closed-form Continuous-time Neural Networks", Nature Machine Intelligence 2022,
arXiv:2106.13898. Equations, activation and initial values are those of the authors' code, also
where it calls the forms by these names. Differs from the code: an output projection makes the
number of states independent of `d_model`; dropout, other activations and the form with an LSTM in
front ("mixed") are left out.

Axes: b batch, t time, d channels, n state, m backbone.
"""

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._cell import Cell, Parts, each_sample

Variant = Literal["default", "no_gate", "pure"]


class CfC(Cell):
    """A gated cell whose gate depends on the time since the previous sample.

    State: {"h": (b, n)}.

    Args:
        d_model: channels in and out.
        d_state: n, units of the cell.
        d_backbone: m, units of each layer of the backbone.
        n_backbone: layers of the backbone.
        variant: "default", "no_gate" or "pure"; see the top of this file.

    Raises:
        ValueError: a size is below 1, or there is no such variant.
    """

    dynamics = ("w",)

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        d_backbone: int = 128,
        n_backbone: int = 1,
        variant: Variant = "default",
    ):
        super().__init__()
        sizes = {"d_state": d_state, "d_backbone": d_backbone, "n_backbone": n_backbone}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if variant not in get_args(Variant):
            raise ValueError(f"variant must be 'default', 'no_gate' or 'pure'; got {variant!r}")
        self.d_model, self.d_state, self.variant = d_model, d_state, variant
        inputs = [d_model + d_state, *[d_backbone] * (n_backbone - 1)]
        self.backbone = nn.ModuleList(nn.Linear(m, d_backbone) for m in inputs)
        self.out_proj = nn.Linear(d_state, d_model)
        pure = variant == "pure"
        self.heads = nn.Linear(d_backbone, (1 if pure else 4) * d_state)  # p, or g, k, a, b
        self.w = nn.Parameter(torch.zeros(d_state)) if pure else None
        self.A = nn.Parameter(torch.ones(d_state)) if pure else None
        blocks = self.heads.weight.unflatten(0, (-1, d_state)).unbind()
        for weight in (*(layer.weight for layer in self.backbone), *blocks):
            nn.init.xavier_uniform_(weight)

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        (first, b), *rest = [_in_type(layer, x) for layer in (*self.backbone, self.heads)]
        of_u, of_h = first.split([self.d_model, self.d_state], dim=1)
        dt = x.new_ones(x.shape[:2]) if dt is None else dt.to(x.dtype)
        inputs = F.linear(x, of_u, b), dt[..., None]
        return each_sample(partial(self._advance, of_h, rest), inputs, state, mask, reset)

    def _advance(
        self, of_h: Tensor, rest: list[tuple[Tensor, Tensor]], now: Parts, state: Parts
    ) -> Parts:
        v = now[0] + F.linear(state[0], of_h)
        for W, b in rest:
            v = F.linear(1.7159 * torch.tanh(0.666 * v), W, b)
        return (self._after(v, now[1]),)

    def _after(self, found: Tensor, dt: Tensor) -> Tensor:
        """The state (b, n) from the heads (b, n or 4 n) and the elapsed time (b, 1)."""
        if self.w is not None and self.A is not None:
            w, A = self.w.to(found.dtype), self.A.to(found.dtype)
            return A - A * torch.exp(-dt * (w.abs() + found.abs())) * found
        g, k, a, b = found.chunk(4, dim=-1)
        g, k, s = g.tanh(), k.tanh(), torch.sigmoid(dt * a + b)
        return g + s * k if self.variant == "no_gate" else g + s * (k - g)


def _in_type(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a linear layer, in the type of x."""
    return layer.weight.to(x.dtype), layer.bias.to(x.dtype)
