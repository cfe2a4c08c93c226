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
        "block": "Block GatedMLP create_block",
        "generation": "GenerationMixin",
        "language_model": "MambaConfig MambaLMHeadModel MixerModel _init_weights load_config_hf "
        "load_state_dict_hf",
        "mamba": "Mamba",
        "mamba2": "Mamba2",
        "mha": "MHA",
        "residual_norm": "RMSNorm layer_norm_fn rms_norm_fn",
    },
    "mamba_ssm.modules.block": {"block": "Block", "residual_norm": "RMSNorm layer_norm_fn"},
    "mamba_ssm.modules.mamba_simple": {
        "block": "Block",
        "convolution": "causal_conv1d_fn causal_conv1d_update",
        "mamba": "Mamba",
        "residual_norm": "RMSNorm layer_norm_fn rms_norm_fn",
        "scan": "mamba_inner_fn selective_scan_fn",
        "state_update": "selective_state_update",
    },
    "mamba_ssm.modules.mamba2": {
        "convolution": "causal_conv1d_fn causal_conv1d_update causal_conv1d_varlen_states",
        "gated_norm": "RMSNorm=RMSNormGated",
        "mamba2": "Mamba2",
        "split_conv": "mamba_split_conv1d_scan_combined",
        "ssd": "mamba_chunk_scan_combined",
        "state_update": "selective_state_update",
    },
    "mamba_ssm.modules.mamba2_simple": {
        "convolution": "causal_conv1d_fn",
        "gated_norm": "LayerNorm RMSNorm=RMSNormGated",
        "mamba2_simple": "Mamba2Simple",
        "split_conv": "mamba_split_conv1d_scan_combined",
        "ssd": "mamba_chunk_scan_combined",
    },
    "mamba_ssm.modules.mamba3": {"gated_norm": "RMSNorm=RMSNormGated", "mamba3": "Mamba3"},
    "mamba_ssm.modules.mha": {
        "convolution": "causal_conv1d_fn causal_conv1d_update",
        "mha": "MHA",
    },
    "mamba_ssm.modules.mlp": {"block": "GatedMLP"},
    "mamba_ssm.modules.ssd_minimal": {
        "references": "segsum ssd_minimal_discrete",
        "ssd": "mamba_chunk_scan_combined",
    },
    "mamba_ssm.ops.selective_scan_interface": {
        "convolution": "causal_conv1d_fn",
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
        "ssd_stages": "_chunk_cumsum_fwd _chunk_state_fwd _state_passing_fwd chunk_scan "
        "chunk_state chunk_state_varlen state_passing",
        "references": "chunk_scan_ref chunk_state_ref state_passing_ref",
        "convolution": "causal_conv1d_fn",
        "gated_norm": "rmsnorm_fn",
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
_CALL = "call {}, which is differentiable"
_ANY = "call {}, which runs on any device"
_PARALLEL = "use torch.nn.parallel or FSDP around the whole model"
_NO_GRAPHS = "leave cg=True out of generate: there are no CUDA graphs to capture"
_SAMPLE = "pass top_k, top_p, min_p or repetition_penalty to decode of the same module"
# Module -> what to do instead -> names.
_REFUSED = {
    "mamba_ssm.modules.mamba2": {
        _PARALLEL: "ColumnParallelLinear RowParallelLinear all_reduce reduce_scatter",
    },
    "mamba_ssm.ops.triton.layer_norm": {
        "call layer_norm_fn and torch.nn.functional.linear": "LayerNormLinearFn "
        "layer_norm_linear_fn",
        _CALL.format("layer_norm_fn"): "LayerNormFn _layer_norm_bwd _layer_norm_fwd",
    },
    "mamba_ssm.ops.triton.layernorm_gated": {
        _CALL.format("layernorm_fn"): "LayerNormFn _layer_norm_bwd _layer_norm_fwd",
    },
    "mamba_ssm.ops.triton.selective_state_update": {
        "use torch.nn.functional.softplus": "softplus",
    },
    "mamba_ssm.ops.triton.ssd_chunk_scan": {
        "use chunk_scan of the same module": "ChunkScanFn _chunk_scan_fwd",
        _GRADIENTS.format("chunk_scan"): "_chunk_scan_bwd_dC _chunk_scan_bwd_dcb "
        "_chunk_scan_bwd_ddAcs_prev _chunk_scan_bwd_ddAcs_stable _chunk_scan_bwd_dstates "
        "_chunk_scan_bwd_dx _chunk_scan_bwd_dz",
    },
    "mamba_ssm.ops.triton.ssd_chunk_state": {
        "use chunk_state of the same module": "ChunkStateFn",
        _GRADIENTS.format("chunk_state"): "_chunk_cumsum_bwd _chunk_state_bwd_db "
        "_chunk_state_bwd_ddAcs_stable _chunk_state_bwd_dx",
    },
    "mamba_ssm.ops.triton.ssd_combined": {
        "use mamba_chunk_scan_combined of the same module": "MambaChunkScanCombinedFn "
        "_mamba_chunk_scan_combined_fwd",
        "use mamba_split_conv1d_scan_combined of the same module": "MambaSplitConv1dScanCombinedFn",
        "use mamba_split_conv1d_scan_ref of the same module": "mamba_conv1d_scan_ref",
        _GRADIENTS.format("mamba_chunk_scan_combined"): "_chunk_scan_chunk_state_bwd_dx "
        "_mamba_chunk_scan_combined_bwd selective_scan_bwd",
    },
    "mamba_ssm.ops.triton.ssd_state_passing": {
        "use state_passing of the same module": "StatePassingFn",
        _GRADIENTS.format("state_passing"): "_state_passing_bwd",
    },
    "mamba_ssm.ops.selective_scan_interface": {
        _ANY.format("selective_scan_fn"): "selective_scan_cuda",
        _ANY.format("causal_conv1d_fn"): "causal_conv1d_cuda",
        "use torch.nn.functional.rms_norm": "rms_norm_forward",
        # Of Vim's fork.
        "call mamba_inner_fn_no_out_proj": "MambaInnerFnNoOutProj",
        "call mamba_inner_fn_no_out_proj on x and on x.flip(-1)": "BiMambaInnerFn bimamba_inner_fn "
        "bimamba_inner_ref",
    },
    "mamba_ssm.utils.generation": {
        _NO_GRAPHS: "DecodingCGCache capture_graph update_graph_cache",
        _SAMPLE: "modify_logit_for_repetition_penalty modify_logits_for_min_p_filtering "
        "modify_logits_for_top_k_filtering modify_logits_for_top_p_filtering",
    },
    "causal_conv1d.causal_conv1d_interface": {
        _ANY.format("causal_conv1d_fn"): "causal_conv1d_bwd_function causal_conv1d_cuda "
        "causal_conv1d_fwd_function causal_conv1d_update_function",
    },
}
REFUSED = {
    module: {name: way_out for way_out, names in ways.items() for name in names.split()}
    for module, ways in _REFUSED.items()
}
REFUSED["mamba_ssm.ops.triton.layernorm"] = REFUSED["mamba_ssm.ops.triton.layer_norm"]
_MAMBA3 = "use mamba_ssm.modules.mamba3.Mamba3, which runs on any device"
REFUSED_MODULES = {
    "mamba_ssm.distributed": _PARALLEL,
    "mamba_ssm.ops.cute": _MAMBA3,
    "mamba_ssm.ops.tilelang": _MAMBA3,
    "mamba_ssm.ops.triton.k_activations": "use torch.nn.functional.silu(gate) * x",
    "mamba_ssm.ops.triton.mamba3": _MAMBA3,
    "mamba_ssm.ops.triton.softplus": "use torch.nn.functional.softplus",
    "mamba_ssm.ops.triton.ssd_bmm": "use torch.bmm on each chunk",
    "mamba_ssm.utils.determinism": "leave it out: results on a CPU do not change between runs",
    "mamba_ssm.utils.torch": "use torch.amp.custom_fwd and torch.amp.custom_bwd",
    "causal_conv1d.cpp_functions": "use causal_conv1d.causal_conv1d_fn, which runs on any device",
}
