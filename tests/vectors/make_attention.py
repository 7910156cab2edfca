#!/usr/bin/env python3
"""Writes attention.json: attention and its gradients from the formulas alone, in numpy with float64.

Independent of the C code in method too: weights by the direct formula over whole score rows, gradients by complex
steps (df/dx = imag f(x + i h) / h, exact to rounding) instead of the derivative formulas.

    python3 make_attention.py > attention.json
"""
import json
import math
import sys

import numpy as np

KINDS = ["softpick", "softmax", "softmax_plus_one", "softmax_sink", "rectified"]
STEP = 1e-30  # of the complex derivative


def shifted_expm1(s, shift):
    """e^-shift (e^s - 1)"""
    small = s.real < 30
    return np.where(small, np.exp(-shift) * np.expm1(np.where(small, s, 0)),
                    np.exp(np.where(small, 0, s - shift)) - np.exp(-shift))


def weigh(s, case, sink):
    """Weights of one row of the scores that are seen, and log2 of its denominator."""
    kind = case["normalizer"]
    if len(s) == 0:
        return s, math.inf
    shift = s.real.max()
    if kind == "softmax_sink":
        shift = max(shift, sink.real)
    elif kind != "softmax":
        shift = max(shift, 0.0)
    if kind == "softpick":
        y = shifted_expm1(s, shift)
        top = np.where(s.real > 0, y, 0)
        bottom = top.sum() + case["lambda"] * np.where(s.real > 0, 0, -y).sum() + case["eps"] * math.exp(-shift)
    else:
        keep = s.real > 0 if kind == "rectified" else True
        top = np.where(keep, np.exp(s - shift), 0)
        bottom = top.sum()
        if kind == "softmax_plus_one":
            bottom = bottom + np.exp(-shift)
        if kind == "softmax_sink":
            bottom = bottom + np.exp(sink - shift)
    if bottom == 0:
        return np.zeros_like(s), math.inf
    return top / bottom, (shift + np.log(bottom.real)) / math.log(2)


def visible(case, t, T, S):
    position = t + S - T
    first, end = 0, S
    if case["causal"] or case["window"]:
        end = min(S, max(0, position + 1))
    if case["window"]:
        first = max(0, position + 1 - case["window"])
    return min(first, end), end


def forward(case, q, k, v, sink, factor):
    B, T, H, _ = q.shape
    group = H // k.shape[2]
    out = np.zeros((B, T, H, v.shape[3]), complex)
    lse = np.full((B, H, T), np.inf)
    for b in range(B):
        S = case["key_lengths"][b] if case["key_lengths"] else k.shape[1]
        for h in range(H):
            for t in range(T):
                first, end = visible(case, t, T, S)
                scale = case["scale"]
                if case["row_factor"]:
                    scale = scale * factor[h] * math.log(max(t + S - T, 0) + 2)
                s = scale * (k[b, first:end, h // group] @ q[b, t, h])
                w, lse[b, h, t] = weigh(s, case, sink[h])
                out[b, t, h] = w @ v[b, first:end, h // group]
    return out, lse


def numbers(array, digits=13):
    """9 digits tell a float32 exactly, 13 are more than any comparison needs."""
    flat = np.asarray(array, float).ravel().tolist()
    return [float(f"{x:.{digits}g}") if math.isfinite(x) else "inf" for x in flat]


def finish(case, q, k, v, dout, sink, factor):
    """The case with its inputs and results.  Inputs are rounded to float32: both precisions start from the same."""
    q, k, v, dout, sink, factor = (np.asarray(a, np.float32).astype(float) for a in (q, k, v, dout, sink, factor))
    inputs = {"q": q, "k": k, "v": v, "sink": sink, "factor": factor}
    numbers_in = [a.astype(complex) for a in inputs.values()]
    out, lse = forward(case, *numbers_in)
    case.update(B=q.shape[0], T=q.shape[1], S=k.shape[1], H=q.shape[2], Hkv=k.shape[2], D=q.shape[3], Dv=v.shape[3])
    case.update({name: numbers(a, 9) for name, a in inputs.items()})
    case.update(dout=numbers(dout, 9), out=numbers(out.real), lse=numbers(lse))
    for i, name in enumerate(inputs):
        gradient = np.zeros(inputs[name].size)
        for j in range(gradient.size):
            moved = [a.copy() for a in numbers_in]
            moved[i].ravel()[j] += 1j * STEP
            gradient[j] = (forward(case, *moved)[0].imag * dout).sum() / STEP
        case["d" + name] = numbers(gradient)
    return case


def options(name, kind="softpick", **changes):
    case = {"name": name, "normalizer": kind, "lambda": 1.0, "eps": 1e-6, "scale": 1.0, "causal": True, "window": 0,
            "key_lengths": None, "row_factor": False}
    case.update(changes)
    case["eps"] = float(np.float32(case["eps"]))
    case["lambda"] = float(np.float32(case["lambda"]))
    case["scale"] = float(np.float32(case["scale"]))
    return case


def random_case(seed, case, B=1, T=6, S=6, H=2, Hkv=1, D=4, Dv=4):
    rng = np.random.default_rng(seed)
    return finish(case, rng.normal(size=(B, T, H, D)), rng.normal(size=(B, S, Hkv, D)), rng.normal(size=(B, S, Hkv, Dv)),
                  rng.normal(size=(B, T, H, Dv)), rng.normal(size=H), 0.3 + 0.1 * rng.normal(size=H))


def score_case(case, scores):
    """One head with D = 1 and q = 1: the keys are the scores, and the query sees them all."""
    S = len(scores)
    rng = np.random.default_rng(S)
    case["causal"] = False
    return finish(case, np.ones((1, 1, 1, 1)), np.reshape(scores, (1, S, 1, 1)), rng.normal(size=(1, S, 1, 2)),
                  rng.normal(size=(1, 1, 1, 2)), np.zeros(1), np.full(1, 0.3))


HARD_ROWS = {
    "an early block below -88.7, then positive": [-100.0 + 0.15 * j for j in range(70)] + [1.0, 2.0, -3.0],
    "an early block below -88.7, then large": [-95.0] * 66 + [30.0, 2.0],
    "all negative": [-0.5, -3.0, -20.0, -1e-3],
    "all far below -88.7": [-89.0, -100.0, -1e4],
    "exact zeros alone": [0.0] * 5,
    "exact zeros among others": [0.0, 1.5, 0.0, -2.0, 0.25, 0.0],
    "one positive": [-1.0, -2.0, 0.5, -4.0],
    "tiny positives": [2.0**-20, 2.0**-22, -2.0**-21],
    "large of both signs": [1e4, -1e4, 9999.0, 0.0, 9998.5],
    "around a stale shift": [0.5] * 64 + [7.9, 8.1] + [5.0] * 62 + [16.4, -7.0],
}


def main():
    cases = []
    for i, kind in enumerate(KINDS):
        cases += [random_case(10 * i, options("causal: " + kind, kind)),
                  random_case(10 * i + 1, options("row factor: " + kind, kind, row_factor=True, scale=0.7)),
                  random_case(10 * i + 2, options("window, grouped, S > T: " + kind, kind, window=3), T=4, S=9, H=4, Hkv=2,
                              Dv=3),
                  random_case(10 * i + 3, options("key lengths, full: " + kind, kind, causal=False, key_lengths=[0, 5]),
                              B=2, T=3, S=6),
                  random_case(10 * i + 4, options("T > S, rows without keys: " + kind, kind), T=6, S=3)]
    for i, (weight, eps) in enumerate([(0.0, 1e-6), (0.3, 0.0), (2.0, 0.5), (0.0, 0.0)]):
        cases.append(random_case(100 + i, options(f"lambda {weight} eps {eps}", eps=eps, **{"lambda": weight}), T=7, S=7))
    for name, scores in HARD_ROWS.items():
        cases += [score_case(options(f"{name}: {kind}", kind), scores) for kind in KINDS]
    json.dump(cases, sys.stdout, separators=(",", ":"))
    print()


main()
