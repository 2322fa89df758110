//! The configurations that people run, and small ones of the same make: sizes only, the weights are made up on the
//! device. Beside them what a run must move and compute at least, the ends that times are held against.

use flamant::config::{
    Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, ResamplerConfig, Residual, VisionConfig,
};

/// Bytes of a stored number.
const BYTES: u64 = 2;

/// A configuration and what it is called in results.
pub struct Model {
    pub name: &'static str,
    pub config: ModelConfig,
}

/// OpenFlamingo-3B and -9B, IDEFICS-9B.
pub fn models() -> Vec<Model> {
    let open_flamingo = |decoder, interval| {
        let gated = open_flamingo_gated(&decoder, interval, 8);
        let resampler = Some(open_flamingo_resampler(6, 64, 8, 4096));
        ModelConfig { vision: vit_large(), resampler, projector: None, gated, decoder }
    };
    let idefics = ModelConfig {
        vision: vit_huge(),
        resampler: Some(idefics_resampler(6, 64, 16, 96, 4 * 1280)),
        projector: None,
        gated: idefics_gated(4096, 32, 32, 11_008, 4),
        decoder: llama(4096, 32, 32, 11_008, 32_002),
    };
    vec![
        Model { name: "OpenFlamingo-3B", config: open_flamingo(mosaic_gpt(2048, 24, 16, 50_280), 1) },
        Model { name: "OpenFlamingo-9B", config: open_flamingo(mpt(4096, 32, 32, 50_280), 4) },
        Model { name: "IDEFICS-9B", config: idefics },
    ]
}

/// All that Flamant runs: these, OpenFlamingo-4B and IDEFICS-80B.
#[allow(dead_code, reason = "their layers are reckoned with; not every program runs them")]
pub fn all_models() -> Vec<Model> {
    let decoder = red_pajama();
    let small = ModelConfig {
        vision: vit_large(),
        resampler: Some(open_flamingo_resampler(6, 64, 8, 4096)),
        projector: None,
        gated: open_flamingo_gated(&decoder, 2, 8),
        decoder,
    };
    let large = ModelConfig {
        vision: vit_huge(),
        resampler: Some(idefics_resampler(6, 64, 16, 96, 4 * 1280)),
        projector: None,
        gated: idefics_gated(8192, 80, 64, 22_016, 4),
        decoder: llama(8192, 80, 64, 22_016, 32_002),
    };
    let mut all = models();
    all.insert(1, Model { name: "OpenFlamingo-4B", config: small });
    all.push(Model { name: "IDEFICS-80B", config: large });
    all
}

/// The same make, small enough for a processor.
pub fn tiny_models() -> Vec<Model> {
    let vision = |activation, class_token_kept| VisionConfig {
        width: 64,
        layers: 1,
        heads: 1,
        mlp_width: 128,
        image_size: 28,
        activation,
        class_token_kept,
        ..vit_large()
    };
    let decoder = mosaic_gpt(128, 2, 1, 160);
    let open_flamingo = ModelConfig {
        vision: vision(Activation::QuickGelu, false),
        resampler: Some(open_flamingo_resampler(1, 16, 1, 128)),
        projector: None,
        gated: open_flamingo_gated(&decoder, 1, 1),
        decoder,
    };
    let idefics = ModelConfig {
        vision: vision(Activation::Gelu, true),
        resampler: Some(idefics_resampler(1, 16, 1, 96, 128)),
        projector: None,
        gated: idefics_gated(128, 2, 1, 176, 2),
        decoder: llama(128, 2, 1, 176, 162),
    };
    vec![Model { name: "tiny-OpenFlamingo", config: open_flamingo }, Model { name: "tiny-IDEFICS", config: idefics }]
}

/// CLIP ViT-L/14 of OpenAI.
fn vit_large() -> VisionConfig {
    VisionConfig {
        width: 1024,
        layers: 24,
        heads: 16,
        mlp_width: 4096,
        image_size: 224,
        patch_size: 14,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
        attention_bias: true,
        class_token_kept: false,
        tiles: None,
    }
}

/// CLIP ViT-H/14 of LAION.
fn vit_huge() -> VisionConfig {
    VisionConfig {
        width: 1280,
        layers: 32,
        heads: 16,
        mlp_width: 5120,
        activation: Activation::Gelu,
        class_token_kept: true,
        ..vit_large()
    }
}

fn open_flamingo_resampler(depth: usize, latents: usize, heads: usize, mlp_width: usize) -> ResamplerConfig {
    let (activation, qk_norm) = (Activation::Gelu, false);
    ResamplerConfig { depth, latents, heads, head_width: 64, mlp_width, activation, qk_norm, frame_embeddings: None }
}

fn idefics_resampler(
    depth: usize,
    latents: usize,
    heads: usize,
    head_width: usize,
    mlp_width: usize,
) -> ResamplerConfig {
    ResamplerConfig {
        depth,
        latents,
        heads,
        head_width,
        mlp_width,
        activation: Activation::Relu,
        qk_norm: true,
        frame_embeddings: None,
    }
}

fn open_flamingo_gated(decoder: &DecoderConfig, interval: usize, heads: usize) -> GatedConfig {
    GatedConfig {
        layers: GatedConfig::every(interval, interval - 1, decoder.layers),
        heads,
        kv_heads: heads,
        head_width: 64,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::Gelu),
        mlp_width: 4 * decoder.width,
        mlp_everywhere: true,
    }
}

fn idefics_gated(width: usize, layers: usize, heads: usize, mlp_width: usize, interval: usize) -> GatedConfig {
    GatedConfig {
        layers: GatedConfig::every(interval, 0, layers),
        heads,
        kv_heads: heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon: 1e-6,
        qk_norm: true,
        mlp: Mlp::Gated(Activation::Silu),
        mlp_width,
        mlp_everywhere: true,
    }
}

/// MPT-1B under its first name: norms of queries and keys.
fn mosaic_gpt(width: usize, layers: usize, heads: usize, vocabulary: usize) -> DecoderConfig {
    DecoderConfig {
        position: Position::Alibi { bias_max: 8.0, interleaved: false },
        qk_norm: true,
        ..mpt(width, layers, heads, vocabulary)
    }
}

/// MPT: without biases, tied.
fn mpt(width: usize, layers: usize, heads: usize, vocabulary: usize) -> DecoderConfig {
    DecoderConfig {
        width,
        layers,
        heads,
        kv_heads: heads,
        mlp_width: 4 * width,
        vocabulary,
        positions_max: 2048,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: false,
        linear_bias: false,
        position: Position::Alibi { bias_max: 8.0, interleaved: true },
        mlp: Mlp::Plain(Activation::Gelu),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: true,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
    }
}

fn llama(width: usize, layers: usize, heads: usize, mlp_width: usize, vocabulary: usize) -> DecoderConfig {
    DecoderConfig {
        mlp_width,
        norm: Norm::Rms,
        norm_epsilon: 1e-6,
        position: Position::Rope { width: width / heads, theta: 10_000.0, scaling: None },
        mlp: Mlp::Gated(Activation::Silu),
        qk_norm: false,
        tied: false,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
        ..mpt(width, layers, heads, vocabulary)
    }
}

/// RedPajama-INCITE 3B, a GPT-NeoX.
fn red_pajama() -> DecoderConfig {
    DecoderConfig {
        norm_bias: true,
        linear_bias: true,
        position: Position::Rope { width: 80, theta: 10_000.0, scaling: None },
        qk_norm: false,
        tied: false,
        unpredicted: 0,
        norm_after: false,
        embedding_width: None,
        ..mpt(2560, 32, 32, 50_280)
    }
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
