"""Longhorn: a state that is the solution of a small regression at every step.

    S_t = argmin_S |S - S_{t-1}|^2 + beta_t (S k_t - x_t)^2        for each channel
    beta_t = sigmoid(dt_head(r_t))
    y_t = (S_t q_t + D x_t) * silu(z_t)

where r, k, q are projections of x; `longstate.layers._selective` has the layers around the scan.
Stable for every input, without a matrix A.

Liu, Wang, Wu, Feng, Stone, Liu, "Longhorn: State Space Models are Amortized Online Learners",
2024, arXiv:2407.14207. Parameter names, shapes and initial values are those of the authors' code.
Differs from the paper: `variant="exact"` runs the exact minimiser. The authors' code, "diagonal",
keeps only the diagonal of its decay. This equals the minimiser if the key has one component, and
can otherwise leave the objective worse than no update (`longstate.ops`).

Axes: b batch, t time, d channels (expand * d_model), n state, r rank.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from longstate.layers._base import full_precision
from longstate.layers._projected import check_columns
from longstate.layers._selective import SelectiveLayer
from longstate.ops import longhorn_scan, short_conv
from longstate.systems import Trace


class Longhorn(SelectiveLayer):
    """Each channel keeps weights that map keys to its input, and updates them online.

    Args:
        d_model: channels in and out.
        d_state: n, size of a key, and states of each channel. (m, n): of the m components of a key,
            which set the step, the state has n.
        d_conv: taps of the convolution.
        expand: channels inside, as a multiple of `d_model`.
        variant: "diagonal", as released, or "exact", the true minimiser.

    Raises:
        ValueError: a size is below 1, `variant` does not exist, or `dt` is given to a call:
            Longhorn has no time step. Mamba has one.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | Sequence[int] = 16,
        d_conv: int = 4,
        expand: int = 2,
        variant: Literal["diagonal", "exact"] = "diagonal",
    ):
        super().__init__(d_model, d_state=d_state, d_conv=d_conv, expand=expand)
        if variant not in ("diagonal", "exact"):
            raise ValueError(f"variant must be 'diagonal' or 'exact'; got {variant!r}")
        self.variant = variant
        scan = longhorn_scan if variant == "diagonal" else partial(longhorn_scan, update=variant)
        self.scans = {"taps": short_conv, "ssm": scan}
        self.dt_head = nn.Linear(self.rank, self.d_inner)
        nn.init.zeros_(self.dt_head.bias)  # beta starts near 1/2

    def with_states(self, columns: Sequence[int]) -> "Longhorn":
        """A copy that has only these columns of the state. The whole key is still computed, because
        its norm sets the step. In the "diagonal" form the other columns do not change. The "exact"
        form couples the columns of a state, so they do change."""
        return self._of_columns(check_columns(self, columns, self.d_state))

    def _steering(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._read(x)  # also returns the whole key, for `_weights`

    def _weights(self, low: Tensor, k: Tensor) -> Tensor:
        """beta, such that beta / (1 + beta |kept key|^2) is the step of the whole key."""
        beta = self.dt_head(low).sigmoid()
        left_out = k.square().sum(-1, keepdim=True) - self._kept(k).square().sum(-1, keepdim=True)
        return beta / (1 + beta * left_out.clamp(min=0))

    def _scan(self, x, z, steering, h0, dt, mask, reset):
        if dt is not None:
            raise ValueError("Longhorn takes neither dt nor rate: it has no time step. Mamba does")
        low, k, q = steering
        whole = self.columns is None
        if whole:
            beta = self.dt_head(low)
        else:
            beta, k, q = self._weights(low, k), self._kept(k), self._kept(q)
        with full_precision(x):
            return self.scans["ssm"](
                x, beta, k, q, self.D, z, h0, beta_sigmoid=whole, mask=mask, reset=reset
            )

    def _trace(self, x, steering, h0):
        low, k, q = steering
        beta = self.dt_head(low).sigmoid()
        rate = beta / (1 + beta * k.square().sum(-1, keepdim=True))
        k, q = (self._kept(v)[:, :, None].expand(*x.shape, -1) for v in (k, q))
        if self.variant == "exact":
            return Trace(x, torch.ones_like(k), rate, k, q, h0, self.D, erase=rate)
        return Trace(x, 1 - rate[..., None] * k.square(), rate, k, q, h0, self.D)
