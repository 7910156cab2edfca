#!/bin/sh
# Runs the CUDA compiler, whose command line the arguments are.  Where ptxas had to run a kernel's asynchronous products
# one after another, which it only remarks (C7510 and the like), compiling fails.
output=$("$@" 2>&1)
status=$?
[ -z "$output" ] || printf '%s\n' "$output" >&2
case $output in
*"wgmma.mma_async instructions are serialized"*) exit 1 ;;
esac
exit $status
