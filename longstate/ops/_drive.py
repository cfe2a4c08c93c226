"""Input and output of a scan, B u and Re(C h): real signals, real or complex states."""

import torch
from torch import Tensor

from longstate.ops._layout import on_large_pages


def _real(B: Tensor) -> Tensor:
    """A real matrix (d, n), or (d, 2 n) for complex B: its product with u is then complex pairs."""
    if not B.is_complex():
        return B.mT
    return torch.view_as_real(B.resolve_conj()).permute(1, 0, 2).flatten(1)


def drive(u: Tensor, B: Tensor) -> Tensor:
    """B u in a fresh tensor: one real product.

    Args:
        u (..., d): real.
        B (n, d): real or complex.

    Returns:
        (..., n), of the type of `B`.
    """
    x = u @ _real(B)
    return torch.view_as_complex(x.unflatten(-1, (-1, 2))) if B.is_complex() else x


def drive_backward(u: Tensor, B: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `u` (b, t, d) and `B`, from that of B u, which is contiguous."""
    if not B.is_complex():
        return grad @ B, grad.flatten(0, 1).mT @ u.flatten(0, 1)
    pairs = torch.view_as_real(grad).flatten(-2)
    grad_pairs = u.flatten(0, 1).mT @ pairs.flatten(0, 1)  # d, 2 n
    grad_B = torch.view_as_complex(grad_pairs.unflatten(-1, (-1, 2)).permute(1, 0, 2).contiguous())
    return pairs @ _real(B).mT, grad_B


def read(h: Tensor, C: Tensor) -> Tensor:
    """Re(C h): one real product.

    Args:
        h (..., n): complex.
        C (d, n): complex.

    Returns:
        (..., d) real.
    """
    pairs = torch.view_as_real(C.conj().resolve_conj()).flatten(-2)
    return torch.view_as_real(h.resolve_conj()).flatten(-2) @ pairs.mT


def own_drive(u: Tensor, B: Tensor | None) -> Tensor:
    """The drive, B u or a copy of `u`, as a dense tensor that a kernel may overwrite."""
    if B is None:
        u = u.resolve_conj().resolve_neg()
        return _fresh(u.shape, u).copy_(u)
    pairs = _real(B)
    x = _fresh((*u.shape[:-1], pairs.shape[1]), u)
    with torch.autocast(u.device.type, enabled=False):
        torch.mm(u.flatten(0, -2), pairs, out=x.flatten(0, -2))
    return torch.view_as_complex(x.unflatten(-1, (-1, 2))) if B.is_complex() else x


def _fresh(shape: tuple[int, ...], like: Tensor) -> Tensor:
    x = torch.empty(shape, dtype=like.dtype, device=like.device)
    return on_large_pages(x) if x.device.type == "cpu" else x


def drive_gradients(u: Tensor, B: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `u` and `B`; an empty tensor for a `B` that is None."""
    if B is None:
        return grad, grad.new_empty(0)
    with torch.autocast(u.device.type, enabled=False):
        return drive_backward(u, B, grad)
