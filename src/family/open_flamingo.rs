//! OpenFlamingo 3B, 4B and 9B, as `flamant convert` writes them: CLIP, the resampler, the gated blocks and one of
//! several language models.

use super::clip::{self, Keys};
use super::fields::Fields;
use super::language::Language;
use super::tables::{Section, Table, Tables};
use super::{Begin, ChatTemplate, Family, MediaMask, Parts, Preprocessing, Template};
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, ResamplerConfig};
use crate::error::{Error, Result};
use crate::image::Crop;
use crate::weights::{Layout, Names};

/// Width of one head in the resampler and the gated blocks, whatever the model's width (`helpers.py`).
pub(crate) const HEAD_WIDTH: usize = 64;

/// Ends an example, and with it an answer.
pub(crate) const END_OF_CHUNK: &str = "<|endofchunk|>";

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
        image_tokens: &[],
        fence: None,
        begin: Begin::Tokenizer,
        document_end: None,
        turn_end: Some(END_OF_CHUNK),
        turn_end_optional: false,
        turn_end_between_texts: false,
        trims: false,
        media_mask: MediaMask::Preceding,
        answer_sees_media: true,
    },
    more_tokens: &[],
    tower: None,
    preprocessing: Preprocessing { crop: Crop::ShortestEdgeCentreCrop, class: "CLIP" },
    chats: [chat; 2],
    evaluations: ["openflamingo", "openflamingo"],
    read,
};

/// Questions and captions, as evaluations ask for them.
fn chat() -> ChatTemplate {
    ChatTemplate {
        name: "openflamingo".into(),
        user_text_before: "Question:".into(),
        user_after: " Short answer:".into(),
        user_after_images: "Output:".into(),
        answer_after: END_OF_CHUNK.into(),
        reserved: [END_OF_CHUNK].map(String::from).to_vec(),
        ..ChatTemplate::default()
    }
}

/// What those who trained models of this architecture call its parts.
pub(super) struct Dialect {
    /// The resampler, under `perceiver.`.
    pub resampler: Table,
    /// A gated block, under `gated_cross_attn_layer.` of the layer that it stands before.
    pub gated: Table,
    /// What stands between the number of a layer and the names of the language model's own tensors in it.
    pub level: Option<&'static str>,
}

/// OpenFlamingo, as `flamant convert` writes it: the language model's own configuration stands under `text_config`.
fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let dialect = Dialect { resampler: RESAMPLER, gated: GATED, level: None };
    let (language, mut decoder) = Language::read(&fields.section("text_config")?, checkpoint)?;
    decoder.vocabulary = fields.count("vocab_size", None, 1 << 24)?;
    decoder.unpredicted = ADDED_TOKENS;
    read_as(&dialect, fields, checkpoint, (language, decoder))
}

/// The trained parts around a language model, from the shapes of their tensors.
pub(super) fn read_as(
    dialect: &Dialect,
    fields: &Fields,
    checkpoint: &Checkpoint,
    (language, decoder): (&'static Language, DecoderConfig),
) -> Result<Parts> {
    let vision = clip::read(&fields.section("vision_config")?, Keys::TRANSFORMERS, false)?;
    let interval = fields.count("cross_attn_every_n_layers", None, 1024)?;
    let first = interval - 1;
    if first >= decoder.layers {
        let most = format!("at most the {} layers of the language model", decoder.layers);
        return Err(fields.invalid("cross_attn_every_n_layers", most, interval));
    }
    let block = format!("lang_encoder.{}.{first}.gated_cross_attn_layer.", language.layers);
    let in_block = |ours: &str| format!("{block}{}", weight(dialect.gated, ours, 0));
    let in_resampler = |ours: &str, layer: usize| format!("perceiver.{}", weight(dialect.resampler, ours, layer));
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
    let depth =
        (0..).take_while(|&layer| checkpoint.contains(&in_resampler("resampler.layers.{}.query", layer))).count();
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
        heads: heads_of(&in_resampler("resampler.layers.{}.query", 0))?,
        head_width: HEAD_WIDTH,
        mlp_width: rows(&in_resampler("resampler.layers.{}.up", 0))?,
        activation: Activation::Gelu,
        qk_norm: false,
    };
    let heads = heads_of(&in_block("gated.{}.query"))?;
    let gated = GatedConfig {
        layers: GatedConfig::every(interval, first, decoder.layers),
        heads,
        kv_heads: heads,
        head_width: HEAD_WIDTH,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::Gelu),
        mlp_width: rows(&in_block("gated.{}.up"))?,
        mlp_everywhere: true,
    };
    let config = ModelConfig { vision, resampler: Some(resampler), projector: None, gated, decoder };
    let names = names(dialect, language, &config, checkpoint);
    Ok(Parts { config, template: FAMILY.template, language_model: language.name, names, marker: None })
}

/// The tensor that a table has for a weight of layer `number`.
fn weight(table: Table, ours: &str, number: usize) -> String {
    let (_, theirs) = table.iter().find(|(name, _)| *name == ours).expect("a dialect names all parts");
    theirs.replace("{}", &number.to_string()).replace('%', "weight")
}

/// What a checkpoint calls the weights.
fn names(dialect: &Dialect, language: &Language, config: &ModelConfig, checkpoint: &Checkpoint) -> Box<dyn Names> {
    // open_clip multiplies by its projection from the right.
    let open_clip = checkpoint.contains("vision_encoder.conv1.weight");
    let vision = if open_clip { clip::OPEN_CLIP } else { clip::TRANSFORMERS };
    let block = format!("lang_encoder.{}.{{}}.gated_cross_attn_layer.", language.layers);
    // transformers puts a model in its class.
    let inner = checkpoint.contains("vision_encoder.vision_model.embeddings.class_embedding");
    let tower = if inner { "vision_encoder.vision_model." } else { "vision_encoder." };
    let mut decoder = Section::new("lang_encoder.", language.table).harmless(language.harmless);
    if let Some(level) = dialect.level {
        decoder = decoder.wrapped(language.layers, level, (0..config.decoder.layers).collect());
    }
    let sections = vec![
        Section::new(tower, vision).harmless(clip::HARMLESS),
        Section::new("perceiver.", dialect.resampler),
        // A block is named after the layer it stands before.
        Section::new(block, dialect.gated).numbered(config.gated.layers.clone()),
        decoder,
    ];
    let projection = open_clip.then_some(("vision.projection", Layout::Transposed));
    let layouts = (language.layout)(&config.decoder).into_iter().chain(projection).collect();
    Box::new(Tables { sections, own: &["vision_encoder.", "perceiver.", "lang_encoder."], layouts })
}

/// The resampler.
pub(super) const RESAMPLER: Table = &[
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
pub(super) const GATED: Table = &[
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
