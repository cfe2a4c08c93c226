"""Layers that mix along time, one file per paper, all under one contract (`Layer`)."""

from longstate.layers.base import Layer as Layer
