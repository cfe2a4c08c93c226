"""Check that there is enough memory to train a model, before the model is made."""

from collections.abc import Callable

from torch import nn

from longstate._environment import installed_memory
from longstate._shapes import shapes_only
from longstate.errors import InputError

_COPIES = 5  # weights, gradients, two moments, and the best weights so far


def check_memory(make: Callable[[], nn.Module]) -> None:
    """Refuse a model whose training needs more memory than the machine has.

    Args:
        make: makes the model; called on PyTorch's meta device, which allocates no memory. The
            random state is not changed.

    Raises:
        InputError: no such model can be made, or it needs too much memory; says how much.
    """
    try:
        with shapes_only():
            tensors = [*(model := make()).parameters(), *model.buffers()]
    except (RuntimeError, TypeError, OverflowError) as e:
        reason = str(e).partition("\n")[0][:200]
        raise InputError(f"no model of these sizes can be made: {reason}") from None
    needed = _COPIES * sum(t.numel() * t.element_size() for t in tensors)
    there = installed_memory()
    if there is not None and needed > there:
        raise InputError(
            f"a model of these sizes has {sum(t.numel() for t in tensors):,} numbers, and training "
            f"needs {needed / 2**30:,.0f} GiB for them; this machine has {there / 2**30:,.0f} GiB: "
            "choose a smaller d_model, n_layers or d_state"
        )
