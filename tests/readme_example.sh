#!/bin/sh
# The C program in README.md is examples/attention.c, which the tests build and run.
# Usage: readme_example.sh SOURCE_FOLDER
set -eu
# shellcheck disable=SC2016 # the backquotes are Markdown
sed -n '/^```c$/,/^```$/p' "$1/README.md" | sed '1d;$d' | diff -u "$1/examples/attention.c" - ||
    { echo "README.md and examples/attention.c differ"; exit 1; }
echo "README.md shows examples/attention.c as it is"
