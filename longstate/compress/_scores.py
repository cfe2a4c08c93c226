"""Published scores, for comparison: which modes of a linear layer are kept.

    LAST          |C|^2 |B|^2 / (1 - |A|)^2      Gwak et al. 2024, arXiv:2411.02824
    AIRE-Prune    |C|^2 |B|^2 / (1 - |A|^2)      arXiv:2602.00534
    magnitude     |C| |B|

The papers also choose sizes by these scores, with one threshold for all layers. Here sizes come
from `longstate.compress.reduce`, the same for every method, so that what is compared is the choice
within a layer.
"""

import torch
from torch import Tensor

from longstate.compress._report import Method, MethodError
from longstate.memory._truncate import Truncated, by_modes
from longstate.systems import DiagonalSystem


def scores(system: DiagonalSystem, method: Method) -> Tensor:
    """Of every mode (..., n).

    Raises:
        MethodError: the method has none for linear layers.
    """
    A, size = system.A.abs(), system.C.norm(dim=-2) * system.B.norm(dim=-1)
    if method == "last":
        return size.square() / (1 - A).square()
    if method == "aire":
        return size.square() / (1 - A.square())
    if method == "magnitude":
        return size.expand(torch.broadcast_shapes(size.shape, A.shape))
    if method == "random":
        draw = torch.Generator().manual_seed(0)
        shape = torch.broadcast_shapes(size.shape, A.shape)
        return torch.rand(shape, generator=draw, dtype=torch.float64)
    raise MethodError(
        f"method {method!r} is for selective layers; a linear one takes 'auto', 'balanced', "
        "'last', 'aire', 'magnitude' or 'random'"
    )


def by_score(system: DiagonalSystem, m: int, method: Method) -> Truncated:
    """The m modes with the highest score; the bound is the sum of what the others can add."""
    return by_modes(system, m, scores(system, method))
