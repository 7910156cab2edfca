"""Attention of PyTorch on the CPU, the peer of `softpick bench attention`: the same shapes, threads, counting and JSON.

Softmax by scaled_dot_product_attention where this PyTorch has it, else by its formula in eager mode; softpick by its
formula in eager mode, in f32 inside, as the paper's naive reference does.  Tensors are contiguous (B,H,T,D), which suits
PyTorch best.  The naive softpick is first held against a loop in Python's double precision.

    python3 bench/peers/cpu_attention.py --head-dim 64 --length 512,2048 --dtype f32,bf16 --threads 2

Prints one JSON document with the keys of `softpick bench attention --json`.
"""
import argparse
import json
import math
import os
import statistics
import time

import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
BYTES = {"f32": 4, "bf16": 2, "f16": 2}
ROUNDS = 5
LONG_CALL = 0.1  # seconds: calls as long as this do not need one before them that is not timed
COLD_BYTES = 1 << 28  # of keys and values in turn: more than the processor's own memory
EPS = 1e-6


# ---- what is timed: functions of q (B,H,T,D), k and v (B,Hkv,S,D) and the mask, which is None where all keys are seen


def spread_heads(q, k, v):
    group = q.shape[1] // k.shape[1]
    return (k, v) if group == 1 else (k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))


def softmax_sdpa(q, k, v, mask, causal):
    k, v = spread_heads(q, k, v)
    if causal and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def softmax_eager(q, k, v, mask, causal):
    k, v = spread_heads(q, k, v)
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def softpick_eager(q, k, v, mask, causal):
    """relu(e^x - 1) / (sum |e^x - 1| + eps), in f32, numerator and denominator times e^-max."""
    k, v = spread_heads(q, k, v)
    scores = (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, 0.0)  # e^0 - 1 = 0: a masked key adds nothing
    top = scores.amax(-1, keepdim=True).clamp(min=0)
    u = torch.exp(scores - top) - torch.exp(-top)
    weights = F.relu(u) / (u.abs().sum(-1, keepdim=True) + EPS * torch.exp(-top))
    return weights.to(v.dtype) @ v


def softmax_function():
    return softmax_sdpa if hasattr(F, "scaled_dot_product_attention") else softmax_eager


def check_softpick():
    """Each number of a small case against its definition; fails loudly."""
    generator = torch.Generator().manual_seed(7)
    T, D = 9, 5
    q, k, v = (torch.randn(1, 2, T, D, generator=generator) * 2 for _ in range(3))
    out = softpick_eager(q, k, v, torch.ones(T, T, dtype=torch.bool).tril(), True)
    for h in range(2):
        for t in range(T):
            u = [math.expm1(sum(float(q[0, h, t, i]) * float(k[0, h, j, i]) for i in range(D)) / math.sqrt(D))
                 for j in range(t + 1)]
            denominator = sum(abs(x) for x in u) + EPS
            for i in range(D):
                expected = sum(max(x, 0.0) / denominator * float(v[0, h, j, i]) for j, x in enumerate(u))
                if not abs(float(out[0, h, t, i]) - expected) <= 1e-5:
                    raise SystemExit(f"naive softpick: output ({h},{t},{i}) is {float(out[0, h, t, i])}, not {expected}")


# ---- rows


class Row:
    def __init__(self, a, dtype, attention, head_dim, length, key_length, which, threads):
        self.a, self.dtype, self.attention, self.which, self.threads = a, dtype, attention, which, threads
        self.B, self.H, self.Hkv, self.D, self.T, self.S = a.batch, a.heads, a.kv_heads, head_dim, length, key_length
        self.causal = not a.no_causal
        self.run = softmax_function() if attention == "softmax" else softpick_eager
        self.seconds, self.next_cache = [], 0
        generator = torch.Generator().manual_seed(1)

        def draw(heads, n):
            return torch.randn(self.B, heads, n, self.D, generator=generator).to(DTYPES[dtype])

        self.q, self.dout = draw(self.H, self.T), draw(self.H, self.T)
        k, v = draw(self.Hkv, self.S), draw(self.Hkv, self.S)
        cold = which == "decode"
        n_caches = -(-COLD_BYTES // (2 * k.numel() * BYTES[dtype])) if cold else 1
        self.caches = [(k, v)] + [(k.clone(), v.clone()) for _ in range(n_caches - 1)]
        self.mask = None
        if self.causal and self.T > 1:
            self.mask = torch.ones(self.T, self.S, dtype=torch.bool).tril(self.S - self.T)
        if which == "backward":
            for tensor in (self.q, k, v):
                tensor.requires_grad_(True)

    def pairs(self):
        per_head = sum(min(self.S, max(0, t + self.S - self.T + 1)) for t in range(self.T)) if self.causal else (
            self.T * self.S)
        return self.B * self.H * per_head

    def bytes_moved(self):
        cache = 2 * self.B * self.Hkv * self.S * self.D * BYTES[self.dtype]
        ends, lse = 2 * self.B * self.H * self.T * self.D * BYTES[self.dtype], 4 * self.B * self.H * self.T
        return {"forward": cache + ends + lse, "backward": 2 * cache + 2 * ends + lse, "decode": cache}[self.which]

    def call(self):
        """Seconds of one call.  Of backward: without the forward that goes before it."""
        clock = time.process_time if self.threads == 1 else time.perf_counter
        k, v = self.caches[self.next_cache]
        self.next_cache = (self.next_cache + 1) % len(self.caches)
        if self.which == "backward":
            out = self.run(self.q, k, v, self.mask, self.causal)
            start = clock()
            torch.autograd.grad(out, (self.q, k, v), self.dout)
            return clock() - start
        with torch.no_grad():
            start = clock()
            self.run(self.q, k, v, self.mask, self.causal)
            return clock() - start

    def measure(self, seconds):
        """One of ROUNDS turns.  Three calls are enough where each takes longer than all turns should."""
        if len(self.seconds) >= 3 and min(self.seconds) > ROUNDS * seconds:
            return
        torch.set_num_threads(self.threads)
        if not self.seconds or min(self.seconds) < LONG_CALL:
            self.call()
        end = time.perf_counter() + seconds
        while True:
            self.seconds.append(self.call())
            if time.perf_counter() >= end:
                return

    def describe(self):
        least = min(self.seconds)
        operations = self.pairs() * self.D * (10 if self.which == "backward" else 4)
        name = {softmax_sdpa: "sdpa", softmax_eager: "eager", softpick_eager: "eager"}[self.run]
        return {
            "pass": self.which, "dtype": self.dtype, "attention": self.attention, "batch": self.B, "heads": self.H,
            "kv_heads": self.Hkv, "head_dim": self.D, "value_dim": self.D, "length": self.T, "key_length": self.S,
            "causal": self.causal, "pattern": "dense", "threads": self.threads, "variant": name, "ms": 1e3 * least,
            "ms_median": 1e3 * statistics.median(self.seconds), "calls": len(self.seconds),
            "gflops": 1e-9 * operations / least, "gb_per_s": 1e-9 * self.bytes_moved() / least}


class Matmul:
    """y (4096,1024) = x w^T, the scale for the rest."""

    def __init__(self, dtype, threads):
        self.dtype, self.threads, self.seconds = dtype, threads, []
        self.x, self.w = torch.rand(4096, 1024).to(DTYPES[dtype]), torch.rand(1024, 1024).to(DTYPES[dtype])

    def measure(self, seconds):
        torch.set_num_threads(self.threads)
        clock = time.process_time if self.threads == 1 else time.perf_counter
        F.linear(self.x, self.w)
        end = time.perf_counter() + seconds
        while True:
            start = clock()
            F.linear(self.x, self.w)
            self.seconds.append(clock() - start)
            if time.perf_counter() >= end:
                return

    def gflops(self):
        return 2e-9 * 4096 * 1024 * 1024 / min(self.seconds)


def make_rows(a):
    rows = []
    for head_dim in a.head_dim:
        for length_index, length in enumerate(a.length):
            for dtype in a.dtype:
                for attention in a.attention:
                    for which in a.passes:
                        if which == "decode" and length_index > 0:
                            continue
                        if attention == "softpick" and which != "decode" and length > a.naive_limit:
                            continue
                        T = 1 if which == "decode" else length
                        S = a.key_length or (65536 if which == "decode" else length)
                        rows += [Row(a, dtype, attention, head_dim, T, S, which, threads) for threads in a.threads]
    return rows


def document(rows, matmuls):
    cases = [row.describe() for row in rows]
    result = {"schema": 1, "tool": "PyTorch", "version": torch.__version__,
              "matmul": [{"dtype": m.dtype, "threads": m.threads, "gflops": m.gflops()} for m in matmuls]}
    for which in ("forward", "backward", "decode"):
        only = [case for case in cases if case["pass"] == which]
        if len(only) == 1:
            result.update({f"{which}_{key}": only[0][key] for key in ("ms", "gflops", "gb_per_s")})
            wanted = ("bf16" if only[0]["dtype"] == "bf16" else "f32", only[0]["threads"])
            result["matmul_gflops"] = [m.gflops() for m in matmuls if (m.dtype, m.threads) == wanted][0]
    result["cases"] = cases
    return result


def parse():
    def words(choices):
        def split(text):
            for word in text.split(","):
                if word not in choices:
                    raise argparse.ArgumentTypeError(f'"{word}" is not one of {", ".join(choices)}')
            return text.split(",")
        return split

    def numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=0, help="0: as many as heads")
    parser.add_argument("--head-dim", type=numbers, default=[64, 128])
    parser.add_argument("--length", type=numbers, default=[2048])
    parser.add_argument("--key-length", type=int, default=0, help="0: as many as queries; of decode 65536")
    parser.add_argument("--no-causal", action="store_true")
    parser.add_argument("--dtype", type=words(list(DTYPES)), default=["f32", "bf16"])
    parser.add_argument("--attention", type=words(["softmax", "softpick"]), default=["softmax", "softpick"])
    parser.add_argument("--passes", type=words(["forward", "backward", "decode"]),
                        default=["forward", "backward", "decode"])
    parser.add_argument("--naive-limit", type=int, default=4096, help="softpick, which holds T x T numbers, up to here")
    parser.add_argument("--threads", type=numbers, default=[0], help="0: as many as processors")
    parser.add_argument("--seconds", type=float, default=0.5, help="time to measure each row")
    a = parser.parse_args()
    a.kv_heads = a.kv_heads or a.heads
    a.threads = [n or len(os.sched_getaffinity(0)) for n in a.threads]
    return a


def main():
    a = parse()
    check_softpick()
    rows = make_rows(a)
    matmuls = [Matmul(dtype, threads) for threads in a.threads for dtype in ("f32", "bf16")]
    for _ in range(ROUNDS):
        for each in matmuls + rows:
            each.measure(a.seconds / ROUNDS)
    print(json.dumps(document(rows, matmuls), indent=1))


if __name__ == "__main__":
    main()
