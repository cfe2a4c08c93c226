"""Results as something to read: one self-contained HTML page."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
