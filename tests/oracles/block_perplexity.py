"""Compares the task `ppl` of softpick eval with the loop of the papers on quantization, in transformers.

    block_perplexity.py SOFTPICK MODEL DATA [--length 512] [--blocks 60]

MODEL is a folder that both read; DATA has wikitext2_wiki.test.raw.  Needs torch and transformers.  Exit code 1 if the number of
tokens or the perplexity (to 1e-5 of its size) differs.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def rows_of(text):
    """As the data set gives them: lines with their newline, blank ones as empty texts."""
    return [line if line.strip() else "" for line in re.findall(r"[^\n]*\n|[^\n]+$", text)]


def theirs(arguments):
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, torch_dtype=torch.float32)
    with open(os.path.join(arguments.data, "wikitext2_wiki.test.raw"), encoding="utf-8", newline="") as file:
        ids = tokenizer("\n\n".join(rows_of(file.read())), return_tensors="pt").input_ids
    T, losses = arguments.length, []
    with torch.no_grad():
        for i in range(min(arguments.blocks, ids.numel() // T)):
            block = ids[:, i * T:(i + 1) * T]
            logits = model(block).logits
            losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], block[0, 1:]).double().item() * T)
    return ids.numel(), math.exp(sum(losses) / (len(losses) * T))


def ours(arguments):
    text = subprocess.run([arguments.softpick, "eval", arguments.model, "--tasks", "ppl", "--data", arguments.data, "--limit",
                           str(arguments.blocks), "--ppl-length", str(arguments.length), "--json"], check=True,
                          stdout=subprocess.PIPE).stdout
    found = json.loads(text)
    return found["softpick"]["tasks"]["ppl"]["text_tokens"], found["results"]["ppl"]["ppl_gptq,none"]


parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
for name in ("softpick", "model", "data"):
    parser.add_argument(name)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--blocks", type=int, default=60)
options = parser.parse_args()
(their_tokens, their_value), (our_tokens, our_value) = theirs(options), ours(options)
print(f"tokens {our_tokens} and {their_tokens}; perplexity {our_value:.6f} and {their_value:.6f} (transformers)")
sys.exit(our_tokens != their_tokens or abs(our_value / their_value - 1) > 1e-5)
