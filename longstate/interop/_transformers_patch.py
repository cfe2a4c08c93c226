"""`accelerate_transformers()`: the Mamba-family models of `transformers` on our kernels.

The modeling files of transformers take their scans and convolutions from the packages `mamba_ssm`
and `causal_conv1d` when these can be imported, whatever the device of the tensors, and are plain
PyTorch otherwise. All ten families call the same few functions, by their name in the modeling file.
Those names are what is replaced here, and the `forward` of the Mamba-1 mixers, where the state of
an earlier call is seen. No model, config or weight is touched, so that models which exist already
are accelerated too, and `undo()` leaves nothing behind.

Supports transformers 5.15 to 5.23, and later ones whose modeling files still have these functions;
with those, a mixer is left to take single tokens in its own way, and a warning says so.
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
"""Owner, name and original of everything that is replaced now; empty when nothing is."""


class Acceleration:
    """What `accelerate_transformers()` returns: a way back, and a context manager.

    Leaving the context undoes what this call has done: nothing, where an earlier one still holds.
    """

    def __init__(self) -> None:
        self._began = _begin()

    def undo(self) -> None:
        """Put everything back that is in place now, whichever call did it. Harmless twice."""
        _end()

    def __enter__(self) -> "Acceleration":
        self._began = _begin() or self._began
        return self

    def __exit__(self, *_: object) -> None:
        if self._began:
            self.undo()


def accelerate_transformers() -> Acceleration:
    """Run the Mamba-family models of `transformers` on our kernels, from now on.

    Mamba, FalconMamba, Jamba, Zamba; Mamba-2, Bamba, Zamba2, FalconH1, GraniteMoeHybrid and
    Nemotron-H: training, prefill and decoding, of models made before and after this call. On a CPU
    always; on a CUDA device if Triton is installed and none of `mamba_ssm`, `causal_conv1d` and
    `kernels` is. Elsewhere, under `torch.export`, and for packed sequences (`seq_idx`),
    transformers' own code runs. Calling it again changes nothing.

    Outputs and gradients are those of transformers to 1e-5 of their largest value in float32. With
    bfloat16 they come nearer to the exact ones, because steps, decays and states are float32. One
    thing is mended: a Mamba-1 model (the first four) that reads its input in several pieces goes on
    from the state in its cache, where transformers begins each piece of two tokens or more at zero.
    One is lost: gradients of gradients.

    Returns:
        A handle with `undo()`; as a context manager it undoes what this call has done.

    Raises:
        ImportError: transformers is not installed, or its modeling files do not have what 5.15 to
            5.23 have. Nothing is changed then.
    """
    return Acceleration()


def _begin() -> bool:
    """Replace everything, unless that is so already. Returns whether it was done now."""
    with _lock:
        if _replaced:
            return False
        replacements = list(_replacements())  # all of them are found before one is put in place
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
            "accelerate_transformers() knows the modeling files of transformers 5.15 to 5.23; "
            f"{version} is installed, where {different}"
        ) from different


def _is_known(version: str) -> bool:
    """Whether we have read this version's mixers, which a step of our own stands for as a whole."""
    known = tuple(int(part) for part in version.split(".")[:2]) <= _LAST_KNOWN
    if not known:
        warnings.warn(
            f"transformers {version} is newer than this longstate knows: single tokens are less "
            "accelerated",
            stacklevel=6,
        )
    return known


def _check_arguments(name: str, original: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Raise unless `original` takes, in this order, what `ours` takes."""

    def named(function: Callable[..., Any]) -> list[str]:
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    theirs, expected = named(original), named(ours)
    if theirs and theirs[: len(expected)] != expected:  # none are seen through `kernels`
        raise ImportError(f"{name} takes {', '.join(theirs)}")


def _devices() -> tuple[str, ...]:
    """Where we have a kernel, and transformers, with what is installed, has none."""
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
    """`ours` on `devices`, `original` everywhere else and where ours does not cover the call."""

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
    """`forward` of a Mamba-1 mixer that begins where its cache ends, and with a step of its own."""

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
