"""The published norms against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop.mamba_ssm import gated_norm, residual_norm
from longstate.interop.mamba_ssm.references import rms_norm_ref
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import assert_equals_reference, randn


def gated(impl, x, weight, bias=None, z=None, size=4, first=True, rms=True):
    options = {"eps": 0.1, "group_size": size, "norm_before_gate": first}
    if impl == "fn" and rms:
        return (gated_norm.rmsnorm_fn(x, weight, bias, z, **options),)
    if impl == "fn":
        return (gated_norm.layernorm_fn(x, weight, bias, z, **options),)
    if z is not None and not first:
        x = x * F.silu(z)
    v = x.unflatten(-1, (-1, size or x.shape[-1]))
    shape = (v.shape[-1],)
    v = F.rms_norm(v, shape, eps=0.1) if rms else F.layer_norm(v, shape, eps=0.1)
    y = v.flatten(-2) * weight + (0 if bias is None else bias)
    return (y * F.silu(z) if z is not None and first else y,)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("size", [None, 4])
def test_gated_norm_is_pytorchs_with_gradients(rms, first, size):
    tensors = {"x": randn(2, 3, 8, seed=1), "weight": randn(8, seed=2)}
    more = {"bias": randn(8, seed=3), "z": randn(2, 3, 8, seed=4)}

    def call(impl, **tensors):
        return gated(impl, **tensors, size=size, first=first, rms=rms)

    assert_equals_reference(call, "fn", tensors)
    assert_equals_reference(call, "fn", tensors | more)


def test_gated_modules():
    x, z = randn(2, 3, 8, seed=1).bfloat16(), randn(2, 3, 8, seed=2).bfloat16()
    for module, rms in ((gated_norm.RMSNorm, True), (gated_norm.LayerNorm, False)):
        norm = module(8, eps=0.1, group_size=4, norm_before_gate=False, dtype=torch.float32)
        assert list(norm.state_dict()) == (["weight"] if rms else ["weight", "bias"])
        exact, plain = (
            gated("reference", x.to(t), norm.weight.to(t), None, z.to(t), first=False, rms=rms)[0]
            for t in (torch.float64, torch.float32)
        )
        assert_within_reference_error(norm(x, z), exact, plain.bfloat16())
    narrow = rms_norm_ref(x, torch.ones(8), None, upcast=False)
    assert narrow.dtype == torch.bfloat16
    assert not torch.equal(narrow, rms_norm_ref(x, torch.ones(8), None))


def residual(impl, x, weight, bias=None, residual=None, rms=True):
    if impl == "fn":
        function = residual_norm.rms_norm_fn if rms else residual_norm.layer_norm_fn
        return function(x, weight, bias, residual, eps=0.1, prenorm=True)
    v = x if residual is None else x + residual
    y = F.rms_norm(v, (8,), eps=0.1) if rms else F.layer_norm(v, (8,), eps=0.1)
    return y * weight + (0 if bias is None else bias), v


@pytest.mark.parametrize("rms", [False, True])
def test_residual_norm_is_pytorchs_with_gradients(rms):
    tensors = {"x": randn(2, 3, 8, seed=1), "weight": randn(8, seed=2)}
    more = {"bias": randn(8, seed=3), "residual": randn(2, 3, 8, seed=4)}

    def call(impl, **tensors):
        return residual(impl, **tensors, rms=rms)

    assert_equals_reference(call, "fn", tensors)
    assert_equals_reference(call, "fn", tensors | more)


def test_residual_module_and_types():
    norm, x = residual_norm.RMSNorm(8, dtype=torch.bfloat16), randn(2, 8).bfloat16()
    assert list(norm.state_dict()) == ["weight"]
    assert norm(x).dtype == torch.bfloat16
    for given, wide, kept in (
        (None, False, torch.bfloat16),
        (None, True, torch.float32),
        (x.float(), False, torch.float32),
        (x, True, torch.bfloat16),
    ):
        y, total = norm(x, given, prenorm=True, residual_in_fp32=wide)
        assert (y.dtype, total.dtype) == (torch.bfloat16, kept)
        assert_close(total.float(), x.float() * (1 if given is None else 2))


def test_refusals():
    x, weight = randn(2, 8), torch.ones(8)
    with pytest.raises(InputError, match="group_size must divide 8; got 3"):
        gated_norm.rmsnorm_fn(x, weight, None, group_size=3)
    with pytest.raises(InputError, match=r"z must be \(2, 8\)"):
        gated_norm.rmsnorm_fn(x, weight, None, z=x[:1])
    with pytest.raises(InputError, match=r"weight must be \(8,\)"):
        residual_norm.rms_norm_fn(x, weight[:4], None)
    with pytest.raises(InputError, match="residual must be"):
        residual_norm.rms_norm_fn(x, weight, None, x[:1])
    for option in (
        {"x1": x}, {"weight1": weight}, {"bias1": weight}, {"dropout_p": 0.1},
        {"rowscale": weight}, {"return_dropout_mask": True},
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{next(iter(option))} is not supported"):
            residual_norm.layer_norm_fn(x, weight, None, **option)
    with pytest.raises(InputError, match="dropout_p is not supported"):
        residual_norm.RMSNorm(8, dropout_p=0.1)
