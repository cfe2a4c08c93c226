"""Old outputs that stay while a model learns something else, by projecting what it learns.

A matrix W with a bias b has seen the features x of old data. Where they lie in the span of the
columns of K,

    [W b] <- [W b]_old + ([W b] - [W b]_old) (I - K K')          K' K = I

leaves W x + b as it was, whatever step the optimiser took: momentum, weight decay and adaptive
rates included. Where every matrix is projected in this way and every other parameter that old data
reads is frozen, the outputs on old data are unchanged, one layer after another.

The features are those of every call of `F.linear` with the parameter itself; rows that
`F.embedding` has read are frozen, and the others are free. All other uses freeze a parameter: gains
of norms, convolutions, and `A_log` and `D` of Mamba among them. Buffers are frozen too, such as the
means of a batch norm. What is kept of the data is one triangular factor for each matrix, as large
as its inputs times its inputs.

Cheng, Lu, He et al., "Mamba-CL: Optimizing Selective State Space Model in Null Space for Continual
Learning", 2024, arXiv:2411.15469; the projection of features goes back to Zeng et al., "Continual
learning of context-dependent processing in neural networks", 2019, arXiv:1810.01256, and the
choice of directions by their energy to Saha, Garg, Roy, "Gradient Projection Memory", 2021,
arXiv:2103.09762. Differs from Mamba-CL: what is projected is the parameter after any optimiser's
step and not Adam's update; the projection is exact, where the paper's code scales it and lets a
part of the update through; `A_log` is frozen, because the paper's condition for it does not keep
the outputs (A enters the scan element by element). Differs also in the features of B and C: in
Mamba they are outputs of the same matrix as the step, so one condition covers all three.

Axes: d features, o outputs, k directions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from longstate.continual._uses import Uses, Watch
from longstate.errors import InputError, near


@dataclass(frozen=True)
class Kept:
    """What is kept of one parameter.

    Attributes:
        name: of the parameter.
        how: "projected", "rows" (of an embedding), "frozen" or "free".
        why: of a frozen parameter, the function that has read it, or what else froze it.
        kept: directions or rows that no longer change; all of them if it is frozen.
        size: directions or rows that there are.
        lost: the largest share of the energy of a task's features that lies outside of the kept
            directions. 0 if it is no more than rounding.
    """

    name: str
    how: str
    why: str
    kept: int
    size: int
    lost: float


class NullSpace:
    """Keeps a model's outputs on old data while it is trained on new data.

        space = NullSpace(model)
        space.attach(optimiser)
        ...                                  # train on the first task
        with space.watch():
            for x in first_task:
                model(x)
        space.keep()
        ...                                  # train on the second task

    `watch` must see the model itself (not a compiled one) on all data whose outputs are to stay.
    Modules that are added later are free, and so are parameters that `keep` names.

    Args:
        model: any module.

    Attributes:
        kept: what is kept of each parameter; empty before the first `keep`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.kept: tuple[Kept, ...] = ()
        self._uses: dict[str, Uses] = {}
        self._bases: dict[str, Tensor] = {}
        self._lost: dict[str, float] = {}
        self._biases: dict[str, str | None] = {}
        self._frozen: dict[str, str] = {}
        self._free: set[str] = set()
        self._old: dict[str, Tensor] = {}
        self._watched = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Context in which the model is in evaluation and its features are collected, without
        gradients.

        Raises:
            InputError: a feature is not finite.
        """
        training = {m: m.training for m in self.model.modules()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        self.model.eval()
        try:
            with torch.no_grad(), Watch(names, self._uses):
                yield
            self._watched = True
        finally:
            for module, flag in training.items():
                module.training = flag

    def keep(self, lost: float = 0.0, *, free: Sequence[str] = ()) -> tuple[Kept, ...]:
        """From now on keep the outputs on all that was watched, as the model has them now.

        Args:
            lost: share of the energy of the features of each matrix that may be left outside of
                the kept directions, from 0 to below 1. With 0 outputs stay up to rounding, and
                there may be few free directions left; above 0 they stay approximately.
            free: names of parameters, or of modules, that old data does not read, such as the head
                of the next task. They stay free until they are watched.

        Returns:
            what is kept of each parameter.

        Raises:
            InputError: nothing was watched, `lost` is out of range, or a name in `free` does not
                exist or was read by the watched data.
        """
        if not self._watched:
            raise InputError("keep() needs data: run the model on it inside `with space.watch():`")
        if not 0 <= lost < 1:
            raise InputError(f"lost must be a share from 0 to below 1; got {lost!r}")
        parameters = dict(self.model.named_parameters())
        self._release(free, list(parameters))
        for name in parameters:
            uses = self._uses.get(name)
            if uses is None and name not in self._free:
                self._frozen.setdefault(name, "not seen")
            elif uses is not None and uses.other:
                self._frozen[name] = uses.other
        self._biases = {n: self._own_bias(n) for n, u in self._uses.items() if u.eps}
        for name in set(self._biases) - set(self._frozen):
            self._extend(name, self._uses[name], lost)
        paired = set(self._biases.values())
        for name, uses in self._uses.items():
            uses.factor = None
            if not (uses.eps or uses.rows is not None or name in paired):
                self._frozen.setdefault(name, "bias of several matrices, or of a frozen one")
        old = {**parameters, **dict(self.model.named_buffers())}
        self._old = {name: tensor.detach().clone() for name, tensor in old.items()}
        self._watched = False
        self.kept = tuple(self._row(name, p.numel()) for name, p in parameters.items())
        return self.kept

    @torch.no_grad()
    def project(self) -> None:
        """Take back the part of all changes since `keep` that would change old outputs. Call it
        after every step of an optimiser; before the first `keep` it does nothing.

        Raises:
            InputError: a parameter or a buffer has another shape than at `keep`.
        """
        now = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        for name, old in self._old.items():
            if name in now and now[name].shape != old.shape:
                raise InputError(
                    f"{name!r} has shape {tuple(now[name].shape)}, and had {tuple(old.shape)} at "
                    "keep(); add a module instead of changing the size of an old one"
                )
        buffers = set(now) - {name for name, _ in self.model.named_parameters()}
        for name, old in self._old.items():
            if name in self._frozen or name in buffers:
                now[name].copy_(old)
        for name, bias in self._biases.items():
            if name in now and name not in self._frozen:
                self._project(now, name, bias)
        for name, uses in self._uses.items():
            if name in now and uses.rows is not None:
                rows = uses.rows.to(now[name].device)
                now[name][rows] = self._old[name].to(now[name])[rows]

    def attach(self, optimiser: torch.optim.Optimizer) -> RemovableHandle:
        """Call `project` after every step of this optimiser, until `remove()` of the result."""
        return optimiser.register_step_post_hook(lambda *_: self.project())

    def _project(self, now: dict[str, Tensor], name: str, bias: str | None) -> None:
        weight, d = now[name], now[name].shape[1]
        wide = torch.promote_types(weight.dtype, torch.float32)
        change = weight.new_zeros(len(weight), d + 1, dtype=wide)
        old = {n: self._old[n].to(weight.device, wide) for n in (name, bias) if n is not None}
        change[:, :d] = weight - old[name]
        if bias is not None:
            change[:, d] = now[bias] - old[bias]
        basis = self._bases[name].to(weight.device, wide)
        change -= (change @ basis) @ basis.T
        weight.copy_(old[name] + change[:, :d])
        if bias is not None:
            now[bias].copy_(old[bias] + change[:, d])

    def _extend(self, name: str, uses: Uses, lost: float) -> None:
        """Add the directions of new features (x, 1) to those that are kept."""
        d = dict(self.model.named_parameters())[name].shape[1]
        like = torch.empty(0) if uses.factor is None else uses.factor
        basis = self._bases.get(name, like.new_zeros(d + 1, 0))
        if self._biases[name] is None:  # the direction of the bias is kept, so x is without it
            basis = _joined(basis, torch.eye(d + 1)[:, d:].to(basis))
        if uses.factor is not None:
            factor = uses.factor.clone()
            if self._biases[name] is None:
                factor[:, d] = 0
            basis = basis.to(factor)
            outside = factor - (factor @ basis) @ basis.T
            _, sizes, directions = torch.linalg.svd(outside, full_matrices=False)
            energy = sizes.square().flip(0).cumsum(0).flip(0)  # of a direction and all smaller ones
            total = factor.square().sum()
            real = sizes > (d + 1) * uses.eps * torch.linalg.matrix_norm(factor, 2)
            wanted = real & (energy > lost * total)
            basis = _joined(basis, directions[wanted].T)
            left = float(sizes[real & ~wanted].square().sum() / total.clamp(min=1e-300))
            self._lost[name] = max(self._lost.get(name, 0.0), left)
        self._bases[name] = basis

    def _own_bias(self, weight: str) -> str | None:
        """The bias that moves with a weight: one that no other matrix adds, and the only one."""
        partners = self._uses[weight].partners
        bias = next(iter(partners)) if len(partners) == 1 else ""
        if not bias or bias in self._frozen or weight in self._frozen:
            return None
        uses = self._uses[bias]
        alone = uses.partners == {weight} and not uses.eps and uses.rows is None
        return bias if alone else None

    def _release(self, free: Sequence[str], names: list[str]) -> None:
        """Check the names of `keep(free=...)` and release their parameters."""
        for asked in free:
            found = [n for n in names if n == asked or n.startswith(f"{asked}.")]
            if not found:
                raise InputError(f"there is no parameter or module {asked!r}; {near(asked, names)}")
            read = next((n for n in found if n in self._uses), None)
            if read is not None:
                raise InputError(f"{read!r} was read by the watched data, so it cannot be free")
            self._free.update(found)
            for name in found:
                self._frozen.pop(name, None)

    def _row(self, name: str, size: int) -> Kept:
        """What is kept of a parameter with this many numbers."""
        if name in self._frozen:
            return Kept(name, "frozen", self._frozen[name], size, size, 0.0)
        weight = next((w for w, bias in self._biases.items() if name in (w, bias)), None)
        if weight is not None:
            size, kept = self._bases[weight].shape
            fixed = int(self._biases[weight] is None)  # the direction of a bias that is not there
            lost = self._lost.get(weight, 0.0)
            return Kept(name, "projected", "", kept - fixed, size - fixed, lost)
        rows = self._uses[name].rows if name in self._uses else None
        if rows is not None:
            return Kept(name, "rows", "", int(rows.sum()), len(rows), 0.0)
        return Kept(name, "free", "", 0, size, 0.0)


def _joined(basis: Tensor, more: Tensor) -> Tensor:
    """An orthonormal basis (d, k) of both, where `more` may lie in part in the span of `basis`."""
    more = more - basis @ (basis.T @ more)
    more = more[:, torch.linalg.vector_norm(more, dim=0) > 1e-6]
    return torch.linalg.qr(torch.cat([basis, more], 1)).Q if more.shape[1] else basis
