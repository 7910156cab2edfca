#!/bin/sh
# Checks what ptxas told of the kernels in object files (tools/cuda_compile.sh keeps it): no stack frame, no spills, none of
# the remarks C75xx, which tell of products that run one after another.  Prints the registers of each kernel.
# Exit status 77 (skipped) if no files are named: a build without CUDA.
# Usage: check_ptxas.sh [OBJECT...]
set -u
[ $# -gt 0 ] || {
    echo "skipped: no CUDA code in this build"
    exit 77
}
for object; do # each becomes its report
    shift
    set -- "$@" "$object.ptxas"
    [ -f "$object.ptxas" ] || {
        echo "$object.ptxas: there is no such report"
        exit 1
    }
done
awk '
    function wrong(what) { print FILENAME ": " name ": " what; faults++ }
    /C75[0-9][0-9]/ { wrong($0) }
    /Function properties for/ { name = $NF }
    /bytes stack frame/ && !/^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/ { wrong($0) }
    /bytes stack frame/ { n_frames++ }
    / Used [0-9]+ registers/ {
        n_kernels++
        match($0, /Used [0-9]+/)
        print substr($0, RSTART + 5, RLENGTH - 5) " registers: " name
    }
    END {
        if (!n_kernels || n_frames < n_kernels) {
            print "reports do not tell of kernels and their frames"
            faults++
        }
        print "ptxas: " n_kernels + 0 " kernels, " faults + 0 " faults"
        exit faults > 0
    }' "$@"
