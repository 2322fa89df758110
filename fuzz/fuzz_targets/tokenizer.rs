//! `tokenizer.json`, and a round of text through what opens.

#![no_main]

use std::sync::LazyLock;

use flamant::checkpoint::Folder;
use flamant::{Family, TextStream, Tokenizer};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Rows of the embedding of the model in the box.
const VOCABULARY: usize = 32;

static FAMILY: LazyLock<&Family> = LazyLock::new(|| Family::find("idefics").expect("a family that there is"));

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    std::fs::write(FOLDER.path().join("tokenizer.json"), json).expect("a writable folder");
    let Ok(tokenizer) = Tokenizer::open(Folder::Disk(FOLDER.path()), *FAMILY, VOCABULARY) else { return };
    let Ok(ids) = tokenizer.encode("<s>kep.<image> \u{e9}\u{1f9a9}abc</s>") else { return };
    assert!(ids.iter().all(|&id| (id as usize) < VOCABULARY), "an id beyond the embedding: {ids:?}");
    let mut stream = TextStream::default();
    let mut text: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
    text += &stream.finish(&tokenizer);
});
