//! The vision tower: CLIP's pre-norm transformer over patches (Radford et al. 2021), up to its last block. The tokens
//! leave before the final norm, as every Flamingo was trained; OpenFlamingo drops the class token, IDEFICS keeps it.

use super::{Linear, Normalise, Perceptron, added_to};
use crate::config::{Mlp, VisionConfig};
use crate::error::Result;
use crate::graph::{Epilogue, Graph, Keys, Tensor};
use crate::weights::Weights;

/// Pixels (images, 3 * side * side) to tokens (images * tokens, width).
pub(super) fn encode(
    graph: &mut Graph,
    config: &VisionConfig,
    weights: &mut Weights,
    pixels: Tensor,
) -> Result<Tensor> {
    let VisionConfig { width, heads, .. } = *config;
    let head_width = width / heads;
    let norm = Normalise::layer(config.norm_epsilon);

    let patches = graph.patches(pixels, config.image_size, config.patch_size);
    let embedding = Linear::find(weights, "vision.patch", width, patches.width, false)?;
    let patches = embedding.apply(graph, patches, Epilogue::default());
    let class = weights.vector("vision.class", width)?;
    let position = weights.matrix("vision.position", config.tokens(), width)?;
    let x = graph.class_and_position(patches, class, position);
    let mut x = norm.apply(graph, weights, "vision.norm_pre", x)?;

    for layer in 0..config.layers {
        let name = format!("vision.layers.{layer}");
        let y = norm.apply(graph, weights, &format!("{name}.norm_attention"), x)?;
        let qkv = Linear::find(weights, &format!("{name}.qkv"), 3 * width, width, true)?;
        let [query, key, value] = qkv.apply(graph, y, Epilogue::default()).split();
        let scale = 1.0 / (head_width as f32).sqrt();
        let y = graph.attention(query, Keys::Picture(vec![(key, value)]), head_width, scale);
        let out = Linear::find(weights, &format!("{name}.out"), width, width, true)?;
        x = out.apply(graph, y, added_to(x));

        let y = norm.apply(graph, weights, &format!("{name}.norm_mlp"), x)?;
        let mlp = Mlp::Plain(config.activation);
        x = Perceptron { prefix: &name, mlp, hidden: config.mlp_width, bias: true }.apply(
            graph,
            weights,
            y,
            added_to(x),
        )?;
    }
    Ok(if config.class_token_kept { x } else { x.rows_from(1) })
}
