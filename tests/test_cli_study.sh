#!/bin/sh
# softpick study from text to page: what it writes, that it goes on where it was stopped as if it had not been, and what
# it refuses with which exit code.
# Usage: test_cli_study.sh TOOL
set -u
tool=$1
scratch=${TMPDIR:-/tmp}
[ -w /dev/shm ] && scratch=/dev/shm
work=$(mktemp -d "$scratch/study.XXXXXX")
trap 'rm -rf "$work"' EXIT
failures=0
export OMP_NUM_THREADS=2 GOMP_SPINCOUNT=100 # two threads spin little where other work goes on

wrong() {
    failures=$((failures + 1))
    echo "FAILED: $last: $1"
    tail -n 5 "$work/out" "$work/err"
}

study() {
    last="softpick study $*"
    "$tool" study "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
}

# refused CODE WORD ARGUMENT...: that exit code, one line with that word, nothing on standard output
refused() {
    wanted=$1
    word=$2
    shift 2
    study "$@"
    [ "$code" = "$wanted" ] || wrong "exit code $code, not $wanted"
    grep -q -e "$word" "$work/err" || wrong "the message lacks \"$word\""
    [ -s "$work/out" ] && wrong "something on standard output"
}

# sentences of made-up words, always the same
awk 'BEGIN { srand(7); for (line = 0; line < 3000; line++) { text = "";
    for (word = 0; word < 9; word++) { letters = "";
        for (i = 0; i < 2 + int(rand() * 2); i++)
            letters = letters substr("bdfgklmnprst", 1 + int(rand() * 12), 1) substr("aeiou", 1 + int(rand() * 5), 1);
        text = text letters (word < 8 ? " " : ".") } print text } }' >"$work/text.txt"

shape="--layers 2 --heads 2 --width 32 --vocabulary 400 --length 32 --steps 60 --samples 4 --seed 3"
small="--text $work/text.txt $shape"

# ---- a whole study ----
# shellcheck disable=SC2086 # words
study $small --out "$work/a"
[ "$code" = 0 ] || wrong "exit code $code"
for file in results.json report.html tokens/tokenizer.model softmax/log.jsonl softpick/log.jsonl; do
    [ -s "$work/a/$file" ] || wrong "$file is missing"
done
grep -q 'validation loss' "$work/out" || wrong "no table"
grep -q "$work/a/report.html" "$work/out" || wrong "the table does not say where the page is"

cat >"$work/check.py" <<'END'
import json, math, sys
r = json.load(open(sys.argv[1]))
assert r["schema"] == "softpick-results/1" and list(r["models"]) == ["softmax", "softpick"]
for name, m in r["models"].items():
    assert r["settings"]["minutes"] is None, "the steps were given"
    assert m["attention_function"] == name and m["steps"] == 60 and m["skipped_steps"] == 0
    for key in "validation_loss sink_rate sparsity kurtosis silent_heads row_mass activation_max".split():
        assert math.isfinite(m[key]), key
    for key in "sink_rate sparsity kurtosis silent_heads row_mass".split():
        measure = m["measures"][key]
        assert measure["value"] == m[key] and measure["T"] == 32 and measure["n_samples"] == 4 and measure["dtype"], key
    assert m["validation_loss"] < 5.9 < m["curve"]["loss"][0] + 0.3, "nothing was learnt"  # ln 400 = 5.99
    trace = m["checkpoints"]
    assert trace["step"] == list(range(0, 61, 6)) and trace["T"] == 32 and trace["n_samples"] == 4
    assert all(len(values) == 11 for values in trace["measures"].values()) and "dead_heads" in trace["measures"]
    assert trace["measures"]["dead_heads"][0] == 0 and trace["measures"]["kurtosis"][-1] > 1
    assert m["measures"]["sink_rate"]["by_length"]["length"] == [16, 32] and m["measures"]["masking"]["masked"]
    assert m["maps"]["rollout"]["weights"][0] == [1.0]
    assert len(m["curve"]["step"]) == 60 and m["maps"]["maps"] and len(m["samples"]) == 2
soft, pick = r["models"]["softmax"], r["models"]["softpick"]
assert soft["row_mass"] > 0.999 and soft["sparsity"] == 0
assert pick["row_mass"] < 0.999 and pick["sparsity"] > 0.01
assert soft["tokens"] == pick["tokens"] and soft["validation_targets"] == pick["validation_targets"]
END
python3 "$work/check.py" "$work/a/results.json" >"$work/err" 2>&1 || wrong "results.json is not as it should be"

# ---- stopped twice, and gone on ----
# stop_in MODEL: begins or goes on, and is stopped when a few steps of that model are logged
stop_in() {
    # shellcheck disable=SC2086
    "$tool" study $small --out "$work/b" >"$work/out" 2>"$work/err" </dev/null &
    for _ in $(seq 1 3000); do
        grep -q '"event":"step","step":5,' "$work/b/$1/log.jsonl" 2>/dev/null && break
        sleep 0.01
    done
    kill -TERM $!
    wait $!
    code=$?
    last="softpick study, stopped while it trained $1"
    [ "$code" = 1 ] || wrong "exit code $code, not 1"
    grep -q 'goes on from there' "$work/err" || wrong "it does not say how to go on"
}
stop_in softmax
stop_in softpick
# shellcheck disable=SC2086
study $small --out "$work/b" --recompute
[ "$code" = 0 ] || wrong "exit code $code after two stops"
cat >"$work/same.py" <<'END'
import json, sys
a, b = (json.load(open(path))["models"] for path in sys.argv[1:])
for name in a:
    for key in "validation_loss train_loss sink_rate sparsity kurtosis row_mass samples maps checkpoints".split():
        assert a[name][key] == b[name][key], (name, key)
    for key in "step", "loss":  # a stop adds a validation
        assert a[name]["curve"][key] == b[name]["curve"][key], (name, key)
END
python3 "$work/same.py" "$work/a/results.json" "$work/b/results.json" >"$work/err" 2>&1 ||
    wrong "a study stopped and gone on is another one"

# ---- what is refused ----
# shellcheck disable=SC2086
refused 2 "finished study" $small --out "$work/a"
rm "$work/b/results.json"
# shellcheck disable=SC2086
refused 2 "length is 32 there and 16 here" $small --length 16 --out "$work/b"
# shellcheck disable=SC2086
refused 2 'dtype is "auto" there and "f32" here' $small --dtype f32 --out "$work/b"
refused 2 "text is missing" --out "$work/c"
refused 2 "out is missing" --text "$work/text.txt"
refused 2 "demoo" --text "$work/text.txt" --preset demoo --out "$work/c"
refused 2 "hardmax" --text "$work/text.txt" --attention softmax,hardmax --out "$work/c"
refused 2 "stands twice" --text "$work/text.txt" --attention softmax,softmax --out "$work/c"
refused 2 "5 heads" --text "$work/text.txt" --width 96 --heads 5 --out "$work/c"
refused 2 "gpu" --text "$work/text.txt" --device gpu --out "$work/c"
refused 1 "CUDA device 9999 was asked for" --text "$work/text.txt" --device cuda:9999 --out "$work/c"
refused 1 "GiB that are free" --text "$work/text.txt" --preset paper-1.8b --batch 4096 --out "$work/c"
refused 2 "f16" --text "$work/text.txt" --dtype f16 --out "$work/c"
refused 2 "foo" --text "$work/text.txt" --packing foo --out "$work/c"
refused 2 "steps" --text "$work/text.txt" --steps 0 --minutes 0 --out "$work/c"
refused 2 "layers" --text "$work/text.txt" --layers many --out "$work/c"
refused 2 "not UTF-8" --text "$work/text.txt" --prompt "$(printf 'caf\351')" --out "$work/c"
[ -e "$work/c" ] && wrong "wrong usage made a folder"
refused 3 "nowhere" --text "$work/nowhere.txt" --out "$work/d"
head -c 5000 "$tool" >"$work/binary.txt"
refused 3 "binary.txt" --text "$work/binary.txt" --out "$work/d"
: >"$work/empty.txt"
refused 3 "empty.txt" --text "$work/empty.txt" --out "$work/d"
refused 3 "null" --text "$work/text.txt" --out /dev/null/x

# ... and before any training what would fail after it
# shellcheck disable=SC2086
refused 2 "32 positions" $small --length 16 --out "$work/d" \
    --prompt "$(head -n 9 "$work/text.txt" | tr '\n' ' ')"
# shellcheck disable=SC2086
refused 3 "too short for one sample of 128" $small --length 64 --measure-length 128 --validation-fraction 0.0002 --out "$work/d"
[ -e "$work/d/softmax" ] && wrong "training began"

# shellcheck disable=SC2086
refused 2 "no task" $small --tasks arc_easyy --out "$work/h"
# shellcheck disable=SC2086
refused 3 "arc_easy" $small --tasks arc_easy --task-data "$work/a" --out "$work/h"
[ -e "$work/h" ] && wrong "a task that cannot be done made a folder"
# shellcheck disable=SC2086
refused 2 "passkey" $small --tasks passkey --out "$work/h"
[ -e "$work/h/softmax/step-00000001" ] && wrong "training began, and its passkey prompts do not fit"

head -n 500 "$work/text.txt" >"$work/part.txt"

# ---- tasks: what softpick eval says of the same checkpoint ----
mkdir "$work/data"
cat >"$work/data/arc_easy_test.jsonl" <<'END'
{"id": "1", "question": "bada kilo?", "choices": ["bada", "kilo ra", "sise"], "gold": 1}
{"id": "2", "question": "mapo rugi?", "choices": ["tepa", "mapo", "lu"], "gold": 0}
{"id": "3", "question": "fide?", "choices": ["no", "fide", "kuma"], "gold": 2}
END
# shellcheck disable=SC2086
study $shape --text "$work/part.txt" --steps 2 --length 64 --tasks arc_easy --task-data "$work/data" --out "$work/t"
[ "$code" = 0 ] || wrong "exit code $code with tasks"
grep -q "arc_easy acc_norm  *[0-9.]*%  *[0-9.]*%  *[-+]" "$work/out" || wrong "the table lacks the task"
grep -q "arc_easy" "$work/t/report.html" || wrong "the page lacks the task"
cat >"$work/tasks.py" <<'END'
import json, sys
study = json.load(open(sys.argv[1]))["models"]["softpick"]["evaluation"]["results"]
alone = json.load(open(sys.argv[2]))["results"]
assert study["arc_easy"]["sample_len"] == 3 and study.keys() == alone.keys(), study
for metric in "acc", "acc_stderr", "acc_norm", "acc_norm_stderr":  # results.json keeps 12 digits
    assert abs(study["arc_easy"][metric + ",none"] - alone["arc_easy"][metric + ",none"]) < 1e-10, metric
END
last="softpick eval"
"$tool" eval "$work/t/softpick" --tasks arc_easy --data "$work/data" --dtype "$(
    python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['models']['softpick']['evaluation']['softpick']['dtype'])" \
        "$work/t/results.json")" --json >"$work/out" 2>"$work/err"
python3 "$work/tasks.py" "$work/t/results.json" "$work/out" >"$work/err" 2>&1 || wrong "eval says something else"

# ---- the same model measured on a text, without shards ----
mkdir "$work/tmp"
last="softpick measure --text"
TMPDIR="$work/tmp" "$tool" measure "$work/t/softpick" --text "$work/part.txt" --samples 3 --json >"$work/out" 2>"$work/err" ||
    wrong "exit code $?"
TMPDIR="$work/tmp" "$tool" tokenize --text "$work/part.txt" --text "$work/part.txt" --tokenizer "$work/t/tokens" \
    --validation 0.5 --out "$work/twice" >/dev/null 2>"$work/err" || wrong "tokenize failed"
"$tool" measure "$work/t/softpick" --data "$work/twice" --samples 3 --json >"$work/shards.json" 2>"$work/err"
cat >"$work/same_text.py" <<'END'
import json, sys
a, b = (json.load(open(path))["measures"] for path in sys.argv[1:])  # the same text: the second of the two held out
assert a["row_mass"]["n_samples"] == 3 and a == b, [name for name in a if a[name] != b.get(name)]
END
python3 "$work/same_text.py" "$work/out" "$work/shards.json" >"$work/err" 2>&1 || wrong "not what its shards give"
TMPDIR="$work/tmp" "$tool" measure "$work/t/softpick" --text "$work/nowhere.txt" >"$work/out" 2>"$work/err"
[ $? = 3 ] || wrong "a missing text was no bad file"
[ -z "$(ls "$work/tmp")" ] || wrong "shards were left behind"

# what was refused does not stand in the way, and leaves nothing that another study would take for its own
# shellcheck disable=SC2086
study $shape --text "$work/part.txt" --steps 2 --out "$work/d" --json
[ "$code" = 0 ] || wrong "exit code $code in a folder where others were refused"
# shellcheck disable=SC2086
"$tool" study $shape --text "$work/part.txt" --steps 2 --out "$work/e" --json >"$work/fresh" 2>/dev/null </dev/null
cat >"$work/tokens.py" <<'END'
import json, sys
a, b = (json.load(open(path))["settings"]["tokens"] for path in sys.argv[1:])
assert a == b, (a, b)
END
python3 "$work/tokens.py" "$work/out" "$work/fresh" >"$work/err" 2>&1 || wrong "tokens of a refused study were used"
mkdir -p "$work/f/tokens"
refused 2 "no study.json" --text "$work/text.txt" --out "$work/f"

# standard input is text too
last="softpick study --text -"
# shellcheck disable=SC2086
"$tool" study $shape --text - --steps 2 --out "$work/g" --json <"$work/part.txt" >"$work/out" 2>"$work/err" ||
    wrong "exit code $?"
python3 "$work/tokens.py" "$work/out" "$work/fresh" >"$work/err" 2>&1 || wrong "standard input gives other tokens than a file"

[ "$failures" = 0 ] && echo "all as it should be"
exit "$failures"
