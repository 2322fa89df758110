//! Otter and the Flamingo that it began as, as transformers saves their classes: OpenFlamingo's architecture with the
//! language model and CLIP in the same folder, under names of their own.

use super::fields::Fields;
use super::language::Language;
use super::open_flamingo::{Dialect, read_as};
use super::tables::Table;
use super::{ChatTemplate, Family, MediaMask, Parts, Preprocessing, Template, open_flamingo};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::image::Crop;

/// Otter: prompts are `<image>User: ... GPT:<answer>`.
pub(super) static OTTER: Family = Family {
    model_type: "otter",
    name: "Otter",
    template: Template { media_mask: MediaMask::Preceding, ..open_flamingo::FAMILY.template },
    more_tokens: &["<answer>"],
    tower: None,
    preprocessing: Preprocessing { crop: Crop::RgbShortestEdgeCentreCrop, class: "CLIP" },
    chats: [chat; 2],
    evaluations: ["otter", "otter"],
    read,
};

/// The prompts of its demonstrations.
fn chat() -> ChatTemplate {
    ChatTemplate {
        name: "otter".into(),
        user_text_before: "User: ".into(),
        user_after: " GPT:<answer>".into(),
        answer_text_before: " ".into(),
        answer_after: open_flamingo::END_OF_CHUNK.into(),
        reserved: ["<answer>", open_flamingo::END_OF_CHUNK].map(String::from).to_vec(),
        ..ChatTemplate::default()
    }
}

/// OpenFlamingo under the same classes (`openflamingo-9b-hf`).
pub(super) static FLAMINGO: Family = Family {
    model_type: "flamingo",
    name: "Flamingo",
    template: OTTER.template,
    more_tokens: &[],
    tower: None,
    preprocessing: OTTER.preprocessing,
    chats: open_flamingo::FAMILY.chats,
    evaluations: ["openflamingo", "openflamingo"],
    read,
};

/// Tokens that training adds at most, which a head of its own may lack.
const ADDED_TOKENS: usize = 4;

/// `modeling_otter.py`. With a cache of keys each new token is read alone, so that it sees no image; without one
/// (`use_cache` false, as MPT's configurations say) it sees the last.
fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let text = fields.section("text_config")?;
    if let Some(half) = checkpoint.names().find(|name| name.contains(".lora_A.")) {
        let expected = "weights with their adapter merged: `flamant convert --model FOLDER --output OTHER`";
        return Err(Error::invalid(checkpoint.file_of(half), half, expected, "an adapter beside them"));
    }
    let (language, mut decoder) = Language::read(&text, checkpoint)?;
    let embedding = format!("lang_encoder.{}", language.embedding());
    checkpoint.tensor(&embedding)?;
    decoder.vocabulary = checkpoint.shape(&embedding).and_then(|shape| shape.first().copied()).unwrap_or(0);
    decoder.unpredicted = ADDED_TOKENS;
    let dialect = Dialect { resampler: RESAMPLER, gated: GATED, level: Some("decoder_layer") };
    let parts = read_as(&dialect, fields, checkpoint, (language, decoder))?;
    let template = Template { answer_sees_media: !text.flag("use_cache", true)?, ..parts.template };
    Ok(Parts { template, ..parts })
}

/// The resampler.
const RESAMPLER: Table = &[
    ("resampler.latents", "latents"),
    ("resampler.frames", "frame_embs"),
    ("resampler.layers.{}.norm_media", "layers.{}.norm_media.%"),
    ("resampler.layers.{}.norm_latents", "layers.{}.norm_latents.%"),
    ("resampler.layers.{}.query", "layers.{}.to_q.%"),
    ("resampler.layers.{}.key_value", "layers.{}.to_kv.%"),
    ("resampler.layers.{}.out", "layers.{}.to_out.%"),
    ("resampler.layers.{}.norm_mlp", "layers.{}.feed_forward.0.%"),
    ("resampler.layers.{}.up", "layers.{}.feed_forward.1.%"),
    ("resampler.layers.{}.down", "layers.{}.feed_forward.3.%"),
    ("resampler.norm", "norm.%"),
];

/// A gated block.
const GATED: Table = &[
    ("gated.{}.norm_attention", "attn.norm.%"),
    ("gated.{}.query", "attn.to_q.%"),
    ("gated.{}.key_value", "attn.to_kv.%"),
    ("gated.{}.out", "attn.to_out.%"),
    ("gated.{}.gate_attention", "attn_gate"),
    ("gated.{}.norm_mlp", "feed_forward.0.%"),
    ("gated.{}.up", "feed_forward.1.%"),
    ("gated.{}.down", "feed_forward.3.%"),
    ("gated.{}.gate_mlp", "ff_gate"),
];
