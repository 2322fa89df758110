//! What a model folder holds, from its headers: no device is opened, and of the weights only the gates are read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::family::{Family, Model, Template, paper};
use crate::generation_config::GenerationConfig;
use crate::kv;
use crate::model;
use crate::preprocessor;
use crate::weights::Weights;

/// A part of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Numbers in its weights.
    pub parameters: u64,
    /// Bytes of them in the files.
    pub bytes: u64,
    /// Tensors of each number format.
    pub dtypes: BTreeMap<String, u64>,
}

/// The gates of one gated block.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gate {
    /// The decoder layer it stands before, from 0.
    pub layer: usize,
    /// tanh of the attention gate, its mean where the block has one for each column. 0: images are not seen.
    pub attention: f32,
    /// tanh of the gate of the dense part.
    pub dense: f32,
}

/// A model folder, looked into.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// Who trained it.
    pub family: &'static Family,
    /// What reports call its language model.
    pub language_model: &'static str,
    /// What `config.json` and shapes say.
    pub config: ModelConfig,
    /// How its prompts are written, and which image a token sees.
    pub template: Template,
    /// Vision, resampler, gated blocks, decoder: what of each the engine uses.
    pub parts: BTreeMap<&'static str, Part>,
    /// The gated blocks.
    pub gates: Vec<Gate>,
    /// Tensors in the files that the engine has no use for.
    pub unused: u64,
    /// Bytes of all tensors in the files.
    pub bytes: u64,
    /// What the folder says of generation.
    pub generation: GenerationConfig,
}

impl Inspection {
    /// Looks into a model folder.
    ///
    /// # Errors
    /// What [`crate::Flamingo::open`] would say of its configuration and weights.
    pub fn of(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = Folder::Disk(folder.as_ref());
        let checkpoint = Arc::new(folder.checkpoint()?);
        let Model { family, language_model, config, names, template } = Model::open(folder, &checkpoint)?;
        let mut weights = Weights::new(checkpoint.clone(), names);
        let preprocessor = preprocessor::open(folder, family.preprocessing, config.vision.image_size, 1)?;
        model::record(&config, &preprocessor.levels(), &mut weights)?;
        let generation = GenerationConfig::read(folder, config.decoder.vocabulary)?;
        let mut parts: BTreeMap<&'static str, Part> = BTreeMap::new();
        let mut gates = vec![[0.0; 2]; config.gated_blocks()];
        for stored in weights.list() {
            let part = parts.entry(part_of(&stored.name)).or_default();
            part.parameters += (stored.weight.rows * stored.weight.columns) as u64;
            // Tensors of one weight may be of several formats.
            for tensor in weights.tensors(stored.weight)? {
                part.bytes += tensor.bytes.len() as u64;
                *part.dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
            }
            if let Some((block, which)) = gate_of(&stored.name) {
                let values = weights.values(stored.weight)?;
                gates[block][which] = values.iter().map(|gate| gate.tanh()).sum::<f32>() / values.len() as f32;
            }
        }
        let layer_of = |block: usize| config.gated.first + block * config.gated.interval;
        let gates = gates.into_iter().enumerate();
        let gates =
            gates.map(|(block, [attention, dense])| Gate { layer: layer_of(block), attention, dense }).collect();
        let used = weights.used();
        let unused = checkpoint.names().filter(|name| !used.contains(*name)).count() as u64;
        let bytes = checkpoint.bytes();
        Ok(Inspection { family, language_model, config, template, parts, gates, unused, bytes, generation })
    }

    /// What a model of one of [`PRESETS`](crate::PRESETS) would hold, in numbers of 16 bits. It has no gates.
    ///
    /// # Errors
    /// A name that there is none of.
    pub fn preset(name: &str) -> Result<Self> {
        let config = paper::preset(name)?;
        let mut weights = Weights::random();
        model::record(&config, &[0.0; 3 * 256], &mut weights)?;
        let mut parts: BTreeMap<&'static str, Part> = BTreeMap::new();
        for stored in weights.list() {
            let part = parts.entry(part_of(&stored.name)).or_default();
            let count = (stored.weight.rows * stored.weight.columns) as u64;
            part.parameters += count;
            part.bytes += 2 * count;
            *part.dtypes.entry("made up".to_owned()).or_default() += 1;
        }
        Ok(Inspection {
            family: &paper::FAMILY,
            language_model: "Chinchilla",
            template: paper::FAMILY.template,
            gates: Vec::new(),
            unused: 0,
            bytes: parts.values().map(|part| part.bytes).sum(),
            generation: GenerationConfig::default(),
            config,
            parts,
        })
    }

    /// Media pages of an image.
    pub fn media_pages(&self) -> usize {
        kv::media_pages(self.config.media_tokens())
    }
}

/// The part of a model that a weight is of.
fn part_of(name: &str) -> &'static str {
    match name.split('.').next() {
        Some("vision") => "vision",
        Some("resampler") => "resampler",
        Some("gated") => "gated blocks",
        _ => "decoder",
    }
}

/// "gated.3.gate_mlp" to (3, 1).
fn gate_of(name: &str) -> Option<(usize, usize)> {
    let (block, which) = name.strip_prefix("gated.")?.split_once('.')?;
    let which = ["gate_attention", "gate_mlp"].iter().position(|gate| *gate == which)?;
    Some((block.parse().ok()?, which))
}
