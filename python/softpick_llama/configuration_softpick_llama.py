"""Configuration of LLaMA-style models whose attention is not plain softmax (model_type softpick_llama)."""

from transformers.models.llama.configuration_llama import LlamaConfig


class SoftpickLlamaConfig(LlamaConfig):
    """LLaMA's keys and these; config.json always says attention_function."""

    model_type = "softpick_llama"

    attention_function = None  # softpick, softmax, softmax_plus_one, softmax_sink, rectified
    softpick_eps = 1e-6  # added to softpick's denominator
    softpick_lambda = 1.0  # weight of the negative part of softpick's denominator
    attention_row_factor = False  # a learned factor s_h log(position + 2) on the scores of each head
    qkv_bias = False  # biases of q, k, v alone (attention_bias: of the output, too)
    qk_norm = False  # RMSNorm over each head's query and key, before the rotation
    qk_norm_eps = 1e-6
    sliding_window = None  # keys that a query sees, its own included
