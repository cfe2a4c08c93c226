"""Use names, checkpoints and models of other libraries with this library."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
