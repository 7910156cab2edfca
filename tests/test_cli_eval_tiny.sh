#!/bin/sh
# `softpick eval` against lm-eval, on the golden files of tests/oracles/lm_eval/lm_eval_tiny.py: texts, log-probabilities, choices,
# metrics and standard errors of all tasks, both kinds of BOS, with and without examples.
# Usage: test_cli_eval_tiny.sh TOOL
# Skipped without Python, in which the comparison is written.
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
# shellcheck disable=SC2154 # of cli_support.sh
golden=$here/vectors/lm_eval_tiny
python=${SOFTPICK_PYTHON:-python3}
"$python" -c "import json" 2>/dev/null || exit 77

for version in 0.4.10 0.4.8; do
    for shots in 0 2; do
        last="lm_eval_compare.py $version, $shots examples"
        # shellcheck disable=SC2154
        "$python" "$here/oracles/lm_eval/lm_eval_compare.py" "$tool" "$golden/model" "$golden/data" \
            "$golden/$version-shots$shots.json" results --compat $version --num-fewshot $shots \
            --softpick-options "--bootstrap 2000 --threads 1" >out 2>err || wrong "differs"
        says out "0 differences"
    done
done
finish
