from longstate.interop.mamba_ssm.mamba2 import Mamba2 as Mamba2
