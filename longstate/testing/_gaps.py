"""Clauses of the layer contract about time: masks, packing, irregular steps."""

from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from longstate.layers._base import Layer, State
from longstate.testing._states import close, random_state, refuses


def paddings(time: int) -> dict[str, Tensor]:
    index = torch.arange(time)
    scattered = torch.rand(time, generator=torch.Generator().manual_seed(3)) < 0.6
    return {
        "left": index >= 5,
        "right": index < time - 6,
        "middle": (index < 4) | (index > 9),
        "scattered": scattered,
        "one sample": index == 3,
    }


def mask_removes(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    masks = paddings(u.shape[1])
    # Each row has a different padding, and is compared with the same sequence without padding.
    for names in (list(masks)[:3], list(masks)[2:]):
        mask = torch.stack([masks[name] for name in names])
        hostile = torch.where(mask[..., None], u, torch.nan)
        y, state = layer(hostile, first, mask=mask)
        assert not y[~mask].any(), "y is not 0 at masked samples"
        for row, name in enumerate(names):
            alone, after = layer(
                u[row : row + 1, mask[row]], tree_map(lambda s, r=row: s[r : r + 1], first)
            )
            close(y[row : row + 1, mask[row]], alone, f"outputs with {name} masked")
            kept = tree_map(lambda s, r=row: s[r : r + 1], state)
            close(*alike(kept, after, layer), f"state with {name} masked")
    y, state = u.new_zeros(u.shape), first
    for t in range(u.shape[1]):
        y[:, t], state = layer.step(u[:, t], state, mask=mask[:, t])
    close((y, state), layer(u, first, mask=mask), "masked steps against one masked pass")


def packed_is_separate(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    cuts = [[4, 5, 13], [7], [0, u.shape[1] - 1]]
    reset = torch.zeros(u.shape[:2], dtype=torch.bool)
    for row, at in enumerate(cuts):
        reset[row, at] = True
    y, state = layer(u, first, reset=reset)
    for row, at in enumerate(cuts):
        carried = tree_map(lambda s, r=row: s[r : r + 1], first)
        outputs = []
        for i, piece in enumerate(u[row : row + 1].tensor_split(at, dim=1)):
            if piece.shape[1]:
                out, carried = layer(piece, carried if i == 0 else None)
                outputs.append(out)
        close(y[row : row + 1], torch.cat(outputs, dim=1), f"packed at {at}")
        kept = tree_map(lambda s, r=row: s[r : r + 1], state)
        close(*alike(kept, carried, layer), f"state after packing at {at}")
    packed_and_masked(layer, u, first, reset)


def packed_and_masked(layer: Layer, u: Tensor, first: State, reset: Tensor) -> None:
    mask = torch.rand(u.shape[:2]) < 0.7
    mask[1, 7] = False  # a reset applies even if its own sample is masked
    state = first
    y = u.new_zeros(u.shape)
    for t in range(u.shape[1]):
        y[:, t], state = layer.step(u[:, t], state, mask=mask[:, t], reset=reset[:, t])
    close(layer(u, first, mask=mask, reset=reset), (y, state), "packed and masked")


def alike(one: State, other: State, layer: Layer) -> tuple[State, State]:
    """Two states of a row. If the state of the layer grows, its length depends on the other rows:
    the shorter one is padded with zeros in front."""

    def fill(s: Tensor, like: Tensor) -> Tensor:
        if s.dim() < 2 or s.shape[1] >= like.shape[1]:
            return s
        return torch.cat([s.new_zeros(len(s), like.shape[1] - s.shape[1], *s.shape[2:]), s], dim=1)

    if not layer.grows:
        return one, other
    return tree_map(fill, one, other), tree_map(fill, other, one)


def all_masked_is_nothing(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    mask = torch.ones(u.shape[:2], dtype=torch.bool)
    mask[1] = False
    _, state = layer(u, first, mask=mask)
    kept, before = (tree_map(lambda s: s[1:2], s) for s in (state, first))
    close(*alike(kept, before, layer), "a row without samples")


def irregular(layer: Layer, u: Tensor) -> None:
    first = random_state(layer, len(u))
    ones = torch.ones(u.shape[:2], dtype=u.dtype)
    close(layer(u, first, dt=ones), layer(u, first), "dt = 1 is regular time")
    dt = torch.rand(u.shape[:2], dtype=u.dtype) * 3
    dt[:, 4] = 0
    whole = layer(u, first, dt=dt)
    state, outputs = first, []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state, dt=dt[:, t])
        outputs.append(y)
    close((torch.stack(outputs, 1), state), whole, "irregular steps against one pass")
    mask = torch.rand(u.shape[:2]) < 0.7
    y, _ = layer(u, first, dt=dt, mask=mask)
    row = mask[0]
    alone, _ = layer(u[:1, row], tree_map(lambda s: s[:1], first), dt=dt[:1, row])
    close(y[:1, row], alone, "irregular and masked")
    for bad in (dt[:, :-1], -dt, dt / 0):
        refused = refuses(partial(layer, u, dt=bad))
        assert refused, "no ValueError for a dt of wrong shape, sign or size"


def refuses_dt(layer: Layer, u: Tensor) -> None:
    dt = torch.ones(u.shape[:2], dtype=u.dtype)
    assert refuses(lambda: layer(u, dt=dt)), "dt is neither used nor refused"
