//! What a model folder holds, from its headers: no device is opened, and of the weights only the gates are read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::backend::Capacity;
use crate::checkpoint::Folder;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::family::presets::{self, Preset};
use crate::family::{Family, Model, Template};
use crate::generation_config::GenerationConfig;
use crate::graph::{Counts, Plan, Plans};
use crate::hub;
use crate::kv::{self, KvDtype};
use crate::model;
use crate::preprocessor;
use crate::weights::{Kind, Stored, Weights};

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

/// Bytes that a model takes on a device whose numbers have 2 bytes (bf16, f16) or 4 (f32, the processor).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Weights; vectors always have 4 bytes.
    pub weights: u64,
    /// What a step of 256 tokens and 8 images or tiles has at a time besides.
    pub activations: u64,
    /// Keys and values of a token, all layers.
    pub token: u64,
    /// Keys and values of an image of the most rows, all gated blocks, in whole pages.
    pub image: u64,
    /// Keys and values of a token in 8 bits, see [`KvDtype::Int8`].
    pub token_int8: u64,
    /// Those of an image.
    pub image_int8: u64,
}

impl Memory {
    fn of(config: &ModelConfig, weights: &Weights, plans: &Plans, number: u64) -> Memory {
        let bytes = |stored: &Stored| {
            let numbers = (stored.weight.rows * stored.weight.columns) as u64;
            numbers * if stored.kind == Kind::Vector { 4 } else { number }
        };
        let Capacity { images, tokens } = Capacity::LEAST;
        let counts = Counts { frames: images, images: (images / plans.frames_each()).max(1), tokens, outputs: tokens };
        let slots = |plan: &Plan| {
            let bytes = plan.slots.iter().map(|slot| (slot.size * counts.units(slot.axis)) as u64 * number);
            bytes.sum::<u64>()
        };
        let ModelConfig { decoder, gated, .. } = config;
        let token = |kv_dtype: KvDtype| {
            let row = kv_dtype.row_bytes(decoder.kv_heads, decoder.head_width(), number as usize);
            (decoder.layers * 2 * row) as u64
        };
        let image = |kv_dtype: KvDtype| {
            let rows = kv::media_pages(config.media_tokens_max()) * kv::MEDIA_PAGE_ROWS;
            let row = kv_dtype.row_bytes(gated.kv_heads, gated.head_width, number as usize);
            (config.gated_blocks() * rows * 2 * row) as u64
        };
        Memory {
            weights: weights.list().iter().map(bytes).sum(),
            activations: slots(&plans.media).max(slots(&plans.text)),
            token: token(KvDtype::Auto),
            image: image(KvDtype::Auto),
            token_int8: token(KvDtype::Int8),
            image_int8: image(KvDtype::Int8),
        }
    }

    /// Tokens, or else images, that there is room for in so many bytes beside weights and activations; none if these do
    /// not fit.
    pub fn fits(&self, bytes: u64, kv_dtype: KvDtype) -> Option<[u64; 2]> {
        let left = bytes.checked_sub(self.weights + self.activations)?;
        let each = match kv_dtype {
            KvDtype::Auto => [self.token, self.image],
            KvDtype::Int8 => [self.token_int8, self.image_int8],
        };
        Some(each.map(|each| left / each.max(1)))
    }
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
    /// What it takes with numbers of 2 bytes, and of 4.
    pub memory: [Memory; 2],
    /// What the folder says of generation.
    pub generation: GenerationConfig,
}

impl Inspection {
    /// Looks into a model folder, or a model of that name; see [`hub::resolve`].
    ///
    /// # Errors
    /// What [`crate::Flamingo::open`] would say of its configuration and weights.
    pub fn of(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = hub::resolve(folder.as_ref())?;
        let folder = Folder::Disk(&folder);
        let checkpoint = Arc::new(folder.checkpoint()?);
        let Model { family, language_model, config, names, template, .. } = Model::open(folder, &checkpoint)?;
        let mut weights = Weights::new(checkpoint.clone(), names);
        let preprocessor = preprocessor::open(folder, family.preprocessing, &config.vision)?;
        let plans = model::record(&config, &preprocessor.levels(), &mut weights)?;
        let memory = [2, 4].map(|number| Memory::of(&config, &weights, &plans, number));
        let generation = GenerationConfig::read(folder, config.decoder.vocabulary)?;
        let mut parts: BTreeMap<&'static str, Part> = BTreeMap::new();
        let mut gates = vec![[0.0; 2]; config.gated_blocks()];
        for stored in weights.list() {
            let part = parts.entry(part_of(&stored.name)).or_default();
            part.parameters += (stored.weight.rows * stored.weight.columns) as u64;
            // Tensors of one weight may be of several formats.
            for (bytes, format) in weights.part_formats(stored)? {
                part.bytes += bytes;
                *part.dtypes.entry(format.to_string()).or_default() += 1;
            }
            if let Some((block, which)) = gate_of(&stored.name) {
                let values = weights.values(stored.weight)?;
                gates[block][which] = values.iter().map(|gate| gate.tanh()).sum::<f32>() / values.len() as f32;
            }
        }
        let gates = gates.into_iter().enumerate();
        let gates = gates
            .map(|(block, [attention, dense])| Gate { layer: config.gated.layers[block], attention, dense })
            .collect();
        let used = weights.used();
        let unused = checkpoint.names().filter(|name| !used.contains(*name)).count() as u64;
        let bytes = checkpoint.bytes();
        Ok(Inspection { family, language_model, config, template, parts, gates, unused, bytes, memory, generation })
    }

    /// What a model of one of [`PRESETS`](crate::PRESETS) would hold, in numbers of 16 bits. It has no gates.
    ///
    /// # Errors
    /// A name that there is none of.
    pub fn preset(name: &str) -> Result<Self> {
        let Preset { family, language_model, config } = presets::preset(name)?;
        let mut weights = Weights::random();
        let plans = model::record(&config, &[0.0; 3 * 256], &mut weights)?;
        let memory = [2, 4].map(|number| Memory::of(&config, &weights, &plans, number));
        let mut parts: BTreeMap<&'static str, Part> = BTreeMap::new();
        for stored in weights.list() {
            let part = parts.entry(part_of(&stored.name)).or_default();
            let count = (stored.weight.rows * stored.weight.columns) as u64;
            part.parameters += count;
            part.bytes += 2 * count;
            *part.dtypes.entry("made up".to_owned()).or_default() += 1;
        }
        Ok(Inspection {
            family,
            language_model,
            template: family.template,
            gates: Vec::new(),
            unused: 0,
            bytes: parts.values().map(|part| part.bytes).sum(),
            generation: GenerationConfig::default(),
            memory,
            config,
            parts,
        })
    }

    /// Media pages of an image.
    pub fn media_pages(&self) -> usize {
        kv::media_pages(self.config.media_tokens_max())
    }
}

/// The part of a model that a weight is of.
fn part_of(name: &str) -> &'static str {
    match name.split('.').next() {
        Some("vision") => "vision",
        Some("resampler") => "resampler",
        Some("projector") => "projector",
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
