"""The folder of a run, and the checkpoints in it: weights and moments of the optimiser, in the
format of `longstate._tensorfile`."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from longstate._files import remove_parts
from longstate._lock import only_writer
from longstate._tensorfile import load as load
from longstate._tensorfile import save as save
from longstate.errors import InputError
from longstate.models._saving import check_tensors
from longstate.train import _ranks as ranks
from longstate.train._parallel import like, whole

MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"


@contextlib.contextmanager
def run_folder(out: str | Path | None) -> Iterator[None]:
    """Context manager: lock the folder of a run; None locks nothing. Of several ranks the first
    holds the lock, and the others enter after it.

    Raises:
        InputError: another training writes into it, or it cannot be made.
    """
    if out is None:
        yield
        return
    with contextlib.ExitStack() as held:
        with ranks.first_rank_first():
            if ranks.rank() == 0:
                held.enter_context(only_writer(out))
                for name in (MODEL, CHECKPOINT):
                    remove_parts(Path(out) / name)
        yield


def pack_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments by name, without its settings."""
    state = optimiser.state_dict()["state"]
    return {
        f"optimiser/{index}/{name}": whole(torch.as_tensor(value))
        for index, moments in state.items()
        for name, value in moments.items()
    }


def pack_random(states: list[Tensor]) -> dict[str, Tensor]:
    """The random states of all ranks, by name."""
    return {"random" if rank == 0 else f"random/{rank}": x for rank, x in enumerate(states)}


def restore(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    path: str | Path,
    rank: int = 0,
) -> None:
    """Restore weights, moments and the random state from a checkpoint. A rank that the checkpoint
    does not know keeps the random state of its seed.

    Raises:
        InputError: they are not those of this model.
    """
    weights = part(tensors, "model")
    check_tensors(weights, model.state_dict(), path)
    moments = part(tensors, "optimiser")
    check_tensors(moments, _moments(optimiser, moments), path)
    known = "random" if rank == 0 else f"random/{rank}"
    random = torch.get_rng_state() if rank else torch.empty(0)
    random = tensors.get(known, random)
    if random.shape != torch.get_rng_state().shape or random.dtype != torch.uint8:
        raise InputError(f"{path} is damaged: it holds no random state that PyTorch can use")
    model.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in moments.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = like(value, parameters[int(index)])
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    torch.set_rng_state(random)


def _moments(optimiser: torch.optim.Optimizer, found: Iterable[str]) -> dict[str, Tensor]:
    """The moments of AdamW, by the names of `pack_optimiser`, of each parameter that has some. One
    has none before its first step."""
    begun = {name.partition("/")[0] for name in found}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"{i}/{name}": torch.empty(() if name == "step" else p.shape, device="meta")
        for i, p in enumerate(parameters)
        if str(i) in begun
        for name in ("step", "exp_avg", "exp_avg_sq")
    }


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix/`, without it."""
    return {
        k.removeprefix(prefix + "/"): v for k, v in tensors.items() if k.startswith(prefix + "/")
    }
