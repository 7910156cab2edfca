#!/bin/sh
# Everything about one NVIDIA GPU in one command: builds, tests against the double definition, looks for errors of memory
# and races, then times layers, attention and training, PyTorch's beside them, and prints short tables.
# Usage: bench/gpu.sh [FOLDER]
#   FOLDER  for all logs and JSON (default: gpu-DATE)
# In the environment:
#   BUILD   folder with binaries that are already built; without it build/cuda is built (cmake, ninja, nvcc)
#   STEPS   any of: test sanitize layers attention train curve (default: all but curve)
#   PRESETS (paper-340m paper-1.8b)   ATTENTION of ours (softpick softmax)
#   PEERS (cudnn flash: backends of PyTorch's SDPA)   PEER_COMPILE (blocks; or model)
#   SECONDS_PER_RUN (20)   LIMIT (600: seconds for one program)   PYTHON (python3; without PyTorch there is no peer)
#   CASES, CAPTURED, BUDGET  for attention (bench/attention_gpu.sh)
#   TEXT    files for the loss curves of the step curve (bench/loss_curve.sh, whose variables count as well)
# The exit status is 1 if anything failed; nothing is timed if a test did.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
began=$(date +%Y-%m-%d-%H%M%S)
folder=${1:-gpu-$began}
python=${PYTHON:-python3}
limit=${LIMIT:-600}
steps=${STEPS:-test sanitize layers attention train}

complain() { printf 'gpu.sh: %s\n' "$*" >&2; }
fail() {
    complain "$@"
    exit 2
}
give_up() {
    complain "$@"
    exit 1
}
say() { printf '\n== %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
wanted() { case " $steps " in *" $1 "*) ;; *) return 1 ;; esac }

# ---- what is there ----

has nvidia-smi || fail "no nvidia-smi: this machine has no NVIDIA driver"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader) || fail "nvidia-smi failed: $gpu"
[ -n "$gpu" ] || fail "nvidia-smi lists no GPU"
for step in $steps; do
    case $step in
        test | sanitize | layers | attention | train | curve) ;;
        *) fail "STEPS: $step is none of test sanitize layers attention train curve" ;;
    esac
done
! wanted curve || [ -n "${TEXT:-}" ] || fail "the step curve needs TEXT, files to train on"
if [ -z "${BUILD:-}" ]; then
    PATH=$PATH:/usr/local/cuda/bin
    for program in cmake ninja nvcc; do
        has $program || fail "no $program to build with; BUILD=folder names one that is built"
    done
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -f "$folder/failed.txt"

# ---- build ----

if [ -z "${BUILD:-}" ]; then
    BUILD=$root/build/cuda
    say "building $BUILD"
    (cd "$root" && cmake --preset cuda && cmake --build --preset cuda) >"$folder/build.log" 2>&1 ||
        give_up "the build failed: $folder/build.log"
fi
[ -x "$BUILD/softpick" ] || fail "$BUILD/softpick: there is no such program"
BUILD=$(cd "$BUILD" && pwd)
peer=yes
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null || peer=no
{
    echo "date    $began"
    echo "commit  $("$BUILD/softpick" info | sed -n 's/^softpick.*(commit \(.*\))$/\1/p')"
    echo "gpu     $gpu"
    echo "clocks  $(nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.limit --format=csv,noheader)"
    echo "cpu     $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
    if has nvcc; then echo "nvcc    $(nvcc --version | sed -n 's/.*release //p')"; fi
    if [ $peer = yes ]; then echo "PyTorch $("$python" -c 'import torch; print(torch.__version__)')"; fi
} | tee "$folder/machine.txt" >&2
[ $peer = yes ] || say "$python has no PyTorch that sees the GPU: the library alone"

# ---- running ----

failed=
# attempt LOG COMMAND...: output into FOLDER/LOG; what fails or takes too long is remembered, and the rest goes on
attempt() {
    log=$1
    shift
    status=0
    timeout "$limit" "$@" >"$folder/$log" 2>"$folder/$log.err" || status=$?
    [ -s "$folder/$log.err" ] || rm -f "$folder/$log.err"
    case $status in
        0) return 0 ;;
        124) why="stopped after $limit s" ;;
        *) why="exit status $status" ;;
    esac
    printf '%s: %s (%s)\n' "$log" "$why" "$*" | tee -a "$folder/failed.txt" >&2
    if [ -e "$folder/$log.err" ]; then tail -n 5 "$folder/$log.err" >&2; else tail -n 5 "$folder/$log" >&2; fi
    failed=yes
}

programs() { for program in "$BUILD"/test_*cuda*; do [ ! -x "$program" ] || echo "$program"; done; }

# what the programs of cmocka say at their end
summarize() { grep -hE '\[  (PASSED|FAILED|SKIPPED)' "$folder/$1" "$folder/$1.err" 2>/dev/null >&2 || true; }

if wanted test; then
    if has ctest && [ -e "$BUILD/CTestTestfile.cmake" ]; then
        say "ctest -L cuda"
        attempt ctest.log ctest --test-dir "$BUILD" -L cuda --no-tests=error -V
        summarize ctest.log
    else
        for program in $(programs); do
            name=$(basename "$program")
            say "$name"
            attempt "$name.log" "$program"
            summarize "$name.log"
        done
    fi
    [ -z "$failed" ] || give_up "tests failed, nothing was timed: $folder/failed.txt"
fi

if wanted sanitize; then
    if has compute-sanitizer; then
        # racecheck wants a build of its own: ./dev gpu --sanitize
        for name in memcheck-test_device_cuda memcheck-test_layers_cuda memcheck-test_layers_cuda_heads memcheck-test_attention_cuda_small \
            synccheck-test_attention_cuda_small initcheck-test_attention_cuda_small; do
            say "$name"
            attempt "$name.log" env SOFTPICK_TEST_RAW=1 \
                compute-sanitizer --tool "${name%%-*}" --error-exitcode 9 "$BUILD/${name#*-}"
            grep -h 'SUMMARY' "$folder/$name.log" "$folder/$name.log.err" 2>/dev/null >&2 || true
        done
        [ -z "$failed" ] || give_up "compute-sanitizer found errors, nothing was timed: $folder/failed.txt"
    else
        say "no compute-sanitizer: not looked for errors of memory and races"
    fi
fi

if wanted layers && [ -x "$BUILD/bench_layers_cuda" ]; then
    say "layers"
    attempt layers.txt "$BUILD/bench_layers_cuda"
    cat "$folder/layers.txt" >&2
fi

if wanted attention; then
    say "attention"
    if has "$python"; then
        PYTHON=$python attempt attention.txt "$root/bench/attention_gpu.sh" "$BUILD" "$folder/attention"
    else
        attempt attention.txt "$BUILD/softpick" bench attention --device cuda --attention softpick,softmax
    fi
fi

# ---- training: ours and the peer in turn, so that what else the machine does falls on both ----

if wanted train; then
    for preset in ${PRESETS:-paper-340m paper-1.8b}; do
        for attention in ${ATTENTION:-softpick softmax}; do
            say "training $preset, $attention"
            attempt "ours-$preset-$attention.json" "$BUILD/softpick" bench train --device cuda --preset "$preset" \
                --attention "$attention" --seconds "${SECONDS_PER_RUN:-20}" --json
        done
        [ $peer = yes ] || continue
        for attention in ${PEERS:-cudnn flash}; do
            say "training $preset in PyTorch, softmax by $attention"
            attempt "peer-$preset-$attention.json" "$python" "$root/bench/peers/train_pytorch.py" --preset "$preset" \
                --attention "$attention" --compile "${PEER_COMPILE:-blocks}" --seconds "${SECONDS_PER_RUN:-20}"
        done
    done
fi

if wanted curve; then
    say "loss curves"
    # shellcheck disable=SC2086 # a list of files
    PYTHON=$python attempt curve.txt "$root/bench/loss_curve.sh" "$BUILD" "$folder/curve" ${TEXT:-}
    cat "$folder/curve.txt" >&2
fi

# ---- the table ----

say "everything is in $folder"
cat "$folder/machine.txt"
if wanted attention; then cat "$folder/attention.txt"; fi
if wanted train && has "$python"; then "$python" "$root/bench/peers/gpu_table.py" "$folder" | tee "$folder/table.txt"; fi
[ -z "$failed" ] || give_up "not all went well: $folder/failed.txt"
