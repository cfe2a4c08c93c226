"""A state that a whole matrix moves at every step: linear controlled differential equations.

    h_t = h_{t-1} exp(M_t) + v_t phi(M_t)        phi(M) = (exp(M) - 1) / M        h_{-1} = h0

h and v are rows, and there are g of them with their own matrices (one, or the blocks of a
block-diagonal matrix). No exponential is formed: `cpu` sums its series on the state,

    x'(s) = x M + v    from h_{t-1}, over s = 0 .. 1, in steps of length l = 1 / ceil(norm(M) / 3)
    x(s + l) = x(s) + p_1 + p_2 + ...    p_1 = l (x(s) M + v)    p_j = (l / j) p_{j-1} M

and stops where all further terms together cannot change the last digit: k^2 operations for a term,
where an exponential needs k^3. The reference forms the exponential of every step; other devices
take it, and norms of M above 1,000.

Al-Mohy, Higham, "Computing the Action of the Matrix Exponential", SIAM J. Sci. Comput. 33, 2011.
Differs from the paper: a fixed limit of norm(M) for a step, and a bound of the rest of the series
where the paper takes the last two terms for it.

Axes: b batch, t time, g blocks of k by k.
"""

from typing import NamedTuple

from torch import Tensor

from longstate.ops._arguments import (
    check_flags,
    check_shapes,
    common_type,
    implementation,
    register_folder,
)
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._transforms import can_look

_LARGEST = 1000.0  # norm


def expm_scan(
    M: Tensor,
    v: Tensor,
    h0: Tensor | None = None,
    *,
    start: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """All states.

    Args:
        M (b, t, g, k, k): real.
        v (b, t, g, k): real.
        h0 (b, g, k): state before the first step. Zero when None.
        start (g, k): state at a reset. Zero when None.
        reset (b, t): bool. True puts `start` in the place of the state before that step.
        impl: "auto" (Numba on a CPU, the reference elsewhere), "reference" or "cpu".

    Returns:
        h (b, t, g, k) and the last state (b, g, k). Differentiable in `M`, `v`, `h0`, `start`.

    Raises:
        ValueError: shapes do not fit, a tensor is complex, t is 0, `impl` cannot run here, or the
            series of "cpu" would be too long.
    """
    expect(impl != "triton", "expm_scan has no Triton kernel; use impl='auto'")
    expect(
        M.dim() == 5 and M.shape[1] > 0 and M.shape[3] == M.shape[4] and not M.is_complex(),
        f"M must be (batch, time > 0, blocks, k, k) and real; got {shape_of(M)}",
    )
    b, t, g, k = M.shape[:4]
    check_shapes((b, t, g, k), v=v)
    check_shapes((b, g, k), h0=h0)
    check_shapes((g, k), start=start)
    check_flags(b, t, reset=reset)
    dtype = common_type(M, v, h0, start)
    expect(not dtype.is_complex, "v, h0 and start must be real")
    M, v = M.to(dtype), v.to(dtype)
    h0 = v.new_zeros(b, g, k) if h0 is None else h0.to(dtype)
    start = v.new_zeros(g, k) if start is None else start.to(dtype)
    found = choose(impl, M)
    if found == "triton" or (impl == "auto" and found == "cpu" and _is_large(M)):
        found = "reference"
    h, last = _scan(Inputs(M, v, h0, start, reset, found))
    return h, last


def _is_large(M: Tensor) -> bool:
    """Whether the series would take more operations than exponentials."""
    if not can_look():
        return False
    return implementation("expm_scan", "cpu").largest_norm(M) > _LARGEST


class Inputs(NamedTuple):
    """As for `expm_scan`, all of one type."""

    M: Tensor
    v: Tensor
    h0: Tensor
    start: Tensor
    reset: Tensor | None
    impl: str


def _fake(s: Inputs) -> tuple[Tensor, Tensor]:
    return s.v.new_empty(s.v.shape), s.h0.new_empty(s.h0.shape)


_scan = register_folder("expm_scan", Inputs, _fake, returns="h last", saves="h")
