#!/bin/sh
# softpick train from the outside: usage, messages, exit codes, streams, resumption, Ctrl-C, a full disk.
# Usage: test_cli_train.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
disk=$work/disk
trap 'umount "$disk" 2>/dev/null; rm -rf "$work"' EXIT

awk 'BEGIN { for (i = 0; i < 900; i++) printf "line %d says the %d and the %d%s", i, i % 7, i * i % 11, ".\n" }' >text.txt
expect 0 tokenize --text text.txt --out shards --vocabulary 300
tiny="--data shards --layers 1 --heads 2 --width 32 --batch 2 --length 16"

# usage
expect 2 train --out run
says err "--data is missing"
expect 2 train --data shards
says err "--out is missing"
for bad in "--batch 0" "--batch many" "--learning-rate -1" "--schedule steps" "--packing tight" "--dtype f64" \
    "--attention hardmax" "--heads 0" "--width 3.5" "--threads -2"; do
    # shellcheck disable=SC2086
    expect 2 train $tiny --out run $bad
    says err "$(echo "$bad" | sed 's/^--//; s/ .*//' | sed 's/attention/hardmax/')"
    [ ! -e run ] || wrong "the run's folder was made"
done
# shellcheck disable=SC2086
{
    expect 2 train $tiny --out run --steps 10 --warmup 10
    says err "warmup: 10 steps, the whole run has 10"
    one_line
    expect 2 train $tiny --out run --heads 3
    says err "--heads: 3 heads do not divide width 32"
    one_line
    expect 2 train $tiny --out run --length 20k
    says err "length: 20000 tokens, the model has 8192 positions"
    one_line

    # more than there is
    expect 1 train $tiny --out run --width 512 --layers 8 --length 8000 --batch 60000 --accumulate 2
    says err "GiB that are free (cpu): it would fit with --batch"
    says err "--accumulate"
    one_line
    [ ! -e run ] || wrong "the run's folder was made"
    expect 1 train $tiny --out run --device cuda:9999
    says err "CUDA device 9999 was asked for"
    one_line
    expect 1 train $tiny --out run --device cuda --dtype f32
    one_line
    [ ! -e run ] || wrong "the run's folder was made"

    # bad files
    expect 3 train $tiny --data nowhere --out run
    says err "nowhere"
    one_line
    mkdir empty
    expect 3 train $tiny --data empty --out run
    says err "empty"
    one_line
    expect 3 train $tiny --out run --length 8000
    says err "too short for one sequence of 8000"
    echo '{"hidden_size": 32, "surprise": ' >config.json
    expect 3 train $tiny --out run --config config.json
    says err "config.json"
    one_line
    [ ! -e run ] || wrong "the run's folder was made"

    # a run, and its result
    expect 0 train $tiny --out run --steps 4 --json
    python=$(command -v python3) && [ -n "$python" ] && {
        python3 -c 'import json,sys; d=json.load(open("out")); sys.exit(d["steps"]!=4 or d["tokens"]!=128 or not d["validation_loss"]>0)' ||
            wrong "the JSON document is not as expected"
    }
    says err "step 4/4"
    says err "saved run/step-00000004"
    says err "memory on cpu, GiB: parameters 0.00, gradients 0.00, optimizer 0.00, activations"
    expect 0 train $tiny --out less --steps 4 --recompute
    cmp -s run/step-00000004/model.safetensors less/step-00000004/model.safetensors || wrong "--recompute changes the weights"

    # resumption
    expect 2 train $tiny --out run --steps 4
    says err "run: holds a run already"
    one_line
    expect 2 train --data shards --out run --resume --learning-rate 0.5
    says err "learning-rate: 0.5 contradicts the run to be resumed, which has 0.0003"
    expect 2 train --data shards --out run --resume --layers 2
    says err "num_hidden_layers: 2 contradicts the run to be resumed, which has 1"
    expect 2 train --data shards --out run --resume --attention softmax
    says err "attention_function: softmax contradicts the run to be resumed, which has softpick"
    expect 0 train --data shards --out run --resume
    says out "steps            4"
    expect 0 train $tiny --out steady --schedule constant --warmup 2 --steps 4
    expect 0 train --data shards --out steady --resume --steps 6
    says out "steps            6"
}

# the first Ctrl-C saves and leaves
last="softpick train, interrupted"
# shellcheck disable=SC2086
"$tool" train $tiny --out long --steps 1000000 --schedule constant --warmup 2 >out 2>err &
child=$!
tries=0
until grep -q '"step":3,' long/log.jsonl 2>/dev/null || [ $tries -gt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT "$child"
wait "$child"
code=$?
[ "$code" = 0 ] || wrong "exit code $code, not 0"
says out "stopped early"
expect 0 train --data shards --out long --resume --minutes 0.0001
says out "stopped early"

# a full disk: one line, and the checkpoint that was there still opens
mkdir "$disk"
if mount -t tmpfs -o size=1500k tmpfs "$disk" 2>/dev/null; then
    # shellcheck disable=SC2086
    expect 0 train $tiny --out "$disk/run" --schedule constant --warmup 2 --steps 2
    dd if=/dev/zero of="$disk/filler" bs=1k count=10000 2>/dev/null
    expect 3 train --data shards --out "$disk/run" --resume --steps 20
    says err "No space left on device"
    rm "$disk/filler"
    expect 0 train --data shards --out "$disk/run" --resume --steps 4
    says out "steps            4"
else
    echo "skipped: a full disk (no right to mount one)"
fi

finish
