"""Products of a few vectors with one large matrix, read once: most of decoding.

    y = W x + bias,    W = diag(scale) Q where the weights are 8-bit

A matrix is stored in panels: 64 rows side by side, column after column. A kernel then reads memory
in order, its lanes run over rows, and no sum is across lanes. 16-bit and 8-bit
weights are widened as they are read; sums are float32, or float64 if anything is.

Axes: b vectors, i columns, o rows, p panels of `LANES` rows, the last one padded with zeros.
"""

import torch
from torch import Tensor

from longstate.ops._choice import expect, plain, shape_of
from longstate.ops._layout import on_large_pages

LANES = 64

FEW = 32  # vectors. For more, PyTorch's product of matrices is faster


def matvec(
    x: Tensor,
    panels: Tensor,
    rows: int,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    impl: str = "auto",
) -> Tensor:
    """W x + bias for each vector x.

    Args:
        x (b, i): the vectors. float32, bfloat16, float16 or float64.
        panels (p, i, 64): W as `to_panels` gives it, in one of these types or int8.
        rows: o, of W.
        scale (o): factor of each row of W. None: 1.
        bias (o): added to y. None: 0.
        impl: "auto", "reference" (a product of matrices; differentiable, traceable, any device)
            or "cpu". Under "auto" the kernel runs on at most 32 vectors, on a CPU, when no gradient
            is asked for and the call is not traced or compiled.

    Returns:
        y (b, o) of the type of `x`.

    Raises:
        ValueError: shapes or types do not fit, or `impl` cannot run here.
    """
    _check(x, panels, rows, scale, bias)
    able = plain(x, panels, scale, bias)
    if impl == "auto":
        impl = "cpu" if able and x.shape[0] <= FEW else "reference"
    if impl not in ("reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl == "cpu" and not able:
        raise ValueError("impl='cpu' runs on CPU tensors, untraced and without gradients only")
    if impl == "cpu":
        from longstate.ops.matvec import cpu

        return cpu.forward(x, panels, rows, scale, bias)
    from longstate.ops.matvec import reference

    return reference.forward(x, panels, rows, scale, bias)


def to_panels(W: Tensor) -> Tensor:
    """W (o, i) in panels (p, i, 64)."""
    expect(W.dim() == 2, f"W must be (rows, columns); got {shape_of(W)}")
    rows, columns = W.shape
    whole = rows // LANES
    panels = on_large_pages(W.new_empty(-(-rows // LANES), columns, LANES))
    panels[:whole] = W[: whole * LANES].reshape(whole, LANES, columns).transpose(1, 2)
    if rows % LANES:
        panels[whole, :, : rows % LANES] = W[whole * LANES :].T
        panels[whole, :, rows % LANES :] = 0
    return panels


def from_panels(panels: Tensor, rows: int) -> Tensor:
    """W (o, i)."""
    return panels.transpose(1, 2).flatten(0, 1)[:rows]


def quantise_rows(W: Tensor) -> tuple[Tensor, Tensor]:
    """W (o, i) as int8 (o, i), -127 to 127, and a scale (o) for each row.

    The error of an element is at most half a step, 1/254 of the largest of its row.

    Raises:
        ValueError: W is not finite.
    """
    W = W.to(torch.promote_types(W.dtype, torch.float32))
    expect(bool(W.isfinite().all()), "W has elements that are not finite; 8 bits cannot hold them")
    largest = W.abs().amax(1) if W.shape[1] else W.new_zeros(len(W))
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (W / scale[:, None]).round().to(torch.int8), scale


def _check(x, panels, rows, scale, bias):
    # The messages are only put together when needed: that takes as long as a small product.
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x must be (vectors, columns), floating-point; got {shape_of(x)}")
    columns = x.shape[1]
    if panels.dim() != 3 or panels.shape[1] != columns or panels.shape[2] != LANES:
        raise ValueError(f"panels must be (panels, {columns}, {LANES}); got {shape_of(panels)}")
    if not panels.is_floating_point() and panels.dtype != torch.int8:
        raise ValueError(f"panels must be floating-point or int8; got {shape_of(panels)}")
    if not 0 <= panels.shape[0] * LANES - rows < LANES:
        raise ValueError(f"rows must be those of {panels.shape[0]} panels; got {rows}")
    for name, v in (("scale", scale), ("bias", bias)):
        if v is not None and v.shape != (rows,):
            raise ValueError(f"{name} must be ({rows},); got {shape_of(v)}")
