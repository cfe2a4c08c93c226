"""The names of `mamba-ssm`, computed by longstate."""

from longstate.interop.mamba_ssm.mamba import Mamba as Mamba
from longstate.interop.mamba_ssm.mamba2 import Mamba2 as Mamba2
from longstate.interop.mamba_ssm.scan import mamba_inner_fn as mamba_inner_fn
from longstate.interop.mamba_ssm.scan import selective_scan_fn as selective_scan_fn

__version__ = "2.3.2+longstate"
