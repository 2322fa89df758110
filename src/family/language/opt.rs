//! OPT, as transformers saves it.

use super::Language;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, Mlp, Norm, Position, Residual};
use crate::error::Result;
use crate::family::fields::Fields;
use crate::family::tables::Table;

/// OPT.
pub(in crate::family) static OPT: Language = Language {
    model_type: "opt",
    name: "Opt",
    read,
    table: NAMES,
    harmless: &[],
    layers: "model.decoder.layers",
    layout: |_| Vec::new(),
    head: "lm_head.weight",
    tied: true,
    layers_key: "num_hidden_layers",
    width_key: "hidden_size",
    biased: false,
};

fn read(fields: &Fields, _: &Checkpoint) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(768), 65_536)?;
    fields.absent("_remove_final_layer_norm")?;
    let narrow = fields.count("word_embed_proj_dim", Some(width), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(12), 1024)?;
    Ok(DecoderConfig {
        width,
        layers: fields.count("num_hidden_layers", Some(12), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("ffn_dim", Some(3072), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.count("max_position_embeddings", Some(2048), 1 << 20)?,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: true,
        linear_bias: fields.flag("enable_bias", true)?,
        position: Position::Learned { offset: 2 },
        mlp: Mlp::Plain(fields.activation("activation_function", Some("relu"))?),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", true)?,
        unpredicted: 0,
        norm_after: !fields.flag("do_layer_norm_before", true)?,
        embedding_width: (narrow != width).then_some(narrow),
    })
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
    ("decoder.project_in", "model.decoder.project_in.%"),
    ("decoder.project_out", "model.decoder.project_out.%"),
    ("decoder.head", "lm_head.%"),
];
