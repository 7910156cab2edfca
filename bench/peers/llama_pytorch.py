"""The LLaMA that the PyTorch peers train: RMSNorm, RoPE half-split, SwiGLU, no biases; q, k, v in one product and gate, up
in another; a float32 residual stream unless told otherwise.  Attention is a row of the table below.

Runs with any PyTorch from 1.13 on; what a row needs beyond that is said when it is asked for.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


# ---- attention: q, k, v (B,H,T,D), causal ----

def future(length, device):
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def scores_of(q, k):
    """In float32, of a product that autocast may round to bf16, as it comes out where a user does not think of it."""
    return (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5


def naive_softmax(q, k, v):
    scores = scores_of(q, k).masked_fill(future(q.shape[2], q.device), -math.inf)
    return scores.softmax(-1).to(v.dtype) @ v


def naive_softpick(q, k, v, eps=1e-6):
    """relu(e^x - 1) / (sum |e^x - 1| + eps), numerator and denominator times e^-m with m >= 0, as a user writes it.
    A masked score is 0: it adds |e^0 - 1| = 0.  The value does not depend on m, so m needs no gradient."""
    scores = scores_of(q, k).masked_fill(future(q.shape[2], q.device), 0)
    m = scores.detach().amax(-1, keepdim=True).clamp(min=0)
    shifted = torch.exp(scores - m) - torch.exp(-m)
    weights = F.relu(shifted) / (shifted.abs().sum(-1, keepdim=True) + eps * torch.exp(-m))
    return weights.to(v.dtype) @ v


def naive_softpick_f32(q, k, v):
    """The same with float32 products, of the numbers that autocast hands over."""
    with torch.autocast(q.device.type, enabled=False):
        return naive_softpick(q.float(), k.float(), v.float()).to(v.dtype)


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


# name: (function, the only backend of SDPA that is left on; None: PyTorch chooses)
ATTENTIONS = {
    "auto": (sdpa if hasattr(F, "scaled_dot_product_attention") else naive_softmax, None),
    "cudnn": (sdpa, "cudnn"),
    "flash": (sdpa, "flash"),
    "efficient": (sdpa, "mem_efficient"),
    "math": (sdpa, "math"),
    "naive-softmax": (naive_softmax, None),
    "naive-softpick": (naive_softpick, None),
    "naive-softpick-f32": (naive_softpick_f32, None),
}


def attention_named(name):
    """The function of a row; switches the other backends of SDPA off, for the whole process and until the next call."""
    function, backend = ATTENTIONS[name]
    for other in ("cudnn", "flash", "mem_efficient", "math"):
        switch = getattr(torch.backends.cuda, "enable_%s_sdp" % other, None)
        if switch:
            switch(backend in (None, other))
    return function


# ---- the model ----

class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rope_table(length, head_width, theta):
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()  # (T, D/2)


def rope(x, cos, sin):  # (B,H,T,D)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width, heads, ffn, norm_eps, attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm_in, self.norm_mid = RMSNorm(width, norm_eps), RMSNorm(width, norm_eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for part in self.qkv(self.norm_in(x)).chunk(3, dim=-1))
        mixed = self.attention(rope(q, cos, sin), rope(k, cos, sin), v)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, T, C))
        gate, up = self.gate_up(self.norm_mid(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Classifier(nn.Module):
    """The last norm, the logits, and their mean cross entropy in nats."""

    def __init__(self, width, vocabulary, norm_eps):
        super().__init__()
        self.norm = RMSNorm(width, norm_eps)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x, targets):
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


class Llama(nn.Module):
    """forward(tokens, targets), both (B,T), is the loss."""

    def __init__(self, layers, width, heads, ffn, vocabulary, length, attention, norm_eps=1e-6, rope_theta=10000.0,
                 deviation=0.02, residual=torch.float32):
        super().__init__()
        self.residual = residual
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, ffn, norm_eps, attention) for _ in range(layers))
        self.classifier = Classifier(width, vocabulary, norm_eps)
        cos, sin = rope_table(length, width // heads, rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=deviation)

    def forward(self, tokens, targets):
        x = self.embedding(tokens).to(self.residual)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.classifier(x, targets)
