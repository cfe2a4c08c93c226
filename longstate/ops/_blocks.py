"""A sequence in blocks, where a scan over all of it would need too much memory."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longstate.ops._transforms import in_transform

_SIZE = 64  # samples


def in_blocks(
    run: Callable[..., tuple[Tensor, Tensor]], state: Tensor, *rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`y, state = run(state, *rows)`, a block of samples at a time.

    What a block computes is not kept, and computed again for the gradient.

    Args:
        run: of a block: (b, 64, ...) outputs and the state after it.
        state: before the first sample.
        rows (b, t, ...): sequences, the first of them not None.

    Returns:
        All outputs (b, t, ...) and the last state.
    """
    # torch.func has no checkpoints
    call = run if in_transform() else partial(checkpoint, run, use_reentrant=False)
    outputs = []
    for block in zip(*(_cut(x, rows[0]) for x in rows), strict=True):
        y, state = call(state, *block)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _cut(x: Tensor | None, like: Tensor | None) -> list[Tensor | None]:
    assert like is not None
    if x is None:
        return [None] * -(-like.shape[1] // _SIZE)
    return list(x.split(_SIZE, dim=1))
