"""One sample, or a few, through a whole Mamba layer: products, a convolution and a selective scan.

    v = u, or norm * u / rms(u) in a residual block
    x, z = in_proj v
    x = silu(conv_bias + sum_k conv_weight_k taps_k)      taps: the last k inputs, x among them
    s, B, C = x_proj x
    dt = softplus(dt_proj s)
    h <- exp(-dt exp(A_log)) * h + dt x B
    y = out_proj((C h + D x) * silu(z)), plus u in a residual block

At batch 1, calling the ops of a layer one by one takes as long as reading its weights. Here it is
one call. No gradients, no masks. There are two forms, for the two owners of such layers:

    BoundStep          weights in panels (`Panels`) and states of `longstate.layers.Mamba`, as a
                       prepared model has them; new states are returned
    selective_step_    weights as PyTorch stores them (`Linear`) and states as the published code
                       stores them; states are changed in place

Source: Gu and Dao, "Mamba" (2023). Differs from their code: everything between `u` and `y` is of
the type of `h`, float32 at least. (The taps of `selective_step_` are of the type of `u`.)

Axes: b batch, i channels outside, d inside, k taps, r rank of the step, n state; o and i of a map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_shapes
from longstate.ops._choice import plain, shape_of
from longstate.ops._layout import compute_dtype
from longstate.ops.matvec import LANES


class Linear(NamedTuple):
    """A linear map as PyTorch stores it, row after row; in any floating-point type."""

    weight: Tensor  # (o, i)
    bias: Tensor | None  # (o)


class Panels(NamedTuple):
    """A linear map in panels of 64 rows; see `longstate.ops.matvec`."""

    panels: Tensor  # (p, i, 64)
    scale: Tensor | None  # (o)
    bias: Tensor | None  # (o)


class Weights(NamedTuple):
    """The weights of one layer."""

    in_proj: Linear | Panels  # (2 d, i)
    conv_weight: Tensor  # (d, k), oldest tap first
    conv_bias: Tensor | None  # (d)
    x_proj: Linear | Panels  # (r + 2 n, d)
    dt_proj: Linear | Panels  # (d, r)
    A_log: Tensor  # (d, n)
    D: Tensor  # (d)
    out_proj: Linear | Panels  # (i, d)

    def tensors(self) -> list[Tensor | None]:
        """All of them: those of the scan, of the convolution and of the maps in their order."""
        return [
            self.A_log, self.D, self.conv_weight, self.conv_bias,
            *self.in_proj, *self.x_proj, *self.dt_proj, *self.out_proj,
        ]  # fmt: skip


class Norm(NamedTuple):
    """The root-mean-square norm of a residual block."""

    weight: Tensor  # (i)
    eps: float


def selective_step_(
    u: Tensor, taps: Tensor, h: Tensor, weights: Weights, *, impl: str = "auto"
) -> Tensor:
    """Output of one sample; the states `taps` and `h` are updated in place.

    Large layers are divided among threads. No weight is copied or kept: all are read at every call.

    Args:
        u (b, i): input. float32, bfloat16, float16 or float64.
        taps (b, d, k): the last k inputs, oldest first, of the type of `u`. Changed in place.
        h (b, d, n): state before the sample, float32 or float64. Changed in place.
        weights: of the layer; its maps are `Linear`.
        impl: "auto", "reference" or "cpu".

    Returns:
        y (b, i) of the type of `u`.

    Raises:
        ValueError: shapes or types do not fit, a state is not contiguous, a gradient is asked for,
            or `impl` cannot run here.
    """
    _check(u, taps, h, weights)
    every = (u, taps, h, *weights.tensors())
    if torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in every):
        raise ValueError("a selective step gives no gradients; call it under torch.no_grad()")
    if impl not in ("auto", "reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl != "reference" and plain(u, taps, h):
        from longstate.ops.selective_step import cpu

        return cpu.forward_(u, taps, h, weights)
    if impl == "cpu":
        raise ValueError("impl='cpu' runs on CPU tensors, untraced only")
    from longstate.ops.selective_step import reference

    return reference.forward_(u, taps, h, weights)


class BoundStep:
    """A step with weights that are prepared once, because that takes as long as a product.

    Weights are read where they are stored, so that changes in place take effect. Only the
    exponential of A_log, and weights of another type than `h`, are copies. The caller asks `is_of`
    before every call, and checks that the call fits: a CPU, no gradients, shapes, types.

    Args:
        weights: of the layer; its maps are `Panels`.
        norm: of the residual block around the layer. None: the layer alone.

    Raises:
        ValueError: the sizes of the weights do not fit.
    """

    def __init__(self, weights: Weights, norm: Norm | None = None):
        _check_weights(weights, Panels)
        if norm is not None:
            check_shapes((weights.in_proj[0].shape[1],), norm=norm.weight)
        from longstate.ops.selective_step import cpu

        tensors = [*weights.tensors(), None if norm is None else norm.weight]
        arrays = cpu.bind(tensors, compute_dtype(weights.D))
        self._forward, self._arrays = cpu.forward, arrays
        self._eps = 0.0 if norm is None else norm.eps
        self._copied = [
            i
            for i, (w, found) in enumerate(zip(tensors, arrays, strict=True))
            if w is not None and w.data_ptr() != found.ctypes.data
        ]
        self._places = self._places_of(tensors)

    def is_of(self, tensors: list[Tensor | None], norm: Norm | None = None) -> bool:
        """Whether these weights, in the order of `Weights.tensors`, are stored where this step
        reads them, and those that it copied have not changed. (PyTorch does not count changes
        through `.data`.)"""
        scale, eps = (None, 0.0) if norm is None else norm
        return eps == self._eps and self._places_of([*tensors, scale]) == self._places

    def _places_of(self, tensors: list[Any]) -> list[int]:
        places = [0 if w is None else w.data_ptr() for w in tensors]
        return places + [
            0 if tensors[i] is None or tensors[i].is_inference() else tensors[i]._version
            for i in self._copied
        ]

    def __call__(self, u: Tensor, taps: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output and the next states, all new and of the type of `h`.

        Args:
            u (b, i) or (b, t, i): input; t samples share one reading of the weights.
            taps (b, k - 1, d): inputs of the convolution before this one, oldest first.
            h (b, d, n): state; float64 if the `D` of the weights is, otherwise float32.

        Returns:
            y of the shape of `u`, the next taps and the next h.
        """
        return self._forward(u, taps, h, self._eps, self._arrays)

    def __reduce__(self) -> tuple[Any, tuple]:
        return _nothing, ()  # a copy of the layer binds its own weights


def _nothing() -> None:
    return None


def _check(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> None:
    # The messages are only put together when needed: that takes as long as the step.
    if u.dim() != 2 or h.dim() != 3:
        raise ValueError(f"u must be (b, i) and h (b, d, n); got {shape_of(u)} and {shape_of(h)}")
    if h.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"h must be float32 or float64; got {shape_of(h)}")
    _check_weights(weights, Linear)
    check_shapes((u.shape[0], *weights.A_log.shape), h=h)
    check_shapes((u.shape[0], *weights.conv_weight.shape), taps=taps)
    check_shapes((u.shape[0], weights.in_proj[0].shape[1]), u=u)
    if not (taps.is_contiguous() and h.is_contiguous()):
        raise ValueError("taps and h are changed in place and must be contiguous")
    if taps.dtype != u.dtype:
        raise ValueError(f"taps must have the type of u, {u.dtype}; got {shape_of(taps)}")


def _check_weights(w: Weights, kind: type) -> None:
    """The sizes are those of `A_log`, `conv_weight` and the columns of the maps."""
    if w.A_log.dim() != 2 or w.conv_weight.dim() != 2:
        found = f"{shape_of(w.A_log)} and {shape_of(w.conv_weight)}"
        raise ValueError(f"A_log must be (d, n) and conv_weight (d, k); got {found}")
    d, n = w.A_log.shape
    i, rank = w.in_proj[0].shape[1], w.dt_proj[0].shape[1]
    check_shapes((d, w.conv_weight.shape[1]), conv_weight=w.conv_weight)
    check_shapes((d,), D=w.D, conv_bias=w.conv_bias)
    sizes = {
        "in_proj": (2 * d, i), "x_proj": (rank + 2 * n, d), "dt_proj": (d, rank), "out_proj": (i, d)
    }  # fmt: skip
    for name, (rows, columns) in sizes.items():
        linear: Linear | Panels = getattr(w, name)
        whole = (rows, columns) if kind is Linear else (-(-rows // LANES), columns, LANES)
        fits = type(linear) is kind and linear[0].shape == whole
        if not fits or any(v is not None and v.shape != (rows,) for v in linear[1:]):
            found = ", ".join(shape_of(v) for v in linear if v is not None)
            raise ValueError(
                f"{name} must be a map from {columns} channels to {rows}, of class "
                f"{kind.__name__}; got {type(linear).__name__} of {found}"
            )
