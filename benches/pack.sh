#!/usr/bin/env bash
# Builds, for a machine with a GPU and without Rust, the tests and benches that a GPU run needs (x86-64) and gathers them
# in a folder: pack.sh [FOLDER]. They are stripped and packed together; benches/gpu.sh unpacks and runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${1:-target/gpu-pack}
limit=$((64 << 20))
rm -rf "$pack"
mkdir -p "$pack/files"

# gather KIND PREFIX CARGO_ARGUMENTS..: copies what cargo makes of this kind, under PREFIX and the target's name.
gather() {
    local kind=$1 prefix=$2
    shift 2
    cargo "$@" --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    # Programs that only come along with their tests are left out.
    if message.get("executable") and message["target"]["kind"] == [sys.argv[1]]:
        print(message["target"]["name"], message["executable"])
' "$kind" | while read -r name program; do
        strip -o "$pack/files/$prefix$name" "$program"
    done
}
gather test test- test --release --no-run --test kernels --test models
gather bench bench- bench --no-run --bench first --bench ops --bench models
gather bin "" build --release --bin flamant

# Programs know where the tree was that they were built from.
pwd >"$pack/root"
# One dictionary over all: each program holds the same kernels.
tar -C "$pack/files" -c . | xz -T1 --lzma2=preset=6,dict=128MiB >"$pack/files.tar.xz"
rm -r "$pack/files"
size=$(du -sb "$pack" | cut -f1)
echo "$pack: $((size >> 10)) KiB"
[ "$size" -lt "$limit" ] || { echo "more than $((limit >> 20)) MiB" >&2; exit 1; }
