"""LLaMA whose attention weighs keys by softpick (arXiv 2504.20966) or one of its relatives, for transformers 4.52 and
later.

The scores s of a query, over the keys that it sees, become weights:

    softpick          max(e^s - 1, 0) / (sum max(e^s - 1, 0) + lambda * sum max(1 - e^s, 0) + eps)
    softmax           e^s / sum e^s
    softmax_plus_one  e^s / (1 + sum e^s)
    softmax_sink      e^s / (e^sink + sum e^s), one learned sink per head
    rectified         softmax over the positive scores; no positive score, no weight

All else is LLaMA's.  Other implementations of attention (sdpa, flash, flex) would compute softmax: transformers refuses
them for these classes.
"""

import torch
from torch import nn
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaForCausalLM,
    LlamaModel,
    LlamaRMSNorm,
    apply_rotary_pos_emb,
)

from .configuration_softpick_llama import SoftpickLlamaConfig


def _shifted_exp(scores, seen, floor=None):
    """e^(s - c) with 0 where nothing is seen, and c: each row's largest score, or `floor` (a tensor) if that is more."""
    shift = scores.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
    shift = torch.maximum(shift, torch.zeros_like(shift) if floor is None else floor)
    return torch.exp(scores - shift).masked_fill(~seen, 0.0), shift


def _divide(weights, total):
    """A row without weight stays 0."""
    return torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), 0.0)


def _softpick(scores, seen, module):
    _, shift = _shifted_exp(scores, seen)
    small = torch.exp(-shift) * torch.expm1(scores.clamp(max=1.0))
    difference = torch.where(scores < 1, small, torch.exp(scores - shift) - torch.exp(-shift))
    difference = difference.masked_fill(~seen, 0.0)
    positive = difference.clamp(min=0.0)
    negative = (-difference).clamp(min=0.0)
    config = module.config
    total = positive.sum(-1, keepdim=True) + config.softpick_lambda * negative.sum(-1, keepdim=True)
    return _divide(positive, total + config.softpick_eps * torch.exp(-shift))


def _softmax(scores, seen, module):
    lowest = torch.full_like(scores[..., :1], torch.finfo(scores.dtype).min)
    weights, _ = _shifted_exp(scores, seen, lowest)
    return _divide(weights, weights.sum(-1, keepdim=True))


def _softmax_plus_one(scores, seen, module):
    weights, shift = _shifted_exp(scores, seen)
    return weights / (weights.sum(-1, keepdim=True) + torch.exp(-shift))


def _softmax_sink(scores, seen, module):
    sink = module.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    weights, shift = _shifted_exp(scores, seen, sink)
    return weights / (weights.sum(-1, keepdim=True) + torch.exp(sink - shift))


def _rectified(scores, seen, module):
    weights, _ = _shifted_exp(scores, seen & (scores > 0))
    return _divide(weights, weights.sum(-1, keepdim=True))


ATTENTION_FUNCTIONS = {
    "softpick": _softpick,
    "softmax": _softmax,
    "softmax_plus_one": _softmax_plus_one,
    "softmax_sink": _softmax_sink,
    "rectified": _rectified,
}


class SoftpickLlamaAttention(LlamaAttention):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        if config.attention_function not in ATTENTION_FUNCTIONS:
            known = ", ".join(ATTENTION_FUNCTIONS)
            raise ValueError(f"attention_function is {config.attention_function!r}: {known} are known")
        if config.qkv_bias and not config.attention_bias:
            for name in ("q_proj", "k_proj", "v_proj"):
                linear = getattr(self, name)
                setattr(self, name, nn.Linear(linear.in_features, linear.out_features, bias=True))
        if config.qk_norm:
            self.q_norm = LlamaRMSNorm(self.head_dim, eps=config.qk_norm_eps)
            self.k_norm = LlamaRMSNorm(self.head_dim, eps=config.qk_norm_eps)
        if config.attention_row_factor:
            self.row_factor = nn.Parameter(torch.full((config.num_attention_heads,), 0.3))
        if config.attention_function == "softmax_sink":
            self.sinks = nn.Parameter(torch.zeros(config.num_attention_heads))

    def _seen(self, attention_mask, n_queries, n_keys, n_past, device):
        """Which keys each query sees, (1 or B, 1, T, S).  The last query stands at the last key, but in caches of fixed
        size, whose end is empty."""
        first = max(n_past + n_queries - n_keys, 0)  # position of the first key
        queries = n_past + torch.arange(n_queries, device=device).view(-1, 1)
        keys = first + torch.arange(n_keys, device=device).view(1, -1)
        seen = keys <= queries
        if self.config.sliding_window:
            seen = seen & (keys > queries - self.config.sliding_window)
        if attention_mask is not None:
            mask = attention_mask[..., :n_keys]
            seen = seen & (mask if mask.dtype == torch.bool else mask >= 0)
        return seen if seen.dim() == 4 else seen.view(1, 1, n_queries, n_keys)

    def _scores(self, query, key, position_ids, n_past):
        scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * self.scaling
        if self.config.attention_row_factor:
            if position_ids is None:
                position_ids = n_past + torch.arange(query.shape[2], device=query.device).view(1, -1)
            growth = torch.log(position_ids.float() + 2).view(position_ids.shape[0], 1, -1, 1)
            scores = scores * self.row_factor.float().view(1, -1, 1, 1) * growth
        return scores

    def forward(
        self,
        hidden_states,
        position_embeddings=None,
        attention_mask=None,
        past_key_values=None,
        past_key_value=None,
        cache_position=None,
        position_ids=None,
        **kwargs,
    ):
        cache = past_key_values if past_key_values is not None else past_key_value
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape)
        key = self.k_proj(hidden_states).view(shape)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        cos, sin = position_embeddings
        query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), cos, sin)

        n_past = 0
        if cache is not None:
            n_past = int(cache.get_seq_length(self.layer_idx))
            extra = () if cache_position is None else ({"sin": sin, "cos": cos, "cache_position": cache_position},)
            key, value = cache.update(key, value, self.layer_idx, *extra)
        key = key.repeat_interleave(self.num_key_value_groups, dim=1)
        value = value.repeat_interleave(self.num_key_value_groups, dim=1)

        seen = self._seen(attention_mask, query.shape[2], key.shape[2], n_past, query.device)
        scores = self._scores(query, key, position_ids, n_past)
        weights = ATTENTION_FUNCTIONS[self.config.attention_function](scores, seen, self).to(value.dtype)
        out = torch.matmul(weights, value).transpose(1, 2).reshape(*hidden_states.shape[:-1], -1)
        return self.o_proj(out), weights


class _EagerOnly:
    """No implementation but the one above, whatever a caller asks for."""

    config_class = SoftpickLlamaConfig
    _supports_sdpa = False
    _supports_flash_attn = False
    _supports_flash_attn_2 = False
    _supports_flash_attn_3 = False
    _supports_flex_attn = False
    _supports_attention_backend = False


class SoftpickLlamaModel(_EagerOnly, LlamaModel):
    def __init__(self, config):
        super().__init__(config)
        for index, layer in enumerate(self.layers):
            layer.self_attn = SoftpickLlamaAttention(config, index)
        self.post_init()


class SoftpickLlamaForCausalLM(_EagerOnly, LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model = SoftpickLlamaModel(config)
        self.post_init()
