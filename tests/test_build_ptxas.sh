#!/bin/sh
# What keeps ptxas's reports and reads them notices what it is there for.  Needs no CUDA compiler.
set -u
tools=$(cd "$(dirname "$0")/../tools" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
wrong() {
    echo "FAILED: $1"
    failures=$((failures + 1))
}

# what stands in for a compiler: says what is in the file `says`, and makes its object file
cat >compiler <<'END'
#!/bin/sh
cat says >&2
echo object >kernel.o
exit "$(cat status)"
END
chmod +x compiler

# compile CODE: runs the stand-in by the script; it must end with CODE
compile() {
    rm -f kernel.o kernel.o.ptxas
    "$tools/cuda_compile.sh" ./compiler -O3 -o kernel.o -c kernel.cu 2>err
    [ $? = "$1" ] || wrong "$2: compiling did not end with $1"
}
# check CODE WORDS: what the reader says of the report
check() {
    "$tools/check_ptxas.sh" kernel.o >out
    [ $? = "$1" ] || wrong "$2: reading did not end with $1"
    grep -qF "$2" out || wrong "\"$2\" is not said"
}
# report FRAME STORES LOADS
report() {
    cat <<END
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6kernelv' for 'sm_90a'
ptxas info    : Function properties for _Z6kernelv
    $1 bytes stack frame, $2 bytes spill stores, $3 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers
END
}

echo 0 >status
report 0 0 0 >says
compile 0 "a good kernel"
check 0 "168 registers: _Z6kernelv"
check 0 "ptxas: 1 kernels, 0 faults"
[ -s err ] && wrong "the report was printed too"

report 16 0 0 >says
compile 0 "a stack frame"
check 1 "16 bytes stack frame"
report 0 4 0 >says
compile 0 "a spill"
check 1 "4 bytes spill stores"
report 0 0 12 >says
compile 0 "a spill"
check 1 "12 bytes spill loads"

serialized="ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to a reason"
{ report 0 0 0 && echo "$serialized"; } >says
compile 1 "products one after another"
grep -q C7510 err || wrong "C7510 was not told"
[ -e kernel.o ] && wrong "the object file is there"
{ report 0 0 0 && echo "ptxas info    : (C7508) something else"; } >says
compile 0 "another remark"
check 1 "C7508"

rm kernel.o.ptxas
check 1 "there is no such report"
: >says
compile 0 "no report"
check 1 "do not tell of kernels"
"$tools/check_ptxas.sh" >out
[ $? = 77 ] || wrong "without files it does not skip"

echo "kernel.cu(3): error: expected a ;" >says
echo 2 >status
compile 2 "a failure"
grep -q "expected a ;" err || wrong "the compiler's message is lost"
[ -e kernel.o.ptxas ] && wrong "a failed compilation left a report"

[ "$failures" = 0 ] && echo "all as expected"
exit "$((failures > 0))"
