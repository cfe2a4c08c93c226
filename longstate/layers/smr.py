"""State Memory Replay: the recent input scales the current one, in front of an unchanged layer.

    m_t = bias + sum_{i < window} weight_i u_{t-i}       a learned memory of each channel
    v_t = m_t u_t                   form "product"
          2 sigmoid(m_t) u_t        form "gate"
          u_t + m_t u_t             form "residual"
    y   = layer(v)

What enters the state depends on the samples before it, but not on the state. The layer keeps its
fast form, and v is computed for all t at once.

Qi, Gao, Zhang, Li, Liu, Wu, Zhou, "SMR: State Memory Replay for Long Sequence Modeling", Findings
of ACL 2024, arXiv:2405.17534. **A reconstruction**: no code and no full text was available. The
product form follows the reviews of an earlier version ("a learnable local convolution of the input,
multiplied with the input"); the other two forms, the initial values and the place in front of the
whole layer are ours. Differs from the paper, as far as it is known: a skip connection inside the
layer sees v, and not u.

It is meant for a sampling interval that differs from that in training by an unknown factor. Where
the factor is known, pass `rate=` or `dt=` instead.

Axes: b batch, t time, d channels.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import (
    Layer,
    State,
    as_options,
    check_call,
    full_precision,
    of_no_rows,
    zero_masked,
)
from longstate.layers._wrapper import Wrapper
from longstate.ops import short_conv

Form = Literal["product", "gate", "residual"]


class SMR(Wrapper):
    """A layer whose input is adjusted by its own recent values.

        layer = SMR(S4D(16), window=4)

    Args:
        layer: any layer; it is not changed.
        window: samples that the memory reads, the current one included.
        form: "product", "gate" or "residual". All are near the identity at first.

    Raises:
        ValueError: `window` is below 1, or there is no such form.
    """

    def __init__(self, layer: Layer, *, window: int = 4, form: Form = "product"):
        super().__init__(layer)
        if window < 1:
            raise ValueError(f"window must be at least 1; got {window}")
        if form not in get_args(Form):
            raise ValueError(f"form must be 'product', 'gate' or 'residual'; got {form!r}")
        self.form, self.scans = form, {"inputs": short_conv}
        self.weight = nn.Parameter(0.1 * torch.randn(self.d_model, window))  # oldest sample first
        self.bias = nn.Parameter(torch.full((self.d_model,), float(form == "product")))

    def init_state(self, batch: int) -> State:
        """The last `window - 1` inputs, zero, and the state of the layer."""
        size = batch, self.weight.shape[1] - 1, self.d_model
        past = self.bias.new_zeros(size, dtype=self._dtype())
        return {"inputs": past, "layer": self.layer.init_state(batch)}

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
        """See `Layer`. The memory counts samples: `dt` and `rate` are for the layer behind it."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        v, inputs = self._adjusted(zero_masked(u, mask), state["inputs"], mask, reset)
        y, inner = self.layer(v, state["layer"], **as_options(dt, mask, reset, rate))
        return y.to(u.dtype), {"inputs": inputs, "layer": inner}

    def _adjusted(
        self, u: Tensor, past: Tensor, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """v (b, t, d), and the inputs that the next call needs."""
        wide = u.to(self._dtype())
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        with full_precision(u):
            conv = self.scans["inputs"]
            memory, last = conv(wide, weight, bias, past, mask=mask, reset=reset)
            if self.form == "gate":
                memory = 2 * memory.sigmoid()
            elif self.form == "residual":
                memory = 1 + memory
            return memory * wide, last.to(past.dtype)

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.bias.dtype, torch.float32)

    def extra_repr(self) -> str:
        return f"window={self.weight.shape[1]}, form={self.form!r}"
