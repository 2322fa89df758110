//! The frozen language model: which families there are, what their tensors are called, and which of them go along.

use super::Plan;
use crate::checkpoint::{Checkpoint, read_json};
use crate::config::CONFIG_BYTES_MAX;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers that a model may have.
const LAYERS_MAX: usize = 10_000;

/// A family of language models.
pub struct Family {
    /// `model_type` of its `config.json`.
    model_type: &'static str,
    /// What stands before all names but the head's; some releases leave it out.
    base: &'static str,
    /// The container of the layers.
    pub layers: &'static str,
    /// The input embedding.
    pub embedding: &'static str,
    /// The output matrix.
    head: &'static str,
    /// Whether the output matrix is the embedding where the configuration does not say.
    tied: bool,
    /// Where the configuration has the number of layers and the width.
    layers_key: &'static str,
    width_key: &'static str,
    /// What every layer must have.
    layer_tensors: &'static [&'static str],
    /// What must stand outside the layers, besides the embedding.
    other_tensors: &'static [&'static str],
}

const FAMILIES: [Family; 5] = [
    Family {
        model_type: "mpt",
        base: "transformer.",
        layers: "transformer.blocks",
        embedding: "transformer.wte.weight",
        head: "lm_head.weight",
        tied: true,
        layers_key: "n_layers",
        width_key: "d_model",
        layer_tensors: &[
            "norm_1.weight",
            "attn.Wqkv.weight",
            "attn.out_proj.weight",
            "norm_2.weight",
            "ffn.up_proj.weight",
            "ffn.down_proj.weight",
        ],
        other_tensors: &["transformer.norm_f.weight"],
    },
    Family {
        model_type: "mosaic_gpt",
        base: "transformer.",
        layers: "transformer.blocks",
        embedding: "transformer.wte.weight",
        head: "lm_head.weight",
        tied: true,
        layers_key: "n_layers",
        width_key: "d_model",
        layer_tensors: &[
            "ln_1.weight",
            "attn.Wqkv.weight",
            "attn.out_proj.weight",
            "ln_2.weight",
            "mlp.mlp_up.weight",
            "mlp.mlp_down.weight",
        ],
        other_tensors: &["transformer.ln_f.weight"],
    },
    Family {
        model_type: "gpt_neox",
        base: "gpt_neox.",
        layers: "gpt_neox.layers",
        embedding: "gpt_neox.embed_in.weight",
        head: "embed_out.weight",
        tied: false,
        layers_key: "num_hidden_layers",
        width_key: "hidden_size",
        layer_tensors: &[
            "input_layernorm.weight",
            "input_layernorm.bias",
            "attention.query_key_value.weight",
            "attention.query_key_value.bias",
            "attention.dense.weight",
            "attention.dense.bias",
            "post_attention_layernorm.weight",
            "post_attention_layernorm.bias",
            "mlp.dense_h_to_4h.weight",
            "mlp.dense_h_to_4h.bias",
            "mlp.dense_4h_to_h.weight",
            "mlp.dense_4h_to_h.bias",
        ],
        other_tensors: &["gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"],
    },
    Family {
        model_type: "llama",
        base: "model.",
        layers: "model.layers",
        embedding: "model.embed_tokens.weight",
        head: "lm_head.weight",
        tied: false,
        layers_key: "num_hidden_layers",
        width_key: "hidden_size",
        layer_tensors: &[
            "input_layernorm.weight",
            "self_attn.q_proj.weight",
            "self_attn.k_proj.weight",
            "self_attn.v_proj.weight",
            "self_attn.o_proj.weight",
            "post_attention_layernorm.weight",
            "mlp.gate_proj.weight",
            "mlp.up_proj.weight",
            "mlp.down_proj.weight",
        ],
        other_tensors: &["model.norm.weight"],
    },
    Family {
        model_type: "opt",
        base: "model.",
        layers: "model.decoder.layers",
        embedding: "model.decoder.embed_tokens.weight",
        head: "lm_head.weight",
        tied: true,
        layers_key: "num_hidden_layers",
        width_key: "hidden_size",
        layer_tensors: &[
            "self_attn_layer_norm.weight",
            "self_attn.q_proj.weight",
            "self_attn.k_proj.weight",
            "self_attn.v_proj.weight",
            "self_attn.out_proj.weight",
            "final_layer_norm.weight",
            "fc1.weight",
            "fc2.weight",
        ],
        other_tensors: &["model.decoder.embed_positions.weight"],
    },
];

/// The width that a configuration may state.
const WIDTH_MAX: usize = 1 << 20;

/// Buffers that some releases of transformers saved; they hold nothing that is not computed.
const BUFFERS: [&str; 7] =
    [".inv_freq", ".cos_cached", ".sin_cached", ".attention.bias", ".masked_bias", ".attn_bias", ".alibi"];

/// A language model's folder.
pub struct Language {
    /// The configuration as it stands.
    pub config: Value,
    /// What the names mean.
    pub family: &'static Family,
    /// How many layers there are, and how wide.
    pub layers: usize,
    /// The width of the residual stream.
    pub width: usize,
    embedding_width: usize,
    /// The weights.
    pub weights: Checkpoint,
    /// Whether the embedding serves as output matrix.
    tied: bool,
    /// The family's names of all tensors, with their names in the folder.
    names: BTreeMap<String, String>,
}

impl Language {
    /// Opens a folder and checks that it holds all layers of a family that we know.
    pub fn open(folder: &Path) -> Result<Self> {
        let config_file = folder.join("config.json");
        let config = read_json(&config_file, CONFIG_BYTES_MAX)?;
        let family = family(&config, &config_file)?;
        let layers = positive(&config, family.layers_key, LAYERS_MAX, &config_file)?;
        let width = positive(&config, family.width_key, WIDTH_MAX, &config_file)?;
        // OPT may embed in a narrower space and project.
        let embedding_width = match config.get("word_embed_proj_dim") {
            Some(_) => positive(&config, "word_embed_proj_dim", WIDTH_MAX, &config_file)?,
            None => width,
        };
        let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(family.tied);
        let weights = Checkpoint::open(folder)?;
        let names = family.names(&weights);
        let language = Language { config, family, layers, width, embedding_width, weights, tied, names };
        language.check_complete()?;
        language.check_layers(&config_file)?;
        Ok(language)
    }

    /// Whether a tensor, by the family's name, is a buffer or a second name of the embedding.
    pub fn is_ignored(&self, name: &str) -> bool {
        is_buffer(name) || self.tied && name == self.family.head
    }

    /// Whether the model has a tensor of this name. An output matrix may stand in the checkpoint alone.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name) || name == self.family.head
    }

    fn check_complete(&self) -> Result<()> {
        let Family { layers, layer_tensors, other_tensors, embedding, .. } = self.family;
        let in_layers =
            (0..self.layers).flat_map(|layer| layer_tensors.iter().map(move |rest| format!("{layers}.{layer}.{rest}")));
        let others = other_tensors.iter().chain([embedding]).map(|name| (*name).to_owned());
        match others.chain(in_layers).find(|name| !self.names.contains_key(name)) {
            None => Ok(()),
            Some(name) => Err(Error::invalid(self.weights.path(), name, "a tensor of this name", "none")),
        }
    }

    /// All layers must have the same tensors in the same shapes as the first, and there must be as many as configured.
    fn check_layers(&self, config_file: &Path) -> Result<()> {
        let in_layers = self.names.iter().filter_map(|(name, key)| {
            let (layer, rest) = layer_and_rest(name.strip_prefix(self.family.layers)?.strip_prefix('.')?)?;
            Some((layer, rest, name, key))
        });
        let found = in_layers.clone().map(|(layer, ..)| layer + 1).max().unwrap_or(0);
        if found != self.layers {
            let expected = format!("{found}, as the weights have layers");
            return Err(Error::invalid(config_file, self.family.layers_key, expected, self.layers));
        }
        let rests: BTreeSet<&str> = in_layers.map(|(_, rest, ..)| rest).collect();
        for rest in rests {
            let name = |layer| format!("{}.{layer}.{rest}", self.family.layers);
            let Some(first) = self.names.get(&name(0)) else {
                return Err(Error::invalid(
                    self.weights.path(),
                    name(0),
                    "a tensor of this name, as in other layers",
                    "none",
                ));
            };
            let shape = self.weights.shape(first).unwrap_or_default();
            for layer in 1..self.layers {
                let name = name(layer);
                self.weights.check(self.names.get(&name).unwrap_or(&name), shape)?;
            }
        }
        Ok(())
    }

    /// Adds the language model: the tensors of `checkpoint` that `trained` names, this folder's otherwise. The matrices
    /// over the vocabulary lose the spare rows behind the last token.
    pub fn plan<'a>(
        &'a self,
        trained: &BTreeMap<String, &'a str>,
        checkpoint: &'a Checkpoint,
        vocabulary: usize,
        plan: &mut Plan<'a>,
    ) -> Result<()> {
        // The head is named in any case, so that an untied model without one is refused.
        let names: BTreeSet<&str> = self.names.keys().map(String::as_str).chain([self.family.head]).collect();
        for name in names.into_iter().filter(|name| !self.is_ignored(name)) {
            let (source, key) = match trained.get(name) {
                Some(key) => (checkpoint, *key),
                None => (&self.weights, self.names.get(name).map_or(name, String::as_str)),
            };
            let rows_max = self.check_shape(name, source, key, vocabulary)?;
            plan.add_rows(format!("lang_encoder.{name}"), source, key, rows_max)?;
        }
        Ok(())
    }

    /// Checks a tensor that will be used, and tells how many of its rows to take.
    fn check_shape(&self, name: &str, source: &Checkpoint, key: &str, vocabulary: usize) -> Result<usize> {
        let is_embedding = name == self.family.embedding;
        if !is_embedding && name != self.family.head {
            let original = self.names.get(name).and_then(|key| self.weights.shape(key));
            source.check(key, original.unwrap_or_default())?;
            return Ok(usize::MAX);
        }
        // A head may have fewer rows: LLaMA's knows nothing of the added tokens, and they are never generated then.
        let rows_min = if is_embedding { vocabulary } else { 1 };
        source.format(key)?;
        match source.shape(key).unwrap_or_default() {
            &[rows, columns] if rows >= rows_min && columns == self.embedding_width => Ok(vocabulary),
            found => {
                let expected = format!("at least {rows_min} rows of {}, one for each token", self.embedding_width);
                Err(Error::invalid(source.file_of(key), key, expected, format!("shape {found:?}")))
            }
        }
    }
}

impl Family {
    /// The family's names of a folder's tensors but its buffers, with their names there. Where the embedding stands
    /// without the base, all names but the head's do.
    fn names(&self, weights: &Checkpoint) -> BTreeMap<String, String> {
        let short = self.embedding.strip_prefix(self.base).unwrap_or(self.embedding);
        let base = if !weights.contains(self.embedding) && weights.contains(short) { self.base } else { "" };
        let full = |key: &str| if key == self.head { key.to_owned() } else { format!("{base}{key}") };
        weights.names().filter(|key| !is_buffer(key)).map(|key| (full(key), key.to_owned())).collect()
    }
}

fn is_buffer(name: &str) -> bool {
    BUFFERS.iter().any(|suffix| name.ends_with(suffix))
}

fn family(config: &Value, file: &Path) -> Result<&'static Family> {
    let found = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    FAMILIES.iter().find(|family| family.model_type == found).ok_or_else(|| {
        let known = FAMILIES.map(|family| family.model_type).join(", ");
        Error::invalid(file, "model_type", format!("one of {known}"), format!("\"{found}\""))
    })
}

/// A number from 1 to `max` in a configuration.
fn positive(config: &Value, key: &str, max: usize, file: &Path) -> Result<usize> {
    let found = config.get(key).unwrap_or(&Value::Null);
    match found.as_u64().and_then(|value| usize::try_from(value).ok()) {
        Some(value) if (1..=max).contains(&value) => Ok(value),
        _ => Err(Error::invalid(file, key, format!("a number from 1 to {max}"), found)),
    }
}

/// The folder of a path that may be a file.
pub fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(Path::new("")).to_owned() }
}

/// Splits `7.rest` into the number of a layer and the rest.
pub fn layer_and_rest(name: &str) -> Option<(usize, &str)> {
    let (digits, rest) = name.split_once('.')?;
    let layer = digits.parse().ok().filter(|&layer: &usize| layer < LAYERS_MAX && layer.to_string() == digits)?;
    Some((layer, rest))
}
