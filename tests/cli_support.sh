# shellcheck shell=sh
# What scripts that test the tool from the outside share; sourced, with the tool as $1 of the script.  Leaves the script in
# an empty folder, $work, that goes when the script ends.  Its last line is `finish`.
# shellcheck disable=SC2034 # for the scripts
here=$(cd "$(dirname "$0")" && pwd)
tool=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

# expect CODE ARGUMENT...: runs the tool; its exit code must be CODE.  Leaves out and err.
expect() {
    wanted=$1
    shift
    "$tool" "$@" >out 2>err </dev/null
    code=$?
    last="softpick $*"
    [ "$code" = "$wanted" ] || wrong "exit code $code, not $wanted"
}

wrong() {
    failures=$((failures + 1))
    echo "FAILED: $last: $1"
    sed 's/^/    /' out err
}

# Is there a GPU that can be used?
has_gpu() { "$tool" info --json 2>/dev/null | grep -q '"usable": true'; }

# says FILE WORDS
says() { grep -qF -e "$2" "$1" || wrong "\"$2\" is not in $1"; }
silent() { [ ! -s "$1" ] || wrong "something was written to $1"; }
one_line() { [ "$(wc -l <err)" = 1 ] || wrong "more than one line on standard error"; }

finish() {
    [ "$failures" = 0 ] && echo "all as expected"
    exit "$((failures > 0))"
}
