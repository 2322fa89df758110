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
        /// How they are scaled.
        scaling: Option<RopeScaling>,
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

/// How Llama 3.1 stretches the rotary embedding to longer contexts (`rope_type` "llama3"): frequencies that turn often
/// in the old context stay, those that turn seldom are divided by `factor`, those between are mixed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RopeScaling {
    /// Divides the low frequencies.
    pub factor: f32,
    /// Turns in the old context, below which a frequency is low.
    pub low_turns: f32,
    /// Turns above which it is high.
    pub high_turns: f32,
    /// The old context, tokens.
    pub old_context: usize,
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
#[non_exhaustive]
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
    /// Whether its attention has biases.
    pub attention_bias: bool,
    /// Whether the class token goes on to the resampler (IDEFICS) or is dropped (OpenFlamingo).
    pub class_token_kept: bool,
    /// How an image is cut into tiles that see each other; none: an image is one square.
    pub tiles: Option<TilesConfig>,
}

/// A vision tower over the tiles of an image (Llama 3.2): all of them are one sequence, in which tiles that an image
/// does not have stand as zeros.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TilesConfig {
    /// Tiles of an image at most, and rooms for tiles in the sequence.
    pub most: usize,
    /// Rows of the tables of tile embeddings: ratio 0 is that of no image, then one for each canvas.
    pub ratios: usize,
    /// Gated layers behind the norm of the last layer.
    pub global_layers: usize,
    /// Layers whose inputs the tower gives beside its last state, ascending.
    pub intermediate_layers: Vec<usize>,
}

/// Rows of a tile are filled up with zeros to a multiple of this, which attention takes for keys.
const TILE_ROWS_MULTIPLE: usize = 8;

impl TilesConfig {
    /// Rows of zeros behind the `tokens` of each tile.
    pub fn fillers(&self, tokens: usize) -> usize {
        tokens.next_multiple_of(TILE_ROWS_MULTIPLE) - tokens
    }
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

    /// Tokens of one image, or of one tile of it, that leave the tower.
    pub fn tokens_out(&self) -> usize {
        self.patches() + usize::from(self.class_token_kept)
    }

    /// Columns of a token that leaves the tower.
    pub fn width_out(&self) -> usize {
        self.width * (1 + self.tiles.as_ref().map_or(0, |tiles| tiles.intermediate_layers.len()))
    }

    /// Frames that the tower always takes of one image.
    pub fn frames(&self) -> usize {
        self.tiles.as_ref().map_or(1, |tiles| tiles.most)
    }
}

/// The Perceiver resampler (paper 2.1): learned latents that attend to the vision tokens and to themselves.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct GatedConfig {
    /// Decoder layers (from 0) that have a block before them, ascending.
    pub layers: Vec<usize>,
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
    /// Whether the MLP works on every token (Flamingo) or only on those that see an image (Llama 3.2).
    pub mlp_everywhere: bool,
}

impl GatedConfig {
    /// The layers of a decoder that a block stands before, where it is each `interval`-th from `first` on.
    pub fn every(interval: usize, first: usize, layers: usize) -> Vec<usize> {
        (first..layers).step_by(interval).collect()
    }

    /// Index of the block that stands before decoder `layer`, if one does.
    pub fn block_before(&self, layer: usize) -> Option<usize> {
        self.layers.binary_search(&layer).ok()
    }
}

/// The frozen language model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct ModelConfig {
    /// The image encoder.
    pub vision: VisionConfig,
    /// The resampler; some IDEFICS models attend to the vision tokens themselves.
    pub resampler: Option<ResamplerConfig>,
    /// Columns that vision tokens are projected to before the gated blocks read them (Llama 3.2).
    pub projector: Option<usize>,
    /// The gated blocks.
    pub gated: GatedConfig,
    /// The language model.
    pub decoder: DecoderConfig,
}

impl ModelConfig {
    /// Latents, or vision tokens, that stand in cross-attention for an image, or for one of its tiles.
    pub fn media_tokens(&self) -> usize {
        self.resampler.as_ref().map_or(self.vision.tokens_out(), |resampler| resampler.latents)
    }

    /// The most of them that stand for one image.
    pub fn media_tokens_max(&self) -> usize {
        self.media_tokens() * self.vision.frames()
    }

    /// Gated cross-attention blocks of the model.
    pub fn gated_blocks(&self) -> usize {
        self.gated.layers.len()
    }
}
