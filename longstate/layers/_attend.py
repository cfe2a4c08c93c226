"""Attention over given queries, keys and values, with what PyTorch's fused kernel does not do.

That kernel has one derivative, and multiplies what a sample may not see by 0: a NaN comes through.
Second derivatives and transforms run plain matrix products here; and where a key or a value is not
finite, the samples that see it give NaN and no others.

Axes: b batch, h heads, t time of the queries, s time of the keys, p channels per head.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._transforms import can_look, is_finite, transformed


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(p)) v.

    Args:
        q (b, h, t, p), k (b, h, s, p), v (b, h, s, p): queries, keys, values.
        seen (b, t, s): bool, the samples that each one sees. None: those up to itself; s is t then.

    Returns:
        y (b, h, t, p).
    """
    if can_look():
        y = _product(q, k, v, seen)
        if is_finite(y):  # a sample sees itself, so that y would show it
            return y
    bad = ~(k.isfinite() & v.isfinite()).all(-1)  # b, h, s
    k, v = (x.masked_fill(bad[..., None], 0) for x in (k, v))
    if seen is None:
        reached = bad.cumsum(-1) > 0
    else:
        reached = bad.to(q.dtype) @ seen.to(q.dtype).mT > 0
    return _product(q, k, v, seen).masked_fill(reached[..., None], torch.nan)


def _product(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    if transformed((q, k, v)):
        return _plain(q, k, v, seen)
    mask = None if seen is None else seen[:, None]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=seen is None)
    if torch.compiler.is_compiling() or not y.requires_grad:
        return y
    return _TwiceDifferentiable.apply(y, q, k, v, seen)


def _plain(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    t = q.shape[2]
    if seen is None:
        seen = torch.ones(1, t, t, dtype=torch.bool, device=q.device).tril()
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~seen[:, None], -torch.inf)
    return scores.softmax(-1) @ v


class _TwiceDifferentiable(torch.autograd.Function):
    """y as it is. Where its gradient is to be differentiated, that is the plain form's."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, seen)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return grad, None, None, None, None
        q, k, v, seen = ctx.saved_tensors
        q, k, v = (
            x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in (q, k, v)
        )
        found = torch.autograd.grad(_plain(q, k, v, seen), (q, k, v), grad, create_graph=True)
        return None, *found, None
