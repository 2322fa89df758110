//! MPT: 7B as transformers saves it, 1B as its first code did (`mosaic_gpt`).

use super::Language;
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, DecoderConfig, Mlp, Norm, Position, Residual};
use crate::error::Result;
use crate::family::fields::Fields;
use crate::family::tables::Table;

/// MPT-7B (`modeling_mpt.py` of transformers): always ALiBi, exact GELU, tied.
pub(super) static MPT: Language = Language {
    model_type: "mpt",
    name: "Mpt",
    read,
    table: NAMES,
    harmless: HARMLESS,
    layers: "transformer.blocks",
    layout: |_| Vec::new(),
    head: "lm_head.weight",
    tied: true,
    layers_key: "n_layers",
    width_key: "d_model",
    biased: false,
};

/// MPT-1B under its first name (2.7.1 of the authors' remote code): q/k norms over the full width.
pub(super) static MOSAIC_GPT: Language =
    Language { model_type: "mosaic_gpt", name: "MosaicGpt", read: read_mosaic, table: MOSAIC_NAMES, ..MPT };

fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<DecoderConfig> {
    let attention = fields.section("attn_config")?;
    if !attention.flag("alibi", true)? {
        return Err(attention.invalid("alibi", "true", "false"));
    }
    fields.absent("logit_scale")?;
    let width = fields.count("d_model", Some(2048), 65_536)?;
    let heads = fields.count("n_heads", Some(16), 1024)?;
    Ok(DecoderConfig {
        width,
        layers: fields.count("n_layers", Some(24), 1024)?,
        heads,
        kv_heads: heads,
        // transformers builds the MLP 4 times as wide whatever `expansion_ratio` says; the tensor tells.
        mlp_width: match of_first(checkpoint, "ffn.up_proj.weight").and_then(|name| checkpoint.shape(&name)) {
            Some([rows, ..]) => *rows,
            _ => width * fields.count("expansion_ratio", Some(4), 64)?,
        },
        vocabulary: 0,
        positions_max: fields.positions("max_seq_len")?,
        norm: Norm::Layer,
        norm_epsilon: fields.epsilon("layer_norm_epsilon", 1e-5)?,
        norm_bias: checkpoint.contains("lang_encoder.transformer.norm_f.bias"),
        linear_bias: of_first(checkpoint, "attn.Wqkv.bias").is_some(),
        position: Position::Alibi {
            bias_max: attention.number("alibi_bias_max", Some(8.0), 1.0..=64.0)?,
            interleaved: true,
        },
        mlp: Mlp::Plain(Activation::Gelu),
        residual: Residual::Sequential,
        qk_norm: attention.flag("qk_ln", false)? && of_first(checkpoint, "attn.q_ln.weight").is_some(),
        qkv_clip: attention.optional_number("clip_qkv", 0.0..=1e6)?,
        softmax_scale: attention.optional_number("softmax_scale", 1e-6..=1e3)?,
        tied: true,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    })
}

/// A tensor of the first layer, which families that keep the wrapped model have a level deeper.
fn of_first(checkpoint: &Checkpoint, rest: &str) -> Option<String> {
    let names = ["", "decoder_layer."].map(|level| format!("lang_encoder.transformer.blocks.0.{level}{rest}"));
    names.into_iter().find(|name| checkpoint.contains(name))
}

fn read_mosaic(fields: &Fields, _: &Checkpoint) -> Result<DecoderConfig> {
    if !fields.flag("alibi", false)? {
        return Err(fields.invalid("alibi", "true", "false"));
    }
    fields.absent("logit_scale")?;
    let width = fields.count("d_model", Some(2048), 65_536)?;
    let bias = !fields.flag("no_bias", false)?;
    let heads = fields.count("n_heads", Some(16), 1024)?;
    Ok(DecoderConfig {
        width,
        layers: fields.count("n_layers", Some(24), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: width * fields.count("mlp_ratio", Some(4), 64)?,
        vocabulary: 0,
        positions_max: fields.positions("max_seq_len")?,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: bias,
        linear_bias: bias,
        position: Position::Alibi {
            bias_max: fields.number("alibi_bias_max", Some(8.0), 1.0..=64.0)?,
            interleaved: false,
        },
        mlp: Mlp::Plain(Activation::Gelu),
        residual: Residual::Sequential,
        qk_norm: fields.flag("attn_qk_ln", false)?,
        qkv_clip: fields.optional_number("attn_clip_qkv", 0.0..=1e6)?,
        softmax_scale: fields.optional_number("softmax_scale", 1e-6..=1e3)?,
        tied: true,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    })
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
