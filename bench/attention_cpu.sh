#!/bin/sh
# Attention on this machine: the library and PyTorch in turn, round after round, on the same shapes; one table with ratios.
# Usage: bench/attention_cpu.sh [BUILD [OUT]]
#   BUILD  folder with the built tool (build/release); TOOL=path in the environment names the tool itself
#   OUT    folder for the JSON of each run (a new one, named by the script, without it)
# In the environment: ROUNDS (3), SECONDS_PER_ROW (0.2), THREADS ("2 0"; 0: all), DTYPES (f32,bf16), PYTHON (python3).
# Without PyTorch the library stands alone, without Python its own tables are printed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=${TOOL:-${1:-build/release}/softpick}
out=${2:-$(mktemp -d)}
rounds=${ROUNDS:-3}
seconds=${SECONDS_PER_ROW:-0.2}
dtypes=${DTYPES:-f32,bf16}
python=${PYTHON:-python3}
[ -x "$tool" ] || {
    echo "attention_cpu.sh: $tool: there is no such program; give the build folder, or TOOL=path" >&2
    exit 2
}
mkdir -p "$out"

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
        "$tool" bench attention --seconds "$seconds" --dtype "$dtypes" "$@" --json >"$out/ours-$name.json"
    else
        "$tool" bench attention --seconds "$seconds" --dtype "$dtypes" "$@"
    fi
}
theirs() {
    name=$1
    shift
    [ $peer = no ] || "$python" "$here/peers/cpu_attention.py" --seconds "$seconds" --dtype "$dtypes" "$@" \
        --naive-limit 2048 >"$out/peer-$name.json"
}

# both NAME ARGUMENT...: what both understand
both() {
    say "round $round of $rounds, $threads threads: $*"
    name=$round-$threads-$1
    shift
    ours "$name" --attention softpick,softmax --threads "$threads" "$@"
    theirs "$name" --attention softmax,softpick --threads "$threads" "$@"
}

round=1
while [ "$round" -le "$rounds" ]; do
    for threads in ${THREADS:-2 0}; do
        both d64 --passes forward,backward --head-dim 64 --length 512,2048,4096
        both d128 --passes forward,backward --head-dim 128 --length 512,2048,4096
        both batch --passes forward,backward --head-dim 64 --length 512 --batch 4
        both decode --passes decode --head-dim 64,128 --key-length 65536
    done
    round=$((round + 1))
done

say "the JSON of each run is in $out"
[ -z "$python" ] || "$python" "$here/peers/attention_table.py" "$out"
