"""Which implementation of an op runs. The operation is mathematics; this is the only choice."""

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
    return True  # built by hand


def choose(impl: str, x: Tensor) -> str:
    """Name of the implementation to run on `x`.

    Args:
        impl: "auto" picks by the device of `x`; any other name is taken at its word.
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


def choose_for_length(impl: str, x: Tensor, *others: Tensor | None, flags: bool = False) -> str:
    """`choose`, for ops over time (b, t, ...) whose kernels take longer to call than a step to do.

    Under "auto", one step on a CPU is "step", a small kernel of its own, or the reference where
    that cannot run: `flags` (masks, resets), gradients, compilation.
    """
    if impl == "auto" and x.device.type == "cpu" and x.shape[1] == 1:
        return "step" if not flags and plain(x, *others) else "reference"
    return choose(impl, x)


def plain(x: Tensor, *others: Tensor | None) -> bool:
    """Whether a kernel may read these tensors from memory, behind PyTorch's back.

    PyTorch takes longer to call a custom op than a small kernel takes to run. So the kernel is
    called directly where nobody would notice: on CPU tensors, when no gradient is asked for, and
    when nothing traces, compiles, records or profiles the call.
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
