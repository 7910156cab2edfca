#!/bin/sh
# Kills `softpick train` at 60 moments of its life and resumes it each time: every checkpoint it finds must load, and
# the run must end exactly as one that was never killed.
# Usage: test_cli_train_kill.sh TOOL
set -eu
tool=$1
kills=60
scratch=${TMPDIR:-/tmp}
[ -w /dev/shm ] && scratch=/dev/shm # a checkpoint every second step would wait for a disk
work=$(mktemp -d "$scratch/kill.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

awk 'BEGIN { for (i = 0; i < 900; i++) printf "line %d says the %d and the %d%s", i, i % 7, i * i % 11, ".\n" }' >text.txt
"$tool" tokenize --text text.txt --out shards --vocabulary 300 >/dev/null 2>&1

train() { # FOLDER STEPS [OPTION...]
    folder=$1 steps=$2
    shift 2
    exec "$tool" train --data shards --out "$folder" --steps "$steps" --layers 1 --heads 2 --width 32 --batch 2 \
        --length 16 --warmup 5 --schedule constant --learning-rate 1e-2 --checkpoint-every 2 --validate-every 5 \
        --validation-tokens 64 --threads 1 "$@" >/dev/null 2>error
}

# The lines of steps and validations, less what depends on the clock.
losses() { grep -E '"event":"(step|validation)"' "$1/log.jsonl" | sed 's/"seconds":.*"skipped"/"skipped"/'; }

fail() {
    echo "FAILED: $1"
    cat error
    exit 1
}

# Each life is a little longer than the one before it was at that place, so that deaths fall everywhere: in start,
# step, checkpoint, pruning.  No life ends by itself.
endless=1000000
done=0
while [ "$done" -lt "$kills" ]; do
    (train victim "$endless" --resume) &
    child=$!
    sleep "$(awk -v i="$done" 'BEGIN { printf "%.3f", 0.01 + (i * 37 % 60) * 0.005 }')"
    kill -9 "$child" 2>/dev/null || true
    code=0
    wait "$child" 2>/dev/null || code=$?
    [ "$code" = 137 ] || fail "after $done deaths: the resumed run left with code $code"
    done=$((done + 1))
done

for newest in victim/step-????????; do :; done # the names sort by their steps
[ -d "$newest" ] || fail "no checkpoint after $done deaths"
steps=$(($(echo "$newest" | sed 's/.*step-0*//') + 9))
(train victim "$steps" --resume) || fail "the last resumption"
(train whole "$steps") || fail "the run without a death"
last=$(printf 'step-%08d' "$steps")
for file in config.json model.safetensors training.json training.safetensors tokenizer.model; do
    cmp "whole/$last/$file" "victim/$last/$file" || fail "$file differs"
done
losses whole >whole.losses
losses victim >victim.losses
cmp whole.losses victim.losses || fail "the logged losses differ"
[ "$(wc -l <whole.losses)" -ge "$steps" ] || fail "a step is missing in the log"
set -- victim/*
[ $# = 3 ] || fail "left behind: $*"
echo "$done deaths, $steps steps, the same end"
