"""Published scores of the modes of a linear layer, for comparison.

    LAST          |C|^2 |B|^2 / (1 - |A|)^2      Gwak et al. 2024, arXiv:2411.02824
    AIRE-Prune    |C|^2 |B|^2 / (1 - |A|^2)      arXiv:2602.00534
    magnitude     |C| |B|

The papers also choose the sizes of layers by these scores, with one threshold for all layers. Here
`longstate.compress.reduce` chooses the sizes in the same way for every method, so that a comparison
shows the effect of the choice of modes.
"""

import torch
from torch import Tensor

from longstate.compress._report import Method, MethodError
from longstate.memory._truncate import Truncated, by_modes
from longstate.systems import DiagonalSystem


def scores(system: DiagonalSystem, method: Method) -> Tensor:
    """The score of every mode (..., n).

    Raises:
        MethodError: the method is not for linear layers.
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
    """Keep the m modes with the highest scores. The bound is the sum of the gains of the others."""
    return by_modes(system, m, scores(system, method))
