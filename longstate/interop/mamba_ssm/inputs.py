"""Checks of arguments, and the conversion of sequence numbers to resets and masks."""

import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.errors import expect as expect


def expect_shape(name: str, x: Tensor | None, *allowed: tuple[int, ...]) -> None:
    """Check that `x` has one of the `allowed` shapes; None is allowed."""
    if x is not None and tuple(x.shape) not in allowed:
        raise InputError(f"{name} must be {' or '.join(map(str, allowed))}; got {tuple(x.shape)}")


def expect_axes(name: str, x: Tensor, *axes: str) -> None:
    """Check that `x` has the number of axes of one of `axes`, such as "batch, channels, time"."""
    if x.dim() not in [len(a.split(",")) for a in axes]:
        forms = " or ".join(f"({a})" for a in axes)
        raise InputError(f"{name} must be {forms}; got {tuple(x.shape)}")


def wide(*tensors: Tensor | None) -> torch.dtype:
    """float32, or float64 if a tensor has that type."""
    found = torch.float32
    for x in tensors:
        found = found if x is None else torch.promote_types(found, x.dtype)
    return found


def boundaries(seq_idx: Tensor, first: int | None = None) -> tuple[Tensor, Tensor]:
    """Where packed sequences begin, and which samples belong to one.

    Args:
        seq_idx (b, t): the number of the sequence of each sample. Negative: padding.
        first: number of the sequence that an initial state belongs to. None: the first sequence.

    Returns:
        reset and mask (b, t), bool.
    """
    begins = torch.ones_like(seq_idx, dtype=torch.bool)
    begins[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    begins[:, 0] = False if first is None else seq_idx[:, 0] != first
    return begins, seq_idx >= 0
