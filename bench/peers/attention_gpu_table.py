"""Tables of what bench/attention_gpu.sh measured.

    python3 bench/peers/attention_gpu_table.py [--markdown] LINES.jsonl...      of attention_gpu.sh

Lines of several runs may follow one another: the last word on a case counts, and the head tells what is of which run.
Rates count every pair of a query and a key that it sees, computed or not: 4 D operations forward, 10 D backward; of decode
the bytes of keys and values.  A ratio says how many times faster we are than that column in the same run; above 1 is good.
"""
import json
import sys

PEERS = ("cudnn", "flash", "flex", "triton", "flex_softpick", "naive")


def read(paths):
    """What stands about each run as a whole, the measured {(case, who, attention, pass, pattern, any_order): line}, the reasons
    of those that could not be measured; a line's "run" is its place among the first."""
    runs, cells, reasons = [{}], {}, []
    for path in paths:
        with open(path) as file:
            for text in file:
                line = json.loads(text)
                if line["who"] == "machine" and runs[-1]:
                    runs.append({})
                line["run"] = len(runs) - 1
                if "case" not in line:
                    runs[-1].setdefault(line["who"], {}).update(line)
                    continue
                reasons = [r for r in reasons if r["run"] == line["run"] or r["case"] != line["case"]
                           or r["who"] not in (line["who"], "all")]
                if "reason" in line:
                    measured = line["who"] == "all" and any(key[0] == line["case"] for key in cells)  # by a run before
                    reasons += [] if measured else [line]
                else:
                    cells[tuple(line.get(k) for k in ("case", "who", "attention", "pass", "pattern")) +
                          (bool(line.get("any_order")),)] = line
    return runs, cells, reasons


def plain(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))) for row in rows]


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0])] + lines[1:]


PLAIN, MARKDOWN = plain, markdown


class Table:
    """Rows of words under heads; a column without any word but a dash is left out."""

    def __init__(self, *heads):
        self.rows = [heads]

    def add(self, *cells):
        self.rows.append(cells)

    def show(self, out, form):
        if len(self.rows) == 1:
            return
        kept = [i for i in range(len(self.rows[0])) if i == 0 or any(row[i] != "-" for row in self.rows[1:])]
        print("\n".join(form([[row[i] for i in kept] for row in self.rows])) + "\n", file=out)


def number(value, form):
    return "-" if value is None else format(value, form)


def ratio(ours, theirs):
    """Of one run alone."""
    return number(theirs["ms"] / ours["ms"] if ours and theirs and ours["run"] == theirs["run"] else None, ".2f")


def names(cells, which):
    """Cases in the order in which they ran."""
    return list(dict.fromkeys(key[0] for key in cells if key[3] in which))


def show_passes(out, form, runs, cells):
    """Forward and backward of dense numbers."""
    for which in ("forward", "backward"):
        table = Table(which + ", TFLOP/s", "row", "softpick", "any order", "softmax", *PEERS, "of matmul", "/cudnn",
                      "any/cudnn", "/flash", "/triton", "/naive")
        for case in names(cells, (which,)):
            def cell(who, attention, any_order=False):
                return cells.get((case, who, attention, which, "dense", any_order))
            ours, any_order = cell("softpick", "softpick"), cell("softpick", "softpick", True)
            peers = {who: cell(who, "softmax") or cell(who, "softpick") for who in PEERS}
            shown = [ours, any_order, cell("softpick", "softmax"), *peers.values()]
            if not any(shown):
                continue
            matmul = runs[ours["run"]].get("scale", {}).get("matmul_gflops") if ours else None
            share = 1e3 * ours["tflops"] / matmul if matmul else None
            table.add(case, ours["variant"] if ours else "-", *(number(c and c["tflops"], ".0f") for c in shown),
                      number(share, ".2f"), ratio(ours, peers["cudnn"]), ratio(any_order, peers["cudnn"]),
                      *(ratio(ours, peers[who]) for who in ("flash", "triton", "naive")))
        table.show(out, form)


def show_zeros(out, form, cells):
    """Forward and backward with liveness words, against our own without them on dense numbers of that shape."""
    table = Table("zeros", "pass", "pattern", "row", "words", "dead blocks", "zeros", "ms", "TFLOP/s", "/own dense", "/cudnn")
    for (case, who, attention, which, pattern, any_order), line in cells.items():
        if who != "softpick" or pattern == "dense" or which == "decode" or any_order:
            continue
        dense = cells.get((case, who, attention, which, "dense", False))
        cudnn = cells.get((case, "cudnn", "softmax", which, "dense", False))
        table.add(case, which, pattern, line["variant"], "yes" if line["liveness"] else "no",
                  number(line["dead_blocks"], ".1%"), number(line["zeros"], ".1%"), number(line["ms"], ".3f"),
                  number(line["tflops"], ".0f"), ratio(line, dense), ratio(line, cudnn))
    table.show(out, form)


def show_decode(out, form, cells):
    table = Table("decode", "row", "keys live", "us", "TB/s", "softmax us", "cudnn us", "flash us", "/cudnn", "/flash",
                  "/own dense")
    for case in names(cells, ("decode",)):
        def cell(who, attention, pattern="dense"):
            return cells.get((case, who, attention, "decode", pattern, False))
        dense, cudnn, flash = cell("softpick", "softpick"), cell("cudnn", "softmax"), cell("flash", "softmax")
        for pattern in dict.fromkeys(key[4] for key in cells if key[0] == case and key[1] == "softpick"):
            line = cell("softpick", "softpick", pattern)
            if not line:
                continue
            table.add(case, line["variant"], number(1 - line["zeros"], ".1%"),
                      *(number(c and 1e3 * c["ms"], ".1f") if what == "us" else number(c and 1e-3 * c["gb_per_s"], ".2f")
                        for c, what in ((line, "us"), (line, "TB/s"), (cell("softpick", "softmax", pattern), "us"),
                                        (cudnn, "us"), (flash, "us"))),
                      ratio(line, cudnn), ratio(line, flash), ratio(line, dense) if pattern != "dense" else "-")
    table.show(out, form)


def show_reasons(out, reasons):
    seen = dict.fromkeys((line["case"], line["who"], line.get("pass", ""), line["reason"]) for line in reasons)
    if seen:
        print("Not measured:\n", file=out)
    for case, who, which, reason in seen:
        print(f"- {case}, {who} {which}".rstrip() + f": {reason}", file=out)


def show_about(out, form, about, cases):
    scale, torch = about.get("scale", {}), about.get("pytorch")
    words = [scale.get("device") or (torch or {}).get("device", "")]
    if scale.get("copy_gb_per_s"):
        words.append(f"copying {1e-3 * scale['copy_gb_per_s']:.2f} TB/s read and written")
    if scale.get("matmul_gflops"):
        words.append(f"bf16 product of 8192 x 8192 x 8192 {1e-3 * scale['matmul_gflops']:.0f} TFLOP/s")
    words.append(f"PyTorch {torch['version']}, cuDNN {torch['cudnn']}" if torch else "no PyTorch")
    lines = about.get("machine", {}).get("lines", []) + ["; ".join(word for word in words if word)]
    lines += ["Of this run: " + ", ".join(cases)] if cases else []
    print(("  \n" if form is MARKDOWN else "\n").join(lines) + "\n", file=out)


def show_runs(out, form, runs, cells):
    """The first run's head, and those of later ones with the cases that are theirs."""
    for i, about in enumerate(runs):
        whose, others = {}, {key[0] for key, line in cells.items() if line["run"] != i}
        for key, line in cells.items():
            if line["run"] == i:
                whose.setdefault(key[0], {})[key[1]] = True
        cases = [f"{case} ({', '.join(who)})" if case in others else case for case, who in whose.items()]
        if cases or i == 0:
            show_about(out, form, about, cases if i > 0 else [])


def show(paths, out, form):
    runs, cells, reasons = read(paths)
    show_runs(out, form, runs, cells)
    show_passes(out, form, runs, cells)
    show_zeros(out, form, cells)
    show_decode(out, form, cells)
    show_reasons(out, reasons)


def main():
    paths = [word for word in sys.argv[1:] if word != "--markdown"]
    if not paths:
        sys.exit(__doc__)
    show(paths, sys.stdout, MARKDOWN if "--markdown" in sys.argv else PLAIN)


if __name__ == "__main__":
    main()
