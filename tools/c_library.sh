#!/usr/bin/env bash
# Builds the C library without cargo-c: libflamant.so with its soname, libflamant.a, flamant.h. Usage:
#     tools/c_library.sh [FOLDER [CARGO-ARGUMENT...]]        FOLDER is target/c if not given; --release is usual
# It needs no C++ compiler, and the libraries need no libstdc++; nvcc is used for GPUs if it is there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/target/c}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- --release
# As cargo-c names it: what breaks programs changes the second number.
soname=libflamant.so.$(sed -n 's/^version = "\([0-9]*\.[0-9]*\)\..*/\1/p' "$root/Cargo.toml" | head -n 1)
built=$(cargo rustc --manifest-path "$root/Cargo.toml" --lib --crate-type cdylib,staticlib --no-default-features \
    --features capi --message-format=json-render-diagnostics "$@" -- -C link-arg=-Wl,-soname,"$soname" |
    grep -o '"filenames":\[[^]]*libflamant\.so"[^]]*\]' | grep -o '[^"]*/libflamant\.\(so\|a\)"' | tr -d '"')
mkdir -p "$folder"
# A copy would go through the link of a build before.
rm -f "$folder"/libflamant.*
cp $built "$root/include/flamant.h" "$folder"
mv "$folder/libflamant.so" "$folder/$soname"
ln -sf "$soname" "$folder/libflamant.so"
echo "$folder"
