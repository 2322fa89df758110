//! `tokenizer.json`, and rounds of text through what opens: a plain one, and the file's own.

#![no_main]

use std::sync::LazyLock;

use flamant::checkpoint::Folder;
use flamant::{ErrorKind, Family, TextStream, Tokenizer};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// Rows of the embedding of the model that it would be of.
const VOCABULARY: usize = 64;

static FAMILY: LazyLock<&Family> = LazyLock::new(|| Family::find("idefics").expect("a family that there is"));

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    std::fs::write(FOLDER.path().join("tokenizer.json"), json).expect("a writable folder");
    let tokenizer = match Tokenizer::open(Folder::Disk(FOLDER.path()), *FAMILY, VOCABULARY) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
    };
    for text in ["<s>kep.<image> \u{e9}\u{1f9a9}abc</s>", &String::from_utf8_lossy(json)] {
        let ids = match tokenizer.encode(text) {
            Ok(ids) => ids,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
                continue;
            }
        };
        assert!(ids.iter().all(|&id| (id as usize) < VOCABULARY), "an id beyond the embedding: {ids:?}");
        let mut stream = TextStream::default();
        let mut pieces: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
        pieces += &stream.finish(&tokenizer);
        assert_eq!(pieces, tokenizer.decode(&ids), "the pieces are not the whole");
    }
});
