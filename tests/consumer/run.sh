#!/bin/sh
# Installs the build, moves the installed tree, builds a program against it both ways, follows README.md's own commands,
# and runs what was installed.
# Usage: run.sh BUILD_FOLDER SOURCE_FOLDER CMAKE_GENERATOR
set -eu
build=$1
source=$2/tests/consumer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved" # a package must not depend on where it was installed
prefix=$work/moved
pc_file=$(find "$prefix" -name softpick.pc)
PKG_CONFIG_PATH=$(dirname "$pc_file")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir softpick)

echo "-- pkg-config"
# shellcheck disable=SC2046 # the flags are words
${CC:-cc} -std=c11 -Wall -Werror "$source/consumer.c" -o "$work/by_pkg_config" \
    $(pkg-config --cflags --libs softpick) -lm
LD_LIBRARY_PATH=$libdir "$work/by_pkg_config"

echo "-- the commands of README.md"
cp "$2/examples/attention.c" "$work"
sed -n '/^## From C$/,/^## The tool$/s/^    \(cc .*\|\.\/attention\)$/\1/p' "$2/README.md" >"$work/commands"
sed -n '/^It prints$/,/^when /s/^    //p' "$2/README.md" >"$work/expected"
grep -q '^cc ' "$work/commands"
(cd "$work" && sh -eu ./commands) >"$work/printed"
diff -u "$work/expected" "$work/printed"

echo "-- find_package"
cmake -G "$3" -S "$source" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="${CC:-cc}" \
    -DCMAKE_EXE_LINKER_FLAGS=-lm >"$work/configure.log"
cmake --build "$work/cmake" >"$work/build.log"
"$work/cmake/consumer"

echo "-- the tool"
"$prefix/bin/softpick" --version
