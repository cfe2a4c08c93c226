"""One sample through a whole Mamba layer: four products, a convolution and a selective scan.

    x, z = in_proj(u)
    x = silu(conv(taps, x))
    r, B, C = x_proj(x)
    dt = softplus(dt_proj(r))
    h = exp(-dt exp(A_log)) * h + dt x B
    y = out_proj((C h + D x) * silu(z))

The reference is `longstate.layers.Mamba`, which calls the ops one by one. At batch 1 and 8 bits
that costs as much as reading the weights; here it is one call.

Axes: b batch, d channels inside, n state, k taps; r rank of the step.
"""

from torch import Tensor

from longstate.ops.matvec import LANES

Projection = tuple[Tensor, Tensor | None, Tensor | None]
"""A linear map as `matvec` takes it: panels (p, i, 64), scale (o) and bias (o) or None."""


def selective_step(
    u: Tensor,
    taps: Tensor,
    h: Tensor,
    projections: list[Projection],
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    A_log: Tensor,
    D: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, i), the next taps and the next h, all new and of the type of `h`.

    Runs on a CPU, without gradients, on one thread: the caller sees to it that this is wanted.

    Args:
        u (b, i): input.
        taps (b, k - 1, d): inputs of the convolution before this one, oldest first.
        h (b, d, n): state; float32 or float64, in which everything is computed.
        projections: in_proj, x_proj, dt_proj, out_proj.
        conv_weight (d, k): oldest tap first.
        conv_bias (d): None: 0.
        A_log (d, n): logarithm of the decay rate.
        D (d): direct path.

    Raises:
        ValueError: the sizes of the projections do not fit.
    """
    (_, d, n), i, rank = h.shape, u.shape[1], projections[2][0].shape[1]
    rows, columns = (2 * d, rank + 2 * n, d, i), (i, d, rank, d)
    for k, (panels, _, _) in enumerate(projections):
        if panels.shape[0] != -(-rows[k] // LANES) or panels.shape[1] != columns[k]:
            raise ValueError(
                f"projection {k} must have {rows[k]} rows and {columns[k]} columns; "
                f"got panels {tuple(panels.shape)}"
            )
    from longstate.ops.selective_step import cpu

    return cpu.forward(u, taps, h, projections, conv_weight, conv_bias, A_log, D)
