"""The forecaster with the interfaces of other forecasting libraries."""

from longstate._lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__)
