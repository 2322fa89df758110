//! OPT, as transformers saves it.

use super::Language;
use crate::family::tables::Table;

/// Its names.
pub(super) fn names() -> Language {
    Language { table: NAMES, harmless: &[], layers: "model.decoder.layers", layout: None }
}

const NAMES: Table = &[
    ("decoder.embedding", "model.decoder.embed_tokens.%"),
    ("decoder.positions", "model.decoder.embed_positions.%"),
    ("decoder.layers.{}.norm_attention", "model.decoder.layers.{}.self_attn_layer_norm.%"),
    (
        "decoder.layers.{}.qkv",
        "model.decoder.layers.{}.self_attn.q_proj.%+model.decoder.layers.{}.self_attn.k_proj.%+model.decoder.layers.{}.self_attn.v_proj.%",
    ),
    ("decoder.layers.{}.out", "model.decoder.layers.{}.self_attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "model.decoder.layers.{}.final_layer_norm.%"),
    ("decoder.layers.{}.up", "model.decoder.layers.{}.fc1.%"),
    ("decoder.layers.{}.down", "model.decoder.layers.{}.fc2.%"),
    ("decoder.norm", "model.decoder.final_layer_norm.%"),
    ("decoder.head", "lm_head.%"),
];
