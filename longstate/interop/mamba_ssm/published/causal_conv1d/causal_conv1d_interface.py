from longstate.interop.mamba_ssm.convolution import causal_conv1d_fn as causal_conv1d_fn
from longstate.interop.mamba_ssm.convolution import causal_conv1d_ref as causal_conv1d_ref
from longstate.interop.mamba_ssm.convolution import causal_conv1d_update as causal_conv1d_update
from longstate.interop.mamba_ssm.convolution import (
    causal_conv1d_update_ref as causal_conv1d_update_ref,
)
