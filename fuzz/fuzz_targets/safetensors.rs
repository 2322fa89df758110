//! Headers of safetensors files. What is accepted lies inside the file.

#![no_main]

use std::path::Path;

use flamant::checkpoint::safetensors::parse_header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = parse_header(bytes, Path::new("fuzzed")) else { return };
    for layout in table.values() {
        assert!(layout.start.checked_add(layout.length).is_some_and(|stop| stop <= bytes.len()));
    }
});
