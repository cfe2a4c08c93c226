"""State space sequence models that run anywhere PyTorch runs, and show what they remember."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from longstate.train.forecast import Forecaster

__all__ = ["Forecaster"]


def __getattr__(name: str) -> Any:
    """Public names load what they need on first use, so that `import longstate` costs nothing."""
    if name == "Forecaster":
        from longstate.train.forecast import Forecaster

        return Forecaster
    raise AttributeError(f"module 'longstate' has no attribute {name!r}")
