"""One table of what bench/attention_cpu.sh measured: the least time of each case over the rounds, and the ratios.

    python3 bench/peers/attention_table.py FOLDER       ours-*.json and, where PyTorch ran, peer-*.json
"""
import glob
import json
import os
import sys

KEYS = ("threads", "pass", "dtype", "batch", "heads", "kv_heads", "head_dim", "length", "key_length")


def read(folder, who):
    """Documents, and {(keys..., attention): the case of the round with the least time}."""
    documents, cases = [], {}
    for path in sorted(glob.glob(os.path.join(folder, who + "-*.json"))):
        with open(path) as file:
            documents.append(json.load(file))
        for case in documents[-1]["cases"]:
            key = tuple(case[k] for k in KEYS) + (case["attention"],)
            if "ms" in case and (key not in cases or case["ms"] < cases[key]["ms"]):
                cases[key] = case
    return documents, cases


def matmuls(documents):
    best = {}
    for document in documents:
        for m in document["matmul"]:
            key = (m["threads"], m["dtype"])
            best[key] = max(best.get(key, 0), m["gflops"])
    return best


def ratio(ours, theirs):
    """How many times faster we are."""
    return f"{theirs['ms'] / ours['ms']:8.2f}" if ours and theirs else f"{'-':>8}"


def rate(case, which):
    if not case:
        return f"{'-':>9}"
    return f"{case['gb_per_s' if which == 'decode' else 'gflops']:9.1f}"


def print_rows(ours, theirs, scale):
    print("GFLOP/s of every pair that is seen (decode: GB/s of keys and values), by the least time of all rounds.\n"
          "of matmul: softpick against the product of the same dtype; /own: softpick against our softmax;\n"
          "/torch: our softpick against PyTorch's softmax; /naive: our softpick against softpick written in PyTorch.\n")
    print(f"{'thr':>3} {'pass':8} {'dtype':5} {'B':>2} {'D':>4} {'T':>5} {'S':>6} {'variant':12}{'softpick':>9}{'softmax':>9}"
          f"{'torch':>9}{'naive':>9}{'of matmul':>10}{'/own':>8}{'/torch':>8}{'/naive':>8}")
    for key in sorted({key[:-1] for key in ours}):
        threads, which, dtype, batch, _, _, head_dim, length, key_length = key
        softpick, softmax = ours.get(key + ("softpick",)), ours.get(key + ("softmax",))
        torch, naive = theirs.get(key + ("softmax",)), theirs.get(key + ("softpick",))
        matmul = scale.get((threads, "bf16" if dtype == "bf16" else "f32"))
        share = f"{softpick['gflops'] / matmul:10.2f}" if softpick and matmul and which != "decode" else f"{'-':>10}"
        print(f"{threads:3} {which:8} {dtype:5} {batch:2} {head_dim:4} {length:5} {key_length:6} "
              f"{softpick['variant'] if softpick else '-':12}{rate(softpick, which)}{rate(softmax, which)}"
              f"{rate(torch, which)}{rate(naive, which)}{share}{ratio(softpick, softmax)}{ratio(softpick, torch)}"
              f"{ratio(softpick, naive)}")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    documents, ours = read(sys.argv[1], "ours")
    peers, theirs = read(sys.argv[1], "peer")
    if not documents:
        raise SystemExit(f"{sys.argv[1]}: no ours-*.json there")
    print(documents[0]["cpu"] + "; " + (f"PyTorch {peers[0]['version']}" if peers else "no PyTorch"))
    ours_scale, peer_scale = matmuls(documents), matmuls(peers)
    for key in sorted(ours_scale):
        torch = f", PyTorch's {peer_scale[key]:.1f}" if key in peer_scale else ""
        print(f"matmul {key[1]}, {key[0]} threads: {ours_scale[key]:.1f} GFLOP/s{torch}")
    reads = {r["threads"]: r["gb_per_s"] for d in documents for r in d["read"]}
    for threads in sorted(reads):
        best = max(r["gb_per_s"] for d in documents for r in d["read"] if r["threads"] == threads)
        print(f"reading memory, {threads} threads: {best:.1f} GB/s")
    print()
    print_rows(ours, theirs, ours_scale)


if __name__ == "__main__":
    main()
