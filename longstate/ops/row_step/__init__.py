"""One sample through a whole Mamba layer, its states updated in place: for decoding.

    x, z = in_proj u
    x = silu(conv_bias + sum_k conv_weight_k taps_k)      taps: the last k inputs, x among them
    s, B, C = x_proj x
    dt = softplus(dt_weight s + dt_bias)
    h <- exp(-dt exp(A_log)) * h + dt x B
    y = out_proj ((C h + D x) * silu(z))

For weights and states that belong to somebody else: matrices lie as PyTorch keeps them, row after
row, and both states keep their place in memory. (`selective_step` wants a model prepared for it.)
In a small layer making forty calls takes longer than what they compute; here it is one. No
gradients, no masks.

Source: Gu and Dao, "Mamba" (2023). Differs from their code: everything between `u` and `y`, but
for the taps, is float32 at least.

Axes: b batch, i channels outside, d inside, k taps, r rank of the step, n state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._choice import plain, shape_of


class Weights(NamedTuple):
    """Of one layer; in any floating-point types."""

    in_proj: Tensor  # (2 d, i)
    in_bias: Tensor | None  # (2 d)
    conv_weight: Tensor  # (d, k), oldest tap first
    conv_bias: Tensor | None  # (d)
    x_proj: Tensor  # (r + 2 n, d)
    dt_weight: Tensor  # (d, r)
    dt_bias: Tensor  # (d)
    A_log: Tensor  # (d, n)
    D: Tensor  # (d)
    out_proj: Tensor  # (i, d)
    out_bias: Tensor | None  # (i)


def row_step_(
    u: Tensor, taps: Tensor, h: Tensor, weights: Weights, *, impl: str = "auto"
) -> Tensor:
    """Output of one sample; `taps` and `h` move on by it.

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
    _check(u, taps, h, weights)
    if torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in (u, h, *weights)):
        raise ValueError("row_step_ gives no gradients; call it under torch.no_grad()")
    able = plain(u, taps, h, *weights)
    if impl == "auto":
        impl = "cpu" if able else "reference"
    if impl not in ("reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl == "cpu":
        if not able:
            raise ValueError("impl='cpu' runs on CPU tensors, untraced only")
        from longstate.ops.row_step import cpu

        return cpu.forward(u, taps, h, weights)
    from longstate.ops.row_step import reference

    return reference.forward(u, taps, h, weights)


def _check(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> None:
    # not by `expect`: putting the messages together beforehand would take as long as the step
    if u.dim() != 2 or taps.dim() != 3 or h.dim() != 3 or weights.dt_weight.dim() != 2:
        raise ValueError(
            f"u must be (b, i), taps (b, d, k), h (b, d, n) and dt_weight (d, r); got "
            f"{shape_of(u)}, {shape_of(taps)}, {shape_of(h)} and {shape_of(weights.dt_weight)}"
        )
    (b, i), (_, d, n), k, r = u.shape, h.shape, taps.shape[2], weights.dt_weight.shape[1]
    if taps.shape[:2] != (b, d) or h.shape[0] != b:
        raise ValueError(f"taps must be {(b, d, k)} and h {(b, d, n)}; got {shape_of(taps)}")
    shapes = (
        (2 * d, i), (2 * d,), (d, k), (d,), (r + 2 * n, d), (d, r), (d,), (d, n), (d,), (i, d), (i,)
    )  # fmt: skip
    for j, (weight, shape) in enumerate(zip(weights, shapes, strict=True)):
        if weight is not None and weight.shape != shape:
            raise ValueError(f"{Weights._fields[j]} must be {shape}; got {shape_of(weight)}")
    if not (taps.is_contiguous() and h.is_contiguous()):
        raise ValueError("taps and h are changed in place and must be contiguous")
    if taps.dtype != u.dtype or h.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"taps must have the type of u and h be float32 or float64; got {shape_of(taps)} and "
            f"{shape_of(h)} for {shape_of(u)}"
        )
