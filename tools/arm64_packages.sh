#!/bin/sh
# Unpacks the arm64 libraries that a cross build links (cmake/arm64.cmake) into a folder.  The system's own packages and
# architectures stay as they are: apt-get works on lists and a cache of that folder.  Once there, it does nothing.
# Usage: arm64_packages.sh FOLDER
set -eu
mkdir -p "$1"
cd "$1"
[ ! -e complete ] || exit 0
mkdir -p apt/lists/partial apt/archives/partial

# As if on an arm64 system with nothing installed.
apt() {
    apt-get -q -y -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$PWD/apt" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/apt" -o Acquire::Languages=none -o Debug::NoLocking=1 "$@" >&2
}
apt update
apt --download-only --no-install-recommends install libcmocka-dev libjansson-dev libsentencepiece-dev \
    libzstd-dev zlib1g-dev libpcre2-dev libutf8proc-dev
for package in apt/archives/*.deb; do dpkg-deb -x "$package" .; done
rm -r apt
touch complete
