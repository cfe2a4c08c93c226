"""Find the first difference between a state and the state that a layer expects."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

Path = tuple[int | str, ...]
_NODES = (dict, list, tuple)  # torch.compile cannot follow `list | tuple`


class Difference(NamedTuple):
    """A difference: the path to it, what was found, what was expected."""

    path: Path
    found: str
    wanted: str


def difference(have: Any, want: Any, batch: int, grows: bool, path: Path = ()) -> Difference | None:
    """The first place where a state differs from the expected one; None if there is none.

    Args:
        have: a state.
        want: a state of the right structure, types and device, for any batch.
        batch: number of rows that `have` should have.
        grows: whether axis 1 may have any length.
        path: path to `have` from the whole state.
    """
    if isinstance(want, Tensor):
        if isinstance(have, Tensor) and _alike(have, want, batch, grows):
            return None
        axes = ["*" if grows and i == 1 else str(n) for i, n in enumerate(want.shape)]
        shape = ", ".join([str(batch), *axes[1:]])
        return Difference(path, _kind(have, want.device), f"{_plain(want.dtype)} ({shape})")
    if type(have) is not type(want):
        return Difference(path, _kind(have), _kind(want))
    if not isinstance(want, _NODES):
        return None
    if len(have) != len(want):
        return Difference(path, _kind(have), _kind(want))
    parts = dict(want) if isinstance(want, dict) else dict(enumerate(want))
    if isinstance(want, dict) and have.keys() != want.keys():
        return Difference(path, _kind(have), _kind(want))
    for key, part in parts.items():
        wrong = difference(have[key], part, batch, grows, (*path, key))
        if wrong is not None:
            return wrong
    return None


def _alike(have: Tensor, want: Tensor, batch: int, grows: bool) -> bool:
    fixed = 2 if grows else 1
    return (
        have.dim() == want.dim()
        and have.shape[:1] == (batch,)
        and have.shape[fixed:] == want.shape[fixed:]
        and have.dtype == want.dtype
        and have.device == want.device
    )


def _kind(x: object, device: torch.device | None = None) -> str:
    """A short description of a value."""
    if isinstance(x, Tensor):
        where = "" if device is None or x.device == device else f" on {x.device}, not on {device}"
        return f"{_plain(x.dtype)} {tuple(x.shape)}{where}"
    if isinstance(x, dict):
        return f"a dict of {', '.join(map(str, x)) or 'nothing'}"
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__} of {len(x)}"
    return f"{x!r:.40} ({type(x).__name__})"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
