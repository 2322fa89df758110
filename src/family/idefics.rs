//! IDEFICS 9B and 80B, base and instruct, as transformers saves them.

use super::clip::{self, Keys};
use super::fields::Fields;
use super::language::LLAMA;
use super::tables::{Section, Table, Tables};
use super::{Begin, ChatTemplate, Family, MediaMask, Parts, Preprocessing, Template};
use crate::checkpoint::Checkpoint;
use crate::config::{
    Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, ResamplerConfig, Residual, VisionConfig,
};
use crate::error::Result;
use crate::image::Crop;
use crate::weights::Names;

/// IDEFICS (`processing_idefics.py`, `image_processing_idefics.py`): images are stretched; prompts begin with `<s>`,
/// put fences around images, and forget them after an end of document. Its instruct tokenizers end turns.
pub(super) static FAMILY: Family = Family {
    model_type: "idefics",
    name: "Idefics",
    template: Template {
        image: "<image>",
        image_tokens: &[],
        fence: Some("<fake_token_around_image>"),
        begin: Begin::Text("<s>"),
        document_end: Some("</s>"),
        turn_end: Some("<end_of_utterance>"),
        turn_end_optional: true,
        turn_end_between_texts: true,
        trims: true,
        media_mask: MediaMask::PrecedingInDocument,
        answer_sees_media: true,
    },
    more_tokens: &[],
    tower: None,
    preprocessing: Preprocessing { crop: Crop::Stretch, class: "Idefics" },
    chats: [chat, chat_instruct],
    evaluations: ["idefics", "idefics-instruct"],
    read,
};

/// Base models: questions and answers, as evaluations ask them.
fn chat() -> ChatTemplate {
    ChatTemplate {
        name: "idefics".into(),
        user_text_before: "Question: ".into(),
        user_after: " Answer:".into(),
        answer_text_before: " ".into(),
        answer_after: "\n\n".into(),
        stop: ["\n\n", "Question:"].map(String::from).to_vec(),
        ..ChatTemplate::default()
    }
}

/// The model card's turns.
fn chat_instruct() -> ChatTemplate {
    ChatTemplate {
        name: "idefics-instruct".into(),
        system_after: "\n".into(),
        user_before: "User:".into(),
        user_text_before: " ".into(),
        user_after: "<end_of_utterance>\n".into(),
        user_after_images: "<end_of_utterance>\n".into(),
        answer_before: "Assistant:".into(),
        answer_text_before: " ".into(),
        answer_after: "<end_of_utterance>\n".into(),
        stop: ["\nUser:"].map(String::from).to_vec(),
        reserved: ["<end_of_utterance>"].map(String::from).to_vec(),
        ..ChatTemplate::default()
    }
}

/// IDEFICS: `configuration_idefics.py` of transformers, whose defaults stand here.
fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let vision = fields.section("vision_config")?;
    let perceiver = fields.section("perceiver_config")?;
    let width = fields.count("hidden_size", Some(4096), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(32), 1024)?;
    let mlp_width = fields.count("intermediate_size", Some(11_008), 1 << 20)?;
    let norm_epsilon = fields.epsilon("rms_norm_eps", 1e-6)?;
    let embeddings = ["model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight"];
    checkpoint.tensor(embeddings[0])?;
    let rows = |name: &str| checkpoint.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(0);
    let is_table = |name: &str| checkpoint.shape(name).is_none_or(|shape| shape.len() == 2);
    let vocabulary = embeddings.iter().map(|name| rows(name)).sum();
    let sizes = ["vocab_size", "additional_vocab_size"].into_iter().zip(embeddings);
    for (key, name) in sizes.filter(|(_, name)| is_table(name)) {
        let rows = rows(name);
        if let Some(found) = fields.get(key).filter(|found| found.as_u64() != Some(rows as u64)) {
            return Err(fields.invalid(key, format!("{rows}, as {name} has rows"), found));
        }
    }
    let mlp = Mlp::Gated(fields.activation("hidden_act", Some("silu"))?);
    let vision_config = clip::read(&vision, Keys::IDEFICS, true)?;
    let resampler = fields.flag("use_resampler", false)?.then(|| resampler(&perceiver, &vision_config)).transpose()?;
    let decoder = DecoderConfig {
        width,
        layers: fields.count("num_hidden_layers", Some(32), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width,
        vocabulary,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Rms,
        norm_epsilon,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: width / heads, theta: fields.rope_theta()?, scaling: None },
        mlp,
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", false)?,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    };
    fields.rotates("num_attention_heads", heads, width)?;
    let gated = GatedConfig {
        layers: GatedConfig::every(fields.count("cross_layer_interval", Some(1), 1024)?, 0, decoder.layers),
        heads,
        kv_heads: heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon,
        qk_norm: fields.flag("qk_layer_norms", false)?,
        mlp,
        mlp_width,
        mlp_everywhere: true,
    };
    let config = ModelConfig { vision: vision_config, resampler, projector: None, gated, decoder };
    let template = FAMILY.template;
    Ok(Parts { config, template, language_model: LLAMA.name, names: names(), marker: None })
}

/// The resampler section of an IDEFICS configuration; its MLP is 4 times as wide as the vision tower.
fn resampler(fields: &Fields, vision: &VisionConfig) -> Result<ResamplerConfig> {
    Ok(ResamplerConfig {
        depth: fields.count("resampler_depth", Some(6), 1024)?,
        latents: fields.count("resampler_n_latents", Some(64), 65_536)?,
        frame_embeddings: None,
        heads: fields.count("resampler_n_heads", Some(16), 1024)?,
        head_width: fields.count("resampler_head_dim", Some(96), 65_536)?,
        mlp_width: 4 * vision.width,
        activation: Activation::Relu,
        qk_norm: fields.flag("qk_layer_norms_perceiver", false)?,
    })
}

/// What a checkpoint calls the weights.
fn names() -> Box<dyn Names> {
    let sections = vec![
        Section::new("model.vision_model.", clip::TRANSFORMERS).harmless(clip::HARMLESS),
        Section::new("model.", NAMES).harmless(HARMLESS),
        Section::new("", VOCABULARY),
        Section::new("", LLAMA.table),
    ];
    Box::new(Tables { sections, own: &["model.", "lm_head."], layouts: Vec::new() })
}

/// Resampler, gated blocks and embedding, under `model.`.
const NAMES: Table = &[
    ("resampler.latents", "perceiver_resampler.latents"),
    ("resampler.layers.{}.norm_media", "perceiver_resampler.blocks.{}.0.context_layer_norm.%"),
    ("resampler.layers.{}.norm_latents", "perceiver_resampler.blocks.{}.0.latents_layer_norm.%"),
    ("resampler.layers.{}.query", "perceiver_resampler.blocks.{}.0.q_proj.%"),
    (
        "resampler.layers.{}.key_value",
        "perceiver_resampler.blocks.{}.0.k_proj.%+perceiver_resampler.blocks.{}.0.v_proj.%",
    ),
    ("resampler.layers.{}.query_norm", "perceiver_resampler.blocks.{}.0.q_layer_norm.%"),
    ("resampler.layers.{}.key_norm", "perceiver_resampler.blocks.{}.0.k_layer_norm.%"),
    ("resampler.layers.{}.out", "perceiver_resampler.blocks.{}.0.output_proj.%"),
    ("resampler.layers.{}.norm_mlp", "perceiver_resampler.blocks.{}.1.ln.%"),
    ("resampler.layers.{}.up", "perceiver_resampler.blocks.{}.1.fc.%"),
    ("resampler.layers.{}.down", "perceiver_resampler.blocks.{}.1.c_proj.%"),
    ("resampler.norm", "perceiver_resampler.layer_norm.%"),
    ("gated.{}.norm_attention", "gated_cross_attn_layers.{}.input_layernorm.%"),
    ("gated.{}.query", "gated_cross_attn_layers.{}.cross_attn.q_proj.%"),
    (
        "gated.{}.key_value",
        "gated_cross_attn_layers.{}.cross_attn.k_proj.%+gated_cross_attn_layers.{}.cross_attn.v_proj.%",
    ),
    ("gated.{}.query_norm", "gated_cross_attn_layers.{}.cross_attn.q_layer_norm.%"),
    ("gated.{}.key_norm", "gated_cross_attn_layers.{}.cross_attn.k_layer_norm.%"),
    ("gated.{}.out", "gated_cross_attn_layers.{}.cross_attn.o_proj.%"),
    ("gated.{}.gate_attention", "gated_cross_attn_layers.{}.alpha_cross_attn"),
    ("gated.{}.norm_mlp", "gated_cross_attn_layers.{}.post_attention_layernorm.%"),
    ("gated.{}.up", "gated_cross_attn_layers.{}.mlp.gate_proj.%+gated_cross_attn_layers.{}.mlp.up_proj.%"),
    ("gated.{}.down", "gated_cross_attn_layers.{}.mlp.down_proj.%"),
    ("gated.{}.gate_mlp", "gated_cross_attn_layers.{}.alpha_dense"),
    ("decoder.embedding", "embed_tokens.%+embed_tokens.additional_embedding.%?"),
];

/// Frequencies of rotary embeddings, which transformers saved until 4.32; those of gated blocks were never used.
const HARMLESS: &[&str] =
    &["layers.{}.self_attn.rotary_emb.inv_freq", "gated_cross_attn_layers.{}.cross_attn.rotary_emb.inv_freq"];

/// At the top level.
const VOCABULARY: Table = &[("decoder.head", "lm_head.%+lm_head.additional_fc.%?")];
