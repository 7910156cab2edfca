#!/bin/sh
# The C code of the documents is what it says it is: README.md shows examples/attention.c, and the pieces of
# docs/attention.md are a program that runs.
# Usage: docs_code.sh SOURCE_FOLDER LIBRARY
set -eu
source=$1
library=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pieces FILE: the C code of a document; a line of only "// ----" ends each piece
pieces() {
    awk '/^```c$/ { inside = 1; next } /^```$/ { if (inside) print "// ----"; inside = 0 } inside' "$1"
}

pieces "$source/README.md" | sed '$d' | diff -u "$source/examples/attention.c" - ||
    { echo "README.md and examples/attention.c differ" && exit 1; }

# the first piece is the head of the file, the others are the body of main
pieces "$source/docs/attention.md" |
    awk '{ print } /^\/\/ ----$/ && !n++ { print "int main(void) {" } END { print "return 0;\n}" }' >"$work/guide.c"
# shellcheck disable=SC2086 # CFLAGS are words
${CC:-cc} ${CFLAGS:-} -std=c11 -Wall -Wextra -Werror -UNDEBUG -I"$source/include" "$work/guide.c" -o "$work/guide" \
    "$library" -Wl,-rpath,"$(dirname "$library")" -lm
"$work/guide"
