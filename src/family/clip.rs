//! CLIP's vision tower: how it is configured, and what its tensors are called.

use super::fields::Fields;
use super::tables::Table;
use crate::config::VisionConfig;
use crate::error::Result;

/// What a CLIP configuration calls its width, and the defaults of its class.
pub(super) struct Keys {
    width: &'static str,
    width_default: Option<usize>,
    mlp_default: Option<usize>,
    layers_default: Option<usize>,
    heads_default: Option<usize>,
    activation_default: Option<&'static str>,
}

impl Keys {
    /// `IdeficsVisionConfig`.
    pub const IDEFICS: Keys = Keys {
        width: "embed_dim",
        width_default: Some(768),
        mlp_default: Some(5120),
        layers_default: Some(32),
        heads_default: Some(16),
        activation_default: Some("gelu"),
    };
    /// `CLIPVisionConfig`.
    pub const TRANSFORMERS: Keys = Keys {
        width: "hidden_size",
        width_default: None,
        mlp_default: None,
        layers_default: None,
        heads_default: None,
        activation_default: Some("quick_gelu"),
    };
}

/// Reads the section of a vision tower.
pub(super) fn read(fields: &Fields, keys: Keys, class_token_kept: bool) -> Result<VisionConfig> {
    let width = fields.count(keys.width, keys.width_default, 65_536)?;
    let heads = fields.count("num_attention_heads", keys.heads_default, 1024)?;
    fields.divides("num_attention_heads", heads, keys.width, width)?;
    if fields.count("num_channels", Some(3), 64)? != 3 {
        return Err(fields.invalid("num_channels", 3, "another number"));
    }
    let image_size = fields.count("image_size", Some(224), 4096)?;
    let patch_size = fields.count("patch_size", Some(14), 4096)?;
    if patch_size > image_size {
        return Err(fields.invalid("patch_size", format!("at most the image size {image_size}"), patch_size));
    }
    Ok(VisionConfig {
        width,
        layers: fields.count("num_hidden_layers", keys.layers_default, 1024)?,
        heads,
        mlp_width: fields.count("intermediate_size", keys.mlp_default, 1 << 20)?,
        image_size,
        patch_size,
        activation: fields.activation("hidden_act", keys.activation_default)?,
        norm_epsilon: fields.epsilon("layer_norm_eps", 1e-5)?,
        attention_bias: true,
        class_token_kept,
        tiles: None,
    })
}

/// As transformers names them.
pub(super) const TRANSFORMERS: Table = &[
    ("vision.class", "embeddings.class_embedding"),
    ("vision.position", "embeddings.position_embedding.%"),
    ("vision.patch", "embeddings.patch_embedding.%"),
    ("vision.norm_pre", "pre_layrnorm.%"),
    ("vision.layers.{}.norm_attention", "encoder.layers.{}.layer_norm1.%"),
    (
        "vision.layers.{}.qkv",
        "encoder.layers.{}.self_attn.q_proj.%+encoder.layers.{}.self_attn.k_proj.%+encoder.layers.{}.self_attn.v_proj.%",
    ),
    ("vision.layers.{}.out", "encoder.layers.{}.self_attn.out_proj.%"),
    ("vision.layers.{}.norm_mlp", "encoder.layers.{}.layer_norm2.%"),
    ("vision.layers.{}.up", "encoder.layers.{}.mlp.fc1.%"),
    ("vision.layers.{}.down", "encoder.layers.{}.mlp.fc2.%"),
    ("vision.norm_post", "post_layernorm.%"),
    ("vision.projection", "visual_projection.%"),
];

/// 0, 1, 2, ..., which transformers saved until 4.31.
pub(super) const HARMLESS: &[&str] = &["embeddings.position_ids"];

/// As open_clip and OpenAI name them. The projection stands transposed.
pub(super) const OPEN_CLIP: Table = &[
    ("vision.class", "class_embedding"),
    ("vision.position", "positional_embedding"),
    ("vision.patch", "conv1.%"),
    ("vision.norm_pre", "ln_pre.%"),
    ("vision.layers.{}.norm_attention", "transformer.resblocks.{}.ln_1.%"),
    ("vision.layers.{}.qkv", "transformer.resblocks.{}.attn.in_proj_%"),
    ("vision.layers.{}.out", "transformer.resblocks.{}.attn.out_proj.%"),
    ("vision.layers.{}.norm_mlp", "transformer.resblocks.{}.ln_2.%"),
    ("vision.layers.{}.up", "transformer.resblocks.{}.mlp.c_fc.%"),
    ("vision.layers.{}.down", "transformer.resblocks.{}.mlp.c_proj.%"),
    ("vision.norm_post", "ln_post.%"),
    ("vision.projection", "proj"),
];
