"""A penalty on the size of a model's states, so that they can be reduced after training.

    linear       mean over channels of (sum sigma) / sqrt(sum sigma^2)
    one decay    the same of the singular values s of L_Q' L_P, with P the mean of h'h over the
      per head   channels of a group, and Q the mean of C C' (Mamba-2)
    the others   (sum over columns n of sqrt(e_n)) / sqrt(sum of e_n), e_n the mean of (h_n C_n)^2

averaged over the layers. sigma are the Hankel singular values: a reduction to r states is possible
with an error of at most twice the sum of the others. The squares of s, and e_n, are what a
reduction of a selective layer leaves out of its output, on these inputs (`longstate.reduce`). The
quotients are 1 if one direction does everything, and do not depend on the size of the weights: a
penalty on the sum itself could be met by smaller weights, which the next map undoes.

That training can be led to states that reduce well is a heuristic; what a reduction then costs is
measured (`longstate reduce`). Traces of selective layers are for the first sequence of a batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.layers import Layer, LinOSS
from longstate.systems import DiagonalSystem, hankel_size, nuclear_norm

EVERY = 4
"""Steps from one with the penalty to the next. It counts as often as it would at every step."""
_LEAST = 1e-12


class StatePenalty:
    """The penalty of a model's layers, for the inputs of the latest call.

    Args:
        model: its linear layers are S4D, S5, DSS or LinOSS("im").
        weight: of the penalty in the loss, above 0.

    Raises:
        InputError: a layer has no penalty.
    """

    def __init__(self, model: nn.Module, weight: float):
        self.weight = weight
        self.layers = [m for m in model.modules() if isinstance(m, Layer) and _measured(m)]
        if not self.layers:
            raise InputError("state_budget needs a model with layers that have a state to measure")
        self._inputs: dict[int, Tensor] = {}

    def loss(self, step: int, loss: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """The loss by itself, and with the penalty if this is a step for it."""
        if step % EVERY:
            plain = loss()
            return plain, plain
        hooks = [
            layer.register_forward_pre_hook(self._keep, with_kwargs=True)
            for layer in self.layers
            if hasattr(layer, "trace")
        ]
        try:
            plain = loss()
        finally:
            for hook in hooks:
                hook.remove()
        sizes = [state_size(layer, self._inputs.get(id(layer))) for layer in self.layers]
        self._inputs.clear()
        penalty = torch.stack([size.to(plain.dtype) for size in sizes]).mean()
        return plain, plain + EVERY * self.weight * penalty

    def _keep(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self._inputs[id(layer)] = (args[0] if args else kwargs["u"])[:1]


def _measured(layer: Layer) -> bool:
    """Whether a layer has a size.

    Raises:
        InputError: it mixes along time and has none.
    """
    if hasattr(layer, "trace"):
        return True
    if not hasattr(layer, "system"):
        return False
    with torch.no_grad():
        if isinstance(_system(layer), DiagonalSystem):
            return True
    raise InputError(
        f"state_budget measures S4D, S5, DSS, LinOSS('im') and selective layers; got "
        f"{type(layer).__name__}"
    )


def _system(layer: Any) -> Any:
    return layer.modes() if isinstance(layer, LinOSS) and layer.variant == "im" else layer.system()


def state_size(layer: Any, u: Tensor | None) -> Tensor:
    """The size of a layer's state; of a selective one for the input u (b, t, d)."""
    if hasattr(layer, "system"):
        return hankel_size(_system(layer)).mean()
    assert u is not None
    trace = layer.trace(u)
    h, read = trace.states(), trace.read  # (b, t, c, n)
    if trace.gate is not None:
        read = read * trace.gate[..., None]
    if hasattr(layer, "with_projection") and hasattr(layer, "n_groups"):
        return _of_groups(h, read, layer.n_groups)
    if h.shape[-1] == 1:  # every channel is one column
        h, read = h.mT, read.mT
    columns = (h * read).square().mean((0, 1)).sum(0)
    return _quotient(columns.clamp(min=_LEAST**2).sqrt().sum(), columns.sum())


def _of_groups(h: Tensor, read: Tensor, groups: int) -> Tensor:
    """Of h and read (b, t, c, n), whose channels are in groups that share directions."""
    h, read = (v.double().unflatten(2, (groups, -1)) for v in (h, read))
    count = h.shape[0] * h.shape[1]
    P = torch.einsum("btgcn,btgcm->gnm", h, h) / count
    Q = torch.einsum("btgcn,btgcm->gnm", read, read) / count
    return _quotient(nuclear_norm(P, Q), (P * Q.mT).sum((-2, -1))).mean()


def _quotient(total: Tensor, energy: Tensor) -> Tensor:
    return total / energy.clamp(min=_LEAST**2).sqrt()
