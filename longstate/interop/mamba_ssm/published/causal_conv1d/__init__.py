"""The names of `causal-conv1d`, computed by longstate."""

from longstate.interop.mamba_ssm.convolution import causal_conv1d_fn as causal_conv1d_fn
from longstate.interop.mamba_ssm.convolution import causal_conv1d_update as causal_conv1d_update

__version__ = "1.7.0+longstate"
