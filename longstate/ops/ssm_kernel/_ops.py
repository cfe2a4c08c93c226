"""The three sums as PyTorch operators, with shapes for tracing and gradients.

`vandermonde` and `moments` are each other's adjoint, so each gives the other's gradient, to any
order. The bases `a`, the points `z` and the poles are in double precision here.

Axes: r rows, c columns that share a row's `a`, n state, t time, f points.
"""

import torch
from torch import Tensor


def _implementation(impl: str):
    if impl == "cpu":
        from longstate.ops.ssm_kernel import cpu

        return cpu
    from longstate.ops.ssm_kernel import triton

    return triton


@torch.library.custom_op("longstate::vandermonde", mutates_args=())
def vandermonde(w: Tensor, a: Tensor, length: int, impl: str) -> Tensor:
    """`w` (r, c, n), `a` (r, n) -> (r, c, t)."""
    return _implementation(impl).vandermonde(w, a, length)


@vandermonde.register_fake
def _(w, a, length, impl):
    return w.real.new_empty(*w.shape[:2], length)


@torch.library.custom_op("longstate::moments", mutates_args=())
def moments(u: Tensor, a: Tensor, impl: str) -> Tensor:
    """`u` (r, c, t), `a` (r, n) -> (r, c, n)."""
    return _implementation(impl).moments(u, a)


@moments.register_fake
def _(u, a, impl):
    return u.new_empty(*u.shape[:2], a.shape[1], dtype=_complex_dtype(u.dtype))


def _complex_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype == torch.float64 else torch.complex64


def _differentiated(u: Tensor) -> Tensor:
    """Inputs whose moments are the derivatives in `a`: l u_l a^{l-1}, with l - 1 as the new l."""
    lags = torch.arange(1, u.shape[-1], dtype=u.dtype, device=u.device)
    return torch.nn.functional.pad(u[..., 1:] * lags, (0, 1))


def _vandermonde_setup(ctx, inputs, output):
    w, a, _, ctx.impl = inputs
    ctx.save_for_backward(w, a)


def _vandermonde_backward(ctx, grad):
    w, a = ctx.saved_tensors
    if not ctx.needs_input_grad[1]:
        return moments(grad, a, ctx.impl).conj(), None, None, None
    both = moments(torch.cat([grad, _differentiated(grad)], dim=1), a, ctx.impl)
    of_w, of_a = both.chunk(2, dim=1)
    return of_w.conj(), (w * of_a).sum(1).conj().to(a.dtype), None, None


def _moments_setup(ctx, inputs, output):
    u, a, ctx.impl = inputs
    ctx.save_for_backward(u, a)


def _moments_backward(ctx, grad):
    u, a = ctx.saved_tensors
    of_u = of_a = None
    if ctx.needs_input_grad[0]:
        of_u = vandermonde(grad.conj(), a, u.shape[-1], ctx.impl)
    if ctx.needs_input_grad[1]:
        derivative = moments(_differentiated(u), a, ctx.impl)
        of_a = (grad * derivative.conj()).sum(1).to(a.dtype)
    return of_u, of_a, None


vandermonde.register_autograd(_vandermonde_backward, setup_context=_vandermonde_setup)
moments.register_autograd(_moments_backward, setup_context=_moments_setup)


@torch.library.custom_op("longstate::cauchy", mutates_args=())
def cauchy(v: Tensor, z: Tensor, poles: Tensor, impl: str) -> Tensor:
    """`v` (r, c, n), `z` (f), `poles` (r, n) -> (r, c, f)."""
    return _implementation(impl).cauchy(v, z, poles)


@cauchy.register_fake
def _(v, z, poles, impl):
    return v.new_empty(*v.shape[:2], z.shape[0])


@torch.library.custom_op("longstate::cauchy_backward", mutates_args=())
def cauchy_backward(
    v: Tensor, z: Tensor, poles: Tensor, grad: Tensor, impl: str
) -> tuple[Tensor, Tensor]:
    return _implementation(impl).cauchy_backward(v, z, poles, grad)


@cauchy_backward.register_fake
def _(v, z, poles, grad, impl):
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(poles)


def _cauchy_setup(ctx, inputs, output):
    *tensors, ctx.impl = inputs
    ctx.save_for_backward(*tensors)


def _cauchy_backward(ctx, grad):
    of_v, of_poles = cauchy_backward(*ctx.saved_tensors, grad, ctx.impl)
    return of_v, None, of_poles, None


cauchy.register_autograd(_cauchy_backward, setup_context=_cauchy_setup)
