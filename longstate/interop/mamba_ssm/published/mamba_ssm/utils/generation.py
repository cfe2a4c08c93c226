from longstate.interop.mamba_ssm.cache import InferenceParams as InferenceParams
