"""Online regression as a recurrence: each channel keeps weights that map keys to its input.

The state of a channel is a vector S of n weights. Each step solves

    S_t = argmin_S |S - S_{t-1}|^2 + beta_t (S k_t - x_t)^2

    e_t = beta_t / (1 + beta_t |k_t|^2)
    exact:     S_t = S_{t-1} + e_t (x_t - S_{t-1} k_t) k_t
    diagonal:  S_t = (1 - e_t k_t^2) * S_{t-1} + e_t x_t k_t           elementwise
    y_t = (S_t q_t + D x_t) * silu(z_t)

The exact update is the minimiser. The diagonal one, which the authors released, drops the products
of different keys' components from the decay, so that every weight is a separate recurrence. The two
are equal where at most one component of k_t is not 0, where n is 1, and where S_{t-1} is 0;
otherwise the diagonal update is not the minimiser and can be worse than no update. Both are stable
for any input: the exact one never moves S further from any S with S k_t = x_t, and the diagonal
decay lies in (0, 1].

Source: Liu et al., "Longhorn: State Space Models are Amortized Online Learners" (2024).
Differs from the paper: the exact update, which it derives, can be run.

Axes: b batch, t time, d channels, n state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, check_shapes, register_steered, where_kept
from longstate.ops._choice import choose_for_length, expect, shape_of
from longstate.ops._layout import compute_dtype


def longhorn_scan(
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    update: str = "diagonal",
    beta_bias: Tensor | None = None,
    beta_sigmoid: bool = False,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of the recurrence, and the state after the last step.

    Args:
        x (b, t, d): input, which is also the target of the regression. float32, bfloat16, float16
            or float64, as are `beta` and `z`.
        beta (b, t, d): weight of the new sample, not negative; before bias and sigmoid if these are
            asked for.
        k (b, t, n): key.
        q (b, t, n): query.
        D (d): direct path. None: none.
        z (b, t, d): gate, before its SiLU. None: no gate.
        h0 (b, d, n): state before the first step. Zero when None.
        update: "diagonal" or "exact", the equations above.
        beta_bias (d): added to `beta`.
        beta_sigmoid: whether `beta` goes through a sigmoid.
        mask (b, t): bool. False leaves the state as it is, bit for bit, and gives output 0. The
            other tensors are not read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton". Under "auto", a single step on a CPU goes to a
            kernel of its own, or to the reference if a gradient, a mask or a reset is wanted.

    Returns:
        y (b, t, d) of the type of `x` and the last state (b, d, n) in float32 or wider.
        Differentiable in every tensor but `mask` and `reset`.

    Raises:
        ValueError: shapes do not fit, t is 0, `update` is no update, or `impl` cannot run here.
    """
    _check(x, beta, k, q, D=D, z=z, h0=h0, beta_bias=beta_bias, mask=mask, reset=reset)
    if update not in ("diagonal", "exact"):
        raise ValueError(f"update must be 'diagonal' or 'exact'; got {update!r}")
    flags = mask is not None or reset is not None
    impl = choose_for_length(impl, x, beta, k, q, D, z, h0, beta_bias, flags=flags)
    wide = compute_dtype(x, beta, k, q, D, z, h0, beta_bias)
    if h0 is None:
        h0 = torch.zeros(*x.shape[::2], k.shape[2], dtype=wide, device=x.device)
    h0, k, q = h0.to(wide), k.to(wide), q.to(wide)
    if mask is not None:  # so that values at padding reach no sum
        k, q = where_kept(mask, k), where_kept(mask, q)
    exact = update == "exact"
    if impl == "step":
        from longstate.ops.longhorn_scan import cpu_step

        return cpu_step.forward(x, beta, k, q, D, z, h0, beta_bias, beta_sigmoid, exact)
    size = k.square().sum(-1)
    y, last = _scan(
        Inputs(
            x, beta, k, q, size, D, z, h0, beta_bias, mask, reset, beta_sigmoid, exact, False, impl
        )
    )
    return y, last


def _check(x: Tensor, beta: Tensor, k: Tensor, q: Tensor, **options: Tensor | None) -> None:
    # The messages are only put together when needed: that takes as long as a small kernel.
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, time, channels); got {shape_of(x)}")
    b, t, d = x.shape
    expect(t > 0, "x has no time steps; longhorn_scan needs at least one")
    if k.dim() != 3 or k.shape[:2] != (b, t):
        raise ValueError(f"k must be ({b}, {t}, state); got {shape_of(k)}")
    if q.shape != k.shape:
        raise ValueError(f"q must be {tuple(k.shape)}, as k is; got {shape_of(q)}")
    check_shapes((b, t, d), beta=beta, z=options["z"])
    check_shapes((d,), D=options["D"], beta_bias=options["beta_bias"])
    check_shapes((b, d, k.shape[2]), h0=options["h0"])
    check_flags(b, t, mask=options["mask"], reset=options["reset"])


class Inputs(NamedTuple):
    """Of the op. As for `longhorn_scan`, but `k`, `q` and `h0` are of the type to compute in.

    `size` (b, t) is |k|^2, so that its own gradient needs no kernel; `keep` asks for the states
    (b, chunks, n, d) at the start of every chunk.
    """

    x: Tensor
    beta: Tensor
    k: Tensor
    q: Tensor
    size: Tensor
    D: Tensor | None
    z: Tensor | None
    h0: Tensor
    beta_bias: Tensor | None
    mask: Tensor | None
    reset: Tensor | None
    beta_sigmoid: bool
    exact: bool
    keep: bool
    impl: str


_scan = register_steered("longhorn_scan", Inputs)
