"""One table of the training that bench/gpu.sh timed: ours and PyTorch's, and the ratios.

    python3 bench/peers/gpu_table.py FOLDER       ours-PRESET-*.json of softpick bench train, peer-PRESET-*.json

speed and memory are ratios to the PyTorch of that preset with the most tokens/s (memory: of it, so that less is better).
matmul, attention, rest are shares of the step.  "same att." is the speed that ours would have if its attention took as
long as that PyTorch's.
"""
import glob
import json
import os
import sys


def read(folder):
    """{preset: [(name, document)]}, ours first; a run that failed has left no JSON."""
    presets = {}
    for who in ("ours", "peer"):
        for path in sorted(glob.glob(os.path.join(folder, who + "-*.json"))):
            with open(path) as file:
                text = file.read().strip()
            if not text:
                continue
            preset, attention = os.path.basename(path)[len(who) + 1:-len(".json")].rsplit("-", 1)
            document = json.loads(text.splitlines()[-1] if who == "peer" else text)
            name = "softpick bench train" if who == "ours" else document["peer"].split("+")[0]
            presets.setdefault(preset, []).append((name, attention, document))
    return presets


def parts(document):
    """Seconds of a step: matrix products, attention, all else."""
    step = document["batch"] * document["length"] / document["tokens_per_second"]
    shares = document.get("step_shares") or {}
    matmul, attention = shares.get("matmul"), shares.get("attention")
    if matmul is None or attention is None:
        return None
    return step * matmul, step * attention, step * (1 - matmul - attention)


def number(value, form):
    return format(value, form) if value is not None else "-"


def line(cells):
    widths = (22, 10, 10, 9, 7, 7, 7, 8, 8, 11, 7, 11)
    return "".join(str(cell).ljust(w) if i < 2 else str(cell).rjust(w) for i, (cell, w) in enumerate(zip(cells, widths)))


def print_preset(preset, runs):
    peers = [document for _, _, document in runs if "peer" in document]
    best = max(peers, key=lambda document: document["tokens_per_second"], default=None)
    flops = next((document["model_flop_utilisation"] / document["tokens_per_second"] for _, _, document in runs
                  if document.get("model_flop_utilisation")), None)
    print("\n" + line((preset, "", "tokens/s", "ms/step", "speed", "MFU", "GiB", "memory", "matmul", "attention", "rest",
                       "same att.")))
    for name, attention, document in runs:
        rate, memory, seconds = document["tokens_per_second"], document["peak_memory_bytes"], parts(document)
        step = document["batch"] * document["length"] / rate
        same = None
        if best and seconds and parts(best) and document not in peers:
            same = step / (step - seconds[1] + parts(best)[1]) * rate / best["tokens_per_second"]
        print(line((name, attention, number(rate, ".0f"), number(1e3 * step, ".1f"),
                    number(best and rate / best["tokens_per_second"], ".3f"), number(flops and flops * rate, ".3f"),
                    number(memory / 2**30, ".1f"), number(best and memory / best["peak_memory_bytes"], ".3f"),
                    *(number(seconds and part / step, ".1%") for part in seconds or (None,) * 3), number(same, ".3f"))))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    presets = read(sys.argv[1])
    if not presets:
        sys.exit("gpu_table.py: %s holds no ours-*.json or peer-*.json with a result" % sys.argv[1])
    for preset, runs in presets.items():
        print_preset(preset, runs)


if __name__ == "__main__":
    main()
