#!/usr/bin/env bash
# What a release is made of, in target/dist: the program for Linux with glibc 2.28 and later as an archive, the wheel,
# the crate, and SHA256SUMS. Nothing is published.
#
#   tools/release.sh              everything, with kernels: nvcc must be there (CONTRIBUTING.md)
#   tools/release.sh archive      the archive alone; `wheel` and `crate` likewise
#
# zig, from PyPI, links against an old glibc. Not musl: a static program cannot open the driver, libcuda, at run time.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
glibc=2.28
dist=target/dist
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(archive wheel crate)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export FLAMANT_REQUIRE_KERNELS=${FLAMANT_REQUIRE_KERNELS:-1}
# So that the same commit makes the same archive.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

part_archive() {
    cargo zigbuild --release --locked --package flamant --target "$target.$glibc"
    local program=target/$target/release/flamant name=flamant-$version-$target newest
    newest=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    [ "$(printf 'GLIBC_%s\n%s\n' "$glibc" "$newest" | sort -V | tail -n 1)" = "GLIBC_$glibc" ] ||
        { echo "$program: expected symbols of glibc $glibc at most, found $newest" >&2; exit 1; }
    [ "$("$program" --version)" = "flamant $version" ] ||
        { echo "$program: expected flamant $version, found $("$program" --version)" >&2; exit 1; }
    rm -rf "${dist:?}/$name"
    mkdir -p "$dist/$name"
    strip -o "$dist/$name/flamant" "$program"
    cp README.md CHANGELOG.md LICENSE "$dist/$name/"
    tar --create --directory "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        "$name" | gzip --no-name --best > "$dist/$name.tar.gz"
    rm -r "${dist:?}/$name"
}

part_wheel() {
    tools/wheel.sh
    cp target/wheels/flamant-"$version"-*manylinux*.whl "$dist/"
}

part_crate() {
    cargo package --locked --package flamant
    cp "target/package/flamant-$version.crate" "$dist/"
}

[ -z "$(git status --porcelain)" ] || { echo "the tree has changes: a release is a commit" >&2; exit 1; }
mkdir -p "$dist"
[ -d target/zig-venv ] || python3 -m venv target/zig-venv
target/zig-venv/bin/pip install --quiet --disable-pip-version-check \
    cargo-zigbuild==0.24.1 maturin==1.16.0 ziglang==0.17.1
export PATH="$PWD/target/zig-venv/bin:$PATH"
for part in "${parts[@]}"; do
    declare -F "part_$part" > /dev/null || { echo "expected archive, wheel or crate, found $part" >&2; exit 2; }
    "part_$part"
done
(cd "$dist" && sha256sum flamant-* > SHA256SUMS && cat SHA256SUMS)
