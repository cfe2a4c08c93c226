"""Smaller states for trained models. Joins what `memory` computes with the layers of a model.

`longstate.memory` says what a state can do without, from systems and recorded data; layers make a
copy of themselves with a smaller state. Here both meet, for single layers and for whole models.
"""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
