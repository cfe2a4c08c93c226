from longstate.interop.mamba_ssm.scan import mamba_inner_fn as mamba_inner_fn
from longstate.interop.mamba_ssm.scan import mamba_inner_ref as mamba_inner_ref
from longstate.interop.mamba_ssm.scan import selective_scan_fn as selective_scan_fn
from longstate.interop.mamba_ssm.scan import selective_scan_ref as selective_scan_ref
