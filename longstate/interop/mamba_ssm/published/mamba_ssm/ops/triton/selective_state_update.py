from longstate.interop.mamba_ssm.state_update import (
    selective_state_update as selective_state_update,
)
from longstate.interop.mamba_ssm.state_update import (
    selective_state_update_ref as selective_state_update_ref,
)
