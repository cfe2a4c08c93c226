"""Products of a few vectors with a large matrix as PyTorch keeps it, row after row: for decoding.

    y = W x + bias

A matrix times one vector is bound by reading the matrix once, and one dot product after the other
reads it from end to end. 16-bit weights are widened as they are read; sums are float32 at least.
For weights that belong to somebody else: `matvec` wants them in panels, and takes 8 bits too.

Axes: b vectors, i columns, o rows.
"""

from torch import Tensor

from longstate.ops._choice import plain, shape_of
from longstate.ops.matvec import FEW


def row_dot(x: Tensor, W: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """W x + bias for each vector x.

    Args:
        x (b, i): the vectors. float32, bfloat16, float16 or float64.
        W (o, i): of the type of `x`.
        bias (o): None: none.
        impl: "auto", "reference" (PyTorch's `linear`) or "cpu". Under "auto" the kernel runs on at
            most 8 vectors, on a CPU, when no gradient is asked for and nothing traces the call.

    Returns:
        y (b, o) of the type of `x`.

    Raises:
        ValueError: shapes or types do not fit, or `impl` cannot run here.
    """
    if x.dim() != 2 or W.dim() != 2 or x.shape[1] != W.shape[1] or x.dtype != W.dtype:
        raise ValueError(f"x (b, i) and W (o, i) must fit; got {shape_of(x)} and {shape_of(W)}")
    if bias is not None and bias.shape != W.shape[:1]:
        raise ValueError(f"bias must be ({W.shape[0]},); got {shape_of(bias)}")
    able = plain(x, W, bias)
    if impl == "auto":
        impl = "cpu" if able and len(x) <= FEW else "reference"
    if impl not in ("reference", "cpu"):
        raise ValueError(f"impl must be auto, reference or cpu; got {impl!r}")
    if impl == "cpu":
        if not able:
            raise ValueError("impl='cpu' runs on CPU tensors, untraced and without gradients only")
        from longstate.ops.row_dot import cpu

        return cpu.forward(x, W, bias)
    from longstate.ops.row_dot import reference

    return reference.forward(x, W, bias)
