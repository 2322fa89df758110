//! OpenFlamingo 3B, 4B and 9B, as `flamant convert` writes them: CLIP, the resampler, the gated blocks and one of
//! several language models.

use super::clip::{self, Keys};
use super::fields::Fields;
use super::language::Language;
use super::tables::{Section, Table, Tables};
use super::{Family, MediaMask, Parts, Preprocessing, Template};
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, GatedConfig, Mlp, ModelConfig, Norm, ResamplerConfig};
use crate::error::{Error, Result};
use crate::image::Crop;
use crate::weights::{Layout, Names};

/// Width of one head in the resampler and the gated blocks, whatever the model's width (`helpers.py`).
pub(crate) const HEAD_WIDTH: usize = 64;

/// Tokens that it adds to a language model's: end of chunk, image, padding. LLaMA's output matrix is not saved with
/// rows for them.
const ADDED_TOKENS: usize = 3;

/// OpenFlamingo: the middle of an image, as open_clip 2.20 cuts it out; prompts are text with markers of images, and an
/// end after each example.
pub(crate) static FAMILY: Family = Family {
    model_type: "open_flamingo",
    name: "OpenFlamingo",
    template: Template {
        image: "<image>",
        fence: None,
        begin: None,
        document_end: None,
        turn_end: "<|endofchunk|>",
        turn_end_optional: false,
        turn_end_between_texts: false,
        trims: false,
        media_mask: MediaMask::Preceding,
    },
    preprocessing: Preprocessing { crop: Crop::ShortestEdgeCentreCrop, class: "CLIP" },
    evaluations: ["openflamingo", "openflamingo"],
    read,
};

/// OpenFlamingo, as `flamant convert` writes it: the language model's own configuration stands under `text_config`.
fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let vision = clip::read(&fields.section("vision_config")?, Keys::TRANSFORMERS, false)?;
    let (language, mut decoder) = Language::read(&fields.section("text_config")?, checkpoint)?;
    decoder.vocabulary = fields.count("vocab_size", None, 1 << 24)?;
    decoder.unpredicted = ADDED_TOKENS;
    let interval = fields.count("cross_attn_every_n_layers", None, 1024)?;
    let first = interval - 1;
    if first >= decoder.layers {
        let most = format!("at most the {} layers of the language model", decoder.layers);
        return Err(fields.invalid("cross_attn_every_n_layers", most, interval));
    }
    let block = format!("lang_encoder.{}.{first}.gated_cross_attn_layer", language.layers);
    let rows = |name: &str| -> Result<usize> {
        match checkpoint.shape(name) {
            Some([rows, ..]) => Ok(*rows),
            _ => Err(Error::invalid(checkpoint.file_of(name), name, "a tensor of this name", "none")),
        }
    };
    let heads_of = |name: &str| -> Result<usize> {
        let inner = rows(name)?;
        if inner == 0 || inner % HEAD_WIDTH != 0 {
            let expected = format!("rows in heads of {HEAD_WIDTH}");
            return Err(Error::invalid(checkpoint.file_of(name), name, expected, format!("{inner} rows")));
        }
        Ok(inner / HEAD_WIDTH)
    };
    let depth = (0..).take_while(|i| checkpoint.contains(&format!("perceiver.layers.{i}.0.to_q.weight"))).count();
    if checkpoint.contains("perceiver.media_time_embs") {
        let expected = "a resampler that knows no number of an image in its prompt";
        return Err(fields.invalid("perceiver.media_time_embs", expected, "such embeddings"));
    }
    let resampler = ResamplerConfig {
        depth,
        latents: rows("perceiver.latents")?,
        frame_embeddings: checkpoint
            .contains("perceiver.frame_embs")
            .then(|| rows("perceiver.frame_embs"))
            .transpose()?,
        heads: heads_of("perceiver.layers.0.0.to_q.weight")?,
        head_width: HEAD_WIDTH,
        mlp_width: rows("perceiver.layers.0.1.1.weight")?,
        activation: Activation::Gelu,
        qk_norm: false,
    };
    let heads = heads_of(&format!("{block}.attn.to_q.weight"))?;
    let gated = GatedConfig {
        interval,
        first,
        heads,
        kv_heads: heads,
        head_width: HEAD_WIDTH,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::Gelu),
        mlp_width: rows(&format!("{block}.ff.1.weight"))?,
    };
    let config = ModelConfig { vision, resampler: Some(resampler), gated, decoder };
    let names = names(language, &config, checkpoint);
    Ok(Parts { config, language_model: language.name, names })
}

/// What a checkpoint calls the weights.
fn names(language: &Language, config: &ModelConfig, checkpoint: &Checkpoint) -> Box<dyn Names> {
    // open_clip multiplies by its projection from the right.
    let open_clip = checkpoint.contains("vision_encoder.conv1.weight");
    let vision = if open_clip { clip::OPEN_CLIP } else { clip::TRANSFORMERS };
    let block = format!("lang_encoder.{}.{{}}.gated_cross_attn_layer.", language.layers);
    let sections = vec![
        Section::new("vision_encoder.", vision).harmless(clip::HARMLESS),
        Section::new("perceiver.", RESAMPLER),
        // A block is named after the layer it stands before.
        Section::new(block, GATED).numbered(config.gated.first, config.gated.interval),
        Section::new("lang_encoder.", language.table).harmless(language.harmless),
    ];
    let projection = open_clip.then_some(("vision.projection", Layout::Transposed));
    let layouts = (language.layout)(&config.decoder).into_iter().chain(projection).collect();
    Box::new(Tables { sections, own: &["vision_encoder.", "perceiver.", "lang_encoder."], layouts })
}

/// The resampler.
const RESAMPLER: Table = &[
    ("resampler.latents", "latents"),
    ("resampler.frames", "frame_embs"),
    ("resampler.layers.{}.norm_media", "layers.{}.0.norm_media.%"),
    ("resampler.layers.{}.norm_latents", "layers.{}.0.norm_latents.%"),
    ("resampler.layers.{}.query", "layers.{}.0.to_q.%"),
    ("resampler.layers.{}.key_value", "layers.{}.0.to_kv.%"),
    ("resampler.layers.{}.out", "layers.{}.0.to_out.%"),
    ("resampler.layers.{}.norm_mlp", "layers.{}.1.0.%"),
    ("resampler.layers.{}.up", "layers.{}.1.1.%"),
    ("resampler.layers.{}.down", "layers.{}.1.3.%"),
    ("resampler.norm", "norm.%"),
];

/// A gated block.
const GATED: Table = &[
    ("gated.{}.norm_attention", "attn.norm.%"),
    ("gated.{}.query", "attn.to_q.%"),
    ("gated.{}.key_value", "attn.to_kv.%"),
    ("gated.{}.out", "attn.to_out.%"),
    ("gated.{}.gate_attention", "attn_gate"),
    ("gated.{}.norm_mlp", "ff.0.%"),
    ("gated.{}.up", "ff.1.%"),
    ("gated.{}.down", "ff.3.%"),
    ("gated.{}.gate_mlp", "ff_gate"),
];
