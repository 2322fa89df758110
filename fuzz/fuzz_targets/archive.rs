//! PyTorch archives: the zip directory, the pickle inside, and what it says of storages. Contiguous tensors that are
//! accepted lie inside the file.

#![no_main]

use std::path::Path;

use flamant::checkpoint::torch::parse_archive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = parse_archive(bytes, Path::new("fuzzed")) else { return };
    for layout in table.values().filter(|layout| layout.strides.is_none()) {
        assert!(layout.start.checked_add(layout.length).is_some_and(|stop| stop <= bytes.len()));
    }
});
