#!/usr/bin/env bash
# All that a run on a GPU owes, on a machine with CUDA and PyTorch and without Rust, in at most 10 minutes:
#   gpu.sh [STAGE ..]     stages: tests sanitize ops models; all of them if none is named
# Needs what benches/pack.sh made (PACK, target/gpu-pack). Results and logs go to OUT, or benches/results. ROUNDS: how
# often our benches and the peers take turns (1; give a stage a call of its own for more).
set -uo pipefail
cd "$(dirname "$0")/.."
pack=${PACK:-target/gpu-pack}
out=$(realpath -m "${OUT:-benches/results}")
mkdir -p "$out"
[ $# -gt 0 ] || set -- tests sanitize ops models
[ -e "$pack/test-ops" ] || python3 -c "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='tar')" \
    "$pack/files.tar.xz" "$pack" || exit

# Tests look for their data where the tree was when they were built.
root=$(cat "$pack/root")
if [ ! -e "$root" ]; then
    mkdir -p "$(dirname "$root")"
    ln -s "$PWD" "$root" || { echo "the tests look for their data in $root" >&2; exit 1; }
fi
export FLAMANT_REQUIRE_DEVICES=cuda PYTHONUNBUFFERED=1
failed=()

# step NAME SECONDS COMMAND..: a log for each, its end on the terminal, and what failed at the end.
step() {
    local name=$1 seconds=$2 begun=$SECONDS
    shift 2
    timeout "$seconds" "$@" >"$out/$name.log" 2>&1 && local code=0 || local code=$?
    tail -n 15 "$out/$name.log"
    echo "== $name: exit $code after $((SECONDS - begun)) s"
    [ "$code" = 0 ] || failed+=("$name")
}

for stage in "$@"; do
    case $stage in
    tests)
        "$pack/flamant" devices
        # Cases on one GPU follow each other.
        step test-ops 200 "$pack/test-ops" --test-threads=1
        step test-devices 120 "$pack/test-devices" --test-threads=1
        ;;
    sanitize)
        for tool in memcheck racecheck; do
            step "sanitize-$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 1 \
                "$pack/test-ops" --test-threads=1 --exact every_operation_is_the_processors
        done
        ;;
    ops | models)
        step "bench-$stage" 270 python3 benches/peers/run.py "$pack" "$out" --stages "$stage" --rounds "${ROUNDS:-1}"
        ;;
    *)
        echo "expected tests, sanitize, ops or models, found $stage" >&2
        exit 2
        ;;
    esac
done
[ ${#failed[@]} = 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
