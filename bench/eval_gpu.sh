#!/bin/sh
# `softpick eval` beside lm-eval with transformers on one GPU: the same random model of the paper's 340M shape, whole tasks.
# Usage: bench/eval_gpu.sh TOOL DATA TOKENIZER.json [FOLDER]
#   DATA    folder of the tasks' data files (softpick eval --list)
#   FOLDER  for the model, logs and results (default: eval-gpu)
# In the environment: TASKS, BATCH_SIZES (64,256,512,auto), TRIAL (300), DEVICE (cuda), PYTHON (python3, with lm_eval, transformers
# and torch), PEER_LIMIT (600: seconds), MAKE (options of the model's shape).  LD_LIBRARY_PATH is not handed to Python.
set -eu
tool=$1 data=$2 tokenizer=$3 folder=${4:-eval-gpu}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
tasks=${TASKS:-arc_easy,hellaswag,piqa,sciq,lambada_openai,winogrande}
device=${DEVICE:-cuda}
mkdir -p "$folder"
peer() { env -u LD_LIBRARY_PATH timeout "${PEER_LIMIT:-600}" "$python" "$here/peers/lm_eval_speed.py" "$@"; }

[ -e "$folder/model/config.json" ] || peer make "$folder/model" "$tokenizer" ${MAKE:-} 2>"$folder/make.log"
[ -d "$folder/data/hf" ] || "$python" "$here/../tests/oracles/lm_eval/lm_eval_data.py" "$data" "$folder/data" 2>"$folder/data.log"

# ours, twice: the first run also warms the file cache
for turn in 1 2; do
    began=$(date +%s.%N)
    "$tool" eval "$folder/model" --tasks "$tasks" --data "$data" --device "$device" --bootstrap 0 --json \
        >"$folder/ours-$turn.json" 2>"$folder/ours-$turn.log"
    echo "ours, turn $turn, with opening the model: $(echo "$(date +%s.%N) $began" | awk '{ printf "%.1f", $1 - $2 }') s"
done
peer run "$folder/model" "$folder/data/hf" "$folder/theirs.json" --tasks "$tasks" --device "$device" \
    --batch-sizes "${BATCH_SIZES:-64,256,512,auto}" --trial "${TRIAL:-300}" >"$folder/theirs.log" 2>&1 || {
    tail -n 5 "$folder/theirs.log" >&2
    exit 1
}
grep '^batch size' "$folder/theirs.log" || true
"$python" "$here/peers/lm_eval_speed.py" table "$folder/theirs.json" "$folder/ours-1.json" "$folder/ours-2.json"
