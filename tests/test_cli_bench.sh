#!/bin/sh
# softpick bench from the outside: messages, exit codes, streams, the table, the JSON document.
# Usage: test_cli_bench.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
bench=$here/../bench

# json EXPRESSION: true of the document d in out, and of its cases
json() {
    python3 -c 'import json, sys
d = json.load(open("out"))
cases = d["cases"]
sys.exit(0 if eval(sys.argv[1]) else 1)' "$1" 2>/dev/null || wrong "not so: $1"
}

small="--seconds 0 --threads 1 --length 70 --head-dim 16 --heads 2"

# usage
expect 2 bench
says err "Usage: softpick bench NAME"
expect 2 bench atention
says err '"atention" is not a benchmark'
for name in attention train capture; do
    expect 0 bench "$name" --help
    says out "Usage: softpick bench $name"
done
expect 2 bench attention --length 0
says err "--length: 0 is not between"
expect 2 bench attention --length 64,x
says err '--length: "x" is not a whole number'
expect 2 bench attention --pattern slabs=2
says err '--pattern: "slabs=2": "2" is not a share between 0 and 1'
expect 2 bench attention --dtype f32,f64
says err '--dtype: "f64" is not all or one of f32, bf16, f16'
expect 2 bench attention --passes sideways
says err '--passes: "sideways" is not all or one of forward, backward, decode'
expect 2 bench attention --attention hardmax
says err '--attention: "hardmax"'
expect 2 bench attention --variant warp
says err '--variant: "warp"'
expect 2 bench attention --kv-heads 3
says err "--heads: 8 is not a multiple of --kv-heads 3"
expect 2 bench attention --lambda nan
says err '--lambda: "nan"'
expect 2 bench attention shape
says err '"shape": no argument is expected'
expect 2 bench attention --device gpu
says err '--device: "gpu" is not cpu, cuda (the first GPU) or cuda:N'
expect 2 bench attention --device cuda --threads 2
says err "--threads: of the CPU alone"
expect 1 bench attention --device cuda:9999
says err "CUDA device 9999 was asked for"
one_line
expect 3 bench attention --pattern captured=nowhere.safetensors
says err "nowhere.safetensors: "
one_line

# training steps
expect 2 bench train --preset paper
says err '--preset: there is no "paper"'
expect 2 bench train --steps 0
says err "--steps: 0 is not between"
expect 2 bench train --length 9000
says err "--length: 9000 tokens, the model has 8192 positions"
expect 1 bench train --preset paper-340m --batch 60000
says err "a batch of 60000 x 4096 tokens needs"
says err "it would fit with --batch"
one_line
expect 1 bench train --device cuda:9999
says err "CUDA device 9999 was asked for"
one_line
expect 0 bench train --preset demo --steps 3
says out "3 layers, width 96, 3 heads, ffn 256, vocabulary 2048"
says out "4 x 64 tokens, 3 steps timed, 3 profiled"
says err "memory on cpu, GiB: parameters"
expect 0 bench train --preset demo --steps 2 --batch 3 --length 32 --layers 2 --recompute --json
cat >check.py <<'END'
import json
d = json.load(open("out"))
assert d["preset"] == "demo" and d["batch"] == 3 and d["length"] == 32 and d["layers"] == 2 and d["recompute"] is True
assert d["steps"] == 2 and d["device"] == "cpu" and d["device_name"] and d["peak_memory_bytes"] > 0
assert d["model_flop_utilisation"] is None and d["queue_seconds"] is None
assert abs(sum(d["step_shares"].values()) - 1) < 1e-9 and d["step_shares"]["matmul"] > 0
assert 0 < d["step_seconds"] and d["tokens_per_second_best"] >= d["tokens_per_second"] > 0
# 6 per weight and token but the embedding's, and attention: 12 a pair of query and key, head channel and layer
flops = 6 * 96 * (d["parameters"] - 2048 * 96) + 3 * 12 * 2 * 96 * 32 * 33 / 2
assert abs(d["tflops"] * 1e12 * 96 / d["tokens_per_second"] / flops - 1) < 1e-9
END
python3 check.py 2>err || wrong "the JSON document is not as expected"

# the table: what the machine can do, a row for each combination, refusals with their reasons
# shellcheck disable=SC2086
{
    expect 0 bench attention $small --passes forward,backward --dtype all --pattern dense,slabs=1 --variant all
    says out "matmul 4096 x 1024 x 1024, f32"
    says out "GFLOP/s"
    [ "$(grep -c '^forward ' out)" = "$(grep -c '^backward ' out)" ] || wrong "forward and backward differ in rows"
    [ "$(grep -c '^forward .* scalar ' out)" = 6 ] || wrong "scalar has not 3 dtypes x 2 patterns"
    grep '^forward .* slabs=1 .*scalar' out | grep -q '100.0% 100.0%$' || wrong "slabs=1 is not dead"
    last="SP_CPU=scalar softpick bench attention --variant avx2,scalar"
    SP_CPU=scalar "$tool" bench attention $small --passes forward --variant all >out 2>err || wrong "exit code $?"
    says out "refused: "
    says out "scalar"
    SP_CPU=scalar "$tool" bench attention $small --passes forward --variant avx2 >out 2>err
    [ $? = 1 ] || wrong "exit code is not 1"
    says err "nothing to time: "

    # JSON: the keys of a pass at the top when one case of it was asked for
    expect 0 bench attention $small --dtype bf16 --passes forward,backward --json
    json 'd["schema"] == 1 and d["forward_gflops"] > 0 and d["backward_gflops"] > 0'
    json '"decode_gb_per_s" not in d and len(cases) == 2'
    json 'all(c["pass"] in ("forward", "backward") and c["dtype"] == "bf16" and c["calls"] >= 1 for c in cases)'
    json 'cases[0]["gflops"] == d["forward_gflops"] and 0 < cases[0]["ms"] <= cases[0]["ms_median"]'
    # counting: B 1, H 2, T 70, D 16, causal
    json 'abs(cases[0]["gflops"] * cases[0]["ms"] * 1e6 / (2 * 70 * 71 / 2 * 4 * 16) - 1) < 1e-6'
    json 'abs(cases[1]["gflops"] * cases[1]["ms"] * 1e6 / (2 * 70 * 71 / 2 * 10 * 16) - 1) < 1e-6'
    json 'not d["matmul"] or d["matmul_gflops"] == [m["gflops"] for m in d["matmul"] if m["dtype"] == "bf16"][0]'
    expect 0 bench attention --seconds 0 --dtype bf16 --head-dim 64 --length 300 --threads 2 --json
    json 'd["forward_gflops"] > 0 and d["backward_gflops"] > 0 and d["decode_gb_per_s"] > 0'
    json 'not d["matmul"] or d["matmul_gflops"] > 0 and abs(cases[0]["of_matmul"] * d["matmul_gflops"] / d["forward_gflops"] - 1) < 1e-6'
    expect 0 bench attention $small --dtype f32 --passes forward --attention softpick,softmax --json \
        --pattern dense,zeros=1,slabs=0.5
    json '"forward_gflops" not in d and len(cases) == 6'
    json 'all(c["zeros"] == 0 and c["dead_blocks"] == 0 for c in cases if c["attention"] == "softmax")'
    json '[c["zeros"] for c in cases if c["attention"] == "softpick" and c["pattern"] == "zeros=1"] == [1]'
    json 'all(abs(c["executed_gflops"] / c["gflops"] - (1 if c["dead_blocks"] == 0 else 0.5)) < 1e-6 for c in cases
              if c["pattern"] != "slabs=0.5")'
    expect 0 bench attention $small --dtype f32 --passes forward --pattern zeros=1 --compute-dead --json
    json 'cases[0]["executed_gflops"] == cases[0]["gflops"] and cases[0]["dead_blocks"] == 1'
    expect 0 bench attention $small --dtype f32 --passes forward,backward --any-order --no-liveness --json
    json '[(c["pass"], c["any_order"]) for c in cases] == [("forward", False), ("backward", False), ("backward", True)]'
    json 'not any(c["liveness"] for c in cases)'
    expect 0 bench attention $small --dtype f32 --passes forward,decode --key-length 100 --json
    json 'cases[0]["liveness"] and not cases[1]["liveness"]'
    json 'len(cases) == 2 and cases[1]["length"] == 1 and cases[1]["key_length"] == 100'
    expect 0 bench attention $small --dtype f32 --passes decode --key-length 1000 --page-size 64 --kv-heads 1 --queries 3 \
        --pattern keys=0 --json
    json 'len(cases) == 1 and cases[0]["page_size"] == 64 and cases[0]["length"] == 3 and cases[0]["zeros"] == 1'
    json 'd["decode_gb_per_s"] > 0 and d["read"][0]["gb_per_s"] > 0'
}

# a layer of a model as the pattern
awk 'BEGIN { for (i = 0; i < 3000; i++) printf "line %d says the %d and the %d%s", i, i % 7, i * i % 11, ".\n" }' >text.txt
expect 0 tokenize --text text.txt --out shards --vocabulary 300
expect 0 train --data shards --out run --layers 2 --heads 4 --kv-heads 2 --width 64 --batch 4 --length 64 --steps 3
expect 2 bench capture run
says err "--data is missing"
expect 2 bench capture run --data shards --out layer --layer 2
says err "--layer: 2, the model has layers 0 to 1"
expect 2 bench capture run --data shards --out layer --batch 99
says err "--batch: shards has "
expect 3 bench capture nowhere --data shards --out layer
expect 0 bench capture run --data shards --out layer0 --layer 0 --batch 2 --length 70
expect 0 bench capture run --data shards --out layer --layer 1 --batch 2 --length 70
! cmp -s layer layer0 || wrong "layers 0 and 1 have the same numbers"
says out "layer: layer 1, q (2,70,4,16), 2 key heads, bf16, softpick"
# shellcheck disable=SC2086
{
    expect 0 bench attention $small --dtype f32 --passes forward,backward --pattern captured=layer --json
    json 'all(c["pattern"] == "captured=layer" and 0.2 < c["zeros"] < 0.8 for c in cases) and len(cases) == 2'
    expect 2 bench attention $small --dtype f32 --passes decode --pattern captured=layer --key-length 71
    says err "layer: its sequences have 70 tokens, 71 were asked for"
}

# the table of two programs: a peer that takes three times as long
mkdir both
# shellcheck disable=SC2086
expect 0 bench attention $small --dtype f32 --passes forward --attention softpick,softmax --json
cp out both/ours-1.json
python3 -c 'import json
d = json.load(open("out"))
longer = 3 * d["cases"][0]["ms"]
for c in d["cases"]: c["ms"] = longer
json.dump(d, open("both/peer-1.json", "w"))'
last="attention_table.py"
python3 "$bench/peers/attention_table.py" both >out 2>err || wrong "exit code $?"
[ "$(grep -c '  3.00    3.00$' out)" = 1 ] || wrong "not one row with the ratios 3.00 and 3.00"
rm both/peer-1.json
python3 "$bench/peers/attention_table.py" both >out 2>err || wrong "exit code $?"
says out "no PyTorch"
# that of a GPU, of lines as attention_gpu.py writes them, and a page made of it
cat >lines.jsonl <<'END'
{"who": "machine", "lines": ["some day, some GPU"]}
{"who": "scale", "device": "GPU", "copy_gb_per_s": 3000, "matmul_gflops": 800000}
{"case": "d64-4096", "who": "softpick", "attention": "softpick", "pass": "forward", "pattern": "dense", "variant": "sm90", "any_order": false, "liveness": true, "ms": 1.0, "tflops": 400.0, "gb_per_s": 1.0, "zeros": 0.5, "dead_blocks": 0.0}
{"case": "d64-4096", "who": "softpick", "attention": "softpick", "pass": "forward", "pattern": "slabs=0.9", "variant": "sm90", "any_order": false, "liveness": true, "ms": 0.8, "tflops": 500.0, "gb_per_s": 1.0, "zeros": 0.95, "dead_blocks": 0.9}
{"case": "d64-4096", "who": "cudnn", "attention": "softmax", "pass": "forward", "pattern": "dense", "ms": 1.5, "tflops": 266.0, "gb_per_s": null}
{"case": "small", "who": "softpick", "attention": "softpick", "pass": "decode", "pattern": "dense", "variant": "sm90", "any_order": false, "liveness": false, "ms": 0.01, "tflops": 1, "gb_per_s": 2000.0, "zeros": 0.5, "dead_blocks": null}
{"case": "small", "who": "flash", "attention": "softmax", "reason": "it would not run"}
END
last="attention_gpu_table.py"
python3 "$bench/peers/attention_gpu_table.py" lines.jsonl >out 2>err || wrong "exit code $?"
says out "some day, some GPU"
grep -q '^d64-4096 *sm90 *400 *266 *0.50 *1.50$' out || wrong "the row of forward is not as expected"
grep -q '^d64-4096 *forward *slabs=0.9 *sm90 *yes *90.0% *95.0% *0.800 *500 *1.25 *1.88$' out || wrong "nor that of zeros"
grep -q '^small *sm90 *50.0% *10.0 *2.00$' out || wrong "nor that of decode"
says out "- small, flash: it would not run"
cat >>lines.jsonl <<'END'
{"who": "machine", "lines": ["the day after"]}
{"case": "small", "who": "flash", "attention": "softmax", "pass": "decode", "pattern": "dense", "ms": 0.02, "gb_per_s": 1000.0}
END
python3 "$bench/peers/attention_gpu_table.py" lines.jsonl >out 2>err || wrong "exit code $?"
says out "the day after"
says out "Of this run: small (flash)"
grep -q "would not run" out && wrong "it has run since"
grep -q '^small *sm90 *50.0% *10.0 *2.00 *20.0$' out || wrong "a ratio of two runs, or no time of the second"
# the script that runs the cases, with a tool that always says the same
cp both/ours-1.json said.json
printf '#!/bin/sh\ncat "%s/said.json"\n' "$work" >stub
chmod +x stub
last="attention_gpu.py"
python3 "$bench/peers/attention_gpu.py" --tool ./stub --out gpu --peers= --cases d64-2048 >out 2>err || wrong "exit code $?"
[ "$(grep -c '"case": "d64-2048", "who": "softpick"' gpu/lines.jsonl)" = 2 ] || wrong "not the two cases of the tool"
printf '#!/bin/sh\necho "softpick: no luck" >&2\nexit 1\n' >stub
python3 "$bench/peers/attention_gpu.py" --tool ./stub --out gpu --peers= --cases d64-2048 >out 2>err || wrong "exit code $?"
grep -q '"reason": "softpick: no luck"' gpu/lines.jsonl || wrong "the reason is not in lines.jsonl"
python3 "$bench/peers/attention_gpu.py" --cases d63 >out 2>err && wrong "there is no such case"
says err '"d63" is not one of'
last="fill_benchmarks.py --check"
python3 "$bench/fill_benchmarks.py" --check >out 2>err || wrong "docs/benchmarks.md is not what bench/results says"
last="attention_cpu.sh nowhere"
"$bench/attention_cpu.sh" nowhere >out 2>err
[ $? = 2 ] || wrong "exit code is not 2"
says err "nowhere/softpick: there is no such program"
last="attention_gpu.sh nowhere"
"$bench/attention_gpu.sh" nowhere >out 2>err
[ $? = 2 ] || wrong "exit code is not 2"
says err "nowhere/softpick: there is no such program"

finish
