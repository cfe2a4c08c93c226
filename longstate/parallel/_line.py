"""Ranks in a line, each with the next piece of the sequence, and what they send to each other.

Every message is differentiable: its gradient travels the other way. All ranks must run the same
calls in the same order, forward and backward. Second derivatives are not available.
"""

from collections import deque
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

from longstate.errors import InputError


class Line:
    """The ranks of a mesh with one axis, in the order of time.

    Args:
        mesh: its rank 0 has the beginning of the sequence.

    Raises:
        InputError: the mesh has more than one axis.
    """

    def __init__(self, mesh: DeviceMesh):
        if mesh.ndim != 1:
            raise InputError(
                f"the mesh must have one axis, that of time; got {mesh.ndim}: pass one of them, "
                "such as mesh['time']"
            )
        self.group = mesh.get_group()
        self.rank, self.size = mesh.get_local_rank(), mesh.size()
        self._sent: deque[tuple[dist.Work, Tensor]] = deque()

    def put(self, tensors: Sequence[Tensor], by: int) -> None:
        """Send tensors to the rank `by` places to the right, if there is one, as one message. The
        call does not wait for that rank."""
        to = self.rank + by
        if not 0 <= to < self.size:
            return
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()
        message = torch.cat([_as_bytes(x) for x in tensors])
        work = dist.isend(message, group=self.group, group_dst=to)
        if work is not None:
            self._sent.append((work, message))  # the buffer has to live until it is sent

    def take(self, like: Sequence[Tensor], by: int) -> list[Tensor]:
        """Wait for the message of the rank `by` places to the left; zeros if there is none.

        Args:
            like: tensors of the shapes and types that are sent.
        """
        source = self.rank - by
        if not 0 <= source < self.size:
            return [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in like]
        sizes = [x.numel() * x.element_size() for x in like]
        message = torch.empty(sum(sizes), dtype=torch.uint8, device=like[0].device)
        dist.recv(message, group=self.group, group_src=source)
        return [_of_bytes(m, x) for m, x in zip(message.split(sizes), like, strict=True)]

    def move(self, by: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the rank `by` places to the left; zeros if there is none."""
        return _Move.apply(self, by, *tensors)

    def receive(self, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the left neighbour passes to `send`; on rank 0 the given tensors."""
        anchor = torch.zeros((), requires_grad=torch.is_grad_enabled())
        return _Receive.apply(self, anchor, *given)

    def send(self, y: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Pass tensors to the right neighbour.

        Args:
            y: anything that the loss depends on, so that the backward pass comes here.

        Returns:
            y and the tensors.
        """
        return _Send.apply(self, y, *tensors)

    def gather(self, x: Tensor) -> list[Tensor]:
        """The tensors of all ranks, in order. Only their axis 1 may differ."""
        sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(self.size)]
        dist.all_gather(sizes, sizes[0].new_tensor([x.shape[1]]), group=self.group)
        most = max(int(size) for size in sizes)
        missing = x.new_zeros(x.shape[0], most - x.shape[1], *x.shape[2:])
        every = _Gather.apply(self, torch.cat([x, missing], 1))
        return [part[:, : int(size)] for part, size in zip(every, sizes, strict=True)]


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx, line, by, *tensors):
        ctx.line, ctx.by = line, by
        line.put(tensors, by)
        return tuple(line.take(tensors, by))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        ctx.line.put(grads, -ctx.by)
        return None, None, *ctx.line.take(grads, -ctx.by)


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, line, anchor, *given):
        ctx.line = line
        if line.rank == 0:
            return tuple(x.view_as(x) for x in given)
        return tuple(line.take(given, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        ctx.line.put(grads, -1)
        if ctx.line.rank == 0:
            return None, None, *grads
        return None, None, *(None for _ in grads)


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx, line, y, *tensors):
        ctx.line = line
        line.put(tensors, 1)
        return y.view_as(y), *(x.view_as(x) for x in tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, y, *grads):
        later = ctx.line.take(grads, -1)
        return None, y, *(g + more for g, more in zip(grads, later, strict=True))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, line, x):
        ctx.line = line
        every = [torch.empty_like(x) for _ in range(line.size)]
        dist.all_gather(every, x.contiguous(), group=line.group)
        return tuple(every)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        total = torch.stack(grads)
        dist.all_reduce(total, group=ctx.line.group)
        return None, total[ctx.line.rank]


def _as_bytes(x: Tensor) -> Tensor:
    x = x.detach().resolve_conj().contiguous()
    return (torch.view_as_real(x) if x.is_complex() else x).reshape(-1).view(torch.uint8)


def _of_bytes(message: Tensor, like: Tensor) -> Tensor:
    return message.clone().view(like.dtype).view(like.shape)  # a copy begins at an aligned place
