//! A room for each family of models: what its files mean. Everything else knows models by numbers and choices alone.
//!
//! A family is one file here, with its own reading of `config.json`, names of tensors, template of prompts, media mask
//! and preprocessing, and one line in the list below. Language models that families build on have files of their own in
//! `language/`.

mod chat;
mod clip;
mod fields;
mod flamingo_mini;
mod idefics;
pub(crate) mod language;
mod mllama;
pub(crate) mod open_flamingo;
mod otter;
pub(crate) mod paper;
pub(crate) mod presets;
mod tables;
mod template;

use crate::checkpoint::{Checkpoint, Folder};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::image::Crop;
use crate::weights::Names;
pub use chat::ChatTemplate;
pub(crate) use fields::{Fields, quoted};
pub(crate) use template::MEDIA_MASK_KEY;
pub use template::{Begin, MediaMask, Template};

pub(crate) use crate::checkpoint::CONFIG_BYTES_MAX;

/// Every family there is.
const FAMILIES: &[&Family] = &[
    &idefics::FAMILY, //
    &open_flamingo::FAMILY,
    &mllama::FAMILY,
    &otter::OTTER,
    &otter::FLAMINGO,
    &flamingo_mini::FAMILY,
];

/// Who trained a model decides what its files mean.
#[derive(Debug)]
#[non_exhaustive]
pub struct Family {
    /// `model_type` of its `config.json`.
    pub model_type: &'static str,
    /// What reports call it.
    pub name: &'static str,
    /// How its prompts are written, and which image a token sees.
    pub template: Template,
    /// Tokens that its training adds to a language model's beside those of the template.
    pub more_tokens: &'static [&'static str],
    /// What stands before the names of CLIP's tower, where models may be saved without it.
    pub tower: Option<&'static str>,
    /// What its images go through.
    pub preprocessing: Preprocessing,
    /// How turns of a conversation become a prompt: where the tokenizer has no turns, and where it has.
    pub chats: [fn() -> ChatTemplate; 2],
    /// The built-in templates of evaluations that fit it: where the tokenizer has no turns, and where it has.
    pub evaluations: [&'static str; 2],
    /// Reads a configuration, and the shapes that say what it leaves out.
    read: fn(&Fields, &Checkpoint) -> Result<Parts>,
}

/// What images go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preprocessing {
    /// How an image becomes squares.
    pub crop: Crop,
    /// What the names of the classes of transformers that do so begin with.
    pub class: &'static str,
}

/// What a family makes of a configuration.
struct Parts {
    config: ModelConfig,
    /// The family's, but where the language model asks for another one.
    template: Template,
    /// What reports call its language model.
    language_model: &'static str,
    names: Box<dyn Names>,
    /// The id that the configuration says the marker of images has, and under which key.
    marker: Option<(&'static str, u32)>,
}

/// What a model folder says of its model.
#[derive(Debug)]
pub(crate) struct Model {
    pub family: &'static Family,
    /// What reports call its language model.
    pub language_model: &'static str,
    pub config: ModelConfig,
    /// How its prompts are written, and which image a token sees.
    pub template: Template,
    /// What its checkpoint calls its weights.
    pub names: Box<dyn Names>,
    /// The id that the configuration says the marker of images has, and under which key.
    marker: Option<(&'static str, u32)>,
}

impl Model {
    /// Reads `config.json` of a folder, and from the checkpoint's shapes what the file does not say.
    ///
    /// # Errors
    /// A key that is missing, of the wrong type, absurd or not supported: file, key, expected, found.
    pub fn open(folder: Folder, checkpoint: &Checkpoint) -> Result<Model> {
        let file = folder.path("config.json");
        let root = folder.json("config.json", CONFIG_BYTES_MAX)?;
        let fields = Fields::new(&file, &root)?;
        let family = Family::of(&fields)?;
        fields.refuse_other_quantisation()?;
        let Parts { config, template, language_model, names, marker } = (family.read)(&fields, checkpoint)?;
        let template = template.masked_as(&fields)?;
        Ok(Model { family, language_model, config, template, names, marker })
    }

    /// Whether the configuration of the folder means the tokenizer's marker of images.
    ///
    /// # Errors
    /// Another id: file, key, expected, found.
    pub fn check_marker(&self, folder: Folder, markers: &[u32]) -> Result<()> {
        match self.marker.filter(|(_, found)| !markers.contains(found)) {
            None => Ok(()),
            Some((key, found)) => {
                let expected = format!("{}, as {} has in tokenizer.json", markers[0], self.family.template.image);
                Err(Error::invalid(folder.path("config.json"), key, expected, found))
            }
        }
    }
}

impl Family {
    /// The family of a configuration.
    ///
    /// # Errors
    /// A `model_type` that is not known.
    pub(crate) fn of(fields: &Fields) -> Result<&'static Family> {
        if fields.get(flamingo_mini::KEY).is_some() {
            return Ok(&flamingo_mini::FAMILY);
        }
        fields.one_of("model_type", FAMILIES, |family| family.model_type).copied()
    }

    /// The family of a `model_type`.
    pub fn find(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().copied().find(|family| family.model_type == model_type)
    }
}
