"""The input of a scan, B u: real signals, complex states."""

import torch
from torch import Tensor


def _pairs(B: Tensor) -> Tensor:
    """(n, d) complex as a real matrix (d, 2 n) whose product with u is complex pairs."""
    return torch.view_as_real(B.resolve_conj()).permute(1, 0, 2).flatten(1)


def drive(u: Tensor, B: Tensor) -> Tensor:
    """B u in a fresh tensor.

    Args:
        u (b, t, d): real.
        B (n, d): complex.

    Returns:
        (b, t, n) complex.
    """
    return torch.view_as_complex((u @ _pairs(B)).unflatten(-1, (-1, 2)))


def drive_backward(u: Tensor, B: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `u` and `B`, from that of B u."""
    pairs = torch.view_as_real(grad).flatten(-2)
    grad_pairs = u.flatten(0, 1).mT @ pairs.flatten(0, 1)  # d, 2 n
    grad_B = torch.view_as_complex(grad_pairs.unflatten(-1, (-1, 2)).permute(1, 0, 2).contiguous())
    return pairs @ _pairs(B).mT, grad_B
