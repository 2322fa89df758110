//! Copies of the model in the box that have some numbers that are not finite.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder of a copy in which the embedding of one token, `z`, is of these bits in bfloat16.
pub fn model(bits: u16) -> tempfile::TempDir {
    const TOKEN: usize = 29;
    let vocabulary: Value = serde_json::from_slice(&fs::read(demo().join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(vocabulary["model"]["vocab"]["z"], TOKEN);
    with_row("model.embed_tokens.weight", TOKEN, bits)
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// The folder of a copy in which a row of a tensor, or a number of a vector, is of these bits in bfloat16.
pub fn with_row(tensor: &str, row: usize, bits: u16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    for entry in fs::read_dir(&demo).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let mut bytes = fs::read(demo.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let length = u64::from_le_bytes(*length) as usize;
    let header: Value = serde_json::from_slice(&rest[..length]).unwrap();
    let tensor = &header[tensor];
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let width = 2 * tensor["shape"].get(1).map_or(1, number);
    let first = 8 + length + number(&tensor["data_offsets"][0]) + row * width;
    bytes[first..first + width].chunks_exact_mut(2).for_each(|number| number.copy_from_slice(&bits.to_le_bytes()));
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}
