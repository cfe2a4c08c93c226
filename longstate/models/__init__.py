"""Whole models: stacks of layers, a forecaster and a language model."""

from longstate._lazy import public as _public
from longstate.models._block import Block
from longstate.models._calendar import Calendar
from longstate.models._decoding import prepare_for_decoding
from longstate.models._forecaster import ForecastModel
from longstate.models._generate import Generated, Piece, generate, pieces
from longstate.models._language import LanguageModel
from longstate.models._language_spec import LanguageSpec
from longstate.models._layer_names import layer_class, make_layer
from longstate.models._line import Forecast, Window
from longstate.models._saving import load_layer, save_layer
from longstate.models._spec import ForecastSpec
from longstate.models._stack import Stack, repeat

__all__ = [
    "Block",
    "Calendar",
    "Forecast",
    "ForecastModel",
    "ForecastSpec",
    "Generated",
    "LanguageModel",
    "LanguageSpec",
    "Piece",
    "Stack",
    "Window",
    "generate",
    "layer_class",
    "load_layer",
    "make_layer",
    "pieces",
    "prepare_for_decoding",
    "repeat",
    "save_layer",
]


def __dir__() -> list[str]:
    return _public(globals())
