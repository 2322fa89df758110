//! OpenFlamingo 3B, 4B and 9B, as `flamant convert` writes them: CLIP, the resampler, the gated blocks and one of
//! several language models.

use super::clip;
use super::language;
use super::tables::{Section, Table, Tables};
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::weights::{Layout, Names};

/// What a checkpoint calls the weights.
pub(super) fn names(config: &ModelConfig, checkpoint: &Checkpoint) -> Box<dyn Names> {
    let language = language::names(&config.decoder);
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
    let layouts = language.layout.into_iter().chain(projection).collect();
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
