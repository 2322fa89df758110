#!/usr/bin/env bash
# The Python package: one wheel, and with it everything that is tested from Python. `.ci/run` runs all but `lmms`.
#
#   tools/test_python.sh                  wheel package page ray
#   tools/test_python.sh PART ...         some of them, in this order:
#
#   wheel     builds it (profile `python`) and installs it in target/python-venv
#   package   its tests, types (mypy), stubs (stubtest), and openai-python against the server
#   page      the page at / in Chromium, which is installed where this is root and it is missing
#   ray       Serve and Data, in target/ray-venv: 0.8 GB
#   lmms      the whole evaluator of lmms-eval, in target/lmms-venv: 1 GB. FLAMANT_LMMS=1 adds it to all others
#
# Each part says how long it took. Nothing is skipped: what is missing is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then
    parts=(wheel package page ray)
    [ "${FLAMANT_LMMS:-}" != 1 ] || parts+=(lmms)
fi
tests=python/tests
main=target/python-venv

# A virtual environment with what a file of requirements pins; further arguments are pip's.
environment() {
    local folder=$1 requirements=$2
    shift 2
    [ -d "$folder" ] || python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" "$@"
}

# The one wheel there is.
wheel() {
    local found=(target/wheels/flamant-*.whl)
    [ ${#found[@]} -eq 1 ] && [ -f "${found[0]}" ] ||
        { echo "target/wheels: expected one wheel, found ${found[*]} (tools/test_python.sh wheel)" >&2; exit 1; }
    echo "${found[0]}"
}

install_wheel() {
    local file
    file=$(wheel)
    "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$file"
}

part_wheel() {
    environment "$main" "$tests/requirements.txt"
    rm -rf target/wheels
    # PyO3 turns on features of crates that others share, so that it has a folder of its own.
    # Without kernels: no test here starts one.
    CARGO_TARGET_DIR="$PWD/target/python" env -u VIRTUAL_ENV -u FLAMANT_REQUIRE_KERNELS \
        "$main/bin/maturin" build --quiet --profile python --manifest-path python/Cargo.toml --out target/wheels
    install_wheel "$main"
    echo "$(wheel): $(stat -c %s "$(wheel)") bytes"
}

# pytest of an environment, with the program of the wheel.
tested() {
    local folder=$1
    shift
    FLAMANT_PROGRAM="$PWD/$folder/bin/flamant" timeout --kill-after 30 600 "$folder/bin/pytest" -q --durations 3 \
        -c python/pyproject.toml --rootdir python -p no:cacheprovider "$@"
}

part_package() {
    local files=()
    for file in "$tests"/test_*.py; do
        case $file in */test_page.py | */test_ray.py) ;; *) files+=("$file") ;; esac
    done
    tested "$main" "${files[@]}"
}

part_page() {
    chromium=${FLAMANT_CHROMIUM:-/usr/bin/chromium}
    if [ ! -x "$chromium" ] && [ "$(id -u)" -eq 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium > target/chromium.log
    fi
    [ -x "$chromium" ] || { echo "$chromium: expected a browser, found none: apt-get install chromium" >&2; exit 1; }
    FLAMANT_CHROMIUM=$chromium tested "$main" "$tests/test_page.py"
}

part_ray() {
    environment target/ray-venv "$tests/requirements-ray.txt"
    install_wheel target/ray-venv
    # Ray's own modules warn of what they use.
    tested target/ray-venv -W ignore "$tests/test_ray.py"
}

part_lmms() {
    # lmms-eval wants torch and much else that nothing here uses: only what its evaluator imports is installed.
    environment target/lmms-venv "$tests/requirements-lmms.txt"
    target/lmms-venv/bin/pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
    install_wheel target/lmms-venv
    HF_DATASETS_OFFLINE=1 tested target/lmms-venv "$tests/lmms_whole.py"
}

known="wheel, package, page, ray or lmms"
for part in "${parts[@]}"; do
    declare -F "part_$part" > /dev/null || { echo "parts: expected $known, found $part" >&2; exit 2; }
done
for part in "${parts[@]}"; do
    begun=$SECONDS
    "part_$part"
    echo "python: $part: $((SECONDS - begun)) s"
done
