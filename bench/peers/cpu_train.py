"""Training speed of the same model and step in PyTorch on the CPU, the peer of `softpick bench train`.

Model: llama_pytorch.py, softmax attention by scaled_dot_product_attention where this PyTorch has it; global-norm clipping,
AdamW.  Eager mode; f32, or bf16 by autocast.  Random tokens; prints one JSON line.

    python3 bench/peers/cpu_train.py --dtype f32 --seconds 20
"""
import argparse
import json
import resource
import time

import torch

from llama_pytorch import Llama, attention_named


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
    model = Llama(a.layers, a.width, a.heads, a.ffn, a.vocabulary, a.length, attention_named("auto"))
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
