"""Other libraries' names, checkpoints and models, run by this library."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longstate.interop._transformers_config import LongstateConfig
    from longstate.interop._transformers_model import LongstateForCausalLM, register_transformers
    from longstate.interop._transformers_patch import Acceleration, accelerate_transformers
    from longstate.interop.checkpoints import load_language_model, save_language_model
    from longstate.interop.mamba_ssm.provide import provide_mamba_ssm

__all__ = [
    "Acceleration",
    "LongstateConfig",
    "LongstateForCausalLM",
    "accelerate_transformers",
    "load_language_model",
    "provide_mamba_ssm",
    "register_transformers",
    "save_language_model",
]

_HOME = {
    "Acceleration": "longstate.interop._transformers_patch",
    "LongstateConfig": "longstate.interop._transformers_config",
    "LongstateForCausalLM": "longstate.interop._transformers_model",
    "accelerate_transformers": "longstate.interop._transformers_patch",
    "load_language_model": "longstate.interop.checkpoints",
    "provide_mamba_ssm": "longstate.interop.mamba_ssm.provide",
    "register_transformers": "longstate.interop._transformers_model",
    "save_language_model": "longstate.interop.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Public names load what they need on first use."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'longstate.interop' has no attribute {name!r}")
