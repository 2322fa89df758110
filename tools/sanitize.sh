#!/usr/bin/env bash
# Runs the programs of tests/capi with AddressSanitizer in all of it: the library in Rust, the C that it is built with, and
# the callers. Usage: tools/sanitize.sh [CALLS]; so many random calls of fuzz.c, 20000 if not given. Linux, gcc.
set -euo pipefail
cd "$(dirname "$0")/.."
calls=${1:-20000}
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/sanitize
# The released compiler has the sanitizer, and its runtime, behind a flag of nightly ones. Build scripts and macros, which
# are for the host, are left alone because a target is named.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CFLAGS="-fsanitize=address -fno-omit-frame-pointer"
cargo rustc --lib --crate-type staticlib --no-default-features --features capi --profile dev \
    --target "$host" --target-dir "$target"
runtime=$(ls "$(rustc --print sysroot)/lib/rustlib/$host/lib/"librustc-*_rt.asan.a)
out=$target/programs
mkdir -p "$out"
for name in misuse threads told fuzz; do
    # The compiler's own runtime would be a second one.
    gcc -std=c11 -O1 -g -pthread $CFLAGS -Iinclude -c "tests/capi/$name.c" -o "$out/$name.o"
    gcc -pthread -rdynamic "$out/$name.o" "$target/$host/debug/libflamant.a" -Wl,--whole-archive "$runtime" \
        -Wl,--no-whole-archive -ldl -lm -lrt -lresolv -o "$out/$name"
done
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1
for name in misuse threads told; do "$out/$name"; done
for seed in 1 2 3; do "$out/fuzz" "$calls" "$seed"; done
