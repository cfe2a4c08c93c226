"""A gated RMS norm over groups of channels.

    v = y * silu(z)
    out = weight * v / sqrt(mean of v^2 over its group + eps)

Source: the norm behind the scan of Mamba-2 (Dao and Gu, "Transformers are SSMs", ICML 2024,
arXiv:2405.21060), as in its code. Differs from it: nothing.

Axes: ... any leading axes, d channels, g groups of consecutive channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import implementation
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._op import register


def gated_norm(
    y: Tensor, z: Tensor, weight: Tensor, *, groups: int = 1, eps: float = 1e-5, impl: str = "auto"
) -> Tensor:
    """Gate and norm in one pass, computed in float32 at least.

    Args:
        y (..., d): input.
        z (..., d): gate, before its SiLU.
        weight (d): of the norm.
        groups: g, which divides d.
        eps: added to the mean square.
        impl: "auto", "reference" or "cpu".

    Returns:
        (..., d) in the type of `y`. Differentiable in `y`, `z` and `weight`.

    Raises:
        ValueError: shapes do not fit, or `impl` does not exist or cannot run here.
    """
    expect(y.dim() > 0 and z.shape == y.shape, f"z must be {shape_of(y)}; got {shape_of(z)}")
    d = y.shape[-1]
    expect(weight.shape == (d,), f"weight must be ({d},); got {shape_of(weight)}")
    expect(groups > 0 and d % groups == 0, f"groups must divide the {d} channels; got {groups}")
    expect(impl != "triton", "gated_norm has no Triton kernel; use impl='auto'")
    found = "cpu" if choose(impl, y) == "cpu" else "reference"
    return _norm(Inputs(y, z, weight, groups, eps, found))[0]


class Inputs(NamedTuple):
    """As for `gated_norm`."""

    y: Tensor
    z: Tensor
    weight: Tensor
    groups: int
    eps: float
    impl: str


def _forward(s: Inputs) -> tuple[Tensor]:
    return (implementation("gated_norm", s.impl).forward(s),)


def _fake(s: Inputs) -> tuple[Tensor]:
    return (s.y.new_empty(s.y.shape),)


def _backward(s: Inputs, grad: Tensor | None) -> dict[str, Tensor]:
    grad = torch.zeros_like(s.y) if grad is None else grad
    return implementation("gated_norm", s.impl).backward(s, grad)


def _reference(s: Inputs) -> tuple[Tensor]:
    return (implementation("gated_norm", "reference").forward(s),)


_norm = register("gated_norm", Inputs, _forward, _fake, _backward, _reference, returns="out")
