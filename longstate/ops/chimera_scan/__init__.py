"""Two coupled states at every site of a grid of samples and variates: Chimera.

    h_t^v = A1 h_{t-1}^v + A2 g_{t-1}^v + B1 x_t^v        along time
    g_t^v = A3 h_t^{v-1} + A4 g_t^{v-1} + B2 x_t^v        along the variates
    y_t^v = sum over n of Re(C1 h_t^v + C2 g_t^v)

    A1 = exp(s a)       A2 = (1 - exp(s Re a)) K1      B1 = (A1 - 1) / a  b1      Re a < 0
    A4 = exp(-r c)      A3 = (1 - A4) K2               B2 = (1 - A4) / c  b2      c > 0

The steps s and r, and b1, b2, C1 and C2, which are the same for all channels of a head, belong to a
site; a, c and K to a channel. What is in front of a state is never stored: memory is that of the
steps, and of one state in `CHUNK` for the gradient.

Behrouz, Santacatterina, Zabih, "Chimera: Effectively Modeling Multivariate Time Series with
2-Dimensional State Space Models", NeurIPS 2024, arXiv:2406.04320. A reconstruction:
`longstate.layers.Chimera` says of what.

Axes: b batch, t time, v variates, k heads, p channels of a head, n state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import (
    check_flags,
    check_shapes,
    common_type,
    real_type,
    register_folder,
)
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._layout import CHUNK

PARTS = 6
"""b1, b2, Re C1, Im C1, Re C2 and Im C2."""


def chimera_scan(
    x: Tensor,
    s: Tensor,
    r: Tensor,
    select: Tensor,
    a: Tensor,
    c: Tensor,
    coupling: Tensor,
    h0: Tensor | None = None,
    g0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of all sites, and the states after the last sample.

    Args:
        x (b, t, v, k, p): real input.
        s, r (b, t, v, k, p): real steps, not negative: along time, and along the variates.
        select (b, t, v, k, 6, n): b1, b2, Re C1, Im C1, Re C2, Im C2.
        a (k, p, n): complex, per unit of s.
        c (k, p, n): real, per unit of r.
        coupling (2, k, p, n): K1 and K2, real.
        h0, g0 (b, v, k, p, n): complex states before the first sample. Zero when None.
        mask (b, t): bool. False leaves the states as they are and gives output 0. The sites of such
            a sample are not read.
        reset (b, t): bool. True forgets the states before that sample, masked or not.
        impl: "auto" (Numba on a CPU, the reference elsewhere), "reference" or "cpu".

    Returns:
        y (b, t, v, k, p), and h and g after the last sample (b, v, k, p, n). Differentiable in all
        numbers.

    Raises:
        ValueError: shapes do not fit, a type is real or complex where it should not be, t is 0, or
            `impl` cannot run here.
    """
    expect(impl != "triton", "chimera_scan has no Triton kernel; use impl='auto'")
    expect(
        x.dim() == 5 and x.shape[1] > 0,
        f"x must be (batch, time > 0, variates, heads, channels); got {shape_of(x)}",
    )
    expect(
        a.is_complex() and a.dim() == 3 and a.shape[2] > 0,
        f"a must be (heads, channels, states > 0) and complex; got {shape_of(a)}",
    )
    b, t, v, k, p = x.shape
    n = a.shape[2]
    check_shapes((b, t, v, k, p), s=s, r=r)
    check_shapes((b, t, v, k, PARTS, n), select=select)
    check_shapes((k, p, n), a=a, c=c)
    check_shapes((2, k, p, n), coupling=coupling)
    check_shapes((b, v, k, p, n), h0=h0, g0=g0)
    check_flags(b, t, mask=mask, reset=reset)
    numbers = {"x": x, "s": s, "r": r, "select": select, "c": c, "coupling": coupling}
    for name, given in numbers.items():
        expect(not given.is_complex(), f"{name} must be real; got {shape_of(given)}")
    real = real_type(common_type(x, s, r, select, a, c, coupling, h0, g0))
    kind = torch.complex128 if real == torch.float64 else torch.complex64
    x, s, r, select, c, coupling = (given.to(real) for given in numbers.values())
    zero = torch.zeros(b, v, k, p, n, dtype=kind, device=x.device)
    h0, g0 = (zero.clone() if given is None else given.to(kind) for given in (h0, g0))
    found = choose(impl, x)
    found = "reference" if found == "triton" else found
    y, h, g = _scan(
        Inputs(x, s, r, select, a.to(kind), c, coupling, h0, g0, mask, reset, found, False)
    )
    return y, h, g


class Inputs(NamedTuple):
    """As for `chimera_scan`, all of one precision."""

    x: Tensor
    s: Tensor
    r: Tensor
    select: Tensor
    a: Tensor
    c: Tensor
    coupling: Tensor
    h0: Tensor
    g0: Tensor
    mask: Tensor | None
    reset: Tensor | None
    impl: str
    keep: bool


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, t, v, k, p = s.x.shape
    chunks = (t + CHUNK - 1) // CHUNK if s.keep else 0
    kept = s.x.new_empty(b, chunks, v, s.a.shape[2], 4, k * p)
    return s.x.new_empty(s.x.shape), s.h0.new_empty(s.h0.shape), s.g0.new_empty(s.g0.shape), kept


_scan = register_folder("chimera_scan", Inputs, _fake, returns="y h g", saves="kept")
