"""Online regression as a recurrence: each channel keeps weights that map keys to its input.

The state of a channel is a vector S of n weights. Each step solves

    S_t = argmin_S |S - S_{t-1}|^2 + beta_t (S k_t - x_t)^2

    e_t = beta_t / (1 + beta_t |k_t|^2)
    exact:     S_t = S_{t-1} + e_t (x_t - S_{t-1} k_t) k_t
    diagonal:  S_t = (1 - e_t k_t^2) * S_{t-1} + e_t x_t k_t           elementwise
    y_t = (S_t q_t + D x_t) * silu(z_t)

The exact update is the minimiser. The diagonal one, which the authors released, drops the products
of different keys' components from the decay, so that every weight is a recurrence of its own. The
two agree where at most one component of k_t is not 0, where n is 1, and where S_{t-1} is 0;
elsewhere the diagonal update is no minimiser and can leave the objective worse than no update.
Both are stable for any input: the exact one never moves S further from any S with S k_t = x_t, and
the diagonal decay lies in (0, 1].

Source: Liu et al., "Longhorn: State Space Models are Amortized Online Learners" (2024).
Differs from the paper: the exact update, which it derives, can be run.

Axes: b batch, t time, d channels, n state.
"""

import torch
from torch import Tensor

from longstate.ops._choice import choose_for_length, expect, shape_of
from longstate.ops._rows import compute_dtype

CHUNK = 32
"""Steps from one kept state to the next."""


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
        update: "diagonal" or "exact"; see above.
        beta_bias (d): added to `beta`.
        beta_sigmoid: whether `beta` goes through a sigmoid.
        mask (b, t): bool. False leaves the state as it is, bit for bit, and gives output 0. What
            the other tensors hold there is not read.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton". Under "auto", a single step on a CPU goes to a
            kernel of its own, or to the reference if a gradient, a mask or a reset is wanted.

    Returns:
        y (b, t, d) of the type of `x` and the last state (b, d, n) in float32 or wider.
        Differentiable in every tensor but `mask` and `reset`.

    Raises:
        ValueError: shapes do not fit, t is 0, `update` is no update, or `impl` cannot run here.
    """
    _check(x, beta, k, q, D, z, h0, beta_bias, update, mask, reset)
    flags = mask is not None or reset is not None
    impl = choose_for_length(impl, x, beta, k, q, D, z, h0, beta_bias, flags=flags)
    wide = compute_dtype(x, beta, k, q, D, z, h0, beta_bias)
    if h0 is None:
        h0 = torch.zeros(*x.shape[::2], k.shape[2], dtype=wide, device=x.device)
    h0, k, q = h0.to(wide), k.to(wide), q.to(wide)
    if mask is not None:  # so that what padding holds reaches no sum
        k = torch.where(mask[..., None], k, torch.zeros_like(k))
        q = torch.where(mask[..., None], q, torch.zeros_like(q))
    if impl == "step":
        from longstate.ops.longhorn_scan import cpu_step

        exact = update == "exact"
        return cpu_step.forward(x, beta, k, q, D, z, h0, beta_bias, beta_sigmoid, exact)
    if impl == "reference":
        from longstate.ops.longhorn_scan import reference

        D, z, beta_bias = (None if p is None else p.to(wide) for p in (D, z, beta_bias))
        y, last = reference.forward(
            x.to(wide), beta.to(wide), k, q, D, z, h0, beta_bias, beta_sigmoid, update, mask, reset
        )
        return y.to(x.dtype), last
    size = k.square().sum(-1)
    keep = torch.is_grad_enabled() and any(
        p is not None and p.requires_grad for p in (x, beta, k, q, D, z, h0, beta_bias)
    )
    y, last, _ = _scan(
        x, beta, k, q, size, D, z, h0, beta_bias, mask, reset,
        beta_sigmoid, update == "exact", keep, impl,
    )  # fmt: skip
    return y, last


def _check(x, beta, k, q, D, z, h0, beta_bias, update, mask, reset):
    # The messages are only put together when needed: that takes as long as a small kernel.
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, time, channels); got {shape_of(x)}")
    b, t, d = x.shape
    expect(t > 0, "x has no time steps; longhorn_scan needs at least one")
    if k.dim() != 3 or k.shape[:2] != (b, t):
        raise ValueError(f"k must be ({b}, {t}, state); got {shape_of(k)}")
    if q.shape != k.shape:
        raise ValueError(f"q must be {tuple(k.shape)}, as k is; got {shape_of(q)}")
    for name, p in (("beta", beta), ("z", z)):
        if p is not None and p.shape != (b, t, d):
            raise ValueError(f"{name} must be {(b, t, d)}; got {shape_of(p)}")
    for name, p in (("D", D), ("beta_bias", beta_bias)):
        if p is not None and p.shape != (d,):
            raise ValueError(f"{name} must be ({d},); got {shape_of(p)}")
    if h0 is not None and h0.shape != (b, d, k.shape[2]):
        raise ValueError(f"h0 must be {(b, d, k.shape[2])}; got {shape_of(h0)}")
    if update not in ("diagonal", "exact"):
        raise ValueError(f"update must be 'diagonal' or 'exact'; got {update!r}")
    for name, p in (("mask", mask), ("reset", reset)):
        if p is not None and (p.shape != (b, t) or p.dtype != torch.bool):
            raise ValueError(f"{name} must be a bool tensor {(b, t)}; got {shape_of(p)}")


def _implementation(impl: str):
    if impl == "cpu":
        from longstate.ops.longhorn_scan import cpu

        return cpu
    from longstate.ops.longhorn_scan import triton

    return triton


@torch.library.custom_op("longstate::longhorn_scan", mutates_args=())
def _scan(
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    size: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    beta_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    beta_sigmoid: bool,
    exact: bool,
    keep: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (b, chunks, n, d) at the start of every chunk if `keep`.

    `size` (b, t) is |k|^2, so that its own gradient needs no kernel.
    """
    return _implementation(impl).forward(
        x, beta, k, q, size, D, z, h0, beta_bias, mask, reset, beta_sigmoid, exact, keep
    )


@_scan.register_fake
def _(x, beta, k, q, size, D, z, h0, beta_bias, mask, reset, beta_sigmoid, exact, keep, impl):
    chunks = (x.shape[1] + CHUNK - 1) // CHUNK if keep else 0
    kept = k.new_empty(x.shape[0], chunks, k.shape[2], x.shape[2])
    return x.new_empty(x.shape), h0.new_empty(h0.shape), kept


@torch.library.custom_op("longstate::longhorn_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    size: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    kept: Tensor,
    beta_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    beta_sigmoid: bool,
    exact: bool,
    impl: str,
) -> list[Tensor]:
    """Gradients of the first nine inputs of `_scan`; those of absent tensors mean nothing."""
    return _implementation(impl).backward(
        grad_y, grad_last, x, beta, k, q, size, D, z, kept, beta_bias, mask, reset,
        beta_sigmoid, exact,
    )  # fmt: skip


@_scan_backward.register_fake
def _(
    grad_y, grad_last, x, beta, k, q, size, D, z, kept, beta_bias, mask, reset, beta_sigmoid,
    exact, impl,
):  # fmt: skip
    b, _, d = x.shape
    return [
        x.new_empty(x.shape),
        beta.new_empty(x.shape),
        k.new_empty(k.shape),
        k.new_empty(k.shape),
        k.new_empty(size.shape),
        (k if D is None else D).new_empty(d),
        x.new_empty(0) if z is None else z.new_empty(z.shape),
        k.new_empty(b, d, k.shape[2]),
        (k if beta_bias is None else beta_bias).new_empty(d),
    ]


def _setup(ctx, inputs, output):
    x, beta, k, q, size, D, z, _, beta_bias, mask, reset = inputs[:11]
    ctx.beta_sigmoid, ctx.exact, _, ctx.impl = inputs[11:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(x, beta, k, q, size, D, z, output[2], beta_bias, mask, reset)


def _backward(ctx, grad_y, grad_last, _):
    x, beta, k, q, size, D, z, kept, beta_bias, mask, reset = ctx.saved_tensors
    grads = _scan_backward(
        grad_y, grad_last, x, beta, k, q, size, D, z, kept, beta_bias, mask, reset,
        ctx.beta_sigmoid, ctx.exact, ctx.impl,
    )  # fmt: skip
    grad_x, grad_beta, grad_k, grad_q, grad_size, grad_D, grad_z, grad_h0, grad_bias = grads
    return (
        grad_x, grad_beta, grad_k, grad_q, grad_size,
        None if D is None else grad_D,
        None if z is None else grad_z,
        grad_h0,
        None if beta_bias is None else grad_bias,
        None, None, None, None, None, None,
    )  # fmt: skip


_scan.register_autograd(_backward, setup_context=_setup)
