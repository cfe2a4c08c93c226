"""Checks of what comes in, and what ids of sequences mean for a scan."""

import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.errors import expect as expect


def expect_shape(name: str, x: Tensor | None, *allowed: tuple[int, ...]) -> None:
    """Refuse `x` of another shape than one of `allowed`; None passes."""
    if x is not None and tuple(x.shape) not in allowed:
        raise InputError(f"{name} must be {' or '.join(map(str, allowed))}; got {tuple(x.shape)}")


def expect_axes(name: str, x: Tensor, *axes: str) -> None:
    """Refuse `x` of another number of axes than one of `axes`, such as "batch, channels, time"."""
    if x.dim() not in [len(a.split(",")) for a in axes]:
        forms = " or ".join(f"({a})" for a in axes)
        raise InputError(f"{name} must be {forms}; got {tuple(x.shape)}")


def wide(*tensors: Tensor | None) -> torch.dtype:
    """float32, or float64 if a tensor is."""
    found = torch.float32
    for x in tensors:
        found = found if x is None else torch.promote_types(found, x.dtype)
    return found


def boundaries(seq_idx: Tensor, first: int | None = None) -> tuple[Tensor, Tensor]:
    """Where packed sequences begin, and which samples belong to one.

    Args:
        seq_idx (b, t): the number of the sequence of each sample. Negative: padding.
        first: number of the sequence that an initial state belongs to. None: whichever comes first.

    Returns:
        reset and mask (b, t), bool.
    """
    begins = torch.ones_like(seq_idx, dtype=torch.bool)
    begins[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    begins[:, 0] = False if first is None else seq_idx[:, 0] != first
    return begins, seq_idx >= 0
