"""Memory layout of what reaches a kernel."""

from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """`x` as plain contiguous numbers: a lazy conjugate or negation would hide from a kernel."""
    return x.resolve_conj().resolve_neg().contiguous()
