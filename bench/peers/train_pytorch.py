"""Training speed of the same model and step in PyTorch on a GPU, the peer of `softpick bench train --device cuda`.

Model: llama_pytorch.py.  torch.compile, autocast to bf16 with float32 master weights, softmax by
scaled_dot_product_attention with a chosen backend, clipping by the global norm, fused AdamW.  Random tokens.
Prints one JSON line: tokens/s over all timed steps, the median step, peak memory, and where a step's time on the GPU goes.

    python3 bench/peers/train_pytorch.py --preset paper-340m --attention cudnn
    python3 bench/peers/train_pytorch.py --preset paper-1.8b --attention flash --seconds 5
"""
import argparse
import json
import math
import re
import statistics
import sys
import time

import torch

from llama_pytorch import ATTENTIONS, Llama, attention_named

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
SIZES = ["layers", "width", "heads", "ffn", "vocabulary", "batch", "length"]
PRESETS = {
    "paper-340m": [24, 1024, 16, 2816, 32000, 8, 4096],
    "paper-1.8b": [32, 2048, 32, 5632, 32000, 4, 4096],
    "tiny": [2, 128, 2, 352, 512, 2, 128],
}

WARMUP, STEPS_MIN = 5, 5

# share of a step: what its kernels are named; the first that matches
KERNELS = [
    ("attention", re.compile(r"flash|fmha|sdpa|attention", re.I)),
    ("matmul", re.compile(r"gemm|gemv|nvjet|cutlass|xmma|cublas|splitK", re.I)),
    ("optimizer", re.compile(r"multi_tensor|adam|lpnorm", re.I)),
    ("other", re.compile("")),
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper-340m", help="sizes; each can be changed below")
    for name in SIZES:
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--attention", choices=ATTENTIONS, default="cudnn")
    parser.add_argument("--compile", choices=["model", "blocks", "no"], default="blocks",
                        help="the blocks (one graph for all) and the classifier, or all in one: as fast, compiles longer")
    parser.add_argument("--mode", default="default", help="torch.compile's mode")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--residual", choices=DTYPES, default="f32", help="of the residual stream")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=10, help="to measure, after %d steps of warm-up" % WARMUP)
    a = parser.parse_args()
    for name, value in zip(SIZES, PRESETS[a.preset]):
        if getattr(a, name) is None:
            setattr(a, name, value)
    if a.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("train_pytorch.py: PyTorch %s sees no CUDA device" % torch.__version__)
    return a


class Trainer:
    """One model and its step."""

    def __init__(self, a):
        torch.manual_seed(1)
        torch.set_float32_matmul_precision("high")
        self.a, self.cuda = a, a.device.startswith("cuda")
        with torch.device(a.device):
            self.model = Llama(a.layers, a.width, a.heads, a.ffn, a.vocabulary, a.length, attention_named(a.attention),
                               residual=DTYPES[a.residual])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                           fused=True)
        self.loss_of = self.model
        if a.compile == "model":
            self.loss_of = torch.compile(self.model, mode=a.mode, dynamic=False)
        elif a.compile == "blocks":
            for part in (*self.model.blocks, self.model.classifier):
                part.compile(mode=a.mode, dynamic=False)

    def step(self):
        a = self.a
        tokens = torch.randint(a.vocabulary, (a.batch, a.length + 1), device=a.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.cuda and "cuda" or "cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = self.loss_of(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()


def time_steps(trainer, n):
    """Seconds of each step by the GPU's events (without a GPU, by the clock), and of all by the clock."""
    marks, times = [], []
    trainer.synchronize()
    began = time.perf_counter()
    for _ in range(n + 1):
        if trainer.cuda:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
        else:
            times.append(time.perf_counter())
        if max(len(marks), len(times)) <= n:
            loss = trainer.step()
    trainer.synchronize()
    seconds = time.perf_counter() - began
    if trainer.cuda:
        steps = [1e-3 * first.elapsed_time(second) for first, second in zip(marks, marks[1:])]
    else:
        steps = [second - first for first, second in zip(times, times[1:])]
    return steps, seconds, loss.item()


def profile_step(trainer):
    """Shares of the time that kernels take in one step, and the names of those of attention."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        trainer.step()
        trainer.synchronize()
    sums, attention = {name: 0.0 for name, _ in KERNELS}, []
    for row in profiler.key_averages():
        name = next(name for name, pattern in KERNELS if pattern.search(row.key))
        sums[name] += row.self_device_time_total
        if name == "attention":
            attention.append(row.key[:80])
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total else None, attention


def main():
    a = parse()
    began = time.perf_counter()
    trainer = Trainer(a)
    time_steps(trainer, WARMUP - 2)
    estimate = time_steps(trainer, 2)[1] / 2
    warmed = time.perf_counter()
    if trainer.cuda:
        torch.cuda.reset_peak_memory_stats()
    steps, seconds, loss = time_steps(trainer, max(STEPS_MIN, math.ceil(a.seconds / estimate)))
    tokens = a.batch * a.length
    result = {
        "peer": "PyTorch " + torch.__version__, "preset": a.preset, "attention": a.attention, "compile": a.compile,
        "mode": a.mode, "dtype": a.dtype, "residual": a.residual, **{name: getattr(a, name) for name in SIZES},
        "parameters": sum(p.numel() for p in trainer.model.parameters()), "steps": len(steps),
        "tokens_per_second": tokens * len(steps) / seconds, "step_seconds": statistics.median(steps),
        "step_seconds_best": min(steps), "loss": loss, "warmup_seconds": warmed - began,
    }
    if trainer.cuda:
        result.update({
            "gpu": torch.cuda.get_device_name(a.device), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "peak_memory_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved()})
        result["step_shares"], result["attention_kernels"] = profile_step(trainer)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
