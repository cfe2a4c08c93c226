"""Other libraries' names, checkpoints and models, run by this library."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
