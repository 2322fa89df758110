//! The numbers and choices that make a model: pure data, which knows no file and no publisher.
//!
//! Models differ by the enums here and by nothing else.

pub use crate::graph::{Activation, Norm};

/// The multilayer perceptron of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Mlp {
    /// down(act(up(x))).
    Plain(Activation),
    /// down(act(gate(x)) up(x)).
    Gated(Activation),
}

/// How a decoder knows the order of its tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Position {
    /// Rotary embedding of the first `width` entries of each head, half split.
    Rope {
        /// Entries of a head that rotate.
        width: usize,
        /// Base of the frequencies.
        theta: f32,
    },
    /// A linear bias by distance; slopes follow from the number of heads and `bias_max`.
    Alibi {
        /// Exponent range of the slopes.
        bias_max: f32,
        /// Whether head counts that are no power of two get the interleaved slopes (MosaicGPT does not).
        interleaved: bool,
    },
    /// A learned table, entered at position + `offset`.
    Learned {
        /// Rows of the table before position 0.
        offset: usize,
    },
}

/// How a decoder block adds its two branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residual {
    /// x += attention(x), then x += mlp(x).
    Sequential,
    /// x += attention(x) + mlp(x), both of the same x.
    Parallel,
}

/// A CLIP vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Width of a token.
    pub width: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp_width: usize,
    /// Side of the square image, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Nonlinearity of the MLP.
    pub activation: Activation,
    /// ε of its layer norms.
    pub norm_epsilon: f32,
    /// Whether the class token goes on to the resampler (IDEFICS) or is dropped (OpenFlamingo).
    pub class_token_kept: bool,
}

impl VisionConfig {
    /// Patches of one image.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Tokens of one image inside the tower: the class token and the patches.
    pub fn tokens(&self) -> usize {
        self.patches() + 1
    }

    /// Tokens of one image that leave the tower.
    pub fn tokens_out(&self) -> usize {
        self.patches() + usize::from(self.class_token_kept)
    }
}

/// The Perceiver resampler (paper 2.1): learned latents that attend to the vision tokens and to themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct ResamplerConfig {
    /// Layers.
    pub depth: usize,
    /// Latents that stand for one image.
    pub latents: usize,
    /// Rows of the table of embeddings for a frame's place in its video, if there is one (`frame_embs`).
    pub frame_embeddings: Option<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Hidden width of the MLP.
    pub mlp_width: usize,
    /// Nonlinearity of the MLP.
    pub activation: Activation,
    /// Layer norm of queries and keys, per head.
    pub qk_norm: bool,
}

/// The gated cross-attention blocks (paper 2.2).
#[derive(Debug, Clone, PartialEq)]
pub struct GatedConfig {
    /// A block stands before each `interval`-th decoder layer.
    pub interval: usize,
    /// First decoder layer (from 0) that has a block before it.
    pub first: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values: a divisor of `heads`, whose queries share them in equal groups.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Kind of its norms.
    pub norm: Norm,
    /// ε of its norms.
    pub norm_epsilon: f32,
    /// RMS norm of queries and keys, per head.
    pub qk_norm: bool,
    /// Its MLP.
    pub mlp: Mlp,
    /// Hidden width of the MLP.
    pub mlp_width: usize,
}

impl GatedConfig {
    /// Index of the block that stands before decoder `layer`, if one does.
    pub fn block_before(&self, layer: usize) -> Option<usize> {
        let past = layer.checked_sub(self.first)?;
        past.is_multiple_of(self.interval).then_some(past / self.interval)
    }

    /// Blocks in a decoder of so many layers.
    pub fn blocks(&self, layers: usize) -> usize {
        (0..layers).filter(|&layer| self.block_before(layer).is_some()).count()
    }
}

/// The frozen language model.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Width of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values: a divisor of `heads`, whose queries share them in equal groups.
    pub kv_heads: usize,
    /// Hidden width of the MLP.
    pub mlp_width: usize,
    /// Rows of the embedding: every token the model knows.
    pub vocabulary: usize,
    /// Most tokens a sequence may have.
    pub positions_max: usize,
    /// Kind of its norms.
    pub norm: Norm,
    /// ε of its norms.
    pub norm_epsilon: f32,
    /// Whether its norms have a bias.
    pub norm_bias: bool,
    /// Whether its linear layers have a bias.
    pub linear_bias: bool,
    /// How it knows the order of tokens.
    pub position: Position,
    /// Its MLP.
    pub mlp: Mlp,
    /// How a block adds its branches.
    pub residual: Residual,
    /// Layer norm of queries and keys over the full width (MPT-1B).
    pub qk_norm: bool,
    /// Bound on the absolute value of queries, keys and values (MPT's `clip_qkv`).
    pub qkv_clip: Option<f32>,
    /// Factor of the attention scores, where it is not 1/sqrt(head width).
    pub softmax_scale: Option<f32>,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Whether a norm follows each sum that a branch is added to, and none stands before the output (OPT-350m).
    pub norm_after: bool,
    /// Width of the embedding and of the output matrix, where projections lead from it and to it (OPT-350m).
    pub embedding_width: Option<usize>,
    /// Rows, at the end of the embedding, that an output matrix of its own may lack: tokens that are never written.
    pub unpredicted: usize,
}

impl DecoderConfig {
    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Factor of the attention scores.
    pub fn attention_scale(&self) -> f32 {
        self.softmax_scale.unwrap_or(1.0 / (self.head_width() as f32).sqrt())
    }
}

/// One Flamingo.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The image encoder.
    pub vision: VisionConfig,
    /// The resampler; some IDEFICS models attend to the vision tokens themselves.
    pub resampler: Option<ResamplerConfig>,
    /// The gated blocks.
    pub gated: GatedConfig,
    /// The language model.
    pub decoder: DecoderConfig,
}

impl ModelConfig {
    /// Latents (or vision tokens) that stand for one image in cross-attention.
    pub fn media_tokens(&self) -> usize {
        self.resampler.as_ref().map_or(self.vision.tokens_out(), |resampler| resampler.latents)
    }

    /// Gated cross-attention blocks of the model.
    pub fn gated_blocks(&self) -> usize {
        self.gated.blocks(self.decoder.layers)
    }
}
