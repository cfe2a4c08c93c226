"""Whole models: blocks of layers, a backbone, and what reads and writes the data's own units."""

from longstate.models.backbone import Backbone, layer_class
from longstate.models.block import Block
from longstate.models.decoding import prepare_for_decoding
from longstate.models.forecaster import Forecast, ForecastModel, Window
from longstate.models.generate import Generated, Piece, generate
from longstate.models.language import LanguageModel
from longstate.models.language_spec import LanguageSpec
from longstate.models.spec import ForecastSpec

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
