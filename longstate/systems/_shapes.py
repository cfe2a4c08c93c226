"""Shape checks for the three systems."""

import torch
from torch import Tensor

from longstate.errors import expect as expect


def check_io(batch: torch.Size, n: int, B: Tensor, C: Tensor, D: Tensor) -> None:
    """Check B (..., n, i), C (..., o, n), D (..., o, i) against each other and `batch`.

    Raises:
        ValueError: naming the matrix that does not fit.
    """
    for name, matrix in (("B", B), ("C", C), ("D", D)):
        expect(matrix.dim() >= 2, f"{name} must be a matrix; got shape {tuple(matrix.shape)}")
    i, o = B.shape[-1], C.shape[-2]
    expect(B.shape[-2] == n, f"B must be (..., {n}, i); got {tuple(B.shape)}")
    expect(C.shape[-1] == n, f"C must be (..., o, {n}); got {tuple(C.shape)}")
    expect(D.shape[-2:] == (o, i), f"D must be (..., {o}, {i}); got {tuple(D.shape)}")
    try:
        torch.broadcast_shapes(batch, B.shape[:-2], C.shape[:-2], D.shape[:-2])
    except RuntimeError:
        shapes = ", ".join(
            f"{name} {tuple(s)}"
            for name, s in (
                ("A", batch),
                ("B", B.shape[:-2]),
                ("C", C.shape[:-2]),
                ("D", D.shape[:-2]),
            )
        )
        raise ValueError(f"the leading axes of A, B, C and D do not broadcast: {shapes}") from None


def check_discrete(discrete: bool, method: str) -> None:
    expect(discrete, f"{method} needs a discrete system; call discretize(rule, dt) first")


def check_continuous(discrete: bool) -> None:
    expect(not discrete, "this system is discrete already; discretize takes a continuous one")


def check_length(length: int) -> None:
    expect(length >= 1, f"length must be at least 1; got {length}")


def complex_of(x: Tensor) -> Tensor:
    return x if x.is_complex() else torch.complex(x, torch.zeros_like(x))


def points(w: Tensor, discrete: bool) -> Tensor:
    """The points s of the resolvent, with H = C (s I - A)^{-1} B s'.

    Continuous: s = i w, s' = 1. Discrete: s = s' = exp(i w), as x_k contains u_k.
    """
    expect(w.dim() == 1, f"w must have one axis; got shape {tuple(w.shape)}")
    expect(not w.is_complex(), "w must be real; got a complex tensor")
    return torch.polar(torch.ones_like(w), w) if discrete else torch.complex(w * 0, w)


def feed_through(k: Tensor, D: Tensor) -> Tensor:
    """`k` (..., t, o, i) with `D` (..., o, i) added at lag 0."""
    first = k[..., :1, :, :] + D.unsqueeze(-3)
    batch = torch.broadcast_shapes(k.shape[:-3], D.shape[:-2])
    return torch.cat([first, k[..., 1:, :, :].expand(*batch, -1, -1, -1).to(first.dtype)], dim=-3)
