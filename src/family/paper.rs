//! The sizes of the paper that began all this (Alayrac et al. 2022, table 5): nobody has its weights, so that they
//! serve measurements and plans of memory, with weights made up on the device.
//!
//! What is published is as it was: layers, widths and heads of the resampler, of the gated blocks and of the language
//! model, squared ReLU, a block before every 1st, 4th and 7th layer from the first, 64 latents, embeddings of 8 frames.
//! What differs: the tower is no NFNet-F6 but a transformer of its size that gives the same 100 tokens of 1536 at 320
//! pixels; positions are rotary, not Transformer-XL's; norms stand before each branch, and the output matrix is the
//! embedding.

use super::{Family, MediaMask, Preprocessing, Template, open_flamingo};
use crate::config::{
    Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, ResamplerConfig, Residual, VisionConfig,
};
use crate::image::Crop;

/// Width of a head in the language model and the gated blocks.
const HEAD_WIDTH: usize = 128;
/// SentencePiece's 32,000 tokens, an image, the end of a chunk.
const VOCABULARY: usize = 32_002;

/// Prompts of the paper: a marker where an image stands, an end after each example.
pub(crate) static FAMILY: Family = Family {
    model_type: "paper",
    name: "Flamingo (made-up weights)",
    template: Template {
        document_end: Some("</s>"),
        turn_end: Some("<EOC>"),
        turn_end_optional: true,
        media_mask: MediaMask::Preceding,
        ..open_flamingo::FAMILY.template
    },
    more_tokens: &[],
    tower: None,
    preprocessing: Preprocessing { crop: Crop::Stretch, class: "Flamingo" },
    chats: open_flamingo::FAMILY.chats,
    evaluations: ["openflamingo", "openflamingo"],
    read: |fields, _| Err(fields.invalid("model_type", "a family whose weights are published", "\"paper\"")),
};

/// The size of a name, if there is one.
pub(super) fn preset(name: &str) -> Option<ModelConfig> {
    // Layers and heads of the language model, and every how many layers a block stands.
    let (layers, heads, interval) = match name {
        "flamingo-3b" => (24, 16, 1),
        "flamingo-9b" => (40, 32, 4),
        "flamingo-80b" => (80, 64, 7),
        _ => return None,
    };
    let width = heads * HEAD_WIDTH;
    Some(ModelConfig {
        vision: vision(),
        resampler: Some(resampler()),
        projector: None,
        gated: gated(width, heads, GatedConfig::every(interval, 0, layers)),
        decoder: decoder(width, layers, heads),
    })
}

/// In place of NFNet-F6, whose last stage is as wide: 435 million parameters too, and a grid of 10 by 10.
fn vision() -> VisionConfig {
    VisionConfig {
        width: 1536,
        layers: 15,
        heads: 16,
        mlp_width: 4 * 1536,
        image_size: 320,
        patch_size: 32,
        activation: Activation::GeluTanh,
        norm_epsilon: 1e-5,
        attention_bias: true,
        class_token_kept: false,
        tiles: None,
    }
}

fn resampler() -> ResamplerConfig {
    ResamplerConfig {
        depth: 6,
        latents: 64,
        frame_embeddings: Some(8),
        heads: 16,
        head_width: 96,
        mlp_width: 4 * 1536,
        activation: Activation::SquaredRelu,
        qk_norm: false,
    }
}

fn gated(width: usize, heads: usize, layers: Vec<usize>) -> GatedConfig {
    GatedConfig {
        layers,
        heads,
        kv_heads: heads,
        head_width: HEAD_WIDTH,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::SquaredRelu),
        mlp_width: 4 * width,
        mlp_everywhere: true,
    }
}

/// As Chinchilla is described.
fn decoder(width: usize, layers: usize, heads: usize) -> DecoderConfig {
    DecoderConfig {
        width,
        layers,
        heads,
        kv_heads: heads,
        mlp_width: 4 * width,
        vocabulary: VOCABULARY,
        positions_max: 2048,
        norm: Norm::Rms,
        norm_epsilon: 1e-6,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: HEAD_WIDTH, theta: 10_000.0, scaling: None },
        mlp: Mlp::Plain(Activation::GeluTanh),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;
    use crate::weights::Weights;

    /// What the shapes of the paper's table 5 come to, in millions, and what the paper says that all of it has: its
    /// tables are not exact (a language model of 40 layers of 4096 has more than 7.1 billion).
    #[test]
    fn parameters_are_those_of_the_published_shapes() {
        for (name, gated, all) in
            [("flamingo-3b", 1_160.0, 3_200.0), ("flamingo-9b", 1_800.0, 9_300.0), ("flamingo-80b", 8_360.0, 80_000.0)]
        {
            let config = preset(name).unwrap();
            let mut weights = Weights::random();
            model::record(&config, &[0.0; 3 * 256], &mut weights).unwrap();
            let millions = |part: &str| {
                let of_part = weights.list().iter().filter(|stored| stored.name.starts_with(part));
                of_part.map(|stored| stored.weight.rows * stored.weight.columns).sum::<usize>() as f64 / 1e6
            };
            let near = |found: f64, want: f64, share: f64| {
                assert!((found / want - 1.0).abs() < share, "{name}: {found} million instead of {want}");
            };
            near(millions("gated."), gated, 0.01);
            near(millions("resampler."), 170.0, 0.01);
            near(millions("vision."), 435.0, 0.03);
            near(millions(""), all, 0.15);
        }
        let blocks = ["flamingo-3b", "flamingo-9b", "flamingo-80b"].map(|name| preset(name).unwrap().gated_blocks());
        assert_eq!(blocks, [24, 10, 12]);
    }
}
