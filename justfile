# The commands of CONTRIBUTING.md; `just --list` shows them.

# Everything that is tested
test:
    cargo test

# The fast subset
test-fast:
    cargo test --lib --test tidy --test formats && cargo test --test models --test engine --test cli --test kernels -- parity:: semantics:: engine:: cli:: bad_input:: batches:: every_operation_is_the_oracles every_kernel_is_started --skip async_engine::

# Format and lints
lint:
    cargo fmt --check && cargo clippy --all-targets -- -D warnings

# Documentation, warnings as errors
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features async,tracing

# A bench of benches/: counts, forms, scheduler, engine, cpu, ...
bench NAME="counts":
    cargo bench --bench {{ NAME }}

# A target of fuzz/ for some seconds (nightly, cargo-fuzz)
fuzz TARGET SECONDS="60":
    cargo +nightly fuzz run {{ TARGET }} -- -max_total_time={{ SECONDS }}

# All targets of fuzz/, one after the other
fuzz-all SECONDS="60":
    for target in $(cargo +nightly fuzz list); do cargo +nightly fuzz run $target -- -max_total_time={{ SECONDS }} || exit 1; done

# The C library without cargo-c, in target/c
c-library:
    tools/c_library.sh

# AddressSanitizer over the C library and its callers
sanitize:
    tools/sanitize.sh

# Licences, sources and advisories of dependencies (cargo-deny)
deny:
    cargo deny check

# The compiled kernels, executed; nvcc must be there
interpreter:
    FLAMANT_REQUIRE_KERNELS=1 cargo test --test interpreter -- --nocapture

# Tests and benches for a machine with a GPU, in target/gpu-pack
gpu-pack:
    benches/pack.sh

# The fixtures of models that an environment can make; tools/golden.py says which two there are
fixtures PYTHON:
    {{ PYTHON }} tools/golden.py --output tests/data

# The Python package: one wheel, its tests, the page in a browser, Ray; or some of wheel, package, page, ray, lmms
python *PARTS:
    tools/test_python.sh {{ PARTS }}

# What a release is made of, in target/dist; or some of archive, wheel, crate
release *PARTS:
    tools/release.sh {{ PARTS }}
