from longstate.interop.mamba_ssm.split_conv import (
    mamba_split_conv1d_scan_combined as mamba_split_conv1d_scan_combined,
)
from longstate.interop.mamba_ssm.split_conv import (
    mamba_split_conv1d_scan_ref as mamba_split_conv1d_scan_ref,
)
from longstate.interop.mamba_ssm.ssd import mamba_chunk_scan as mamba_chunk_scan
from longstate.interop.mamba_ssm.ssd import mamba_chunk_scan_combined as mamba_chunk_scan_combined
from longstate.interop.mamba_ssm.ssd import (
    ssd_chunk_scan_combined_ref as ssd_chunk_scan_combined_ref,
)
from longstate.interop.mamba_ssm.ssd import ssd_selective_scan as ssd_selective_scan
