"""Training speed of the same model and step in PyTorch on the CPU, the peer of `softpick bench train`.

A LLaMA-style model (RMSNorm, RoPE half-split, SwiGLU, no biases, untied embeddings), softmax attention by
scaled_dot_product_attention where this PyTorch has it, mean cross entropy, global-norm clipping, AdamW.  Eager mode;
f32, or bf16 by autocast.  Random tokens; prints one JSON line.

    python3 bench/peers/cpu_train.py --dtype f32 --seconds 20
"""
import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def rope_table(length, head_width, theta=10000.0):
    frequency = theta ** (-torch.arange(0, head_width, 2).float() / head_width)
    angle = torch.outer(torch.arange(length).float(), frequency)
    return angle.cos(), angle.sin()


def rope(x, cos, sin):  # (B,H,T,D)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def attention(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[2]
    mask = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return scores.masked_fill(mask, float("-inf")).softmax(-1).to(v.dtype) @ v


class Block(nn.Module):
    def __init__(self, width, heads, ffn):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for t in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        mixed = attention(rope(q, cos, sin), rope(k, cos, sin), v)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, T, C))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.embedding = nn.Embedding(a.vocabulary, a.width)
        self.blocks = nn.ModuleList(Block(a.width, a.heads, a.ffn) for _ in range(a.layers))
        self.norm = RMSNorm(a.width)
        self.head = nn.Linear(a.width, a.vocabulary, bias=False)
        self.cos, self.sin = rope_table(a.length, a.width // a.heads)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.view(-1))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(layers=8, heads=8, width=512, ffn=1376, vocabulary=8192, length=512, batch=4,
                            threads=2, warmup=2).items():
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    return parser.parse_args()


def main():
    a = parse()
    torch.manual_seed(1)
    torch.set_num_threads(a.threads)
    model = Model(a)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1)

    def step():
        tokens = torch.randint(a.vocabulary, (a.batch, a.length + 1))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = model(tokens[:, :-1], tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for _ in range(a.warmup):
        loss = step()
    times, cpu_times, began = [], [], time.perf_counter()
    while time.perf_counter() - began < a.seconds:
        start, cpu_start = time.perf_counter(), time.process_time()
        loss = step()
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu_start)
    tokens = a.batch * a.length
    print(json.dumps({
        "peer": "PyTorch " + torch.__version__, "dtype": a.dtype, "threads": a.threads, "steps": len(times),
        "parameters": sum(p.numel() for p in model.parameters()), "loss": loss,
        "step_cpu_seconds": sum(cpu_times) / len(times), "step_cpu_seconds_best": min(cpu_times),
        "tokens_per_second": tokens * len(times) / sum(times), "tokens_per_second_best": tokens / min(times),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
