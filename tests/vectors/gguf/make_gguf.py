#!/usr/bin/env python3
"""Writes mixed.gguf, a tiny LLaMA whose tensors are of all types that are read, by the gguf package of llama.cpp, and
mixed.json, what that package sees in it: of each tensor, under LLaMA's name and in its order of rows, some numbers and a
weighted sum.  tests/test_checkpoint_gguf.c reads both.

    pip install gguf numpy; python3 tests/vectors/gguf/make_gguf.py
"""

import json
import pathlib

import gguf
import numpy

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, HEADS, KV_HEADS, FFN, VOCABULARY = 32, 4, 2, 64, 5
TYPE = gguf.GGMLQuantizationType
TENSORS = {
    "token_embd": ("model.embed_tokens", (VOCABULARY, WIDTH), TYPE.F16),
    "blk.0.attn_norm": ("model.layers.0.input_layernorm", (WIDTH,), TYPE.F32),
    "blk.0.attn_q": ("model.layers.0.self_attn.q_proj", (WIDTH, WIDTH), TYPE.Q8_0),
    "blk.0.attn_k": ("model.layers.0.self_attn.k_proj", (WIDTH // 2, WIDTH), TYPE.Q4_0),
    "blk.0.attn_v": ("model.layers.0.self_attn.v_proj", (WIDTH // 2, WIDTH), TYPE.BF16),
    "blk.0.attn_output": ("model.layers.0.self_attn.o_proj", (WIDTH, WIDTH), TYPE.Q4_0),
    "blk.0.ffn_norm": ("model.layers.0.post_attention_layernorm", (WIDTH,), TYPE.F32),
    "blk.0.ffn_gate": ("model.layers.0.mlp.gate_proj", (FFN, WIDTH), TYPE.Q8_0),
    "blk.0.ffn_up": ("model.layers.0.mlp.up_proj", (FFN, WIDTH), TYPE.Q4_0),
    "blk.0.ffn_down": ("model.layers.0.mlp.down_proj", (WIDTH, FFN), TYPE.F16),
    "output_norm": ("model.norm", (WIDTH,), TYPE.F32),
}


def in_halves(array, heads):
    return array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)


def main():
    draw, seen = numpy.random.default_rng(5), {}
    writer = gguf.GGUFWriter(HERE / "mixed.gguf", "llama")
    writer.add_context_length(16)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, (llama, shape, kind) in TENSORS.items():
        data = gguf.quantize(draw.standard_normal(shape).astype(numpy.float32), kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        array = gguf.dequantize(data, kind).astype(numpy.float64)
        heads = {"blk.0.attn_q": HEADS, "blk.0.attn_k": KV_HEADS}.get(name)
        flat = (in_halves(array, heads) if heads else array).reshape(-1)
        weights = 1 + numpy.arange(flat.size) % 13
        seen[f"{llama}.weight"] = {"first": flat[:3].tolist(), "sum": float((flat * weights).sum())}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (HERE / "mixed.json").write_text(json.dumps(seen, indent=1) + "\n")


if __name__ == "__main__":
    main()
