"""Training: estimators for series and for text, their settings, one loop, evaluation."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
