//! Writes a model anew with its large matrices in few bits, as the package compressed-tensors has them.
//!
//! Linear layers of the decoder, the gated blocks and the resampler are rounded; all else goes over as it is. Tensors
//! go from map to file one at a time, and the folder is kept only if it opens.

mod compare;
mod rounding;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Dtype, Element, Folder, Stored, is_there, read_bounded, safetensors};
use crate::convert::output::{BESIDE, Output};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, Model};
use crate::graph::Op;
use crate::inspect::Inspection;
use crate::model;
use crate::preprocessor;
use crate::setters::setters;
use crate::tokenizer::TOKENIZER_BYTES_MAX;
use crate::weights::{Layout, Weights, widened};
pub use compare::{Comparison, TEXT, compare};
use rounding::{Rounded, Rounding};

/// A matrix of fewer numbers is not worth its scales.
const NUMBERS_MIN: usize = 1 << 14;
/// Columns that share a scale of 4 bits, where those that are asked for do not divide a row.
const GROUPS: [usize; 2] = [64, 32];
/// Bytes written between two reports of progress.
const CHUNK_BYTES: usize = 8 << 20;

/// Formats that weights can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// Integers of 8 bits, a scale for each row.
    Int8,
    /// Integers of 4 bits, a scale for each group of columns.
    Int4,
    /// Floats of 8 bits (e4m3), a scale for each row.
    Fp8,
}

/// Which model, what becomes of it, and where it shall go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// The folder of a model that opens, in numbers.
    pub model: PathBuf,
    /// What its matrices become.
    pub weights: WeightFormat,
    /// Columns that share a scale of 4 bits.
    pub group: usize,
    /// Tensors stay as they are whose names have one of these in them.
    pub keep: Vec<String>,
    /// Whether the vision tower is rounded, too.
    pub vision: bool,
    /// Whether the head is, where it is not the table of embeddings.
    pub head: bool,
    /// Whether 4 bits go without zero points, for programs that read no others.
    pub symmetric: bool,
    /// The folder to write. It may exist if it is empty, or if an earlier run left it when it was killed.
    pub output: PathBuf,
}

impl QuantizeOptions {
    /// A model to be written in the folder `output`; the rest as it is best.
    pub fn new(model: impl Into<PathBuf>, weights: WeightFormat, output: impl Into<PathBuf>) -> Self {
        QuantizeOptions {
            model: model.into(),
            weights,
            group: 128,
            keep: Vec::new(),
            vision: false,
            head: false,
            symmetric: false,
            output: output.into(),
        }
    }
}

setters!(QuantizeOptions { group: usize, keep: Vec<String>, vision: bool, head: bool, symmetric: bool });

/// What came of a model.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Quantized {
    /// Bytes of all tensors that were there.
    pub bytes_before: u64,
    /// Bytes of all that were written.
    pub bytes_after: u64,
    /// The largest error of each matrix that was rounded.
    pub errors: BTreeMap<String, f32>,
    /// Matrices that had to stay, since no group divides their columns.
    pub undivided: Vec<String>,
}

/// Writes the model. `progress` hears of the bytes written so far, and of all there are.
///
/// # Errors
/// A model that does not open, or is in few bits already; numbers that are not finite, with tensor and index; nothing
/// to round; an output that is not empty, or cannot be written. Nothing is left behind then.
pub fn quantize(options: &QuantizeOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Quantized> {
    let source = Folder::Disk(&options.model);
    let checkpoint = Arc::new(source.checkpoint()?);
    if let Some(name) = checkpoint.names().find(|name| checkpoint.kept(name).is_ok_and(|kept| kept.is_quantised())) {
        let found = checkpoint.kept(name)?;
        return Err(Error::invalid(checkpoint.file_of(name), name, "numbers that are not quantised yet", found));
    }
    let mut config = source.json("config.json", CONFIG_BYTES_MAX)?;
    let mut plan = Plan::new(options, source, &checkpoint)?;
    let output = Output::create(&options.output)?;
    for name in BESIDE.into_iter().filter(|name| is_there(&options.model.join(name))) {
        let bytes = read_bounded(&options.model.join(name), TOKENIZER_BYTES_MAX)?;
        output.write(name, |file, path| file.write_all(&bytes).map_err(|reason| Error::file(path, reason)))?;
    }
    let mut report = Quantized { bytes_before: checkpoint.bytes(), ..Quantized::default() };
    let written = output.write("model.safetensors", |file, path| plan.write(file, path, &mut report, progress));
    // A source that was cut meanwhile is why.
    checkpoint.check_unchanged()?;
    written?;
    if let Some(map) = config.as_object_mut() {
        map.insert("quantization_config".to_owned(), plan.config());
        map.insert(
            "flamant".to_owned(),
            json!({"version": env!("CARGO_PKG_VERSION"), "quantize": options.arguments()}),
        );
    }
    output.write_json("config.json", &config)?;
    Inspection::of(&options.output)?;
    output.keep()?;
    report.undivided = plan.undivided;
    Ok(report)
}

impl QuantizeOptions {
    fn arguments(&self) -> Value {
        let weights = format!("{:?}", self.weights).to_lowercase();
        let QuantizeOptions { group, keep, vision, head, symmetric, .. } = self;
        json!({
            "weights": weights, "group": group, "keep": keep, "vision": vision, "head": head, "symmetric": symmetric,
        })
    }

    /// How a matrix of so many columns is rounded; none if no group divides them.
    fn rounding(&self, columns: usize) -> Option<Rounding> {
        let int4 = |group| Rounding::Int4 { group, symmetric: self.symmetric };
        match self.weights {
            WeightFormat::Int8 => Some(Rounding::Int8),
            WeightFormat::Fp8 => Some(Rounding::Fp8),
            WeightFormat::Int4 => {
                let mut groups = [self.group].into_iter().chain(GROUPS);
                groups.find(|group| columns.is_multiple_of(*group)).map(int4)
            }
        }
    }

    /// Whether a weight that the model calls so is one to be rounded.
    fn takes(&self, name: &str) -> bool {
        match name.split('.').next() {
            Some("vision") => self.vision,
            Some("resampler" | "gated") => true,
            Some("decoder") => self.head || name != "decoder.head",
            _ => false,
        }
    }
}

/// What is written, and of what it is made.
struct Plan<'a> {
    options: &'a QuantizeOptions,
    checkpoint: &'a Checkpoint,
    items: Vec<Item>,
    /// Modules of linear layers that stay in numbers.
    ignored: BTreeSet<String>,
    undivided: Vec<String>,
    /// Groups that matrices came to be in.
    groups: BTreeSet<usize>,
    /// The matrix that was rounded last: its tensors follow each other as far as their formats let them.
    last: Option<(String, Rounded)>,
}

/// A tensor of the output.
struct Item {
    name: String,
    element: Element,
    shape: Vec<usize>,
    /// The tensor that it comes from.
    source: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Copy,
    Codes(Rounding),
    Scales(Rounding),
    Zeros(Rounding),
    Shape,
}

impl Item {
    fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
    }
}

impl<'a> Plan<'a> {
    fn new(options: &'a QuantizeOptions, folder: Folder, checkpoint: &'a Arc<Checkpoint>) -> Result<Plan<'a>> {
        let mut plan = Plan {
            options,
            checkpoint,
            items: Vec::new(),
            ignored: BTreeSet::new(),
            undivided: Vec::new(),
            groups: BTreeSet::new(),
            last: None,
        };
        let rounded = plan.choose(folder, checkpoint)?;
        if rounded.is_empty() {
            let expected = format!("a matrix of at least {NUMBERS_MIN} numbers to round");
            return Err(Error::invalid(checkpoint.path(), "weights", expected, "none"));
        }
        for name in checkpoint.names() {
            match rounded.get(name) {
                Some(&rounding) => plan.add_rounded(name, rounding),
                // What no model reads, such as numbers of positions, stays behind.
                None => {
                    if let Some(dtype) = checkpoint.dtype(name) {
                        let shape = checkpoint.shape(name).unwrap_or_default();
                        plan.add(name.to_owned(), Element::Float(dtype), shape, name, What::Copy);
                    }
                }
            }
        }
        plan.items.sort_by(|a, b| (Reverse(a.element.size()), &a.name).cmp(&(Reverse(b.element.size()), &b.name)));
        Ok(plan)
    }

    /// The matrices of linear layers that are rounded.
    fn choose(&mut self, folder: Folder, checkpoint: &Arc<Checkpoint>) -> Result<BTreeMap<String, Rounding>> {
        let Model { family, config, names, .. } = Model::open(folder, checkpoint)?;
        let mut weights = Weights::new(checkpoint.clone(), names);
        let preprocessor = preprocessor::open(folder, family.preprocessing, &config.vision)?;
        let plans = model::record(&config, &preprocessor.levels(), &mut weights)?;
        let (mut linear, mut picked) = (BTreeSet::new(), BTreeSet::new());
        for op in plans.all().flat_map(|(_, plan)| &plan.ops) {
            match op {
                Op::Linear { weight, .. } => drop(linear.insert(weight.id)),
                Op::Gather { table, .. } => drop(picked.insert(table.id)),
                _ => {}
            }
        }
        let mut rounded = BTreeMap::new();
        for stored in weights.list().iter().filter(|stored| linear.contains(&stored.weight.id)) {
            let taken = self.options.takes(&stored.name)
                && !picked.contains(&stored.weight.id)
                && matches!(stored.layout, Layout::Rows | Layout::Interleaved(_));
            for part in &stored.parts {
                let Some(stem) = part.strip_suffix(".weight") else { continue };
                let kept = self.options.keep.iter().any(|pattern| part.contains(pattern));
                let rounding = match *checkpoint.shape(part).unwrap_or_default() {
                    [rows, columns] if taken && !kept && rows * columns >= NUMBERS_MIN => {
                        let rounding = self.options.rounding(columns);
                        if rounding.is_none() {
                            self.undivided.push(part.clone());
                        }
                        rounding
                    }
                    _ => None,
                };
                match rounding {
                    Some(rounding) => drop(rounded.insert(part.clone(), rounding)),
                    None => drop(self.ignored.insert(stem.to_owned())),
                }
            }
        }
        Ok(rounded)
    }

    fn add(&mut self, name: String, element: Element, shape: &[usize], source: &str, what: What) {
        self.items.push(Item { name, element, shape: shape.to_vec(), source: source.to_owned(), what });
    }

    fn add_rounded(&mut self, name: &str, rounding: Rounding) {
        let &[rows, columns] = self.checkpoint.shape(name).unwrap_or_default() else {
            unreachable!("{name}: a matrix was chosen");
        };
        let (stored, groups) = (Element::Stored, columns / rounding.group(columns));
        match rounding {
            Rounding::Int8 => {
                self.add(name.to_owned(), stored(Stored::I8), &[rows, columns], name, What::Codes(rounding))
            }
            Rounding::Fp8 => {
                self.add(name.to_owned(), stored(Stored::F8E4M3), &[rows, columns], name, What::Codes(rounding));
            }
            Rounding::Int4 { group, symmetric } => {
                self.groups.insert(group);
                let packed = format!("{name}_packed");
                self.add(packed, stored(Stored::I32), &[rows, columns / 8], name, What::Codes(rounding));
                self.add(format!("{name}_shape"), stored(Stored::I64), &[2], name, What::Shape);
                if !symmetric {
                    let shape = [rows.div_ceil(8), groups];
                    self.add(format!("{name}_zero_point"), stored(Stored::I32), &shape, name, What::Zeros(rounding));
                }
            }
        }
        let scales = Element::Float(Dtype::Bf16);
        self.add(format!("{name}_scale"), scales, &[rows, groups], name, What::Scales(rounding));
    }

    fn write(
        &mut self,
        file: &mut dyn Write,
        path: &Path,
        report: &mut Quantized,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let failed = |reason: std::io::Error| Error::file(path, reason);
        let items = std::mem::take(&mut self.items);
        let headers = items.iter().map(|item| (item.name.as_str(), item.element.clone(), item.shape.as_slice()));
        safetensors::write_header(file, headers).map_err(failed)?;
        report.bytes_after = items.iter().map(|item| item.length() as u64).sum();
        let mut done = 0;
        for item in &items {
            let own;
            let tensor;
            let bytes: &[u8] = match item.what {
                What::Copy => {
                    tensor = self.checkpoint.tensor(&item.source)?;
                    &tensor.bytes
                }
                what => {
                    own = self.made(item, what, report)?;
                    &own
                }
            };
            assert_eq!(bytes.len(), item.length(), "{}", item.name);
            for chunk in bytes.chunks(CHUNK_BYTES) {
                file.write_all(chunk).map_err(failed)?;
                done += chunk.len() as u64;
                progress(done, report.bytes_after);
            }
        }
        Ok(())
    }

    /// The bytes of a tensor that comes of a rounded matrix.
    fn made(&mut self, item: &Item, what: What, report: &mut Quantized) -> Result<Vec<u8>> {
        let &[rows, columns] = self.checkpoint.shape(&item.source).unwrap_or_default() else {
            unreachable!("{}: a matrix was chosen", item.source);
        };
        let (What::Codes(rounding) | What::Scales(rounding) | What::Zeros(rounding)) = what else {
            return Ok([rows, columns].map(|length| (length as i64).to_le_bytes()).concat());
        };
        let rounded = self.rounded(&item.source, rounding, columns)?;
        report.errors.insert(item.source.clone(), rounded.error);
        Ok(match what {
            What::Codes(Rounding::Int4 { .. }) => {
                rounded.codes.par_chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect()
            }
            What::Codes(_) => rounded.codes.clone(),
            What::Scales(_) => rounded.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
            What::Zeros(_) | What::Shape | What::Copy => zero_words(&rounded.zeros, rows),
        })
    }

    /// A matrix rounded, kept until another one is asked for.
    fn rounded(&mut self, name: &str, rounding: Rounding, columns: usize) -> Result<&Rounded> {
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            let values = widened(&self.checkpoint.tensor(name)?);
            if let Some(at) = values.par_iter().position_first(|value| !value.is_finite()) {
                let found = format!("{} at [{}, {}]", values[at], at / columns, at % columns);
                return Err(Error::invalid(self.checkpoint.file_of(name), name, "finite numbers", found));
            }
            self.last = Some((name.to_owned(), rounding.round(&values, columns)));
        }
        Ok(&self.last.as_ref().expect("it was made just now").1)
    }

    /// `quantization_config`, as the package compressed-tensors has it.
    fn config(&self) -> Value {
        let (format, bits, kind) = match self.options.weights {
            WeightFormat::Int8 => ("int-quantized", 8, "int"),
            WeightFormat::Fp8 => ("float-quantized", 8, "float"),
            WeightFormat::Int4 => ("pack-quantized", 4, "int"),
        };
        let mut weights =
            json!({"num_bits": bits, "type": kind, "symmetric": true, "strategy": "channel", "dynamic": false});
        // Where there are several, each matrix has the one that its scales say.
        if let Some(&group) = self.groups.last() {
            weights["strategy"] = "group".into();
            weights["group_size"] = group.into();
            weights["symmetric"] = self.options.symmetric.into();
        }
        let group = json!({
            "targets": ["Linear"], "weights": weights, "input_activations": null, "output_activations": null,
            "format": format,
        });
        json!({
            "quant_method": "compressed-tensors", "quantization_status": "compressed", "format": format,
            "config_groups": {"group_0": group}, "ignore": self.ignored,
        })
    }
}

/// (rows, groups) to words of 8 rows each, the first in the lowest half byte.
fn zero_words(zeros: &[u8], rows: usize) -> Vec<u8> {
    let groups = zeros.len() / rows;
    let mut words = vec![0_u32; rows.div_ceil(8) * groups];
    for (at, &zero) in zeros.iter().enumerate() {
        let (row, group) = (at / groups, at % groups);
        words[row / 8 * groups + group] |= u32::from(zero) << (4 * (row % 8));
    }
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
