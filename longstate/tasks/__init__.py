"""Small tasks that need memory, with exact oracles; and a screen of layers on them.

`longstate tasks list` shows them, `longstate tasks run` trains small models with any layer.
"""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
