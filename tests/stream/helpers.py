"""Modules with unusual states, and helpers of the tests of states."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from longstate.layers import S4D, S5, Mamba, Mamba2
from longstate.models import Stack


class Pair(NamedTuple):
    left: object
    right: object


class Odd(nn.Module):
    """Its state has every kind of node, and tensors of every sort."""

    def __init__(self, kept=torch.bfloat16):
        super().__init__()
        self.kept = kept
        self.weight = nn.Parameter(torch.ones(3))

    def init_state(self, batch):
        dtypes = (self.kept, torch.complex64, torch.complex128, torch.float64, torch.bool)
        a, b, c, d, e = (torch.zeros(batch, 2, dtype=x) for x in dtypes)
        return [Pair(a, (b, None)), {"x": c, "y": [d, ()]}, e, torch.zeros(batch, 0)]


class TokenModel(nn.Module):
    """A module like a language model: it takes tokens, and has no step and no options."""

    def __init__(self, vocabulary=7, d_model=4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        mixers = [Mamba2(d_model, d_state=3, d_head=2), S4D(d_model, d_state=4)]
        self.backbone = Stack(mixers)

    def init_state(self, batch):
        return self.backbone.init_state(batch)

    def forward(self, tokens, state=None):
        y, state = self.backbone(self.embedding(tokens), state)
        return y @ self.embedding.weight.T, state


def backbone(depth=2):
    mixers = [Mamba(4, d_state=3), S5(4, d_state=6), S4D(4, d_state=4)]
    return Stack(mixers[:depth])


def values(module, batch=2, seed=0):
    """A state of `module` with numbers in it."""
    generator = torch.Generator().manual_seed(seed)

    def random(t):
        dtype = torch.complex128 if t.is_complex() else torch.float64
        return torch.randn(t.shape, dtype=dtype, generator=generator).to(t.dtype)

    return tree_map(lambda t: t if t is None else random(t), module.init_state(batch))


def assert_same(actual, expected):
    torch.testing.assert_close(tensors(actual), tensors(expected), rtol=0, atol=0)


def tensors(state):
    return [t for t in tree_leaves(state) if t is not None]
