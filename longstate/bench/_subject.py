"""The subject of a measurement: an op or a layer, its check, and the calls to time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from longstate.bench._settings import DTYPES, Settings

Call = Callable[[], Any]
"""Returns a tree of tensors, y first."""


class WrongResult(Exception):
    """A wrong result; no speed is reported for it."""


@dataclass(frozen=True)
class Mode:
    """A call to time.

    Attributes:
        name: "forward", "forward+backward" or "step".
        shapes: of the operands, by name.
        run: the call.
        tokens: number of samples.
        bytes: least number of bytes to move.
    """

    name: str
    shapes: dict[str, list[int]]
    run: Call
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Subject:
    """An op or a layer.

    Attributes:
        kind: "op" or "layer".
        name: for the table.
        aliases: other names that choose it.
        modes: names of its modes.
        check: largest error of a small case; raises `WrongResult`.
        prepare: the calls to time, at full size.
    """

    kind: str
    name: str
    aliases: tuple[str, ...]
    modes: tuple[str, ...]
    check: Callable[[Settings], float]
    prepare: Callable[[Settings], list[Mode]]


def leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def shapes_of(operands: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(x.shape) for name, x in operands.items()}


def size(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def forward_and_backward(
    call: Call, operands: dict[str, Tensor], parameters: Iterable[Tensor], tokens: int
) -> list[Mode]:
    """The modes "forward" and "forward+backward"."""
    leaves = [*operands.values(), *parameters]
    shapes = shapes_of(operands)

    def forward() -> Any:
        with torch.no_grad():
            return call()

    outputs = tree_leaves(forward())  # the first call: compiles
    g = _cotangent(outputs[0])

    def both() -> Any:
        return torch.autograd.grad(tree_leaves(call())[0], leaves, g)

    moved = size(leaves) + size(outputs)
    backward = 2 * size(leaves) + g.nbytes
    return [
        Mode("forward", shapes, forward, tokens, moved),
        Mode("forward+backward", shapes, both, tokens, moved + backward),
    ]


def results(call: Call, leaves: Iterable[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of y under a cotangent that is the same for every type and device."""
    outputs = tree_leaves(call())
    return [*outputs, *torch.autograd.grad(outputs[0], list(leaves), _cotangent(outputs[0]))]


def _cotangent(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)


def exact(x: Tensor) -> Tensor:
    """A leaf with the same values, in double precision on the CPU."""
    return leaf(x.detach().cpu().to(torch.complex128 if x.is_complex() else torch.float64))


def largest_error(found: list[Tensor], expected: list[Tensor], settings: Settings) -> float:
    """Relative to the largest value of each tensor.

    Raises:
        WrongResult: half of the digits of the type are lost, or a value is not finite.
    """
    error = 0.0
    for a, b in zip(found, expected, strict=True):
        scale = b.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        difference = ((a.detach().cpu() - b).abs().max() / scale).item()
        error = max(error, difference if difference == difference else float("inf"))
    if error > torch.finfo(DTYPES[settings.dtype]).eps ** 0.5:
        raise WrongResult(
            f"wrong: differs from its reference by {error:.1g} of the largest value; no speed"
        )
    return error
