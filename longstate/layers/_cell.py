"""Base of layers with several parts in their state: most are nonlinear recurrent cells, in which
every sample waits for the one before it.

Axes: b batch, t time, d channels, n state.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import (
    Layer,
    State,
    check_call,
    full_precision,
    of_no_rows,
    scaled,
    zero_masked,
)

Parts = tuple[Tensor, ...]
"""The parts (b, ...) of a cell's state in the order of `_sizes`; the first is what is read."""


NO_STEP = "it has no time step. CfC does"


class Cell(Layer):
    """Base of cells. Subclasses set `d_state` and `out_proj`, and define `_sizes` and `_run`;
    those that take neither dt nor rate say why in `no_time`."""

    no_time = ""
    d_state: int
    out_proj: nn.Linear

    def init_state(self, batch: int) -> State:
        """Zero."""
        like, dtype = self.out_proj.weight, self._dtype()
        return {part: like.new_zeros(batch, n, dtype=dtype) for part, n in self._sizes().items()}

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
        self._check_time(dt, rate)
        state = check_call(self, u, state, dt, mask, reset, rate)
        if len(u) == 0:
            return of_no_rows(self, u)
        x = zero_masked(u.to(self._dtype()), mask)
        parts = self._sizes()
        before = tuple(state[part] for part in parts)
        with full_precision(u):
            h, after = self._run(x, scaled(x, dt, rate), before, mask, reset)
            y = self.out_proj(h.to(self.out_proj.weight.dtype))
        return zero_masked(y, mask).to(u.dtype), dict(zip(parts, after, strict=True))

    def _sizes(self) -> dict[str, int]:
        """Names and sizes of the parts of the state."""
        return {"h": self.d_state}

    def _run(
        self,
        x: Tensor,
        dt: Tensor | None,
        state: Parts,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        """h (b, t, n) and the last state. `dt` None is 1 everywhere."""
        raise NotImplementedError

    def _check_time(self, dt: Tensor | None, rate: float) -> None:
        """Raise if the cell has no time step, and one was given."""
        if self.no_time and (dt is not None or rate != 1):
            name = type(self).__name__
            raise ValueError(f"{name} takes neither dt nor rate: {self.no_time}")

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.out_proj.weight.dtype, torch.float32)


def each_sample(
    advance: Callable[[Parts, Parts], Parts],
    inputs: Parts,
    state: Parts,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Parts]:
    """One sample after another: h (b, t, n), the first part of each state, and the last state.

    Args:
        advance: the next state, from the inputs of one sample, (b, ...) each, and the state.
        inputs: (b, t, ...) each.
        state: the parts before the first sample.
        mask, reset (b, t): as in `Layer`.
    """
    outputs = []
    for t in range(inputs[0].shape[1]):
        if reset is not None:
            state = tuple(torch.where(reset[:, t, None], 0, part) for part in state)
        new = advance(tuple(x[:, t] for x in inputs), state)
        if mask is not None:
            kept = mask[:, t, None]
            new = tuple(torch.where(kept, a, b) for a, b in zip(new, state, strict=True))
        state = new
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state
