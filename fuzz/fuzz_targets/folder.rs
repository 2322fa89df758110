//! Model folders: the input is cut into files at lines `=== NAME`, which stand beside the files of the model in the
//! box or in their place. What opens answers a prompt.

#![no_main]

use std::path::{Path, PathBuf};

use flamant::{Engine, ErrorKind, Inspection, Options};

/// Files that are kept in the folder where the input has none of their name.
const FILES: [&str; 4] = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"];
/// Names that an input may give.
const NAMES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "other.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    for file in FILES {
        std::os::unix::fs::symlink(demo.join(file), folder.path().join(file)).expect("a writable folder");
    }
    for (name, content) in files(bytes) {
        let path = folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        // Without a content: a file that is not there.
        if !content.is_empty() {
            std::fs::write(path, content).expect("a writable folder");
        }
    }
    let _ = Inspection::of(folder.path()).inspect_err(check);
    let _ = Engine::open(folder.path(), &Options::default().threads(1)).map(drop).inspect_err(check);
});

fn check(error: &flamant::Error) {
    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
}

/// The files in an input.
fn files(bytes: &[u8]) -> Vec<(&Path, Vec<u8>)> {
    let mut files: Vec<(&Path, Vec<u8>)> = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let named = str::from_utf8(line).ok().and_then(|line| line.strip_prefix("=== "));
        match named.and_then(|name| NAMES.iter().find(|known| **known == name.trim_end())) {
            Some(name) => files.push((Path::new(name), Vec::new())),
            None => files.iter_mut().next_back().into_iter().for_each(|(_, content)| content.extend(line)),
        }
    }
    files
}
