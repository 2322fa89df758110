#!/usr/bin/env bash
# All that a run on a GPU owes, on a machine with CUDA and PyTorch and without Rust, in two calls of at most 6 minutes each:
#   gpu.sh a              stages first tests: the map of first numbers, then every kernel's results
#   gpu.sh b              stages sanitize ops models: memory and races, then our benches beside the peers
#   gpu.sh [STAGE ..]     these stages, in this order; a and b if none is named
#   gpu.sh --plan [..]    what would run, as lines of: call, stage, step, seconds at most
# Needs what benches/pack.sh made (PACK, target/gpu-pack). Results and logs go to OUT, or benches/results: eight files a call.
# A step that ends early leaves its time to the steps after it; one that does not end is stopped, and counts as failed.
#
# The map (stage first) prints eight numbers, each beside a reckoned range. Read them from the top: the first two say
# whether weights arrive as fast as memory gives them, the third what a large tile computes, the fourth and fifth whether
# the right form of linear layer was chosen where tiles or blocks are few, then split attention of one sequence and of 16,
# where its launches are negligible, and last what a launch itself costs. A number outside its range comes with what it means
# and where to look first; the ranges are for an H200. Kernels are named, and so is one that the range does not presume.
#
# Call b runs the benches that run.py has goals for; FILTER, a regular expression of names, says otherwise. All of them:
#   FILTER=. BENCH_SECONDS=560 gpu.sh ops     with ROUNDS=3, ours and the peers take three turns
set -uo pipefail

# call, stage, step, seconds at most. Unpacking is done once on a machine.
steps="\
a unpack unpack 15
a first  card 15
a first  first 60
a tests  test-ops 185
a tests  test-devices 70
b unpack unpack 15
b sanitize sanitize-memcheck 65
b sanitize sanitize-racecheck 90
b ops    bench-ops 90
b models bench-models 90"

only_plan=
[ "${1-}" != --plan ] || { only_plan=yes; shift; }
[ $# -gt 0 ] || set -- a b
chosen=
for name in "$@"; do
    case $name in
    a) lines=$(grep "^a " <<<"$steps") ;;
    b) lines=$(grep "^b " <<<"$steps") ;;
    first | tests | sanitize | ops | models)
        lines=$(grep "^[ab] $name " <<<"$steps")
        lines="${lines%% *} unpack unpack 15"$'\n'"$lines"
        ;;
    *)
        echo "expected a, b, first, tests, sanitize, ops or models, found $name" >&2
        exit 2
        ;;
    esac
    [[ $name != ops && $name != models ]] || [ -z "${BENCH_SECONDS-}" ] ||
        lines=$(sed -E "s/(bench-[a-z]+) [0-9]+/\1 $BENCH_SECONDS/" <<<"$lines")
    chosen+=$lines$'\n'
done
# Each step once.
chosen=$(sed '/^$/d' <<<"$chosen" | tr -s ' ' | awk '!seen[$0]++')
plan() {
    awk '{ print; sum[$1] += $4; all += $4; if (!seen[$1]++) calls[++count] = $1 }
        END { for (i = 1; i <= count; i++) print calls[i], "total", "-", sum[calls[i]]; print "all", "total", "-", all }' <<<"$chosen"
}
if [ -n "$only_plan" ]; then
    plan
    exit
fi

cd "$(dirname "$0")/.." || exit
pack=${PACK:-target/gpu-pack}
out=$(realpath -m "${OUT:-benches/results}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
date -u
plan | column -t 2>/dev/null || plan
# Tests leave out the emulator: it has run everywhere else.
export FLAMANT_REQUIRE_DEVICES=cuda FLAMANT_TEST_DEVICES=cuda PYTHONUNBUFFERED=1
failed=()
summary=
deadline=$SECONDS

# step NAME SECONDS COMMAND..: a log for each (in LOGS or OUT), its end on the terminal, and what failed at the end. LEFT in
# the command's environment is how long it has.
step() {
    local name=$1 bound=$2 begun=$SECONDS
    shift 2
    deadline=$((deadline + bound))
    local left=$((deadline - SECONDS)) told code=0
    local log=${LOGS:-$out}/$name.log
    # No step may read the list of steps.
    LEFT=$left timeout --kill-after=5 "$left" "$@" >"$log" 2>&1 </dev/null || code=$?
    case $code in
    0) told=done ;;
    124 | 137) told="STOPPED after $left s" ;;
    *) told="FAILED with $code" ;;
    esac
    tail -n "${TAIL:-15}" "$log"
    echo "== $name: $told, $((SECONDS - begun)) s"
    summary+="$name $((SECONDS - begun)) $bound $told"$'\n'
    [ "$code" = 0 ] || failed+=("$name")
}

# Unpacked once, and complete or not at all. Tests look for their data where the tree was when they were built.
unpack() {
    if [ ! -e "$pack/unpacked" ]; then
        python3 -c "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='tar')" \
            "$pack/files.tar.xz" "$pack" || return
        touch "$pack/unpacked"
    fi
    local root
    root=$(cat "$pack/root") || return
    if [ ! -e "$root" ]; then
        mkdir -p "$(dirname "$root")"
        ln -s "$PWD" "$root" || { echo "the tests look for their data in $root" >&2; return 1; }
    fi
}

# What the card is and how it is clocked; what we make of it.
card() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks_event_reasons.active,temperature.gpu,power.draw \
        --format=csv
    "$pack/flamant" devices
}
export -f unpack card
export pack

while read -r _ stage name bound; do
    case $stage in
    unpack)
        LOGS=$scratch step unpack "$bound" bash -c unpack
        [ ${#failed[@]} = 0 ] || break
        ;;
    first)
        case $name in
        card) LOGS=$scratch step card "$bound" bash -c card ;;
        first) TAIL=40 step first "$bound" "$pack/bench-first" --out "$out" ;;
        esac
        ;;
    tests)
        # Cases on one GPU follow each other. What is skipped is the emulator's alone.
        case $name in
        test-ops) program=test-kernels ;;
        test-devices) program=test-models ;;
        esac
        step "$name" "$bound" "$pack/$program" "${name#test-}::" --test-threads=1 \
            --skip turns_and_copies_never_change_a_bit --skip every_kernel_is_started \
            --skip linear_forms_ask_for_what_is_reckoned --skip keys_in_common_are_read_once
        ;;
    sanitize)
        step "$name" "$bound" compute-sanitizer --tool "${name#sanitize-}" --error-exitcode 1 \
            "$pack/test-kernels" --test-threads=1 --exact ops::every_operation_is_the_oracles
        ;;
    ops | models)
        case $stage in
        ops) filter='linear/(1|16|512)x4096x|vision/|masked/1024to32|llama/decode' ;;
        models) filter=IDEFICS-9B ;;
        esac
        TAIL=60 step "$name" "$bound" python3 benches/peers/run.py "$pack" "$out" --stages "$stage" \
            --rounds "${ROUNDS:-1}" --filter "${FILTER:-$filter}" --scratch "$scratch"
        ;;
    esac
done <<<"$chosen"
echo "step seconds bound outcome" | cat - <(printf %s "$summary") | awk '{ printf "%-20s %8s %6s  ", $1, $2, $3; $1 = $2 = $3 = ""; print }'
[ ${#failed[@]} = 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
