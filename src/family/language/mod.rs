//! The language models that families build on, each under the names that its own authors gave its tensors.

mod gpt_neox;
mod llama;
mod mpt;
mod opt;

use super::tables::Table;
use crate::config::{Architecture, DecoderConfig};
use crate::weights::Layout;

/// What a language model calls its tensors.
pub(super) struct Language {
    /// Names of the decoder's weights.
    pub table: Table,
    /// Tensors that its checkpoints may have and that hold nothing that is not computed, as `{}` patterns.
    pub harmless: &'static [&'static str],
    /// The container of its layers, in which each has a number.
    pub layers: &'static str,
    /// The weights that do not stand in the file as they are wanted.
    pub layout: Option<(&'static str, Layout)>,
}

/// The names of a decoder.
pub(super) fn names(decoder: &DecoderConfig) -> Language {
    match decoder.architecture {
        Architecture::Llama => llama::names(),
        Architecture::Mpt => mpt::names(),
        Architecture::MosaicGpt => mpt::mosaic_names(),
        Architecture::GptNeoX => gpt_neox::names(decoder.heads),
        Architecture::Opt => opt::names(),
    }
}
