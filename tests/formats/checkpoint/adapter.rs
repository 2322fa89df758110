//! Adapters that do not fit their model, or ask for more than is merged: a line each, and nothing is left behind. What
//! those that fit come to is in `tests/models/parity.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use flamant::MediaMask;
use flamant::convert::{MergeOptions, merge};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cases");
const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// A copy of an adapter that fits, and the model that it fits.
struct Adapter {
    folder: TempDir,
    options: MergeOptions,
}

impl Adapter {
    fn new() -> Adapter {
        let folder = tempfile::tempdir().unwrap();
        for name in [CONFIG, WEIGHTS] {
            fs::copy(format!("{CASES}/peft-idefics/adapter/{name}"), folder.path().join(name)).unwrap();
        }
        let options = MergeOptions::new(Path::new(CASES).join("idefics-plain/model"), folder.path().join("merged"))
            .adapter(Some(folder.path().to_owned()));
        Adapter { folder, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets a key of the configuration.
    fn set(&self, key: &str, value: Value) {
        let mut config: Value = serde_json::from_slice(&fs::read(self.path(CONFIG)).unwrap()).unwrap();
        config[key] = value;
        fs::write(self.path(CONFIG), config.to_string()).unwrap();
    }

    /// Changes what the file of weights says of its tensors.
    fn edit(&self, change: impl Fn(&str, &mut Value) -> String) {
        let bytes = fs::read(self.path(WEIGHTS)).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let (header, data) = bytes[8..].split_at(length);
        let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let changed = header.into_iter().map(|(name, mut value)| (change(&name, &mut value), value));
        let header = Value::Object(changed.collect()).to_string();
        let all = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
        fs::write(self.path(WEIGHTS), all).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        self.edit(|name, _| name.replace(from, to));
    }

    fn reshape(&self, tensor: &str, shape: &[usize]) {
        self.edit(|name, value| {
            if name == tensor {
                value["shape"] = json!(shape);
            }
            name.to_owned()
        });
    }

    fn merge(&self) -> Result<(), String> {
        merge(&self.options, &mut |_, _| ()).map_err(|error| error.to_string())
    }
}

#[track_caller]
fn refused(change: impl Fn(&mut Adapter), mentions: &[&str]) {
    let mut adapter = Adapter::new();
    change(&mut adapter);
    let line = adapter.merge().unwrap_err();
    assert!(!line.contains('\n') && line.len() < 600, "{line}");
    for mention in mentions {
        assert!(line.contains(mention), "{mention} is not in: {line}");
    }
    assert!(!adapter.options.output.exists(), "nothing is left of {line}");
}

#[test]
fn an_adapter_that_fits_is_merged_once() {
    let adapter = Adapter::new();
    adapter.merge().unwrap();
    let line = adapter.merge().unwrap_err();
    assert!(line.contains("expected a new or empty folder"), "{line}");
}

#[test]
fn pairs_that_do_not_fit_are_refused() {
    let a = format!("{Q}.lora_A.weight");
    let b = format!("{Q}.lora_B.weight");
    refused(
        |it| it.rename(&b, "base_model.model.x.lora_B.weight"),
        &[WEIGHTS, &b, "the other half of a pair, found none"],
    );
    refused(|it| it.rename(&a, "base_model.model.x.lora_A.weight"), &["x.lora_B.weight", "the other half of a pair"]);
    let unknown = Q.replace("q_proj", "z_proj");
    let expected = "expected the matrix model.layers.0.self_attn.z_proj.weight in the model, found none";
    refused(|it| it.rename(Q, &unknown), &[WEIGHTS, &unknown, expected]);
    let other = Q.replace("self_attn.q_proj", "mlp.up_proj");
    let expected = "expected a pair for model.layers.0.mlp.up_proj.weight of shape [40, 24], found one for [24, 24]";
    refused(|it| it.rename(Q, &other), &[WEIGHTS, &other, expected]);
    refused(|it| it.reshape(&a, &[6, 12]), &[&b, "expected shape [24, 6], found [24, 3]"]);
    refused(|it| it.reshape(&b, &[12, 6]), &[&b, "expected shape [12, 3], found [12, 6]"]);
    refused(|it| it.reshape(&a, &[72]), &[&a, "a matrix of at least one row and column, found shape [72]"]);
    refused(|it| it.reshape(&b, &[24, 3, 1]), &[&b, "a matrix of at least one row and column, found shape [24, 3, 1]"]);
    let integers = |it: &mut Adapter| {
        it.edit(|name, value| {
            if name == a {
                value["dtype"] = json!("I32");
            }
            name.to_owned()
        });
    };
    refused(integers, &[&a, "expected numbers in F32, F16 or BF16, found I32"]);
    let magnitude = format!("{Q}.lora_magnitude_vector");
    refused(|it| it.rename(&a, &magnitude), &[&magnitude, "only pairs of lora_A and lora_B", "found something else"]);
    let embedding = format!("{Q}.lora_embedding_A");
    refused(|it| it.rename(&a, &embedding), &[&embedding, "only pairs of lora_A and lora_B"]);
    let whole = format!("{Q}.weight");
    refused(|it| it.rename(&a, &whole), &[&a, "the other half of a pair, found none"]);
    let twice =
        |it: &mut Adapter| it.edit(|name, _| name.replace(&Q.replace("q_proj", "o_proj"), &format!("{Q}.base_layer")));
    refused(twice, &["q_proj", "expected one adapter, found also"]);
}

#[test]
fn settings_that_are_not_merged_are_refused_by_their_key() {
    let cases = [
        ("r", json!(0), "r: expected a whole number from 1 to 65536, found 0"),
        ("r", json!(4), "expected 4 rows, the rank in"),
        ("r", json!("3"), "r: expected a whole number from 1 to 65536, found \"3\""),
        ("lora_alpha", json!(null), "lora_alpha: expected a number, found nothing"),
        ("lora_alpha", json!(-1), "lora_alpha: expected a number from 0 to 1000000, found -1"),
        ("peft_type", json!("IA3"), "peft_type: expected \"LORA\", found \"IA3\""),
        ("bias", json!("all"), "bias: expected \"none\", found \"all\""),
        ("use_dora", json!(true), "use_dora: expected nothing: it is not merged, found true"),
        ("use_rslora", json!(1), "use_rslora: expected true or false, found 1"),
        ("init_lora_weights", json!("pissa"), "init_lora_weights: expected true, false or \"gaussian\""),
        ("layer_replication", json!([[0, 2]]), "layer_replication: expected nothing: it is not merged, found [[0,2]]"),
        ("trainable_token_indices", json!([3]), "trainable_token_indices: expected nothing"),
        ("rank_pattern", json!({"layers\\.[01]": 3}), "rank_pattern.layers\\.[01]: expected a name of modules"),
        ("rank_pattern", json!({"q_proj": 0}), "rank_pattern.q_proj: expected a number from 1 to 65536, found 0"),
        ("alpha_pattern", json!({"q_proj": "x"}), "alpha_pattern.q_proj: expected a number from 0 to 1000000"),
        ("fan_in_fan_out", json!(true), "expected a pair for"),
    ];
    for (key, value, message) in cases {
        refused(|it| it.set(key, value.clone()), &[message]);
    }
}

#[test]
fn folders_and_files_that_are_no_adapters_are_refused() {
    refused(|it| fs::remove_file(it.path(CONFIG)).unwrap(), &[CONFIG]);
    refused(|it| fs::write(it.path(CONFIG), "[]").unwrap(), &[CONFIG, "expected a JSON object, found an array"]);
    let gone = |it: &mut Adapter| fs::remove_file(it.path(WEIGHTS)).unwrap();
    refused(gone, &["adapter: expected one of adapter_model.safetensors, adapter_model.bin, found neither"]);
    let model = |it: &mut Adapter| it.options.adapter = Some(it.options.model.join("model.safetensors"));
    refused(model, &["model.safetensors: lora_A: expected pairs of lora_A and lora_B, found none"]);
    refused(|it| it.options.adapter = Some(it.path("nowhere")), &["nowhere"]);
    refused(|it| fs::write(it.path(WEIGHTS), b"x").unwrap(), &[WEIGHTS, "expected a safetensors file"]);
}

#[test]
fn what_does_not_belong_to_the_model_is_refused() {
    let mask = |it: &mut Adapter| it.options.media_mask = Some(MediaMask::Following);
    refused(mask, &["media-mask: expected none, as models of Idefics have one, found following"]);
    let tokenizer = |it: &mut Adapter| it.options.tokenizer = Some(it.options.model.clone());
    refused(tokenizer, &["tokenizer: expected none, as the model has one"]);
    let vision = |it: &mut Adapter| {
        it.options.vision_model = Some(Path::new(CASES).join("open_flamingo-llama/vision.safetensors"));
    };
    refused(vision, &["vision-model: expected none, as the model has its tower", "vision.safetensors"]);
    refused(|it| it.options.model = it.path("nowhere"), &["nowhere"]);
    let language = |it: &mut Adapter| it.options.model = Path::new(CASES).join("open_flamingo-llama/language");
    refused(language, &["model_type: expected \"idefics\", ", "found \"llama\""]);
}
