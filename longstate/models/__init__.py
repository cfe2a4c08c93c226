"""Whole models: blocks of layers, a backbone, and what reads and writes the data's own units."""

from longstate.models._backbone import Backbone, layer_class
from longstate.models._block import Block
from longstate.models._decoding import prepare_for_decoding
from longstate.models._forecaster import Forecast, ForecastModel, Window
from longstate.models._generate import Generated, Piece, generate
from longstate.models._language import LanguageModel
from longstate.models._language_spec import LanguageSpec
from longstate.models._spec import ForecastSpec

__all__ = [
    "Backbone",
    "Block",
    "Forecast",
    "ForecastModel",
    "ForecastSpec",
    "Generated",
    "LanguageModel",
    "LanguageSpec",
    "Piece",
    "Window",
    "generate",
    "layer_class",
    "prepare_for_decoding",
]
