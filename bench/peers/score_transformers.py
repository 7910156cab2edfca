"""Requests of score_requests.py scored the way lm-eval's Hugging Face model does, beside bench_score.

    python3 bench/peers/score_transformers.py requests.bin [--batch 64,128] [--device cuda] [--dtype bfloat16] [--small]

What lm-eval 0.4 does, without lm-eval: requests by length, the longest first; batches padded on the right; log softmax of
all logits of a batch in its dtype (lm-eval's default); the rows of the continuation picked request by request; requests that differ in the last token
alone computed once.  The model is LlamaForCausalLM with random weights in the shape of bench_score's 340m (--small: 12m).
"""
import argparse
import time

import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def read(path, vocabulary):
    numbers = numpy.fromfile(path, dtype="<i4")
    requests, at = [], 1
    for _ in range(numbers[0]):
        n, n_scored = int(numbers[at]), int(numbers[at + 1])
        requests.append(([int(t) % vocabulary for t in numbers[at + 2 : at + 2 + n]], n_scored))
        at += 2 + n
    return requests


def model_of(options):
    shape = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=2816, vocab_size=32000)
    if options.small:
        shape = dict(hidden_size=256, num_hidden_layers=8, num_attention_heads=4, intermediate_size=768, vocab_size=8192)
    config = LlamaConfig(max_position_embeddings=4096, tie_word_embeddings=False, attn_implementation="sdpa", **shape)
    torch.manual_seed(0)
    with torch.device(options.device):
        model = LlamaForCausalLM(config)
    return model.to(getattr(torch, options.dtype)).eval(), shape["vocab_size"]


def grouped(requests):
    """Lists of requests that read the same tokens and score one: of a list only the first passes through the model."""
    groups = {}
    for i, (tokens, n_scored) in enumerate(requests):
        groups.setdefault(tuple(tokens[:-1]) if n_scored == 1 else (i, "alone"), []).append(i)
    return sorted(groups.values(), key=lambda g: (-len(requests[g[0]][0]), requests[g[0]][0]))


@torch.no_grad()
def score(model, requests, batch, device):
    results, groups = [None] * len(requests), grouped(requests)
    for first in range(0, len(groups), batch):
        chunk = groups[first : first + batch]
        inputs = [torch.tensor(requests[g[0]][0][:-1], device=device) for g in chunk]
        padded = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
        log_p = torch.log_softmax(model(padded, use_cache=False).logits, dim=-1)
        for row, group in enumerate(chunk):
            tokens, n_scored = requests[group[0]]
            rows = log_p[row, len(tokens) - 1 - n_scored : len(tokens) - 1]
            greedy = rows.argmax(dim=-1)
            for i in group:
                wanted = torch.tensor(requests[i][0][-n_scored:], device=device)
                results[i] = (float(rows.gather(1, wanted[:, None]).sum()), bool((greedy == wanted).all()))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests")
    parser.add_argument("--batch", default="64")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    model, vocabulary = model_of(options)
    requests = read(options.requests, vocabulary)
    n_read = sum(len(tokens) - 1 for tokens, _ in requests)
    for batch in map(int, options.batch.split(",")):
        score(model, requests[: 4 * batch], batch, options.device)
        begin = time.perf_counter()
        results = score(model, requests, batch, options.device)
        seconds = time.perf_counter() - begin
        mean = sum(sum_ for sum_, _ in results) / sum(n for _, n in requests)
        print(f"transformers, batch {batch}: {seconds:.3f} s: {len(requests) / seconds:.0f} requests/s, "
              f"{n_read / seconds:.0f} tokens/s read, mean log p {mean:.6f}", flush=True)


main()
