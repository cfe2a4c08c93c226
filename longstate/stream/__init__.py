"""Process samples, tokens or rows as they arrive; save, copy and combine states."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
