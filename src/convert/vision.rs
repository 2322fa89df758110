//! CLIP's vision tower, with the names of open_clip or of transformers. The text tower beside it stays behind.

use super::Plan;
use super::language::{folder_of, layer_and_rest};
use crate::checkpoint::{Checkpoint, is_there, read_json};
use crate::error::{Error, Result};
use crate::family::{CONFIG_BYTES_MAX, Family};
use serde_json::{Value, json};
use std::path::Path;

/// Two ways to name the same tensors.
struct Naming {
    /// What may stand before the tower's names; the first that fits is taken off.
    prefixes: [&'static str; 2],
    patches: &'static str,
    class: &'static str,
    positions: &'static str,
    /// The layer norm before the layers.
    norm: &'static str,
    layers: &'static str,
    layer_norms: [&'static str; 2],
    /// Names of a layer, with rows and columns in units of the width; a column count of 0 is a vector.
    attention: &'static [(&'static str, usize, usize)],
    widening: &'static str,
    narrowing: &'static str,
    /// What follows the tokens that the resampler reads: kept where it is there.
    behind: [&'static str; 2],
    /// The projection into the space shared with text, which stands outside the tower in transformers.
    projection: &'static str,
    projection_outside: bool,
}

const NAMINGS: [Naming; 2] = [
    Naming {
        prefixes: ["visual.", ""],
        patches: "conv1.weight",
        class: "class_embedding",
        positions: "positional_embedding",
        norm: "ln_pre",
        layers: "transformer.resblocks",
        layer_norms: ["ln_1", "ln_2"],
        attention: &[
            ("attn.in_proj_weight", 3, 1),
            ("attn.in_proj_bias", 3, 0),
            ("attn.out_proj.weight", 1, 1),
            ("attn.out_proj.bias", 1, 0),
        ],
        widening: "mlp.c_fc",
        narrowing: "mlp.c_proj",
        behind: ["ln_post.weight", "ln_post.bias"],
        projection: "proj",
        projection_outside: false,
    },
    Naming {
        prefixes: ["vision_model.", ""],
        patches: "embeddings.patch_embedding.weight",
        class: "embeddings.class_embedding",
        positions: "embeddings.position_embedding.weight",
        norm: "pre_layrnorm",
        layers: "encoder.layers",
        layer_norms: ["layer_norm1", "layer_norm2"],
        attention: &[
            ("self_attn.q_proj.weight", 1, 1),
            ("self_attn.q_proj.bias", 1, 0),
            ("self_attn.k_proj.weight", 1, 1),
            ("self_attn.k_proj.bias", 1, 0),
            ("self_attn.v_proj.weight", 1, 1),
            ("self_attn.v_proj.bias", 1, 0),
            ("self_attn.out_proj.weight", 1, 1),
            ("self_attn.out_proj.bias", 1, 0),
        ],
        widening: "mlp.fc1",
        narrowing: "mlp.fc2",
        behind: ["post_layernorm.weight", "post_layernorm.bias"],
        projection: "visual_projection.weight",
        projection_outside: true,
    },
];

/// A vision tower and what its shapes and neighbours tell about it.
pub struct Vision {
    /// The weights.
    pub weights: Checkpoint,
    naming: &'static Naming,
    prefix: &'static str,
    /// The width of the tokens.
    pub width: usize,
    intermediate: usize,
    layers: usize,
    patch: usize,
    /// The side of the image.
    pub image_size: usize,
    details: Details,
}

/// What shapes cannot tell.
struct Details {
    /// The side of the image, where it is said; the patches cover all of it or leave a border.
    image_size: Option<usize>,
    heads: usize,
    activation: String,
    epsilon: f64,
}

impl Vision {
    /// Opens a file or folder of weights and finds the tower in it.
    pub fn open(path: &Path) -> Result<Self> {
        let weights = Checkpoint::open(path)?;
        let found = NAMINGS.iter().flat_map(|naming| naming.prefixes.map(|prefix| (naming, prefix)));
        let found = found.into_iter().find(|(naming, prefix)| weights.contains(&format!("{prefix}{}", naming.patches)));
        let Some((naming, prefix)) = found else {
            let expected = "vision weights with the names of open_clip or of transformers' CLIP";
            return Err(Error::invalid(path, "visual.conv1.weight", expected, "neither"));
        };
        let (width, patch) = match shape(&weights, prefix, naming.patches)? {
            &[width, 3, patch, other] if patch == other && width > 0 && patch > 0 => (width, patch),
            found => return Err(wrong_shape(&weights, prefix, naming.patches, "[width, 3, patch, patch]", found)),
        };
        let image_size = match shape(&weights, prefix, naming.positions)? {
            &[positions, _] if is_grid(positions) => (positions - 1).isqrt() * patch,
            found => return Err(wrong_shape(&weights, prefix, naming.positions, "a square grid and one more", found)),
        };
        let in_layers = format!("{prefix}{}.", naming.layers);
        let found = weights.names().filter_map(|name| layer_and_rest(name.strip_prefix(&in_layers)?));
        let layers = found.map(|(layer, _)| layer + 1).max().unwrap_or(0);
        let first = format!("{}.0.{}.weight", naming.layers, naming.widening);
        let intermediate = match shape(&weights, prefix, &first)? {
            &[rows, columns] if rows > 0 && columns == width => rows,
            found => return Err(wrong_shape(&weights, prefix, &first, &format!("[intermediate, {width}]"), found)),
        };
        let details = details(&folder_of(path), width)?;
        let covered = |size: &usize| size / patch == image_size / patch;
        let image_size = details.image_size.filter(covered).unwrap_or(image_size);
        Ok(Vision { weights, naming, prefix, width, intermediate, layers, patch, image_size, details })
    }

    /// The tower's part of `config.json`.
    pub fn config(&self) -> Value {
        json!({
            "hidden_size": self.width,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.details.heads,
            "image_size": self.image_size,
            "patch_size": self.patch,
            "hidden_act": self.details.activation,
            "layer_norm_eps": self.details.epsilon,
        })
    }

    /// Adds the tower under `vision_encoder.`.
    pub fn plan<'a>(&'a self, plan: &mut Plan<'a>) -> Result<()> {
        for (name, shape) in self.shapes() {
            let key = self.key(&name);
            self.weights.check(&key, &shape)?;
            plan.add(format!("vision_encoder.{name}"), &self.weights, &key)?;
        }
        let projection_prefix = if self.naming.projection_outside { "" } else { self.prefix };
        let behind = self.naming.behind.map(|name| (name, self.key(name)));
        let projection = (self.naming.projection, format!("{projection_prefix}{}", self.naming.projection));
        for (name, key) in behind.into_iter().chain([projection]).filter(|(_, key)| self.weights.contains(key)) {
            plan.add(format!("vision_encoder.{name}"), &self.weights, &key)?;
        }
        Ok(())
    }

    /// Adds the tower to a model of a family whose models may be saved without it.
    ///
    /// # Errors
    /// A family whose models have theirs; a model that has it; the names of open_clip.
    pub fn plan_inside<'a>(&'a self, family: &Family, model: &Checkpoint, plan: &mut Plan<'a>) -> Result<()> {
        let found = self.weights.path().display();
        let refuse = |expected: &str| Err(Error::argument(format!("vision-model: expected {expected}, found {found}")));
        let Some(prefix) = family.tower else { return refuse("none, as the model has its tower") };
        if model.names().any(|name| name.starts_with(prefix)) {
            return refuse("none, as the model has its tower");
        }
        if !self.naming.projection_outside {
            return refuse("the names of transformers' CLIP");
        }
        for (name, shape) in self.shapes() {
            let key = self.key(&name);
            self.weights.check(&key, &shape)?;
            plan.add(format!("{prefix}{name}"), &self.weights, &key)?;
        }
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Everything between pixels and tokens.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (naming, width, hidden) = (self.naming, self.width, self.intermediate);
        let positions = (self.image_size / self.patch).pow(2) + 1;
        let mut shapes = vec![
            (naming.patches.to_owned(), vec![width, 3, self.patch, self.patch]),
            (naming.class.to_owned(), vec![width]),
            (naming.positions.to_owned(), vec![positions, width]),
        ];
        shapes.extend(pair(naming.norm, vec![width], width));
        for layer in (0..self.layers).map(|layer| format!("{}.{layer}", naming.layers)) {
            for name in naming.layer_norms {
                shapes.extend(pair(&format!("{layer}.{name}"), vec![width], width));
            }
            shapes.extend(naming.attention.iter().map(|&(name, rows, columns)| {
                let shape = if columns == 0 { vec![rows * width] } else { vec![rows * width, columns * width] };
                (format!("{layer}.{name}"), shape)
            }));
            shapes.extend(pair(&format!("{layer}.{}", naming.widening), vec![hidden, width], hidden));
            shapes.extend(pair(&format!("{layer}.{}", naming.narrowing), vec![width, hidden], width));
        }
        shapes
    }
}

/// A weight of some shape and its bias.
fn pair(name: &str, weight: Vec<usize>, bias: usize) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.weight"), weight), (format!("{name}.bias"), vec![bias])]
}

fn shape<'a>(weights: &'a Checkpoint, prefix: &str, name: &str) -> Result<&'a [usize]> {
    let key = format!("{prefix}{name}");
    weights.shape(&key).ok_or_else(|| Error::invalid(weights.path(), &key, "a tensor of this name", "none"))
}

fn wrong_shape(weights: &Checkpoint, prefix: &str, name: &str, expected: &str, found: &[usize]) -> Error {
    let key = format!("{prefix}{name}");
    Error::invalid(weights.file_of(&key), &key, format!("shape {expected}"), format!("{found:?}"))
}

/// Whether positions are those of a square grid and of the class token.
fn is_grid(positions: usize) -> bool {
    (2..1 << 24).contains(&positions) && (positions - 1).isqrt().pow(2) == positions - 1
}

/// Heads of a CLIP tower by its width, where nothing else tells: heads are 64 wide but in the three largest towers of
/// open_clip, which all have 16 heads (ViT-H, g and bigG). Widths below that of ViT-Tiny, or that 64 does not divide,
/// are those of toy models: heads of 16 there, or else a single one.
pub fn vision_heads(width: usize) -> usize {
    match width {
        1280 | 1408 | 1664 => 16,
        width if width >= 192 && width.is_multiple_of(64) => width / 64,
        width if width.is_multiple_of(16) => width / 16,
        _ => 1,
    }
}

/// What a configuration beside the weights says if it is of a tower of this width; CLIP's usual values otherwise.
fn details(folder: &Path, width: usize) -> Result<Details> {
    for (name, read) in [
        ("open_clip_config.json", of_open_clip as fn(&Value, usize) -> Option<Details>),
        ("config.json", of_transformers),
    ] {
        let file = folder.join(name);
        if !is_there(&file) {
            continue;
        }
        if let Some(details) = read(&read_json(&file, CONFIG_BYTES_MAX)?, width) {
            if details.heads == 0 || !width.is_multiple_of(details.heads) {
                let expected = format!("heads that divide the width {width}");
                return Err(Error::invalid(file, "num_attention_heads", expected, details.heads));
            }
            return Ok(details);
        }
    }
    Ok(Details { image_size: None, heads: vision_heads(width), activation: "quick_gelu".to_owned(), epsilon: 1e-5 })
}

fn of_open_clip(config: &Value, width: usize) -> Option<Details> {
    let model = config.get("model_cfg").unwrap_or(config);
    let tower = model.get("vision_cfg")?;
    if tower.get("width")?.as_u64()? != width as u64 {
        return None;
    }
    let head_width = tower.get("head_width").and_then(Value::as_u64).unwrap_or(64).max(1) as usize;
    let quick = model.get("quick_gelu").and_then(Value::as_bool).unwrap_or(false);
    Some(Details {
        image_size: tower.get("image_size").and_then(Value::as_u64).map(|size| size as usize),
        heads: width / head_width,
        activation: if quick { "quick_gelu" } else { "gelu" }.to_owned(),
        epsilon: 1e-5,
    })
}

/// transformers leaves out what equals the defaults of its class.
fn of_transformers(config: &Value, width: usize) -> Option<Details> {
    let model_type = config.get("model_type")?.as_str()?;
    let tower = match model_type {
        "clip" => config.get("vision_config")?,
        "clip_vision_model" => config.get("vision_config").unwrap_or(config),
        _ => return None,
    };
    let number = |key: &str, default: u64| tower.get(key).and_then(Value::as_u64).unwrap_or(default);
    if number("hidden_size", 768) != width as u64 {
        return None;
    }
    Some(Details {
        image_size: Some(number("image_size", 224) as usize),
        heads: number("num_attention_heads", 12) as usize,
        activation: tower.get("hidden_act").and_then(Value::as_str).unwrap_or("quick_gelu").to_owned(),
        epsilon: tower.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-5),
    })
}
