from longstate.interop.mamba_ssm.ssd_stages import _state_passing_fwd as _state_passing_fwd
from longstate.interop.mamba_ssm.ssd_stages import state_passing as state_passing

state_passing_ref = state_passing
