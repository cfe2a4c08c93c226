"""`accelerate_transformers()`: Mamba-family models of `transformers` with longstate's kernels.

The modeling files of transformers take their scans and convolutions from the packages `mamba_ssm`
and `causal_conv1d` if these can be imported, for tensors on any device, and use plain PyTorch
otherwise. All ten families call the same few functions, by their name in the modeling file. These
names are replaced here, and the `forward` of the Mamba-1 mixers, where the state of an earlier call
is available. Models, configs and weights are not changed, so existing models are accelerated too,
and `undo()` restores everything.

Supports transformers 5.15 to 5.23, and later versions whose modeling files still have these
functions; with those, mixers process single tokens with their own code, and a warning is given.
"""

import functools
import importlib
import importlib.util
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from longstate.interop import _transformers_ops as ops
from longstate.layers._base import full_precision
from longstate.ops._choice import has_triton

_Functions = dict[str, Callable[..., Any]]

_OF_ALL: _Functions = {
    "causal_conv1d_fn": ops.causal_conv1d_fn,
    "causal_conv1d_update": ops.causal_conv1d_update,
}
_OF_ZAMBA: _Functions = {
    **_OF_ALL,
    "mamba_selective_scan": ops.selective_scan_fn,
    "mamba_selective_state_update": ops.selective_state_update,
}
_OF_MAMBA: _Functions = {**_OF_ZAMBA, "mamba_inner_fn": ops.no_fused_layer}
_OF_MAMBA2: _Functions = {
    **_OF_ALL,
    "mamba2_chunk_scan": ops.chunk_scan_fn,
    "mamba2_selective_state_update": ops.selective_state_update,
    "mamba2_split_conv1d_scan_combined": ops.no_fused_layer,
}
_FUNCTIONS = {
    "mamba": _OF_MAMBA,
    "falcon_mamba": _OF_MAMBA,
    "jamba": _OF_MAMBA,
    "zamba": _OF_ZAMBA,
    "mamba2": _OF_MAMBA2,
    "bamba": _OF_MAMBA2,
    "zamba2": _OF_MAMBA2,
    "falcon_h1": _OF_MAMBA2,
    "granitemoehybrid": _OF_MAMBA2,
    "nemotron_h": _OF_MAMBA2,
}
_MAMBA1_MIXERS = {
    "mamba": "MambaMixer",
    "falcon_mamba": "FalconMambaMixer",
    "jamba": "JambaMambaMixer",
    "zamba": "ZambaMambaMixer",
}

_LAST_KNOWN = (5, 23)

_lock = threading.RLock()
_replaced: list[tuple[Any, str, Any]] = []
"""Owner, name and original of each replaced function; empty if nothing is replaced."""


class Acceleration:
    """The result of `accelerate_transformers()`: has `undo()`, and is a context manager.

    The end of the context undoes the changes of this call. If an earlier call is still active, this
    call has changed nothing.
    """

    def __init__(self) -> None:
        self._began = _begin()

    def undo(self) -> None:
        """Restore the originals, also those replaced by another call. It can be called twice."""
        _end()

    def __enter__(self) -> "Acceleration":
        self._began = _begin() or self._began
        return self

    def __exit__(self, *_: object) -> None:
        if self._began:
            self.undo()


def accelerate_transformers() -> Acceleration:
    """Run the Mamba-family models of `transformers` with longstate's kernels.

    Mamba, FalconMamba, Jamba, Zamba; Mamba-2, Bamba, Zamba2, FalconH1, GraniteMoeHybrid and
    Nemotron-H: training, prefill and decoding, of models created before and after this call. On a
    CPU always; on a CUDA device if Triton is installed and none of `mamba_ssm`, `causal_conv1d` and
    `kernels` is. On other devices, under `torch.export`, and for packed sequences (`seq_idx`),
    transformers' own code runs. Another call changes nothing.

    Outputs and gradients are those of transformers to 1e-5 of their largest value in float32. With
    bfloat16 they are closer to the exact values, because steps, decays and states are float32. One
    error is corrected: a Mamba-1 model (the first four) that reads its input in several pieces
    continues from the state in its cache, where transformers starts each piece of two or more
    tokens from zero. Gradients of gradients are not supported.

    Returns:
        A handle with `undo()`; as a context manager it undoes the changes of this call.

    Raises:
        ImportError: transformers is not installed, or its modeling files do not have what 5.15 to
            5.23 have. Nothing is changed then.
    """
    return Acceleration()


def _begin() -> bool:
    """Replace all functions, unless this has been done. Returns whether it was done now."""
    with _lock:
        if _replaced:
            return False
        replacements = list(_replacements())  # all are found before the first is replaced
        for owner, name, original, ours in replacements:
            _replaced.append((owner, name, original))
            setattr(owner, name, ours)
        return True


def _end() -> None:
    with _lock:
        while _replaced:
            owner, name, original = _replaced.pop()
            setattr(owner, name, original)


def _replacements() -> Iterator[tuple[Any, str, Any, Any]]:
    """Owner, name, original and replacement."""
    try:
        version = importlib.import_module("transformers").__version__
    except ModuleNotFoundError as missing:
        message = "accelerate_transformers() needs transformers: pip install 'longstate[hf]'"
        raise ImportError(message) from missing
    devices, known = _devices(), _is_known(version)
    try:
        exporting = importlib.import_module("transformers.utils.import_utils")
        for family, functions in _FUNCTIONS.items():
            module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
            for name, ours in functions.items():
                original = getattr(module, name)
                _check_arguments(name, original, ours)
                function = _on(devices, ours, original, exporting.is_torchdynamo_exporting)
                yield module, name, original, function
            if family in _MAMBA1_MIXERS:
                mixer = getattr(module, _MAMBA1_MIXERS[family])
                steps = known and family == "mamba"
                yield mixer, "forward", mixer.forward, _goes_on(mixer.forward, steps)
    except (ImportError, AttributeError) as different:
        raise ImportError(
            "accelerate_transformers() supports the modeling files of transformers 5.15 to 5.23; "
            f"{version} is installed, where {different}"
        ) from different


def _is_known(version: str) -> bool:
    """Whether the mixers of this version were checked: `mamba_step` replaces a whole mixer."""
    known = tuple(int(part) for part in version.split(".")[:2]) <= _LAST_KNOWN
    if not known:
        warnings.warn(
            f"transformers {version} is newer than this longstate supports: single tokens are less "
            "accelerated",
            stacklevel=6,
        )
    return known


def _check_arguments(name: str, original: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Raise unless `original` has the arguments of `ours`, in the same order."""

    def named(function: Callable[..., Any]) -> list[str]:
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    theirs, expected = named(original), named(ours)
    if theirs and theirs[: len(expected)] != expected:  # functions of `kernels` show no arguments
        raise ImportError(f"{name} takes {', '.join(theirs)}")


def _devices() -> tuple[str, ...]:
    """Devices with a kernel of longstate, but without an installed one for transformers."""
    theirs = any(map(_is_installed, ("mamba_ssm", "causal_conv1d", "kernels")))
    return ("cpu", "cuda") if has_triton() and not theirs else ("cpu",)


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _on(
    devices: tuple[str, ...],
    ours: Callable[..., Any],
    original: Callable[..., Any],
    exporting: Callable[[], bool],
) -> Callable[..., Any]:
    """`ours` on `devices`; `original` on others, and for calls that `ours` does not support."""

    def function(*args: Any, **options: Any) -> Any:
        x = args[0] if args else next(iter(options.values()))
        if x.device.type in devices and not exporting():
            if torch.is_autocast_enabled(x.device.type):
                with full_precision(x):
                    result = ours(*args, **options)
            else:
                result = ours(*args, **options)
            if result is not NotImplemented:
                return result
        return original(*args, **options)

    return functools.update_wrapper(function, original, updated=())


def _goes_on(forward: Callable[..., Any], steps: bool) -> Callable[..., Any]:
    """`forward` of a Mamba-1 mixer that continues from its cache; `mamba_step` for one token."""

    @functools.wraps(forward)
    def function(
        self: Any,
        hidden_states: torch.Tensor,
        cache_params: Any = None,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> Any:
        arguments = (self, hidden_states, cache_params, attention_mask)
        if cache_params is None or not cache_params.has_previous_state(self.layer_idx):
            return forward(*arguments, **options)
        cache = cache_params.layers[self.layer_idx]
        conv_state, state = cache.conv_states[0], cache.recurrent_states[0]
        if hidden_states.shape[1] > 1:
            with ops.beginning_with(state):
                return forward(*arguments, **options)
        if steps and attention_mask is None and not cache.record_past:
            result = ops.mamba_step(self, hidden_states, conv_state, state)
            if result is not NotImplemented:
                return result
        return forward(*arguments, **options)

    return function
