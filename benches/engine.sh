#!/usr/bin/env bash
# Queries behind one few-shot prefix: ours and transformers on the same model, the same cores and in one run,
# alternating: peer, ours, peer. PYTHON names an interpreter with torch, transformers and safetensors.
set -euo pipefail
cd "$(dirname "$0")/.."
peer() { "${PYTHON:-python3}" benches/peers/transformers_few_shot.py target/bench-model 4; }
[ -f target/bench-model/few_shot_ids.json ] || cargo bench --bench engine -- few-shot >/dev/null   # writes it
peer
cargo bench --bench engine -- few-shot
peer
