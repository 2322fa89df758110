//! Llama 3.2 Vision 11B and 90B, base and instruct, as every version of transformers since 4.45 saves them.
//!
//! The files number gated blocks and decoder layers in one list (`cross_attention_layers`). They keep names of tensors
//! that newer versions have in memory under others; both are read.

mod names;

use serde_json::Value;

use super::fields::Fields;
use super::{Begin, ChatTemplate, Family, MediaMask, Parts, Preprocessing, Template};
use crate::checkpoint::Checkpoint;
use crate::config::{
    DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, Residual, TilesConfig, VisionConfig,
};
use crate::error::Result;
use crate::image::{Crop, ratios};

/// Llama 3.2 Vision (`processing_mllama.py`, `image_processing_mllama.py`): an image is up to four tiles, and a token
/// sees all images of the group of neighbours before it.
pub(super) static FAMILY: Family = Family {
    model_type: "mllama",
    name: "Llama 3.2 Vision",
    template: Template {
        image: "<|image|>",
        image_tokens: &[],
        fence: None,
        begin: Begin::BehindImages("<|begin_of_text|>"),
        document_end: None,
        turn_end: None,
        turn_end_optional: false,
        turn_end_between_texts: false,
        trims: false,
        media_mask: MediaMask::PrecedingGroup,
        answer_sees_media: true,
    },
    more_tokens: &[],
    tower: None,
    preprocessing: Preprocessing { crop: Crop::Tiles { tiles_max: 4 }, class: "Mllama" },
    chats: [chat; 2],
    evaluations: ["mllama", "mllama"],
    read,
};

/// The template of the published folders, with the day that it names where it is told none.
fn chat() -> ChatTemplate {
    ChatTemplate {
        name: "mllama".into(),
        begin: "<|begin_of_text|>".into(),
        system_before: "<|start_header_id|>system<|end_header_id|>\n\n".into(),
        system_text_only: "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n".into(),
        system_after: "<|eot_id|>".into(),
        user_before: "<|start_header_id|>user<|end_header_id|>\n\n".into(),
        user_text_before: "".into(),
        user_after: "<|eot_id|>".into(),
        user_after_images: "<|eot_id|>".into(),
        answer_before: "<|start_header_id|>assistant<|end_header_id|>\n\n".into(),
        answer_text_before: "".into(),
        answer_after: "<|eot_id|>".into(),
        stop: Vec::new(),
        reserved: ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            .map(String::from)
            .to_vec(),
    }
}

/// Rows of the embedding behind the vocabulary: that of the image marker, and seven of no use. The output matrix has
/// none of them.
const ADDED_TOKENS: usize = 8;
/// Most tiles of an image.
const TILES_MAX: usize = 16;

/// `configuration_mllama.py` of transformers, whose defaults stand here: files leave out what equals them.
fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let text = fields.section("text_config")?;
    let vision = vision(&fields.section("vision_config")?)?;
    let (cross, own) = layers(&text)?;
    let width = text.count("hidden_size", Some(4096), 65_536)?;
    let heads = text.count("num_attention_heads", Some(32), 1024)?;
    text.rotates("num_attention_heads", heads, width)?;
    let kv_heads = text.count("num_key_value_heads", Some(8), 1024)?;
    text.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)?;
    let mlp_width = text.count("intermediate_size", Some(14_336), 1 << 20)?;
    let norm_epsilon = text.epsilon("rms_norm_eps", 1e-5)?;
    let mlp = Mlp::Gated(text.activation("hidden_act", Some("silu"))?);
    let vocabulary = text.count("vocab_size", Some(128_256), 1 << 24)? + ADDED_TOKENS;
    let (theta, scaling) = text.rope(500_000.0)?;
    let tied = fields.flag("tie_word_embeddings", text.flag("tie_word_embeddings", false)?)?;
    if tied {
        return Err(fields.invalid("tie_word_embeddings", "false", "true"));
    }
    let decoder = DecoderConfig {
        width,
        layers: own.len(),
        heads,
        kv_heads,
        mlp_width,
        vocabulary,
        positions_max: text.count("max_position_embeddings", Some(131_072), 1 << 20)?,
        norm: Norm::Rms,
        norm_epsilon,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: width / heads, theta, scaling },
        mlp,
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied,
        unpredicted: ADDED_TOKENS,
        norm_after: false,
        embedding_width: None,
    };
    let gated = GatedConfig {
        // Layer c of the files, the b-th block, has c - b decoder layers before it.
        layers: cross.iter().enumerate().map(|(block, layer)| layer - block).collect(),
        heads,
        kv_heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon,
        qk_norm: true,
        mlp,
        mlp_width,
        mlp_everywhere: false,
    };
    let names = names::names(checkpoint, &vision, cross, own);
    let config = ModelConfig { vision, resampler: None, projector: Some(width), gated, decoder };
    let marker = marker(fields, vocabulary)?;
    Ok(Parts { config, template: FAMILY.template, language_model: "Llama 3.1", names, marker })
}

/// The marker's id, which is that of a row of the embedding.
fn marker(fields: &Fields, vocabulary: usize) -> Result<Option<(&'static str, u32)>> {
    let keys = ["image_token_index", "image_token_id"];
    let Some((key, found)) = keys.into_iter().find_map(|key| Some((key, fields.get(key)?))) else { return Ok(None) };
    match found.as_u64().filter(|&id| id < vocabulary as u64) {
        Some(id) => Ok(Some((key, id as u32))),
        None => Err(fields.invalid(key, format!("a row of the embedding's {vocabulary}"), found)),
    }
}

/// The files' numbers of gated blocks, and of decoder layers.
fn layers(text: &Fields) -> Result<(Vec<usize>, Vec<usize>)> {
    let key = "cross_attention_layers";
    let count = text.count("num_hidden_layers", Some(40), 2048)?;
    let cross = match text.get(key) {
        None => vec![3, 8, 13, 18, 23, 28, 33, 38],
        Some(found) => text.numbers(key, found)?,
    };
    // A block stands before a decoder layer, and before each stands one at most.
    if cross.is_empty() || !cross.is_sorted_by(|a, b| a + 1 < *b) || cross.last().is_some_and(|&last| last + 1 >= count)
    {
        let expected = format!("increasing numbers, none next to another, below {}", count - 1);
        return Err(text.invalid(key, expected, text.get(key).unwrap_or(&Value::from("the default"))));
    }
    let own = (0..count).filter(|layer| !cross.contains(layer)).collect();
    Ok((cross, own))
}

/// The vision tower's section.
fn vision(fields: &Fields) -> Result<VisionConfig> {
    let width = fields.count("hidden_size", Some(1280), 65_536)?;
    let heads = ["attention_heads", "num_attention_heads"].into_iter().find(|key| fields.get(key).is_some());
    let heads_key = heads.unwrap_or("attention_heads");
    let heads = fields.count(heads_key, Some(16), 1024)?;
    fields.divides(heads_key, heads, "hidden_size", width)?;
    if fields.count("num_channels", Some(3), 64)? != 3 {
        return Err(fields.invalid("num_channels", 3, "another number"));
    }
    let image_size = fields.count("image_size", Some(448), 4096)?;
    let patch_size = fields.count("patch_size", Some(14), 4096)?;
    if !image_size.is_multiple_of(patch_size) {
        return Err(fields.invalid("patch_size", format!("a divisor of the image size {image_size}"), patch_size));
    }
    let layers = fields.count("num_hidden_layers", Some(32), 1024)?;
    let tiles = tiles(fields, layers)?;
    let config = VisionConfig {
        width,
        layers,
        heads,
        mlp_width: fields.count("intermediate_size", Some(5120), 1 << 20)?,
        image_size,
        patch_size,
        activation: fields.activation("hidden_act", Some("gelu"))?,
        norm_epsilon: fields.epsilon("norm_eps", 1e-5)?,
        attention_bias: false,
        class_token_kept: true,
        tiles: Some(tiles),
    };
    let output = fields.count("vision_output_dim", Some(7680), 1 << 24)?;
    if output != config.width_out() {
        let states = config.width_out() / width;
        return Err(fields.invalid("vision_output_dim", format!("{} ({states} states)", config.width_out()), output));
    }
    Ok(config)
}

/// Tiles, global layers, and the layers whose inputs are taken.
fn tiles(fields: &Fields, layers: usize) -> Result<TilesConfig> {
    let most = fields.count("max_num_tiles", Some(4), TILES_MAX)?;
    let canvases = match fields.get("supported_aspect_ratios") {
        None => 8,
        Some(Value::Array(list)) => list.len(),
        Some(found) => return Err(fields.invalid("supported_aspect_ratios", "an array", found)),
    };
    // What the list says is never looked at; as many rows do the tables have.
    let needed = ratios(most);
    if !(needed..=1024).contains(&canvases) {
        let expected = format!("at least {needed} for {most} tiles");
        return Err(fields.invalid("supported_aspect_ratios", expected, canvases));
    }
    let key = "intermediate_layers_indices";
    let intermediate_layers = match fields.get(key) {
        None => vec![3, 7, 15, 23, 30],
        Some(found) => fields.numbers(key, found)?,
    };
    if !intermediate_layers.is_sorted_by(|a, b| a < b) || intermediate_layers.last().is_some_and(|&last| last >= layers)
    {
        let expected = format!("increasing numbers below the {layers} layers");
        return Err(fields.invalid(key, expected, fields.get(key).unwrap_or(&Value::from("the default"))));
    }
    let global_layers = fields.count("num_global_layers", Some(8), 1024)?;
    Ok(TilesConfig { most, ratios: canvases + 1, global_layers, intermediate_layers })
}
