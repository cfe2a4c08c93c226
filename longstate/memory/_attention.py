"""The hidden attention matrix of a recurrent layer.

    y_t = sum over s <= t of M_ts x_s + contribution of the initial state
    M_ts = read_t . (decay_t * ... * decay_s+1 * write_s) gain_s,  with own_t and skip at s = t

Exact: the matrix times the input is the output of the scan. Optionally it includes the short
convolution before the scan and the gate after it, which are linear for given data.

Axes: b batch, t time, s earlier time, c channels, n state, k taps, o outputs, i inputs.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError
from longstate.memory._gramians import System, real_matrices
from longstate.memory._plot import draw
from longstate.memory._result import THIS_DATA, Result
from longstate.memory._rollout import Rollout, rollout
from longstate.systems import Convolution, Trace
from longstate.systems._numbers import in_float64

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 2**27  # numbers in a result: one GiB


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenAttention(Result):
    """Weights of earlier inputs in an output.

    Args:
        weights (..., t, s): zero where s > t. (b, c, t, s) of a trace; (..., o, i, t, s) of a
            system.
    """

    weights: Float[Tensor, "*batch t s"]

    def reach(self) -> Float[Tensor, "*batch"]:
        """Mean distance t - s, weighted with |M_ts|."""
        return _reach(self.weights)

    def rollout(self) -> Rollout:
        """Relevance of the inputs; for a model of several layers see `longstate.memory.rollout`."""
        return rollout([self])

    def _mean(self) -> Tensor:
        return self.weights.abs().flatten(0, -3).mean(0)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        size = self._mean()
        total = max(float(size.sum()), 1e-300)
        lags = [lag for lag in [0, *(2**i for i in range(40))] if lag < len(size)]
        shares = [float(size.diagonal(-lag).sum()) / total for lag in lags]
        body = [[str(lag), f"{100 * s:.3f} %"] for lag, s in zip(lags, shares, strict=True)]
        return ["lag", "share of |weight|"], body

    def plot(self) -> "Figure":
        def paint(ax):
            size = self._mean()
            floor = float(size.max().clamp(min=1e-300)) * 1e-4
            image = ax.imshow(size.clamp(min=floor).log10(), cmap="magma", aspect="auto")
            ax.figure.colorbar(image, ax=ax, label="log10 |weight|, mean over channels")

        return draw(self, "Hidden attention", "input s", "output t", paint)


def hidden_attention(
    memory: System | Trace,
    *,
    length: int | None = None,
    channels: list[int] | None = None,
    conv: bool = False,
    gate: bool = False,
) -> HiddenAttention:
    """The matrix that maps a layer's input to its output.

    Args:
        memory: a trace, or a discrete system.
        length: t, for a system; a trace has its own.
        channels: channels of a trace. All when None: b c t^2 numbers.
        conv: include the convolution before the scan. (Its bias is not part of M.)
        gate: include the gate after the scan.

    Raises:
        InputError: a length is missing or below 1, a channel does not exist, the result is larger
            than a gibibyte, or there is no convolution or gate.
    """
    if isinstance(memory, Trace):
        weights = _of_trace(memory.double(), channels, conv, gate)
        scope, what = THIS_DATA, "the output of the layer for this input"
    else:
        if conv or gate or channels is not None:
            raise InputError("conv, gate and channels are for traces; a system has none of them")
        if length is None or length < 1:
            raise InputError(f"a system needs a length of at least 1; got {length}")
        weights, scope = _toeplitz(memory, length), "all inputs"
        what = "the output of the layer for any input"
    reach = float(_reach(weights).median())
    return HiddenAttention(
        kind="exact",
        scope=scope,
        sentence=f"This matrix times the input is {what}; in the median channel the mean distance "
        f"of the weights is {reach:.3g} steps.",
        weights=weights,
    )


def _reach(weights: Tensor) -> Tensor:
    t = torch.arange(weights.shape[-1], dtype=weights.dtype)
    size = weights.abs()
    distance = (t[:, None] - t) * size
    return distance.sum((-2, -1)) / size.sum((-2, -1)).clamp(min=1e-300)


def _of_trace(trace: Trace, channels: list[int] | None, conv: bool, gate: bool) -> Tensor:
    trace = trace if channels is None else choose_channels(trace, channels)
    b, t, c, n = trace.decay.shape
    _check_size(b * c * t * t)
    weights = trace.x.new_zeros(b, c, t, t)
    columns = trace.x.new_zeros(b, c, n, t)
    drive = trace.gain[..., None] * trace.write
    diagonal = trace.skip.expand(b, t, c)
    if trace.own is not None:
        diagonal = diagonal + (trace.own - trace.gain) * (trace.read * trace.write).sum(-1)
    for i in range(t):
        columns[..., :i] = trace.carry(i, columns[..., :i])
        columns[..., i] = drive[:, i]
        weights[..., i, : i + 1] = (trace.read[:, i, :, :, None] * columns[..., : i + 1]).sum(2)
        weights[..., i, i] += diagonal[:, i]
    if conv:
        weights = _through(weights, trace.conv)
    if gate:
        if trace.gate is None:
            raise InputError("this trace has no gate")
        weights = trace.gate.mT[..., None] * weights
    return weights


def _through(weights: Tensor, conv: Convolution | None) -> Tensor:
    """Include the convolution: M diag(scale) T, where T has the taps on its diagonals."""
    if conv is None:
        raise InputError("this trace has no convolution before its scan")
    weights = weights * conv.scale.mT[..., None, :]
    k, t = conv.taps.shape[1], weights.shape[-1]
    after = torch.zeros_like(weights)
    for j in range(min(k, t)):  # tap of j samples ago
        after[..., : t - j] += weights[..., j:] * conv.taps[:, k - 1 - j, None, None]
    return after


def choose_channels(trace: Trace, channels: list[int]) -> Trace:
    """Some channels of a trace.

    Raises:
        InputError: a channel does not exist, or `channels` is empty.
    """
    c = trace.decay.shape[2]
    if not channels or not all(0 <= i < c for i in channels):
        raise InputError(f"channels must be among 0 .. {c - 1}; got {channels}")
    return trace.part(channels=channels)


def _toeplitz(system: System, length: int) -> Tensor:
    """(..., o, i, t, s) from the impulse response."""
    A, B, C = real_matrices(system)
    D = in_float64(system.D)
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2], C.shape[:-2], D.shape[:-2])
    _check_size(batch.numel() * D.shape[-1] * D.shape[-2] * length * length)
    moved, kernel = B, []
    for _ in range(length):
        kernel.append((C @ moved).expand(*batch, *D.shape[-2:]))
        moved = A @ moved
    kernel[0] = kernel[0] + D
    h = torch.stack(kernel, dim=-1)
    t = torch.arange(length)
    lag = t[:, None] - t
    return torch.where(lag >= 0, h[..., lag.clamp(min=0)], 0)


def _check_size(numbers: int) -> None:
    if numbers > _MOST:
        raise InputError(
            f"the matrices would hold {numbers:,} numbers; choose fewer channels or a shorter "
            f"input, for at most {_MOST:,}"
        )
