"""Base of S4, S4D and DSS: one linear, time-invariant system for each channel.

A layer of this kind is a parameterisation. It defines its systems (`system`) and how to run them
(`_scan`); this file implements the contract of `Layer` with these, in one direction or in both.

    y_t = sum_{l >= 0} K_l u_{t-l}  (+ sum_{l >= 0} K'_l u_{t+1+l} when bidirectional)  + D u_t

The backward kernel K' is strictly anti-causal: the current sample belongs to K.

Axes: b batch, t time, d channels, n state.
"""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from longstate.layers._base import (
    Layer,
    State,
    as_options,
    check_call,
    check_step,
    full_precision,
    no_step,
    of_no_rows,
    zero_masked,
)
from longstate.ops._blocks import in_blocks
from longstate.ops._ragged import Ragged, run_ragged
from longstate.ops._transforms import batched
from longstate.ops.channel_scan import diagonal_channel_scan
from longstate.ops.diagonal_scan import diagonal_scan
from longstate.ops.zoh_channel_scan import zoh_channel_scan
from longstate.systems import (
    DenseSystem,
    DiagonalSystem,
    Discretization,
    DPLRSystem,
    TwoSidedSystem,
    ZeroOrderHold,
)


def by_steps(
    layer: Layer,
    u: Tensor,
    state: State,
    dt: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    rate: float,
) -> tuple[Tensor, State]:
    """A sequence one sample at a time: slow, but nothing depends on values."""
    outputs = []
    for t in range(u.shape[1]):
        now = [None if x is None else x[:, t] for x in (dt, mask, reset)]
        y, state = layer.step(u[:, t], state, **as_options(now[0], now[1], now[2], rate))
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


class ChannelwiseLayer(Layer):
    """Base of layers that run one time-invariant system per channel.

    Subclasses own their parameters, among them `D` (d), and `C` with a leading axis of 2 when
    bidirectional; they define `system`, `init_state`, `_scan` and `_advance`.
    """

    D: nn.Parameter
    bidirectional: bool = False

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
        """See `Layer`. `rate` is exact under the zero-order hold when the signal is constant
        between samples, and approximate under the bilinear rule."""
        state = check_call(self, u, state, dt, mask, reset, rate)
        self._check_dt(dt)
        if len(u) == 0:
            return of_no_rows(self, u)
        if not self.bidirectional and batched(mask, reset):
            return by_steps(self, u, state, dt, mask, reset, rate)
        # masked samples may be NaN, which must not reach a gradient
        wide = zero_masked(u.to(self._dtype()), mask)
        with full_precision(u):
            if self.bidirectional:
                y = self._both_ways(wide, mask, reset, rate)
            else:
                y, state = run_ragged(
                    lambda *call: self._scan(*call, rate=rate), wide, state, dt, mask, reset
                )
            y = y + self.D * wide
        return zero_masked(y, mask).to(u.dtype), state

    def step(
        self,
        u: Float[Tensor, "b d"],
        state: State,
        *,
        dt: Float[Tensor, " b"] | None = None,
        mask: Bool[Tensor, " b"] | None = None,
        reset: Bool[Tensor, " b"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b d"], State]:
        if self.bidirectional:
            raise no_step(self)
        state = check_step(self, u, state, dt, mask, reset, rate)
        self._check_dt(dt)
        wide = u.to(self._dtype())
        if mask is not None:
            wide = torch.where(mask[:, None], wide, 0)
        with full_precision(u):
            before = state if reset is None else torch.where(reset[:, None, None], 0, state)
            y, after = self._advance(wide, before, dt, rate)
            y = y + self.D * wide
        if mask is not None:
            y = torch.where(mask[:, None], y, 0)
            after = torch.where(mask[:, None, None], after, before)
        return y.to(u.dtype), after

    def _scan(
        self,
        u: Tensor,
        state: Tensor,
        dt: Tensor | None,
        lengths: Tensor | None,
        *,
        rate: float,
        direction: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Outputs without D u, and the state; `direction` selects from a bidirectional C."""
        raise NotImplementedError

    def _advance(
        self, u: Tensor, state: Tensor, dt: Tensor | None, rate: float
    ) -> tuple[Tensor, Tensor]:
        """One sample: output without D u, and the next state."""
        raise NotImplementedError

    def _both_ways(self, u, mask, reset, rate):
        ragged = None if mask is None and reset is None else Ragged(mask, reset)
        u = u if ragged is None else ragged.split(u)
        lengths = None if ragged is None else ragged.lengths
        start = self._zero_state(u.shape[0])
        ahead, _ = self._scan(u, start, None, lengths, rate=rate, direction=0)
        # in reversed time padding comes first, and does not change the zero state
        back, _ = self._scan(u.flip(1), start, None, None, rate=rate, direction=1)
        y = ahead + nn.functional.pad(back.flip(1)[:, 1:], (0, 0, 0, 1))
        return y if ragged is None else ragged.join(y)

    def two_sided(self, rate: float = 1.0) -> TwoSidedSystem:
        """Both directions as one operator, for `longstate.memory`.

        Raises:
            ValueError: the layer is not bidirectional.
        """
        if not self.bidirectional:
            raise ValueError(f"this {type(self).__name__} has one direction; call system()")
        both = self.system(rate)
        return TwoSidedSystem(
            replace(both, C=both.C[0]), replace(both, C=both.C[1], D=torch.zeros_like(both.D))
        )

    def system(self, rate: float = 1.0) -> DiagonalSystem | DenseSystem:
        """The recurrence that the layer runs on regular samples (both directions' C: 2, d)."""
        raise NotImplementedError

    def _zero_state(self, batch: int) -> Tensor:
        raise NotImplementedError

    def init_state(self, batch: int) -> State:
        """Zero (b, d, n). Empty when bidirectional: nothing is carried between calls then."""
        return () if self.bidirectional else self._zero_state(batch)

    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.D.dtype, torch.float32)

    def _check_dt(self, dt: Tensor | None) -> None:
        if dt is not None and self.bidirectional:
            name = type(self).__name__
            raise ValueError(f"{name}(bidirectional=True) takes no dt; S5(bidirectional=True) does")


class DiagonalLayer(ChannelwiseLayer):
    """Base of channelwise layers with a diagonal system, which may take irregular time.

    Subclasses own `log_dt` (d) and define `continuous_system` and `_rule`.
    """

    log_dt: nn.Parameter

    def continuous_system(self) -> DiagonalSystem:
        """A, B, C, D of the differential equation, with batch axis d (both directions' C: 2, d)."""
        raise NotImplementedError

    def _rule(self) -> Discretization:
        raise NotImplementedError

    def system(self, rate: float = 1.0) -> DiagonalSystem:
        """The recurrence that the layer runs on regular samples."""
        return self.continuous_system().discretize(self._rule(), self._steps(rate))

    def _steps(self, rate: float) -> Tensor:
        return self.log_dt.to(self._dtype()).exp() * rate

    def _zero_state(self, batch: int) -> Tensor:
        A = self.continuous_system().A
        return torch.zeros(batch, *A.shape, dtype=A.dtype, device=A.device)

    def _scan(self, u, state, dt, lengths, *, rate, direction=0):
        if dt is not None:
            return self._irregular_scan(u, state, dt, rate)
        A, B, C = matrices(self.system(rate), direction if self.bidirectional else None)
        return diagonal_channel_scan(u, A, B, C, state, lengths=lengths)

    def _advance(self, u, state, dt, rate):
        if dt is None:
            A, B, C = matrices(self.system(rate))
        else:
            system = self.continuous_system()
            A, B, C = matrices(system)
            A, scale = self._rule().diagonal(A, (self._steps(rate) * dt[:, None])[..., None])
            B = scale * B
        state = A * state + B * u[..., None]
        y = (C * state).sum(-1)
        return (2 * y.real if y.is_complex() else y), state

    def _irregular_scan(self, u, state, dt, rate):
        """The state stays where `dt` is 0, as it is at padding."""
        A, B, C = matrices(self.continuous_system())
        steps, dt = self._steps(rate)[:, None], dt.to(u.dtype)
        if isinstance(self._rule(), ZeroOrderHold) and A.is_complex():
            return zoh_channel_scan(u, A * steps, B * steps, C, dt, state)
        return in_blocks(partial(self._irregular_block, rate), state, u, dt)

    def _irregular_block(self, rate, state, u, dt):
        """All states of a block, (b, t, d, n)."""
        A, B, C = matrices(self.continuous_system())
        A, scale = self._rule().diagonal(A, self._steps(rate)[:, None] * dt[..., None, None])
        drive = scale * B * u[..., None]
        h, last = diagonal_scan(drive.flatten(2), A.flatten(2), state.flatten(1))
        y = (C * h.view_as(drive)).sum(-1)
        return (2 * y.real if y.is_complex() else y), last.view_as(state)


def matrices(
    system: DiagonalSystem | DPLRSystem | DenseSystem, direction: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A, B (d, n) and C (d, n) of single-input, single-output systems; of the DPLR one, the
    diagonal."""
    C = system.C if direction is None else system.C[direction]
    return system.A, system.B[..., 0], C[..., 0, :]


def undone(system: DiagonalSystem, rule: Discretization, log_dt: Tensor) -> tuple[Tensor, Tensor]:
    """The continuous A (d, n) of a recurrence, and the C (..., d, n) that goes with B = 1."""
    A_bar, B, C = matrices(system)
    step = log_dt.detach().to(A_bar.real.dtype).exp()[:, None]
    A = rule.undo(A_bar, step)
    return A, C * B / rule.diagonal(A, step)[1]


def log_uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Logarithms of numbers drawn log-uniformly from [low, high]: initial step sizes."""
    if not 0 < low <= high:
        raise ValueError(f"step sizes need 0 < dt_min <= dt_max; got {low} and {high}")
    low_high = torch.tensor([low, high], dtype=torch.float64).log()
    return (low_high[0] + torch.rand(shape) * (low_high[1] - low_high[0])).float()


def complex_parameter(x: Tensor) -> nn.Parameter:
    """A complex tensor (...) as a real parameter (..., 2); a real one stays as it is."""
    if not x.is_complex():
        return nn.Parameter(x.float().clone())
    return nn.Parameter(torch.view_as_real(x.to(torch.complex64).resolve_conj()).clone())


def complex_normal(*shape: int) -> Tensor:
    """Standard complex normal: real and imaginary parts of variance 1/2."""
    return torch.randn(*shape, dtype=torch.complex64)
