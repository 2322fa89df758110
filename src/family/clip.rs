//! CLIP's vision tower: what its tensors are called.

use super::tables::Table;

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
