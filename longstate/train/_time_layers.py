"""Which layers take the time between samples."""

from collections.abc import Sequence

from longstate.errors import InputError
from longstate.models import make_layer
from longstate.models._layer_names import every_layer
from longstate.models._series import SeriesModel


def layers_with_time() -> list[str]:
    """The names of the layers that take the time between samples."""
    found = []
    for name in sorted(every_layer()):
        try:
            found += [] if layers_without_time((name,)) else [name]
        except InputError:
            continue  # a class around another layer
    return found


def layers_without_time(names: Sequence[str]) -> list[str]:
    """Those of these layers that take no time between samples."""
    return [n for n in names if not SeriesModel(1, 1, [make_layer(n, 64)]).takes_time]


def no_time(layers: Sequence[str]) -> InputError:
    """The error if stamps are to be read by layers of which one takes no time."""
    return InputError(
        f"layers={','.join(dict.fromkeys(layers))!r} cannot read stamps, because a layer takes no "
        f"time between samples; use one of: {', '.join(layers_with_time())}"
    )
