//! What is not tested without nvcc: said where it is seen, or a failure where it is required.

use std::io::Write as _;

/// Says what is not tested, past the capture of tests that pass.
///
/// # Panics
/// If `FLAMANT_REQUIRE_KERNELS` makes that a failure, because of `why`.
pub fn without_nvcc(not_tested: &str, why: &str) {
    let required = std::env::var("FLAMANT_REQUIRE_KERNELS").is_ok_and(|value| !value.is_empty() && value != "0");
    assert!(!required, "FLAMANT_REQUIRE_KERNELS is set, but {why}");
    writeln!(std::io::stderr(), "not tested: {not_tested}").expect("the standard error takes a line");
}
