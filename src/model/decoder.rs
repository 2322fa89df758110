//! The language model with its gated blocks: tokens to logits. LLaMA, MPT, GPT-NeoX, OPT and GPT-2 differ by norm,
//! position, perceptron and residual, all data in the configuration.

use super::{Linear, Normalise, Perceptron, added_to, gated};
use crate::config::{DecoderConfig, ModelConfig, Position, Residual, RopeScaling};
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
        Position::Rope { width, theta, scaling } => {
            let frequencies = rope_frequencies(width, theta, scaling);
            graph.rope(query, head_width, frequencies.clone());
            graph.rope(key, head_width, frequencies);
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

/// Radians that each pair of entries turns by from one position to the next: theta^(-2i / width), in single precision
/// as the references have them, stretched as Llama 3.1 does (`modeling_rope_utils.py`).
fn rope_frequencies(width: usize, theta: f32, scaling: Option<RopeScaling>) -> Vec<f32> {
    let frequency = |pair: usize| 1.0 / theta.powf((2 * pair) as f32 / width as f32);
    let scaled = |frequency: f32| {
        let Some(RopeScaling { factor, low_turns, high_turns, old_context }) = scaling else { return frequency };
        let turns = old_context as f32 * frequency / (2.0 * std::f32::consts::PI);
        if turns < low_turns {
            frequency / factor
        } else if turns > high_turns {
            frequency
        } else {
            let share = (turns - low_turns) / (high_turns - low_turns);
            (1.0 - share) * frequency / factor + share * frequency
        }
    };
    (0..width / 2).map(|pair| scaled(frequency(pair))).collect()
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

    /// Those of transformers 5.17 to a unit or two in the last place: powers are rounded by their libraries.
    #[test]
    fn frequencies_are_the_references() {
        let semantics = include_str!("../../tests/data/semantics/mllama.json");
        let semantics: serde_json::Value = serde_json::from_str(semantics).unwrap();
        let rows = semantics["frequencies"].as_array().unwrap();
        assert!(
            rows.iter().any(|row| row["rope_type"] == "llama3") && rows.iter().any(|row| row["rope_type"] == "default")
        );
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap() as f32;
            let scaling = (row["rope_type"] == "llama3").then(|| RopeScaling {
                factor: number("factor"),
                low_turns: number("low_freq_factor"),
                high_turns: number("high_freq_factor"),
                old_context: number("original_max_position_embeddings") as usize,
            });
            let found = rope_frequencies(number("head_width") as usize, number("rope_theta"), scaling);
            let bits = |bits: &serde_json::Value| u32::from_str_radix(bits.as_str().unwrap(), 16).unwrap();
            let want: Vec<f32> =
                row["frequencies"].as_array().unwrap().iter().map(|text| f32::from_bits(bits(text))).collect();
            assert_eq!(found.len(), want.len());
            for (found, want) in found.iter().zip(&want) {
                assert!((found - want).abs() <= want * 2.0 * f32::EPSILON, "{found} is not {want}: {row}");
            }
        }
    }
}
