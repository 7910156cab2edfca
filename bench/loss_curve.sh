#!/bin/sh
# Loss curves against PyTorch: softpick train, and the same steps again in PyTorch from the same first weights, batches and
# learning rates, with softmax and with softpick; one table for each, of how far the losses of each two curves lie apart.
# The difference between two curves of PyTorch alone is what rounding does: for softmax two backends of its attention, for
# softpick products in f32 instead of bf16, and the sequences of each batch in reverse order.
# Usage: bench/loss_curve.sh BUILD FOLDER TEXT...
#   BUILD   folder with the built tool; TOOL=path in the environment names the tool itself
#   FOLDER  for shards, runs and curves
#   TEXT    what softpick tokenize reads; shards that are in FOLDER already are used as they are
# In the environment: DEVICE (cuda), DTYPE (bf16; f32), STEPS (200), TOKENIZER (a sentencepiece model; without it one is
# trained on the text), MODEL and RUN (options of softpick train: sizes; what is read, rates), PYTHON (python3, with PyTorch).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
fail() {
    printf 'loss_curve.sh: %s\n' "$*" >&2
    exit 2
}
[ $# -ge 2 ] || fail "usage: loss_curve.sh BUILD FOLDER TEXT..."
tool=${TOOL:-$1/softpick}
folder=$2
shift 2
device=${DEVICE:-cuda}
dtype=${DTYPE:-bf16}
steps=${STEPS:-200}
python=${PYTHON:-python3}
model=${MODEL:---layers 12 --width 768 --heads 12 --ffn 2048 --initializer-range 0.02}
run=${RUN:---batch 8 --length 1024 --learning-rate 1e-3}
[ -x "$tool" ] || fail "$tool: there is no such program; give the build folder, or TOOL=path"
"$python" -c 'import torch' 2>/dev/null || fail "$python has no PyTorch: nothing to compare with"
mkdir -p "$folder"

say() { printf '%s\n' "$*" >&2; }

if [ ! -e "$folder/shards/train-00000.tokens" ]; then
    [ $# -ge 1 ] || fail "$folder/shards holds no token shards, and no TEXT is given to make them from"
    "$tool" tokenize --text "$@" --out "$folder/shards" --quiet ${TOKENIZER:+--tokenizer "$TOKENIZER"}
fi

# train NAME ATTENTION STEPS OPTION...: a run from the beginning, in a folder of its own
train() {
    name=$1 attention=$2 n=$3
    shift 3
    rm -rf "${folder:?}/$name"
    on=
    [ "$device" = cpu ] || on="--device $device"
    # shellcheck disable=SC2086 # lists of options
    "$tool" train --data "$folder/shards" --out "$folder/$name" --attention "$attention" $on --dtype "$dtype" $model $run \
        --validate-every 0 --validation-tokens 1 --steps "$n" "$@" >"$folder/$name.txt"
}

# again RUN OPTION...: its steps in PyTorch
again() {
    name=$1
    shift
    "$python" "$here/peers/curve_pytorch.py" "$folder/$name" --initial "$folder/first/step-00000001" --data "$folder/shards" \
        --device "$device" --dtype "$dtype" "$@" >"$folder/$name-peer.jsonl"
}

# at rate 0 the weights after a step are the first ones, which depend on the seed and the sizes alone
train first softmax 1 --learning-rate 0
train softmax softmax "$steps"
train softpick softpick "$steps"

say "the same steps in PyTorch"
if [ "$device" = cpu ]; then # two at once would get in each other's way
    again softmax --attention auto naive-softmax
    again softpick --attention naive-softpick naive-softpick-f32 --backwards
else
    again softmax --attention flash cudnn &
    other=$!
    again softpick --attention naive-softpick naive-softpick-f32 --backwards
    wait $other || fail "PyTorch failed with softmax"
fi

for name in softmax softpick; do
    echo "$name"
    "$python" "$here/peers/curve_pytorch.py" --compare "$folder/$name/log.jsonl" "$folder/$name-peer.jsonl"
done >"$folder/table.txt"
cat "$folder/table.txt"
