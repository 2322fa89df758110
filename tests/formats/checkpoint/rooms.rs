//! Folders of Otter, flamingo-mini and their relatives that are not as they should be: a line each.

use std::fs;
use std::path::Path;

use flamant::convert::{MergeOptions, merge};
use flamant::{Engine, Flamingo, Inspection, Options, Prompt};
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

/// Has the names of a file's tensors changed.
fn rename(file: &Path, from: &str, to: &str) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap().replace(from, to);
    let all = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]].concat();
    fs::write(file, all).unwrap();
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
        ("model_type", json!("Otter"), "model_type: expected \"idefics\", \"open_flamingo\", \"mllama\", \"otter\""),
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

#[test]
fn a_folder_of_flamingo_mini_says_what_it_lacks() {
    let cases = [
        ("xattn_every", json!(0), "xattn_every: expected a whole number from 1 to 1024, found 0"),
        ("xattn_every", json!(2), "expected"),
        ("xattn_heads", json!(3), "attn.to_kv.weight: expected 72 rows, found 48 rows"),
        ("xattn_act", json!("tanh"), "xattn_act: expected"),
        ("resampler_dim_head", json!("x"), "resampler_dim_head: expected a whole number from 1 to 65536, found \"x\""),
        ("resampler_heads", json!(4), "0.to_q.weight: expected 48 rows, found 24 rows"),
    ];
    for (key, value, message) in cases {
        let folder = copy("flamingo-mini-opt/model");
        set(&folder, key, value);
        refused(&folder, &[message]);
    }
    let lacks = |from: &str, to: &str| {
        let folder = copy("flamingo-mini-opt/model");
        rename(&folder.path().join("model.safetensors"), from, to);
        folder
    };
    let tower = lacks("flamingo.vision_encoder", "other.vision_encoder");
    refused(&tower, &["class_embedding: expected CLIP's vision tower too", "--vision-model CLIP", "found none"]);
    refused(&lacks("time_pos_emb", "other"), &["flamingo.resampler.other: expected only tensors that the model"]);
    refused(&lacks("lm.decoder.embed_tokens", "lm.decoder.embedding"), &["flamingo.lm.wpe.weight", "found none"]);
}

/// A folder that was saved without its tower and its tokenizer is what it was with them.
#[test]
fn a_tower_and_a_tokenizer_come_from_elsewhere() {
    let without = copy("flamingo-mini-opt/model");
    rename(&without.path().join("model.safetensors"), "flamingo.vision_encoder", "other.vision_encoder");
    let tokenizer = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::rename(without.path().join(name), tokenizer.path().join(name)).unwrap();
    }
    let tower = copy("flamingo-mini-opt/model");
    let file = tower.path().join("model.safetensors");
    rename(&file, "flamingo.vision_encoder.vision_model", "vision_model");
    let output = tower.path().join("output");
    let options = MergeOptions::new(without.path(), &output)
        .tokenizer(Some(tokenizer.path().to_owned()))
        .vision_model(Some(file));
    merge(&options, &mut |_, _| ()).unwrap();
    let prompt = Prompt::from_file(Path::new(CASES).join("flamingo-mini-opt/prompt.json"), Default::default()).unwrap();
    let score = |folder: &Path| {
        let mut flamingo = Flamingo::open(folder, &Options::default().threads(1)).unwrap();
        flamingo.score(&prompt).unwrap().logprobs
    };
    assert_eq!(score(&output), score(&Path::new(CASES).join("flamingo-mini-opt/model")));
}

/// Any other `<` would count as an image.
#[test]
fn text_that_stands_for_an_image_is_refused() {
    let folder = Path::new(CASES).join("flamingo-mini-opt/model");
    let engine = Engine::open(folder, &Options::default().threads(1)).unwrap();
    let render = |text: &str| {
        let mut prompt = Prompt::new();
        prompt.text(text).unwrap();
        prompt.render(engine.tokenizer()).map_err(|error| error.to_string())
    };
    let refusal = |found: usize| {
        Err(format!("prompt: expected text without <, each of which stands for an image, found {found}"))
    };
    assert_eq!(render("a < b").map(|_| ()), refusal(1));
    assert_eq!(render("<b>, 1<2").map(|_| ()), refusal(2));
    assert!(render("Output: a fox.<EOC>").unwrap().media.iter().all(|seen| seen.images == 0));
    assert_eq!(
        render("an <image>").map(|_| ()),
        Err("prompt: expected text without image markers, found <image>".into())
    );
}

#[test]
fn a_preset_is_planned_without_files() {
    let inspection = Inspection::preset("flamingo-80b").unwrap();
    assert_eq!((inspection.config.gated_blocks(), inspection.gates.len()), (12, 0));
    assert_eq!(inspection.parts.len(), 4);
    let error = |name: &str| Inspection::preset(name).unwrap_err().to_string();
    let expected = format!("preset: expected one of {}, found \"flamingo-1b\"", flamant::PRESETS.join(", "));
    assert_eq!(error("flamingo-1b"), expected);
    let Err(error) = Engine::preset("flamingo-3b", &Options::default()) else { panic!("the processor makes none up") };
    assert_eq!(error.to_string(), "preset: expected device cuda or emulated, which make weights up, found cpu");
}
