//! Folders of Otter and its relatives that are not as they should be: a line each.

use std::fs;
use std::path::Path;

use flamant::{Engine, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases");

/// A copy of a folder.
fn copy(from: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(Path::new(CASES).join(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn set(folder: &TempDir, path: &str, value: Value) {
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut place = &mut config;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    fs::write(file, config.to_string()).unwrap();
}

#[track_caller]
fn refused(folder: &TempDir, mentions: &[&str]) {
    let Err(error) = Engine::open(folder.path(), &Options::default().threads(1)) else { panic!("{mentions:?}") };
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 600, "{line}");
    for mention in mentions {
        assert!(line.contains(mention), "{mention} is not in: {line}");
    }
}

#[test]
fn configurations_at_odds_with_themselves_are_refused_by_key() {
    let cases = [
        ("model_type", json!("Otter"), "model_type: expected \"idefics\", \"open_flamingo\", \"otter\""),
        ("cross_attn_every_n_layers", json!(9), "at most the 4 layers of the language model, found 9"),
        ("cross_attn_every_n_layers", json!(4), "expected only tensors that the model of config.json uses"),
        ("cross_attn_every_n_layers", Value::Null, "cross_attn_every_n_layers: expected a whole number"),
        ("text_config.model_type", json!("RefinedWebModel"), "text_config.model_type: expected \"mpt\""),
        ("text_config.n_heads", json!(3), "text_config.heads: expected a divisor of the width 16, found 3"),
        ("text_config.attn_config.alibi", json!(false), "text_config.attn_config.alibi: expected true, found false"),
        ("text_config.use_cache", json!("no"), "text_config.use_cache: expected true or false, found \"no\""),
        ("vision_config.patch_size", json!(29), "vision_config.patch_size: expected at most the image size 28"),
        ("media_mask", json!("next"), "media_mask: expected \"preceding\" or \"following\", found \"next\""),
        ("media_mask", json!(1), "media_mask: expected a string, found 1"),
        ("answer_sees_media", json!("last"), "answer_sees_media: expected true or false, found \"last\""),
    ];
    for (key, value, message) in cases {
        let folder = copy("otter-mpt/model");
        set(&folder, key, value);
        refused(&folder, &["config.json: ", message][usize::from(message.starts_with("expected only"))..]);
    }
}

#[test]
fn what_is_to_be_merged_or_added_first_is_said() {
    let folder = copy("otter-llama-lora/unmerged");
    refused(
        &folder,
        &["lora_A.default.weight: expected weights with their adapter merged", "`flamant convert --model"],
    );
    let folder = copy("otter-mpt/model");
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    refused(
        &folder,
        &[
            "tokenizer.json: tokenizer: expected a file",
            "`flamant convert --model MODEL --tokenizer FOLDER`",
            "found none",
        ],
    );
    let folder = copy("otter-mpt/model");
    fs::remove_file(folder.path().join("pytorch_model-00002-of-00002.bin")).unwrap();
    refused(&folder, &["pytorch_model-00002-of-00002.bin"]);
    let folder = copy("otter-mpt/model");
    fs::copy(Path::new(CASES).join("open_flamingo-mpt/language/tokenizer.json"), folder.path().join("tokenizer.json"))
        .unwrap();
    refused(&folder, &["tokenizer.json: vocabulary: expected the token <image>, found none"]);
}
