//! Pickles alone, without the archive around them, so that the fuzzer need not forge one.

#![no_main]

use std::path::Path;

use flamant::checkpoint::pickle::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes, Path::new("fuzzed"));
});
