//! A Flamingo as two plans: the media plan turns images into pages of media keys and values, the text plan turns
//! tokens into logits. A third tells what its vision tower compares images by. Written once, as calls on the graph
//! recorder; no device in sight.

pub mod config;
mod decoder;
mod gated;
mod resampler;
mod tiles;
mod vision;

use crate::config::{Mlp, ModelConfig};
use crate::error::Result;
use crate::graph::{Activation, Epilogue, Graph, Norm, Plan, Plans, Tensor, Weight};
use crate::weights::Weights;

/// Records the plans; every weight they name is looked up and its shape checked. `levels` (3, 256) is what the vision
/// tower takes each level of red, green and blue for.
///
/// # Errors
/// A weight that is missing, of another shape, or of no use to the model: file, tensor, expected, found.
pub fn record(config: &ModelConfig, levels: &[f32], weights: &mut Weights) -> Result<Plans> {
    let (media, text) = (media(config, levels, weights)?, decoder::text(config, weights)?);
    let features = match config.vision.tiles {
        None => vision::features(&config.vision, levels, weights)?,
        Some(_) => None,
    };
    weights.refuse_unused()?;
    let tiles = config.vision.tiles.as_ref().map(|tiles| tiles.most);
    Ok(Plans { media, text, features, tiles })
}

/// Images and videos to media keys and values: vision tower frame by frame, resampler, and for each gated block its
/// key and value projection, which is all that the block will ever ask of an image (paper 2.1, 2.2).
fn media(config: &ModelConfig, levels: &[f32], weights: &mut Weights) -> Result<Plan> {
    let mut graph = Graph::new();
    let mut media = match &config.vision.tiles {
        None => vision::encode(&mut graph, &config.vision, levels, weights)?,
        Some(tiles) => tiles::encode(&mut graph, &config.vision, tiles, levels, weights)?,
    };
    if let Some(resampler) = &config.resampler {
        media = resampler::resample(&mut graph, resampler, weights, media)?;
    }
    if let Some(width) = config.projector {
        let projector = Linear::find(weights, "projector", &[width], media.width, true)?;
        media = projector.apply(&mut graph, media, Epilogue::default());
    }
    for block in 0..config.gated_blocks() {
        gated::keys_and_values(&mut graph, &config.gated, weights, block, media)?;
    }
    Ok(graph.plan(&[], None))
}

/// The weights of one linear layer.
#[derive(Clone, Copy)]
struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}

impl Linear {
    /// Asks for the matrix `name`, blocks of so many rows of `input` columns, and, if there is to be one, its bias.
    fn find(weights: &mut Weights, name: &str, blocks: &[usize], input: usize, bias: bool) -> Result<Linear> {
        let weight = weights.stacked(name, blocks, input)?;
        let bias = bias.then(|| weights.bias(name, blocks)).transpose()?;
        Ok(Linear { weight, bias })
    }

    fn apply(self, graph: &mut Graph, x: Tensor, epilogue: Epilogue) -> Tensor {
        graph.linear(x, self.weight, self.bias, epilogue)
    }
}

/// How a part of the model normalises.
#[derive(Clone, Copy)]
struct Normalise {
    kind: Norm,
    epsilon: f32,
    bias: bool,
}

impl Normalise {
    const fn layer(epsilon: f32) -> Normalise {
        Normalise { kind: Norm::Layer, epsilon, bias: true }
    }

    /// The norm `name` of whole rows.
    fn apply(self, graph: &mut Graph, weights: &mut Weights, name: &str, x: Tensor) -> Result<Tensor> {
        let weight = weights.vector(name, x.width)?;
        let bias = self.bias.then(|| weights.bias(name, &[x.width])).transpose()?;
        Ok(graph.norm(x, self.kind, weight, bias, self.epsilon))
    }

    /// The norm `name` in place, of groups of columns.
    fn apply_groups(self, graph: &mut Graph, weights: &mut Weights, name: &str, x: Tensor, group: usize) -> Result<()> {
        let weight = weights.vector(name, group)?;
        let bias = self.bias.then(|| weights.bias(name, &[group])).transpose()?;
        graph.norm_groups(x, self.kind, weight, bias, self.epsilon);
        Ok(())
    }
}

/// A multilayer perceptron `prefix.up`, `prefix.down` of normalised rows, added to a stream.
struct Perceptron<'a> {
    prefix: &'a str,
    mlp: Mlp,
    hidden: usize,
    bias: bool,
}

impl Perceptron<'_> {
    fn apply(&self, graph: &mut Graph, weights: &mut Weights, x: Tensor, added: Epilogue) -> Result<Tensor> {
        let (up_name, down_name) = (format!("{}.up", self.prefix), format!("{}.down", self.prefix));
        let width = x.width;
        let down = |weights: &mut Weights| Linear::find(weights, &down_name, &[width], self.hidden, self.bias);
        let hidden = match self.mlp {
            Mlp::Plain(activation) => {
                let up = Linear::find(weights, &up_name, &[self.hidden], width, self.bias)?;
                up.apply(graph, x, activated(activation))
            }
            Mlp::Gated(activation) => {
                let up = Linear::find(weights, &up_name, &[self.hidden; 2], width, self.bias)?;
                up.apply(graph, x, Epilogue { paired: true, ..activated(activation) })
            }
        };
        Ok(down(weights)?.apply(graph, hidden, added))
    }
}

fn activated(activation: Activation) -> Epilogue {
    Epilogue { activation: Some(activation), ..Epilogue::default() }
}

fn added_to(residual: Tensor) -> Epilogue {
    Epilogue { residual: Some(residual), ..Epilogue::default() }
}
