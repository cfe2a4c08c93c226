"""Names of each module of `mamba-ssm` 2.3.2 and `causal-conv1d` 1.7, those that a module imports
from another one included; without Triton kernels, their helpers and modules that are refused."""

PUBLISHED = {
    "mamba_ssm": "Mamba Mamba2 Mamba3 MambaLMHeadModel mamba_inner_fn selective_scan_fn",
    "mamba_ssm.models.config_mamba": "MambaConfig",
    "mamba_ssm.models.mixer_seq_simple": """
        Block GatedMLP GenerationMixin MHA Mamba Mamba2 MambaConfig MambaLMHeadModel
        MixerModel RMSNorm _init_weights create_block layer_norm_fn load_config_hf
        load_state_dict_hf rms_norm_fn
    """,
    "mamba_ssm.modules.block": "Block RMSNorm layer_norm_fn",
    "mamba_ssm.modules.mamba2": """
        Mamba2 RMSNormGated causal_conv1d_fn causal_conv1d_update
        causal_conv1d_varlen_states mamba_chunk_scan_combined
        mamba_split_conv1d_scan_combined selective_state_update
    """,
    "mamba_ssm.modules.mamba2_simple": """
        LayerNorm Mamba2Simple RMSNormGated causal_conv1d_fn mamba_chunk_scan_combined
        mamba_split_conv1d_scan_combined
    """,
    "mamba_ssm.modules.mamba3": "Mamba3 RMSNormGated",
    "mamba_ssm.modules.mamba_simple": """
        Mamba RMSNorm causal_conv1d_fn causal_conv1d_update layer_norm_fn mamba_inner_fn
        rms_norm_fn selective_scan_fn selective_state_update
    """,
    "mamba_ssm.modules.mha": "MHA causal_conv1d_fn causal_conv1d_update",
    "mamba_ssm.modules.mlp": "GatedMLP",
    "mamba_ssm.modules.ssd_minimal": "mamba_chunk_scan_combined segsum ssd_minimal_discrete",
    "mamba_ssm.ops.selective_scan_interface": """
        MambaInnerFn SelectiveScanFn causal_conv1d_fn mamba_inner_fn mamba_inner_ref
        rms_norm_forward selective_scan_fn selective_scan_ref
    """,
    "mamba_ssm.ops.triton.layer_norm": """
        LayerNormFn LayerNormLinearFn RMSNorm _layer_norm_bwd _layer_norm_fwd layer_norm_fn
        layer_norm_linear_fn layer_norm_ref rms_norm_fn rms_norm_ref
    """,
    "mamba_ssm.ops.triton.layernorm_gated": """
        LayerNorm LayerNormFn RMSNorm _layer_norm_bwd _layer_norm_fwd layernorm_fn
        rms_norm_ref rmsnorm_fn
    """,
    "mamba_ssm.ops.triton.selective_state_update": """
        selective_state_update selective_state_update_ref
    """,
    "mamba_ssm.ops.triton.ssd_chunk_scan": """
        ChunkScanFn _chunk_scan_bwd_dC _chunk_scan_bwd_dcb _chunk_scan_bwd_ddAcs_prev
        _chunk_scan_bwd_ddAcs_stable _chunk_scan_bwd_dstates _chunk_scan_bwd_dx
        _chunk_scan_bwd_dz _chunk_scan_fwd chunk_scan chunk_scan_ref
    """,
    "mamba_ssm.ops.triton.ssd_chunk_state": """
        ChunkStateFn _chunk_cumsum_bwd _chunk_cumsum_fwd _chunk_state_bwd_db
        _chunk_state_bwd_ddAcs_stable _chunk_state_bwd_dx _chunk_state_fwd chunk_state
        chunk_state_ref chunk_state_varlen
    """,
    "mamba_ssm.ops.triton.ssd_combined": """
        MambaChunkScanCombinedFn MambaSplitConv1dScanCombinedFn
        _chunk_scan_chunk_state_bwd_dx _mamba_chunk_scan_combined_bwd
        _mamba_chunk_scan_combined_fwd causal_conv1d_fn chunk_scan chunk_scan_ref
        chunk_state chunk_state_ref chunk_state_varlen mamba_chunk_scan
        mamba_chunk_scan_combined mamba_conv1d_scan_ref mamba_split_conv1d_scan_combined
        mamba_split_conv1d_scan_ref rmsnorm_fn selective_scan_bwd
        ssd_chunk_scan_combined_ref ssd_selective_scan state_passing state_passing_ref
    """,
    "mamba_ssm.ops.triton.ssd_state_passing": """
        StatePassingFn _state_passing_bwd _state_passing_fwd state_passing state_passing_ref
    """,
    "mamba_ssm.utils.generation": """
        DecodingCGCache GenerationMixin InferenceParams capture_graph decode
        modify_logit_for_repetition_penalty modify_logits_for_min_p_filtering
        modify_logits_for_top_k_filtering modify_logits_for_top_p_filtering sample
        update_graph_cache
    """,
    "mamba_ssm.utils.hf": "load_config_hf load_state_dict_hf",
    "causal_conv1d": "causal_conv1d_fn causal_conv1d_update",
    "causal_conv1d.causal_conv1d_interface": """
        CausalConv1dFn causal_conv1d_bwd_function causal_conv1d_fn
        causal_conv1d_fwd_function causal_conv1d_ref causal_conv1d_update
        causal_conv1d_update_function causal_conv1d_update_ref
    """,
    "causal_conv1d.causal_conv1d_varlen": """
        causal_conv1d_varlen_states causal_conv1d_varlen_states_ref
    """,
}
