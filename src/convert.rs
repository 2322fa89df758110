//! Joins the three sources of an OpenFlamingo model into one folder that stands alone.
//!
//! OpenFlamingo releases only what it trained: `checkpoint.pt` holds the resampler, the gated blocks and the
//! embedding. The frozen language model and CLIP's vision tower come from their own releases. Everything is checked
//! before the first byte is written, sums of archives included, tensors go from map to file one at a time, and
//! `config.json` comes last. What was made is opened before it is kept: a folder without `convert.partial` is whole.

mod adapter;
mod flamingo;
mod language;
mod merge;
pub(crate) mod output;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vision;

use crate::checkpoint::{Checkpoint, Dtype, Element, Folder, safetensors};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, MEDIA_MASK_KEY, MediaMask, open_flamingo::FAMILY};
use crate::image::{CLIP_MEAN, CLIP_STD};
use crate::inspect::Inspection;
use crate::setters::setters;
use adapter::{Adapter, Change};
use flamingo::Trained;
use language::Language;
use output::Output;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokenizer::Tokenizer;
use vision::Vision;

pub use merge::{MergeOptions, merge};
pub use vision::vision_heads;

/// Bytes written between two reports of progress.
const CHUNK_BYTES: usize = 8 << 20;

/// Where the parts of a model are, and where the whole shall go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// `checkpoint.pt` as OpenFlamingo releases it or as training leaves it, or the same tensors as safetensors.
    pub checkpoint: PathBuf,
    /// The folder of the language model: `config.json`, weights, `tokenizer.json`.
    pub language_model: PathBuf,
    /// CLIP's weights with open_clip or transformers names: a file, or a folder that holds it.
    pub vision_model: PathBuf,
    /// Every how many layers a gated block stands. The checkpoint says so itself; a value given here must agree with
    /// it.
    pub cross_attn_every: Option<usize>,
    /// LoRA to merge: a folder of PEFT, or a file as Multimodal-GPT releases it.
    pub adapter: Option<PathBuf>,
    /// Which image a token sees, where training was by another rule than OpenFlamingo 2's (preceding).
    pub media_mask: Option<MediaMask>,
    /// The folder to write. It may exist if it is empty, or if an earlier conversion left it when it was killed.
    pub output: PathBuf,
}

impl ConvertOptions {
    /// A checkpoint, a language model and CLIP to be joined in the folder `output`; all else as the checkpoint says.
    pub fn new(
        checkpoint: impl Into<PathBuf>,
        language_model: impl Into<PathBuf>,
        vision_model: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        ConvertOptions {
            checkpoint: checkpoint.into(),
            language_model: language_model.into(),
            vision_model: vision_model.into(),
            cross_attn_every: None,
            adapter: None,
            media_mask: None,
            output: output.into(),
        }
    }
}

setters!(ConvertOptions {
    cross_attn_every: Option<usize>,
    adapter: Option<PathBuf>,
    media_mask: Option<MediaMask>,
});

/// Joins the three sources. `progress` hears of the bytes checked and written so far, and of all there are.
///
/// # Errors
/// A source that is missing, damaged, or does not fit the others; an output that is not empty, or cannot be written; a
/// model that does not open. Nothing is left behind then.
pub fn convert(options: &ConvertOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let checkpoint = Checkpoint::open(&options.checkpoint)?;
    let language = Language::open(&options.language_model)?;
    let vision = Vision::open(&options.vision_model)?;
    let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
    let trained = Trained::sort(&checkpoint, &language)?;
    let tokenizer = Tokenizer::extend(&options.language_model, &FAMILY, trained.embedding_rows())?;
    let every = trained.cross_attn_every(options.cross_attn_every)?;
    let generation_config = generation_config(&options.language_model, &tokenizer)?;

    let mut plan = Plan::default();
    trained.plan_resampler(vision.width, &mut plan)?;
    trained.plan_gated_blocks(vision.width, &mut plan)?;
    trained.plan_language(tokenizer.length, &mut plan)?;
    vision.plan(&mut plan)?;
    if let Some(adapter) = &adapter {
        adapter.apply(&mut plan.items)?;
    }

    let mut sources = vec![&checkpoint, &language.weights, &vision.weights];
    sources.extend(adapter.as_ref().map(|adapter| &adapter.weights));
    let mut advance = check_sums(&sources, &plan, progress)?;
    let output = Output::create(&options.output)?;
    output.write_json("tokenizer.json", &tokenizer.json)?;
    output.write_json("tokenizer_config.json", &tokenizer.config)?;
    let folder = Folder::Disk(&options.output);
    // Before the weights, which take long.
    let opened = tokenizer.open(folder)?;
    output.write_json("preprocessor_config.json", &preprocessor_config(vision.image_size))?;
    if let Some(config) = generation_config {
        output.write_json("generation_config.json", &config)?;
    }
    plan.write_to(&output, &sources, &mut advance)?;
    output.write_json("config.json", &model_config(every, options.media_mask, &tokenizer, &vision, &language))?;
    let Inspection { config, generation, .. } = Inspection::of(&options.output)?;
    generation.settle(folder, &opened, config.decoder.vocabulary)?;
    output.keep()
}

/// Checks the sums of archives, and hears of bytes from then on.
fn check_sums<'p>(
    sources: &[&Checkpoint],
    plan: &Plan,
    progress: &'p mut dyn FnMut(u64, u64),
) -> Result<impl FnMut(u64) + use<'p>> {
    let to_check = sources.iter().map(|source| source.sum_bytes()).sum::<Result<u64>>()?;
    let total = to_check + plan.bytes();
    let mut done = 0;
    let mut advance = move |bytes| {
        done += bytes;
        progress(done, total);
    };
    for source in sources {
        source.check_sums(&mut advance)?;
    }
    Ok(advance)
}

/// The language model's, if it has one, but that an answer ends as OpenFlamingo's own `generate` ends it.
fn generation_config(language_model: &Path, tokenizer: &Tokenizer) -> Result<Option<Value>> {
    let mut config = Folder::Disk(language_model).object_if_there("generation_config.json", CONFIG_BYTES_MAX)?;
    if config.is_empty() {
        return Ok(None);
    }
    config.insert("eos_token_id".to_owned(), tokenizer.end_of_chunk.into());
    Ok(Some(Value::Object(config)))
}

fn model_config(
    every: usize,
    media_mask: Option<MediaMask>,
    tokenizer: &Tokenizer,
    vision: &Vision,
    language: &Language,
) -> Value {
    let mut config = json!({
        "model_type": FAMILY.model_type,
        "cross_attn_every_n_layers": every,
        "eoc_token_id": tokenizer.end_of_chunk,
        "media_token_id": tokenizer.media,
        "vocab_size": tokenizer.length,
        "vision_config": vision.config(),
        "text_config": language.config,
    });
    if let Some(mask) = media_mask {
        config[MEDIA_MASK_KEY] = mask.name().into();
    }
    config
}

/// CLIP's preprocessing, as transformers writes it.
fn preprocessor_config(image_size: usize) -> Value {
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": {"shortest_edge": image_size},
        "do_center_crop": true,
        "crop_size": {"height": image_size, "width": image_size},
        "resample": 3,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "do_convert_rgb": true,
    })
}

/// The tensors of the output, each with the place it comes from.
#[derive(Default)]
struct Plan<'a> {
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    name: String,
    source: &'a Checkpoint,
    /// The tensor's name in the source.
    key: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// What an adapter adds to it.
    change: Option<(&'a Adapter, &'a Change)>,
}

impl Item<'_> {
    fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl<'a> Plan<'a> {
    /// A tensor that goes into the output as it is.
    fn add(&mut self, name: String, source: &'a Checkpoint, key: &str) -> Result<()> {
        self.add_rows(name, source, key, usize::MAX)
    }

    /// A tensor of which no more than the first `rows_max` rows go into the output.
    fn add_rows(&mut self, name: String, source: &'a Checkpoint, key: &str, rows_max: usize) -> Result<()> {
        let (dtype, mut shape) = (source.format(key)?, source.shape(key).unwrap_or_default().to_vec());
        if let Some(rows) = shape.first_mut() {
            *rows = rows_max.min(*rows);
        }
        self.items.push(Item { name, source, key: key.to_owned(), dtype, shape, change: None });
        Ok(())
    }

    /// Bytes of all tensors.
    fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.length() as u64).sum()
    }

    /// Writes all tensors to the output.
    fn write_to(&mut self, output: &Output, sources: &[&Checkpoint], written: &mut dyn FnMut(u64)) -> Result<()> {
        let done = output.write("model.safetensors", |file, path| self.write(file, path, written));
        // A source that was cut meanwhile is why it could not be written, or why it is wrong.
        sources.iter().try_for_each(|source| source.check_unchanged())?;
        done
    }

    /// Writes all tensors, those of the widest format first so that every one is aligned.
    fn write(&mut self, file: &mut dyn Write, path: &Path, written: &mut dyn FnMut(u64)) -> Result<()> {
        let failed = |reason: std::io::Error| Error::file(path, reason);
        self.items.sort_by(|a, b| (Reverse(a.dtype.size()), &a.name).cmp(&(Reverse(b.dtype.size()), &b.name)));
        let headers =
            self.items.iter().map(|item| (item.name.as_str(), Element::Float(item.dtype), item.shape.as_slice()));
        safetensors::write_header(file, headers).map_err(failed)?;
        for item in &self.items {
            let tensor = item.source.tensor(&item.key)?;
            let merged = item.change.map(|(adapter, change)| adapter.merged(&tensor, change)).transpose()?;
            let bytes = merged.as_deref().unwrap_or(&tensor.bytes[..item.length()]);
            for chunk in bytes.chunks(CHUNK_BYTES) {
                file.write_all(chunk).map_err(failed)?;
                written(chunk.len() as u64);
            }
        }
        Ok(())
    }
}
