#!/bin/sh
# Checks that the library exports exactly the functions that the public headers declare with SP_API.
# Usage: check_symbols.sh LIBRARY INCLUDE_FOLDER
set -eu
library=$1
headers=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nm --dynamic --defined-only "$library" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/exported"
# A declaration runs from SP_API to its first parenthesis; the word before that is the name.
cat "$headers"/softpick/*.h | grep -v '^#' | tr '\n' ' ' | grep -oE 'SP_API [^;(]*\(' |
    sed -E 's/.*[ *]([a-z0-9_]+)\($/\1/' | sort -u >"$work/declared"

undeclared=$(comm -23 "$work/exported" "$work/declared")
missing=$(comm -13 "$work/exported" "$work/declared")
for name in $undeclared; do echo "$library exports $name, which no header in $headers/softpick declares"; done
for name in $missing; do echo "$headers/softpick declares $name, which $library does not export"; done
[ -z "$undeclared$missing" ] || exit 1
echo "symbols: $(wc -l <"$work/exported") exported, all declared"
