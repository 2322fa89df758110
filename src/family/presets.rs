//! Sizes of models, for measurements and plans of memory with weights made up: those that are published, and the
//! paper's own.

use super::{Family, idefics, mllama, open_flamingo, paper};
use crate::config::{
    Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, ResamplerConfig, Residual, RopeScaling,
    TilesConfig, VisionConfig,
};
use crate::error::{Error, Result};

/// Names of the sizes.
pub const PRESETS: [&str; 10] = [
    "openflamingo-3b",
    "openflamingo-4b",
    "openflamingo-9b",
    "idefics-9b",
    "idefics-80b",
    "llama-3.2-11b-vision",
    "llama-3.2-90b-vision",
    "flamingo-3b",
    "flamingo-9b",
    "flamingo-80b",
];

/// What a name stands for.
#[derive(Debug)]
pub(crate) struct Preset {
    pub family: &'static Family,
    /// What reports call its language model.
    pub language_model: &'static str,
    pub config: ModelConfig,
}

/// The size of a name.
///
/// # Errors
/// [`Error::Argument`] with the names that there are.
pub(crate) fn preset(name: &str) -> Result<Preset> {
    let of = |language_model, decoder, interval| Preset {
        family: &open_flamingo::FAMILY,
        language_model,
        config: open_flamingo_config(decoder, interval),
    };
    let llama = |width, heads, mlp_width, layers| {
        let config = llama_vision_config(width, heads, mlp_width, layers);
        Preset { family: &mllama::FAMILY, language_model: "Llama 3.1", config }
    };
    let idefics = |width, layers, heads, mlp_width| {
        let config = idefics_config(width, layers, heads, mlp_width);
        Preset { family: &idefics::FAMILY, language_model: "Llama", config }
    };
    Ok(match name {
        "openflamingo-3b" => of("MosaicGpt", mosaic_gpt(2048, 24, 16), 1),
        "openflamingo-4b" => of("GptNeoX", red_pajama(), 2),
        "openflamingo-9b" => of("Mpt", mpt(4096, 32, 32), 4),
        "idefics-9b" => idefics(4096, 32, 32, 11_008),
        "idefics-80b" => idefics(8192, 80, 64, 22_016),
        "llama-3.2-11b-vision" => llama(4096, 32, 14_336, 32),
        "llama-3.2-90b-vision" => llama(8192, 64, 28_672, 80),
        name => match paper::preset(name) {
            Some(config) => Preset { family: &paper::FAMILY, language_model: "Chinchilla", config },
            None => {
                let expected = PRESETS.join(", ");
                return Err(Error::argument(format!("preset: expected one of {expected}, found {name:?}")));
            }
        },
    })
}

/// CLIP ViT-L/14 of OpenAI, its resampler, a block before every `interval`-th layer.
fn open_flamingo_config(decoder: DecoderConfig, interval: usize) -> ModelConfig {
    let gated = GatedConfig {
        layers: GatedConfig::every(interval, interval - 1, decoder.layers),
        heads: 8,
        kv_heads: 8,
        head_width: open_flamingo::HEAD_WIDTH,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::Gelu),
        mlp_width: 4 * decoder.width,
        mlp_everywhere: true,
    };
    let resampler = ResamplerConfig {
        depth: 6,
        latents: 64,
        frame_embeddings: None,
        heads: 8,
        head_width: open_flamingo::HEAD_WIDTH,
        mlp_width: 4096,
        activation: Activation::Gelu,
        qk_norm: false,
    };
    ModelConfig { vision: vit_large(), resampler: Some(resampler), projector: None, gated, decoder }
}

/// CLIP ViT-H/14 of LAION, its resampler, a block before every fourth layer.
fn idefics_config(width: usize, layers: usize, heads: usize, mlp_width: usize) -> ModelConfig {
    let vision = VisionConfig {
        width: 1280,
        layers: 32,
        mlp_width: 5120,
        activation: Activation::Gelu,
        class_token_kept: true,
        ..vit_large()
    };
    let resampler = ResamplerConfig {
        depth: 6,
        latents: 64,
        frame_embeddings: None,
        heads: 16,
        head_width: 96,
        mlp_width: 4 * 1280,
        activation: Activation::Relu,
        qk_norm: true,
    };
    let gated = GatedConfig {
        layers: GatedConfig::every(4, 0, layers),
        heads,
        kv_heads: heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon: 1e-6,
        qk_norm: true,
        mlp: Mlp::Gated(Activation::Silu),
        mlp_width,
        mlp_everywhere: true,
    };
    let decoder = DecoderConfig { vocabulary: 32_002, ..llama(width, layers, heads, mlp_width) };
    ModelConfig { vision, resampler: Some(resampler), projector: None, gated, decoder }
}

/// Llama 3.2 Vision, as its released configurations have it.
fn llama_vision_config(width: usize, heads: usize, mlp_width: usize, layers: usize) -> ModelConfig {
    let tiles = TilesConfig { most: 4, ratios: 9, global_layers: 8, intermediate_layers: vec![3, 7, 15, 23, 30] };
    let vision = VisionConfig {
        width: 1280,
        layers: 32,
        mlp_width: 5120,
        image_size: 560,
        activation: Activation::Gelu,
        attention_bias: false,
        class_token_kept: true,
        tiles: Some(tiles),
        ..vit_large()
    };
    let kv_heads = 8;
    let scaling = RopeScaling { factor: 8.0, low_turns: 1.0, high_turns: 4.0, old_context: 8192 };
    let decoder = DecoderConfig {
        kv_heads,
        vocabulary: 128_264,
        unpredicted: 8,
        positions_max: 131_072,
        norm_epsilon: 1e-5,
        position: Position::Rope { width: width / heads, theta: 500_000.0, scaling: Some(scaling) },
        ..llama(width, layers, heads, mlp_width)
    };
    let gated = GatedConfig {
        layers: GatedConfig::every(4, 3, layers),
        heads,
        kv_heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon: 1e-5,
        qk_norm: true,
        mlp: Mlp::Gated(Activation::Silu),
        mlp_width,
        mlp_everywhere: false,
    };
    ModelConfig { vision, resampler: None, projector: Some(width), gated, decoder }
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

/// MPT-1B under its first name: norms of queries and keys.
fn mosaic_gpt(width: usize, layers: usize, heads: usize) -> DecoderConfig {
    let position = Position::Alibi { bias_max: 8.0, interleaved: false };
    DecoderConfig { position, qk_norm: true, ..mpt(width, layers, heads) }
}

/// MPT: without biases, tied.
fn mpt(width: usize, layers: usize, heads: usize) -> DecoderConfig {
    DecoderConfig {
        width,
        layers,
        heads,
        kv_heads: heads,
        mlp_width: 4 * width,
        vocabulary: 50_280,
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

fn llama(width: usize, layers: usize, heads: usize, mlp_width: usize) -> DecoderConfig {
    DecoderConfig {
        mlp_width,
        norm: Norm::Rms,
        norm_epsilon: 1e-6,
        position: Position::Rope { width: width / heads, theta: 10_000.0, scaling: None },
        mlp: Mlp::Gated(Activation::Silu),
        tied: false,
        ..mpt(width, layers, heads)
    }
}

/// RedPajama-INCITE 3B, a GPT-NeoX.
fn red_pajama() -> DecoderConfig {
    DecoderConfig {
        norm_bias: true,
        linear_bias: true,
        position: Position::Rope { width: 80, theta: 10_000.0, scaling: None },
        tied: false,
        ..mpt(2560, 32, 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;
    use crate::weights::Weights;

    /// Billions of parameters, as they are published or follow from published shapes (README).
    #[test]
    fn parameters_are_the_published_ones() {
        let published = [
            ("openflamingo-3b", 2.6),
            ("openflamingo-4b", 4.0),
            ("openflamingo-9b", 8.1),
            ("idefics-9b", 8.9),
            ("idefics-80b", 80.0),
            ("llama-3.2-11b-vision", 10.67),
            ("llama-3.2-90b-vision", 88.6),
        ];
        for (name, want) in published {
            let config = preset(name).unwrap().config;
            let mut weights = Weights::random();
            model::record(&config, &[0.0; 3 * 256], &mut weights).unwrap();
            let count = |stored: &crate::weights::Stored| stored.weight.rows * stored.weight.columns;
            let found = weights.list().iter().map(count).sum::<usize>() as f64 / 1e9;
            assert!((found / want - 1.0).abs() < 0.02, "{name}: {found} billion instead of {want}");
        }
        let error = preset("flamingo").unwrap_err().to_string();
        assert!(error.starts_with("preset: expected one of openflamingo-3b, openflamingo-4b,"), "{error}");
        assert!(error.ends_with("found \"flamingo\""), "{error}");
    }
}
