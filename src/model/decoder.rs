//! The language model with its gated blocks: tokens to logits. LLaMA, MPT, GPT-NeoX, OPT and GPT-2 differ by norm,
//! position, perceptron and residual, all data in the configuration.

use super::{Linear, Normalise, Perceptron, added_to, gated};
use crate::config::{DecoderConfig, ModelConfig, Position, Residual};
use crate::error::Result;
use crate::graph::{Epilogue, Graph, Index, KvLayer, KvSource, KvSpace, Mask, Plan, Tensor, Weight};
use crate::weights::Weights;

/// Tokens of any number of sequences to the logits (outputs, rows of the output matrix) of those that are asked for.
pub(super) fn text(config: &ModelConfig, weights: &mut Weights) -> Result<Plan> {
    let decoder = &config.decoder;
    let mut graph = Graph::new();
    let mut x = embed(&mut graph, decoder, weights)?;
    for layer in 0..decoder.layers {
        if let Some(block) = config.gated.block_before(layer) {
            x = gated::apply(&mut graph, &config.gated, weights, block, x)?;
        }
        x = block(&mut graph, decoder, weights, layer, x)?;
    }
    let mut x = graph.select(x);
    if !decoder.norm_after {
        x = norm(decoder).apply(&mut graph, weights, "decoder.norm", x)?;
    }
    if let Some(narrow) = decoder.embedding_width {
        let out = Linear::find(weights, "decoder.project_out", &[narrow], decoder.width, false)?;
        x = out.apply(&mut graph, x, Epilogue::default());
    }
    let head = head(decoder, weights)?;
    let logits = graph.linear(x, head, None, Epilogue::default());
    Ok(graph.plan(&[], Some(logits)))
}

/// The output matrix: one of its own, which may lack the last tokens, or the embedding.
fn head(config: &DecoderConfig, weights: &mut Weights) -> Result<Weight> {
    let (name, most) = ("decoder.head", config.vocabulary);
    let width = config.embedding_width.unwrap_or(config.width);
    if !config.tied {
        return weights.table(name, most.saturating_sub(config.unpredicted)..=most, width);
    }
    let embedding = weights.matrix("decoder.embedding", most, width)?;
    weights.same(name, embedding)?;
    Ok(embedding)
}

fn embed(graph: &mut Graph, config: &DecoderConfig, weights: &mut Weights) -> Result<Tensor> {
    let narrow = config.embedding_width.unwrap_or(config.width);
    let table = weights.matrix("decoder.embedding", config.vocabulary, narrow)?;
    let mut x = graph.gather(table, Index::TokenId, None);
    if config.embedding_width.is_some() {
        let project = Linear::find(weights, "decoder.project_in", &[config.width], narrow, false)?;
        x = project.apply(graph, x, Epilogue::default());
    }
    Ok(match config.position {
        Position::Learned { offset } => {
            let table = weights.matrix("decoder.positions", config.positions_max + offset, config.width)?;
            graph.gather(table, Index::Position { offset }, Some(x))
        }
        Position::Rope { .. } | Position::Alibi { .. } => x,
    })
}

/// One layer of the frozen language model.
fn block(graph: &mut Graph, config: &DecoderConfig, weights: &mut Weights, layer: usize, x: Tensor) -> Result<Tensor> {
    let name = format!("decoder.layers.{layer}");
    let width = config.width;
    let norm = |graph: &mut Graph, weights: &mut Weights, which: &str, after: bool, x: Tensor| match after {
        true => norm(config).apply(graph, weights, &format!("{name}.{which}"), x),
        false => Ok(x),
    };
    let y = norm(graph, weights, "norm_attention", !config.norm_after, x)?;
    let y = attend(graph, config, weights, layer, y)?;
    let out = Linear::find(weights, &format!("{name}.out"), &[width], width, config.linear_bias)?;
    let attended = out.apply(graph, y, added_to(x));
    let attended = norm(graph, weights, "norm_attention", config.norm_after, attended)?;

    let read = match config.residual {
        Residual::Sequential => attended,
        Residual::Parallel => x,
    };
    let y = norm(graph, weights, "norm_mlp", !config.norm_after, read)?;
    let perceptron = Perceptron { prefix: &name, mlp: config.mlp, hidden: config.mlp_width, bias: config.linear_bias };
    let x = perceptron.apply(graph, weights, y, added_to(attended))?;
    norm(graph, weights, "norm_mlp", config.norm_after, x)
}

/// Causal self-attention over the sequence's pages.
fn attend(graph: &mut Graph, config: &DecoderConfig, weights: &mut Weights, layer: usize, x: Tensor) -> Result<Tensor> {
    let name = format!("decoder.layers.{layer}");
    let (width, head_width) = (config.width, config.head_width());
    let pages = KvLayer { space: KvSpace::Text, layer, kv_heads: config.kv_heads, head_width };
    let qkv = Linear::find(
        weights,
        &format!("{name}.qkv"),
        &[width, pages.width(), pages.width()],
        width,
        config.linear_bias,
    )?;
    let qkv = qkv.apply(graph, x, Epilogue { clip: config.qkv_clip, ..Epilogue::default() });
    let query = qkv.columns(0, width);
    let [key, value] = qkv.columns(width, 2 * pages.width()).split();
    if config.qk_norm {
        norm(config).apply_groups(graph, weights, &format!("{name}.query_norm"), query, width)?;
        norm(config).apply_groups(graph, weights, &format!("{name}.key_norm"), key, pages.width())?;
    }
    let mut slopes = None;
    match config.position {
        Position::Rope { width, theta } => {
            graph.rope(query, head_width, width, theta);
            graph.rope(key, head_width, width, theta);
        }
        Position::Alibi { bias_max, interleaved } => slopes = Some(alibi_slopes(config.heads, bias_max, interleaved)),
        Position::Learned { .. } => {}
    }
    graph.append(key, value, pages);
    let source = KvSource::Pages(pages, Mask::Causal { slopes });
    Ok(graph.attention(query, source, config.heads, config.attention_scale()))
}

fn norm(config: &DecoderConfig) -> Normalise {
    Normalise { kind: config.norm, epsilon: config.norm_epsilon, bias: config.norm_bias }
}

/// ALiBi's bias for each token of distance (Press et al. 2022): powers of 2^(-bias_max / n), n the heads. For a number
/// of heads that is no power of two, every second slope of the next power comes first, then those between.
fn alibi_slopes(heads: usize, bias_max: f32, interleaved: bool) -> Vec<f32> {
    let full = if interleaved { heads.next_power_of_two() } else { heads };
    let slope = |k: usize| 2f64.powf(-(k as f64) * f64::from(bias_max) / full as f64) as f32;
    if full == heads {
        return (1..=heads).map(slope).collect();
    }
    let even = (2..=full).step_by(2);
    let odd = (1..=full).step_by(2);
    even.chain(odd).take(heads).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_the_references() {
        let functions = include_str!("../../tests/data/semantics/functions.json");
        let functions: serde_json::Value = serde_json::from_str(functions).unwrap();
        for (heads, want) in functions["alibi_slopes"].as_object().unwrap() {
            let found = alibi_slopes(heads.parse().unwrap(), 8.0, true);
            let want: Vec<f32> = want.as_array().unwrap().iter().map(|slope| slope.as_f64().unwrap() as f32).collect();
            assert_eq!(found, want, "{heads} heads");
        }
    }
}
