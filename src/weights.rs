//! The weights a model asks for, under the model's names, found in a checkpoint under its own names.
//!
//! Model code says `weights.stacked("decoder.layers.3.qkv", &[width, width, width], width)`; the [`Names`] of its family
//! say of which tensors of the checkpoint that matrix is made. Quirks of layout (separate q, k and v; queries, keys and
//! values interleaved head by head) end here. Nothing is copied: a weight is a list of references until a device wants
//! it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

pub use crate::checkpoint::Format;
use crate::checkpoint::quantised::{Owned, Quantised};
use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::error::{Error, Result};
use crate::graph::Weight;

/// What a weight is to those who read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows that are multiplied or picked, as many as there may be.
    Matrix,
    /// A bias, factors of a norm, a gate: few numbers, which devices keep as f32.
    Vector,
}

/// What a checkpoint calls the weights of a model. A family makes it.
pub trait Names: fmt::Debug + Send + Sync {
    /// What the weight `name` is made of, or the bias `name.bias`; none if models of the family have no such weight.
    fn sources(&self, name: &str) -> Option<Sources>;

    /// Whether a tensor is one of the model's own, so that there is something wrong if the model does not use it.
    fn owns(&self, tensor: &str) -> bool;
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

    fn owns(&self, _: &str) -> bool {
        true
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
    /// Behind as many columns as a block of them has stand the columns of so many blocks by turns; the blocks are
    /// wanted one after the other.
    AlternatingColumns(usize),
    /// A table, and a gate: their product is wanted, the gate as tanh(gate).
    Gated,
    /// A table (ratio, tile, row) for so many rows of a tile, made of six tensors: the class embedding, which comes to
    /// row 0; positions (row) and their gate, which fades them out and positions (ratio, tile, row) in; an embedding
    /// (ratio, tile) and its gate, which comes to all rows but row 0.
    TilePositions(usize),
}

impl Layout {
    /// Whether the values of a weight stand in its parts one after the other, each with rows of its own.
    fn is_stacked(self) -> bool {
        !matches!(self, Layout::Transposed | Layout::Gated | Layout::TilePositions(_))
    }

    /// Whether it is one of columns, which a bias does not have.
    fn is_of_columns(self) -> bool {
        matches!(self, Layout::Transposed | Layout::AlternatingColumns(_))
    }

    /// How many values each part of a matrix has that is not stacked.
    fn part_sizes(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Layout::Gated => vec![rows * columns, 1],
            Layout::TilePositions(tokens) => {
                vec![columns, tokens * columns, 1, rows * columns, rows / tokens * columns, 1]
            }
            _ => unreachable!("{self:?}: its parts have rows"),
        }
    }
}

/// A weight that the model asked for, and where it is stored: in one or more tensors, stacked by rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The model's name for it.
    pub name: String,
    /// What plans call it.
    pub weight: Weight,
    /// What it is to those who read it.
    pub kind: Kind,
    /// That of its tensors.
    pub format: Format,
    /// The checkpoint's tensors, from the first row to the last.
    pub parts: Vec<String>,
    /// How its values stand in the file.
    pub layout: Layout,
}

/// The checkpoint and the list of what the model takes from it.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    names: Box<dyn Names>,
    list: Vec<Stored>,
    /// Tensors that the model knows of and has no use for.
    known: BTreeSet<String>,
}

/// Where weights come from.
#[derive(Debug)]
enum Source {
    /// Files.
    Checkpoint(Arc<Checkpoint>),
    /// Nowhere: whatever shape is asked for is there, and a device makes up its numbers. For measurements.
    Random,
    /// Memory: tensors under the names of the weights. For tests of single operations.
    Values(BTreeMap<String, Values>),
}

/// A tensor in memory.
#[derive(Debug, Clone)]
pub enum Values {
    /// Numbers.
    Plain {
        /// Outermost dimension first.
        shape: Vec<usize>,
        /// As many numbers.
        values: Vec<f32>,
    },
    /// A matrix in few bits: its shape, and all that it has.
    Quantised([usize; 2], Owned),
}

impl Values {
    /// Numbers of a shape, outermost dimension first.
    pub fn plain(shape: Vec<usize>, values: Vec<f32>) -> Values {
        Values::Plain { shape, values }
    }

    /// A matrix in few bits, with codes of its own.
    ///
    /// # Panics
    /// Parts of it that do not fit each other.
    pub fn quantised(matrix: Owned) -> Values {
        matrix.view(&[]).check();
        Values::Quantised([matrix.rows, matrix.columns], matrix)
    }

    fn shape(&self) -> &[usize] {
        match self {
            Values::Plain { shape, .. } => shape,
            Values::Quantised(shape, _) => shape,
        }
    }

    fn format(&self) -> Format {
        match self {
            Values::Plain { .. } => Format::F32,
            Values::Quantised(_, matrix) => matrix.view(&[]).format(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Values::Plain { values, .. } => size_of_val(values.as_slice()) as u64,
            Values::Quantised([rows, columns], _) => self.format().bytes(*rows, *columns),
        }
    }

    fn part(&self) -> PartValues<'_> {
        match self {
            Values::Plain { shape, values } => {
                let bytes = Cow::Borrowed(bytemuck::cast_slice(values));
                PartValues::Plain(Tensor { dtype: Dtype::F32, shape, bytes })
            }
            Values::Quantised(_, matrix) => PartValues::Quantised(matrix.view(&[])),
        }
    }
}

/// A part of a weight: rows of it, as they lie in memory.
#[derive(Debug, Clone)]
pub enum PartValues<'a> {
    /// Numbers.
    Plain(Tensor<'a>),
    /// Codes, with what makes numbers of them.
    Quantised(Quantised<'a>),
}

impl PartValues<'_> {
    /// Rows of a part of a matrix.
    pub fn rows(&self) -> usize {
        match self {
            PartValues::Plain(tensor) => tensor.shape[0],
            PartValues::Quantised(matrix) => matrix.rows,
        }
    }

    /// All its numbers as f32.
    fn to_f32(&self) -> Vec<f32> {
        match self {
            PartValues::Plain(tensor) => to_f32(tensor).collect(),
            PartValues::Quantised(matrix) => matrix.values(),
        }
    }
}

/// How many rows a matrix is to have, or values a vector.
enum Wanted<'a> {
    /// These blocks, one after the other. Where each is a tensor, each must have its rows.
    Blocks(&'a [usize]),
    /// As many as the file has, within bounds.
    Between(RangeInclusive<usize>),
}

impl Weights {
    /// No weights yet, of this checkpoint, whose tensors have these names.
    pub fn new(checkpoint: Arc<Checkpoint>, names: Box<dyn Names>) -> Self {
        Weights::of(Source::Checkpoint(checkpoint), names)
    }

    /// Random numbers in whatever shape is asked for.
    pub fn random() -> Self {
        Weights::of(Source::Random, Box::new(Plain))
    }

    /// Tensors in memory.
    pub fn from_values(values: BTreeMap<String, Values>) -> Self {
        Weights::of(Source::Values(values), Box::new(Plain))
    }

    fn of(source: Source, names: Box<dyn Names>) -> Self {
        Weights { source, names, list: Vec::new(), known: BTreeSet::new() }
    }

    /// Whether a device is to make up the numbers.
    pub fn are_random(&self) -> bool {
        matches!(self.source, Source::Random)
    }

    /// Every weight asked for so far, each at the place that its handle names.
    pub fn list(&self) -> &[Stored] {
        &self.list
    }

    /// Bytes of all tensors in the checkpoint.
    pub fn bytes(&self) -> u64 {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.bytes(),
            Source::Random => 0,
            Source::Values(values) => values.values().map(Values::bytes).sum(),
        }
    }

    /// Where a weight is stored.
    pub fn get(&self, weight: Weight) -> &Stored {
        &self.list[weight.id]
    }

    /// Asks for the matrix `name` of exactly (rows, columns).
    ///
    /// # Errors
    /// A part that is missing, or shapes that do not add up: file, tensor, expected, found.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        self.stacked(name, &[rows], columns)
    }

    /// Asks for the matrix `name` that is blocks of so many rows, one after the other.
    ///
    /// # Errors
    /// As for [`Weights::matrix`].
    pub fn stacked(&mut self, name: &str, blocks: &[usize], columns: usize) -> Result<Weight> {
        self.ask(name, Kind::Matrix, Wanted::Blocks(blocks), columns)
    }

    /// Asks for the matrix `name` with as many rows as the file has, or the most where there is no file.
    ///
    /// # Errors
    /// As for [`Weights::matrix`].
    pub fn table(&mut self, name: &str, rows: RangeInclusive<usize>, columns: usize) -> Result<Weight> {
        self.ask(name, Kind::Matrix, Wanted::Between(rows), columns)
    }

    /// Asks for the bias of the matrix `name`, which is such blocks, or of the norm `name`.
    ///
    /// # Errors
    /// As for [`Weights::matrix`].
    pub fn bias(&mut self, name: &str, blocks: &[usize]) -> Result<Weight> {
        self.ask(&format!("{name}.bias"), Kind::Vector, Wanted::Blocks(blocks), 1)
    }

    /// Asks for a vector: the weight of a norm, or a parameter that has no `.weight` of its own.
    ///
    /// # Errors
    /// As for [`Weights::matrix`].
    pub fn vector(&mut self, name: &str, length: usize) -> Result<Weight> {
        self.ask(name, Kind::Vector, Wanted::Blocks(&[length]), 1)
    }

    /// Asks for the gate of a gated block: one value, or one for each of `width` columns.
    ///
    /// # Errors
    /// As for [`Weights::matrix`].
    pub fn gate(&mut self, name: &str, width: usize) -> Result<Weight> {
        let (parts, _) = self.sources(name);
        let length = self.shape(&parts[0]).map_or(1, |shape| shape.iter().product());
        self.vector(name, if length == width { width } else { 1 })
    }

    /// Whether the checkpoint has a matrix or norm `name`, which the model can do without. What is made up has nothing
    /// of the kind.
    pub fn has(&mut self, name: &str) -> bool {
        let Some(Sources { parts, .. }) = self.names.sources(name) else { return false };
        let there = !self.are_random() && parts.iter().all(|part| part.optional || self.contains(&part.tensor));
        self.known.extend(parts.into_iter().map(|part| part.tensor));
        there
    }

    /// Knows the matrix `name` for a second name of `weight`, if the checkpoint has it at all.
    ///
    /// # Errors
    /// Another shape than that of `weight`, or other numbers: file, tensor, expected, found.
    pub fn same(&mut self, name: &str, weight: Weight) -> Result<()> {
        if self.has(name) {
            let (parts, _) = self.sources(name);
            self.measure(Kind::Matrix, &parts, &Wanted::Blocks(&[weight.rows]), weight.columns)?;
            self.check_equal(&parts, &self.get(weight).parts)?;
        }
        Ok(())
    }

    /// That tensors hold the numbers of others of their shapes: where they do not, transformers 4 takes the others and
    /// transformers 5 these.
    fn check_equal(&self, parts: &[String], others: &[String]) -> Result<()> {
        let Source::Checkpoint(checkpoint) = &self.source else { return Ok(()) };
        for (part, other) in parts.iter().zip(others) {
            let differ = match (part_of(checkpoint, part)?, part_of(checkpoint, other)?) {
                (PartValues::Plain(found), PartValues::Plain(wanted)) => {
                    (found.dtype, &found.shape) == (wanted.dtype, &wanted.shape) && found.bytes != wanted.bytes
                }
                (PartValues::Quantised(found), PartValues::Quantised(wanted)) => {
                    found.format() == wanted.format() && found != wanted
                }
                _ => false,
            };
            if differ {
                let expected = format!("the numbers of {other}, to which the configuration ties it");
                return Err(Error::invalid(checkpoint.file_of(part), part, expected, "others"));
            }
        }
        Ok(())
    }

    /// Refuses a checkpoint with tensors of the model's own that the model does not use: then its configuration is not
    /// that of these weights.
    ///
    /// # Errors
    /// The first such tensor, with its file.
    pub fn refuse_unused(&self) -> Result<()> {
        let Source::Checkpoint(checkpoint) = &self.source else { return Ok(()) };
        let used = self.used();
        let is_unused = |tensor: &&str| !used.contains(tensor) && !self.known.contains(*tensor);
        match checkpoint.names().filter(is_unused).find(|tensor| self.names.owns(tensor)) {
            None => Ok(()),
            Some(tensor) => {
                let expected = "only tensors that the model of config.json uses";
                Err(Error::invalid(checkpoint.file_of(tensor), tensor, expected, "one that it does not"))
            }
        }
    }

    /// The tensors that weights are made of.
    pub fn used(&self) -> BTreeSet<&str> {
        self.list.iter().flat_map(|stored| &stored.parts).map(String::as_str).collect()
    }

    fn ask(&mut self, name: &str, kind: Kind, wanted: Wanted, columns: usize) -> Result<Weight> {
        let (parts, layout) = self.sources(name);
        let layout = match kind {
            Kind::Vector if layout.is_of_columns() => Layout::Rows,
            _ => layout,
        };
        let rows = match layout {
            _ if self.are_random() => match wanted {
                Wanted::Blocks(blocks) => blocks.iter().sum(),
                Wanted::Between(rows) => *rows.end(),
            },
            Layout::Transposed => self.measure_transposed(&parts[0], &wanted, columns)?,
            layout if layout.is_stacked() => self.measure(kind, &parts, &wanted, columns)?,
            layout => self.measure_computed(layout, &parts, &wanted, columns)?,
        };
        let mut formats = parts.iter().map(|part| self.format(part));
        let first = formats.next().expect("a weight has a part")?;
        let format = formats.try_fold(first, |all, format| Ok(all.common(format?)))?;
        let (rows, columns) = match kind {
            Kind::Matrix => (rows, columns),
            Kind::Vector => (1, rows),
        };
        let asked_before =
            |known: &&Stored| known.name == name && (known.weight.rows, known.weight.columns) == (rows, columns);
        if let Some(known) = self.list.iter().find(asked_before) {
            return Ok(known.weight);
        }
        let weight = Weight { id: self.list.len(), rows, columns };
        self.list.push(Stored { name: name.to_owned(), weight, kind, format, parts, layout });
        Ok(weight)
    }

    /// Rows of a matrix of these parts, or values of a vector.
    fn measure(&self, kind: Kind, parts: &[String], wanted: &Wanted, columns: usize) -> Result<usize> {
        let unit = match kind {
            Kind::Matrix => "rows",
            Kind::Vector => "values",
        };
        let differs = |parts: &[String], expected: String, found: usize| {
            let (expected, found) = (format!("{expected} {unit}"), format!("{found} {unit}"));
            Err(Error::invalid(self.file_of(&parts[0]), parts.join(" + "), expected, found))
        };
        let found = parts.iter().map(|part| self.rows(kind, part, columns)).collect::<Result<Vec<usize>>>()?;
        let sum: usize = found.iter().sum();
        match wanted {
            Wanted::Blocks(blocks) if blocks.len() == parts.len() => {
                if let Some(at) = (0..parts.len()).find(|&at| blocks[at] != found[at]) {
                    return differs(&parts[at..=at], blocks[at].to_string(), found[at]);
                }
            }
            Wanted::Blocks(blocks) => {
                let rows: usize = blocks.iter().sum();
                if sum != rows {
                    return differs(parts, rows.to_string(), sum);
                }
            }
            Wanted::Between(rows) if !rows.contains(&sum) => {
                let (least, most) = (rows.start(), rows.end());
                let expected = if least == most { most.to_string() } else { format!("{least} to {most}") };
                return differs(parts, expected, sum);
            }
            Wanted::Between(_) => {}
        }
        Ok(sum)
    }

    /// Rows of a tensor that must have so many columns, or values of one that may have any shape.
    fn rows(&self, kind: Kind, part: &str, columns: usize) -> Result<usize> {
        let shape = self.shape(part)?;
        if kind == Kind::Vector {
            return Ok(shape.iter().product());
        }
        let refuse = |expected: String| Error::invalid(self.file_of(part), part, expected, format!("shape {shape:?}"));
        match shape {
            [0, ..] => Err(refuse("at least one row".to_owned())),
            [rows, rest @ ..] if columns > 0 && rest.iter().product::<usize>() == columns => Ok(*rows),
            _ => Err(refuse(format!("{columns} columns"))),
        }
    }

    /// Rows of a matrix that is computed from its parts, each of which has as many values as that takes.
    fn measure_computed(&self, layout: Layout, parts: &[String], wanted: &Wanted, columns: usize) -> Result<usize> {
        let Wanted::Blocks(&[rows]) = *wanted else { unreachable!("what is computed has rows by configuration") };
        for (part, expected) in parts.iter().zip(layout.part_sizes(rows, columns)) {
            let shape = self.shape(part)?;
            if shape.iter().product::<usize>() != expected {
                let (expected, found) = (format!("{expected} values"), format!("shape {shape:?}"));
                return Err(Error::invalid(self.file_of(part), part, expected, found));
            }
        }
        Ok(rows)
    }

    fn measure_transposed(&self, part: &str, wanted: &Wanted, columns: usize) -> Result<usize> {
        let (least, most) = match wanted {
            Wanted::Blocks(blocks) => (blocks.iter().sum(), blocks.iter().sum()),
            Wanted::Between(rows) => (*rows.start(), *rows.end()),
        };
        match *self.shape(part)? {
            [found, rows] if found == columns && rows > 0 && (least..=most).contains(&rows) => Ok(rows),
            ref shape => {
                let expected = match least == most {
                    true => format!("{columns} rows of {least}"),
                    false => format!("{columns} rows"),
                };
                let found = format!("shape {shape:?}");
                Err(Error::invalid(self.file_of(part), part, expected, found))
            }
        }
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

    fn format(&self, part: &str) -> Result<Format> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.kept(part),
            Source::Random => Ok(Format::Bf16),
            Source::Values(values) => Ok(values[part].format()),
        }
    }

    fn shape(&self, part: &str) -> Result<&[usize]> {
        match &self.source {
            Source::Checkpoint(checkpoint) => {
                checkpoint.kept(part)?;
                Ok(checkpoint.shape(part).expect("a tensor that has a format has a shape"))
            }
            Source::Random => Ok(&[]),
            Source::Values(values) => {
                let tensor = values.get(part).ok_or_else(|| Error::invalid("memory", part, "a tensor", "none"))?;
                Ok(tensor.shape())
            }
        }
    }

    /// The file that a tensor is in.
    pub fn file_of(&self, part: &str) -> &Path {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.file_of(part),
            Source::Random | Source::Values(_) => Path::new("memory"),
        }
    }

    /// The parts of a weight as they stand in the file, in order; mapped, not copied, where the file allows. Those of a
    /// matrix of [`Layout::Rows`] are its rows, from the first to the last.
    ///
    /// # Errors
    /// Numbers that the engine cannot read: file, tensor, expected, found.
    pub fn parts(&self, weight: Weight) -> Result<Vec<PartValues<'_>>> {
        let part = |part: &String| match &self.source {
            Source::Checkpoint(checkpoint) => part_of(checkpoint, part),
            Source::Random => unreachable!("what is made up is never read"),
            Source::Values(values) => Ok(values[part].part()),
        };
        self.get(weight).parts.iter().map(part).collect()
    }

    /// Bytes and format of each part of a weight in the file.
    ///
    /// # Errors
    /// As for [`Weights::parts`].
    pub fn part_formats(&self, stored: &Stored) -> Result<Vec<(u64, Format)>> {
        let bytes = |part: &String| match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.tensor_bytes(part),
            Source::Random => 0,
            Source::Values(values) => values[part].bytes(),
        };
        stored.parts.iter().map(|part| Ok((bytes(part), self.format(part)?))).collect()
    }

    /// All values of a weight as f32, rows in the order the model wants.
    pub fn values(&self, weight: Weight) -> Result<Vec<f32>> {
        let parts = self.parts(weight)?;
        let stacked = || {
            let mut values = Vec::with_capacity(weight.rows * weight.columns);
            parts.iter().for_each(|part| values.extend(part.to_f32()));
            values
        };
        let part = |index: usize| parts[index].to_f32();
        Ok(match self.get(weight).layout {
            Layout::Rows => stacked(),
            Layout::Interleaved(heads) => uninterleaved(&stacked(), heads, weight.rows * weight.columns / (3 * heads)),
            Layout::Transposed => transposed(&stacked(), weight.rows),
            Layout::AlternatingColumns(blocks) => in_blocks(stacked(), weight.columns, blocks),
            Layout::Gated => {
                let gate = part(1)[0].tanh();
                part(0).into_iter().map(|value| gate * value).collect()
            }
            Layout::TilePositions(tokens) => tile_positions(&std::array::from_fn(part), tokens, weight.columns),
        })
    }
}

/// What a checkpoint has under a name.
fn part_of<'a>(checkpoint: &'a Checkpoint, name: &str) -> Result<PartValues<'a>> {
    match checkpoint.quantised(name)? {
        Some(matrix) => Ok(PartValues::Quantised(matrix)),
        None => checkpoint.tensor(name).map(PartValues::Plain),
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

/// The numbers of a tensor as f32.
pub(crate) fn widened(tensor: &Tensor) -> Vec<f32> {
    to_f32(tensor).collect()
}

/// (columns, rows) to (rows, columns).
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| values.iter().skip(row).step_by(rows)).copied().collect()
}

/// Columns behind the first block of so many by turns to columns block by block.
fn in_blocks(mut values: Vec<f32>, columns: usize, blocks: usize) -> Vec<f32> {
    let width = columns / (1 + blocks);
    for row in values.chunks_exact_mut(columns) {
        let alternating = row[width..].to_vec();
        for (at, value) in row[width..].iter_mut().enumerate() {
            *value = alternating[at % width * blocks + at / width];
        }
    }
    values
}

/// See [`Layout::TilePositions`].
fn tile_positions(parts: &[Vec<f32>; 6], tokens: usize, width: usize) -> Vec<f32> {
    let [class, position, gate, tiles, embedding, embedding_gate] = parts;
    let (gate, embedding_gate) = (gate[0].tanh(), embedding_gate[0].tanh());
    let at = |(index, tile): (usize, &f32)| {
        let (row, column) = (index / width, index % width);
        let (tile_of, token) = (row / tokens, row % tokens);
        let added = match token {
            0 => class[column],
            _ => embedding_gate * embedding[tile_of * width + column],
        };
        added + (1.0 - gate) * position[token * width + column] + gate * tile
    };
    tiles.iter().enumerate().map(at).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::quantised::OwnedCodes;

    /// A matrix in three tensors, with its bias; whatever else is asked for is one tensor.
    #[derive(Debug)]
    struct Parts;

    impl Names for Parts {
        fn sources(&self, name: &str) -> Option<Sources> {
            let tensors = match name {
                "qkv" => vec!["q", "k", "v"],
                "qkv.bias" => vec!["q.bias", "k.bias", "v.bias"],
                _ => vec![name],
            };
            let part = |tensor: &str| Part { tensor: tensor.to_owned(), optional: false };
            Some(Sources { parts: tensors.into_iter().map(part).collect(), layout: Layout::Rows })
        }

        fn owns(&self, _: &str) -> bool {
            true
        }
    }

    /// Rows of two columns, and as many biases: 8 of queries, 4 of keys and of values; and all of them in one tensor.
    fn grouped() -> Weights {
        let tensor = |shape: Vec<usize>, value: f32| {
            let values = vec![value; shape.iter().product()];
            Values::plain(shape, values)
        };
        let mut tensors = BTreeMap::from([("fused".to_owned(), tensor(vec![16, 2], 4.0))]);
        for (name, rows, value) in [("q", 8, 1.0), ("k", 4, 2.0), ("v", 4, 3.0)] {
            tensors.insert(name.to_owned(), tensor(vec![rows, 2], value));
            tensors.insert(format!("{name}.bias"), tensor(vec![rows], value));
        }
        Weights::of(Source::Values(tensors), Box::new(Parts))
    }

    #[test]
    fn blocks_of_unequal_rows_are_one_matrix() {
        let mut weights = grouped();
        let matrix = weights.stacked("qkv", &[8, 4, 4], 2).unwrap();
        let bias = weights.bias("qkv", &[8, 4, 4]).unwrap();
        assert_eq!(matrix, Weight { id: 0, rows: 16, columns: 2 });
        assert_eq!(bias, Weight { id: 1, rows: 1, columns: 16 });
        let values = [[1.0; 8], [2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]].concat();
        assert_eq!(weights.values(bias).unwrap(), values);
        let values: Vec<f32> = values.into_iter().flat_map(|value| [value; 2]).collect();
        assert_eq!(weights.values(matrix).unwrap(), values);
        assert_eq!(weights.stacked("fused", &[8, 4, 4], 2).unwrap().rows, 16);
        assert_eq!(weights.stacked("qkv", &[8, 4, 4], 2).unwrap(), matrix, "what is asked for again is there");
        assert_eq!([matrix, bias].map(|weight| weights.get(weight).kind), [Kind::Matrix, Kind::Vector]);
    }

    #[test]
    fn blocks_are_held_to_their_own_rows() {
        let mut weights = grouped();
        let mut refused = |name: &str, blocks: &[usize], message: &str| {
            assert_eq!(weights.stacked(name, blocks, 2).unwrap_err().to_string(), message);
        };
        // The sum is right.
        refused("qkv", &[4, 8, 4], "memory: q: expected 4 rows, found 8 rows");
        refused("qkv", &[8, 8, 8], "memory: k: expected 8 rows, found 4 rows");
        refused("qkv", &[15], "memory: q + k + v: expected 15 rows, found 16 rows");
        refused("fused", &[8, 8, 8], "memory: fused: expected 24 rows, found 16 rows");
        let error = weights.bias("qkv", &[4, 4, 8]).unwrap_err().to_string();
        assert_eq!(error, "memory: q.bias: expected 4 values, found 8 values");
    }

    #[test]
    fn a_table_has_rows_within_bounds() {
        let mut weights = grouped();
        assert_eq!(weights.table("fused", 13..=16, 2).unwrap().rows, 16);
        for (rows, expected) in [(13..=15, "13 to 15 rows"), (17..=17, "17 rows")] {
            let error = weights.table("fused", rows, 2).unwrap_err().to_string();
            assert_eq!(error, format!("memory: fused: expected {expected}, found 16 rows"));
        }
    }

    #[test]
    fn a_stack_mixes_formats() {
        let matrix = Owned {
            rows: 2,
            columns: 2,
            codes: OwnedCodes::Int8,
            bytes: Some(vec![1, 2, 3, 0xfc]),
            group: 2,
            scales: vec![0.5, 2.0],
            zeros: None,
            order: None,
        };
        let plain = |rows: usize, value: f32| Values::plain(vec![rows, 2], vec![value; 2 * rows]);
        let tensors = [("q", plain(1, 7.0)), ("k", Values::quantised(matrix)), ("v", plain(1, 9.0))];
        let tensors = tensors.map(|(name, values)| (name.to_owned(), values));
        let mut weights = Weights::of(Source::Values(tensors.into()), Box::new(Parts));
        let stack = weights.stacked("qkv", &[1, 2, 1], 2).unwrap();
        assert_eq!(weights.values(stack).unwrap(), [7.0, 7.0, 0.5, 1.0, 6.0, -8.0, 9.0, 9.0]);
        let parts = weights.parts(stack).unwrap();
        assert!(matches!(parts[..], [PartValues::Plain(_), PartValues::Quantised(_), PartValues::Plain(_)]));
        assert_eq!(parts.iter().map(PartValues::rows).collect::<Vec<_>>(), [1, 2, 1]);
        let int8 = Format::Int8 { group: None };
        let formats = weights.part_formats(weights.get(stack)).unwrap();
        assert_eq!(formats, [(8, Format::F32), (12, int8), (8, Format::F32)]);
        assert_eq!(weights.bytes(), 28);
    }
}
