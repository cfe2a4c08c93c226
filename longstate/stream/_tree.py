"""Convert a state to named tensors and back. Only this file knows the structure of states.

The name of a tensor is its path: "state/0/taps" is `state[0]["taps"]`, "state" is a state that is a
single tensor. Dicts, lists, tuples, NamedTuples and None may be nested in any depth.
"""

from dataclasses import astuple
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path, tree_map_with_path

from longstate.errors import InputError
from longstate.layers._base import State


def flatten(state: State) -> dict[str, Tensor]:
    """Every tensor of a state by name.

    Raises:
        InputError: the state contains something other than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for path, leaf in tree_flatten_with_path(state)[0]:
        name = _name(path)
        if leaf is None:
            continue
        if not isinstance(leaf, Tensor):
            raise InputError(f"{name} is of type {type(leaf).__name__}; a state holds tensors only")
        if leaf.dim() == 0:
            raise InputError(f"{name} has no batch axis; every tensor of a state begins with it")
        if name in tensors:
            raise InputError(f"two tensors of the state are called {name}")
        tensors[name] = leaf
    return tensors


def unflatten(like: State, tensors: dict[str, Tensor]) -> State:
    """`tensors` in the structure of `like`."""
    return tree_map_with_path(
        lambda path, leaf: None if leaf is None else tensors[_name(path)], like
    )


def fit(module: nn.Module, tensors: dict[str, Tensor]) -> State:
    """`tensors` as a state of `module`: its structure, its device, any batch.

    Raises:
        InputError: `module.init_state` has other tensors; the message says which.
    """
    batch = next((len(t) for t in tensors.values()), 1)
    like = init_state(module, batch)
    wanted, owner = flatten(like), type(module).__name__
    grows = getattr(module, "grows", False)
    if tensors.keys() != wanted.keys():
        raise InputError(
            f"the state holds {_listed(tensors)}; that of this {owner} holds {_listed(wanted)}"
        )
    for name, want in wanted.items():
        have = tensors[name]
        if grows and have.dim() == want.dim() > 1:  # it may have any length
            want = want.new_empty(batch, have.shape[1], *want.shape[2:])
        if have.shape != want.shape or have.dtype != want.dtype:
            raise InputError(
                f"{name} is {tuple(have.shape)} {have.dtype}; this {owner} keeps "
                f"{tuple(want.shape)} {want.dtype} for a batch of {batch}"
            )
    return unflatten(like, {n: t.to(wanted[n].device) for n, t in tensors.items()})


def init_state(module: Any, batch: int) -> State:
    """`module.init_state(batch)`.

    Raises:
        InputError: there is no such method.
    """
    if not hasattr(module, "init_state"):
        raise InputError(f"{type(module).__name__} has no state: it lacks init_state(batch)")
    return module.init_state(batch)


def _name(path: tuple[Any, ...]) -> str:
    # an entry has one field: an index, a key or the name of a field
    return "/".join(("state", *(str(astuple(entry)[0]) for entry in path)))


def _listed(names: dict[str, Tensor]) -> str:
    shown = ", ".join(sorted(names)[:4]) or "nothing"
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")
