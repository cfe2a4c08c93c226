from longstate.interop.mamba_ssm.convolution import (
    causal_conv1d_varlen_states as causal_conv1d_varlen_states,
)
from longstate.interop.mamba_ssm.convolution import (
    causal_conv1d_varlen_states_ref as causal_conv1d_varlen_states_ref,
)
