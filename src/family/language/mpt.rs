//! MPT: 7B as transformers saves it, 1B as its first code did (`mosaic_gpt`).

use super::Language;
use crate::family::tables::Table;

/// Names of MPT-7B.
pub(super) fn names() -> Language {
    Language { table: NAMES, harmless: HARMLESS, layers: "transformer.blocks", layout: None }
}

/// Names of MPT-1B.
pub(super) fn mosaic_names() -> Language {
    Language { table: MOSAIC_NAMES, harmless: HARMLESS, layers: "transformer.blocks", layout: None }
}

const NAMES: Table = &[
    ("decoder.embedding", "transformer.wte.%"),
    ("decoder.layers.{}.norm_attention", "transformer.blocks.{}.norm_1.%"),
    ("decoder.layers.{}.qkv", "transformer.blocks.{}.attn.Wqkv.%"),
    ("decoder.layers.{}.query_norm", "transformer.blocks.{}.attn.q_ln.%"),
    ("decoder.layers.{}.key_norm", "transformer.blocks.{}.attn.k_ln.%"),
    ("decoder.layers.{}.out", "transformer.blocks.{}.attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "transformer.blocks.{}.norm_2.%"),
    ("decoder.layers.{}.up", "transformer.blocks.{}.ffn.up_proj.%"),
    ("decoder.layers.{}.down", "transformer.blocks.{}.ffn.down_proj.%"),
    ("decoder.norm", "transformer.norm_f.%"),
    ("decoder.head", "lm_head.%"),
];

const MOSAIC_NAMES: Table = &[
    ("decoder.embedding", "transformer.wte.%"),
    ("decoder.layers.{}.norm_attention", "transformer.blocks.{}.ln_1.%"),
    ("decoder.layers.{}.qkv", "transformer.blocks.{}.attn.Wqkv.%"),
    ("decoder.layers.{}.query_norm", "transformer.blocks.{}.attn.q_ln.%"),
    ("decoder.layers.{}.key_norm", "transformer.blocks.{}.attn.k_ln.%"),
    ("decoder.layers.{}.out", "transformer.blocks.{}.attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "transformer.blocks.{}.ln_2.%"),
    ("decoder.layers.{}.up", "transformer.blocks.{}.mlp.mlp_up.%"),
    ("decoder.layers.{}.down", "transformer.blocks.{}.mlp.mlp_down.%"),
    ("decoder.norm", "transformer.ln_f.%"),
    ("decoder.head", "lm_head.%"),
];

/// The bias of attention by distance, as tables.
const HARMLESS: &[&str] = &["transformer.attn_bias", "transformer.alibi"];
