"""All tasks by name, and scores of their answers."""

import torch
from torch import Generator, Tensor

from longstate.errors import InputError, near
from longstate.tasks import (
    brackets,
    copying,
    counters,
    counting,
    delay,
    groups,
    in_context,
    languages,
    listops,
    lorenz,
    pathfinder,
    recall,
    signature,
)
from longstate.tasks._task import Batch, Task

_FAMILIES = (
    recall, copying, delay, counting, groups, brackets, languages, counters, signature, in_context,
    lorenz, listops, pathfinder,
)  # fmt: skip


def tasks() -> dict[str, Task]:
    """Every task by its name, in the order of `longstate tasks list`."""
    return {task.name: task for family in _FAMILIES for task in family.TASKS}


def task(name: str) -> Task:
    """The task of this name.

    Raises:
        InputError: there is none.
    """
    every = tasks()
    if name not in every:
        raise InputError(f"there is no task {name!r}; {near(name, every)}")
    return every[name]


def accuracy(task: Task, answers: Tensor, batch: Batch) -> float:
    """The share of scored positions that are right, or the share of variance that is explained.

    Args:
        task: says which.
        answers (b, t) or (b, t, v): symbols, sets or numbers.
        batch: the rows, with the right answers.
    """
    target, given = batch.targets[batch.scored], answers[batch.scored]
    if task.answer == "numbers":
        return _explained(given.double(), target.double())
    return float(_right(given, target).double().mean())


def whole_rows(task: Task, answers: Tensor, batch: Batch) -> float | None:
    """The share of rows that are right at all scored positions; None for numbers."""
    if task.answer == "numbers":
        return None
    right = _right(answers, batch.targets) | ~batch.scored
    return float(right.all(1).double().mean())


def _explained(given: Tensor, target: Tensor) -> float:
    wrong = (given - target).square().sum()
    return float(1 - wrong / (target - target.mean(0)).square().sum())


def _right(given: Tensor, target: Tensor) -> Tensor:
    right = given == target
    return right if target.dtype != torch.bool else right.all(-1)


def memoryless(task: Task, batch: Batch) -> float:
    """What a model without memory can reach: the best function of the current sample alone.

    It is fitted to the first half of the rows and tested on the second: the most frequent answer
    to each symbol, and for numbers a linear regression on their powers up to the third.
    """
    target, x = batch.targets[batch.scored], batch.inputs[batch.scored]
    half = int(batch.scored[: len(batch.scored) // 2].sum())
    if task.answer == "numbers":
        x, target = x.double(), target.double()
        powers = torch.cat([torch.ones_like(x[:, :1]), x, x**2, x**3], 1)
        weight = torch.linalg.pinv(powers[:half]) @ target[:half]
        return _explained(powers[half:] @ weight, target[half:])
    kinds = classes(target)
    table = torch.zeros(task.symbols, int(kinds.max()) + 1)
    table.index_put_((x[:half], kinds[:half]), torch.ones(half), accumulate=True)
    return float((table.argmax(1)[x[half:]] == kinds[half:]).double().mean())


def classes(target: Tensor) -> Tensor:
    """Each symbol or set as a number: (n) or (n, v) to (n)."""
    if target.dim() == 1:
        return target
    return torch.unique(target, dim=0, return_inverse=True)[1]


def chance(task: Task, length: int, rows: int = 512) -> float:
    """The accuracy without memory: exact if the task knows it, or estimated from rows."""
    if task.chance is not None:
        return task.chance
    return memoryless(task, task.sample(rows, length, Generator().manual_seed(1)))
