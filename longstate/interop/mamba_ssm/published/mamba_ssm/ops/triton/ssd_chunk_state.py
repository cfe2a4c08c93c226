from longstate.interop.mamba_ssm.ssd_stages import _chunk_cumsum_fwd as _chunk_cumsum_fwd
from longstate.interop.mamba_ssm.ssd_stages import _chunk_state_fwd as _chunk_state_fwd
from longstate.interop.mamba_ssm.ssd_stages import chunk_state as chunk_state
from longstate.interop.mamba_ssm.ssd_stages import chunk_state_varlen as chunk_state_varlen

chunk_state_ref = chunk_state
