from longstate.interop.mamba_ssm.mamba import Mamba as Mamba
