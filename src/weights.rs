//! The weights a model asks for, under the model's names, found in a checkpoint under its own names.
//!
//! Model code says `weights.matrix("decoder.layers.3.qkv", 3 * width, width)`; the [`Names`] of its family say of which
//! tensors of the checkpoint that matrix is made. Quirks of layout (separate q, k and v; queries, keys and values
//! interleaved head by head) end here. Nothing is copied: a weight is a list of references until a device wants it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Dtype, Tensor};
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

/// What a checkpoint calls the weights of a model. A family makes it.
pub trait Names: fmt::Debug + Send + Sync {
    /// What the weight `name` is made of, or the bias `name.bias`; none if models of the family have no such weight.
    fn sources(&self, name: &str) -> Option<Sources>;
}

/// Of what a weight is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Tensors of the checkpoint, from the first row to the last.
    pub parts: Vec<Part>,
    /// How the values stand in them.
    pub layout: Layout,
}

/// A tensor of which a weight is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the checkpoint.
    pub tensor: String,
    /// Whether a checkpoint may go without, and the weight without its rows.
    pub optional: bool,
}

/// Tensors in memory have the names of the weights.
#[derive(Debug)]
struct Plain;

impl Names for Plain {
    fn sources(&self, name: &str) -> Option<Sources> {
        Some(Sources { parts: vec![Part { tensor: name.to_owned(), optional: false }], layout: Layout::Rows })
    }
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
    names: Box<dyn Names>,
    list: Vec<Weight>,
}

/// Where weights come from.
#[derive(Debug)]
enum Source {
    /// Files.
    Checkpoint(Arc<Checkpoint>),
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
    /// No weights yet, of this checkpoint, whose tensors have these names.
    pub fn new(checkpoint: Arc<Checkpoint>, names: Box<dyn Names>) -> Self {
        Weights { source: Source::Checkpoint(checkpoint), names, list: Vec::new() }
    }

    /// Random numbers in whatever shape is asked for.
    pub fn random() -> Self {
        Weights { source: Source::Random, names: Box::new(Plain), list: Vec::new() }
    }

    /// Tensors in memory.
    pub fn from_values(values: BTreeMap<String, Values>) -> Self {
        Weights { source: Source::Values(values), names: Box::new(Plain), list: Vec::new() }
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
            Source::Checkpoint(checkpoint) => checkpoint.bytes(),
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
        let (parts, layout) = self.sources(name);
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
        let there = |part: &Part| part.optional || self.contains(&part.tensor);
        !self.are_random() && self.names.sources(name).is_some_and(|sources| sources.parts.iter().all(there))
    }

    /// Asks for the bias of matrix `name`, or the bias of a norm.
    pub fn bias(&mut self, name: &str, length: usize) -> Result<WeightId> {
        self.vector(&format!("{name}.bias"), length)
    }

    /// Asks for a vector: the weight of a norm, or a parameter that has no `.weight` of its own.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<WeightId> {
        if self.are_random() {
            return Ok(self.push_whole(name, 1, length));
        }
        let (parts, layout) = self.sources(name);
        let mut found = 0;
        for part in &parts {
            found += self.shape(part)?.iter().product::<usize>();
        }
        if found != length {
            let file = self.file_of(&parts[0]);
            return Err(Error::invalid(file, &parts[0], format!("{length} values"), format!("{found} values")));
        }
        Ok(self.push(Weight { name: name.to_owned(), rows: 1, columns: length, parts, layout }))
    }

    /// Asks for the gate of a gated block: one value, or one for each of `width` columns.
    pub fn gate(&mut self, name: &str, width: usize) -> Result<WeightId> {
        let (parts, _) = self.sources(name);
        let length = self.shape(&parts[0]).map_or(1, |shape| shape.iter().product());
        self.vector(name, if length == width { width } else { 1 })
    }

    /// The tensors that make up what the model calls `name`, without those that a checkpoint may and does go without.
    fn sources(&self, name: &str) -> (Vec<String>, Layout) {
        let Sources { parts, layout } = self.names.sources(name).expect("a family names what its models ask for");
        let there = parts.into_iter().filter(|part| !part.optional || self.contains(&part.tensor));
        (there.map(|part| part.tensor).collect(), layout)
    }

    fn contains(&self, part: &str) -> bool {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.contains(part),
            Source::Random => true,
            Source::Values(values) => values.contains_key(part),
        }
    }

    fn shape(&self, part: &str) -> Result<&[usize]> {
        match &self.source {
            Source::Checkpoint(checkpoint) => {
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
            Source::Checkpoint(checkpoint) => checkpoint.format(part).ok(),
            Source::Random => Some(Dtype::Bf16),
            Source::Values(_) => Some(Dtype::F32),
        };
        self.list.iter().flat_map(|weight| &weight.parts).filter_map(format)
    }

    /// The file that a tensor is in.
    pub fn file_of(&self, part: &str) -> &Path {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.file_of(part),
            Source::Random | Source::Values(_) => Path::new("memory"),
        }
    }

    /// The tensors of a weight, in order; mapped, not copied, where the file allows.
    pub fn tensors(&self, id: WeightId) -> Result<Vec<Tensor<'_>>> {
        let tensor = |part: &String| match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.tensor(part),
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
