#!/bin/sh
# softpick report: where the page goes, and what is refused with which exit code.
# Usage: test_report_command.sh TOOL
set -u
tool=$1
sample=$(dirname "$0")/report_sample.json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect CODE ARGUMENT...
expect() {
    wanted=$1
    shift
    last="softpick report $*"
    "$tool" report "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    [ "$code" = "$wanted" ] || wrong "exit code $code, not $wanted"
}

wrong() {
    failures=$((failures + 1))
    echo "FAILED: $last: $1"
    sed 's/^/    /' "$work/out" "$work/err"
}

prints() { [ "$(cat "$work/$1")" = "$2" ] || wrong "$1 is not \"$2\""; }
is_page() { grep -q '^</html>$' "$1" || wrong "$1 is not a page"; }
is_absent() { [ ! -e "$1" ] || wrong "$1 exists"; }

mkdir "$work/study" "$work/bad"
cp "$sample" "$work/study/results.json"

expect 0 "$work/study"
prints out "$work/study/report.html"
prints err ""
is_page "$work/study/report.html"

rm "$work/study/report.html"
expect 0 "$work/study/results.json"
prints out "$work/study/report.html"
is_page "$work/study/report.html"

expect 0 --out "$work/page.html" "$work/study/"
prints out "$work/page.html"
is_page "$work/page.html"

expect 3 "$work/bad"
prints err "$work/bad/results.json: No such file or directory"
is_absent "$work/bad/report.html"

echo '{"schema": "softpick-results/1"}' >"$work/bad/results.json"
expect 3 "$work/bad"
prints out ""
prints err "$work/bad/results.json: softpick is missing"
is_absent "$work/bad/report.html"

expect 3 --out "$work/missing/page.html" "$work/study"
expect 2
expect 2 "$work/study" "$work/bad"
expect 2 --color "$work/study"
expect 0 --help

[ "$failures" = 0 ]
