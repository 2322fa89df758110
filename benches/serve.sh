#!/usr/bin/env bash
# The server and the package beside the engine, and beside transformers behind FastAPI on the same model: one run on the same
# cores, in turns. PYTHON names an interpreter with torch, transformers, safetensors, fastapi, uvicorn and pillow; FLAMANT_PYTHON
# one with our package.
set -euo pipefail
cd "$(dirname "$0")/.."
peer() { "${PYTHON:-python3}" benches/peers/transformers_server.py target/bench-model 8; }
[ -f target/bench-model/few_shot_ids.json ] || cargo bench --bench engine -- few-shot >/dev/null   # writes it
peer
cargo bench --bench serve
peer
for round in 1 2 3; do
    cargo bench --bench serve -- python
    "${FLAMANT_PYTHON:-python3}" benches/peers/serve_python.py
done
