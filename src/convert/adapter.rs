//! LoRA (Hu et al. 2021): for some frozen matrices W a pair A (r, in), B (out, r), which stand for W + alpha / r * B A.
//! Merged in f32, as PEFT's `merge_and_unload` does it.
//!
//! A pair is `NAME.lora_A.weight`, `NAME.lora_B.weight`, maybe with the adapter's name before `weight`. A folder of
//! PEFT says in `adapter_config.json` what alpha and r are, a file of Multimodal-GPT in its `tuning_config`; where
//! nobody does, the factor is 1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::Item;
use crate::checkpoint::{Checkpoint, Dtype, Tensor, is_there};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, Fields, quoted};

/// What a folder of PEFT has.
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// Where a checkpoint of Multimodal-GPT says how it was trained.
const TUNING: &str = "tuning_config";
/// What PEFT puts before the names of the model that it wraps.
const WRAPPED: &str = "base_model.model.";
/// Largest rank that a configuration may state.
const RANK_MAX: usize = 1 << 16;

/// An adapter: pairs for some matrices, and tensors that take the place of the model's.
pub struct Adapter {
    /// Its tensors.
    pub weights: Checkpoint,
    settings: Settings,
    changes: BTreeMap<String, Change>,
    /// Names of the model, and the adapter's.
    replaced: BTreeMap<String, String>,
}

/// What is added to a matrix.
#[derive(Debug, Clone)]
pub struct Change {
    a: String,
    b: String,
    factor: f32,
    /// Whether the matrix stands (in, out).
    transposed: bool,
}

/// How pairs are scaled.
#[derive(Default)]
struct Settings {
    file: PathBuf,
    rank: Option<usize>,
    alpha: Option<f32>,
    /// Whether alpha is divided by the root of r.
    rank_stabilised: bool,
    /// Whether matrices stand (in, out).
    transposed: bool,
    /// By the end of a module's name.
    ranks: BTreeMap<String, f32>,
    alphas: BTreeMap<String, f32>,
}

impl Adapter {
    /// Opens a folder of PEFT, or a file of pairs.
    ///
    /// # Errors
    /// Settings that are not computed here, by their key; pairs without their other half; tensors of another kind.
    pub fn open(path: &Path) -> Result<Adapter> {
        if !path.is_dir() {
            let weights = Checkpoint::open(path)?;
            let settings = Settings::of_training(&weights)?;
            return Adapter::new(weights, settings);
        }
        let Some(file) = WEIGHTS.iter().map(|name| path.join(name)).find(|file| is_there(file)) else {
            return Err(Error::invalid(path, "adapter", format!("one of {}", WEIGHTS.join(", ")), "neither"));
        };
        let settings = Settings::of_peft(&path.join(CONFIG))?;
        Adapter::new(Checkpoint::open(&file)?, settings)
    }

    /// The pairs that stand in a model's own checkpoint, which `config` describes under `lora_config` (Otter).
    ///
    /// # Errors
    /// As for [`Adapter::open`].
    pub fn beside(model: &Path, file: &Path, config: &Value) -> Result<Adapter> {
        let fields = Fields::new(file, config)?.section("lora_config")?;
        let rank = fields.get("r").map(|_| fields.count("r", None, RANK_MAX)).transpose()?;
        let alpha = fields.optional_number("lora_alpha", 0.0..=1e6)?;
        let settings = Settings { file: file.to_owned(), rank, alpha, ..Settings::default() };
        let mut adapter = Adapter::new(Checkpoint::open(model)?, settings)?;
        adapter.replaced.clear();
        Ok(adapter)
    }

    fn new(weights: Checkpoint, settings: Settings) -> Result<Adapter> {
        let mut halves = [BTreeMap::new(), BTreeMap::new()];
        let mut replaced = BTreeMap::new();
        for key in weights.names() {
            if let Some((module, half)) = half_of(key) {
                if let Some(before) = halves[half].insert(plain(module), key.to_owned()) {
                    let expected = "one adapter";
                    return Err(Error::invalid(weights.file_of(key), key, expected, format!("also {before}")));
                }
            } else if key.contains("lora_") {
                let expected = "only pairs of lora_A and lora_B, of linear layers";
                return Err(Error::invalid(weights.file_of(key), key, expected, "something else"));
            } else if !key.ends_with("rotary_emb.inv_freq") && !key.contains(".original_module.") {
                replaced.insert(plain(key), key.to_owned());
            }
        }
        let mut adapter = Adapter { weights, settings, changes: BTreeMap::new(), replaced };
        let [firsts, mut seconds] = halves;
        for (module, a) in firsts {
            let expected = a.replace(".lora_A.", ".lora_B.");
            let b = seconds
                .remove(&module)
                .ok_or_else(|| adapter.invalid(&expected, "the other half of a pair", "none"))?;
            let change = adapter.change(&module, a, b)?;
            adapter.changes.insert(module, change);
        }
        if let Some(b) = seconds.into_values().next() {
            return Err(adapter.invalid(&b.replace(".lora_B.", ".lora_A."), "the other half of a pair", "none"));
        }
        if adapter.changes.is_empty() {
            return Err(adapter.invalid("lora_A", "pairs of lora_A and lora_B", "none"));
        }
        Ok(adapter)
    }

    fn invalid(&self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::invalid(self.weights.file_of(key), key, expected, found)
    }

    /// A pair whose shapes fit each other and the settings.
    fn change(&self, module: &str, a: String, b: String) -> Result<Change> {
        let shape = |key: &str| match *self.weights.shape(key).unwrap_or_default() {
            [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
            ref found => Err(self.invalid(key, "a matrix of at least one row and column", format!("shape {found:?}"))),
        };
        let ([rank, _], [out, found]) = (shape(&a)?, shape(&b)?);
        if found != rank {
            return Err(self.invalid(&b, format!("shape [{out}, {rank}]"), format!("[{out}, {found}]")));
        }
        let Settings { file, rank: usual, alpha, rank_stabilised, transposed, ranks, alphas } = &self.settings;
        let usual = of_module(ranks, module).map(|rank| rank as usize).or(*usual);
        if let Some(usual) = usual.filter(|usual| *usual != rank) {
            let expected = format!("{usual} rows, the rank in {}", file.display());
            return Err(self.invalid(&a, expected, format!("{rank} rows")));
        }
        let divisor = if *rank_stabilised { (rank as f32).sqrt() } else { rank as f32 };
        let factor = of_module(alphas, module).or(*alpha).map_or(1.0, |alpha| alpha / divisor);
        Ok(Change { a, b, factor, transposed: *transposed })
    }

    /// Has the items of a conversion changed as the adapter says.
    ///
    /// # Errors
    /// What the model does not have, or in another shape.
    pub fn apply<'a>(&'a self, items: &mut [Item<'a>]) -> Result<()> {
        let places: BTreeMap<String, usize> = items.iter().map(|item| plain(&item.name)).zip(0..).collect();
        // Adapters of a language model alone know nothing of what is around it.
        let find = |name: &str| places.get(name).or_else(|| places.get(&format!("lang_encoder.{name}"))).copied();
        for (module, change) in &self.changes {
            let found = find(&format!("{module}.weight"));
            let Some(place) = found else {
                return Err(self.invalid(&change.a, format!("the matrix {module}.weight in the model"), "none"));
            };
            let (out, columns) = (
                self.weights.shape(&change.b).unwrap_or_default()[0],
                &self.weights.shape(&change.a).unwrap_or_default()[1],
            );
            let shape = if change.transposed { [*columns, out] } else { [out, *columns] };
            if items[place].shape != shape {
                let expected = format!("a pair for {} of shape {:?}", items[place].name, items[place].shape);
                return Err(self.invalid(&change.a, expected, format!("one for {shape:?}")));
            }
            for key in [&change.a, &change.b] {
                self.weights.format(key)?;
            }
            items[place].change = Some((self, change));
        }
        for (name, key) in &self.replaced {
            let Some(place) = find(name) else {
                return Err(self.invalid(key, format!("lora_A, lora_B, or the model's {name}"), "neither"));
            };
            self.weights.check(key, &items[place].shape)?;
            let item = &mut items[place];
            (item.source, item.key, item.dtype) = (&self.weights, key.clone(), self.weights.format(key)?);
        }
        Ok(())
    }

    /// A matrix with its change, in the format that it has.
    pub fn merged(&self, matrix: &Tensor, change: &Change) -> Result<Vec<u8>> {
        let [a, b] = [self.weights.tensor(&change.a)?, self.weights.tensor(&change.b)?];
        let (rank, columns) = (a.shape[0], a.shape[1]);
        let [a, b] = [numbers(&a), numbers(&b)];
        let base = numbers(matrix);
        // One row of B A.
        let product = |row: usize, sums: &mut [f32]| {
            sums.fill(0.0);
            for (a, &b) in a.chunks_exact(columns).zip(&b[row * rank..(row + 1) * rank]) {
                sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += b * a);
            }
        };
        let out = b.len() / rank;
        let mut delta = vec![0.0; out * columns];
        delta.par_chunks_exact_mut(columns).enumerate().for_each(|(row, sums)| product(row, sums));
        let at = |place: usize| match change.transposed {
            false => delta[place],
            true => delta[place % out * columns + place / out],
        };
        let values = base.par_iter().enumerate().map(|(place, value)| value + change.factor * at(place));
        Ok(bytes(&values.collect::<Vec<f32>>(), matrix.dtype))
    }
}

impl Settings {
    /// `tuning_config` of a file, if it has one.
    fn of_training(weights: &Checkpoint) -> Result<Settings> {
        let numbers = weights.numbers(TUNING)?;
        let number = |names: [&str; 2]| names.iter().find_map(|name| numbers.get(*name)).copied();
        let (rank, alpha) = (number(["lora_r", "r"]), number(["lora_alpha", "alpha"]));
        if let Some(rank) = rank.filter(|rank| rank.fract() != 0.0 || !(1.0..=RANK_MAX as f64).contains(rank)) {
            let key = format!("{TUNING}.lora_r");
            return Err(Error::invalid(weights.path(), key, format!("a whole number from 1 to {RANK_MAX}"), rank));
        }
        if let Some(alpha) = alpha.filter(|alpha| !(0.0..=1e6).contains(alpha)) {
            let key = format!("{TUNING}.lora_alpha");
            return Err(Error::invalid(weights.path(), key, "a number from 0 to 1000000", alpha));
        }
        let rank = rank.map(|rank| rank as usize);
        let alpha = alpha.map(|alpha| alpha as f32);
        Ok(Settings { file: weights.path().to_owned(), rank, alpha, ..Settings::default() })
    }

    /// `adapter_config.json`.
    fn of_peft(file: &Path) -> Result<Settings> {
        let root = crate::checkpoint::read_json(file, CONFIG_BYTES_MAX)?;
        let fields = Fields::new(file, &root)?;
        let mut settings = Settings { file: file.to_owned(), ..Settings::default() };
        let kind = fields.text("peft_type", None)?;
        if kind != "LORA" {
            return Err(fields.invalid("peft_type", "\"LORA\"", quoted(&kind)));
        }
        settings.rank = Some(fields.count("r", None, RANK_MAX)?);
        settings.alpha = Some(fields.number("lora_alpha", None, 0.0..=1e6)?);
        settings.rank_stabilised = fields.flag("use_rslora", false)?;
        settings.transposed = fields.flag("fan_in_fan_out", false)?;
        settings.ranks = patterns(&fields, "rank_pattern", 1.0..=RANK_MAX as f32)?;
        settings.alphas = patterns(&fields, "alpha_pattern", 0.0..=1e6)?;
        let bias = fields.text("bias", Some("none"))?;
        if bias != "none" {
            return Err(fields.invalid("bias", "\"none\"", quoted(&bias)));
        }
        // Those that change the frozen weights before training: the published matrix is not what was added to.
        match fields.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(name)) if name == "gaussian" || name == "orthogonal" => {}
            Some(other) => return Err(fields.invalid("init_lora_weights", "true, false or \"gaussian\"", other)),
        }
        for (key, value) in fields.iter().filter(|(key, _)| !KNOWN.contains(key)) {
            let is_empty = match value {
                Value::Bool(flag) => !flag,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !is_empty {
                return Err(fields.invalid(key, "nothing: it is not merged", value));
            }
        }
        Ok(settings)
    }
}

/// Keys of `adapter_config.json` that are read, and those that change nothing of what a pair means.
const KNOWN: [&str; 29] = [
    "alpha_pattern",
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Numbers for modules whose names end as the key says. PEFT takes keys for expressions; those that are more than a
/// name are refused.
fn patterns(fields: &Fields, key: &str, range: std::ops::RangeInclusive<f32>) -> Result<BTreeMap<String, f32>> {
    let section = fields.section(key)?;
    let number = |(name, _): (&str, &Value)| {
        let plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if !name.chars().all(plain) {
            return Err(section.invalid(name, "a name of modules, no expression", quoted(name)));
        }
        Ok((name.to_owned(), section.number(name, None, range.clone())?))
    };
    section.iter().map(number).collect()
}

/// The number for a module, whose name is as the first key that fits, or ends in it.
fn of_module(numbers: &BTreeMap<String, f32>, module: &str) -> Option<f32> {
    let fits = |name: &str| module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    numbers.iter().find(|(name, _)| fits(name)).map(|(_, number)| *number)
}

/// The module of one half of a pair, and which half: 0 is A.
fn half_of(key: &str) -> Option<(&str, usize)> {
    let (half, (module, rest)) =
        [".lora_A.", ".lora_B."].iter().enumerate().find_map(|(half, part)| Some((half, key.split_once(part)?)))?;
    let is_weight = rest == "weight" || rest.strip_suffix(".weight").is_some_and(|name| !name.contains('.'));
    is_weight.then_some((module, half))
}

/// Whether a tensor is a half of a pair.
pub fn is_half(key: &str) -> bool {
    half_of(key).is_some()
}

/// A name without what PEFT and the wrapped language model put into it.
fn plain(name: &str) -> String {
    plain_of_model(name).replace(".decoder_layer.", ".")
}

/// A name without what PEFT puts into it.
pub fn plain_of_model(name: &str) -> String {
    let name = name.replacen(WRAPPED, "", 1);
    let mut parts = Vec::new();
    let mut rest = name.split('.');
    while let Some(part) = rest.next() {
        match part {
            "base_layer" => {}
            // The name of the adapter follows.
            "modules_to_save" => drop(rest.next()),
            part => parts.push(part),
        }
    }
    parts.join(".")
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let bytes: &[u8] = &tensor.bytes;
    match tensor.dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}

fn bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Element, safetensors};

    /// A file of these matrices, each counting up from its number.
    fn file(folder: &Path, matrices: &[(&str, [usize; 2], f32)]) -> Checkpoint {
        let path = folder.join("tensors.safetensors");
        let mut content = Vec::new();
        let headers = matrices.iter().map(|(name, shape, _)| (*name, Element::Float(Dtype::F32), shape.as_slice()));
        safetensors::write_header(&mut content, headers).unwrap();
        for (_, [rows, columns], first) in matrices {
            content.extend((0..rows * columns).flat_map(|at| (first + at as f32).to_le_bytes()));
        }
        std::fs::write(&path, content).unwrap();
        Checkpoint::open(&path).unwrap()
    }

    /// W + factor B A, entry by entry, and the same of a matrix that stands (in, out).
    #[test]
    fn a_pair_is_merged_either_way_round() {
        const RANK: usize = 2;
        let (columns, rows) = (3, 4);
        let folder = tempfile::tempdir().unwrap();
        for transposed in [false, true] {
            let shape = if transposed { [columns, rows] } else { [rows, columns] };
            let matrices = [
                ("m.lora_A.weight", [RANK, columns], 1.0),
                ("m.lora_B.weight", [rows, RANK], -2.0),
                ("w", shape, 10.0),
            ];
            let weights = file(folder.path(), &matrices);
            let settings = Settings { alpha: Some(1.0), transposed, ..Settings::default() };
            let adapter = Adapter::new(file(folder.path(), &matrices), settings).unwrap();
            let found = adapter.merged(&weights.tensor("w").unwrap(), &adapter.changes["m"]).unwrap();
            for place in 0..rows * columns {
                let (row, column) =
                    if transposed { (place % rows, place / rows) } else { (place / columns, place % columns) };
                let product = |k: usize| (row * RANK + k) as f32 - 2.0;
                let sum: f32 = (0..RANK).map(|k| product(k) * ((k * columns + column) as f32 + 1.0)).sum();
                let want = 10.0 + place as f32 + 0.5 * sum;
                let bytes: [u8; 4] = found[4 * place..][..4].try_into().unwrap();
                assert_eq!(f32::from_le_bytes(bytes), want, "{row}, {column}");
            }
        }
    }

    #[test]
    fn names_lose_what_was_put_into_them() {
        for (name, expected) in [
            ("base_model.model.model.layers.0.q_proj", "model.layers.0.q_proj"),
            (
                "lang_encoder.base_model.model.model.layers.3.decoder_layer.self_attn.q_proj",
                "lang_encoder.model.layers.3.self_attn.q_proj",
            ),
            ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head.weight"),
            ("model.layers.0.mlp.base_layer.weight", "model.layers.0.mlp.weight"),
        ] {
            assert_eq!(plain(name), expected);
        }
        assert_eq!(half_of("a.lora_B.default.weight"), Some(("a", 1)));
        assert_eq!(half_of("a.lora_A.weight"), Some(("a", 0)));
        assert_eq!([half_of("a.lora_A"), half_of("a.lora_A.b.c.weight"), half_of("a.lora_A.bias")], [None; 3]);
    }
}
