from longstate.interop.mamba_ssm.gated_norm import LayerNorm as LayerNorm
from longstate.interop.mamba_ssm.gated_norm import RMSNorm as RMSNorm
from longstate.interop.mamba_ssm.gated_norm import layernorm_fn as layernorm_fn
from longstate.interop.mamba_ssm.gated_norm import rms_norm_ref as rms_norm_ref
from longstate.interop.mamba_ssm.gated_norm import rmsnorm_fn as rmsnorm_fn
