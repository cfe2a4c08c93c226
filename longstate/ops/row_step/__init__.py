"""One sample through the middle of a Mamba layer, its states updated in place: for decoding.

    u = silu(conv_bias + sum_k conv_weight_k taps_k)      taps: the last k inputs, x among them
    s, B, C = steering u
    dt = softplus(dt_weight s + dt_bias)
    h <- exp(-dt exp(A_log)) * h + dt u B
    y = (C h + D u) * silu(z)

What `short_conv`, two projections and `selective_scan` do, in one call: in a small layer making
these calls takes longer than what they compute. For weights and states that belong to somebody else
(`selective_step` wants weights in panels, and gives new states). No gradients, no masks.

Source: Gu and Dao, "Mamba" (2023). Differs from their code: everything between `x` and `y` is
float32 at least.

Axes: b batch, d channels, k taps, r rank of the step, n state.
"""

import torch
from torch import Tensor

from longstate.ops._choice import plain, shape_of


def row_step_(
    x: Tensor,
    z: Tensor,
    taps: Tensor,
    h: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    steering: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    *,
    impl: str = "auto",
) -> Tensor:
    """Gated outputs of one sample; `taps` and `h` move on by it.

    Args:
        x, z (b, d): input and gate. float32, bfloat16, float16 or float64.
        taps (b, d, k): the last k inputs, oldest first. Changed in place; of the type of `x`.
        h (b, d, n): state before the sample. Changed in place; float32 or float64.
        conv_weight (d, k): oldest tap first.
        conv_bias (d): None: none.
        steering (r + 2 n, d): what reads the step, B and C off the input.
        dt_weight (d, r), dt_bias (d): of the step, before its softplus.
        A_log (d, n): logarithm of the decay rates.
        D (d): direct path.
        impl: "auto", "reference" or "cpu".

    Returns:
        y (b, d) of the type of `x`.

    Raises:
        ValueError: shapes or types do not fit, a state has gaps in memory, a gradient is asked for,
            or `impl` cannot run here.
    """
    weights = (conv_weight, steering, dt_weight, dt_bias, A_log, D)
    _check(x, z, taps, h, *weights)
    if conv_bias is not None and conv_bias.shape != D.shape:
        raise ValueError(f"conv_bias must be {tuple(D.shape)}; got {shape_of(conv_bias)}")
    able = plain(x, z, taps, h, conv_bias, *weights)
    if torch.is_grad_enabled() and any(v.requires_grad for v in (x, z, h, *weights)):
        raise ValueError("row_step_ gives no gradients; call it under torch.no_grad()")
    if impl == "auto":
        impl = "cpu" if able else "reference"
    if impl not in ("reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl == "cpu":
        if not able:
            raise ValueError("impl='cpu' runs on CPU tensors, untraced only")
        from longstate.ops.row_step import cpu

        return cpu.forward(x, z, taps, h, conv_bias, *weights)
    from longstate.ops.row_step import reference

    return reference.forward(x, z, taps, h, conv_bias, *weights)


def _check(x, z, taps, h, conv_weight, steering, dt_weight, dt_bias, A_log, D):
    # not by `expect`: putting the messages together beforehand would take as long as the step
    if x.dim() != 2 or taps.dim() != 3 or h.dim() != 3 or dt_weight.dim() != 2:
        raise ValueError(
            f"x must be (b, d), taps (b, d, k), h (b, d, n) and dt_weight (d, r); got "
            f"{shape_of(x)}, {shape_of(taps)}, {shape_of(h)} and {shape_of(dt_weight)}"
        )
    b, d = x.shape
    n, k, r = h.shape[-1], taps.shape[-1], dt_weight.shape[-1]
    for name, v, shape in (
        ("z", z, (b, d)),
        ("taps", taps, (b, d, k)),
        ("h", h, (b, d, n)),
        ("conv_weight", conv_weight, (d, k)),
        ("steering", steering, (r + 2 * n, d)),
        ("dt_weight", dt_weight, (d, r)),
        ("dt_bias", dt_bias, (d,)),
        ("A_log", A_log, (d, n)),
        ("D", D, (d,)),
    ):
        if v.shape != shape:
            raise ValueError(f"{name} must be {shape}; got {shape_of(v)}")
    if not (taps.is_contiguous() and h.is_contiguous()):
        raise ValueError("taps and h are changed in place and must be contiguous")
    if taps.dtype != x.dtype or h.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"taps must have the type of x and h be float32 or float64; got {shape_of(taps)} and "
            f"{shape_of(h)} for {shape_of(x)}"
        )
