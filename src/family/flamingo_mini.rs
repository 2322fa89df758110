//! flamingo-mini and flamingo-tiny (`dhansmair/flamingo-mini`), as transformers saves their class: OPT or GPT-2, CLIP
//! and the trained parts in one file. Their configuration has the trained parts alone; the rest is told by shapes.

use super::fields::Fields;
use super::language::{GPT2, Language, OPT};
use super::tables::{Section, Table, Tables};
use super::{ChatTemplate, Family, MediaMask, Parts, Preprocessing, Template, clip, open_flamingo};
use crate::checkpoint::Checkpoint;
use crate::config::{
    Activation, DecoderConfig, GatedConfig, Mlp, ModelConfig, Norm, Position, ResamplerConfig, Residual, VisionConfig,
};
use crate::error::{Error, Result};
use crate::image::Crop;
use crate::weights::Names;

/// Captions, all that it was trained on.
fn chat() -> ChatTemplate {
    ChatTemplate {
        name: "flamingo-mini".into(),
        user_after: "Output: ".into(),
        user_after_images: "Output: ".into(),
        answer_after: "<EOC>".into(),
        reserved: ["<EOC>"].map(String::from).to_vec(),
        ..ChatTemplate::default()
    }
}

/// flamingo-mini (`modeling_flamingo.py`): the text `<image>` stands for an image, and what counts of it is the token
/// of `<`, alone or after a space.
pub(super) static FAMILY: Family = Family {
    model_type: "flamingo-mini",
    name: "FlamingoMini",
    template: Template {
        image_tokens: &["<", "\u{120}<"],
        document_end: Some("</s>"),
        turn_end: Some("<EOC>"),
        media_mask: MediaMask::Preceding,
        ..open_flamingo::FAMILY.template
    },
    more_tokens: &[],
    tower: Some(TOWER),
    preprocessing: Preprocessing { crop: Crop::RgbShortestEdgeCentreCrop, class: "CLIP" },
    chats: [chat; 2],
    evaluations: ["flamingo-mini", "flamingo-mini"],
    read,
};

/// What its configurations have that no other's do: they name no `model_type`.
pub(super) const KEY: &str = "xattn_every";

/// What stands before the names of the tower; the embedding of the class token has its width.
pub(super) const TOWER: &str = "flamingo.vision_encoder.vision_model.";
const RESAMPLER: &str = "flamingo.resampler.";
const LANGUAGE: &str = "flamingo.lm.";
/// The level between the number of a layer and its names, where a block stands before it.
const LEVEL: &str = "lm_block";
/// Width of a head in CLIP and in the language models, but for the larger of OPT.
const HEAD_WIDTH: usize = 64;

fn read(fields: &Fields, checkpoint: &Checkpoint) -> Result<Parts> {
    let found = Shapes(checkpoint);
    let (language, decoder) = language_model(&found)?;
    let interval = fields.count(KEY, Some(1), 1024)?;
    let activation = |key: &str| match fields.text(key, Some("gelu"))?.as_str() {
        "sqrelu" => Ok(Activation::SquaredRelu),
        _ => fields.activation(key, Some("gelu")),
    };
    let in_resampler = |layer: usize, rest: &str| format!("{RESAMPLER}layers.{layer}.{rest}");
    let times = format!("{RESAMPLER}time_pos_emb");
    let resampler = ResamplerConfig {
        depth: (0..).take_while(|&layer| checkpoint.contains(&in_resampler(layer, "0.to_q.weight"))).count(),
        latents: found.rows(&format!("{RESAMPLER}latents"))?,
        frame_embeddings: checkpoint.contains(&times).then(|| found.rows(&times)).transpose()?,
        heads: fields.count("resampler_heads", Some(8), 1024)?,
        head_width: fields.count("resampler_dim_head", Some(64), 65_536)?,
        mlp_width: found.rows(&in_resampler(0, "1.1.weight"))?,
        activation: activation("resampler_act")?,
        qk_norm: false,
    };
    let heads = fields.count("xattn_heads", Some(8), 1024)?;
    let gated = GatedConfig {
        layers: GatedConfig::every(interval, 0, decoder.layers),
        heads,
        kv_heads: heads,
        head_width: fields.count("xattn_dim_head", Some(64), 65_536)?,
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        qk_norm: false,
        mlp: Mlp::Plain(activation("xattn_act")?),
        mlp_width: found
            .rows(&format!("{LANGUAGE}{}.0.xattn_block.ffw.1.weight", within(language, language.layers)))?,
        mlp_everywhere: true,
    };
    let config = ModelConfig { vision: tower(&found)?, resampler: Some(resampler), projector: None, gated, decoder };
    let names = names(language, &config);
    Ok(Parts { config, template: FAMILY.template, language_model: language.name, names, marker: None })
}

/// A name of the language model without its base.
fn within(language: &Language, name: &'static str) -> &'static str {
    name.strip_prefix(language.base()).unwrap_or(name)
}

/// What shapes say.
struct Shapes<'a>(&'a Checkpoint);

impl Shapes<'_> {
    fn of(&self, name: &str) -> Result<&[usize]> {
        let missing = || Error::invalid(self.0.file_of(name), name, "a tensor of this name", "none");
        self.0.shape(name).filter(|shape| !shape.contains(&0)).ok_or_else(missing)
    }

    fn rows(&self, name: &str) -> Result<usize> {
        Ok(self.of(name)?.first().copied().unwrap_or(1))
    }

    fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        let shape = self.of(name)?;
        let expected = || Error::invalid(self.0.file_of(name), name, "a matrix", format!("shape {shape:?}"));
        shape.try_into().map_err(|_| expected())
    }

    /// Heads of a width, each so wide.
    fn heads(&self, name: &str, width: usize, head_width: usize) -> Result<usize> {
        if width.is_multiple_of(head_width) {
            return Ok(width / head_width);
        }
        let (expected, found) = (format!("heads of {head_width} columns"), format!("{width} columns"));
        Err(Error::invalid(self.0.file_of(name), name, expected, found))
    }
}

/// OPT or GPT-2, whichever it is.
fn language_model(found: &Shapes) -> Result<(&'static Language, DecoderConfig)> {
    let checkpoint = found.0;
    let opt = checkpoint.contains("flamingo.lm.decoder.embed_tokens.weight");
    let language = if opt { &OPT } else { &GPT2 };
    let name = |rest: &str| format!("{LANGUAGE}{}{rest}", if opt { "decoder." } else { "" });
    let [positions, embedding, norm, first_norm, up] = match opt {
        true => ["embed_positions", "embed_tokens", "final_layer_norm", "self_attn_layer_norm", "fc1"],
        false => ["wpe", "wte", "ln_f", "ln_1", "mlp.c_fc"],
    };
    let layers = within(language, language.layers);
    let in_layer = |layer: usize, rest: &str| {
        let names = ["", "lm_block."].map(|level| format!("{LANGUAGE}{layers}.{layer}.{level}{rest}.weight"));
        names.into_iter().find(|name| checkpoint.contains(name))
    };
    let positions = name(&format!("{positions}.weight"));
    let [rows, width] = found.matrix(&positions)?;
    let [vocabulary, embedding_width] = found.matrix(&name(&format!("{embedding}.weight")))?;
    let head_width = match (opt, width) {
        (true, 2560) => 80,
        (true, 4096..) => 128,
        _ => HEAD_WIDTH,
    };
    // GPT-2's matrices stand (in, out).
    let [first, second] = found.matrix(&in_layer(0, up).unwrap_or_else(|| name(&format!("layers.0.{up}.weight"))))?;
    let offset = if opt { 2 } else { 0 };
    let decoder = DecoderConfig {
        width,
        layers: (0..).take_while(|&layer| in_layer(layer, first_norm).is_some()).count(),
        heads: found.heads(&positions, width, head_width)?,
        kv_heads: width / head_width,
        mlp_width: if opt { first } else { second },
        vocabulary,
        positions_max: rows.saturating_sub(offset).max(1),
        norm: Norm::Layer,
        norm_epsilon: 1e-5,
        norm_bias: true,
        linear_bias: true,
        position: Position::Learned { offset },
        mlp: Mlp::Plain(if opt { Activation::Relu } else { Activation::GeluTanh }),
        residual: Residual::Sequential,
        qk_norm: false,
        qkv_clip: None,
        softmax_scale: None,
        tied: true,
        unpredicted: 0,
        norm_after: opt && !checkpoint.contains(&name(&format!("{norm}.weight"))),
        embedding_width: (embedding_width != width).then_some(embedding_width),
    };
    Ok((language, decoder))
}

/// CLIP of OpenAI, whose class token stays.
fn tower(found: &Shapes) -> Result<VisionConfig> {
    let class = format!("{TOWER}embeddings.class_embedding");
    if !found.0.contains(&class) {
        let way = "`flamant convert --model FOLDER --vision-model CLIP --output OTHER` puts it there";
        return Err(Error::invalid(found.0.file_of(&class), class, format!("CLIP's vision tower too ({way})"), "none"));
    }
    let patches = format!("{TOWER}embeddings.patch_embedding.weight");
    let width = found.rows(&class)?;
    let patch_size = match *found.of(&patches)? {
        [rows, 3, patch, other] if rows == width && patch == other => patch,
        ref shape => {
            let expected = format!("shape [{width}, 3, patch, patch]");
            return Err(Error::invalid(found.0.file_of(&patches), patches, expected, format!("{shape:?}")));
        }
    };
    let grid = (found.rows(&format!("{TOWER}embeddings.position_embedding.weight"))? - 1).isqrt();
    let in_layer = |layer: usize, rest: &str| format!("{TOWER}encoder.layers.{layer}.{rest}.weight");
    Ok(VisionConfig {
        width,
        layers: (0..).take_while(|&layer| found.0.contains(&in_layer(layer, "layer_norm1"))).count(),
        heads: found.heads(&class, width, HEAD_WIDTH)?,
        mlp_width: found.rows(&in_layer(0, "mlp.fc1"))?,
        image_size: grid.max(1) * patch_size,
        patch_size,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
        attention_bias: true,
        class_token_kept: true,
        tiles: None,
    })
}

/// What a checkpoint calls the weights.
fn names(language: &'static Language, config: &ModelConfig) -> Box<dyn Names> {
    let layers = within(language, language.layers);
    let blocks = &config.gated.layers;
    let decoder = Section::new(LANGUAGE, language.table).harmless(language.harmless).without(language.base());
    let sections = vec![
        Section::new(TOWER, clip::TRANSFORMERS).harmless(clip::HARMLESS),
        Section::new(RESAMPLER, RESAMPLER_NAMES),
        Section::new(format!("{LANGUAGE}{layers}.{{}}.xattn_block."), GATED_NAMES).numbered(blocks.clone()),
        Section::new("flamingo.", HEAD_NAMES),
        decoder.wrapped(layers, LEVEL, blocks.clone()),
    ];
    Box::new(Tables { sections, own: &["flamingo."], layouts: (language.layout)(&config.decoder) })
}

const RESAMPLER_NAMES: Table = &[
    ("resampler.latents", "latents"),
    ("resampler.frames", "time_pos_emb"),
    ("resampler.layers.{}.norm_media", "layers.{}.0.norm_media.%"),
    ("resampler.layers.{}.norm_latents", "layers.{}.0.norm_latents.%"),
    ("resampler.layers.{}.query", "layers.{}.0.to_q.%"),
    ("resampler.layers.{}.key_value", "layers.{}.0.to_k.%+layers.{}.0.to_v.%"),
    ("resampler.layers.{}.out", "layers.{}.0.to_out.%"),
    ("resampler.layers.{}.norm_mlp", "layers.{}.1.0.%"),
    ("resampler.layers.{}.up", "layers.{}.1.1.%"),
    ("resampler.layers.{}.down", "layers.{}.1.3.%"),
    ("resampler.norm", "norm.%"),
];

const GATED_NAMES: Table = &[
    ("gated.{}.norm_attention", "attn.norm.%"),
    ("gated.{}.query", "attn.to_q.%"),
    ("gated.{}.key_value", "attn.to_kv.%"),
    ("gated.{}.out", "attn.to_out.%"),
    ("gated.{}.gate_attention", "alpha_attn"),
    ("gated.{}.norm_mlp", "ffw.0.%"),
    ("gated.{}.up", "ffw.1.%"),
    ("gated.{}.down", "ffw.3.%"),
    ("gated.{}.gate_mlp", "alpha_ffw"),
];

const HEAD_NAMES: Table = &[("decoder.head", "lm_head.%")];
