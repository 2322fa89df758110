//! IDEFICS 9B and 80B, base and instruct, as transformers saves them.

use super::clip;
use super::tables::{Section, Table, Tables};
use crate::weights::Names;

/// What a checkpoint calls the weights.
pub(super) fn names() -> Box<dyn Names> {
    let sections = vec![
        Section::new("model.vision_model.", clip::TRANSFORMERS).harmless(clip::HARMLESS),
        Section::new("model.", NAMES).harmless(HARMLESS),
        Section::new("", VOCABULARY),
    ];
    Box::new(Tables { sections, own: &["model.", "lm_head."], layouts: Vec::new() })
}

/// Resampler, gated blocks and decoder, under `model.`.
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
    ("decoder.layers.{}.norm_attention", "layers.{}.input_layernorm.%"),
    ("decoder.layers.{}.qkv", "layers.{}.self_attn.q_proj.%+layers.{}.self_attn.k_proj.%+layers.{}.self_attn.v_proj.%"),
    ("decoder.layers.{}.out", "layers.{}.self_attn.o_proj.%"),
    ("decoder.layers.{}.norm_mlp", "layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "layers.{}.mlp.gate_proj.%+layers.{}.mlp.up_proj.%"),
    ("decoder.layers.{}.down", "layers.{}.mlp.down_proj.%"),
    ("decoder.norm", "norm.%"),
];

/// Frequencies of rotary embeddings, which transformers saved until 4.32; those of gated blocks were never used.
const HARMLESS: &[&str] =
    &["layers.{}.self_attn.rotary_emb.inv_freq", "gated_cross_attn_layers.{}.cross_attn.rotary_emb.inv_freq"];

/// At the top level.
const VOCABULARY: Table = &[("decoder.head", "lm_head.%+lm_head.additional_fc.%?")];
