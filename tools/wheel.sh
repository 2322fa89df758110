#!/usr/bin/env bash
# The wheel for PyPI, in target/wheels: one for CPython 3.11 and later on Linux with glibc 2.28 or later.
#
#     python3 -m venv venv && venv/bin/pip install 'maturin>=1.16,<2' ziglang
#     PATH="$PWD/venv/bin:$PATH" tools/wheel.sh
#
# Zig links against glibc 2.28 on whatever system this is; libcuda is opened at run time, so nothing is bundled. The
# kernels are in the wheel where build.rs finds nvcc; FLAMANT_REQUIRE_KERNELS=1 makes that a condition.
set -euo pipefail
cd "$(dirname "$0")/../python"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../target/python}"
maturin build --profile python --zig --compatibility manylinux_2_28 --out "$PWD/../target/wheels" "$@"
