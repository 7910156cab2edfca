#!/bin/sh
# Attention on this machine: the library and PyTorch in turn, round after round, on the same shapes; one table with ratios.
# Usage: bench/attention_cpu.sh [BUILD [OUT]]
#   BUILD  folder with the built tool (build/release); TOOL=path in the environment names the tool itself
#   OUT    folder for the JSON of each run (a new one, named by the script, without it)
# In the environment: ROUNDS (3), SECONDS_PER_ROW (0.2), THREADS ("2 0"; 0: all), DTYPES (f32,bf16), PYTHON (python3),
# NAIVE_LIMIT (2048: softpick written in PyTorch, which holds T x T numbers, up to this length).
# Without PyTorch the library stands alone, without Python its own tables are printed.  If it is stopped, the table shows
# what was measured by then.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=${TOOL:-${1:-build/release}/softpick}
folder=${2:-$(mktemp -d)}
rounds=${ROUNDS:-3}
seconds=${SECONDS_PER_ROW:-0.2}
dtypes=${DTYPES:-f32,bf16}
python=${PYTHON:-python3}
[ -x "$tool" ] || {
    echo "attention_cpu.sh: $tool: there is no such program; give the build folder, or TOOL=path" >&2
    exit 2
}
mkdir -p "$folder"

say() { printf '%s\n' "$*" >&2; }

peer=yes
if ! "$python" -c 'import json' 2>/dev/null; then
    say "no $python: the library's own tables alone"
    peer=no python=
elif ! "$python" -c 'import torch' 2>/dev/null; then
    say "$python has no PyTorch: the library alone"
    peer=no
fi

# ours NAME ARGUMENT...; theirs NAME ARGUMENT...
ours() {
    name=$1
    shift
    if [ -n "$python" ]; then
        "$tool" bench attention --seconds "$seconds" --dtype "$dtypes" "$@" --json >"$folder/unfinished"
        mv "$folder/unfinished" "$folder/ours-$name.json"
    else
        "$tool" bench attention --seconds "$seconds" --dtype "$dtypes" "$@"
    fi
}
theirs() {
    name=$1
    shift
    [ $peer = yes ] || return 0
    "$python" "$here/peers/cpu_attention.py" --seconds "$seconds" --dtype "$dtypes" "$@" \
        --naive-limit "${NAIVE_LIMIT:-2048}" >"$folder/unfinished"
    mv "$folder/unfinished" "$folder/peer-$name.json"
}

# both NAME ARGUMENT...: what both understand
both() {
    say "round $round of $rounds, $threads threads: $*"
    name=$round-$threads-$1
    shift
    ours "$name" --attention softpick,softmax --threads "$threads" "$@"
    theirs "$name" --attention softmax,softpick --threads "$threads" "$@"
}

finish() {
    rm -f "$folder/unfinished"
    say "the JSON of each run is in $folder"
    [ -z "$python" ] || "$python" "$here/peers/attention_table.py" "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

round=1
while [ "$round" -le "$rounds" ]; do
    for threads in ${THREADS:-2 0}; do
        both batch --passes forward,backward --head-dim 64 --length 512 --batch 4
        both decode --passes decode --head-dim 64,128 --key-length 65536
        both shapes --passes forward,backward --head-dim 64,128 --length 512,2048,4096
    done
    round=$((round + 1))
done
