#!/bin/sh
# Runs the CUDA compiler, whose command line the arguments are.  What ptxas tells of its kernels (asked by -Xptxas=-v) is
# kept beside the object file, as FILE.o.ptxas, for tools/check_ptxas.sh.  Where ptxas had to run a kernel's asynchronous
# products one after another, which it only remarks (C7510 and the like), compiling fails.
object=
before=
for word; do
    [ "$before" = -o ] && object=$word
    before=$word
done
[ -z "$object" ] || rm -f "$object.ptxas"
output=$("$@" 2>&1)
status=$?
# its remarks begin with "ptxas info"; a line of the report that does not is indented
is_report='^ptxas info|^    [0-9]+ bytes'
rest=$(printf '%s\n' "$output" | grep -vE "$is_report")
[ -z "$rest" ] || printf '%s\n' "$rest" >&2
[ $status = 0 ] || exit $status
[ -z "$object" ] || printf '%s\n' "$output" | grep -E "$is_report" >"$object.ptxas"
case $output in
*"wgmma.mma_async instructions are serialized"*)
    printf '%s\n' "$output" | grep -F "instructions are serialized" >&2
    rm -f "$object"
    exit 1
    ;;
esac
