"""Clauses of the layer contract: other sampling rates, wrong states, empty batches."""

import inspect
import math
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from longstate.layers._base import Layer, State
from longstate.testing._states import close, random_state, refuses


def rate_is_dt(layer: Layer, u: Tensor) -> None:
    """A `rate` equals that `dt` at every sample. Skipped if the layer's `forward` has no `rate`."""
    if "rate" not in inspect.signature(layer.forward).parameters:
        return
    first = random_state(layer, len(u))
    for bad in (0, -1.0, math.nan, math.inf):
        assert refuses(partial(layer, u, first, rate=bad)), f"no ValueError for rate={bad}"
        step = partial(layer.step, u[:, 0], first, rate=bad)
        assert refuses(step), f"no ValueError for a step with rate={bad}"
    dt = torch.full(u.shape[:2], 2.0, dtype=u.dtype)
    if refuses(partial(layer, u, first, dt=dt)):
        return
    fast = layer(u, first, rate=2.0)
    close(fast, layer(u, first, dt=dt), "rate = 2 against dt = 2 everywhere")
    close(layer(u, first, dt=dt, rate=0.5), layer(u, first), "dt = 2 at rate = 1/2")
    state, outputs = first, []
    for t in range(u.shape[1]):
        y, state = layer.step(u[:, t], state, rate=2.0)
        outputs.append(y)
    close((torch.stack(outputs, 1), state), fast, "steps at rate = 2 against one pass")


def refuses_wrong_state(layer: Layer, u: Tensor) -> None:
    state = random_state(layer, len(u))
    leaves, structure = tree_flatten(state)
    narrow = [torch.complex64 if s.is_complex() else torch.float32 for s in leaves]
    wrong: dict[str, State] = {
        "an int": 3,
        "a list with one more": [state, state],
        "a list for a tensor": tree_map(lambda s: s.tolist(), state),
        "a tensor of another type": tree_unflatten(
            [s.to(dtype) for s, dtype in zip(leaves, narrow, strict=True)], structure
        ),
        "a tensor with one more axis": tree_map(lambda s: s[..., None], state),
    }
    for name, bad in wrong.items():
        assert refuses(partial(layer, u, bad)), f"no ValueError for a state that is {name}"
        refused = refuses(partial(layer.step, u[:, 0], bad))
        assert refused, f"no ValueError for a step's state that is {name}"


def no_rows(layer: Layer, u: Tensor) -> None:
    u = u[:0].clone().requires_grad_()
    some = torch.ones(u.shape[:2], dtype=torch.bool)
    for mask, reset in ((None, None), (some, None), (None, some)):
        y, state = layer(u, mask=mask, reset=reset)
        assert y.shape == u.shape, f"y of no rows has shape {tuple(y.shape)}"
        assert y.dtype == u.dtype, f"y of no rows has type {y.dtype}"
        _like(state, layer.init_state(0), layer.grows)
        y.sum().backward()
    y, state = layer.step(u[:, 0], layer.init_state(0))
    assert y.shape == u[:, 0].shape, "a step of no rows"
    _like(state, layer.init_state(0), layer.grows)


def _like(state: State, fresh: State, grows: bool) -> None:
    for have, want in zip(tree_leaves(state), tree_leaves(fresh), strict=True):
        fixed = 2 if grows else 1
        shape = (len(have), *have.shape[fixed:])
        assert shape == (0, *want.shape[fixed:]), f"a state of no rows is {tuple(have.shape)}"
        assert have.dtype == want.dtype, f"a state of no rows in {have.dtype}"
