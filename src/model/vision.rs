//! The vision tower: CLIP's pre-norm transformer over patches (Radford et al. 2021), up to its last block. The tokens
//! leave before the final norm, as every Flamingo was trained; OpenFlamingo drops the class token, IDEFICS keeps it.
//! What CLIP itself compares images by is the class token after that norm, projected.

use super::{Linear, Normalise, Perceptron, added_to};
use crate::config::{Mlp, VisionConfig};
use crate::error::Result;
use crate::graph::{Epilogue, Graph, KvSource, Plan, Tensor};
use crate::weights::Weights;

/// Pixels of frames to the tokens (frames * tokens, width) that a Flamingo reads.
pub(super) fn encode(
    graph: &mut Graph,
    config: &VisionConfig,
    levels: &[f32],
    weights: &mut Weights,
) -> Result<Tensor> {
    let x = tower(graph, config, levels, weights)?;
    Ok(if config.class_token_kept { x } else { x.rows_from(1) })
}

/// The plan from pixels of frames to what CLIP compares images by (frames, width): the class token after the last
/// norm, projected where the checkpoint has the projection. None if it has no such norm.
pub(super) fn features(config: &VisionConfig, levels: &[f32], weights: &mut Weights) -> Result<Option<Plan>> {
    let [normed, projected] = ["vision.norm_post", "vision.projection"].map(|name| weights.has(name));
    if !normed {
        return Ok(None);
    }
    let mut graph = Graph::new();
    let class = tower(&mut graph, config, levels, weights)?.first_rows(1);
    let norm = Normalise::layer(config.norm_epsilon);
    let mut features = norm.apply(&mut graph, weights, "vision.norm_post", class)?;
    if projected {
        let weight = weights.table("vision.projection", 1..=usize::MAX, config.width)?;
        let projection = Linear { weight, bias: None };
        features = projection.apply(&mut graph, features, Epilogue::default());
    }
    Ok(Some(graph.plan(&[], Some(features))))
}

/// All tokens of the last block, the class token first.
fn tower(graph: &mut Graph, config: &VisionConfig, levels: &[f32], weights: &mut Weights) -> Result<Tensor> {
    let patches = patches(graph, config, levels, weights)?;
    let class = weights.vector("vision.class", config.width)?;
    let position = weights.matrix("vision.position", config.tokens(), config.width)?;
    let x = graph.class_and_position(patches, class, position);
    let mut x = Normalise::layer(config.norm_epsilon).apply(graph, weights, "vision.norm_pre", x)?;
    for layer in 0..config.layers {
        let own_image = |key, value| KvSource::Dense(vec![(key, value)]);
        x = block(graph, config, weights, &format!("vision.layers.{layer}"), x, own_image, false)?;
    }
    Ok(x)
}

/// The embedding of each patch of each frame.
pub(super) fn patches(
    graph: &mut Graph,
    config: &VisionConfig,
    levels: &[f32],
    weights: &mut Weights,
) -> Result<Tensor> {
    let patches = graph.patches(levels.to_vec(), config.image_size, config.patch_size);
    let embedding = Linear::find(weights, "vision.patch", &[config.width], patches.width, false)?;
    Ok(embedding.apply(graph, patches, Epilogue::default()))
}

/// One layer, pre-norm: x + attention(x), then x + mlp(x), each behind a tanh gate if it is `gated`. `source` makes of
/// keys and values what queries attend to.
pub(super) fn block(
    graph: &mut Graph,
    config: &VisionConfig,
    weights: &mut Weights,
    name: &str,
    x: Tensor,
    source: impl FnOnce(Tensor, Tensor) -> KvSource,
    gated: bool,
) -> Result<Tensor> {
    let VisionConfig { width, heads, attention_bias, .. } = *config;
    let norm = Normalise::layer(config.norm_epsilon);
    let added = |weights: &mut Weights, gate: &str, x: Tensor| -> Result<Epilogue> {
        let gate = gated.then(|| weights.gate(&format!("{name}.{gate}"), width)).transpose()?;
        Ok(Epilogue { gate, ..added_to(x) })
    };
    let y = norm.apply(graph, weights, &format!("{name}.norm_attention"), x)?;
    let qkv = Linear::find(weights, &format!("{name}.qkv"), &[width; 3], width, attention_bias)?;
    let [query, key, value] = qkv.apply(graph, y, Epilogue::default()).split();
    let scale = 1.0 / ((width / heads) as f32).sqrt();
    let y = graph.attention(query, source(key, value), heads, scale);
    let out = Linear::find(weights, &format!("{name}.out"), &[width], width, attention_bias)?;
    let x = out.apply(graph, y, added(weights, "gate_attention", x)?);
    let y = norm.apply(graph, weights, &format!("{name}.norm_mlp"), x)?;
    let mlp = Mlp::Plain(config.activation);
    let added = added(weights, "gate_mlp", x)?;
    Perceptron { prefix: name, mlp, hidden: config.mlp_width, bias: true }.apply(graph, weights, y, added)
}
