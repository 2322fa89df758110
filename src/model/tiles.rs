//! The vision tower of Llama 3.2 Vision (`modeling_mllama.py`; Meta's `multimodal/model.py`, which decides where they
//! differ): the tiles of an image are one sequence, in which each sees each.
//!
//! It was trained with a mask that keeps absent rows (of tiles that an image does not have, and zeros that fill tiles
//! up) from absent rows alone: the real ones see them, so they are computed.

use super::{Normalise, vision};
use crate::config::{TilesConfig, VisionConfig};
use crate::error::Result;
use crate::graph::{Graph, KvSource, Tensor};
use crate::weights::Weights;

/// ε of the norms around the layers, whatever that of the layers (PyTorch's default).
const NORM: Normalise = Normalise::layer(1e-5);

/// Pixels of tiles to tokens (images * tiles * tokens, [`VisionConfig::width_out`]): the last state of each, and beside
/// it the inputs of some layers.
pub(super) fn encode(
    graph: &mut Graph,
    config: &VisionConfig,
    tiles: &TilesConfig,
    levels: &[f32],
    weights: &mut Weights,
) -> Result<Tensor> {
    let TilesConfig { most, ratios, .. } = *tiles;
    let (width, tile_rows) = (config.width, config.tokens());
    let rows = most * tile_rows;
    let patches = vision::patches(graph, config, levels, weights)?;
    let position = weights.matrix("vision.position", ratios * rows, width)?;
    let x = graph.tile_positions(patches, position, most);
    let x = NORM.apply(graph, weights, "vision.norm_pre", x)?;
    let mut x = graph.fill_rows(x, rows + most * tiles.fillers(tile_rows));
    let source = |key, value| KvSource::Tiles { key, value, tile_rows };
    let mut states = Vec::new();
    for layer in 0..config.layers {
        if tiles.intermediate_layers.contains(&layer) {
            states.push(x);
        }
        x = vision::block(graph, config, weights, &format!("vision.layers.{layer}"), x, source, false)?;
    }
    x = NORM.apply(graph, weights, "vision.norm_post", x)?;
    let embedding = weights.matrix("vision.tile", ratios * most, width)?;
    x = graph.tile_embedding(x, embedding, most, tile_rows);
    for layer in 0..tiles.global_layers {
        x = vision::block(graph, config, weights, &format!("vision.global.{layer}"), x, source, true)?;
    }
    let parts = [x].into_iter().chain(states).map(|state| state.first_rows(rows));
    Ok(graph.concatenate(parts.collect()))
}
