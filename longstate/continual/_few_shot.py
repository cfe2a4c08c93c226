"""New classes from a few examples, beside classes that a model knows: parts of Mamba-FSCIL.

A fixed classifier has a unit vector w_k for each class, old and new, with equal angles between all
of them (a simplex, or equiangular tight frame), so that learning a new class moves no old one:

    W = sqrt(K / (K - 1)) U (I - 1 1' / K)          U' U = I,  w_i . w_j = -1 / (K - 1)
    loss = mean of (h / |h| . w_y - 1)^2 / 2

The new classes are learned by a second branch beside the layer that the old ones have trained:

    y = base(u) + branch(u)        base is frozen; branch(u) = 0 at first, because its gate is 0

Three losses keep it apart: it should be small on old classes (suppression) and large on new ones
(novelty), and the mean step, B and C of both groups should be orthogonal (separation).

Li et al., "Mamba-FSCIL: Dynamic Adaptation with Selective State Space Model for Few-Shot
Class-Incremental Learning", 2024, arXiv:2407.06136. Reconstruction of parts of the paper's code,
for sequences. Differs from it: one scan along time, not four over an image; the branch begins as a
copy of the trained layer, with a gate of 0; the groups are two, old and new, and their means are
over sequences and time.

Axes: b batch, t time, d channels, k classes.
"""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.errors import InputError, expect_whole
from longstate.layers._base import Layer, State, as_options, check_call
from longstate.layers._selective import SelectiveLayer


class Simplex(nn.Module):
    """A fixed classifier whose classes are at equal angles. It has no parameters.

    Args:
        n_classes: k, at least 2; old classes and all that may come.
        d_model: channels of a feature, at least `n_classes`.
        seed: of the random directions.

    Raises:
        InputError: a size is out of range.
    """

    weight: Tensor

    def __init__(self, n_classes: int, d_model: int, *, seed: int = 0):
        super().__init__()
        expect_whole("n_classes", n_classes, 2)
        expect_whole("d_model", d_model, n_classes)
        draw = torch.Generator().manual_seed(seed)
        normal = torch.randn(d_model, n_classes, generator=draw, dtype=torch.float64)
        centred = torch.eye(n_classes, dtype=torch.float64) - 1 / n_classes
        corners = (n_classes / (n_classes - 1)) ** 0.5 * torch.linalg.qr(normal).Q @ centred
        self.register_buffer("weight", corners.T.to(torch.get_default_dtype()))

    def forward(self, h: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Cosine of the angle to each class."""
        return F.normalize(h, dim=-1) @ self.weight.to(h.dtype).T

    def loss(self, h: Float[Tensor, "b d"], classes: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Half the mean squared distance of the right cosine from 1."""
        right = self(h).gather(1, classes[:, None])
        return (right - 1).square().mean() / 2


class DualBranch(Layer):
    """A trained layer, frozen, and a second one that begins with an output of 0.

    State: {"base", "branch"}, a state of the layer each.

    Args:
        layer: Mamba, FalconMamba or Longhorn. Its parameters are frozen.

    Raises:
        InputError: the layer is another one.
    """

    own_gate = True

    def __init__(self, layer: Layer):
        super().__init__()
        if not isinstance(layer, SelectiveLayer):
            raise InputError(
                "DualBranch needs a layer with Mamba's gate (Mamba, FalconMamba, Longhorn); got "
                f"{type(layer).__name__}"
            )
        self.d_model = layer.d_model
        self.branch = copy.deepcopy(layer).requires_grad_(True)
        self.base = layer.requires_grad_(False)
        with torch.no_grad():  # silu(0) = 0, with a derivative that is not
            for part in self.branch.in_proj.parameters():
                part[layer.d_inner :] = 0

    def init_state(self, batch: int) -> State:
        """Those of both layers."""
        return {"base": self.base.init_state(batch), "branch": self.branch.init_state(batch)}

    def forward(
        self,
        u: Float[Tensor, "b t d"],
        state: State = None,
        *,
        dt: Float[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        reset: Bool[Tensor, "b t"] | None = None,
        rate: float = 1.0,
    ) -> tuple[Float[Tensor, "b t d"], State]:
        state = check_call(self, u, state, dt, mask, reset, rate)
        call = as_options(dt, mask, reset, rate)
        base, before = self.base(u, state["base"], **call)
        more, branch = self.branch(u, state["branch"], **call)
        return base + more, {"base": before, "branch": branch}


class BranchLosses(NamedTuple):
    """Three losses of a branch; the paper weights them 100, 1e-5 to 10, and 1e-3 to 0.5.

    Attributes:
        suppression: norm of the branch's output on old classes, over the count of its numbers.
        novelty: less the same on new classes.
        separation: mean over the step, B and C of the mean of |I - cosines| of the two groups'
            mean vectors. 0 if they are orthogonal.
    """

    suppression: Float[Tensor, ""]
    novelty: Float[Tensor, ""]
    separation: Float[Tensor, ""]


def branch_losses(
    layer: DualBranch, old: Float[Tensor, "b t d"], new: Float[Tensor, "n t d"]
) -> BranchLosses:
    """The losses of a branch on sequences of old and of new classes.

    Args:
        layer: a layer with two branches.
        old (b, t, d), new (n, t, d): inputs of the layer.
    """
    sizes = [_size(layer.branch(u)[0]) for u in (old, new)]
    pairs = zip(*(_means(layer.branch, u) for u in (old, new)), strict=True)
    apart = [_overlap(torch.stack(pair)) for pair in pairs]
    return BranchLosses(sizes[0], -sizes[1], torch.stack(apart).mean())


def _size(y: Tensor) -> Tensor:
    return torch.linalg.vector_norm(y) / y.numel()


def _means(layer: SelectiveLayer, u: Tensor) -> list[Tensor]:
    """The mean step, B and C as vectors."""
    trace = layer.trace(u)
    return [v.mean((0, 1)).flatten() for v in (trace.gain, trace.write, trace.read)]


def _overlap(groups: Tensor) -> Tensor:
    """The mean of |I - cosines| of the rows (2, n)."""
    unit = F.normalize(groups, dim=1)
    return (torch.eye(len(unit)).to(unit) - unit @ unit.T).abs().mean()
