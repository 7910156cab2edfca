#!/usr/bin/env python3
"""Every measure of `softpick measure` against its definition, in double, on whole attention maps.

Needs from PyPI: numpy, safetensors.  Run:

    python3 tests/oracles/measures.py build/release/softpick MODEL TOKENS [--length T] [--samples N]

MODEL is a checkpoint folder of a plain LLaMA (one model.safetensors, softmax or softpick, no biases, default positions),
TOKENS a folder of `softpick tokenize`.  The model is written again here, in numpy and double, with all T x T maps kept, and
the measures are taken from them as docs/measures.md defines them; nothing is shared with the library.

What hangs on single numbers at the edge of f32 is compared less strictly: counts of exact zeros may differ by 1e-4 of all,
and by --zeros in softmax, where zeros come from underflow alone.

Exit status: 0 all agree, 1 not.
"""

import argparse
import json
import math
import pathlib
import struct
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file

NEAR_ZERO = (1e-6, 1e-2)


def read_tokens(folder):
    data = (pathlib.Path(folder) / "validation-00000.tokens").read_bytes()
    width, n = struct.unpack_from("<IQ", data, 12)
    return np.frombuffer(data, "<u2" if width == 2 else "<u4", n, 128).astype(np.int64)


# ---- the model ----


class Llama:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        config = json.loads((folder / "config.json").read_text())
        self.softpick = config.get("attention_function", "softmax") == "softpick"
        self.bos = config["bos_token_id"]
        self.eps = config["rms_norm_eps"]
        self.L, self.H = config["num_hidden_layers"], config["num_attention_heads"]
        self.Hkv = config.get("num_key_value_heads") or self.H
        self.C = config["hidden_size"]
        self.D = config.get("head_dim") or self.C // self.H
        self.theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta", 10000.0)
        self.w = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
        self.w.setdefault("lm_head.weight", self.w["model.embed_tokens.weight"])

    def layer(self, l, name):
        return self.w[f"model.layers.{l}.{name}.weight"]

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight

    def rotate(self, x):  # (T,H,D)
        half = self.D // 2
        angle = np.arange(len(x))[:, None] * self.theta ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def weigh(self, scores):  # (H,T,T)
        seen = np.tri(scores.shape[-1], dtype=bool)
        if self.softpick:
            u = np.where(seen, np.expm1(np.where(seen, scores, 0)), 0)
            return np.maximum(u, 0) / (np.abs(u).sum(-1, keepdims=True) + 1e-6)
        e = np.where(seen, np.exp(scores - np.where(seen, scores, -np.inf).max(-1, keepdims=True)), 0)
        e /= e.sum(-1, keepdims=True)
        return np.where(e < np.finfo(np.float32).tiny, 0, e)

    def run(self, tokens, masked=()):
        """Streams (embedding, after each block, after the final norm), maps, heads' outputs, logits."""
        T, x = len(tokens), self.w["model.embed_tokens.weight"][tokens]
        streams, maps, outputs = [x], [], []
        for l in range(self.L):
            h = self.norm(x, self.layer(l, "input_layernorm"))
            q = self.rotate((h @ self.layer(l, "self_attn.q_proj").T).reshape(T, self.H, self.D))
            k = self.rotate((h @ self.layer(l, "self_attn.k_proj").T).reshape(T, self.Hkv, self.D))
            v = (h @ self.layer(l, "self_attn.v_proj").T).reshape(T, self.Hkv, self.D)
            k, v = (np.repeat(part, self.H // self.Hkv, 1) for part in (k, v))
            weights = self.weigh(np.einsum("thd,shd->hts", q, k) / math.sqrt(self.D))
            out = np.einsum("hts,shd->thd", weights, v)
            maps.append(weights)
            outputs.append(out.copy())
            for layer, head in masked:
                if layer == l:
                    out[:, head] = 0
            x = x + out.reshape(T, -1) @ self.layer(l, "self_attn.o_proj").T
            h = self.norm(x, self.layer(l, "post_attention_layernorm"))
            gate, up = h @ self.layer(l, "mlp.gate_proj").T, h @ self.layer(l, "mlp.up_proj").T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.layer(l, "mlp.down_proj").T
            streams.append(x)
        streams.append(self.norm(x, self.w["model.norm.weight"]))
        return streams, np.array(maps), np.array(outputs), streams[-1] @ self.w["lm_head.weight"].T


# ---- the measures, from whole maps ----


def kurtosis(numbers):
    x = np.concatenate([np.ravel(one) for one in numbers])
    m = x - x.mean()
    return (m**4).mean() / (m**2).mean() ** 2


def nanmean(values):
    return float(np.nanmean(np.where(np.isfinite(values), values, np.nan)))


def first_token(A, T):
    """Mean weight on the first token of the first T rows: (samples, layers, heads), and the same of each row's mass."""
    rows, mass = A[:, :, :, :T, 0], A[:, :, :, :T].sum(-1)
    live = mass > 0
    share = np.where(live, rows / np.where(live, mass, 1), 0).sum(-1) / np.maximum(live.sum(-1), 1)
    return rows.mean(-1), share


def dead_blocks(A, queries, keys, heads):
    N, L, H, T, _ = A.shape
    A = (A > 0).reshape(N, L, H // heads, heads, T, T).any(3)
    n = dead = 0
    for t in range(0, T, queries):
        for j in range(0, min(T, t + queries), keys):
            seen = np.tri(T, dtype=bool)[t : t + queries, j : j + keys]
            if seen.any():
                block = A[..., t : t + queries, j : j + keys].any((-1, -2))
                n += block.size
                dead += (~block).sum()
    return dead / n


def expected_measures(model, samples, lengths):
    runs = [model.run(tokens) for tokens in samples]
    A = np.array([maps for _, maps, _, _ in runs])  # (N,L,H,T,T)
    N, L, H, T, _ = A.shape
    seen, mass = np.tri(T, dtype=bool), A.sum(-1)
    live, n_seen = mass > 0, np.arange(T, 0, -1)
    P = A / np.where(live, mass, 1)[..., None]
    rows_entropy = -(P * np.log(np.where(P > 0, P, 1))).sum(-1)
    largest, key_weight = A.max(-1), A.sum(-2) / n_seen
    n_live = live.astype(float) @ seen.astype(float)  # queries t >= j that are not silent
    key_share = P.sum(-2) / np.maximum(n_live, 1)
    top_output = np.abs(np.array([out for _, _, out, _ in runs])).max(-1).swapaxes(-1, -2)  # (N,L,H,T)
    states = [[run[0][l] for run in runs] for l in range(L + 2)]
    want = {}

    def put(name, value, **more):
        want[name] = {"value": value, **more}

    for name, threshold in (("sink_rate", 0.3), ("sink_rate_0.2", 0.2), ("first_token_mass", None)):
        take = (lambda m: m > threshold) if threshold else (lambda m: m)
        by = [[take(part).mean() for part in first_token(A, n)] for n in lengths]
        mean, share = first_token(A, T)
        put(name, take(mean).mean(), variants={"row_normalised": take(share).mean()},
            per_layer_head=take(mean).mean(0),
            by_length={"value": [one[0] for one in by], "row_normalised": [one[1] for one in by]})
    half = (key_weight > 0.3)[..., 1 : (T + 1) // 2].any(-1)
    put("sink_rate_elsewhere", half.mean(), per_layer_head=half.mean(0))
    bins = want["sink_rate_elsewhere"]["by_position"] = {"weight": [], "row_normalised": [], "sinks": []}
    contexts = {"weight": [], "live_rows": [], "row_normalised": []}
    starts = list(range(min(T, 32))) + [s << n for n in range(1, 20) for s in range(16, 32) if s << n < T]
    for first, end in zip(starts, starts[1:] + [T]):
        bins["weight"].append(key_weight[..., first:end].mean())
        bins["row_normalised"].append(key_share[..., first:end].mean())
        bins["sinks"].append((key_weight[..., first:end] > 0.3).mean())
        rows, alive = largest[..., first:end], live[..., first:end]
        contexts["weight"].append(rows.mean())
        contexts["live_rows"].append(rows.sum() / alive.sum())
        contexts["row_normalised"].append(P.max(-1)[..., first:end].sum() / alive.sum())
    put("row_mass", mass.mean(), per_layer_head=mass.mean((0, 3)))
    put("sparsity", (A == 0)[..., seen].mean(), per_layer_head=(A == 0)[..., seen].mean((0, 3)))
    put("sparsity_threshold", (A <= 1e-5)[..., seen].mean())
    sizes = ((16, 16, 1), (64, 16, 1), (64, 128, 1), (1, 1, 1), (1, 1, model.H // model.Hkv))
    put("dead_blocks", dead_blocks(A, 16, 16, 1), blocks=[{"value": dead_blocks(A, *size)} for size in sizes])
    count = np.where(live.sum((0, 3)) > 0, live.sum((0, 3)), np.nan)
    entropy = np.where(live, rows_entropy, 0).sum((0, 3)) / count
    wide = live[..., 1:]
    with np.errstate(invalid="ignore"):  # a head that is always silent has none
        shares = np.where(wide, rows_entropy[..., 1:] / np.log(np.arange(2, T + 1)), 0).sum((0, 3)) / wide.sum((0, 3))
    put("entropy", nanmean(entropy), per_layer_head=entropy, variants={"of_the_most": nanmean(shares)})
    put("largest_weight", largest.mean(), per_layer_head=largest.mean((0, 3)), by_context=contexts,
        variants={"live_rows": nanmean(largest.sum((0, 3)) / count),
                  "row_normalised": nanmean(P.max(-1).sum((0, 3)) / count)})
    put("silent_heads", (1 - live.mean((0, 3)) > 0.95).mean(), per_layer_head=1 - live.mean((0, 3)))
    dead = [(top_output < limit).mean((0, 3)) for limit in NEAR_ZERO]
    put("dead_heads", (dead[0] > 0.95).mean(), per_layer_head=dead[0])
    put("dead_heads_0.01", (dead[1] > 0.95).mean(), per_layer_head=dead[1])
    blocks, paper = states[1 : L + 1], states[:L] + states[L + 1 :]
    put("kurtosis", kurtosis(sum(blocks, [])), per_layer=[kurtosis(one) for one in blocks])
    put("kurtosis_paper", kurtosis(sum(paper, [])))
    for name, pick in (("activation_max", np.max), ("activation_min", np.min)):
        put(name, pick(blocks), per_layer=[pick(one) for one in blocks], variants={"paper_pool": pick(paper)})
    n_massive, peaks = [], []
    for layer in blocks:
        median = [np.sort(np.abs(x).ravel())[(x.size - 1) // 2] for x in layer]
        n_massive.append(sum((np.abs(x) > max(100, 1000 * m)).sum() for x, m in zip(layer, median)) / N)
        channels = np.sort(np.abs(np.array(layer)).max((0, 1)))[::-1][:3]
        peaks.append({"median": float(np.mean(median)), "magnitudes": channels})
    put("massive_activations", sum(n_massive), per_layer=n_massive, by_layer=peaks)
    return want, [np.argwhere(one > 0.95) for one in dead]


def mean_loss(model, samples, targets, masked=()):
    total = n = 0
    for tokens, target in zip(samples, targets):
        logits = model.run(tokens, [tuple(one) for one in masked])[3]
        top = logits.max(-1, keepdims=True)
        log_sum = (np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top)[:, 0]
        total += (log_sum - logits[np.arange(len(target)), target]).sum()
        n += len(target)
    return total / n


# ---- the comparison ----


class Comparison:
    def __init__(self):
        self.n = self.n_wrong = 0

    def number(self, where, got, want, tolerance):
        if want is None or (isinstance(want, float) and math.isnan(want)):
            same = got is None
        else:
            same = got is not None and abs(got - want) <= tolerance * (1 + abs(want))
        self.n += 1
        if not same:
            self.n_wrong += 1
            print(f"{where}: {got} is not {want}")

    def any(self, where, got, want, tolerance):
        if isinstance(want, dict):
            for key, value in want.items():
                if key == "magnitudes":
                    value, part = list(value), [abs(peak["value"]) for peak in got["top"]]
                else:
                    part = got[key]
                self.any(f"{where}.{key}", part, value, tolerance)
        elif isinstance(want, (list, np.ndarray)):
            if len(got) != len(want):
                self.number(f"{where}: length", len(got), len(want), 0)
            for i, (a, b) in enumerate(zip(got, want)):
                self.any(f"{where}[{i}]", a, b, tolerance)
        else:
            self.number(where, got, float(want), tolerance)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--zeros", type=float, default=0.1, help="tolerance of exact zeros in softmax")
    arguments = parser.parse_args()

    T, N = arguments.length, arguments.samples
    command = [arguments.tool, "measure", arguments.model, "--data", arguments.tokens, "--length", str(T), "--samples",
               str(N), "--dtype", "f32", "--measures", "all", "--json"]
    got = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["measures"]
    model, text = Llama(arguments.model), read_tokens(arguments.tokens)
    samples = [np.concatenate([[model.bos], text[i * T : i * T + T - 1]]) for i in range(N)]
    targets = [text[i * T : i * T + T] for i in range(N)]
    lengths = got["sink_rate"]["by_length"]["length"]
    want, dead = expected_measures(model, samples, lengths)

    comparison = Comparison()
    for name, measure in want.items():
        zeros = name in ("sparsity", "dead_blocks", "silent_heads") and not model.softpick
        comparison.any(name, got[name], measure, arguments.zeros if zeros else 2e-4)
    masking, loss = got["masking"], mean_loss(model, samples, targets)
    comparison.number("masking.loss", masking["loss"], loss, 1e-5)
    for row, heads in zip(masking["masked"], dead):
        where = f"masking at {row['threshold']}"
        comparison.number(f"{where}: n_masked", row["n_masked"], len(heads), 0)
        comparison.number(f"{where}: loss", row["loss"], mean_loss(model, samples, targets, heads), 1e-5)
    print(f"{comparison.n} numbers of {len(want) + 1} measures compared, {comparison.n_wrong} differ")
    return 1 if comparison.n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
