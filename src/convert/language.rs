//! The frozen language model: which of its tensors go along.

use super::Plan;
use crate::checkpoint::{Checkpoint, Folder};
use crate::error::{Error, Result};
use crate::family::language::Language as Family;
use crate::family::{CONFIG_BYTES_MAX, Fields};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers that a model may have.
const LAYERS_MAX: usize = 10_000;

/// The width that a configuration may state.
const WIDTH_MAX: usize = 1 << 20;

/// A language model's folder.
pub struct Language {
    /// The configuration as it stands.
    pub config: Value,
    /// What the names mean.
    pub family: &'static Family,
    /// How many layers there are, and how wide.
    pub layers: usize,
    /// The width of the residual stream.
    pub width: usize,
    /// The input embedding, by the family's name.
    pub embedding: String,
    embedding_width: usize,
    /// The weights.
    pub weights: Checkpoint,
    /// Whether the embedding serves as output matrix.
    tied: bool,
    /// The family's names of all tensors, with their names in the folder.
    names: BTreeMap<String, String>,
}

impl Language {
    /// Opens a folder and checks that it holds all layers of a family that we know.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = Folder::Disk(folder);
        let config_file = folder.path("config.json");
        let config = folder.json("config.json", CONFIG_BYTES_MAX)?;
        let fields = Fields::new(&config_file, &config)?;
        let family = Family::of(&fields)?;
        let layers = fields.count(family.layers_key, None, LAYERS_MAX)?;
        let width = fields.count(family.width_key, None, WIDTH_MAX)?;
        // OPT may embed in a narrower space and project.
        let embedding_width = fields.count("word_embed_proj_dim", Some(width), WIDTH_MAX)?;
        let tied = fields.flag("tie_word_embeddings", family.tied)?;
        let weights = folder.checkpoint()?;
        let embedding = family.embedding();
        let names = names(family, &embedding, &weights);
        let language = Language { config, family, layers, width, embedding, embedding_width, weights, tied, names };
        language.check_complete()?;
        language.check_layers(&config_file)?;
        Ok(language)
    }

    /// Whether a tensor, by the family's name, is a buffer or a second name of the embedding.
    pub fn is_ignored(&self, name: &str) -> bool {
        self.family.is_harmless(name) || self.tied && name == self.family.head
    }

    /// Whether the model has a tensor of this name. An output matrix may stand in the checkpoint alone.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name) || name == self.family.head
    }

    fn check_complete(&self) -> Result<()> {
        let (family, layers) = (self.family, self.family.layers);
        let layer_tensors: Vec<String> = family.layer_tensors().collect();
        let in_layers =
            (0..self.layers).flat_map(|layer| layer_tensors.iter().map(move |rest| format!("{layers}.{layer}.{rest}")));
        let norm_after = self.config.get("do_layer_norm_before").is_some_and(|before| *before == false);
        let others = family.other_tensors(!norm_after).chain([self.embedding.clone()]);
        match others.chain(in_layers).find(|name| !self.names.contains_key(name)) {
            None => Ok(()),
            Some(name) => Err(Error::invalid(self.weights.path(), name, "a tensor of this name", "none")),
        }
    }

    /// All layers must have the same tensors in the same shapes as the first, and there must be as many as configured.
    fn check_layers(&self, config_file: &Path) -> Result<()> {
        let in_layers = self.names.iter().filter_map(|(name, key)| {
            let (layer, rest) = layer_and_rest(name.strip_prefix(self.family.layers)?.strip_prefix('.')?)?;
            Some((layer, rest, name, key))
        });
        let found = in_layers.clone().map(|(layer, ..)| layer + 1).max().unwrap_or(0);
        if found != self.layers {
            let expected = format!("{found}, as the weights have layers");
            return Err(Error::invalid(config_file, self.family.layers_key, expected, self.layers));
        }
        let rests: BTreeSet<&str> = in_layers.map(|(_, rest, ..)| rest).collect();
        for rest in rests {
            let name = |layer| format!("{}.{layer}.{rest}", self.family.layers);
            let Some(first) = self.names.get(&name(0)) else {
                return Err(Error::invalid(
                    self.weights.path(),
                    name(0),
                    "a tensor of this name, as in other layers",
                    "none",
                ));
            };
            let shape = self.weights.shape(first).unwrap_or_default();
            for layer in 1..self.layers {
                let name = name(layer);
                self.weights.check(self.names.get(&name).unwrap_or(&name), shape)?;
            }
        }
        Ok(())
    }

    /// Adds the language model: the tensors of `checkpoint` that `trained` names, this folder's otherwise. The matrices
    /// over the vocabulary lose the spare rows behind the last token.
    pub fn plan<'a>(
        &'a self,
        trained: &BTreeMap<String, &'a str>,
        checkpoint: &'a Checkpoint,
        vocabulary: usize,
        plan: &mut Plan<'a>,
    ) -> Result<()> {
        // The head is named in any case, so that an untied model without one is refused.
        let names: BTreeSet<&str> = self.names.keys().map(String::as_str).chain([self.family.head]).collect();
        for name in names.into_iter().filter(|name| !self.is_ignored(name)) {
            let (source, key) = match trained.get(name) {
                Some(key) => (checkpoint, *key),
                None => (&self.weights, self.names.get(name).map_or(name, String::as_str)),
            };
            let rows_max = self.check_shape(name, source, key, vocabulary)?;
            plan.add_rows(format!("lang_encoder.{name}"), source, key, rows_max)?;
        }
        Ok(())
    }

    /// Checks a tensor that will be used, and tells how many of its rows to take.
    fn check_shape(&self, name: &str, source: &Checkpoint, key: &str, vocabulary: usize) -> Result<usize> {
        let is_embedding = name == self.embedding;
        if !is_embedding && name != self.family.head {
            let original = self.names.get(name).and_then(|key| self.weights.shape(key));
            source.check(key, original.unwrap_or_default())?;
            return Ok(usize::MAX);
        }
        // A head may have fewer rows: LLaMA's knows nothing of the added tokens, and they are never generated then.
        let rows_min = if is_embedding { vocabulary } else { 1 };
        source.format(key)?;
        match source.shape(key).unwrap_or_default() {
            &[rows, columns] if rows >= rows_min && columns == self.embedding_width => Ok(vocabulary),
            found => {
                let expected = format!("at least {rows_min} rows of {}, one for each token", self.embedding_width);
                Err(Error::invalid(source.file_of(key), key, expected, format!("shape {found:?}")))
            }
        }
    }
}

/// The family's names of a folder's tensors but its buffers, with their names there. Where the embedding stands without
/// the base, all names but the head's do.
fn names(family: &Family, embedding: &str, weights: &Checkpoint) -> BTreeMap<String, String> {
    let short = embedding.strip_prefix(family.base()).unwrap_or(embedding);
    let base = if !weights.contains(embedding) && weights.contains(short) { family.base() } else { "" };
    let full = |key: &str| if key == family.head { key.to_owned() } else { format!("{base}{key}") };
    let all = weights.names().map(|key| (full(key), key.to_owned()));
    all.filter(|(name, _)| !family.is_harmless(name)).collect()
}

/// The folder of a path that may be a file.
pub fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(Path::new("")).to_owned() }
}

/// Splits `7.rest` into the number of a layer and the rest.
pub fn layer_and_rest(name: &str) -> Option<(usize, &str)> {
    let (digits, rest) = name.split_once('.')?;
    let layer = digits.parse().ok().filter(|&layer: &usize| layer < LAYERS_MAX && layer.to_string() == digits)?;
    Some((layer, rest))
}
