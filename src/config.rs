//! The numbers and choices that make one member of the Flamingo family: pure data, read from `config.json`.
//!
//! Families differ by the enums here and by nothing else. Nested configurations that leave out fields equal to the
//! defaults of their class get those defaults; every number is held to an absurdity limit before anything relies on it.
//! What tensor shapes tell better than a file (latents, depth, added vocabulary) is read from shapes, in
//! `from_checkpoint`.

mod fields;

use crate::checkpoint::{Checkpoint, Folder};
use crate::error::{Error, Result};
pub use crate::graph::{Activation, Norm};
use fields::{Fields, quoted};

/// Largest configuration file that is read.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Width of one head in OpenFlamingo's resampler and gated blocks, whatever the model's width (`helpers.py`).
pub(crate) const OPEN_FLAMINGO_HEAD_WIDTH: usize = 64;

/// Tokens that OpenFlamingo adds to a language model's: end of chunk, image, padding. LLaMA's output matrix is not
/// saved with rows for them.
const OPEN_FLAMINGO_ADDED_TOKENS: usize = 3;

/// Who trained the model: decides prompt, preprocessing and tensor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IDEFICS 9B and 80B, base and instruct.
    Idefics,
    /// OpenFlamingo 3B, 4B and 9B, as `flamant convert` writes them.
    OpenFlamingo,
}

/// The language model's own architecture: decides its tensor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// LLaMA (IDEFICS, OpenFlamingo v1).
    Llama,
    /// MPT-7B.
    Mpt,
    /// MPT-1B, under its first name.
    MosaicGpt,
    /// GPT-NeoX: RedPajama-INCITE, Pythia.
    GptNeoX,
    /// OPT.
    Opt,
}

/// The multilayer perceptron of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mlp {
    /// down(act(up(x))).
    Plain(Activation),
    /// down(act(gate(x)) up(x)).
    Gated(Activation),
}

/// How a decoder knows the order of its tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Whose tensor names it has.
    pub architecture: Architecture,
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
    /// Who trained it.
    pub family: Family,
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
    /// Reads `config.json` of a model folder, and from the checkpoint's shapes what the file does not say.
    ///
    /// # Errors
    /// A key that is missing, of the wrong type, absurd or not supported: file, key, expected, found.
    pub fn from_checkpoint(folder: Folder, checkpoint: &Checkpoint) -> Result<Self> {
        let file = folder.path("config.json");
        let root = folder.json("config.json", CONFIG_BYTES_MAX)?;
        let fields = Fields::new(&file, &root)?;
        match fields.text("model_type", None)?.as_str() {
            "idefics" => idefics(&fields, checkpoint),
            "open_flamingo" => open_flamingo(&fields, checkpoint),
            other => Err(fields.invalid("model_type", "\"idefics\" or \"open_flamingo\"", quoted(other))),
        }
    }

    /// Latents (or vision tokens) that stand for one image in cross-attention.
    pub fn media_tokens(&self) -> usize {
        self.resampler.as_ref().map_or(self.vision.tokens_out(), |resampler| resampler.latents)
    }

    /// Gated cross-attention blocks of the model.
    pub fn gated_blocks(&self) -> usize {
        self.gated.blocks(self.decoder.layers)
    }
}

/// IDEFICS: `configuration_idefics.py` of transformers, whose defaults stand here.
fn idefics(fields: &Fields, checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let vision = fields.section("vision_config")?;
    let perceiver = fields.section("perceiver_config")?;
    let width = fields.count("hidden_size", Some(4096), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(32), 1024)?;
    let mlp_width = fields.count("intermediate_size", Some(11_008), 1 << 20)?;
    let norm_epsilon = fields.epsilon("rms_norm_eps", 1e-6)?;
    let embeddings = ["model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight"];
    checkpoint.tensor(embeddings[0])?;
    let vocabulary = embeddings.iter().filter_map(|name| checkpoint.shape(name)?.first()).sum();
    let mlp = Mlp::Gated(fields.activation("hidden_act", Some("silu"))?);
    let vision_config = clip(&vision, ClipKeys::IDEFICS, true)?;
    let resampler = fields.flag("use_resampler", false)?.then(|| resampler(&perceiver, &vision_config)).transpose()?;
    let decoder = DecoderConfig {
        architecture: Architecture::Llama,
        width,
        layers: fields.count("num_hidden_layers", Some(32), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width,
        vocabulary,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Rms,
        norm_epsilon,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: width / heads, theta: fields.rope_theta()? },
        mlp,
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", false)?,
        unpredicted: 0,
    };
    fields.rotates("num_attention_heads", heads, width)?;
    let gated = GatedConfig {
        interval: fields.count("cross_layer_interval", Some(1), 1024)?,
        first: 0,
        heads,
        kv_heads: heads,
        head_width: width / heads,
        norm: Norm::Rms,
        norm_epsilon,
        qk_norm: fields.flag("qk_layer_norms", false)?,
        mlp,
        mlp_width,
    };
    Ok(ModelConfig { family: Family::Idefics, vision: vision_config, resampler, gated, decoder })
}

/// The resampler section of an IDEFICS configuration; its MLP is 4 times as wide as the vision tower.
fn resampler(fields: &Fields, vision: &VisionConfig) -> Result<ResamplerConfig> {
    Ok(ResamplerConfig {
        depth: fields.count("resampler_depth", Some(6), 1024)?,
        latents: fields.count("resampler_n_latents", Some(64), 65_536)?,
        frame_embeddings: None,
        heads: fields.count("resampler_n_heads", Some(16), 1024)?,
        head_width: fields.count("resampler_head_dim", Some(96), 65_536)?,
        mlp_width: 4 * vision.width,
        activation: Activation::Relu,
        qk_norm: fields.flag("qk_layer_norms_perceiver", false)?,
    })
}

/// OpenFlamingo, as `flamant convert` writes it: the language model's own configuration stands under `text_config`.
fn open_flamingo(fields: &Fields, checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let vision = clip(&fields.section("vision_config")?, ClipKeys::TRANSFORMERS, false)?;
    let mut decoder = language_model(&fields.section("text_config")?, checkpoint)?;
    decoder.vocabulary = fields.count("vocab_size", None, 1 << 24)?;
    decoder.unpredicted = OPEN_FLAMINGO_ADDED_TOKENS;
    let interval = fields.count("cross_attn_every_n_layers", None, 1024)?;
    let first = interval - 1;
    let container = match decoder.architecture {
        Architecture::Llama => "lang_encoder.model.layers",
        Architecture::Mpt | Architecture::MosaicGpt => "lang_encoder.transformer.blocks",
        Architecture::GptNeoX => "lang_encoder.gpt_neox.layers",
        Architecture::Opt => "lang_encoder.model.decoder.layers",
    };
    if first >= decoder.layers {
        let most = format!("at most the {} layers of the language model", decoder.layers);
        return Err(fields.invalid("cross_attn_every_n_layers", most, interval));
    }
    let block = format!("{container}.{first}.gated_cross_attn_layer");
    let rows = |name: &str| -> Result<usize> {
        match checkpoint.shape(name) {
            Some([rows, ..]) => Ok(*rows),
            _ => Err(Error::invalid(checkpoint.file_of(name), name, "a tensor of this name", "none")),
        }
    };
    let heads_of = |name: &str| -> Result<usize> {
        let inner = rows(name)?;
        if inner == 0 || inner % OPEN_FLAMINGO_HEAD_WIDTH != 0 {
            let expected = format!("rows in heads of {OPEN_FLAMINGO_HEAD_WIDTH}");
            return Err(Error::invalid(checkpoint.file_of(name), name, expected, format!("{inner} rows")));
        }
        Ok(inner / OPEN_FLAMINGO_HEAD_WIDTH)
    };
    let depth = (0..).take_while(|i| checkpoint.contains(&format!("perceiver.layers.{i}.0.to_q.weight"))).count();
    if checkpoint.contains("perceiver.media_time_embs") {
        let expected = "a resampler that knows no number of an image in its prompt";
        return Err(fields.invalid("perceiver.media_time_embs", expected, "such embeddings"));
    }
    let resampler = ResamplerConfig {
        depth,
        latents: rows("perceiver.latents")?,
        frame_embeddings: checkpoint
            .contains("perceiver.frame_embs")
            .then(|| rows("perceiver.frame_embs"))
            .transpose()?,
        heads: heads_of("perceiver.layers.0.0.to_q.weight")?,
        head_width: OPEN_FLAMINGO_HEAD_WIDTH,
        mlp_width: rows("perceiver.layers.0.1.1.weight")?,
        activation: Activation::Gelu,
        qk_norm: false,
    };
    let heads = heads_of(&format!("{block}.attn.to_q.weight"))?;
    let gated = GatedConfig {
        interval,
        first,
        heads,
        kv_heads: heads,
        head_width: OPEN_FLAMINGO_HEAD_WIDTH,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(Activation::Gelu),
        mlp_width: rows(&format!("{block}.ff.1.weight"))?,
    };
    Ok(ModelConfig { family: Family::OpenFlamingo, vision, resampler: Some(resampler), gated, decoder })
}

/// The language models under OpenFlamingo, each from the `config.json` its authors publish.
fn language_model(fields: &Fields, checkpoint: &Checkpoint) -> Result<DecoderConfig> {
    let decoder = match fields.text("model_type", None)?.as_str() {
        "llama" => llama(fields)?,
        "mpt" => mpt(fields, checkpoint)?,
        "mosaic_gpt" => mosaic_gpt(fields)?,
        "gpt_neox" => gpt_neox(fields)?,
        "opt" => opt(fields)?,
        other => {
            let known = "\"mpt\", \"mosaic_gpt\", \"gpt_neox\", \"llama\" or \"opt\"";
            return Err(fields.invalid("model_type", known, quoted(other)));
        }
    };
    if !decoder.width.is_multiple_of(decoder.heads) {
        return Err(fields.invalid("heads", format!("a divisor of the width {}", decoder.width), decoder.heads));
    }
    Ok(decoder)
}

fn llama(fields: &Fields) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(4096), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(32), 1024)?;
    fields.rotates("num_attention_heads", heads, width)?;
    if fields.count("num_key_value_heads", Some(heads), 1024)? != heads {
        return Err(fields.invalid("num_key_value_heads", heads, "fewer (grouped queries)"));
    }
    if fields.flag("attention_bias", false)? || fields.flag("mlp_bias", false)? {
        return Err(fields.invalid("attention_bias", "false", "true"));
    }
    Ok(DecoderConfig {
        architecture: Architecture::Llama,
        width,
        layers: fields.count("num_hidden_layers", Some(32), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("intermediate_size", Some(11_008), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Rms,
        norm_epsilon: fields.epsilon("rms_norm_eps", 1e-6)?,
        norm_bias: false,
        linear_bias: false,
        position: Position::Rope { width: width / heads, theta: fields.rope_theta()? },
        mlp: Mlp::Gated(fields.activation("hidden_act", Some("silu"))?),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", false)?,
        unpredicted: 0,
    })
}

/// MPT-7B (`modeling_mpt.py` of transformers): always ALiBi, exact GELU, tied.
fn mpt(fields: &Fields, checkpoint: &Checkpoint) -> Result<DecoderConfig> {
    let attention = fields.section("attn_config")?;
    if !attention.flag("alibi", true)? {
        return Err(attention.invalid("alibi", "true", "false"));
    }
    fields.absent("logit_scale")?;
    let width = fields.count("d_model", Some(2048), 65_536)?;
    let heads = fields.count("n_heads", Some(16), 1024)?;
    Ok(DecoderConfig {
        architecture: Architecture::Mpt,
        width,
        layers: fields.count("n_layers", Some(24), 1024)?,
        heads,
        kv_heads: heads,
        // transformers builds the MLP 4 times as wide whatever `expansion_ratio` says; the tensor tells.
        mlp_width: match checkpoint.shape("lang_encoder.transformer.blocks.0.ffn.up_proj.weight") {
            Some([rows, ..]) => *rows,
            _ => width * fields.count("expansion_ratio", Some(4), 64)?,
        },
        vocabulary: 0,
        positions_max: fields.positions("max_seq_len")?,
        norm: Norm::Layer,
        norm_epsilon: fields.epsilon("layer_norm_epsilon", 1e-5)?,
        norm_bias: checkpoint.contains("lang_encoder.transformer.norm_f.bias"),
        linear_bias: checkpoint.contains("lang_encoder.transformer.blocks.0.attn.Wqkv.bias"),
        position: Position::Alibi {
            bias_max: attention.number("alibi_bias_max", Some(8.0), 1.0..=64.0)?,
            interleaved: true,
        },
        mlp: Mlp::Plain(Activation::Gelu),
        residual: Residual::Sequential,
        qk_norm: attention.flag("qk_ln", false)?
            && checkpoint.contains("lang_encoder.transformer.blocks.0.attn.q_ln.weight"),
        qkv_clip: attention.optional_number("clip_qkv", 0.0..=1e6)?,
        softmax_scale: attention.optional_number("softmax_scale", 1e-6..=1e3)?,
        tied: true,
        unpredicted: 0,
    })
}

/// MPT-1B under its first name, `mosaic_gpt` (2.7.1 of the authors' remote code): q/k norms over the full width.
fn mosaic_gpt(fields: &Fields) -> Result<DecoderConfig> {
    if !fields.flag("alibi", false)? {
        return Err(fields.invalid("alibi", "true", "false"));
    }
    fields.absent("logit_scale")?;
    let width = fields.count("d_model", Some(2048), 65_536)?;
    let bias = !fields.flag("no_bias", false)?;
    let heads = fields.count("n_heads", Some(16), 1024)?;
    Ok(DecoderConfig {
        architecture: Architecture::MosaicGpt,
        width,
        layers: fields.count("n_layers", Some(24), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: width * fields.count("mlp_ratio", Some(4), 64)?,
        vocabulary: 0,
        positions_max: fields.positions("max_seq_len")?,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: bias,
        linear_bias: bias,
        position: Position::Alibi {
            bias_max: fields.number("alibi_bias_max", Some(8.0), 1.0..=64.0)?,
            interleaved: false,
        },
        mlp: Mlp::Plain(Activation::Gelu),
        residual: Residual::Sequential,
        qk_norm: fields.flag("attn_qk_ln", false)?,
        qkv_clip: fields.optional_number("attn_clip_qkv", 0.0..=1e6)?,
        softmax_scale: fields.optional_number("softmax_scale", 1e-6..=1e3)?,
        tied: true,
        unpredicted: 0,
    })
}

fn gpt_neox(fields: &Fields) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(6144), 65_536)?;
    let heads = fields.count("num_attention_heads", Some(64), 1024)?;
    fields.divides("num_attention_heads", heads, "hidden_size", width)?;
    let rope = fields.section("rope_parameters")?;
    let share = match rope.optional_number("partial_rotary_factor", 0.0..=1.0)? {
        Some(share) => share,
        None => fields.number("rotary_pct", Some(0.25), 0.0..=1.0)?,
    };
    let theta = match fields.optional_number("rotary_emb_base", 1.0..=1e9)? {
        Some(theta) => theta,
        None => fields.rope_theta()?,
    };
    // The rotated width is the share of a head, rounded down (`modeling_gpt_neox.py`).
    let rotated = ((width / heads) as f32 * share) as usize;
    if !rotated.is_multiple_of(2) {
        return Err(fields.invalid("rotary_pct", "an even number of rotated entries of a head", rotated));
    }
    Ok(DecoderConfig {
        architecture: Architecture::GptNeoX,
        width,
        layers: fields.count("num_hidden_layers", Some(44), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("intermediate_size", Some(24_576), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.positions("max_position_embeddings")?,
        norm: Norm::Layer,
        norm_epsilon: fields.epsilon("layer_norm_eps", 1e-5)?,
        norm_bias: true,
        linear_bias: fields.flag("attention_bias", true)?,
        position: Position::Rope { width: rotated, theta },
        mlp: Mlp::Plain(fields.activation("hidden_act", Some("gelu"))?),
        residual: if fields.flag("use_parallel_residual", true)? { Residual::Parallel } else { Residual::Sequential },
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", false)?,
        unpredicted: 0,
    })
}

fn opt(fields: &Fields) -> Result<DecoderConfig> {
    let width = fields.count("hidden_size", Some(768), 65_536)?;
    if !fields.flag("do_layer_norm_before", true)? {
        return Err(fields.invalid("do_layer_norm_before", "true", "false"));
    }
    if fields.count("word_embed_proj_dim", Some(width), 65_536)? != width {
        return Err(fields.invalid("word_embed_proj_dim", width, "another width"));
    }
    let heads = fields.count("num_attention_heads", Some(12), 1024)?;
    Ok(DecoderConfig {
        architecture: Architecture::Opt,
        width,
        layers: fields.count("num_hidden_layers", Some(12), 1024)?,
        heads,
        kv_heads: heads,
        mlp_width: fields.count("ffn_dim", Some(3072), 1 << 20)?,
        vocabulary: 0,
        positions_max: fields.count("max_position_embeddings", Some(2048), 1 << 20)?,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: true,
        linear_bias: fields.flag("enable_bias", true)?,
        position: Position::Learned { offset: 2 },
        mlp: Mlp::Plain(fields.activation("activation_function", Some("relu"))?),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: fields.flag("tie_word_embeddings", true)?,
        unpredicted: 0,
    })
}

/// What a CLIP configuration calls its width, and the defaults of its class.
struct ClipKeys {
    width: &'static str,
    width_default: Option<usize>,
    mlp_default: Option<usize>,
    layers_default: Option<usize>,
    heads_default: Option<usize>,
    activation_default: Option<&'static str>,
}

impl ClipKeys {
    const IDEFICS: ClipKeys = ClipKeys {
        width: "embed_dim",
        width_default: Some(768),
        mlp_default: Some(5120),
        layers_default: Some(32),
        heads_default: Some(16),
        activation_default: Some("gelu"),
    };
    const TRANSFORMERS: ClipKeys = ClipKeys {
        width: "hidden_size",
        width_default: None,
        mlp_default: None,
        layers_default: None,
        heads_default: None,
        activation_default: Some("quick_gelu"),
    };
}

fn clip(fields: &Fields, keys: ClipKeys, class_token_kept: bool) -> Result<VisionConfig> {
    let width = fields.count(keys.width, keys.width_default, 65_536)?;
    let heads = fields.count("num_attention_heads", keys.heads_default, 1024)?;
    fields.divides("num_attention_heads", heads, keys.width, width)?;
    if fields.count("num_channels", Some(3), 64)? != 3 {
        return Err(fields.invalid("num_channels", 3, "another number"));
    }
    let image_size = fields.count("image_size", Some(224), 4096)?;
    let patch_size = fields.count("patch_size", Some(14), 4096)?;
    if patch_size > image_size {
        return Err(fields.invalid("patch_size", format!("at most the image size {image_size}"), patch_size));
    }
    Ok(VisionConfig {
        width,
        layers: fields.count("num_hidden_layers", keys.layers_default, 1024)?,
        heads,
        mlp_width: fields.count("intermediate_size", keys.mlp_default, 1 << 20)?,
        image_size,
        patch_size,
        activation: fields.activation("hidden_act", keys.activation_default)?,
        norm_epsilon: fields.epsilon("layer_norm_eps", 1e-5)?,
        class_token_kept,
    })
}
