"""The contracts of the three sums: checks, broadcasting, and the choice of implementation."""

from collections.abc import Callable

import torch
from torch import Tensor

from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._double import widen
from longstate.ops.ssm_kernel import _ops, reference


def vandermonde(w: Tensor, a: Tensor, length: int, *, impl: str = "auto") -> Tensor:
    """Re sum_n w_n a_n^l for l = 0 .. length - 1.

    With one of each conjugate pair stored, pass 2 w. The effect of a state h0 left behind is
    w = C * a * h0. An imaginary part, where one is wanted, is the result for -1j * w.

    Args:
        w (..., n): weights C * B_bar, real or complex.
        a (..., n): powers' base A_bar, real or complex; leading axes broadcast against `w`. May be
            wider than `w`: with `a` made in float64, the powers of float32 are exact too.
        length: number of lags, at least 1.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        (..., length), real, in the precision of `w`. Differentiable in `w` and `a`.

    Raises:
        ValueError: shapes do not fit, length is below 1, or `impl` cannot run here.
    """
    _check_states(w, a, "w")
    expect(length >= 1, f"length must be at least 1; got {length}")
    impl = choose(impl, w)
    w = w if w.is_complex() else torch.complex(w, torch.zeros_like(w))
    if impl == "reference":
        return reference.vandermonde(w, a, length).to(w.real.dtype)
    w, a, restore = _rows(w, _wide_complex(a))
    return restore(_ops.vandermonde(w, a, length, impl))


def moments(u: Tensor, a: Tensor, *, impl: str = "auto") -> Tensor:
    """sum_l u_l a_n^l: the adjoint of `vandermonde`.

    The state after the inputs u_0 .. u_{t-1}, from a zero state, is B_bar times the moments of the
    inputs in reverse order, `moments(u.flip(-1), a)`.

    Args:
        u (..., t): inputs, real.
        a (..., n): powers' base, real or complex; leading axes broadcast against `u`. May be wider
            than `u`.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        (..., n), complex, in the precision of `u`. Differentiable in `u` and `a`.

    Raises:
        ValueError: shapes do not fit, `u` is complex or empty, or `impl` cannot run here.
    """
    expect(not u.is_complex(), f"u must be real; got {shape_of(u)}")
    expect(u.dim() >= 1 and u.shape[-1] >= 1, f"u must be (..., t), t > 0; got {shape_of(u)}")
    _check_states(u[..., :1].expand(*u.shape[:-1], a.shape[-1]), a, "u")
    impl = choose(impl, u)
    if impl == "reference":
        a = a if a.is_complex() else torch.complex(a, torch.zeros_like(a))
        dtype = torch.complex(u.new_zeros(()), u.new_zeros(())).dtype
        return reference.moments(u, a).to(dtype)
    u, a, restore = _rows(u, _wide_complex(a))
    return restore(_ops.moments(u, a, impl))


def cauchy(v: Tensor, z: Tensor, poles: Tensor, *, impl: str = "auto") -> Tensor:
    """sum_n v_n / (z_f - p_n), several numerators over the same points and poles.

    The differences are taken in double precision, where a pole close to a point would lose the
    digits of single precision.

    Args:
        v (..., c, n): numerators, complex.
        z (f): points, complex; a constant: no gradient flows to it.
        poles (..., n): complex; leading axes broadcast against those of `v`.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        (..., c, f), in the precision of `v`. Differentiable in `v` and `poles`.

    Raises:
        ValueError: shapes or dtypes do not fit, or `impl` cannot run here.
    """
    expect(v.dim() >= 2 and v.is_complex(), f"v must be complex (..., c, n); got {shape_of(v)}")
    expect(z.dim() == 1 and z.is_complex(), f"z must be complex (f); got {shape_of(z)}")
    expect(poles.is_complex(), f"poles must be complex (..., n); got {shape_of(poles)}")
    expect(not z.requires_grad, "z is a constant here; detach it")
    _check_states(v[..., 0, :], poles, "v")
    impl = choose(impl, v)
    if impl == "reference":
        return reference.cauchy(v, z, poles).to(v.dtype)
    batch = torch.broadcast_shapes(v.shape[:-2], poles.shape[:-1])
    c, n = v.shape[-2:]
    v = v.expand(*batch, c, n).reshape(-1, c, n)
    poles = widen(poles).expand(*batch, n).reshape(-1, n)
    return _ops.cauchy(v, widen(z), poles, impl).reshape(*batch, c, -1)


def _check_states(w: Tensor, a: Tensor, name: str) -> None:
    fits = w.dim() >= 1 and a.dim() >= 1 and w.shape[-1] == a.shape[-1] and a.shape[-1] > 0
    expect(fits, f"{name} and the states do not fit: {shape_of(w)} and {shape_of(a)}")
    try:
        torch.broadcast_shapes(w.shape[:-1], a.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"leading axes of {name} and of the states do not broadcast: "
            f"{tuple(w.shape[:-1])} and {tuple(a.shape[:-1])}"
        ) from None


def _wide_complex(a: Tensor) -> Tensor:
    a = widen(a)
    return a if a.is_complex() else torch.complex(a, torch.zeros_like(a))


def _rows(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """`x` (r, c, .) and `a` (r, n), where c gathers the axes along which `a` does not vary.

    Sharing `a` saves its tables of powers for every repeat: the batch, several outputs. Third, what
    brings a result (r, c, .) back to the axes of the broadcast.
    """
    batch = torch.broadcast_shapes(x.shape[:-1], a.shape[:-1])
    a = a.reshape(*(1,) * (len(batch) + 1 - a.dim()), *a.shape)
    own = [k for k in range(len(batch)) if a.shape[k] > 1]
    shared = [k for k in range(len(batch)) if a.shape[k] == 1]
    order = own + shared
    back = [order.index(k) for k in range(len(batch))]
    sizes = [batch[k] for k in order]
    rows = 1
    for k in own:
        rows *= batch[k]
    x = x.expand(*batch, -1).permute(*order, -1).reshape(rows, -1, x.shape[-1])
    a = a.permute(*order, -1).reshape(rows, a.shape[-1])

    def restore(y: Tensor) -> Tensor:
        return y.reshape(*sizes, y.shape[-1]).permute(*back, -1)

    return x, a, restore
