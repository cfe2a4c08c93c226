"""State space sequence models that run anywhere PyTorch runs, and show what they remember.

Public names are listed in `__init__.pyi`. Each is imported on first use, so that
`import longstate` is fast.
"""

from longstate._lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(__name__)
