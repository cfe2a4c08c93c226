"""Learning tasks one after another: old outputs that stay, and new classes from a few examples."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
