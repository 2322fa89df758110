//! The Perceiver resampler (paper 2.1, figure 5): a few learned latents attend to the vision tokens and to themselves,
//! layer by layer, and stand for the image from then on. The vision tokens never change; each layer norms them anew.
//!
//! A video is the tokens of all its frames, to which the embedding of each frame's place is added where the checkpoint
//! has any; without, the latents see the frames as a set.

use super::{Linear, Normalise, Perceptron, added_to};
use crate::config::{Mlp, ResamplerConfig};
use crate::error::Result;
use crate::graph::{Epilogue, Graph, KvSource, Tensor};
use crate::weights::Weights;

/// ε of all its norms in every family (PyTorch's default).
const NORM: Normalise = Normalise::layer(1e-5);

/// Vision tokens (frames * tokens, width) to latents (images * latents, width).
pub(super) fn resample(
    graph: &mut Graph,
    config: &ResamplerConfig,
    weights: &mut Weights,
    mut media: Tensor,
) -> Result<Tensor> {
    let width = media.width;
    let inner = config.heads * config.head_width;
    let scale = 1.0 / (config.head_width as f32).sqrt();
    if let Some(frames) = config.frame_embeddings {
        let table = weights.matrix("resampler.frames", frames, width)?;
        media = graph.frame_embedding(media, table);
    }
    let learned = weights.matrix("resampler.latents", config.latents, width)?;
    let mut latents = graph.broadcast(learned);

    for layer in 0..config.depth {
        let name = format!("resampler.layers.{layer}");
        let context = NORM.apply(graph, weights, &format!("{name}.norm_media"), media)?;
        let x = NORM.apply(graph, weights, &format!("{name}.norm_latents"), latents)?;
        let query = Linear::find(weights, &format!("{name}.query"), &[inner], width, false)?;
        let key_value = Linear::find(weights, &format!("{name}.key_value"), &[inner; 2], width, false)?;
        let query = query.apply(graph, x, Epilogue::default());
        let sources = [context, x].map(|rows| {
            let [key, value] = key_value.apply(graph, rows, Epilogue::default()).split();
            (key, value)
        });
        if config.qk_norm {
            NORM.apply_groups(graph, weights, &format!("{name}.query_norm"), query, config.head_width)?;
            for (key, _) in sources {
                NORM.apply_groups(graph, weights, &format!("{name}.key_norm"), key, config.head_width)?;
            }
        }
        let x = graph.attention(query, KvSource::Dense(sources.to_vec()), config.heads, scale);
        let out = Linear::find(weights, &format!("{name}.out"), &[width], inner, false)?;
        latents = out.apply(graph, x, added_to(latents));

        let x = NORM.apply(graph, weights, &format!("{name}.norm_mlp"), latents)?;
        let mlp = Mlp::Plain(config.activation);
        latents = Perceptron { prefix: &name, mlp, hidden: config.mlp_width, bias: false }.apply(
            graph,
            weights,
            x,
            added_to(latents),
        )?;
    }
    NORM.apply(graph, weights, "resampler.norm", latents)
}
