//! The weights a model asks for, under our names, found in a checkpoint under its own names.
//!
//! Model code says `weights.matrix("decoder.layers.3.qkv", 3 * width, width)`; the naming tables below say of which
//! tensors of the checkpoint that matrix is made. Quirks of layout (separate q, k and v; queries, keys and values
//! interleaved head by head) end here. Nothing is copied: a weight is a list of references until a device wants it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::config::{Architecture, Family, ModelConfig};
use crate::error::{Error, Result};

/// A weight that the model asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightId(pub usize);

/// A matrix (or a vector: one row) made of one or more tensors, stacked by rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Our name for it.
    pub name: String,
    /// Rows: output features, table entries, or 1 for a vector.
    pub rows: usize,
    /// Columns: input features, or the length of a vector.
    pub columns: usize,
    /// The checkpoint's tensors, from the first row to the last.
    pub parts: Vec<String>,
    /// How its values stand in the file.
    pub layout: Layout,
}

/// How the values of a weight stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As they are wanted.
    Rows,
    /// Rows stand (head, q/k/v, entry) for so many heads, and are wanted (q/k/v, head, entry).
    Interleaved(usize),
    /// Columns stand where rows are wanted.
    Transposed,
}

/// The checkpoint and the list of what the model takes from it.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    list: Vec<Weight>,
}

/// Where weights come from.
#[derive(Debug)]
enum Source {
    /// Files, with the names that tensors have there.
    Checkpoint(Arc<Checkpoint>, Naming),
    /// Nowhere: whatever shape is asked for is there, and a device makes up its numbers. For measurements.
    Random,
    /// Memory: tensors under our own names. For tests of single operations.
    Values(BTreeMap<String, Values>),
}

/// A tensor in memory.
#[derive(Debug, Clone)]
pub struct Values {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// As many numbers.
    pub values: Vec<f32>,
}

impl Weights {
    /// No weights yet, of this checkpoint.
    pub fn new(checkpoint: Arc<Checkpoint>, config: &ModelConfig) -> Self {
        let naming = Naming::new(config, &checkpoint);
        Weights { source: Source::Checkpoint(checkpoint, naming), list: Vec::new() }
    }

    /// Random numbers in whatever shape is asked for.
    pub fn random() -> Self {
        Weights { source: Source::Random, list: Vec::new() }
    }

    /// Tensors in memory.
    pub fn from_values(values: BTreeMap<String, Values>) -> Self {
        Weights { source: Source::Values(values), list: Vec::new() }
    }

    /// Whether a device is to make up the numbers.
    pub fn are_random(&self) -> bool {
        matches!(self.source, Source::Random)
    }

    /// Every weight asked for so far; a [`WeightId`] is an index into it.
    pub fn list(&self) -> &[Weight] {
        &self.list
    }

    /// Bytes of all tensors in the checkpoint.
    pub fn bytes(&self) -> u64 {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.bytes(),
            Source::Random => 0,
            Source::Values(values) => values.values().map(|tensor| 4 * tensor.values.len() as u64).sum(),
        }
    }

    /// The weight itself.
    pub fn get(&self, id: WeightId) -> &Weight {
        &self.list[id.0]
    }

    /// Asks for the matrix `name` of exactly (rows, columns).
    ///
    /// # Errors
    /// A part that is missing, or shapes that do not add up: file, tensor, expected, found.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<WeightId> {
        if self.are_random() {
            return Ok(self.push_whole(name, rows, columns));
        }
        let id = self.table(name, columns)?;
        self.expect_rows(id, rows)?;
        Ok(id)
    }

    /// Asks for the matrix `name` with as many rows as the file has; `usual` where there is no file.
    pub fn table_of(&mut self, name: &str, usual: usize, columns: usize) -> Result<WeightId> {
        if self.are_random() { Ok(self.push_whole(name, usual, columns)) } else { self.table(name, columns) }
    }

    /// Asks for the matrix `name` with as many rows as the file has.
    pub fn table(&mut self, name: &str, columns: usize) -> Result<WeightId> {
        let parts = self.parts(name, "weight");
        // Parts that may be absent: the added vocabulary of IDEFICS.
        let parts: Vec<String> = parts
            .into_iter()
            .filter_map(|part| match part.strip_suffix('?') {
                Some(part) => self.contains(part).then(|| part.to_owned()),
                None => Some(part),
            })
            .collect();
        let layout = self.layout(name);
        if layout == Layout::Transposed {
            return self.transposed(name, parts, columns);
        }
        let mut rows = 0;
        for part in &parts {
            let shape = self.shape(part)?;
            let found: usize = shape.iter().skip(1).product();
            if shape.is_empty() || found != columns {
                let expected = format!("{columns} columns");
                return Err(Error::invalid(self.file_of(part), part, expected, format!("shape {shape:?}")));
            }
            rows += shape[0];
        }
        if rows == 0 || columns == 0 {
            let shape = format!("({rows}, {columns})");
            return Err(Error::invalid(self.file_of(&parts[0]), &parts[0], "at least one row and column", shape));
        }
        Ok(self.push(Weight { name: name.to_owned(), rows, columns, parts, layout }))
    }

    fn transposed(&mut self, name: &str, parts: Vec<String>, columns: usize) -> Result<WeightId> {
        match *self.shape(&parts[0])? {
            [found, rows] if found == columns && rows > 0 => {
                Ok(self.push(Weight { name: name.to_owned(), rows, columns, parts, layout: Layout::Transposed }))
            }
            ref shape => {
                let (expected, found) = (format!("{columns} rows"), format!("shape {shape:?}"));
                Err(Error::invalid(self.file_of(&parts[0]), &parts[0], expected, found))
            }
        }
    }

    /// Whether the checkpoint has a matrix or norm `name`. What is made up has nothing that may be absent.
    pub fn has(&self, name: &str) -> bool {
        !self.are_random() && self.parts(name, "weight").iter().all(|part| self.contains(part))
    }

    /// Asks for the bias of matrix `name`, or the bias of a norm.
    pub fn bias(&mut self, name: &str, length: usize) -> Result<WeightId> {
        let parts = self.parts(name, "bias");
        self.vector_of(name, parts, length)
    }

    /// Asks for a vector: the weight of a norm, or a parameter that has no `.weight` of its own.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<WeightId> {
        let parts = self.parts(name, "weight");
        self.vector_of(name, parts, length)
    }

    /// Asks for the gate of a gated block: one value, or one for each of `width` columns.
    pub fn gate(&mut self, name: &str, width: usize) -> Result<WeightId> {
        let parts = self.parts(name, "weight");
        let length = self.shape(&parts[0]).map_or(1, |shape| shape.iter().product());
        self.vector_of(name, parts, if length == width { width } else { 1 })
    }

    fn vector_of(&mut self, name: &str, parts: Vec<String>, length: usize) -> Result<WeightId> {
        if self.are_random() {
            return Ok(self.push_whole(name, 1, length));
        }
        let mut found = 0;
        for part in &parts {
            found += self.shape(part)?.iter().product::<usize>();
        }
        if found != length {
            let file = self.file_of(&parts[0]);
            return Err(Error::invalid(file, &parts[0], format!("{length} values"), format!("{found} values")));
        }
        let layout = self.layout(name);
        Ok(self.push(Weight { name: name.to_owned(), rows: 1, columns: length, parts, layout }))
    }

    /// The tensors that make up what we call `name`.
    fn parts(&self, name: &str, kind: &str) -> Vec<String> {
        match &self.source {
            Source::Checkpoint(_, naming) => naming.parts(name, kind),
            Source::Random | Source::Values(_) => vec![format!("{name}.{kind}")],
        }
    }

    fn layout(&self, name: &str) -> Layout {
        match &self.source {
            Source::Checkpoint(_, naming) => naming.layout(name),
            Source::Random | Source::Values(_) => Layout::Rows,
        }
    }

    fn contains(&self, part: &str) -> bool {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.contains(part),
            Source::Random => true,
            Source::Values(values) => values.contains_key(part),
        }
    }

    fn shape(&self, part: &str) -> Result<&[usize]> {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => {
                checkpoint.format(part)?;
                Ok(checkpoint.shape(part).expect("a tensor that has a format has a shape"))
            }
            Source::Random => Ok(&[]),
            Source::Values(values) => {
                let tensor = values.get(part).ok_or_else(|| Error::invalid("memory", part, "a tensor", "none"))?;
                Ok(&tensor.shape)
            }
        }
    }

    /// A weight that is one tensor under our own name, with numbers that are made up.
    fn push_whole(&mut self, name: &str, rows: usize, columns: usize) -> WeightId {
        let parts = vec![format!("{name}.{}", self.list.len())];
        self.push(Weight { name: name.to_owned(), rows, columns, parts, layout: Layout::Rows })
    }

    fn expect_rows(&self, id: WeightId, rows: usize) -> Result<()> {
        let weight = self.get(id);
        if weight.rows == rows {
            return Ok(());
        }
        let file = self.file_of(&weight.parts[0]);
        let parts = weight.parts.join(" + ");
        Err(Error::invalid(file, parts, format!("{rows} rows"), format!("{} rows", weight.rows)))
    }

    /// What is asked for again is there.
    fn push(&mut self, weight: Weight) -> WeightId {
        if let Some(place) = self.list.iter().position(|known| *known == weight) {
            return WeightId(place);
        }
        self.list.push(weight);
        WeightId(self.list.len() - 1)
    }

    /// The formats of all tensors asked for.
    pub fn dtypes(&self) -> impl Iterator<Item = Dtype> {
        let format = |part: &String| match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.format(part).ok(),
            Source::Random => Some(Dtype::Bf16),
            Source::Values(_) => Some(Dtype::F32),
        };
        self.list.iter().flat_map(|weight| &weight.parts).filter_map(format)
    }

    /// The file that a tensor is in.
    pub fn file_of(&self, part: &str) -> &Path {
        match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.file_of(part),
            Source::Random | Source::Values(_) => Path::new("memory"),
        }
    }

    /// The tensors of a weight, in order; mapped, not copied, where the file allows.
    pub fn tensors(&self, id: WeightId) -> Result<Vec<Tensor<'_>>> {
        let tensor = |part: &String| match &self.source {
            Source::Checkpoint(checkpoint, _) => checkpoint.tensor(part),
            Source::Random => unreachable!("what is made up is never read"),
            Source::Values(values) => {
                let Values { shape, values } = &values[part];
                let bytes = Cow::Borrowed(bytemuck::cast_slice(values));
                Ok(Tensor { dtype: Dtype::F32, shape, bytes })
            }
        };
        self.get(id).parts.iter().map(tensor).collect()
    }

    /// All values of a weight as f32, rows in the order the model wants.
    pub fn values(&self, id: WeightId) -> Result<Vec<f32>> {
        let weight = self.get(id);
        let mut values = Vec::with_capacity(weight.rows * weight.columns);
        for tensor in self.tensors(id)? {
            values.extend(to_f32(&tensor));
        }
        Ok(match weight.layout {
            Layout::Rows => values,
            Layout::Interleaved(heads) => uninterleaved(&values, heads, values.len() / (3 * heads)),
            Layout::Transposed => transposed(&values, weight.rows),
        })
    }
}

/// The values of one tensor as f32.
fn to_f32<'a>(tensor: &'a Tensor<'_>) -> Box<dyn Iterator<Item = f32> + 'a> {
    let bytes: &[u8] = &tensor.bytes;
    match tensor.dtype {
        Dtype::F32 => Box::new(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        Dtype::F16 => Box::new(bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())),
        Dtype::Bf16 => Box::new(bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())),
    }
}

/// (columns, rows) to (rows, columns).
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| values.iter().skip(row).step_by(rows)).copied().collect()
}

/// (head, q/k/v, entries) to (q/k/v, head, entries); `entries` values for each pair.
fn uninterleaved(values: &[f32], heads: usize, entries: usize) -> Vec<f32> {
    let mut sorted = Vec::with_capacity(values.len());
    for which in 0..3 {
        for head in 0..heads {
            let from = (head * 3 + which) * entries;
            sorted.extend_from_slice(&values[from..from + entries]);
        }
    }
    sorted
}

/// Our names on the left, the checkpoint's on the right. `{}` is an index, `%` is `weight` or `bias`, `+` stacks rows,
/// and a trailing `?` marks a part that may be absent.
type Table = &'static [(&'static str, &'static str)];

/// Which tables hold, and what a gated block's index means.
#[derive(Debug)]
struct Naming {
    tables: Vec<(&'static str, Table)>,
    /// Heads of GPT-NeoX, whose queries, keys and values stand head by head.
    interleaved_heads: Option<usize>,
    /// open_clip multiplies by its projection from the right.
    projection_transposed: bool,
    /// Decoder layer that gated block `i` is named after: first + i * interval (OpenFlamingo), or `i` itself.
    gated: (usize, usize),
}

impl Naming {
    fn new(config: &ModelConfig, checkpoint: &Checkpoint) -> Naming {
        let decoder = &config.decoder;
        let interleaved_heads = (decoder.architecture == Architecture::GptNeoX).then_some(decoder.heads);
        if config.family == Family::Idefics {
            let tables = vec![("model.vision_model.", CLIP), ("model.", IDEFICS), ("", IDEFICS_VOCABULARY)];
            return Naming { tables, interleaved_heads, projection_transposed: false, gated: (0, 1) };
        }
        let open_clip = checkpoint.contains("vision_encoder.conv1.weight");
        let vision = if open_clip { OPEN_CLIP } else { CLIP };
        let (prefix, language, block): (_, _, Table) = match decoder.architecture {
            Architecture::Llama => ("lang_encoder.", LLAMA, &[("gated.{}", "lang_encoder.model.layers.{}")]),
            Architecture::Mpt => {
                ("lang_encoder.transformer.", MPT, &[("gated.{}", "lang_encoder.transformer.blocks.{}")])
            }
            Architecture::MosaicGpt => {
                ("lang_encoder.transformer.", MOSAIC_GPT, &[("gated.{}", "lang_encoder.transformer.blocks.{}")])
            }
            Architecture::GptNeoX => ("lang_encoder.", GPT_NEOX, &[("gated.{}", "lang_encoder.gpt_neox.layers.{}")]),
            Architecture::Opt => ("lang_encoder.", OPT, &[("gated.{}", "lang_encoder.model.decoder.layers.{}")]),
        };
        let tables =
            vec![("vision_encoder.", vision), ("perceiver.", OPEN_FLAMINGO_RESAMPLER), (prefix, language), ("", block)];
        let gated = (config.gated.first, config.gated.interval);
        Naming { tables, interleaved_heads, projection_transposed: open_clip, gated }
    }

    /// The checkpoint's names of all parts of our `name`.
    fn parts(&self, name: &str, kind: &str) -> Vec<String> {
        // "gated.2.query": the block's prefix comes from its own one-row table, the rest from the block's table.
        let (pattern, mut index) = generalised(name);
        if pattern.starts_with("gated.") {
            index = index.map(|block| self.gated.0 + block * self.gated.1);
        }
        let find =
            |table: Table, wanted: &str| table.iter().find(|(ours, _)| *ours == wanted).map(|(_, theirs)| *theirs);
        let fill = |theirs: &str| {
            let index = index.map(|index| index.to_string()).unwrap_or_default();
            theirs.replace("{}", &index).replace('%', kind)
        };
        for (prefix, table) in &self.tables {
            if let Some(theirs) = find(table, &pattern) {
                return theirs.split('+').map(|part| format!("{prefix}{}", fill(part))).collect();
            }
            let nested = pattern.strip_prefix("gated.{}.").and_then(|rest| find(OPEN_FLAMINGO_GATED, rest));
            if let (Some(block), Some(theirs)) = (find(table, "gated.{}"), nested) {
                return vec![format!("{}.gated_cross_attn_layer.{}", fill(block), fill(theirs))];
            }
        }
        unreachable!("no naming table knows {name}")
    }

    fn layout(&self, name: &str) -> Layout {
        let is_qkv = name.starts_with("decoder.") && name.ends_with(".qkv");
        match self.interleaved_heads.filter(|_| is_qkv) {
            Some(heads) => Layout::Interleaved(heads),
            None if name == "vision.projection" && self.projection_transposed => Layout::Transposed,
            None => Layout::Rows,
        }
    }
}

/// "vision.layers.3.qkv" to ("vision.layers.{}.qkv", 3).
fn generalised(name: &str) -> (String, Option<usize>) {
    let mut index = None;
    let pattern = name.split('.').map(|piece| match piece.parse() {
        Ok(number) => {
            index = Some(number);
            "{}"
        }
        Err(_) => piece,
    });
    let pattern = pattern.collect::<Vec<_>>().join(".");
    (pattern, index)
}

/// CLIP as transformers names it.
const CLIP: Table = &[
    ("vision.class", "embeddings.class_embedding"),
    ("vision.position", "embeddings.position_embedding.%"),
    ("vision.patch", "embeddings.patch_embedding.%"),
    ("vision.norm_pre", "pre_layrnorm.%"),
    ("vision.layers.{}.norm_attention", "encoder.layers.{}.layer_norm1.%"),
    (
        "vision.layers.{}.qkv",
        "encoder.layers.{}.self_attn.q_proj.%+encoder.layers.{}.self_attn.k_proj.%+encoder.layers.{}.self_attn.v_proj.%",
    ),
    ("vision.layers.{}.out", "encoder.layers.{}.self_attn.out_proj.%"),
    ("vision.layers.{}.norm_mlp", "encoder.layers.{}.layer_norm2.%"),
    ("vision.layers.{}.up", "encoder.layers.{}.mlp.fc1.%"),
    ("vision.layers.{}.down", "encoder.layers.{}.mlp.fc2.%"),
    ("vision.norm_post", "post_layernorm.%"),
    ("vision.projection", "visual_projection.%"),
];

/// CLIP as open_clip and OpenAI name it.
const OPEN_CLIP: Table = &[
    ("vision.class", "class_embedding"),
    ("vision.position", "positional_embedding"),
    ("vision.patch", "conv1.%"),
    ("vision.norm_pre", "ln_pre.%"),
    ("vision.layers.{}.norm_attention", "transformer.resblocks.{}.ln_1.%"),
    ("vision.layers.{}.qkv", "transformer.resblocks.{}.attn.in_proj_%"),
    ("vision.layers.{}.out", "transformer.resblocks.{}.attn.out_proj.%"),
    ("vision.layers.{}.norm_mlp", "transformer.resblocks.{}.ln_2.%"),
    ("vision.layers.{}.up", "transformer.resblocks.{}.mlp.c_fc.%"),
    ("vision.layers.{}.down", "transformer.resblocks.{}.mlp.c_proj.%"),
    ("vision.norm_post", "ln_post.%"),
    ("vision.projection", "proj"),
];

/// IDEFICS under `model.`: resampler, gated blocks and decoder.
const IDEFICS: Table = &[
    ("resampler.latents", "perceiver_resampler.latents"),
    ("resampler.layers.{}.norm_media", "perceiver_resampler.blocks.{}.0.context_layer_norm.%"),
    ("resampler.layers.{}.norm_latents", "perceiver_resampler.blocks.{}.0.latents_layer_norm.%"),
    ("resampler.layers.{}.query", "perceiver_resampler.blocks.{}.0.q_proj.%"),
    (
        "resampler.layers.{}.key_value",
        "perceiver_resampler.blocks.{}.0.k_proj.%+perceiver_resampler.blocks.{}.0.v_proj.%",
    ),
    ("resampler.layers.{}.query_norm", "perceiver_resampler.blocks.{}.0.q_layer_norm.%"),
    ("resampler.layers.{}.key_norm", "perceiver_resampler.blocks.{}.0.k_layer_norm.%"),
    ("resampler.layers.{}.out", "perceiver_resampler.blocks.{}.0.output_proj.%"),
    ("resampler.layers.{}.norm_mlp", "perceiver_resampler.blocks.{}.1.ln.%"),
    ("resampler.layers.{}.up", "perceiver_resampler.blocks.{}.1.fc.%"),
    ("resampler.layers.{}.down", "perceiver_resampler.blocks.{}.1.c_proj.%"),
    ("resampler.norm", "perceiver_resampler.layer_norm.%"),
    ("gated.{}.norm_attention", "gated_cross_attn_layers.{}.input_layernorm.%"),
    ("gated.{}.query", "gated_cross_attn_layers.{}.cross_attn.q_proj.%"),
    (
        "gated.{}.key_value",
        "gated_cross_attn_layers.{}.cross_attn.k_proj.%+gated_cross_attn_layers.{}.cross_attn.v_proj.%",
    ),
    ("gated.{}.query_norm", "gated_cross_attn_layers.{}.cross_attn.q_layer_norm.%"),
    ("gated.{}.key_norm", "gated_cross_attn_layers.{}.cross_attn.k_layer_norm.%"),
    ("gated.{}.out", "gated_cross_attn_layers.{}.cross_attn.o_proj.%"),
    ("gated.{}.gate_attention", "gated_cross_attn_layers.{}.alpha_cross_attn"),
    ("gated.{}.norm_mlp", "gated_cross_attn_layers.{}.post_attention_layernorm.%"),
    ("gated.{}.up", "gated_cross_attn_layers.{}.mlp.gate_proj.%+gated_cross_attn_layers.{}.mlp.up_proj.%"),
    ("gated.{}.down", "gated_cross_attn_layers.{}.mlp.down_proj.%"),
    ("gated.{}.gate_mlp", "gated_cross_attn_layers.{}.alpha_dense"),
    ("decoder.embedding", "embed_tokens.%+embed_tokens.additional_embedding.%?"),
    ("decoder.layers.{}.norm_attention", "layers.{}.input_layernorm.%"),
    ("decoder.layers.{}.qkv", "layers.{}.self_attn.q_proj.%+layers.{}.self_attn.k_proj.%+layers.{}.self_attn.v_proj.%"),
    ("decoder.layers.{}.out", "layers.{}.self_attn.o_proj.%"),
    ("decoder.layers.{}.norm_mlp", "layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "layers.{}.mlp.gate_proj.%+layers.{}.mlp.up_proj.%"),
    ("decoder.layers.{}.down", "layers.{}.mlp.down_proj.%"),
    ("decoder.norm", "norm.%"),
];

/// IDEFICS at the top level.
const IDEFICS_VOCABULARY: Table = &[("decoder.head", "lm_head.%+lm_head.additional_fc.%?")];

/// OpenFlamingo's resampler, under `perceiver.`.
const OPEN_FLAMINGO_RESAMPLER: Table = &[
    ("resampler.latents", "latents"),
    ("resampler.frames", "frame_embs"),
    ("resampler.layers.{}.norm_media", "layers.{}.0.norm_media.%"),
    ("resampler.layers.{}.norm_latents", "layers.{}.0.norm_latents.%"),
    ("resampler.layers.{}.query", "layers.{}.0.to_q.%"),
    ("resampler.layers.{}.key_value", "layers.{}.0.to_kv.%"),
    ("resampler.layers.{}.out", "layers.{}.0.to_out.%"),
    ("resampler.layers.{}.norm_mlp", "layers.{}.1.0.%"),
    ("resampler.layers.{}.up", "layers.{}.1.1.%"),
    ("resampler.layers.{}.down", "layers.{}.1.3.%"),
    ("resampler.norm", "norm.%"),
];

/// OpenFlamingo's gated block, under `<decoder layer>.gated_cross_attn_layer.`.
const OPEN_FLAMINGO_GATED: Table = &[
    ("norm_attention", "attn.norm.%"),
    ("query", "attn.to_q.%"),
    ("key_value", "attn.to_kv.%"),
    ("out", "attn.to_out.%"),
    ("gate_attention", "attn_gate"),
    ("norm_mlp", "ff.0.%"),
    ("up", "ff.1.%"),
    ("down", "ff.3.%"),
    ("gate_mlp", "ff_gate"),
];

/// LLaMA of transformers.
const LLAMA: Table = &[
    ("decoder.embedding", "model.embed_tokens.%"),
    ("decoder.layers.{}.norm_attention", "model.layers.{}.input_layernorm.%"),
    (
        "decoder.layers.{}.qkv",
        "model.layers.{}.self_attn.q_proj.%+model.layers.{}.self_attn.k_proj.%+model.layers.{}.self_attn.v_proj.%",
    ),
    ("decoder.layers.{}.out", "model.layers.{}.self_attn.o_proj.%"),
    ("decoder.layers.{}.norm_mlp", "model.layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "model.layers.{}.mlp.gate_proj.%+model.layers.{}.mlp.up_proj.%"),
    ("decoder.layers.{}.down", "model.layers.{}.mlp.down_proj.%"),
    ("decoder.norm", "model.norm.%"),
    ("decoder.head", "lm_head.%"),
];

/// MPT-7B.
const MPT: Table = &[
    ("decoder.embedding", "wte.%"),
    ("decoder.layers.{}.norm_attention", "blocks.{}.norm_1.%"),
    ("decoder.layers.{}.qkv", "blocks.{}.attn.Wqkv.%"),
    ("decoder.layers.{}.query_norm", "blocks.{}.attn.q_ln.%"),
    ("decoder.layers.{}.key_norm", "blocks.{}.attn.k_ln.%"),
    ("decoder.layers.{}.out", "blocks.{}.attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "blocks.{}.norm_2.%"),
    ("decoder.layers.{}.up", "blocks.{}.ffn.up_proj.%"),
    ("decoder.layers.{}.down", "blocks.{}.ffn.down_proj.%"),
    ("decoder.norm", "norm_f.%"),
];

/// MPT-1B, under the names of its first code.
const MOSAIC_GPT: Table = &[
    ("decoder.embedding", "wte.%"),
    ("decoder.layers.{}.norm_attention", "blocks.{}.ln_1.%"),
    ("decoder.layers.{}.qkv", "blocks.{}.attn.Wqkv.%"),
    ("decoder.layers.{}.query_norm", "blocks.{}.attn.q_ln.%"),
    ("decoder.layers.{}.key_norm", "blocks.{}.attn.k_ln.%"),
    ("decoder.layers.{}.out", "blocks.{}.attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "blocks.{}.ln_2.%"),
    ("decoder.layers.{}.up", "blocks.{}.mlp.mlp_up.%"),
    ("decoder.layers.{}.down", "blocks.{}.mlp.mlp_down.%"),
    ("decoder.norm", "ln_f.%"),
];

/// GPT-NeoX of transformers.
const GPT_NEOX: Table = &[
    ("decoder.embedding", "gpt_neox.embed_in.%"),
    ("decoder.layers.{}.norm_attention", "gpt_neox.layers.{}.input_layernorm.%"),
    ("decoder.layers.{}.qkv", "gpt_neox.layers.{}.attention.query_key_value.%"),
    ("decoder.layers.{}.out", "gpt_neox.layers.{}.attention.dense.%"),
    ("decoder.layers.{}.norm_mlp", "gpt_neox.layers.{}.post_attention_layernorm.%"),
    ("decoder.layers.{}.up", "gpt_neox.layers.{}.mlp.dense_h_to_4h.%"),
    ("decoder.layers.{}.down", "gpt_neox.layers.{}.mlp.dense_4h_to_h.%"),
    ("decoder.norm", "gpt_neox.final_layer_norm.%"),
    ("decoder.head", "embed_out.%"),
];

/// OPT of transformers.
const OPT: Table = &[
    ("decoder.embedding", "model.decoder.embed_tokens.%"),
    ("decoder.positions", "model.decoder.embed_positions.%"),
    ("decoder.layers.{}.norm_attention", "model.decoder.layers.{}.self_attn_layer_norm.%"),
    (
        "decoder.layers.{}.qkv",
        "model.decoder.layers.{}.self_attn.q_proj.%+model.decoder.layers.{}.self_attn.k_proj.%+model.decoder.layers.{}.self_attn.v_proj.%",
    ),
    ("decoder.layers.{}.out", "model.decoder.layers.{}.self_attn.out_proj.%"),
    ("decoder.layers.{}.norm_mlp", "model.decoder.layers.{}.final_layer_norm.%"),
    ("decoder.layers.{}.up", "model.decoder.layers.{}.fc1.%"),
    ("decoder.layers.{}.down", "model.decoder.layers.{}.fc2.%"),
    ("decoder.norm", "model.decoder.final_layer_norm.%"),
    ("decoder.head", "lm_head.%"),
];
