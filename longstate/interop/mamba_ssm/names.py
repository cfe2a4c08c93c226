"""The published modules and names: where each is implemented, and which are not provided."""

VERSIONS = {"mamba_ssm": "2.3.2+longstate", "causal_conv1d": "1.7.0+longstate"}

NAMES = {
    "mamba_ssm": {
        "mamba": "Mamba",
        "mamba2": "Mamba2",
        "mamba3": "Mamba3",
        "language_model": "MambaLMHeadModel",
        "scan": "mamba_inner_fn selective_scan_fn",
    },
    "mamba_ssm.models.config_mamba": {"language_model": "MambaConfig"},
    "mamba_ssm.models.mixer_seq_simple": {
        "block": "create_block",
        "language_model": "MambaLMHeadModel MixerModel",
    },
    "mamba_ssm.modules.block": {"block": "Block"},
    "mamba_ssm.modules.mamba_simple": {"block": "Block", "mamba": "Mamba"},
    "mamba_ssm.modules.mamba2": {"mamba2": "Mamba2"},
    "mamba_ssm.modules.mamba2_simple": {"mamba2_simple": "Mamba2Simple"},
    "mamba_ssm.modules.mamba3": {"mamba3": "Mamba3"},
    "mamba_ssm.modules.mha": {"mha": "MHA"},
    "mamba_ssm.modules.mlp": {"block": "GatedMLP"},
    "mamba_ssm.modules.ssd_minimal": {"references": "segsum ssd_minimal_discrete"},
    "mamba_ssm.ops.selective_scan_interface": {
        "functions": "MambaInnerFn SelectiveScanFn",
        "references": "mamba_inner_ref",
        "scan": "mamba_inner_fn mamba_inner_fn_no_out_proj selective_scan_fn selective_scan_ref",
    },
    "mamba_ssm.ops.triton.layer_norm": {
        "residual_norm": "RMSNorm layer_norm_fn rms_norm_fn",
        "references": "layer_norm_ref residual_rms_norm_ref=rms_norm_ref",
    },
    "mamba_ssm.ops.triton.layernorm_gated": {
        "gated_norm": "LayerNorm RMSNorm layernorm_fn rmsnorm_fn",
        "references": "rms_norm_ref",
    },
    "mamba_ssm.ops.triton.selective_state_update": {
        "state_update": "selective_state_update selective_state_update_ref",
    },
    "mamba_ssm.ops.triton.ssd_chunk_scan": {
        "ssd_stages": "chunk_scan",
        "references": "chunk_scan_ref",
    },
    "mamba_ssm.ops.triton.ssd_chunk_state": {
        "ssd_stages": "_chunk_cumsum_fwd _chunk_state_fwd chunk_state chunk_state_varlen",
        "references": "chunk_state_ref",
    },
    "mamba_ssm.ops.triton.ssd_combined": {
        "split_conv": "mamba_split_conv1d_scan_combined mamba_split_conv1d_scan_ref",
        "ssd": "mamba_chunk_scan mamba_chunk_scan_combined ssd_chunk_scan_combined_ref "
        "ssd_selective_scan",
    },
    "mamba_ssm.ops.triton.ssd_state_passing": {
        "ssd_stages": "_state_passing_fwd state_passing",
        "references": "state_passing_ref",
    },
    "mamba_ssm.utils.generation": {
        "cache": "InferenceParams",
        "generation": "GenerationMixin decode sample",
    },
    "mamba_ssm.utils.hf": {"language_model": "load_config_hf load_state_dict_hf"},
    "causal_conv1d": {"convolution": "causal_conv1d_fn causal_conv1d_update"},
    "causal_conv1d.causal_conv1d_interface": {
        "convolution": "causal_conv1d_fn causal_conv1d_ref causal_conv1d_update "
        "causal_conv1d_update_ref",
        "functions": "CausalConv1dFn",
    },
    "causal_conv1d.causal_conv1d_varlen": {
        "convolution": "causal_conv1d_varlen_states causal_conv1d_varlen_states_ref",
    },
}
# Vim's fork of the package also has the norms under this name.
NAMES["mamba_ssm.ops.triton.layernorm"] = NAMES["mamba_ssm.ops.triton.layer_norm"]

_GRADIENTS = "call backward() on the result of {} to get gradients"
REFUSED = {
    "mamba_ssm.ops.triton.ssd_chunk_scan": {
        "_chunk_scan_fwd": "use chunk_scan of the same module",
        "_chunk_scan_bwd_dstates": _GRADIENTS.format("chunk_scan"),
        "_chunk_scan_bwd_dz": _GRADIENTS.format("chunk_scan"),
    },
    "mamba_ssm.ops.triton.ssd_chunk_state": {
        "_chunk_state_bwd_db": _GRADIENTS.format("chunk_state"),
        "_chunk_state_bwd_dx": _GRADIENTS.format("chunk_state"),
    },
    "mamba_ssm.ops.triton.ssd_combined": {
        "_mamba_chunk_scan_combined_fwd": "use mamba_chunk_scan_combined of the same module",
        "_mamba_chunk_scan_combined_bwd": _GRADIENTS.format("mamba_chunk_scan_combined"),
    },
    "mamba_ssm.ops.triton.ssd_state_passing": {
        "_state_passing_bwd": _GRADIENTS.format("state_passing"),
    },
    "mamba_ssm.ops.selective_scan_interface": {
        "selective_scan_cuda": "call selective_scan_fn, which runs on any device",
        "causal_conv1d_cuda": "call causal_conv1d_fn, which runs on any device",
    },
    "mamba_ssm.utils.generation": {
        "update_graph_cache": "leave cg=True out of generate: there are no CUDA graphs to capture",
        "capture_graph": "leave cg=True out of generate: there are no CUDA graphs to capture",
    },
}
REFUSED_MODULES = {
    "mamba_ssm.distributed": "use torch.nn.parallel or FSDP around the whole model",
    "mamba_ssm.ops.cute": "use mamba_ssm.modules.mamba3.Mamba3, which runs on any device",
    "mamba_ssm.ops.tilelang": "use mamba_ssm.modules.mamba3.Mamba3, which runs on any device",
    "mamba_ssm.ops.triton.k_activations": "use torch.nn.functional.silu(gate) * x",
    "mamba_ssm.ops.triton.mamba3": "use mamba_ssm.modules.mamba3.Mamba3, which runs on any device",
    "mamba_ssm.ops.triton.softplus": "use torch.nn.functional.softplus",
    "mamba_ssm.ops.triton.ssd_bmm": "use torch.bmm on each chunk",
    "causal_conv1d.cpp_functions": "use causal_conv1d.causal_conv1d_fn, which runs on any device",
}
