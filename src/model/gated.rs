//! The gated cross-attention block (paper 2.2, figure 4) that stands before some layers of the frozen language model:
//! text attends to the one image that precedes it, then a dense part; both enter through a tanh gate. The dense part
//! works on every token, also on those that see no image, unless the family was trained otherwise.

use super::{Linear, Normalise, Perceptron};
use crate::config::GatedConfig;
use crate::error::Result;
use crate::graph::{Epilogue, Graph, KvLayer, KvSource, KvSpace, Mask, Norm, Tensor};
use crate::weights::Weights;

/// Where the keys and values of a block are.
fn layer(config: &GatedConfig, block: usize) -> KvLayer {
    KvLayer { space: KvSpace::Media, layer: block, kv_heads: config.kv_heads, head_width: config.head_width }
}

/// Keys and values of images for one block, from their latents: computed once, kept in media pages. Keys are stored
/// normed where the family norms them, since nothing else ever depends on the text.
pub(super) fn keys_and_values(
    graph: &mut Graph,
    config: &GatedConfig,
    weights: &mut Weights,
    block: usize,
    media: Tensor,
) -> Result<()> {
    let layer = layer(config, block);
    let name = format!("gated.{block}");
    let key_value = Linear::find(weights, &format!("{name}.key_value"), &[layer.width(); 2], media.width, false)?;
    let [key, value] = key_value.apply(graph, media, Epilogue::default()).split();
    if config.qk_norm {
        head_norm(config).apply_groups(graph, weights, &format!("{name}.key_norm"), key, config.head_width)?;
    }
    graph.append(key, value, layer);
    Ok(())
}

/// x + tanh(gate) attention(x, media), then x + tanh(gate) mlp(x).
pub(super) fn apply(
    graph: &mut Graph,
    config: &GatedConfig,
    weights: &mut Weights,
    block: usize,
    x: Tensor,
) -> Result<Tensor> {
    let width = x.width;
    let inner = config.heads * config.head_width;
    let scale = 1.0 / (config.head_width as f32).sqrt();
    let name = format!("gated.{block}");
    let norm = Normalise { kind: config.norm, epsilon: config.norm_epsilon, bias: config.norm == Norm::Layer };

    let y = norm.apply(graph, weights, &format!("{name}.norm_attention"), x)?;
    let query = Linear::find(weights, &format!("{name}.query"), &[inner], width, false)?;
    let query = query.apply(graph, y, Epilogue::default());
    if config.qk_norm {
        head_norm(config).apply_groups(graph, weights, &format!("{name}.query_norm"), query, config.head_width)?;
    }
    let source = KvSource::Pages(layer(config, block), Mask::Media);
    let y = graph.attention(query, source, config.heads, scale);
    let out = Linear::find(weights, &format!("{name}.out"), &[width], inner, false)?;
    let gate = weights.gate(&format!("{name}.gate_attention"), width)?;
    // Attention to no image is zero; where the perceptron leaves such tokens alone, the whole block does.
    let seeing_only = !config.mlp_everywhere;
    let added = |gate, x| Epilogue { gate: Some(gate), residual: Some(x), seeing_only, ..Epilogue::default() };
    let x = out.apply(graph, y, added(gate, x));

    let y = norm.apply(graph, weights, &format!("{name}.norm_mlp"), x)?;
    let gate = weights.gate(&format!("{name}.gate_mlp"), width)?;
    let perceptron = Perceptron { prefix: &name, mlp: config.mlp, hidden: config.mlp_width, bias: false };
    perceptron.apply(graph, weights, y, added(gate, x))
}

/// IDEFICS norms queries and keys head by head, without a bias.
fn head_norm(config: &GatedConfig) -> Normalise {
    Normalise { kind: Norm::Rms, epsilon: config.norm_epsilon, bias: false }
}
