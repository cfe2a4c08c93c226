from longstate.interop.mamba_ssm.residual_norm import RMSNorm as RMSNorm
from longstate.interop.mamba_ssm.residual_norm import layer_norm_fn as layer_norm_fn
from longstate.interop.mamba_ssm.residual_norm import rms_norm_fn as rms_norm_fn
