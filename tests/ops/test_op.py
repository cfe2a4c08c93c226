"""The registration of ops: gradients, compilation, and the derivatives that kernels do not have."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from longstate.ops._choice import choose
from longstate.ops._layout import array, rows
from longstate.ops._op import register
from tests.ops.helpers import randn


class Scan(NamedTuple):
    """h_t = a_t h_{t-1} + x_t."""

    a: Tensor
    x: Tensor
    h0: Tensor | None
    flags: Tensor | None
    keep: bool
    impl: str


def reference(s):
    h, out = torch.zeros_like(s.x[:, 0]) if s.h0 is None else s.h0, []
    for t in range(s.x.shape[1]):
        h = s.a[:, t] * h + s.x[:, t]
        out.append(h)
    return torch.stack(out, 1), h.clone()


def forward(s):
    kept = s.a.new_ones(1) if s.keep else s.a.new_zeros(0)
    return *reference(s), kept


def fake(s):
    return s.x.new_empty(s.x.shape), s.x.new_empty(s.x[:, 0].shape), s.a.new_empty(int(s.keep))


def backward(s, h, kept, grad_h, grad_last):
    assert kept.shape == (1,)
    g = torch.zeros_like(h[:, 0]) if grad_last is None else grad_last.clone()
    to_a, to_x = torch.empty_like(h), torch.empty_like(h)
    for t in range(h.shape[1] - 1, -1, -1):
        g = g if grad_h is None else g + grad_h[:, t]
        before = h[:, t - 1] if t else torch.zeros_like(g) if s.h0 is None else s.h0
        to_x[:, t], to_a[:, t] = g, g * before
        g = g * s.a[:, t]
    return {"a": to_a, "x": to_x, "h0": g}


names = {"returns": "h last", "saves": "h kept"}
scan = register("toy", Scan, forward, fake, backward, reference, unsaved="x", **names)
bare = register("toy_bare", Scan, forward, fake, backward, **names)


def run(a, x, h0=None, flags=None):
    return scan(Scan(a, x, h0, flags, False, "cpu"))


def tensors():
    a, x, h0 = randn(2, 5, 3, seed=1), randn(2, 5, 3, seed=2), randn(2, 3, seed=3)
    return [v.requires_grad_() for v in (a, x, h0)]


@pytest.mark.parametrize("flags", [None, torch.ones(2, 5, dtype=torch.bool)])
def test_gradcheck_and_opcheck(flags):
    a, x, h0 = tensors()
    assert torch.autograd.gradcheck(lambda *v: run(*v, flags), (a, x, h0))
    assert torch.autograd.gradcheck(run, (a, x))
    torch.library.opcheck(scan.op, (a, x, h0, flags, True, "cpu"))
    torch.library.opcheck(scan.op, (a, x, None, flags, True, "cpu"))


def test_results_that_are_only_saved_are_not_returned():
    a, x, h0 = tensors()
    assert len(run(a, x, h0)) == 2
    assert len(scan.op(a, x, h0, None, True, "cpu")) == 3


def test_an_unsaved_input_takes_no_memory():
    a, x, _ = tensors()
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda v: shapes.append(v.untyped_storage().nbytes()) or v, lambda v: v
    ):
        run(a, x)
    assert sorted(shapes) == [8, 8, a.nbytes, a.nbytes]  # x and kept; a and h


def test_compiles_as_one_graph():
    a, x, h0 = tensors()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(run(a, x, h0)[0].sum(), (a, x, h0))
    found = torch.autograd.grad(compiled(a, x, h0)[0].sum(), (a, x, h0))
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=0, atol=0)


def test_forward_mode_and_transforms():
    a, x, _ = (v.detach() for v in tensors())
    v = randn(2, 5, 3, seed=4), randn(2, 5, 3, seed=5)

    def plain(a, x):
        return reference(Scan(a, x, None, None, False, "cpu"))[0]

    def op(a, x):
        return run(a, x)[0]

    expected = torch.func.jvp(plain, (a, x), v)[1]
    assert expected.abs().max() > 0
    torch.testing.assert_close(torch.func.jvp(op, (a, x), v)[1], expected)
    with forward_ad.dual_level():
        out = op(forward_ad.make_dual(a, v[0]), forward_ad.make_dual(x, v[1]))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, expected)
        assert forward_ad.unpack_dual(op(a, x)).tangent is None
    torch.testing.assert_close(torch.func.jacrev(op)(a, x), torch.func.jacrev(plain)(a, x))
    torch.testing.assert_close(torch.func.vmap(op)(a[None], x[None])[0], plain(a, x))


def test_without_a_reference_forward_mode_is_an_error():
    a, x, _ = (v.detach() for v in tensors())
    with pytest.raises(NotImplementedError, match="toy_bare has no form for forward-mode"):
        torch.func.jvp(lambda a: bare(Scan(a, x, None, None, False, "cpu"))[0], (a,), (a,))


def test_gradients_are_contiguous_however_a_backward_makes_them():
    """A compiled graph takes their strides for granted."""

    def turned(s, *rest):
        found = backward(s, *rest)
        return {k: v.mT.contiguous().mT if v.dim() == 3 else v for k, v in found.items()}

    op = register("toy_turned", Scan, forward, fake, turned, reference, **names)
    a, x, h0 = tensors()
    gradients = torch.autograd.grad(op(Scan(a, x, h0, None, False, "cpu"))[0].sum(), (a, x, h0))
    assert all(g.is_contiguous() for g in gradients)
    expected = torch.autograd.grad(run(a, x, h0)[0].sum(), (a, x, h0))
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)


def test_nothing_is_saved_without_gradients():
    kept = []

    def recording(s):
        kept.append(s.keep)
        return forward(s)

    op = register("toy_recording", Scan, recording, fake, backward, reference, **names)
    a, x, h0 = tensors()
    op(Scan(a, x, h0, None, False, "cpu"))
    op(Scan(a.detach(), x.detach(), h0, None, False, "cpu"))
    op(Scan(a.detach(), x.detach(), None, None, False, "cpu"))
    with torch.no_grad():
        op(Scan(a, x, h0, None, False, "cpu"))
    assert kept == [True, True, False, False]


@pytest.mark.parametrize("name", ["cpu", "triton"])
def test_a_named_implementation_is_refused_on_another_device(name, monkeypatch):
    monkeypatch.setattr("longstate.ops._choice.has_triton", lambda: True)
    elsewhere = SimpleNamespace(device=torch.device("xpu:1"))
    with pytest.raises(ValueError, match=f"impl='{name}' runs on .* the input is on xpu:1"):
        choose(name, elsewhere)
    assert choose("auto", elsewhere) == choose("reference", elsewhere) == "reference"


def test_a_lazy_negation_is_resolved_before_a_kernel_reads():
    x = randn(2, 3, 4)
    assert rows(torch._neg_view(x)).data.tolist() == (-x).flatten().tolist()
    assert array(torch._neg_view(x)).tolist() == (-x).tolist()
