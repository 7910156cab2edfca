#!/bin/sh
# softpick report: where the page goes, and what is refused with which exit code.
# Usage: test_report_command.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
sample=$here/report_sample.json

# report CODE ARGUMENT...
report() {
    of=$1
    shift
    expect "$of" report "$@"
}
prints() { [ "$(cat "$1")" = "$2" ] || wrong "$1 is not \"$2\""; }
is_page() { grep -q '^</html>$' "$1" || wrong "$1 is not a page"; }
is_absent() { [ ! -e "$1" ] || wrong "$1 exists"; }

mkdir "$work/study" "$work/bad"
cp "$sample" "$work/study/results.json"

report 0 "$work/study"
prints out "$work/study/report.html"
prints err ""
is_page "$work/study/report.html"

rm "$work/study/report.html"
report 0 "$work/study/results.json"
prints out "$work/study/report.html"
is_page "$work/study/report.html"

report 0 --out "$work/page.html" "$work/study/"
prints out "$work/page.html"
is_page "$work/page.html"

report 3 "$work/bad"
prints err "$work/bad/results.json: No such file or directory"
is_absent "$work/bad/report.html"

echo '{"schema": "softpick-results/1"}' >"$work/bad/results.json"
report 3 "$work/bad"
prints out ""
prints err "$work/bad/results.json: softpick is missing"
is_absent "$work/bad/report.html"

report 3 --out "$work/missing/page.html" "$work/study"
report 2
report 2 "$work/study" "$work/bad"
report 2 --color "$work/study"
report 0 --help

finish
