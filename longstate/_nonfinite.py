"""Find the first of several named tensors that holds NaN or infinity."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def is_finite(values: Any) -> bool:
    """Whether every number of every tensor in a tree is finite."""
    return all(bool(v.isfinite().all()) for v in tree_leaves(values) if isinstance(v, Tensor))


def first_bad(named: Iterable[tuple[str, Any]]) -> str | None:
    """The first name whose tensors are not finite; None where there is none."""
    return next((name for name, values in named if not is_finite(values)), None)
