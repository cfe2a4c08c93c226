"""Public checks for people who write layers and kernels."""

from longstate._lazy import public as _public
from longstate.testing._layer import check_layer as check_layer
from longstate.testing._precision import (
    assert_within_reference_error as assert_within_reference_error,
)


def __dir__() -> list[str]:
    return _public(globals())
