//! `config.json` beside the headers of a real model, so that what parses is also held against shapes.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use flamant::Inspection;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo/model.safetensors");
    std::fs::copy(weights, folder.path().join("model.safetensors")).expect("the model in the box");
    folder
});

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    std::fs::write(FOLDER.path().join("config.json"), json).expect("a writable folder");
    if let Err(error) = Inspection::of(FOLDER.path()) {
        assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
    }
});
