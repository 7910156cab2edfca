#!/bin/sh
# Checks that each public header compiles alone, as C11 and as C++17, without a warning.  softpick/dlpack.h needs the
# header of DLPack: it is passed over where that is not installed.
# Usage: check_headers.sh INCLUDE_FOLDER [CC [CXX]]
set -eu
headers=$1
cc=${2:-cc}
cxx=${3:-c++}
for header in "$headers"/softpick/*.h; do
    case $header in
        */dlpack.h) echo '#include <dlpack/dlpack.h>' | "$cc" -fsyntax-only -x c - 2>/dev/null || continue ;;
    esac
    # included, as users do: compiled by itself, an inline function of it would be called unused
    include="#include <softpick/$(basename "$header")>"
    echo "$include" | "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$headers" -x c -
    echo "$include" | "$cxx" -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$headers" -x c++ -
done
echo "headers: each compiles alone as C11 and C++17"
