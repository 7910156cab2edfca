"""The run of `softpick train` again in PyTorch: the same first weights, batches, learning rates and settings; then how far
two loss curves lie apart.

Everything but the arithmetic comes from the run itself: log.jsonl holds the configuration, the options and the rates.  The
first weights are the checkpoint of a run of one step at rate 0 with the same options (bench/loss_curve.sh makes one), the
batches are read from the token shards in the loader's order (docs/formats.md, src/text/loader.c).

    python3 bench/peers/curve_pytorch.py run --initial first/step-00000001 --data shards --attention flash cudnn > peer.jsonl
    python3 bench/peers/curve_pytorch.py --compare run/log.jsonl peer.jsonl

The first prints one JSON line with all losses for each run; the second a table of differences between each two curves.
"""
import argparse
import itertools
import json
import math
import os
import struct
import sys
import time

import numpy
import torch

from llama_pytorch import ATTENTIONS, Llama, attention_named

MASK = (1 << 64) - 1


def fail(sentence):
    sys.exit("curve_pytorch.py: " + sentence)


# ---- what softpick wrote ----

def read_log(path):
    """The run's description, and its steps in order."""
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    steps = [line for line in lines if line["event"] == "step"]
    if not steps or [line["step"] for line in steps] != list(range(1, len(steps) + 1)):
        fail("%s: not every step was logged: train with --log-every 1, without --resume" % path)
    return lines[0], steps


def read_tensors(path):
    """name -> float32 tensor, of a safetensors file (docs/formats.md)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        first = file.tell()
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            if entry["dtype"] != "F32":
                fail("%s: %s is %s, not F32" % (path, name, entry["dtype"]))
            begin, end = entry["data_offsets"]
            file.seek(first + begin)
            tensors[name] = torch.from_numpy(numpy.fromfile(file, "<f4", (end - begin) // 4).reshape(entry["shape"]))
    return tensors


def read_shards(folder):
    """All tokens of the train split."""
    runs, last = [], False
    while not last:
        path = os.path.join(folder, "train-%05d.tokens" % len(runs))
        with open(path, "rb") as file:
            header = file.read(128)
            magic, _, token_bytes, count = struct.unpack_from("<8sIIq", header)
            last = struct.unpack_from("<I", header, 52)[0] == 1
            if magic != b"SPTOKENS":
                fail("%s: not a token shard" % path)
            runs.append(numpy.fromfile(file, "<u%d" % token_bytes, count))
    return numpy.concatenate(runs)


# ---- the loader's order, in integers modulo 2^64 (src/base/random.c) ----

def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def random_bits(seed, stream, index):
    return mix(mix(mix(seed) ^ stream) ^ index)


def permuted(seed, stream, index, n):
    if n <= 1:
        return 0
    half = ((n - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for i in range(6):
            left, right = right, left ^ random_bits(seed ^ mix(i), stream, right) & mask
        index = left << half | right
        if index < n:
            return index


class Batches:
    """Batch by step; `backwards` turns the order of the sequences in each round."""

    def __init__(self, folder, options, bos, backwards):
        if options["accumulate"] != 1 or options["packing"] not in ("bos", "concatenate"):
            fail("only runs with --accumulate 1 and packing bos or concatenate can be repeated")
        self.order = -1 if backwards else 1
        self.tokens = read_shards(folder).astype(numpy.int64)
        self.B, self.T, self.seed = options["batch"], options["length"], options["seed"]
        self.bos = bos if options["packing"] == "bos" else None
        self.n = (len(self.tokens) - (self.bos is None)) // self.T

    def row(self, g):
        """T + 1 tokens: the inputs, and one further on the targets."""
        first = permuted(self.seed, g // self.n, g % self.n, self.n) * self.T
        if self.bos is None:
            return self.tokens[first:first + self.T + 1]
        return numpy.concatenate(([self.bos], self.tokens[first:first + self.T]))

    def at(self, step, device):
        rows = numpy.stack([self.row(step * self.B + b) for b in range(self.B)][::self.order])
        both = torch.from_numpy(rows).to(device)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()


# ---- the same model ----

def build_model(config, length, attention):
    if config["num_key_value_heads"] != config["num_attention_heads"] or config["tie_word_embeddings"] or config.get(
            "sliding_window") or config.get("attention_row_factor"):
        fail("only models with as many key heads as heads, untied embeddings, no window, no row factor can be repeated")
    return Llama(config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"],
                 config["intermediate_size"], config["vocab_size"], length, attention, config["rms_norm_eps"],
                 config["rope_theta"])


def load_weights(model, tensors):
    def take(parameter, *names):
        with torch.no_grad():
            parameter.copy_(torch.cat([tensors.pop(name) for name in names]))

    take(model.embedding.weight, "model.embed_tokens.weight")
    for i, block in enumerate(model.blocks):
        at = "model.layers.%d." % i
        take(block.norm_in.weight, at + "input_layernorm.weight")
        take(block.qkv.weight, *(at + "self_attn.%s_proj.weight" % part for part in "qkv"))
        take(block.out.weight, at + "self_attn.o_proj.weight")
        take(block.norm_mid.weight, at + "post_attention_layernorm.weight")
        take(block.gate_up.weight, at + "mlp.gate_proj.weight", at + "mlp.up_proj.weight")
        take(block.down.weight, at + "mlp.down_proj.weight")
    take(model.classifier.norm.weight, "model.norm.weight")
    take(model.classifier.head.weight, "lm_head.weight")
    if tensors:
        fail("the checkpoint has tensors that this model lacks: %s" % ", ".join(sorted(tensors)))


def repeat(run, a, attention, backwards):
    """Trains once; one JSON line."""
    head, steps = run
    options, cuda = head["options"], a.device.startswith("cuda")
    model = build_model(head["config"], options["length"], attention_named(attention))
    load_weights(model, read_tensors(os.path.join(a.initial, "model.safetensors")))
    model.to(a.device)
    batches = Batches(a.data, options, head["config"]["bos_token_id"], backwards)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0, betas=(options["beta1"], options["beta2"]),
                                  eps=options["adam-eps"], weight_decay=options["weight-decay"],
                                  **({"fused": True} if cuda else {}))
    loss_of = torch.compile(model, dynamic=False) if a.compile else model
    losses, norms, began = [], [], time.perf_counter()
    for index, logged in enumerate(steps):
        tokens, targets = batches.at(index, a.device)
        optimizer.param_groups[0]["lr"] = logged["learning_rate"]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
            loss = loss_of(tokens, targets)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip"] or math.inf))
        optimizer.step()
        losses.append(loss.detach())
    print(json.dumps({
        "name": "PyTorch " + attention + (", backwards" if backwards else ""), "version": torch.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu", "dtype": a.dtype, "compile": a.compile,
        "losses": torch.stack(losses).tolist(), "gradient_norms": torch.stack(norms).tolist(),
        "seconds": time.perf_counter() - began}), flush=True)


def repeat_all(a):
    run = read_log(os.path.join(a.run, "log.jsonl"))
    function = run[0]["config"]["attention_function"]
    for attention in a.attention:
        if function != ("softpick" if attention.startswith("naive-softpick") else "softmax"):
            fail("%s: the run's attention is %s, not that of --attention %s" % (a.run, function, attention))
        repeat(run, a, attention, False)
    if a.backwards:
        repeat(run, a, a.attention[0], True)


# ---- comparing ----

def read_curves(path):
    """[(name, losses)] of a run of softpick train (its log.jsonl), or of what this program printed."""
    if os.path.basename(path) == "log.jsonl":
        return [("softpick train", numpy.array([step["loss"] for step in read_log(path)[1]]))]
    with open(path) as file:
        curves = [json.loads(line) for line in file]
    return [(curve["name"], numpy.array(curve["losses"])) for curve in curves]


def compare(paths):
    """One line for each two curves: how far their losses lie apart, and where."""
    curves = [curve for path in paths for curve in read_curves(path)]
    print("%-36s%-36s%6s%10s%8s%10s%10s%10s" % ("", "", "steps", "largest", "at step", "rms", "mean", "last 10"))
    for (name_a, a), (name_b, b) in itertools.combinations(curves, 2):
        if len(a) != len(b):
            fail("%s has %d steps, %s has %d" % (name_a, len(a), name_b, len(b)))
        d = b - a
        worst = int(abs(d).argmax())
        print("%-36s%-36s%6d%10.2g%8d%10.2g%10.2g%10.2g" % (
            name_a, name_b, len(d), abs(d[worst]), worst + 1, (d * d).mean() ** 0.5, d.mean(), d[-10:].mean()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="folder of softpick train")
    parser.add_argument("--initial", help="checkpoint folder with the first weights")
    parser.add_argument("--data", help="token shards")
    parser.add_argument("--attention", choices=ATTENTIONS, nargs="+", default=["auto"], help="one run for each")
    parser.add_argument("--backwards", action="store_true",
                        help="the first again, the sequences of each batch in reverse order: the same sums, rounded otherwise")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16", help="of matrix products, by autocast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--compare", nargs="+", metavar="FILE", help="log.jsonl of softpick train, or what this printed")
    a = parser.parse_args()
    if a.compare:
        return compare(a.compare)
    if not (a.run and a.initial and a.data):
        parser.error("RUN, --initial and --data, or --compare")
    repeat_all(a)


if __name__ == "__main__":
    main()
