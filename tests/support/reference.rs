//! The folders that `tools/golden.py` makes: a model each, a prompt, and what the reference says of it.

#![allow(dead_code, reason = "each program that includes it uses a part")]

use std::path::{Path, PathBuf};

use flamant::convert::{ConvertOptions, MergeOptions, convert, merge};
use flamant::{Flamingo, MediaMask, Options, Prompt, PromptLimits};
use serde_json::Value;

fn first(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

/// A reference case: its folder, and the model in it (converted first, for OpenFlamingo).
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub expected: Value,
    pub model: PathBuf,
    _converted: Option<tempfile::TempDir>,
}

impl Case {
    pub fn all() -> Vec<Case> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
        let mut names: Vec<String> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(names.len() >= 25, "the cases are there");
        names.iter().map(|name| Case::open(name)).collect()
    }

    pub fn open(name: &str) -> Case {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases").join(name);
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        let (name, mut model, mut converted) = (name.to_owned(), folder.join("model"), None);
        if !model.exists() {
            let folder_of_model = tempfile::tempdir().unwrap();
            model = folder_of_model.path().join("model");
            converted = Some(folder_of_model);
            let base = expected["base"].as_str().map(|base| folder.join("..").join(base).join("model"));
            if let Some(whole) = base.or_else(|| first(&folder, &["unmerged"])) {
                let options = MergeOptions::new(whole, &model)
                    .adapter(first(&folder, &["adapter"]))
                    .tokenizer(first(&folder, &["tokenizer"]));
                merge(&options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
                return Case { name, folder, expected, model, _converted: converted };
            }
            let part = |names: [&str; 2]| first(&folder, &names).unwrap();
            let (checkpoint, vision) = (part(["checkpoint.pt", "model.pt"]), part(["vision.safetensors", "vision.pt"]));
            let options = ConvertOptions::new(checkpoint, folder.join("language"), vision, &model)
                .adapter(first(&folder, &["adapter.pt", "adapter"]))
                .media_mask(expected["media_mask"].as_str().map(|name| MediaMask::named(name).unwrap()));
            convert(&options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        Case { name, folder, expected, model, _converted: converted }
    }

    pub fn flamingo(&self, options: &Options) -> Flamingo {
        Flamingo::open(&self.model, options).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn prompt(&self) -> Prompt {
        Prompt::from_file(self.folder.join("prompt.json"), PromptLimits::default()).unwrap()
    }

    pub fn ids(&self, key: &str) -> Vec<u32> {
        self.expected[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    }
}

/// A log-probability of a case: null for a token that has no row in the output matrix, and can never follow.
pub fn likelihood(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NEG_INFINITY)
}
