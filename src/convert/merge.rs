//! A whole model to a folder of its own: with an adapter merged into it, with a tokenizer, with another media mask.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::adapter::{self, Adapter};
use super::output::{BESIDE, Output};
use super::tokenizer::Tokenizer;
use super::vision::Vision;
use super::{Plan, check_sums};
use crate::checkpoint::{Folder, is_there, read_bounded};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, Family, Fields, MEDIA_MASK_KEY, MediaMask};
use crate::inspect::Inspection;
use crate::setters::setters;
use crate::tokenizer::{TOKENIZER_BYTES_MAX, Tokenizer as Opened};

/// A model's folder, what changes in it, and where the whole shall go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergeOptions {
    /// The folder of a model that opens, but for what is given here.
    pub model: PathBuf,
    /// LoRA to merge: a folder of PEFT, or a file of pairs. Pairs in the model's own weights (Otter) are merged in any
    /// case.
    pub adapter: Option<PathBuf>,
    /// The folder of the language model's tokenizer, to which the family's tokens are added, where the model has none.
    pub tokenizer: Option<PathBuf>,
    /// CLIP's weights with the names of transformers, where the model was saved without its tower (flamingo-mini).
    pub vision_model: Option<PathBuf>,
    /// Which image a token sees, where training was by another rule than the family's.
    pub media_mask: Option<MediaMask>,
    /// The folder to write. It may exist if it is empty, or if an earlier conversion left it when it was killed.
    pub output: PathBuf,
}

impl MergeOptions {
    /// A model to be written anew in the folder `output`; what is given besides is for setters.
    pub fn new(model: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        MergeOptions {
            model: model.into(),
            adapter: None,
            tokenizer: None,
            vision_model: None,
            media_mask: None,
            output: output.into(),
        }
    }
}

setters!(MergeOptions {
    adapter: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    vision_model: Option<PathBuf>,
    media_mask: Option<MediaMask>,
});

/// Writes the model anew. `progress` hears of the bytes checked and written so far, and of all there are.
///
/// # Errors
/// A model or adapter that is missing, damaged, or does not fit; an output that is not empty, or cannot be written; a
/// model that does not open. Nothing is left behind then.
pub fn merge(options: &MergeOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let source = Folder::Disk(&options.model);
    let weights = source.checkpoint()?;
    let file = source.path("config.json");
    let mut config = source.json("config.json", CONFIG_BYTES_MAX)?;
    let family = family_of(&file, &config, options.media_mask)?;
    let own = weights.names().any(adapter::is_half);
    let own = own.then(|| Adapter::beside(&options.model, &file, &config)).transpose()?;
    let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
    let tokenizer = options.tokenizer.as_deref().map(|folder| extended(source, folder, family)).transpose()?;

    let vision = options.vision_model.as_deref().map(Vision::open).transpose()?;
    let mut plan = Plan::default();
    for name in weights.names().filter(|name| !adapter::is_half(name)) {
        // What no model reads, such as numbers of positions.
        if weights.dtype(name).is_some() {
            let kept = if own.is_some() { adapter::plain_of_model(name) } else { name.to_owned() };
            plan.add(kept, &weights, name)?;
        }
    }
    for adapter in own.iter().chain(&adapter) {
        adapter.apply(&mut plan.items)?;
    }
    if let Some(vision) = &vision {
        vision.plan_inside(family, &weights, &mut plan)?;
    }
    let mut sources = vec![&weights];
    sources.extend(vision.as_ref().map(|vision| &vision.weights));
    sources.extend(own.iter().chain(&adapter).map(|adapter| &adapter.weights));
    let mut advance = check_sums(&sources, &plan, progress)?;

    let output = Output::create(&options.output)?;
    if let Some(tokenizer) = &tokenizer {
        output.write_json("tokenizer.json", &tokenizer.json)?;
        output.write_json("tokenizer_config.json", &tokenizer.config)?;
    }
    for name in BESIDE.into_iter().filter(|name| tokenizer.is_none() || !name.contains("token")) {
        if is_there(&options.model.join(name)) {
            let bytes = read_bounded(&options.model.join(name), TOKENIZER_BYTES_MAX)?;
            let path = options.output.join(name);
            output.write(name, |file, _| file.write_all(&bytes).map_err(|reason| Error::file(&path, reason)))?;
        }
    }
    plan.write_to(&output, &sources, &mut advance)?;
    if let Some(map) = config.as_object_mut() {
        map.remove("lora_config");
        map.extend(options.media_mask.map(|mask| (MEDIA_MASK_KEY.to_owned(), mask.name().into())));
    }
    output.write_json("config.json", &config)?;
    let folder = Folder::Disk(&options.output);
    let Inspection { config, generation, .. } = Inspection::of(&options.output)?;
    let opened = Opened::open(folder, family, config.decoder.vocabulary)?;
    generation.settle(folder, &opened, config.decoder.vocabulary)?;
    output.keep()
}

/// The family of a configuration, which must leave the media mask to its checkpoints if one is asked for.
fn family_of(file: &Path, config: &Value, media_mask: Option<MediaMask>) -> Result<&'static Family> {
    let fields = Fields::new(file, config)?;
    let family = Family::of(&fields)?;
    match media_mask {
        Some(mask) if !family.template.media_mask.is_choice() => {
            let expected = format!("media-mask: expected none, as models of {} have one", family.name);
            Err(Error::argument(format!("{expected}, found {}", mask.name())))
        }
        _ => Ok(family),
    }
}

/// A language model's tokenizer with the family's tokens, for a model that has none.
fn extended(model: Folder, tokenizer: &Path, family: &'static Family) -> Result<Tokenizer> {
    if model.has("tokenizer.json") {
        let expected = "tokenizer: expected none, as the model has one";
        return Err(Error::argument(format!("{expected}, found {}", tokenizer.display())));
    }
    Tokenizer::extend(tokenizer, family, None)
}
