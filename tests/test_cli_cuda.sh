#!/bin/sh
# The tool on a GPU: study, train, resume, measure, eval, generate, bench train, bench attention.  Exit status 77 (skipped) where there is none.
# Usage: test_cli_cuda.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
has_gpu || {
    echo "skipped: no GPU that can be used"
    exit 77
}

# python3 on standard input; a failed assertion is a failure
python() {
    python3 - >out 2>err || wrong "not as expected"
}

awk 'BEGIN { for (i = 0; i < 3000; i++) printf "line %d says the %d and the %d%s", i, i % 7, i * i % 11, ".\n" }' >text.txt
expect 0 tokenize --text text.txt --out shards --vocabulary 300
shape="--layers 2 --heads 2 --kv-heads 1 --width 128 --batch 4 --length 64"
tiny="--data shards $shape --device cuda --schedule constant --warmup 5 --learning-rate 1e-3" # at 3e-3 rows of the CPU part too

# ---- what is there, and what is refused ----
expect 0 info --device cuda --dtype bf16
says out "  cuda:0  "
says out "    > sm"
best=$(awk '$1 == ">" { print $2; exit }' out) # the row for heads of 64 channels, which all runs here have
export best
# shellcheck disable=SC2086 # words
{
    expect 1 train $tiny --out no --dtype f32
    says err "on a GPU a model computes in bf16"
    one_line
    expect 1 train $tiny --out no --width 512 --layers 8 --length 8000 --batch 60000
    says err "GiB that are free (cuda:0): it would fit with --batch"
    one_line
    expect 1 train $tiny --out no --device cuda:9999
    says err "CUDA device 9999 was asked for"
    one_line
}
[ ! -e no ] || wrong "a folder was made"

# ---- a run, the same run killed and resumed, the same run recomputing ----
# shellcheck disable=SC2086
{
    expect 0 train $tiny --out whole --steps 400 --checkpoint-every 20 --validate-every 100
    says err "memory on cuda:0, GiB: parameters"
    "$tool" train $tiny --out victim --steps 400 --checkpoint-every 20 --validate-every 100 >out 2>err &
    child=$!
    tries=0
    until [ -d victim/step-00000040 ] || [ $tries -gt 600 ]; do
        sleep 0.02
        tries=$((tries + 1))
    done
    kill -9 "$child" 2>/dev/null
    wait "$child" 2>/dev/null
    last="softpick train, killed"
    [ ! -d victim/step-00000400 ] || wrong "it ended before it could be killed"
    expect 0 train --data shards --out victim --device cuda --resume
    says out "steps            400"
    for file in model.safetensors training.safetensors training.json; do
        cmp -s "whole/step-00000400/$file" "victim/step-00000400/$file" || wrong "$file differs after a resumption"
    done
    expect 0 train $tiny --out again --steps 400 --recompute
    cmp -s whole/step-00000400/model.safetensors again/step-00000400/model.safetensors ||
        wrong "--recompute changes the weights"
}

# ---- the CPU's losses are near; a run of the CPU goes on here ----
# shellcheck disable=SC2086
expect 0 train $tiny --out cpu --device cpu --dtype bf16 --steps 20
expect 0 train --data shards --out cpu --device cuda --resume --steps 30
says out "steps            30"
last="losses on the GPU and on the CPU"
python <<'END'
import json
def lines(run, event):
    return [line for line in map(json.loads, open(run + "/log.jsonl")) if line["event"] == event]
def losses(run):
    return [line["loss"] for line in lines(run, "step")]
gpu, cpu = losses("whole"), losses("cpu")
difference = max(abs(a - b) for a, b in zip(gpu[:20], cpu[:20]))
print("largest difference of 20 losses:", difference)
assert difference < 0.02
assert [bool(line["machine"]["gpu"]) for line in lines("whole", "run") + lines("cpu", "run")] == [True, False, True]
assert gpu[399] < 1.5 < 4 < gpu[0], (gpu[0], gpu[399])
assert cpu[29] < cpu[0]
END
grep largest out

# ---- measures and texts ----
expect 0 measure whole --data shards --length 64 --samples 8 --measures all --device cuda --json
cp out gpu.json
expect 0 measure whole --data shards --length 64 --samples 8 --measures all --dtype bf16 --json
cp out cpu.json
last="softpick measure on the GPU and on the CPU"
python <<'END'
import json
gpu, cpu = (json.load(open(name))["measures"] for name in ("gpu.json", "cpu.json"))
assert list(gpu) == list(cpu)
for name in gpu:
    a, b = gpu[name]["value"], cpu[name]["value"]
    assert abs(a - b) <= 0.02 * max(1, abs(b)), (name, a, b)
END
expect 0 generate whole --device cuda --prompt "line 12 says" --tokens 40 --temperature 0
cp out first
expect 0 generate whole --device cuda --prompt "line 12 says" --tokens 40 --temperature 0
cmp -s out first || wrong "the same prompt went on in another way"
says out "line 12 says the "

# ---- a study ----
# shellcheck disable=SC2086
expect 0 study --text text.txt $shape --vocabulary 300 --steps 40 --samples 4 --device cuda --out study --json
last="softpick study"
cp out study.json
python <<'END'
import json, math, os
r = json.load(open("study.json"))
assert r["machine"]["device"] == "cuda:0" and r["machine"]["matmul_variant"] == "cublaslt"
assert r["machine"]["attention_variant"] == os.environ["best"] and r["settings"]["dtype"] == "bf16"
for name, m in r["models"].items():
    assert m["steps"] == 40 and m["skipped_steps"] == 0 and m["validation_loss"] < 5
    for key in "sink_rate sparsity kurtosis silent_heads row_mass".split():
        assert math.isfinite(m[key]), key
assert r["models"]["softmax"]["sparsity"] == 0 and r["models"]["softpick"]["sparsity"] > 0.01
END
[ -s study/report.html ] || wrong "no page"

# ---- eval: two lots of questions, the second made into tokens while the first is asked; answers as on the CPU ----
mkdir questions
awk 'BEGIN { for (i = 0; i < 9000; i++)
    printf "{\"question\":\"line %d says the %d and the %d.\",\"choices\":[\"the %d\",\"and %d says\",\"%d\"],\"gold\":%d}\n",
           i, i % 7, i % 11, i % 7, i % 5, i, i % 3 }' >questions/arc_easy_test.jsonl
expect 0 eval whole --tasks arc_easy --data questions --device cuda --out on-gpu --samples
says out "bf16 on cuda:0"
expect 0 eval whole --tasks arc_easy --data questions --limit 300 --out on-cpu --samples
last="softpick eval"
python <<'END'
import glob, json
def samples(out):
    return [json.loads(line) for line in open(glob.glob(out + "/*/samples_arc_easy_*.jsonl")[0])]
gpu, cpu = samples("on-gpu"), samples("on-cpu")
assert len(gpu) == 9000 and len(cpu) == 300
for ours, theirs in zip(gpu, cpu):
    for a, b in zip(ours["filtered_resps"], theirs["filtered_resps"]):
        assert abs(float(a[0]) - float(b[0])) < 0.1 + 0.02 * abs(float(b[0])), (ours["doc_id"], a, b)
END

# ---- timing ----
expect 0 bench train --device cuda --preset demo --steps 5 --json
last="softpick bench train"
cp out bench.json
python <<'END'
import json
d = json.load(open("bench.json"))
assert d["device"] == "cuda:0" and d["matmul"] == "cublaslt" and d["steps"] == 5
assert d["peak_memory_bytes"] > 0 and 0 < d["queue_seconds"] < 1
assert abs(sum(d["step_shares"].values()) - 1) < 1e-9 and d["step_shares"]["attention"] > 0
assert d["model_flop_utilisation"] is None or 0 < d["model_flop_utilisation"] < 1
END

shape="--device cuda --seconds 0 --batch 2 --heads 4 --kv-heads 2 --length 300"
# shellcheck disable=SC2086
{
    expect 1 bench attention $shape --dtype f32
    says err "nothing to time: "
    one_line
    expect 0 bench attention $shape --dtype bf16,f16 --attention softpick,softmax,rectified --pattern dense,slabs=0.5 \
        --head-dim 64 --key-length 300 --json
    last="softpick bench attention"
    cp out bench.json
    python <<'END'
import json
d = json.load(open("bench.json"))
assert d["device"] == "cuda:0" and d["device_name"] and d["fma_gflops"] is None and d["copy_gb_per_s"] > 0
assert len(d["cases"]) == 2 * 3 * 2 * 3  # dtypes, normalizers, patterns, passes
for c in d["cases"]:
    assert c["variant"].startswith("sm") and c["threads"] is None and c["calls"] == 1, c
    zero = c["attention"] in ("softpick", "rectified")
    assert (0.2 < c["zeros"] < 0.9) if zero else c["zeros"] == c["dead_blocks"] == 0, c
    assert c["gflops"] > 0 and (c["executed_gflops"] is None) == (c["dead_blocks"] is None and c["pass"] != "decode"), c
END
    expect 0 bench attention $shape --passes backward --any-order --no-liveness --variant all
    says out "backward bf16 softpick            300    300   64 dense      sm80"
    says out "dq in any order"
    expect 0 bench attention $shape --passes decode --key-length 2000 --page-size 64 --pattern keys=0.1 --json
    last="softpick bench attention, pages"
    cp out bench.json
    python <<'END'
import json
assert all(c["page_size"] == 64 and 0.85 < c["zeros"] < 0.95 for c in json.load(open("bench.json"))["cases"])
END
    expect 0 bench capture whole --data shards --layer 1 --length 64 --out layer
    expect 0 bench attention --device cuda --seconds 0 --batch 2 --heads 4 --kv-heads 2 --passes forward --head-dim 64 \
        --length 64 --pattern captured=layer
    says out " captured "
}

finish
