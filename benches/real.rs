//! The configurations that people run, and small ones of the same make: sizes only, the weights are made up on the
//! device. Beside them what a run must move and compute at least, the ends that times are held against.

use flamant::Inspection;
use flamant::config::{Mlp, ModelConfig};

/// Bytes of a stored number.
const BYTES: u64 = 2;

/// A configuration and what it is called in results.
pub struct Model {
    pub name: &'static str,
    pub config: ModelConfig,
}

/// Models under the names of results, each of a preset.
fn of(names: &[(&'static str, &str)]) -> Vec<Model> {
    let config = |preset| Inspection::preset(preset).expect("a preset").config;
    names.iter().map(|&(name, preset)| Model { name, config: config(preset) }).collect()
}

/// OpenFlamingo-3B and -9B, IDEFICS-9B.
pub fn models() -> Vec<Model> {
    of(&[("OpenFlamingo-3B", "openflamingo-3b"), ("OpenFlamingo-9B", "openflamingo-9b"), ("IDEFICS-9B", "idefics-9b")])
}

/// All that Flamant runs, and the paper's own sizes.
#[allow(dead_code, reason = "their layers are reckoned with; not every program runs them")]
pub fn all_models() -> Vec<Model> {
    of(&[
        ("OpenFlamingo-3B", "openflamingo-3b"),
        ("OpenFlamingo-4B", "openflamingo-4b"),
        ("OpenFlamingo-9B", "openflamingo-9b"),
        ("IDEFICS-9B", "idefics-9b"),
        ("IDEFICS-80B", "idefics-80b"),
        ("Llama-3.2-11B-Vision", "llama-3.2-11b-vision"),
        ("Llama-3.2-90B-Vision", "llama-3.2-90b-vision"),
        ("Flamingo-3B", "flamingo-3b"),
        ("Flamingo-9B", "flamingo-9b"),
        ("Flamingo-80B", "flamingo-80b"),
    ])
}

/// The same make, small enough for a processor.
pub fn tiny_models() -> Vec<Model> {
    let mut models = of(&[("tiny-OpenFlamingo", "openflamingo-3b"), ("tiny-IDEFICS", "idefics-9b")]);
    for (Model { config, .. }, (vocabulary, mlp_width)) in models.iter_mut().zip([(160, 512), (162, 176)]) {
        let ModelConfig { vision, resampler, gated, decoder, .. } = config;
        (vision.width, vision.layers, vision.heads, vision.mlp_width) = (64, 1, 1, 128);
        vision.image_size = 28;
        let resampler = resampler.as_mut().expect("both have one");
        (resampler.depth, resampler.latents, resampler.heads, resampler.mlp_width) = (1, 16, 1, 128);
        (decoder.width, decoder.layers, decoder.heads, decoder.kv_heads) = (128, 2, 1, 1);
        (decoder.vocabulary, decoder.mlp_width) = (vocabulary, mlp_width);
        (gated.heads, gated.kv_heads, gated.mlp_width) = (1, 1, mlp_width);
        gated.layers.retain(|&layer| layer < 2);
    }
    // IDEFICS has queries as wide as the model.
    models[1].config.gated.head_width = 128;
    models
}

/// Weights of a perceptron.
fn mlp_weights(mlp: Mlp, width: usize, hidden: usize) -> usize {
    width * hidden * if matches!(mlp, Mlp::Gated(_)) { 3 } else { 2 }
}

/// Weights that every token meets: all layers and gated blocks, without embedding and output matrix.
fn token_weights(config: &ModelConfig) -> usize {
    let ModelConfig { decoder, gated, .. } = config;
    let width = decoder.width;
    let layer = 4 * width * width + mlp_weights(decoder.mlp, width, decoder.mlp_width);
    let block = 2 * width * gated.heads * gated.head_width + mlp_weights(gated.mlp, width, gated.mlp_width);
    decoder.layers * layer + config.gated_blocks() * block
}

/// Bytes that one step of so many sequences of `tokens` tokens must read: the weights once, and for each sequence its
/// keys and values and those of its one image.
pub fn step_bytes(config: &ModelConfig, sequences: usize, tokens: usize) -> u64 {
    let ModelConfig { decoder, gated, .. } = config;
    let weights = token_weights(config) + decoder.vocabulary * decoder.width;
    let text = 2 * decoder.layers * decoder.width * tokens;
    let media = 2 * config.gated_blocks() * gated.heads * gated.head_width * config.media_tokens();
    (weights + sequences * (text + media)) as u64 * BYTES
}

/// Operations on a prompt of so many tokens, of which one gives logits; a multiply-add is two.
pub fn prompt_flops(config: &ModelConfig, tokens: usize) -> u64 {
    let ModelConfig { decoder, gated, .. } = config;
    let products = tokens * token_weights(config) + decoder.vocabulary * decoder.width;
    let text = decoder.layers * decoder.width * tokens * (tokens + 1);
    let media = 2 * config.gated_blocks() * gated.heads * gated.head_width * config.media_tokens() * tokens;
    2 * (products + text + media) as u64
}

/// Operations on one image: tower, resampler, keys and values of all gated blocks.
pub fn image_flops(config: &ModelConfig) -> u64 {
    let ModelConfig { vision, gated, .. } = config;
    let (width, tokens) = (vision.width, vision.tokens());
    let patches = vision.patches() * 3 * vision.patch_size.pow(2) * width;
    let layer = tokens * (4 * width * width + 2 * width * vision.mlp_width) + 2 * tokens * tokens * width;
    let resampled = config.resampler.as_ref().map_or(0, |resampler| {
        let (inner, latents) = (resampler.heads * resampler.head_width, resampler.latents);
        let keys = vision.tokens_out() + latents;
        let products = 2 * latents * width * inner + 2 * keys * width * inner + 2 * latents * keys * inner;
        resampler.depth * (products + 2 * latents * width * resampler.mlp_width)
    });
    let media = 2 * config.gated_blocks() * gated.heads * gated.head_width * width * config.media_tokens();
    2 * (patches + vision.layers * layer + resampled + media) as u64
}
