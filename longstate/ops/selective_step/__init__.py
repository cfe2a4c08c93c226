"""One sample through a whole Mamba layer: four products, a convolution and a selective scan.

    v = u, or norm * u / rms(u) in a residual block
    x, z = in_proj(v)
    x = silu(conv(taps, x))
    r, B, C = x_proj(x)
    dt = softplus(dt_proj(r))
    h = exp(-dt exp(A_log)) * h + dt x B
    y = out_proj((C h + D x) * silu(z)), plus u in a residual block

The reference is `longstate.layers.Mamba`, which calls the ops one by one. At batch 1 and 8 bits
calling takes as long as reading the weights; here it is one call. Norm and residual join in because
they, too, are calls.

Axes: b batch, d channels inside, n state, k taps; r rank of the step.
"""

from typing import Any

import torch
from torch import Tensor

from longstate.ops.matvec import LANES

Weights = list[Tensor | None]
"""in_proj, x_proj, dt_proj and out_proj, each as panels (p, i, 64), scale (o) and bias (o), None
where there is none (`longstate.ops.matvec`); then weight (d, 1, k) and bias (d) of the convolution,
A_log (d, n) and D (d)."""


class SelectiveStep:
    """The step of one layer, bound to its weights: finding these anew takes as long as a product.

    Runs on a CPU, without gradients, on one thread: the caller sees to it that this is wanted.

    Args:
        weights: of the layer. Copies them nowhere but for exp(A_log), which takes long.
        norm (i): weight of the block's norm. None: the layer alone, without norm and residual.
        eps: of that norm.

    Raises:
        ValueError: the sizes of the projections do not fit.
    """

    def __init__(self, weights: Weights, norm: Tensor | None = None, eps: float = 0.0):
        sizes = [(0, 0) if w is None else (w.shape[0], w.shape[1]) for w in weights[0:12:3]]
        (d, n), i, rank = weights[14].shape, sizes[0][1], sizes[2][1]  # type: ignore[union-attr]
        rows, columns = (2 * d, rank + 2 * n, d, i), (i, d, rank, d)
        for k, found in enumerate(sizes):
            expected = (-(-rows[k] // LANES), columns[k])
            if found != expected:
                raise ValueError(f"panels of projection {k} must be {expected}; got {found}")
        self._weights, self._eps = [*weights, norm], eps
        self._places = _places(self._weights)
        self._bound: tuple[torch.dtype, Any] | None = None

    def is_of(self, weights: Weights, norm: Tensor | None = None, eps: float = 0.0) -> bool:
        """Whether these weights lie where those lie that this step reads, A_log unchanged. (A
        change through `.data` goes unseen: PyTorch does not count it.)"""
        return _places([*weights, norm]) == self._places and eps == self._eps

    def __call__(self, u: Tensor, taps: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y (b, i), the next taps and the next h, all new and of the type of `h`.

        Args:
            u (b, i): input.
            taps (b, k - 1, d): inputs of the convolution before this one, oldest first.
            h (b, d, n): state; float32 or float64, in which everything is computed.
        """
        from longstate.ops.selective_step import cpu

        wide = h.dtype
        if self._bound is not None and self._bound[0] == wide:
            return cpu.forward(u, taps, h, self._eps, self._bound[1])
        bound = cpu.bind(self._weights, wide)
        others = [w for k, w in enumerate(self._weights) if w is not None and k not in (0, 3, 6, 9)]
        if all(w.dtype == wide and w.is_contiguous() for w in others):  # else copies, soon stale
            self._bound = wide, bound
        return cpu.forward(u, taps, h, self._eps, bound)

    def __reduce__(self) -> tuple[Any, tuple]:
        return _nothing, ()  # a copy of the layer binds its own weights


def _places(weights: Weights) -> list[int]:
    A_log = weights[14]
    changes = 0 if A_log is None or A_log.is_inference() else A_log._version
    return [changes, *(0 if w is None else w.data_ptr() for w in weights)]


def _nothing() -> None:
    return None
