//! GPT-NeoX (RedPajama-INCITE, Pythia), as transformers saves it.

use super::Language;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, Mlp, Norm, Position, Residual};
use crate::error::Result;
use crate::family::fields::Fields;
use crate::family::tables::Table;
use crate::weights::Layout;

/// GPT-NeoX. Queries, keys and values stand head by head.
pub(super) static GPT_NEOX: Language = Language {
    model_type: "gpt_neox",
    name: "GptNeoX",
    read,
    table: NAMES,
    harmless: HARMLESS,
    layers: "gpt_neox.layers",
    layout: |config| vec![("decoder.layers.{}.qkv", Layout::Interleaved(config.heads))],
    head: "embed_out.weight",
    tied: false,
    layers_key: "num_hidden_layers",
    width_key: "hidden_size",
    biased: true,
};

fn read(fields: &Fields, _: &Checkpoint) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(6144), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(64), 1024)?;
    fields.divides("num_attention_heads", heads, "hidden_size", width)?;
    let rope = fields.section("rope_parameters")?;
    let share = match rope.optional_number("partial_rotary_factor", 0.0..=1.0)? {
        Some(share) => share,
        None => fields.number("rotary_pct", Some(0.25), 0.0..=1.0)?,
    };
    let theta = match fields.optional_number("rotary_emb_base", 1.0..=1e9)? {
        Some(theta) => theta,
        None => fields.rope_theta()?,
    };
    // The rotated width is the share of a head, rounded down (`modeling_gpt_neox.py`).
    let rotated = ((width / heads) as f32 * share) as usize;
    if !rotated.is_multiple_of(2) {
        return Err(fields.invalid("rotary_pct", "an even number of rotated entries of a head", rotated));
    }
    Ok(DecoderConfig {
        width,
        layers: fields.count("num_hidden_layers", Some(44), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("intermediate_size", Some(24_576), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Layer,
        norm_epsilon: fields.epsilon("layer_norm_eps", 1e-5)?,
        norm_bias: true,
        linear_bias: fields.flag("attention_bias", true)?,
        position: Position::Rope { width: rotated, theta, scaling: None },
        mlp: Mlp::Plain(fields.activation("hidden_act", Some("gelu"))?),
        residual: if fields.flag("use_parallel_residual", true)? { Residual::Parallel } else { Residual::Sequential },
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
