#!/bin/sh
# The tool's manners: help, version, exit codes, streams, suggestions; and what `softpick info` says.
# Usage: test_cli_commands.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"

# help and version
expect 2
says err "Usage: softpick COMMAND"
silent out
expect 0 --help
says out "Usage: softpick COMMAND"
silent err
commands=$(sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p' out)
[ -n "$commands" ] || wrong "no commands listed"
expect 0 --version
says out "softpick 0."
says out "commit"

for command in $commands; do
    expect 0 "$command" --help
    says out "Usage: softpick $command"
    says out "Example"
    says out "Exit status"
    silent err
    cp out "$work/help"
    expect 0 help "$command"
    cmp -s out "$work/help" || wrong "differs from softpick $command --help"
    expect 2 "$command" --no-such-option
    says err "softpick $command: "
    says err "--no-such-option"
    silent out
done

# wrong commands
expect 2 inof
says err 'did you mean "info"?'
expect 2 help inof
says err 'did you mean "info"?'
expect 2 frobnicate
says err '"frobnicate" is not a command'
silent out

# streams
last="softpick info, standard output full"
"$tool" info >/dev/full 2>err
[ $? = 1 ] || wrong "exit code is not 1"
says err "standard output: "
last="softpick info, reader gone"
("$tool" info 2>err; true) | true
silent err

# info
expect 0 info
says out "CPU"
says out "scalar"
expect 0 info --T 8k --head-width 128 --pass forward --json
says out '"schema": "softpick-info/1"'
says out '"T": 8000'
says out '"runs": "'
expect 2 info --T 0
says err "--T: 0 is not between 1 and"
expect 2 info --T 9223372036854775808
says err "--T: 9223372036854775808 is not between"
expect 2 info --T 9999999999999999G
says err "--T: 9999999999999999G is not between"
expect 2 info --T 12q
says err '--T: "12q" is not a whole number'
expect 0 info --pass decode
says out '  decode'
expect 2 info --pass sideways
says err 'sideways'
expect 2 info --dtype f17
says err '--dtype: "f17" is not'
expect 2 info --attention sofpick
says err "--attention: "
expect 2 info --heads 8 --kv-heads 3
says err "--heads: 8 is not a multiple of --kv-heads 3"
expect 2 info --device cuda:x
says err '--device: "cuda:x" is not cpu, cuda (the first GPU) or cuda:N'
expect 0 info --device cuda --dtype bf16
says out "cuda:0, bf16"
says out "GPUs"
has_gpu || says out "  none: CUDA device 0 was asked for"
for command in train generate measure "bench train"; do
    # shellcheck disable=SC2086 # words
    expect 2 $command --device gpu
    says err '--device: "gpu" is not cpu, cuda (the first GPU) or cuda:N'
done
export SP_CPU=scalar
expect 0 info --json
says out '"features": [],'
says out '"runs": "scalar"'
unset SP_CPU

finish
