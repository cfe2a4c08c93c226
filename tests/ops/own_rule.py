"""An example of a new recurrence, from the public parts of the engine: a rule and a reference.

    h_t = a_t h_{t-1} + x_t b_t
    y_t = c_t h_t

As `CONTRIBUTING.md` says: its tests are a line in the table of `test_every_scan.py`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import CHUNK, Rows, rows
from longstate.ops._numba.compiled import inlined, kernel
from longstate.ops._numba.rows import load, store
from longstate.ops._numba.scan import frame_of, rule, scan, scan_back
from longstate.ops._numba.tiles import LANES, by_group, row, workspace
from longstate.ops._op import register
from tests.ops.helpers import randn, uniform


class Tiles(NamedTuple):
    a: np.ndarray
    x: np.ndarray


class Kept(NamedTuple):
    before: np.ndarray


class Gradients(NamedTuple):
    a: Rows
    x: Rows
    b: np.ndarray
    c: np.ndarray


@rule()
class Leaky(NamedTuple):
    a: Rows
    x: Rows
    b: np.ndarray
    c: np.ndarray

    @kernel
    def tiles(rule):
        x = workspace(2, CHUNK, rule.b)
        return Tiles(x[0], x[1])

    @kernel
    def keep(rule):
        return Kept(workspace(1, CHUNK, rule.b)[0])

    @inlined
    def begin(rule, at, x, y):
        for t in range(at.here.shape[0]):
            for j in range(LANES):
                x.a[t, j], x.x[t, j], y[t, j] = 1, 0, 0
            if at.here[t]:
                a, given = row(rule.a, at, t), row(rule.x, at, t)
                for j in range(len(a)):
                    x.a[t, j], x.x[t, j] = load(a, j), load(given, j)

    @inlined
    def advance(rule, at, i, start, stop, x, h, y, kept):
        b, c = rule.b[at.b, at.first : at.last, 0, i], rule.c[at.b, at.first : at.last, 0, i]
        for t in range(start, stop):
            for j in range(LANES):
                if kept is not None:
                    kept.before[t, j] = h[j]
                h[j] = x.a[t, j] * h[j] + x.x[t, j] * b[t]
                y[t, j] += c[t] * h[j]

    @inlined
    def retreat(rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads):
        b, c = rule.b[at.b, at.first : at.last, 0, i], rule.c[at.b, at.first : at.last, 0, i]
        to_b, to_c = grads.b[at.w, at.b, at.first : at.last, i], grads.c[at.w, at.b, at.first :, i]
        for t in range(stop - 1, start - 1, -1):
            to_b[t], to_c[t] = 0, 0
            for j in range(LANES):
                g = grad_h[j] + c[t] * grad_y[t, j]
                to_b[t] += g * x.x[t, j]
                to_c[t] += grad_y[t, j] * (x.a[t, j] * kept.before[t, j] + x.x[t, j] * b[t])
                grad_x.a[t, j] += g * kept.before[t, j]
                grad_x.x[t, j] += g * b[t]
                grad_h[j] = g * x.a[t, j]

    @inlined
    def finish(rule, at, x, kept, grad_y, grad_x, grads):
        for t in range(at.here.shape[0]):
            to_a, to_x = row(grads.a, at, t), row(grads.x, at, t)
            for j in range(len(to_a)):
                store(to_a, j, grad_x.a[t, j] if at.here[t] else 0)
                store(to_x, j, grad_x.x[t, j] if at.here[t] else 0)


class Inputs(NamedTuple):
    a: Tensor
    x: Tensor
    b: Tensor
    c: Tensor
    h0: Tensor
    z: Tensor | None
    mask: Tensor | None
    reset: Tensor | None
    keep: bool
    impl: str


def prepared(s):
    made = Leaky(rows(s.a), rows(s.x), by_group(s.b, 1), by_group(s.c, 1))
    return made, frame_of(s.x, s.z, s.mask, s.reset)


def forward(s):
    return scan(*prepared(s), s.x, s.h0, s.keep)


def fake(s):
    (b, t, d), n = s.x.shape, s.b.shape[2]
    kept = s.x.new_empty(b, -(-t // CHUNK) if s.keep else 0, n, d)
    return s.x.new_empty(b, t, d), s.x.new_empty(b, d, n), kept


def backward(s, states, grad_y, grad_last):
    made, frame = prepared(s)
    to_a, to_x = s.a.new_empty(s.a.shape), s.x.new_empty(s.x.shape)
    to_b, to_c = s.b.new_empty(2, frame.per, *s.b.shape)
    grads = Gradients(rows(to_a), rows(to_x), to_b.numpy(), to_c.numpy())
    to_z, to_h0 = scan_back(made, frame, s.x, s.z, states, grad_y, grad_last, grads)
    return {"a": to_a, "x": to_x, "b": to_b.sum(0), "c": to_c.sum(0), "h0": to_h0, "z": to_z}


def reference(s):
    h, outputs = s.h0, []
    for t in range(s.x.shape[1]):
        if s.reset is not None:
            h = torch.where(s.reset[:, t, None, None], 0, h)
        following = s.a[:, t, :, None] * h + s.x[:, t, :, None] * s.b[:, t, None]
        y = (following * s.c[:, t, None]).sum(-1)
        y = y if s.z is None else y * torch.nn.functional.silu(s.z[:, t])
        if s.mask is not None:
            y = torch.where(s.mask[:, t, None], y, 0)
            following = torch.where(s.mask[:, t, None, None], following, h)
        h = following
        outputs.append(y)
    return torch.stack(outputs, 1), h


leaky = register(
    "leaky", Inputs, forward, fake, backward, reference, returns="y last", saves="states"
)


def call(impl, a, x, b, c, h0, z=None, mask=None, reset=None):
    if mask is not None:  # as every op does: what padding holds reaches no sum
        b, c = torch.where(mask[..., None], b, 0), torch.where(mask[..., None], c, 0)
    return leaky(Inputs(a, x, b, c, h0, z, mask, reset, False, impl))


def inputs(b=2, t=9, d=5, n=3, without=()):
    tensors = {
        "a": uniform(b, t, d, seed=1),
        "x": randn(b, t, d, seed=2),
        "b": randn(b, t, n, seed=3),
        "c": randn(b, t, n, seed=4),
        "h0": randn(b, d, n, seed=5),
        "z": randn(b, t, d, seed=6),
        "mask": uniform(b, t, seed=7) < 0.7,
        "reset": uniform(b, t, seed=8) < 0.1,
    }
    return {name: None if name in without else x for name, x in tensors.items()}
