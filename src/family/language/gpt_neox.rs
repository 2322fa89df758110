//! GPT-NeoX (RedPajama-INCITE, Pythia), as transformers saves it.

use super::Language;
use crate::family::tables::Table;
use crate::weights::Layout;

/// Its names. Queries, keys and values stand head by head.
pub(super) fn names(heads: usize) -> Language {
    let layout = Some(("decoder.layers.{}.qkv", Layout::Interleaved(heads)));
    Language { table: NAMES, harmless: HARMLESS, layers: "gpt_neox.layers", layout }
}

const NAMES: Table = &[
    ("decoder.embedding", "gpt_neox.embed_in.%"),
    ("decoder.layers.{}.norm_attention", "gpt_neox.layers.{}.input_layernorm.%"),
    ("decoder.layers.{}.qkv", "gpt_neox.layers.{}.attention.query_key_value.%"),
    ("decoder.layers.{}.out", "gpt_neox.layers.{}.attention.dense.%"),
    ("decoder.layers.{}.norm_mlp", "gpt_neox.layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "gpt_neox.layers.{}.mlp.dense_h_to_4h.%"),
    ("decoder.layers.{}.down", "gpt_neox.layers.{}.mlp.dense_4h_to_h.%"),
    ("decoder.norm", "gpt_neox.final_layer_norm.%"),
    ("decoder.head", "embed_out.%"),
];

/// Causal masks and rotary frequencies, which transformers saved until 4.32.
const HARMLESS: &[&str] = &[
    "gpt_neox.layers.{}.attention.bias",
    "gpt_neox.layers.{}.attention.masked_bias",
    "gpt_neox.layers.{}.attention.rotary_emb.inv_freq",
];
