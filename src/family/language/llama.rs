//! LLaMA, as transformers saves it.

use super::Language;
use crate::family::tables::Table;

/// Its names.
pub(super) fn names() -> Language {
    Language { table: NAMES, harmless: HARMLESS, layers: "model.layers", layout: None }
}

const NAMES: Table = &[
    ("decoder.embedding", "model.embed_tokens.%"),
    ("decoder.layers.{}.norm_attention", "model.layers.{}.input_layernorm.%"),
    (
        "decoder.layers.{}.qkv",
        "model.layers.{}.self_attn.q_proj.%+model.layers.{}.self_attn.k_proj.%+model.layers.{}.self_attn.v_proj.%",
    ),
    ("decoder.layers.{}.out", "model.layers.{}.self_attn.o_proj.%"),
    ("decoder.layers.{}.norm_mlp", "model.layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "model.layers.{}.mlp.gate_proj.%+model.layers.{}.mlp.up_proj.%"),
    ("decoder.layers.{}.down", "model.layers.{}.mlp.down_proj.%"),
    ("decoder.norm", "model.norm.%"),
    ("decoder.head", "lm_head.%"),
];

/// Rotary embeddings: frequencies, which transformers saved until 4.32, and what older code kept of them.
const HARMLESS: &[&str] = &[
    "model.layers.{}.self_attn.rotary_emb.inv_freq",
    "model.layers.{}.self_attn.rotary_emb.cos_cached",
    "model.layers.{}.self_attn.rotary_emb.sin_cached",
];
