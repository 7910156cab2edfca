#!/bin/sh
# Attention on one NVIDIA GPU in one run: the library, and PyTorch's and Triton's attention beside it, shape by shape; prints
# tables with ratios.
# Usage: bench/attention_gpu.sh [BUILD [FOLDER]]
#   BUILD   folder with the built tool (build/cuda); TOOL=path in the environment names the tool itself
#   FOLDER  for the raw lines, the JSON of each run of the tool and the tables (default: attention-DATE)
# In the environment:
#   CASES (all: python3 bench/peers/attention_gpu.py --list)   PEERS (cudnn,flash,flex,flex_softpick,triton,naive; none: no peer)
#   CAPTURED  file of softpick bench capture, for the case captured; without it that case is left out
#   PREPARE (yes: peers are compiled, all at once, before the first case; no; only: that and no more, beside other work)
#   BUDGET (200: seconds after which no further case begins)   PYTHON (python3; without PyTorch the library stands alone)
#   PYTHON_LIBRARIES  LD_LIBRARY_PATH of PyTorch (default: none, as it brings libraries of its own)
# The exit status is 1 if anything that was asked for could not be measured; the tables tell what and why.  If it is stopped,
# they show what was measured by then.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tool=${TOOL:-${1:-build/cuda}/softpick}
began=$(date +%Y-%m-%d-%H%M%S)
folder=${2:-attention-$began}
python=${PYTHON:-python3}

fail() {
    printf 'attention_gpu.sh: %s\n' "$*" >&2
    exit 2
}

[ -x "$tool" ] || fail "$tool: there is no such program; give the build folder, or TOOL=path"
"$python" -c '' 2>/dev/null || fail "no $python, which runs the cases; the tool alone: $tool bench attention --device cuda"
command -v nvidia-smi >/dev/null 2>&1 || fail "no nvidia-smi: this machine has no NVIDIA driver"
mkdir -p "$folder"
tool=$(cd "$(dirname "$tool")" && pwd)/$(basename "$tool")
rm -f "$folder/lines.jsonl"

gpu() { nvidia-smi --query-gpu="$1" --format=csv,noheader | head -n 1; }
{
    echo "$began, commit $("$tool" info | sed -n 's/^softpick.*(commit \(.*\))$/\1/p'), $(gpu name), driver $(gpu driver_version),"
    echo "power limit $(gpu power.limit), clocks of SMs and memory before the run $(gpu clocks.sm), $(gpu clocks.mem); bench/attention_gpu.sh"
} | tee "$folder/machine.txt" >&2

set -- --tool "$tool" --tool-libraries "${LD_LIBRARY_PATH:-}" --out "$folder" --machine "$folder/machine.txt" \
    --budget "${BUDGET:-200}"
if [ -n "${CASES:-}" ]; then set -- "$@" --cases "$CASES"; fi
if [ -n "${CAPTURED:-}" ]; then set -- "$@" --captured "$CAPTURED"; fi
case ${PEERS-all} in
    all) ;;
    none) set -- "$@" --peers= ;;
    *) set -- "$@" --peers "$PEERS" ;;
esac
unset LD_LIBRARY_PATH
if [ -n "${PYTHON_LIBRARIES:-}" ]; then export LD_LIBRARY_PATH="$PYTHON_LIBRARIES"; fi

if [ "${PREPARE:-yes}" != no ]; then timeout 60 "$python" "$here/peers/attention_gpu.py" --prepare "$@" || true; fi
[ "${PREPARE:-yes}" != only ] || exit 0

finish() {
    [ ! -s "$folder/lines.jsonl" ] || "$python" "$here/peers/attention_gpu_table.py" "$folder/lines.jsonl" | tee "$folder/table.txt"
}
trap finish EXIT
trap 'exit 1' INT TERM
"$python" "$here/peers/attention_gpu.py" "$@"
! grep -q '"reason"' "$folder/lines.jsonl"
