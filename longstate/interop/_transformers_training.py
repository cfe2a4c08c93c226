"""Parameters without weight decay, and a Trainer that respects them.

Weight decay would pull the time scales of a layer towards an arbitrary value. The published code of
Mamba marks such parameters with `_no_weight_decay = True`; Trainer of transformers uses names and
PyTorch's LayerNorm instead, and would decay them.
"""

from functools import wraps
from typing import Any

from torch import nn

_UNDECAYED = ("D", "bias")


def mark_no_weight_decay(model: nn.Module) -> None:
    """Mark decays, frequencies, steps, skips, norms and biases: all but matrices."""
    for module in model.modules():
        own = (*getattr(module, "dynamics", ()), *_UNDECAYED)
        for name, p in module.named_parameters(recurse=False):
            if name in own or name.endswith("_bias") or p.dim() < 2:
                p._no_weight_decay = True  # type: ignore[attr-defined]


def honour_marks() -> None:
    """Make every Trainer exclude marked parameters from weight decay."""
    from transformers.trainer import Trainer

    inner = Trainer.get_decay_parameter_names
    if getattr(inner, "_honours_marks", False):
        return

    @wraps(inner)
    def get_decay_parameter_names(self: Any, model: nn.Module) -> list[str]:
        marked = {
            name for name, p in model.named_parameters() if getattr(p, "_no_weight_decay", False)
        }
        return [name for name in inner(self, model) if name not in marked]

    get_decay_parameter_names._honours_marks = True  # type: ignore[attr-defined]
    Trainer.get_decay_parameter_names = get_decay_parameter_names  # type: ignore[method-assign]
