#!/usr/bin/env bash
# Our side (criterion) and transformers on the same model, the same cores and in one run, alternating: peer, ours, peer.
# PYTHON names an interpreter with torch, transformers and safetensors.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --bench cpu -- --test >/dev/null 2>&1   # writes target/bench-model on the first run
peer() { "${PYTHON:-python3}" benches/peers/transformers_cpu.py target/bench-model 16; }
peer
cargo bench --bench cpu
peer
