"""What the contracts of the ops share: flags, types, and the file that an implementation is in."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from longstate.ops._choice import shape_of
from longstate.ops._layout import CHUNK
from longstate.ops._op import register


def check_flags(b: int, t: int, **flags: Tensor | None) -> None:
    """Raise ValueError unless each flag is None or a bool tensor (b, t)."""
    for name, flag in flags.items():
        if flag is not None and (flag.shape != (b, t) or flag.dtype != torch.bool):
            raise ValueError(f"{name} must be a bool tensor {(b, t)}; got {shape_of(flag)}")


def check_shapes(expected: tuple[int, ...], **tensors: Tensor | None) -> None:
    """Raise ValueError unless each tensor is None or of this shape."""
    for name, x in tensors.items():
        if x is not None and x.shape != expected:
            raise ValueError(f"{name} must be {tuple(expected)}; got {shape_of(x)}")


def common_type(*tensors: Tensor | None) -> torch.dtype:
    """The promoted type of the tensors, float32 at least."""
    dtype = torch.float32
    for x in tensors:
        dtype = dtype if x is None else torch.promote_types(dtype, x.dtype)
    return dtype


def where_kept(mask: Tensor | None, x: Tensor, other: float = 0) -> Tensor:
    """`x` (b, t, ...) where the mask (b, t) is True, and `other` where it is not."""
    if mask is None:
        return x
    return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)), x, other)


def implementation(op: str, name: str) -> Any:
    """The module of one implementation of an op."""
    return import_module(f"longstate.ops.{op}.{name}")


def real_type(dtype: torch.dtype) -> torch.dtype:
    """The type of the parts of a number. (`dtype.to_real()` does not compile.)"""
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def register_folder(
    name: str,
    inputs: type,
    fake: Callable[[Any], tuple[Tensor, ...]],
    *,
    returns: str,
    saves: str,
) -> Callable[[Any], tuple[Tensor, ...]]:
    """Register an op whose folder has the implementations, by the names that `impl` may have.

    The arguments are those of `register`. An implementation has `forward` and `backward`, which
    gets zeros for a result without a gradient; the reference has `forward`.
    """
    count = len(returns.split())

    def forward(s: Any) -> tuple[Tensor, ...]:
        return implementation(name, s.impl).forward(s)

    def backward(s: Any, *saved_and_grads: Tensor | None) -> dict[str, Tensor]:
        saved, grads = saved_and_grads[:-count], saved_and_grads[-count:]
        if any(grad is None for grad in grads):
            grads = tuple(
                torch.zeros_like(result) if grad is None else grad
                for result, grad in zip(fake(s), grads, strict=False)
            )
        return implementation(name, s.impl).backward(s, *saved, *grads)

    def reference(s: Any) -> tuple[Tensor, ...]:
        return implementation(name, "reference").forward(s)

    return register(
        name, inputs, forward, fake, backward, reference, returns=returns, saves=saves
    )  # fmt: skip


def register_steered(name: str, inputs: type) -> Callable[[Any], tuple[Tensor, ...]]:
    """Register a scan that is steered by its input; its folder has the implementations.

    Args:
        inputs: a NamedTuple class. Its first field is the input (b, t, d); `h0` (b, d, n) is of the
            type to compute in; `keep` asks for the states (b, chunks, n, d) at the start of every
            chunk.
    """

    def forward(s: Any) -> tuple[Tensor, Tensor, Tensor]:
        return implementation(name, s.impl).forward(s)

    def fake(s: Any) -> tuple[Tensor, Tensor, Tensor]:
        (b, t, d), n = s[0].shape, s.h0.shape[2]
        states = s.h0.new_empty(b, (t + CHUNK - 1) // CHUNK if s.keep else 0, n, d)
        return s[0].new_empty(s[0].shape), s.h0.new_empty(s.h0.shape), states

    def backward(s: Any, *saved_and_grads: Tensor | None) -> dict[str, Tensor]:
        return implementation(name, s.impl).backward(s, *saved_and_grads)

    def reference(s: Any) -> tuple[Tensor, Tensor]:
        return implementation(name, "reference").forward(s)

    def restore(s: Any, states: Tensor) -> dict[str, Tensor]:
        return {"h0": states[:, 0].mT}

    return register(
        name, inputs, forward, fake, backward, reference,
        returns="y last", saves="states", copied="h0", restore=restore,
    )  # fmt: skip
