"""In-context learning: a prompt of examples of a new function, and its value at the next point.

    x_1 y_1 x_2 y_2 ...     at every x_k: y_k, from the pairs before it
    linear       y = w x                    sparse     w with s entries other than 0
    relu         y = a relu(W x)            tree       a decision tree of depth 4 on signs of x
    parity       y = product of k of the signs x
    retrieval    n keys and values, then one of the keys: its value

Garg et al. (2022, arXiv:2208.01066); Park et al. (2024, arXiv:2402.04248), smaller, and with all
functions divided to variance 1, as their error divided by d. Differs from the code of Park et al.:
every prompt draws its own function (there a batch shares the indices of a parity), and the query
of a retrieval is no source for itself.

The oracles are exact: least squares, whose error is (d - k) / d after k < d examples and 0 after
that; for sparse functions the mean over supports; for relu and tree the best estimate that is
linear in the examples' y, by the functions' own covariance; for parity the mean over all that are
consistent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, about, choose, whole

_KEPT = "keep the examples of a prompt"


@dataclass(frozen=True, kw_only=True)
class InContext(Task):
    """Features: x, or y and zeros, in turn.

    Args:
        size: d.
        function: draws x (b, n, d) and y (b, n).
        predict: y at a point (b, d), given earlier points (b, k, d) and their values (b, k).
        numbers: that the oracle must keep.
    """

    size: int
    function: Callable[[int, int, int, Generator], tuple[Tensor, Tensor]]
    predict: Callable[[Tensor, Tensor, Tensor], Tensor]
    numbers: int

    def demand(self, length: int) -> Bits:
        return about(self.numbers, "learn in context")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x, y = self.function(batch, (length + 1) // 2, self.size, generator)
        second = torch.cat([y[..., None], torch.zeros_like(x[..., 1:])], 2)
        u = torch.stack([x, second], 2).flatten(1, 2)[:, :length]
        target = torch.stack([y, torch.zeros_like(y)], 2).flatten(1)[:, :length]
        scored = (torch.arange(length) % 2 == 0).expand(batch, length)
        return Batch(u, target[..., None], scored)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor, None]:
        empty = torch.zeros(batch, 0, self.size, dtype=torch.float64)
        return empty, empty[..., 0], None

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor, Any]) -> tuple[Tensor, Any]:
        """All examples, and the point whose value comes next."""
        X, y, asked = state
        if asked is None:
            return self.predict(x, X, y)[:, None], (X, y, x)
        X, y = torch.cat([X, asked[:, None]], 1), torch.cat([y, x[:, :1]], 1)
        return torch.zeros_like(x[:, :1]), (X, y, None)


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """n keys and values in turn, all of length sqrt(d), and one of the keys.

    Args:
        size: d.
    """

    size: int

    def demand(self, length: int) -> Bits:
        return about(length // 2 * 2 * self.size, "keep all keys and values")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n = (length - 1) // 2
        length_used = 2 * n + 1
        x = torch.randn(batch, length, self.size, generator=generator)
        x = x / x.norm(dim=2, keepdim=True) * math.sqrt(self.size)
        which = whole(n, (batch, 1, 1), generator).expand(-1, -1, self.size)
        first = length - length_used  # a row of even length begins with a vector that is no key
        x[:, -1:] = x[:, first::2][:, :n].gather(1, which)
        y = torch.zeros_like(x)
        y[:, -1:] = x[:, first + 1 :: 2].gather(1, which)
        scored = (torch.arange(length) == length - 1).expand(batch, length)
        return Batch(x, y, scored)

    def least(self) -> int:
        return 3

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0, self.size)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """All vectors so far; the answer follows the one that is most like this one."""
        seen = torch.cat([state, x[:, None]], 1)
        if seen.shape[1] < 3:
            return torch.zeros_like(x), seen
        like = (seen[:, :-2] @ x[:, :, None])[..., 0].argmax(1)
        return seen[torch.arange(len(x)), like + 1], seen


def _points(batch: int, n: int, d: int, generator: Generator) -> Tensor:
    return torch.randn(batch, n, d, generator=generator, dtype=torch.float64)


def linear(batch: int, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """w and x are normal."""
    x, w = _points(batch, n, d, generator), _points(batch, d, 1, generator)
    return x, (x @ w)[..., 0] / math.sqrt(d)


def least_squares(x: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """The shortest w that fits best."""
    return ((torch.linalg.pinv(X) @ y[..., None])[..., 0] * x).sum(1)


_SPARSE = 2


def sparse(batch: int, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """As `linear`, with two entries of w that are not 0."""
    x, w = _points(batch, n, d, generator), _points(batch, 1, d, generator)
    kept = torch.zeros(batch, 1, d, dtype=torch.float64)
    kept.scatter_(2, choose(batch, d, _SPARSE, generator)[:, None], 1)
    return x, (x * w * kept).sum(2) / math.sqrt(_SPARSE)


def mean_of_supports(x: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """The mean of y given the examples: least squares on each pair of entries, weighed by how
    likely it makes the examples. From three examples on, only the right pair fits."""
    pairs = torch.tensor(list(combinations(range(x.shape[1]), _SPARSE)))
    part = X[..., pairs].movedim(2, 1)  # b, support, k, 2
    w = torch.linalg.pinv(part) @ y[:, None, :, None]
    if X.shape[1] > _SPARSE:
        left = (part @ w - y[:, None, :, None]).square().sum((2, 3))
        weight = torch.nn.functional.one_hot(left.argmin(1), len(pairs)).double()
    else:
        covariance = part @ part.mT / _SPARSE
        fit = y[:, None, None] @ torch.linalg.pinv(covariance) @ y[:, None, :, None]
        weight = (-(fit[..., 0, 0] + torch.linalg.slogdet(covariance)[1]) / 2).softmax(1)
    return (weight * (w[..., 0] * x[:, pairs]).sum(2)).sum(1)


_HIDDEN = 100


def relu(batch: int, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A network with one hidden layer of 100 units, all weights normal."""
    x, W = _points(batch, n, d, generator), _points(batch, d, _HIDDEN, generator)
    a = _points(batch, _HIDDEN, 1, generator) * math.sqrt(2 / _HIDDEN)
    return x, ((x @ W).relu() @ a)[..., 0] / math.sqrt(d)


def relu_covariance(x: Tensor, z: Tensor) -> Tensor:
    """E[f(x) f(z)] of `relu` functions: the arc-cosine kernel of order 1, over d."""
    norms = x.norm(dim=-1)[..., None] * z.norm(dim=-1)[..., None, :]
    cos = (x @ z.mT / norms).clamp(-1, 1)
    angle = cos.acos()
    return norms * (angle.sin() + (math.pi - angle) * cos) / math.pi / x.shape[-1]


_DEPTH = 4


def tree(batch: int, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each inner node looks at the sign of one entry; the 16 leaves are normal."""
    x = _points(batch, n, d, generator)
    looks = whole(d, (batch, 2**_DEPTH - 1), generator)
    leaves = _points(batch, 2**_DEPTH, 1, generator)[..., 0]
    node = torch.zeros(
        batch, n, dtype=torch.long
    )  # as in a heap: its children are 2 i + 1, 2 i + 2
    for _ in range(_DEPTH):
        entry = looks.gather(1, node)
        node = 2 * node + 1 + (x.gather(2, entry[..., None])[..., 0] > 0)
    return x, leaves.gather(1, node - (2**_DEPTH - 1))


def tree_covariance(x: Tensor, z: Tensor) -> Tensor:
    """E[f(x) f(z)] of `tree` functions: the probability that both come to the same leaf."""
    same = 0.5 + 0.5 * x.sign() @ z.sign().mT / x.shape[-1]
    return same**_DEPTH


def by_covariance(covariance: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The best estimate that is linear in y, for functions of this covariance."""

    def predict(x: Tensor, X: Tensor, y: Tensor) -> Tensor:
        weight = torch.linalg.pinv(covariance(X, X), hermitian=True, rtol=1e-10)
        return (covariance(x[:, None], X) @ weight @ y[..., None])[:, 0, 0]

    return predict


_FACTORS = 2


def parity(batch: int, n: int, d: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Signs, and the product of two of them."""
    x = 2.0 * whole(2, (batch, n, d), generator).double() - 1
    which = choose(batch, d, _FACTORS, generator)[:, None].expand(-1, n, -1)
    return x, x.gather(2, which).prod(2)


def consistent(x: Tensor, X: Tensor, y: Tensor) -> Tensor:
    """The mean over all products of two signs that fit all examples."""
    pairs = torch.tensor(list(combinations(range(x.shape[1]), _FACTORS)))
    fits = (X[..., pairs].prod(3) == y[..., None]).all(1).double()
    return (fits * x[:, pairs].prod(2)).sum(1) / fits.sum(1)


def _why(text: str) -> str:
    return f"Learning from examples in the input, without a change of weights. {text}"


_BUDGET = Budget(28, (56,), steps=1000, batch=64)
_PLAIN: dict[str, Any] = {"answers": 1, "answer": "numbers", "chance": 0.0, "budget": _BUDGET}
TASKS: tuple[Task, ...] = (
    InContext(
        name="icl_linear",
        why=_why("Least squares is the exact baseline: Mamba comes close to attention on it (Park "
                 "et al., 2024)."),
        size=5, features=5, function=linear, predict=least_squares, numbers=20, **_PLAIN,
    ),
    InContext(
        name="icl_sparse",
        why=_why("Linear functions of two of eight inputs: knowing that beats least squares."),
        size=8, features=8, function=sparse, predict=mean_of_supports, numbers=44, **_PLAIN,
    ),
    InContext(
        name="icl_relu",
        why=_why("Networks with 100 hidden units; no method knows them after a few examples."),
        size=5, features=5, function=relu, predict=by_covariance(relu_covariance), numbers=84,
        **_PLAIN,
    ),
    InContext(
        name="icl_tree",
        why=_why("Decision trees of depth 4: Mamba was reported to fail on them at its size (Park "
                 "et al., 2024)."),
        size=5, features=5, function=tree, predict=by_covariance(tree_covariance), numbers=84,
        **_PLAIN,
    ),
    InContext(
        name="icl_parity",
        why=_why("Products of two of six signs: selective layers were reported to learn them, and "
                 "attention not (Park et al., 2024)."),
        size=6, features=6, function=parity, predict=consistent, numbers=15, **_PLAIN,
    ),
    Retrieval(
        name="icl_retrieval",
        why=_why("Give back the vector that came with a key. Attention does this by construction; "
                 "a fixed state must hold all pairs (Park et al., 2024)."),
        size=8, features=8, answers=8, answer="numbers", items=8, chance=0.0,
        budget=Budget(17, (33,), steps=1000, batch=64),
    ),
)  # fmt: skip
