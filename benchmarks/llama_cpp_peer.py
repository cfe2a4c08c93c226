"""Mamba in llama.cpp, with the weights of a model of longstate, through a GGUF file.

Needs `llama-cpp-python` and `gguf`.
"""

import ctypes
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = {"float32": Type.F32, "bfloat16": Type.BF16, "int8": Type.Q8_0}
_Q8_BLOCK = 32  # columns that share a scale; rows of other lengths stay in float32


def write_gguf(model, path: Path, weights: str) -> None:
    """Write a `LanguageModel` of Mamba layers, with its matrices in a format of `TYPES`."""
    mixer = model.blocks[0].mixer
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_context_length(2**20)
    writer.add_embedding_length(mixer.d_model)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(len(model.blocks))
    writer.add_ssm_conv_kernel(mixer.conv1d.kernel_size[0])
    writer.add_ssm_inner_size(mixer.d_inner)
    writer.add_ssm_state_size(mixer.d_state)
    writer.add_ssm_time_step_rank(mixer.rank)
    writer.add_layer_norm_rms_eps(model.spec.norm_eps)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(model.embedding.num_embeddings)

    def add(name, tensor, narrow=False):
        array = tensor.detach().float().numpy()
        kind = TYPES[weights] if narrow else Type.F32
        if kind == Type.Q8_0 and array.shape[1] % _Q8_BLOCK:
            kind = Type.F32
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)

    add("token_embd.weight", model.embedding.weight, narrow=True)
    add("output_norm.weight", model.norm.weight)
    for i, ours in enumerate(model.blocks):
        block, m = f"blk.{i}.", ours.mixer
        add(block + "attn_norm.weight", ours.norm.weight)
        add(block + "ssm_in.weight", m.in_proj.weight, narrow=True)
        add(block + "ssm_conv1d.weight", m.conv1d.weight[:, 0])
        add(block + "ssm_conv1d.bias", m.conv1d.bias)
        add(block + "ssm_x.weight", m.x_proj.weight, narrow=True)
        add(block + "ssm_dt.weight", m.dt_proj.weight, narrow=True)
        add(block + "ssm_dt.bias", m.dt_proj.bias)
        add(block + "ssm_a", -m.A_log.exp())
        add(block + "ssm_d", m.D)
        add(block + "ssm_out.weight", m.out_proj.weight, narrow=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@llama_cpp.llama_log_callback
def _silent(level, text, data):
    pass


class LlamaCpp:
    """One model in llama.cpp and one sequence.

    Args:
        path: GGUF file.
        context: tokens in one call at most.
    """

    def __init__(self, path: Path, context: int = 512):
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p())
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        assert self.model, f"llama.cpp cannot load {path}"
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 4 * context, context, context
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        assert self.context, "llama.cpp cannot make a context"
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def threads(self, n: int) -> None:
        llama_cpp.llama_set_n_threads(self.context, n, n)

    def restart(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Read tokens; returns the logits (v) after the last one."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        assert llama_cpp.llama_decode(self.context, batch) == 0
        found = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(found, shape=(self.n_vocab,)).copy()
