"""Which implementation of an op runs."""

import importlib.util
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from longstate.errors import expect as expect
from longstate.ops._transforms import in_transform

IMPLEMENTATIONS = ("auto", "reference", "cpu", "triton")


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether there is a Triton whose kernels take named tuples: 3.3 or later."""
    if importlib.util.find_spec("triton") is None:
        return False
    for package in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        try:
            return tuple(int(part) for part in version(package).split(".")[:2]) >= (3, 3)
        except PackageNotFoundError:
            continue
    return True  # built from source, without package metadata


def choose(impl: str, x: Tensor) -> str:
    """Name of the implementation to run on `x`.

    Args:
        impl: "auto" chooses by the device of `x`; any other name is used as it is.
        x: the main input.

    Raises:
        ValueError: `impl` is not a name, or cannot run on the device of `x`. A named
            implementation never falls back to another.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
    device = x.device.type
    if impl == "auto":
        if device == "cpu":
            return "cpu"
        return "triton" if device == "cuda" and has_triton() else "reference"
    if impl == "cpu" and device not in ("cpu", "meta"):
        raise ValueError(f"impl='cpu' runs on CPU tensors; the input is on {x.device}")
    if impl == "triton":
        if not has_triton():
            raise ValueError("impl='triton' needs triton 3.3 or later: pip install longstate[gpu]")
        if device != "cuda" and not _interpreting():
            raise ValueError(f"impl='triton' runs on CUDA tensors; the input is on {x.device}")
    return impl


def choose_for_length(
    impl: str, x: Tensor, *others: Tensor | None, flags: bool = False, few: int = 1
) -> str:
    """`choose`, for ops over time (b, t, ...) with a separate kernel for at most `few` steps.

    Under "auto", so few steps on a CPU run this kernel, "step", which has less overhead. With
    `flags` (a mask or a reset), with gradients or under compilation, one step runs the reference.
    """
    if impl == "auto" and x.device.type == "cpu" and x.shape[1] <= few:
        if not flags and plain(x, *others):
            return "step"
        if x.shape[1] == 1:
            return "reference"
    return choose(impl, x)


def plain(x: Tensor, *others: Tensor | None) -> bool:
    """Whether a kernel may be called directly on these tensors, and not as a custom op.

    The call of a custom op takes longer than a small kernel. PyTorch needs it only for tensors of
    other devices, for gradients, and when it traces, compiles, records or profiles the call.
    """
    if x.device.type != "cpu" or type(x) not in (Tensor, Parameter):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or forward_ad._current_level >= 0:
        return False
    if in_transform() or torch._C._len_torch_dispatch_stack() or torch.autograd._profiler_enabled():
        return False
    if not torch.is_grad_enabled():
        return True
    return not (x.requires_grad or any(v is not None and v.requires_grad for v in others))


def _interpreting() -> bool:
    """Triton's own interpreter runs kernels on CPU tensors, for tests."""
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"


def shape_of(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
