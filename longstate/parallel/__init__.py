"""One sequence over several processes, by PyTorch's process groups."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
