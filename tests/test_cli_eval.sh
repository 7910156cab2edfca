#!/bin/sh
# softpick eval from the outside: usage, messages, exit codes, the table, JSON, result files, Ctrl-C and --resume.
# Usage: test_cli_eval.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
OMP_NUM_THREADS=1 # a tiny model: threads would wait for each other
export OMP_NUM_THREADS

awk 'BEGIN { for (i = 0; i < 900; i++) printf "line %d says the %d and the %d.\n", i, i % 7, i * i % 11 }' >text.txt
expect 0 tokenize --text text.txt --out shards --vocabulary 300
expect 0 train --data shards --layers 1 --heads 2 --width 32 --batch 2 --length 128 --steps 2 --warmup 1 --out run
mkdir data
awk 'BEGIN { for (i = 0; i < 1500; i++)
    printf "{\"question\":\"line %d says\",\"choices\":[\"the %d\",\"and %d\",\"%d\"],\"gold\":%d}\n",
           i, i % 7, i % 5, i, i % 3 }' >data/arc_easy_test.jsonl
head -n 20 data/arc_easy_test.jsonl | sed 's/"question"/"stem"/' >data/stems.jsonl
cat >data/stems.json <<'EOF'
{"name": "stems", "kind": "multiple_choice", "data": "stems.jsonl",
 "context": "Question: {stem}\nAnswer:", "choices": "{choices}", "gold": "{gold}", "metrics": ["acc"]}
EOF

# usage
expect 0 eval --help
expect 2 eval
says err "which model?"
expect 2 eval run
says err "--tasks is missing"
expect 2 eval run --tasks arc_easy --limit none
says err "--limit: \"none\""
expect 2 eval run --tasks arc_easy --lm-eval-compat 0.5
says err "\"0.5\" is not 0.4.8 or 0.4.10"
expect 2 eval run --tasks arc_easy --samples
says err "--samples needs --out"
expect 2 eval run --tasks arc_easy --resume
says err "--resume needs --out"
expect 2 eval run --tasks arc_esy
says err "\"arc_esy\" is no task; there are arc_easy"
one_line

# what is missing or broken
expect 3 eval run --tasks piqa --data data
says err "data: piqa looks for piqa_valid.jsonl"
says err "https://"
one_line
expect 3 eval nowhere --tasks arc_easy --data data
says err "nowhere"
one_line
echo '{"question": ' >>data/arc_easy_test.jsonl
expect 3 eval run --tasks arc_easy --data data
says err "data/arc_easy_test.jsonl, line 1501: not JSON"
one_line
sed -i '$d' data/arc_easy_test.jsonl
echo "{\"question\": " >data/broken.jsonl
sed "s/stems.jsonl/broken.jsonl/" data/stems.json >data/broken.json
expect 3 eval run --tasks arc_easy --task-file data/broken.json --data data
says err "data/broken.jsonl, line 1: not JSON" # before the first task has begun
one_line
expect 3 eval run --task-file data/missing.json
one_line

# the list
expect 0 eval --list --data data
says out "data: data/arc_easy_test.jsonl"
says out "data: not in data: hellaswag_val.jsonl"
silent err

# the table and the JSON
expect 0 eval run --tasks arc_easy --task-file data/stems.json --data data --limit 20
says out "arc_easy"
says out "acc_norm"
says out "stems"
expect 0 eval run --tasks arc_easy --task-file data/stems.json --data data --limit 20 --num-fewshot 1 --json
if command -v python3 >/dev/null; then
    python3 - out <<'EOF' || wrong "the JSON is not as expected"
import json, sys
r = json.load(open(sys.argv[1]))
arc, stems = r["results"]["arc_easy"], r["results"]["stems"]
assert arc["acc,none"] == stems["acc,none"] and 0 <= arc["acc_norm,none"] <= 1
assert arc["sample_len"] == 20 and r["n-samples"]["arc_easy"] == {"original": 1500, "effective": 20}
assert abs(arc["acc_stderr,none"] - (arc["acc,none"] * (1 - arc["acc,none"]) / 19) ** 0.5) < 1e-12
assert r["n-shot"] == {"arc_easy": 1, "stems": 1} and r["versions"]["arc_easy"] == 1.0
assert r["config"]["limit"] == 20 and r["config"]["model_num_parameters"] > 0
assert r["softpick"]["schema"] == "softpick-eval/1" and r["softpick"]["lm_eval_compat"] == "0.4.10"
assert r["softpick"]["attention_function"] and r["softpick"]["tokens"] > 0
EOF
fi

# result files
# a model called "." has its folder's name
( cd run && "$tool" eval . --tasks arc_easy --data ../data --limit 2 --out ../here >out 2>err ) || wrong "eval . fails"
[ -d "$(echo here/*__run__step-00000002)" ] || wrong "the results of . are not called after its folder"
expect 0 eval run --tasks arc_easy --data data --limit 20 --out results --samples
[ "$(find results -name 'results_*.json' | wc -l)" = 1 ] || wrong "there is not one result file"
[ "$(cat results/*/samples_arc_easy_*.jsonl | wc -l)" = 20 ] || wrong "there are not 20 sample lines"
if command -v python3 >/dev/null; then
    python3 - <<'EOF' || wrong "the samples are not as expected"
import glob, hashlib, json
results = json.load(open(glob.glob("results/run*/results_*.json")[0]))
digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
hashes, right = "", 0
for i, line in enumerate(open(glob.glob("results/run*/samples_arc_easy_*.jsonl")[0])):
    s = json.loads(line)
    assert s["doc_id"] == i and s["metrics"] == ["acc", "acc_norm"]
    arguments = list(s["arguments"].values())
    sums = [float(response[0][0]) for response in s["resps"]]
    assert [list(response[0]) for response in s["resps"]] == s["filtered_resps"] and len(sums) == len(arguments) == 3
    assert s["acc"] == float(sums.index(max(sums)) == int(s["target"]))
    assert arguments[1]["arg_1"] == " " + s["doc"]["choices"][1]
    own = [digest(json.dumps(s["doc"], indent=2, ensure_ascii=False)), digest(arguments[0]["arg_0"]), digest(s["target"])]
    assert own == [s["doc_hash"], s["prompt_hash"], s["target_hash"]]
    hashes += "".join(own)
    right += s["acc"]
assert results["task_hashes"]["arc_easy"] == digest(hashes)
assert abs(results["results"]["arc_easy"]["acc,none"] - right / 20) < 1e-15
EOF
fi
[ -z "$(find results -name 'unfinished*')" ] || wrong "answers of a finished run are still there"

# Ctrl-C, and on from there
expect 0 eval run --tasks arc_easy --data data --num-fewshot 2 --json
grep '"acc,none"' out >whole
"$tool" eval run --tasks arc_easy --data data --num-fewshot 2 --out stopped >out 2>err </dev/null &
pid=$!
for _ in $(seq 500); do
    [ -e stopped ] && [ "$(cat stopped/*/unfinished_arc_easy.jsonl 2>/dev/null | wc -l)" -gt 1 ] && break
    sleep 0.01
done
kill -TERM "$pid"
wait "$pid"
code=$?
if [ "$code" = 0 ]; then
    echo "the evaluation was over before it could be interrupted"
else
    last="softpick eval, interrupted"
    [ "$code" = 1 ] || wrong "exit code $code, not 1"
    says err "the same command with --resume goes on from there"
    kept=$(cat stopped/*/unfinished_arc_easy.jsonl | wc -l)
    [ "$kept" -gt 1 ] || wrong "no answers were kept"
    expect 0 eval run --tasks arc_easy --data data --num-fewshot 2 --out stopped --resume --json
    grep '"acc,none"' out | cmp -s - whole || wrong "a resumed evaluation differs"
    [ -z "$(find stopped -name 'unfinished*')" ] || wrong "answers of a finished run are still there"
fi

finish
