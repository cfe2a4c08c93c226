"""One sample through a whole Mamba layer: four products, a convolution and a selective scan.

    v = u, or norm * u / rms(u) in a residual block
    x, z = in_proj v
    x = silu(conv_bias + sum_k conv_weight_k taps_k)      taps: the last k inputs, x among them
    s, B, C = x_proj x
    dt = softplus(dt_proj s)
    h <- exp(-dt exp(A_log)) * h + dt x B
    y = out_proj((C h + D x) * silu(z)), plus u in a residual block

At batch 1, calling the ops of a layer one by one takes as long as reading its weights. Here it is
one call. Norm and residual are included because they would be calls, too. No gradients, no masks.

The states come in two layouts, each with a function of its own:

    selective_step     states of `longstate.layers.Mamba`; new ones are returned
    selective_step_    states as the published code keeps them; changed in place

The weights come in two layouts as well, told apart by their type: `Linear`, as PyTorch keeps them,
and `Panels`, as `longstate.ops.matvec` reads them.

Source: Gu and Dao, "Mamba" (2023). Differs from their code: everything between `u` and `y` is of
the type of `h`, float32 at least. (The taps in `selective_step_` are of the type of `u`.)

Axes: b batch, i channels outside, d inside, k taps, r rank of the step, n state; o and i of a map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longstate.ops._choice import plain, shape_of
from longstate.ops.matvec import LANES


class Linear(NamedTuple):
    """A linear map as PyTorch keeps it, row after row; in any floating-point type."""

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


def selective_step(
    u: Tensor,
    taps: Tensor,
    h: Tensor,
    weights: Weights,
    norm: Norm | None = None,
    *,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Output of one sample, and the states after it. Runs on one thread.

    Args:
        u (b, i): input. float32, bfloat16, float16 or float64.
        taps (b, k - 1, d): inputs of the convolution before this one, oldest first.
        h (b, d, n): state; float32 or float64.
        weights: of the layer.
        norm: of the residual block around the layer. None: the layer alone.
        impl: "auto", "reference" or "cpu".

    Returns:
        y (b, i) of the type of `u`, and the next taps and h, of the type of `h`.

    Raises:
        ValueError: shapes or types do not fit, a gradient is asked for, or `impl` cannot run here.
    """
    past = weights.conv_weight.shape[-1] - 1
    _check(u, h, weights)
    b, d = h.shape[:2]
    if taps.shape != (b, past, d):
        raise ValueError(f"taps must be {(b, past, d)}; got {shape_of(taps)}")
    if norm is not None and not _is_vector(norm.weight, u.shape[1]):
        raise ValueError(f"norm must be ({u.shape[1]},); got {shape_of(norm.weight)}")
    scale = None if norm is None else norm.weight
    if _choose(impl, weights, u, taps, h, scale) == "cpu":
        from longstate.ops.selective_step import cpu

        y, taps, h = cpu.forward(u, taps, h, cpu.bind(weights, norm, h.dtype))
        return y.to(u.dtype), taps, h
    from longstate.ops.selective_step import reference

    window, h = _grown(taps.to(h.dtype)), h.clone()
    y = reference.forward(u, window, h, weights, norm)
    return y, window[..., 1:].mT.contiguous(), h


def selective_step_(
    u: Tensor, taps: Tensor, h: Tensor, weights: Weights, *, impl: str = "auto"
) -> Tensor:
    """Output of one sample; `taps` and `h` move on by it, in place.

    Large layers are shared out among threads. `A_log` is read anew at every call, and no other
    weight is copied: they may belong to somebody else, who may change them.

    Args:
        u (b, i): input. float32, bfloat16, float16 or float64.
        taps (b, d, k): the last k inputs, oldest first, of the type of `u`. Changed in place.
        h (b, d, n): state before the sample, float32 or float64. Changed in place.
        weights: of the layer.
        impl: "auto", "reference" or "cpu".

    Returns:
        y (b, i) of the type of `u`.

    Raises:
        ValueError: shapes or types do not fit, a state has gaps in memory, a gradient is asked for,
            or `impl` cannot run here.
    """
    _check(u, h, weights)
    b, d = h.shape[:2]
    k = weights.conv_weight.shape[-1]
    if taps.shape != (b, d, k):
        raise ValueError(f"taps must be {(b, d, k)}; got {shape_of(taps)}")
    if not (taps.is_contiguous() and h.is_contiguous()):
        raise ValueError("taps and h are changed in place and must be contiguous")
    if taps.dtype != u.dtype:
        raise ValueError(f"taps must have the type of u, {u.dtype}; got {shape_of(taps)}")
    if _choose(impl, weights, u, taps, h) == "cpu":
        from longstate.ops.selective_step import cpu

        return cpu.forward_(u, taps, h, weights)
    from longstate.ops.selective_step import reference

    return reference.forward(u, taps, h, weights, None)


class BoundStep:
    """`selective_step` with weights that stay: finding these anew takes as long as a product.

    It sees weights that change in place, because it reads them where they lie. Its caller looks
    whether they were replaced, by `is_of`, and whether a call fits: a CPU, no gradients, shapes.

    Args:
        weights: of the layer. None is copied but `A_log`, whose exponential takes long.
        norm: of the residual block around the layer. None: the layer alone.

    Raises:
        ValueError: the sizes of the weights do not fit.
    """

    def __init__(self, weights: Weights, norm: Norm | None = None):
        _check_weights(weights)
        self._weights, self._norm = weights, norm
        self._places = _places(weights.tensors(), norm)
        self._bound: tuple[torch.dtype, Any] | None = None

    def is_of(self, tensors: list[Tensor | None], norm: Norm | None = None) -> bool:
        """Whether these weights, in the order of `Weights.tensors`, lie where those lie that this
        step reads, A_log unchanged. (A change through `.data` goes unseen: PyTorch does not count
        it.)"""
        return _places(tensors, norm) == self._places

    def __call__(self, u: Tensor, taps: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y (b, i), the next taps and the next h, all new and of the type of `h`."""
        from longstate.ops.selective_step import cpu

        if self._bound is not None and self._bound[0] == h.dtype:
            return cpu.forward(u, taps, h, self._bound[1])
        bound = cpu.bind(self._weights, self._norm, h.dtype)
        result = cpu.forward(u, taps, h, bound)
        if cpu.reads_in_place(self._weights, self._norm, h.dtype):  # else copies, soon stale
            self._bound = h.dtype, bound
        return result

    def __reduce__(self) -> tuple[Any, tuple]:
        return _nothing, ()  # a copy of the layer binds its own weights


def _places(tensors: list[Tensor | None], norm: Norm | None) -> list[float]:
    A_log: Any = tensors[0]
    places: list[float] = [0 if w is None else w.data_ptr() for w in tensors]
    places.append(0 if A_log.is_inference() else A_log._version)
    return places if norm is None else [*places, norm.weight.data_ptr(), norm.eps]


def _nothing() -> None:
    return None


def _is_vector(v: Tensor | None, size: int) -> bool:
    return v is None or v.shape == (size,)


def _grown(taps: Tensor) -> Tensor:
    """(b, k - 1, d) as (b, d, k), with room for one more input behind: the oldest falls out."""
    return torch.nn.functional.pad(taps.mT, (1, 0))


def _choose(impl: str, weights: Weights, u: Tensor, *others: Tensor | None) -> str:
    if torch.is_grad_enabled():
        every = [u, *others, *weights.tensors()]
        if any(v is not None and v.requires_grad for v in every):
            raise ValueError("a selective step gives no gradients; call it under torch.no_grad()")
    able = plain(u, *others)
    if impl == "auto":
        return "cpu" if able else "reference"
    if impl not in ("reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl == "cpu" and not able:
        raise ValueError("impl='cpu' runs on CPU tensors, untraced only")
    return impl


def _check(u: Tensor, h: Tensor, weights: Weights) -> None:
    # not by `expect`: putting the messages together beforehand would take as long as the step
    if u.dim() != 2 or h.dim() != 3:
        raise ValueError(f"u must be (b, i) and h (b, d, n); got {shape_of(u)} and {shape_of(h)}")
    if h.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"h must be float32 or float64; got {shape_of(h)}")
    _check_weights(weights)
    expected = (u.shape[0], *weights.A_log.shape)
    if h.shape != expected:
        raise ValueError(f"h must be {expected}; got {shape_of(h)}")
    if weights.in_proj[0].shape[1] != u.shape[1]:
        raise ValueError(f"u must be (b, {weights.in_proj[0].shape[1]}); got {shape_of(u)}")


def _check_weights(w: Weights) -> None:
    """The sizes are those of `A_log`, `conv_weight` and the columns of the maps."""
    if w.A_log.dim() != 2 or w.conv_weight.dim() != 2:
        found = f"{shape_of(w.A_log)} and {shape_of(w.conv_weight)}"
        raise ValueError(f"A_log must be (d, n) and conv_weight (d, k); got {found}")
    d, n = w.A_log.shape
    i, rank = w.in_proj[0].shape[1], w.dt_proj[0].shape[1]
    if w.conv_weight.shape[0] != d:
        raise ValueError(f"conv_weight must be ({d}, k); got {shape_of(w.conv_weight)}")
    if w.D.shape != (d,):
        raise ValueError(f"D must be ({d},); got {shape_of(w.D)}")
    if w.conv_bias is not None and w.conv_bias.shape != (d,):
        raise ValueError(f"conv_bias must be ({d},); got {shape_of(w.conv_bias)}")
    _check_map("in_proj", w.in_proj, 2 * d, i)
    _check_map("x_proj", w.x_proj, rank + 2 * n, d)
    _check_map("dt_proj", w.dt_proj, d, rank)
    _check_map("out_proj", w.out_proj, i, d)


def _check_map(name: str, linear: Linear | Panels, rows: int, columns: int) -> None:
    whole = (rows, columns) if type(linear) is Linear else (-(-rows // LANES), columns, LANES)
    fits = linear[0].shape == whole
    for v in linear[1:]:
        fits = fits and (v is None or v.shape == (rows,))
    if not fits:
        found = ", ".join(shape_of(v) for v in linear if v is not None)
        raise ValueError(f"{name} must be a map from {columns} channels to {rows}; got {found}")
