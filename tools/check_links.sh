#!/bin/sh
# Every file that a document links to is there.
# Usage: check_links.sh SOURCE_FOLDER
set -eu
cd "$1"
missing=0
for document in *.md docs/*.md; do
    folder=$(dirname "$document")
    # shellcheck disable=SC2013 # no link here has a space
    for target in $(grep -oE '\]\([^)# ]+' "$document" | sed 's/^](//' | grep -v '^https\{0,1\}:'); do
        [ -e "$folder/$target" ] || { echo "$document links to $target, which is not there" && missing=1; }
    done
done
[ "$missing" = 0 ] && echo "documents: every linked file is there"
