"""Products of a few vectors with a large matrix as PyTorch keeps it, row after row: for decoding.

    y = W x + bias

A matrix times one vector is bound by reading the matrix once, and one dot product after the other
reads it from end to end as fast as memory gives it. 16-bit weights are widened as they are read;
sums are float32 at least.

Axes: b vectors, i columns, o rows.
"""

import torch
from torch import Tensor

from longstate.ops._choice import choose, shape_of

_FEW = 8  # vectors. For more, PyTorch's product of matrices is faster


def row_dot(x: Tensor, W: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """W x + bias for each vector x.

    Args:
        x (b, i): the vectors. float32, bfloat16, float16 or float64.
        W (o, i): of the type of `x`.
        bias (o): None: none.
        impl: "auto", "reference" (PyTorch's `linear`) or "cpu" (no gradients). Under "auto" the
            kernel runs on at most 8 vectors, on a CPU, where no gradient is asked for.

    Returns:
        y (b, o) of the type of `x`.

    Raises:
        ValueError: shapes or types do not fit, or `impl` cannot run here.
    """
    if x.dim() != 2 or W.dim() != 2 or x.shape[1] != W.shape[1] or x.dtype != W.dtype:
        raise ValueError(f"x (b, i) and W (o, i) must fit; got {shape_of(x)} and {shape_of(W)}")
    if bias is not None and bias.shape != W.shape[:1]:
        raise ValueError(f"bias must be ({W.shape[0]},); got {shape_of(bias)}")
    grads = torch.is_grad_enabled() and (x.requires_grad or W.requires_grad)
    if impl == "auto" and (grads or len(x) > _FEW):
        impl = "reference"
    impl = choose(impl, x)
    if impl == "cpu":
        if grads:
            raise ValueError("impl='cpu' gives no gradients: use torch.no_grad() or 'reference'")
        from longstate.ops.row_dot import cpu

        return cpu.forward(x, W, bias)
    from longstate.ops.row_dot import reference

    return reference.forward(x, W, bias)
