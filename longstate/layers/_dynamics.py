"""Modules that have parameters which set decays, frequencies and step sizes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Dynamic(nn.Module):
    """Base of modules that name such parameters in `dynamics`."""

    dynamics: tuple[str, ...] = ()
    """Names of the parameters that set decays, frequencies and step sizes. They are trained with a
    separate, lower learning rate and without weight decay, and are never narrower than float32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Dynamic":
        """Moves and converts. `dynamics` stay in float32 where the rest becomes narrower: rounded
        steps and frequencies are those of another system."""
        given = dynamics_of(self)
        own = [x for p in given for x in (p, p.grad) if x is not None]

        def convert(x: Tensor) -> Tensor:
            y = fn(x)
            if not any(x is known for known in own) or torch.finfo(y.dtype).bits >= 32:
                return y
            return x.to(y.device, torch.float32)

        super()._apply(convert, recurse)
        return self


def dynamics_of(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a module names `dynamics`; of a parametrised one the original."""
    free = getattr(module, "parametrizations", {})
    found = [
        free[name].original if name in free else module._parameters.get(name)
        for name in getattr(module, "dynamics", ())
    ]
    return [p for p in found if p is not None]
