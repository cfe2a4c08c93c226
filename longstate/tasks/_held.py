"""The bits that a state must have held for a measured accuracy.

An answer that needs the past is a function of the state and the current sample, so Fano's
inequality bounds from below what the state knows about each answer, given the sample:

    I >= H(answer | sample) - h(e) - e log2(V - 1)              e = 1 - accuracy

times the number of independent answers that it holds at once. The entropy is exact where answers
are uniform, and estimated from rows elsewhere. A Gaussian number of which a share D of the variance
is wrong has at least log2(1 / D) / 2 bits.
"""

import math

import torch
from torch import Generator

from longstate.memory import Bits, known_bits
from longstate.tasks._task import Batch, Task
from longstate.tasks._tasks import chance, classes

_BEST = 1e-6  # the smallest error of a number that is counted, about that of float32
_ROWS = 512


def held(task: Task, accuracy: float, length: int) -> Bits | None:
    """Bits in the state of a model with this accuracy; None if the task's answers have no bound.

    Args:
        task: what was answered.
        accuracy: measured, as by `longstate.tasks.accuracy`.
        length: of the rows.
    """
    if task.answer == "numbers":
        if not task.gaussian:
            return None
        wrong = min(1.0, max(_BEST, 1 - accuracy))
        return _bits("lower_bound", task.items * 0.5 * math.log2(1 / wrong), task, accuracy)
    if accuracy <= chance(task, length):
        return _bits("lower_bound", 0.0, task, accuracy)
    if task.chance is not None:  # uniform answers
        known = known_bits(accuracy, task.answers).bits
        return _bits("lower_bound", task.items * known, task, accuracy)
    batch = task.sample(_ROWS, length, Generator().manual_seed(1))
    return _bits("estimate", _from_entropy(batch, accuracy), task, accuracy)


def _from_entropy(batch: Batch, accuracy: float) -> float:
    """H(answer | sample), from frequencies, less what an accuracy leaves open."""
    kinds, x = classes(batch.targets[batch.scored]), batch.inputs[batch.scored]
    table = torch.zeros(int(x.max()) + 1, int(kinds.max()) + 1, dtype=torch.float64)
    table.index_put_((x, kinds), torch.ones(len(x)).double(), accumulate=True)
    joint = table / table.sum()
    given = joint.sum(1, keepdim=True).expand_as(joint)
    there = joint > 0
    entropy = -(joint[there] * (joint[there] / given[there]).log2()).sum()
    alphabet = max(2, joint.shape[1])
    open_ = math.log2(alphabet) - known_bits(accuracy, alphabet).bits
    return max(0.0, float(entropy) - open_)


def _bits(kind: str, bits: float, task: Task, accuracy: float) -> Bits:
    return Bits(
        kind=kind,  # type: ignore[arg-type]
        scope="the distribution of the task's rows; at the measured accuracy",
        sentence=f"With an accuracy of {accuracy:.4g} on {task.name}, the state must have held "
        f"at least {bits:.4g} bits.",
        bits=bits,
    )
