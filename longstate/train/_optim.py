"""AdamW with three parameter groups, and a schedule with warm-up and cosine decay.

    group      parameters                        learning rate     weight decay
    dynamics   those a layer names `dynamics`    its own           none
    vectors    biases, norms, scalars            the common one    none
    matrices   all others                        the common one    the common one

A layer's dynamics determine its memory: weight decay would pull time scales towards an arbitrary
value, and a large update can destroy the memory.
"""

import math

import torch
from torch import nn

from longstate.layers._dynamics import dynamics_of
from longstate.train._settings import Training


def make_optimiser(model: nn.Module, settings: Training) -> torch.optim.AdamW:
    own = {id(p) for module in model.modules() for p in dynamics_of(module)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    dynamics = [p for p in parameters if id(p) in own]
    others = [p for p in parameters if id(p) not in own]
    groups = (
        (dynamics, settings.dynamics_rate, 0.0),
        ([p for p in others if p.dim() < 2], settings.learning_rate, 0.0),
        ([p for p in others if p.dim() >= 2], settings.learning_rate, settings.weight_decay),
    )
    return torch.optim.AdamW(
        [
            {"params": params, "lr": rate, "base_rate": rate, "weight_decay": decay}
            for params, rate, decay in groups
            if params
        ]
    )


def set_rate(optimiser: torch.optim.Optimizer, step: int, total: int) -> None:
    """Linear over the first twentieth of `total` steps, then half a cosine to zero."""
    warm = max(1, total // 20)
    if step < warm:
        factor = (step + 1) / warm
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    for group in optimiser.param_groups:
        group["lr"] = group["base_rate"] * factor
