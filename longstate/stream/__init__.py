"""Samples, tokens or rows as they come, and the state between them as data."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
