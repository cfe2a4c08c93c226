"""Smaller states for trained models: fewer states, fewer bits, or a few bytes on disk.

`longstate.memory` computes from systems and recorded data which part of a state is not needed.
Layers return a copy of themselves with a smaller state. This package applies both to single layers
and to whole models.
"""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
