"""Reports of results as self-contained HTML pages."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
