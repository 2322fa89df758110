//! The language models that families build on, each as its own authors configure it and name its tensors.

mod gpt2;
mod gpt_neox;
mod llama;
mod mpt;
mod opt;

use super::fields::Fields;
use super::tables::{Table, generalised};
use crate::checkpoint::Checkpoint;
use crate::config::DecoderConfig;
use crate::error::Result;
use crate::weights::Layout;

pub(super) use gpt2::GPT2;
pub(super) use llama::LLAMA;
pub(super) use opt::OPT;

/// Every language model there is.
const LANGUAGES: &[&Language] = &[
    &mpt::MPT, //
    &mpt::MOSAIC_GPT,
    &gpt_neox::GPT_NEOX,
    &llama::LLAMA,
    &opt::OPT,
    &gpt2::GPT2,
];

/// What a language model's files mean.
pub(crate) struct Language {
    /// `model_type` of its `config.json`.
    pub model_type: &'static str,
    /// What reports call it.
    pub name: &'static str,
    /// Reads its configuration, and the shapes that say what it leaves out; the vocabulary is the family's.
    read: fn(&Fields, &Checkpoint) -> Result<DecoderConfig>,
    /// Names of the decoder's weights.
    pub(super) table: Table,
    /// Tensors that its checkpoints may have and that hold nothing that is not computed, as `{}` patterns.
    pub(super) harmless: &'static [&'static str],
    /// The container of its layers, in which each has a number.
    pub layers: &'static str,
    /// The weights that do not stand in the file as they are wanted.
    pub(super) layout: fn(&DecoderConfig) -> Vec<(&'static str, Layout)>,
    /// The output matrix.
    pub head: &'static str,
    /// Whether the output matrix is the embedding where the configuration does not say.
    pub tied: bool,
    /// Where the configuration has the number of layers and the width.
    pub layers_key: &'static str,
    /// Where it has the width.
    pub width_key: &'static str,
    /// Whether every weight of a layer has a bias.
    biased: bool,
}

impl Language {
    /// The language model of a configuration.
    ///
    /// # Errors
    /// A key that is missing, of the wrong type, absurd or not supported.
    pub fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<(&'static Language, DecoderConfig)> {
        let language = Language::of(fields)?;
        let decoder = (language.read)(fields, checkpoint)?;
        if !decoder.width.is_multiple_of(decoder.heads) {
            return Err(fields.invalid("heads", format!("a divisor of the width {}", decoder.width), decoder.heads));
        }
        Ok((language, decoder))
    }

    /// Whose configuration it is.
    ///
    /// # Errors
    /// A language model that is not known; weights that are quantised.
    pub fn of(fields: &Fields) -> Result<&'static Language> {
        let &language = fields.one_of("model_type", LANGUAGES, |language| language.model_type)?;
        fields.refuse_quantised()?;
        Ok(language)
    }

    /// Whether a tensor holds nothing that is not computed.
    pub fn is_harmless(&self, tensor: &str) -> bool {
        self.harmless.contains(&&*generalised(tensor).0)
    }

    /// What stands before all names but the head's; some releases leave it out.
    pub fn base(&self) -> &'static str {
        let end = self.layers.find('.').expect("a container is inside of something");
        &self.layers[..=end]
    }

    /// The input embedding.
    pub fn embedding(&self) -> String {
        let found = self.tensors(|ours| ours == "decoder.embedding", false).next();
        found.expect("a language model has an embedding")
    }

    /// Names within a layer of what every layer must have.
    pub fn layer_tensors(&self) -> impl Iterator<Item = String> {
        let needed =
            |ours: &str| ours.starts_with("decoder.layers.") && !HEAD_NORMS.iter().any(|norm| ours.ends_with(norm));
        let prefix = format!("{}.{{}}.", self.layers);
        self.tensors(needed, self.biased).map(move |tensor| tensor.replacen(&prefix, "", 1))
    }

    /// Names of what must stand outside the layers, besides embedding and head; a norm at the end, if there is one.
    pub fn other_tensors(&self, norm: bool) -> impl Iterator<Item = String> {
        let norms = self.tensors(move |ours| norm && ours == "decoder.norm", self.biased);
        self.tensors(|ours| ours == "decoder.positions", false).chain(norms)
    }

    /// The tensors of our names that are wanted: weights, and biases if asked for.
    fn tensors(&self, wanted: impl Fn(&str) -> bool, biased: bool) -> impl Iterator<Item = String> {
        let kinds: &[&str] = if biased { &["weight", "bias"] } else { &["weight"] };
        let theirs = self.table.iter().filter(move |(ours, _)| wanted(ours)).flat_map(|(_, theirs)| theirs.split('+'));
        theirs.flat_map(move |theirs| kinds.iter().map(move |kind| theirs.replace('%', kind)))
    }
}

/// Norms that not every model of an architecture has.
const HEAD_NORMS: [&str; 2] = [".query_norm", ".key_norm"];
