//! LLaMA, as transformers saves it.

use super::Language;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, Mlp, Norm, Position, Residual};
use crate::error::Result;
use crate::family::fields::Fields;
use crate::family::tables::Table;

/// LLaMA (OpenFlamingo v1; IDEFICS has it under names of its own).
pub(in crate::family) static LLAMA: Language = Language {
    model_type: "llama",
    name: "Llama",
    read,
    table: NAMES,
    harmless: HARMLESS,
    layers: "model.layers",
    layout: |_| Vec::new(),
    head: "lm_head.weight",
    tied: false,
    layers_key: "num_hidden_layers",
    width_key: "hidden_size",
    biased: false,
};

fn read(fields: &Fields, _: &Checkpoint) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(4096), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(32), 1024)?;
    fields.rotates("num_attention_heads", heads, width)?;
    if fields.count("num_key_value_heads", Some(heads), 1024)? != heads {
        return Err(fields.invalid("num_key_value_heads", heads, "fewer (grouped queries)"));
    }
    if fields.flag("attention_bias", false)? || fields.flag("mlp_bias", false)? {
        return Err(fields.invalid("attention_bias", "false", "true"));
    }
    Ok(DecoderConfig {
        width,
        layers: fields.count("num_hidden_layers", Some(32), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("intermediate_size", Some(11_008), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Rms,
        norm_epsilon: fields.epsilon("rms_norm_eps", 1e-6)?,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: width / heads, theta: fields.rope_theta()?, scaling: None },
        mlp: Mlp::Gated(fields.activation("hidden_act", Some("silu"))?),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", false)?,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    })
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
