//! Every name that model code asks for: the tables of each family and each language model must give it, and no tensor
//! twice. Asked of the small models in `tests/data/cases`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{ConvertOptions, MergeOptions, convert, merge};
use crate::checkpoint::{Checkpoint, Folder};
use crate::family::Model;
use crate::image::{Crop, Preprocessor};
use crate::model;
use crate::weights::{Names, Sources, Weights};

/// A family's names, and what was asked of them.
#[derive(Debug)]
struct Spy {
    names: Box<dyn Names>,
    asked: Arc<Mutex<BTreeMap<String, Option<Sources>>>>,
}

impl Names for Spy {
    fn sources(&self, name: &str) -> Option<Sources> {
        let found = self.names.sources(name);
        self.asked.lock().unwrap().insert(name.to_owned(), found.clone());
        found
    }

    fn owns(&self, tensor: &str) -> bool {
        self.names.owns(tensor)
    }
}

/// A case's model; an OpenFlamingo's is joined from its parts.
fn folder(case: &Path, scratch: &Path) -> PathBuf {
    if case.join("model").is_dir() {
        return case.join("model");
    }
    let output = scratch.join(case.file_name().unwrap());
    let (base, unmerged) = (case.join("adapter"), case.join("unmerged"));
    if unmerged.is_dir() {
        let (adapter, tokenizer, media_mask) = (None, Some(case.join("tokenizer")), None);
        let options = MergeOptions {
            model: unmerged,
            adapter,
            tokenizer,
            vision_model: None,
            media_mask,
            output: output.clone(),
        };
        merge(&options, &mut |_, _| ()).unwrap();
        return output;
    }
    if base.is_dir() && !case.join("language").is_dir() {
        let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        return case.with_file_name(expected["base"].as_str().unwrap()).join("model");
    }
    let part = |names: [&str; 2]| names.map(|name| case.join(name)).into_iter().find(|path| path.exists()).unwrap();
    let options = ConvertOptions {
        checkpoint: part(["checkpoint.pt", "model.pt"]),
        language_model: case.join("language"),
        vision_model: part(["vision.safetensors", "vision.pt"]),
        cross_attn_every: None,
        adapter: None,
        media_mask: None,
        output: output.clone(),
    };
    convert(&options, &mut |_, _| ()).unwrap();
    output
}

/// What a tensor of a checkpoint was asked for as, by our names without numbers.
fn asked_of(folder: &Path) -> (String, BTreeSet<String>) {
    let opened = Folder::Disk(folder);
    let checkpoint: Arc<Checkpoint> = Arc::new(opened.checkpoint().unwrap());
    let Model { family, language_model, config, names, .. } = Model::open(opened, &checkpoint).unwrap();
    let asked = Arc::new(Mutex::default());
    let mut weights = Weights::new(checkpoint.clone(), Box::new(Spy { names, asked: asked.clone() }));
    let levels = Preprocessor::clip(Crop::Stretch, config.vision.image_size).levels();
    model::record(&config, &levels, &mut weights).unwrap();
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let mut names_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, sources) in &asked {
        let Some(Sources { parts, .. }) = sources else { panic!("{}: no name for {name}", folder.display()) };
        assert!(!parts.is_empty(), "{}: nothing for {name}", folder.display());
        for part in parts {
            let before = names_of.insert(&part.tensor, name);
            assert_eq!(before, None, "{}: {} is {name} too", folder.display(), part.tensor);
        }
    }
    // Whatever the checkpoint has of the model's own was asked for, or is known to be harmless.
    let tables = Model::open(opened, &checkpoint).unwrap().names;
    for tensor in checkpoint.names().filter(|tensor| tables.owns(tensor)) {
        assert!(names_of.contains_key(tensor), "{}: nobody asked for {tensor}", folder.display());
    }
    let is_number = |piece: &str| piece.bytes().all(|byte| byte.is_ascii_digit());
    let general = |name: &String| {
        name.split('.').map(|piece| if is_number(piece) { "{}" } else { piece }).collect::<Vec<_>>().join(".")
    };
    (format!("{} {language_model}", family.name), asked.keys().map(general).collect())
}

#[test]
fn every_name_that_a_model_asks_for_is_given_and_no_tensor_twice() {
    let scratch = tempfile::tempdir().unwrap();
    let mut by_family: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir("tests/data/cases").unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            let (family, asked) = asked_of(&folder(&entry, scratch.path()));
            by_family.entry(family).or_default().extend(asked);
        }
    }
    let families: Vec<&str> = by_family.keys().map(String::as_str).collect();
    let expected = [
        "Flamingo Llama",
        "FlamingoMini Gpt2",
        "FlamingoMini Opt",
        "Idefics Llama",
        "Llama 3.2 Vision Llama 3.1",
        "OpenFlamingo GptNeoX",
        "OpenFlamingo Llama",
        "OpenFlamingo MosaicGpt",
        "OpenFlamingo Mpt",
        "OpenFlamingo Opt",
        "Otter Llama",
        "Otter Mpt",
    ];
    assert_eq!(families, expected, "every family and every language model has a case");
    // All of them are asked for what every model has.
    let common = ["vision.patch", "gated.{}.query", "gated.{}.gate_mlp", "decoder.embedding", "decoder.layers.{}.down"];
    for (family, asked) in &by_family {
        for name in common {
            assert!(asked.contains(name), "{family}: {name} was not asked for");
        }
    }
}
