"""Gradients of one batch, by one process or several, in one piece or several.

A step is the same whatever the number of ranks and pieces, to rounding: `batch_size` counts the
windows of all ranks. Rank r takes the r-th part of each batch, and a part is cut into `accumulate`
pieces, whose gradients are added up. PyTorch's engines add those of the ranks:

    ddp     every rank has all weights, gradients and moments
    fsdp    every rank has a part of the gradients and moments (`fully_shard`) and trains that part
            of the weights; it has whole copies of the weights for a step and for evaluation

With `dtype="bfloat16"` matrix products run in it (autocast). With `segment` the stack runs in
segments of this length, each once more for its gradients: the activations of one are in memory.

The tasks and the models know nothing of this. The loss of a batch has to be the mean over windows;
that of a forecast with gaps in its future is weighted within each piece.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from longstate.errors import InputError
from longstate.models._stack import Blocks, check_segment
from longstate.train import _ranks as ranks
from longstate.train._settings import Training
from longstate.train._state_penalty import StatePenalty


class Gradients:
    """Computes the gradients of a task's loss on all ranks.

    Args:
        task: a `Task` of the loop. Its model has the whole weights.
        settings: those of `Execution`, and `state_budget`.

    Attributes:
        model: what the optimiser trains; the task's own model but for "fsdp".

    Raises:
        InputError: the state budget cannot be measured, or the model cannot run in segments.
    """

    def __init__(self, task: Any, settings: Training):
        self.task, self.accumulate = task, settings.accumulate
        self.model: nn.Module = task.model
        sharded = ranks.together() and settings.parallel == "fsdp"
        if sharded:
            self.model = copy.deepcopy(task.model)
            task = copy.copy(task)
            task.model = self.model
        self._loss: Any = _Loss(task, settings)
        if sharded:
            self._loss = _shard(self._loss)
        elif ranks.together():
            self._loss = DistributedDataParallel(self._loss)

    def compute(self, step: int, batch: np.ndarray) -> float:
        """Add the gradients of a batch to the parameters. Returns its mean loss, without penalty,
        on every rank; it is not finite if that with penalty is not, on any rank."""
        mean = 0.0
        pieces = self._pieces(batch)
        for number, piece in enumerate(pieces):
            share = len(piece) / len(batch)
            if not len(piece):  # all ranks have to take part
                piece = batch[:1]
            with self._apart(number + 1 < len(pieces)):
                loss, whole = self._loss(step, piece)
                (whole * (share * ranks.size())).backward()  # the engines average over the ranks
            mean += float((loss + 0 * whole).detach()) * share
        return ranks.total(mean)

    def own(self, batch: np.ndarray) -> np.ndarray:
        """This rank's windows of a batch."""
        return np.array_split(batch, ranks.size())[ranks.rank()]

    def clip(self, most: float) -> Tensor:
        """Scale the gradients to a norm of at most `most`. Returns the norm before."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), most)
        return whole(norm)

    def fill(self) -> None:
        """Bring the trained weights into the task's own model."""
        if self.model is not self.task.model:
            found = {name: whole(x) for name, x in self.model.state_dict().items()}
            self.task.model.load_state_dict(found)

    def take(self) -> None:
        """Train from the weights of the task's own model."""
        if self.model is not self.task.model:
            own = self.model.state_dict()
            given = self.task.model.state_dict()
            self.model.load_state_dict({name: like(given[name], x) for name, x in own.items()})

    def _pieces(self, batch: np.ndarray) -> list[np.ndarray]:
        """This rank's windows in pieces, as many on every rank; some may be empty."""
        most = -(-len(batch) // ranks.size())
        return np.array_split(self.own(batch), min(self.accumulate, most))

    def _apart(self, more: bool) -> Any:
        """Context in which gradients stay on this rank, if `more` pieces follow."""
        if self.model is not self.task.model:
            self._loss.set_requires_gradient_sync(not more)
        elif more and isinstance(self._loss, DistributedDataParallel):
            return self._loss.no_sync()
        return contextlib.nullcontext()


class _Loss(nn.Module):
    """A task's loss as a module, so that DDP sees the forward pass. Its part is the model."""

    def __init__(self, task: Any, settings: Training):
        super().__init__()
        self.model, self._task = task.model, (task,)
        self._narrow, self._segment = settings.dtype == "bfloat16", settings.segment
        weight = settings.state_budget
        self._penalty = StatePenalty(self.model, weight) if weight else None
        if self._segment is not None:
            if weight:
                raise InputError("state_budget measures whole windows: leave out segment")
            for blocks in _stacks(self.model):
                check_segment(blocks, self._segment)

    def forward(self, step: int, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        (task,) = self._task
        narrow = torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._narrow)
        with narrow, _in_segments(self.model, self._segment):
            if self._penalty is not None:
                return self._penalty.loss(step, lambda: task.loss(batch))
            loss = task.loss(batch)
            return loss, loss


def _stacks(model: nn.Module) -> list[Blocks]:
    return [module for module in model.modules() if isinstance(module, Blocks)]


@contextlib.contextmanager
def _in_segments(model: nn.Module, segment: int | None) -> Iterator[None]:
    """Context manager: the stacks of a model run in segments of this length."""
    stacks = [] if segment is None else _stacks(model)
    before = [blocks.segment for blocks in stacks]
    try:
        for blocks in stacks:
            blocks.segment = segment
        yield
    finally:
        for blocks, own in zip(stacks, before, strict=True):
            blocks.segment = own


class _Call(nn.Module):
    """A call of something that has the weights of a module."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]):
        super().__init__()
        self.module, self._call = module, call

    def forward(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class _OnCopies(nn.Module):
    """A call that runs on copies of the weights. Kernels look into them as NumPy arrays, and
    PyTorch cannot free memory that such an array has seen."""

    def __init__(self, call: _Call):
        super().__init__()
        self.call = call

    def forward(self, *arguments: Any) -> Any:
        copies = {name: p.clone() for name, p in self.call.named_parameters()}
        return functional_call(self.call, copies, arguments)


def _shard(loss: nn.Module) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for blocks in _stacks(loss):  # a segment runs again in the backward pass, after the copies
        vars(blocks)["_run_together"] = _OnCopies(_Call(blocks, blocks._run_together))
    root = _OnCopies(_Call(loss, loss.forward))
    return fully_shard(root, mesh=init_device_mesh("cpu", (ranks.size(),)))


def whole(x: Tensor) -> Tensor:
    """A tensor of all ranks, from their parts of it. All ranks have to call this."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def like(x: Tensor, pattern: Tensor) -> Tensor:
    """The part of `x` that this rank has of `pattern`; all of it if that is not divided."""
    if not hasattr(pattern, "full_tensor") or x.shape != pattern.shape:
        return x
    from torch.distributed.tensor import distribute_tensor

    part: Any = pattern
    return distribute_tensor(x.to(part.dtype), part.device_mesh, part.placements)
