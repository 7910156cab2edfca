"""Attention of PyTorch on a GPU beside `softpick bench attention --device cuda`: the same shapes, counting and clock.

    python3 bench/peers/attention_gpu.py --tool build/cuda/softpick --out FOLDER [--cases d64-4096,...] [--peers cudnn,...]
    python3 bench/peers/attention_gpu.py --prepare [--cases ...] [--peers ...]

Case by case: first the tool, then each peer.  FOLDER gets the tool's JSON (ours-CASE*.json) and lines.jsonl with one object
for each measured pass of anyone, or the reason why there is none.  Without PyTorch the tool stands alone.  --prepare compiles the
peers that need it, all at once, and checks them; the run then finds them in the caches of PyTorch and Triton.

Peers: cudnn, flash   scaled_dot_product_attention by that backend, softmax
       flex           flex_attention, compiled, softmax
       flex_softpick  softpick as two calls of it: over the scores above 0, and for the sum over those below
       triton         softpick in Triton (attention_triton.py)
       naive          softpick by its formula, compiled: it holds T x T numbers
Each is first held against its formula in double precision (from 8192 tokens on in single) on one head of the very shape.

A turn is a rest of 60 ms, five calls that are not timed and ten that are, between events, all queued behind other work so that
the GPU never waits for Python; three turns each, in rotation; the median counts.  Tensors are (B,H,T,D), which suits PyTorch;
of decode as many copies of keys and values as make 256 MiB take turns.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

try:
    import torch
    import torch._functorch.config
    import torch.nn.functional as F
except ImportError:
    torch = None

EPS = 1e-6
TURNS, WARM_UPS, CALLS, LONG_CALLS = 3, 5, 10, 3
REST = 0.06
LONG = 0.02  # seconds: of calls as long as this a turn has LONG_CALLS
AHEAD_CYCLES = 10_000_000  # some 5 ms, in which Python queues a turn's calls
COLD_BYTES = 1 << 28

# ---- the cases: name, batch, heads, key heads, head width, length (of decode: keys), and what else is special


def prefill(D, T, tokens=16384, width=2048, **more):
    heads = width // D
    return {"name": f"d{D}-{T}", "B": tokens // T, "H": heads, "Hkv": heads, "D": D, "T": T, "S": T, "causal": True,
            "passes": ["forward", "backward"], "patterns": ["dense"], "page": 0, "any_order": False,
            "peers": ["cudnn", "flash", "triton"], **more}


def decode(B, H, Hkv, D, S, page=0):
    name = f"decode-{H}.{Hkv}-d{D}-b{B}-{S}" + (f"-page{page}" if page else "")
    return {"name": name, "B": B, "H": H, "Hkv": Hkv, "D": D, "T": 1, "S": S, "causal": False, "passes": ["decode"],
            "patterns": ["dense", "keys=0.1"], "page": page, "any_order": False, "peers": [] if page else ["cudnn", "flash"]}


def chosen(case):
    """What --cases calls it; name is where its figures belong."""
    return case.get("chosen", case["name"])


SLABS = ["slabs=0.5", "slabs=0.9", "slabs=0.99"]
SDPA = ["cudnn", "flash"]
CASES = [  # what matters most first: a budget of time may cut the end
    prefill(64, 4096, any_order=True, patterns=["dense"] + SLABS),
    prefill(128, 4096, any_order=True, patterns=["dense"] + SLABS),
    prefill(64, 2048, any_order=True),
    prefill(64, 8192, any_order=True),
    prefill(64, 16384, any_order=True),
    decode(1, 32, 8, 128, 131072),
    decode(16, 32, 8, 128, 8192),
    decode(1, 32, 8, 64, 131072),
    decode(1, 32, 8, 64, 32768),
    decode(16, 16, 16, 128, 8192),
    decode(1, 32, 8, 128, 4096),
    decode(16, 32, 8, 128, 8192, page=64),
    prefill(128, 2048, any_order=True),
    prefill(128, 8192, any_order=True),
    prefill(128, 16384, any_order=True),
    prefill(64, 2048, name="captured", patterns=["captured"], peers=[]),
    prefill(64, 4096, chosen="d64-4096-flex", patterns=[], peers=["flex", "flex_softpick"]),  # long to compile; without us
    prefill(64, 2048, chosen="d64-2048-naive", patterns=[], peers=["naive"]),
    prefill(128, 4096, chosen="d128-4096-flex", patterns=[], peers=["flex"]),
    prefill(64, 4096, name="d64-4096-full", causal=False, peers=SDPA),
    prefill(128, 4096, name="d128-4096-full", causal=False, peers=SDPA),
    prefill(96, 4096, width=2304, peers=SDPA),
    prefill(256, 4096, peers=SDPA),
]

# ---- our own tool


def tool_command(a, case, attention, patterns, *more):
    passes = case["passes"]
    shape = ["--batch", case["B"], "--heads", case["H"], "--kv-heads", case["Hkv"], "--head-dim", case["D"]]
    shape += ["--key-length", case["S"]] if "decode" in passes else ["--length", case["T"]]
    shape += ["--page-size", case["page"]] if case["page"] else []
    shape += [] if case["causal"] or "decode" in passes else ["--no-causal"]
    return [a.tool, "bench", "attention", "--device", a.device, "--json", "--dtype", "bf16", "--attention", attention,
            "--passes", ",".join(passes), "--pattern", ",".join(patterns), *map(str, shape), *more]


def run_tool(a, case, label, command):
    """The cases of its JSON; what failed is a line of its own."""
    environment = dict(os.environ)
    if a.tool_libraries:
        environment["LD_LIBRARY_PATH"] = a.tool_libraries
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=a.limit)
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1] if done.returncode != 0 else None
    except subprocess.TimeoutExpired:
        reason = f"stopped after {a.limit:g} s"
    if reason:
        write(a, {"case": case["name"], "who": "softpick", "label": label, "reason": reason})
        return
    with open(os.path.join(a.out, f"ours-{case['name']}{label}.json"), "w") as file:
        file.write(done.stdout)
    document = json.loads(done.stdout)
    if not a.scale:
        a.scale = {"who": "scale", "device": document["device_name"], "copy_gb_per_s": document["copy_gb_per_s"],
                   "matmul_gflops": document["matmul"][0]["gflops"] if document["matmul"] else None}
        write(a, a.scale)
    for c in document["cases"]:
        line = {"case": case["name"], "who": "softpick", **{k: c[k] for k in ("attention", "pass", "pattern", "variant")}}
        if c["pattern"].startswith("captured="):
            line["pattern"] = "captured"
        if label == "-zeros" and c["pattern"] == "dense":
            line["pattern"] = "dense, words"
        if c["variant"] is None:
            write(a, {**line, "reason": c["refused"]})
            continue
        write(a, {**line, "any_order": c["any_order"], "liveness": c["liveness"], "ms": c["ms_median"],
                  "ms_least": c["ms"], "tflops": 1e-3 * c["gflops"], "gb_per_s": c["gb_per_s"], "zeros": c["zeros"],
                  "dead_blocks": c["dead_blocks"]})


def ours(a, case):
    """Dense numbers without liveness words; what has zeros with them, and dense numbers once more, to see what they cost."""
    patterns = case["patterns"]
    if not patterns:
        return
    if patterns == ["captured"]:
        if a.captured:
            run_tool(a, case, "", tool_command(a, case, "softpick", ["captured=" + a.captured]))
    elif case["passes"] == ["decode"]:
        run_tool(a, case, "", tool_command(a, case, "softpick,softmax", patterns))
    else:
        more = ["--no-liveness"] + ["--any-order"] * case["any_order"]
        run_tool(a, case, "", tool_command(a, case, "softpick,softmax", ["dense"], *more))
        if patterns != ["dense"]:
            run_tool(a, case, "-zeros", tool_command(a, case, "softpick", patterns))


# ---- the peers: functions of q (B,H,T,D), k and v (B,Hkv,S,D)


def sdpa(backend):
    def make(case):
        from torch.nn.attention import SDPBackend, sdpa_kernel
        chosen = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[backend]
        grouped = case["H"] != case["Hkv"]

        def run(q, k, v):
            with sdpa_kernel(chosen):
                return F.scaled_dot_product_attention(q, k, v, is_causal=case["causal"], enable_gqa=grouped)
        return run
    return make


def causal_blocks(case):
    from torch.nn.attention.flex_attention import create_block_mask
    if not case["causal"]:
        return None
    return create_block_mask(lambda b, h, q, k: q >= k, None, None, case["T"], case["S"], device="cuda")


def flex(case):
    from torch.nn.attention.flex_attention import flex_attention
    blocks = causal_blocks(case)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks)


def log_above(score, b, h, q, k):
    """ln(e^s - 1) = s + ln(1 - e^-s) of the scores above 0, without a NaN in the derivative of the others."""
    above = torch.where(score > 0, score, 1.0)
    return torch.where(score > 0, above + torch.log(-torch.expm1(-above)), -float("inf"))


def log_below(score, b, h, q, k):
    """ln(1 - e^s) of those below."""
    return torch.where(score < 0, torch.log(-torch.expm1(torch.where(score < 0, score, -1.0))), -float("inf"))


def flex_softpick(case):
    """sum u v / P and ln P by the first call, ln N by the second, whose values are next to none; then P / (P + N + eps)."""
    from torch.nn.attention.flex_attention import flex_attention
    blocks = causal_blocks(case)
    compiled = torch.compile(flex_attention, dynamic=False)

    @torch.compile(dynamic=False)
    def join(above, ln_p, ln_n):
        ln_p = ln_p.clamp(min=-60)  # of a row without a score above 0 it is -inf, and the derivative below inf times 0
        share = 1 / (1 + torch.exp(ln_n - ln_p) + EPS * torch.exp(-ln_p))
        return (above * share[..., None]).to(above.dtype)

    def two_calls(q, k, v):
        above, ln_p = compiled(q, k, v, score_mod=log_above, block_mask=blocks, return_lse=True)
        few = torch.zeros_like(v[..., :16])
        _, ln_n = compiled(q, k, few, score_mod=log_below, block_mask=blocks, return_lse=True)
        return join(above, ln_p, ln_n)
    return two_calls


def naive(case):
    def formula(q, k, v):
        return softpick_of(q @ k.transpose(-2, -1), q.shape[-1], case["causal"]).to(v.dtype) @ v
    return torch.compile(formula, dynamic=False)


def triton(case):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from attention_triton import attention
    return lambda q, k, v: attention(q, k, v, case["causal"])


PEERS = {"cudnn": (sdpa("cudnn"), "softmax"), "flash": (sdpa("flash"), "softmax"), "flex": (flex, "softmax"),
         "flex_softpick": (flex_softpick, "softpick"), "triton": (triton, "softpick"), "naive": (naive, "softpick")}

# ---- the formulas, for the check


def seen(T, S, device):
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def softpick_of(products, D, causal):
    """relu(e^s - 1) / (sum |e^s - 1| + eps), numerator and denominator times e^-c; a masked score is 0 and adds nothing."""
    scores = products if products.dtype == torch.float64 else products.float()
    scores = scores * D**-0.5
    if causal:
        scores = torch.where(seen(scores.shape[-2], scores.shape[-1], scores.device), scores, 0.0)
    top = scores.detach().amax(-1, keepdim=True).clamp(min=0)
    u = torch.exp(scores - top) - torch.exp(-top)
    return F.relu(u) / (u.abs().sum(-1, keepdim=True) + EPS * torch.exp(-top))


def softmax_of(products, D, causal):
    scores = products * D**-0.5
    if causal:
        scores = scores.masked_fill(~seen(scores.shape[-2], scores.shape[-1], scores.device), -float("inf"))
    return scores.softmax(-1)


def check(case, attention, run, q, k, v, dout):
    """Relative errors of the outputs of the heads that share the last key head of the last sequence."""
    group = case["H"] // case["Hkv"]
    backward = "backward" in case["passes"]
    found = run(q, k, v)
    gradients = torch.autograd.grad(found, (q, k, v), dout) if backward else ()
    exact = torch.float64 if case["S"] < 8192 else torch.float32
    slices = [x.detach()[-1:, -n:].to(exact).requires_grad_(backward) for x, n in ((q, group), (k, 1), (v, 1))]
    weights = {"softmax": softmax_of, "softpick": softpick_of}[attention](
        slices[0] @ slices[1].transpose(-2, -1), case["D"], case["causal"])
    truth = weights @ slices[2]
    truths = [truth] + (list(torch.autograd.grad(truth, slices, dout[-1:, -group:].to(exact))) if backward else [])
    errors = []
    for result, expected, n in zip((found, *gradients), truths, (group, group, 1, 1)):
        difference = result.detach()[-1:, -n:].to(exact) - expected
        errors.append(float((difference.norm() / expected.norm()).detach()))
    return errors


# ---- time


class Peer:
    """One peer on one case: its inputs, its times."""

    def __init__(self, case, name):
        make, self.attention = PEERS[name]
        self.case, self.name, self.seconds = case, name, {p: [] for p in case["passes"]}
        self.decodes = case["passes"] == ["decode"]
        generator = torch.Generator("cuda").manual_seed(1)

        def draw(heads, n):
            return torch.randn(case["B"], heads, n, case["D"], generator=generator, device="cuda", dtype=torch.bfloat16)

        q, dout = draw(case["H"], case["T"]), draw(case["H"], case["T"])
        k, v = draw(case["Hkv"], case["S"]), draw(case["Hkv"], case["S"])
        copies = -(-COLD_BYTES // (4 * k.numel())) if self.decodes else 1
        self.caches = [(k, v)] + [(k.clone(), v.clone()) for _ in range(copies - 1)]
        self.next_cache, self.q, self.dout, self.run = 0, q, dout, make(case)
        if not self.decodes:
            for tensor in (q, k, v):
                tensor.requires_grad_(True)
        self.errors = check(case, self.attention, self.run, q, k, v, dout)
        bounds = [2e-2] + [4e-2] * 3
        if not all(error <= bound for error, bound in zip(self.errors, bounds)):
            raise RuntimeError(f"wrong results: errors of out, dq, dk, dv {self.errors}")

    def forward(self):
        k, v = self.caches[self.next_cache]
        self.next_cache = (self.next_cache + 1) % len(self.caches)
        with torch.no_grad():
            return self.run(self.q, k, v)

    def turn(self, which):
        call = self.forward
        if which == "backward":
            k, v = self.caches[0]
            out = self.run(self.q, k, v)
            call = lambda: torch.autograd.grad(out, (self.q, k, v), self.dout, retain_graph=True)  # noqa: E731
        done = self.seconds[which]
        n = LONG_CALLS if done and min(done) > LONG else CALLS
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
        torch.cuda.synchronize()
        time.sleep(REST)
        torch.cuda._sleep(AHEAD_CYCLES)
        for _ in range(WARM_UPS if n == CALLS else 1):
            call()
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        done += [1e-3 * first.elapsed_time(last) for first, last in zip(marks, marks[1:])]

    def describe(self, which):
        c, seconds = self.case, statistics.median(self.seconds[which])
        pairs = c["B"] * c["H"] * (c["T"] * (c["T"] + 1) / 2 if c["causal"] else c["T"] * c["S"])
        cache = 4 * c["B"] * c["Hkv"] * c["S"] * c["D"]
        return {"case": c["name"], "who": self.name, "attention": self.attention, "pass": which, "pattern": "dense",
                "ms": 1e3 * seconds, "ms_least": 1e3 * min(self.seconds[which]),
                "tflops": 1e-12 * pairs * c["D"] * (10 if which == "backward" else 4) / seconds,
                "gb_per_s": 1e-9 * cache / seconds if which == "decode" else None, "errors": self.errors}


def short(error):
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0].strip()}"[:300]


COMPILED = ("flex", "flex_softpick", "triton", "naive")


def prepare(a):
    """A process for each peer and case that has something to compile: Triton's code is one for a head width and a mask."""
    wanted = {}
    for case in a.cases:
        for name in case["peers"]:
            if name in a.peers and name in COMPILED:
                wanted.setdefault((name, case["D"], case["causal"]) if name == "triton" else (name, chosen(case)), case)
    if len(wanted) == 1:
        (name, *_), case = wanted.popitem()
        Peer(case, name)
        return
    command = [sys.executable, os.path.abspath(__file__), "--prepare"]
    began = time.perf_counter()
    running = [(chosen(case), key[0], subprocess.Popen(command + ["--cases", chosen(case), "--peers", key[0]]))
               for key, case in wanted.items()]
    for case, name, process in running:
        failed = process.wait() != 0
        say(f"{time.perf_counter() - began:6.1f} s  {case} {name}: {'failed' if failed else 'compiled and checked'}")


def peers(a, case):
    wanted = [name for name in case["peers"] if name in a.peers]
    ready = []
    for name in wanted:
        began = time.perf_counter()
        try:
            ready.append(Peer(case, name))
        except Exception as error:  # whatever it is, it is the reason that the table shows
            write(a, {"case": case["name"], "who": name, "attention": PEERS[name][1], "reason": short(error)})
        say(f"  {name}: ready after {time.perf_counter() - began:.1f} s")
    for which in case["passes"]:
        broken = {}
        for _ in range(TURNS):
            for peer in ready:
                if peer.name in broken:
                    continue
                try:
                    peer.turn(which)
                except Exception as error:
                    broken[peer.name] = short(error)
        for peer in ready:
            if peer.name in broken:
                write(a, {"case": case["name"], "who": peer.name, "attention": peer.attention, "pass": which,
                          "reason": broken[peer.name]})
            else:
                write(a, peer.describe(which))
    del ready
    torch.cuda.empty_cache()


# ---- the run


def say(text):
    print(text, file=sys.stderr, flush=True)


def write(a, line):
    with open(os.path.join(a.out, "lines.jsonl"), "a") as file:
        file.write(json.dumps(line) + "\n")
    if "reason" in line:
        say(f"  {line['who']}: {line['reason']}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", help="softpick; without it the peers alone")
    parser.add_argument("--tool-libraries", help="LD_LIBRARY_PATH of the tool, where PyTorch must not see it")
    parser.add_argument("--device", default="cuda", help="of the tool")
    parser.add_argument("--out", default="attention")
    parser.add_argument("--cases", help="names, with commas between them (default: all); --list shows them")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--captured", help="file for the case captured, by softpick bench capture; without it none")
    parser.add_argument("--machine", help="file with lines about the machine, which are to stand before the tables")
    parser.add_argument("--limit", type=float, default=40, help="seconds for one run of the tool")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no further case begins")
    parser.add_argument("--prepare", action="store_true", help="compile and check peers, and no more")
    parser.add_argument("--list", action="store_true", help="the names of the cases, and no more")
    a = parser.parse_args()
    names = [chosen(case) for case in CASES]
    if a.list:
        print("\n".join(names))
        sys.exit(0)
    a.peers = a.peers.split(",") if a.peers else []
    a.cases = a.cases.split(",") if a.cases else names
    for word, known in [(w, names) for w in a.cases] + [(w, PEERS) for w in a.peers]:
        if word not in known:
            parser.error(f'"{word}" is not one of {", ".join(known)}')
    a.cases = [case for case in CASES if chosen(case) in a.cases]
    a.scale = None
    return a


def main():
    a = parse()
    has_peers = torch is not None and torch.cuda.is_available()
    if has_peers:
        torch._functorch.config.donated_buffer = False  # a graph may go backward more than once
    if a.prepare:
        if has_peers:
            prepare(a)
        return
    os.makedirs(a.out, exist_ok=True)
    if a.machine:
        with open(a.machine) as file:
            write(a, {"who": "machine", "lines": file.read().splitlines()})
    if has_peers:
        write(a, {"who": "pytorch", "version": torch.__version__, "cudnn": torch.backends.cudnn.version(),
                  "device": torch.cuda.get_device_name()})
    else:
        say("no PyTorch that sees a GPU: the library alone")
    began = time.perf_counter()
    for case in a.cases:
        if time.perf_counter() - began > a.budget:
            write(a, {"case": case["name"], "who": "all", "reason": "no time was left"})
            continue
        say(f"{time.perf_counter() - began:6.1f} s  {chosen(case)}")
        if a.tool:
            ours(a, case)
        if has_peers:
            with contextlib.suppress(AttributeError):
                torch._dynamo.reset()
            peers(a, case)
    say(f"{time.perf_counter() - began:6.1f} s  done")


if __name__ == "__main__":
    main()
