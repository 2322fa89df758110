//! GPT-2, as transformers saves it: matrices stand (in, out).

use super::Language;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, Mlp, Norm, Position, Residual};
use crate::error::Result;
use crate::family::fields::Fields;
use crate::family::tables::Table;
use crate::weights::Layout;

/// GPT-2.
pub(in crate::family) static GPT2: Language = Language {
    model_type: "gpt2",
    name: "Gpt2",
    read,
    table: NAMES,
    harmless: HARMLESS,
    layers: "transformer.h",
    layout: |_| {
        let matrices =
            ["decoder.layers.{}.qkv", "decoder.layers.{}.out", "decoder.layers.{}.up", "decoder.layers.{}.down"];
        matrices.map(|name| (name, Layout::Transposed)).into()
    },
    head: "lm_head.weight",
    tied: true,
    layers_key: "n_layer",
    width_key: "n_embd",
    biased: true,
};

fn read(fields: &Fields, _: &Checkpoint) -> Result<DecoderConfig> {
    let width = fields.count("n_embd", Some(768), 65_536)?;
    let heads = fields.count("n_head", Some(12), 1024)?;
    fields.divides("n_head", heads, "n_embd", width)?;
    if !fields.flag("scale_attn_weights", true)? {
        return Err(fields.invalid("scale_attn_weights", "true", "false"));
    }
    fields.absent("scale_attn_by_inverse_layer_idx")?;
    Ok(DecoderConfig {
        width,
        layers: fields.count("n_layer", Some(12), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("n_inner", Some(4 * width), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.count("n_positions", Some(1024), 1 << 20)?,
        norm: Norm::Layer,
        norm_epsilon: fields.epsilon("layer_norm_epsilon", 1e-5)?,
        norm_bias: true,
        linear_bias: true,
        position: Position::Learned { offset: 0 },
        mlp: Mlp::Plain(fields.activation("activation_function", Some("gelu_new"))?),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", true)?,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    })
}

const NAMES: Table = &[
    ("decoder.embedding", "transformer.wte.%"),
    ("decoder.positions", "transformer.wpe.%"),
    ("decoder.layers.{}.norm_attention", "transformer.h.{}.ln_1.%"),
    ("decoder.layers.{}.qkv", "transformer.h.{}.attn.c_attn.%"),
    ("decoder.layers.{}.out", "transformer.h.{}.attn.c_proj.%"),
    ("decoder.layers.{}.norm_mlp", "transformer.h.{}.ln_2.%"),
    ("decoder.layers.{}.up", "transformer.h.{}.mlp.c_fc.%"),
    ("decoder.layers.{}.down", "transformer.h.{}.mlp.c_proj.%"),
    ("decoder.norm", "transformer.ln_f.%"),
    ("decoder.head", "lm_head.%"),
];

/// Causal masks, which transformers saved until 4.32.
const HARMLESS: &[&str] = &["transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias"];
