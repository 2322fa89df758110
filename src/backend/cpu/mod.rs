//! The reference device: every operation in plain f32 on the processor's cores. Weights are read from the mapped
//! checkpoint in the type they have; nothing is copied but vectors, layouts that differ, and models that are small.

mod attention;
mod formats;
mod frames;
mod linear;
mod machine;
mod matrix;
mod panels;
mod pointwise;
mod pool;
mod product;
mod simd;
mod tiles;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::devices::memory_available;
use super::{Backend, BackendOptions, Batch, Capacity, KvConfig, PageCount, PoolShape, Tiling};
use crate::checkpoint::{Dtype, Tensor as Stored};
use crate::error::{Error, Result};
use crate::graph::{Axis, Counts, Index, KvLayer, KvSource, KvSpace, Mask, Op, PlanKind, Plans, Tensor, Weight};
use crate::kv::{KvDtype, MEDIA_PAGE_ROWS, PAGE_TOKENS, PageCopy};
use crate::weights::{Kind, Layout, PartValues, Weights};
use attention::{Rows, Strip};
use matrix::{Matrix, Values};
use panels::Strips;
use pointwise::{normalise, rotate};
use pool::Pool;
#[cfg(feature = "eval")]
pub(crate) use product::dot_products;
use tiles::{Heads, Row, Tiles};

/// Most worker threads.
pub const THREADS_MAX: usize = 1024;
/// Models of fewer bytes are widened to f32 once, when they are opened, instead of at each use.
const WIDENED_BYTES_MAX: u64 = 64 << 20;
/// Elementwise work on fewer values stays on one thread.
const PARALLEL_MIN: usize = 1 << 15;

/// The processor, with a model's weights, pages and activations.
pub(super) struct Cpu {
    threads: rayon::ThreadPool,
    plans: Arc<Plans>,
    memory: Memory,
    slots: Vec<Vec<f32>>,
    /// Where the last run left its output, and how many rows of it.
    output: Option<(Tensor, usize)>,
    scratch: Scratch,
    /// A page takes memory when it is first written, so there may be as many as are of use.
    pages: (usize, usize),
    /// What steps hold at most; there is no room to be made for it.
    capacity: Capacity,
}

/// Memory that matrix products use and keep.
#[derive(Default)]
struct Scratch {
    /// The left operand, rearranged.
    strips: Strips,
}

/// Who attends to what in a batch.
struct Sight<'a> {
    causal: Tiles<'a>,
    media: Tiles<'a>,
    /// See [`Batch::frame_starts`].
    frame_starts: Vec<u32>,
    /// Of each image how it is cut into tiles.
    tilings: &'a [Tiling],
}

/// What operations read besides activations, and the pages they write.
struct Memory {
    weights: Weights,
    /// For each weight, its values where they could not stay in the map.
    owned: Vec<Option<Vec<f32>>>,
    /// The weights that are multiplied in bf16 if they are bf16 themselves.
    rounded: BTreeSet<usize>,
    /// Keys and values of each decoder layer.
    text: Vec<Pool>,
    /// Keys and values of each gated block.
    media: Vec<Pool>,
}

impl Cpu {
    /// Opens the device.
    pub fn open(options: &BackendOptions, weights: Weights, kv_config: KvConfig, plans: Arc<Plans>) -> Result<Self> {
        let BackendOptions { threads, capacity, kv_dtype, dtype, .. } = *options;
        let in_bf16 = dtype == Some(Dtype::Bf16);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::argument(format!("threads: {error}")))?;
        let small = weights.bytes() <= WIDENED_BYTES_MAX && !in_bf16;
        let mut owned = Vec::with_capacity(weights.list().len());
        for stored in weights.list() {
            let parts = weights.parts(stored.weight)?;
            let mapped = parts.iter().all(|part| match in_place(part) {
                Some(Values::Plain(dtype, _)) => dtype == Dtype::F32 || !small,
                Some(Values::Quantised(_)) => true,
                None => false,
            });
            let stays = stored.kind == Kind::Matrix && stored.layout == Layout::Rows && mapped;
            owned.push(if stays { None } else { Some(weights.values(stored.weight)?) });
        }
        let pages = page_counts(&kv_config, kv_dtype, memory_available())?;
        let layers = |rows, shape: &PoolShape| (0..shape.layers).map(|_| Pool::new(rows, shape, kv_dtype)).collect();
        let (text, media) = (layers(PAGE_TOKENS, &kv_config.text), layers(MEDIA_PAGE_ROWS, &kv_config.media));
        let rounded = if in_bf16 { rounded(&plans) } else { BTreeSet::new() };
        let memory = Memory { weights, owned, rounded, text, media };
        Ok(Cpu {
            threads,
            plans,
            memory,
            slots: Vec::new(),
            output: None,
            scratch: Scratch::default(),
            pages,
            capacity,
        })
    }
}

/// All weights of linear layers but those of patches: pixels that are rounded cost more than all else that is.
fn rounded(plans: &Plans) -> BTreeSet<usize> {
    let mut rounded = BTreeSet::new();
    for (_, plan) in plans.all() {
        let mut patches = BTreeSet::new();
        for op in &plan.ops {
            if let Op::Linear { x, weight, .. } = op
                && !patches.contains(&x.buffer)
            {
                rounded.insert(weight.id);
            }
            if let Op::Patches { out, .. } = op {
                patches.insert(out.buffer);
            } else if let Some(written) = op.writes() {
                patches.remove(&written.buffer);
            }
        }
    }
    rounded
}

/// How many text pages and media pages there may be. Where memory decides, half of what is available goes to pages: a
/// quarter of that to images, the rest to text, as far as either is of use.
fn page_counts(kv_config: &KvConfig, kv_dtype: KvDtype, available: Option<u64>) -> Result<(usize, usize)> {
    let bytes = |rows: usize, shape: &PoolShape| {
        let row = kv_dtype.row_bytes(shape.kv_heads, shape.head_width, size_of::<f32>());
        (shape.layers * rows * 2 * row).max(1) as u64
    };
    let (text, media) = (bytes(PAGE_TOKENS, &kv_config.text), bytes(MEDIA_PAGE_ROWS, &kv_config.media));
    let (text_pages, media_pages) = (kv_config.text.pages, kv_config.media.pages);
    let least = text_pages.least as u64 * text + media_pages.least as u64 * media;
    let available = available.unwrap_or(u64::MAX);
    if least > available {
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let pages = format!("{} text pages and {} media pages", text_pages.least, media_pages.least);
        let (wanted, found) = (gibibytes(least), gibibytes(available));
        return Err(Error::device("cpu", format!("expected {wanted:.1} GiB for {pages}, found {found:.1} GiB")));
    }
    let spare = (available - least) / 2;
    let more = |count: PageCount, bytes: u64, size: u64| (count.most - count.least).min((bytes / size) as usize);
    let more_media = more(media_pages, spare / 4, media);
    let more_text = more(text_pages, spare - more_media as u64 * media, text);
    Ok((text_pages.least + more_text, media_pages.least + more_media))
}

impl Backend for Cpu {
    fn run(&mut self, kind: PlanKind, batch: &Batch) -> Result<()> {
        let Cpu { threads, plans, memory, slots, output, scratch, .. } = self;
        *output = None;
        let plan = plans.get(kind);
        let counts = batch.counts();
        slots.resize_with(plan.slots.len().max(slots.len()), Vec::new);
        for (slot, shape) in slots.iter_mut().zip(&plan.slots) {
            let size = shape.size * counts.units(shape.axis);
            slot.resize(size.max(slot.len()), 0.0);
        }
        for (input, values) in plan.inputs.iter().zip(batch.inputs) {
            slots[input.buffer][..values.len()].copy_from_slice(values);
        }
        let (causal, media) = (Tiles::causal(batch), Tiles::media(batch));
        let sight = Sight { causal, media, frame_starts: batch.frame_starts(), tilings: batch.tilings };
        threads.install(|| -> Result<()> {
            for op in &plan.ops {
                memory.run(op, batch, &counts, &sight, slots, scratch)?;
            }
            Ok(())
        })?;
        *output = plan.output.map(|out| (out, out.row_count(&counts)));
        Ok(())
    }

    fn fetch(&mut self, rows: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let (output, count) = self.output.expect("a run with an output went before");
        assert!(output.is_whole() && rows.end <= count);
        out.extend_from_slice(&self.slots[output.buffer][rows.start * output.width..rows.end * output.width]);
        Ok(())
    }

    fn copy_text_page(&mut self, copy: PageCopy) -> Result<()> {
        self.memory.text.iter_mut().for_each(|pool| pool.copy(copy));
        Ok(())
    }

    fn pages(&self) -> (usize, usize) {
        self.pages
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}

/// The values of a part where they lie, if they are in the map.
fn in_place<'a>(part: &PartValues<'a>) -> Option<Values<'a>> {
    match part {
        PartValues::Plain(Stored { dtype, bytes: Cow::Borrowed(bytes), .. }) => Some(Values::Plain(*dtype, bytes)),
        PartValues::Plain(_) => None,
        PartValues::Quantised(matrix) => Some(Values::Quantised(*matrix)),
    }
}

/// One row of activations.
fn row<'a>(slots: &'a [Vec<f32>], tensor: &Tensor, index: usize) -> &'a [f32] {
    let start = tensor.start(index);
    &slots[tensor.buffer][start..start + tensor.width]
}

/// `each(index, row)` for all rows of a whole buffer, on all threads if there is enough to do.
fn for_rows(out: &mut [f32], width: usize, each: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() < PARALLEL_MIN {
        out.chunks_exact_mut(width).enumerate().for_each(|(index, row)| each(index, row));
    } else {
        out.par_chunks_exact_mut(width).enumerate().for_each(|(index, row)| each(index, row));
    }
}

/// Some columns of the rows that some units have in a pair of tensors.
fn strip<'a>(
    slots: &'a [Vec<f32>],
    (key, value): &(Tensor, Tensor),
    units: Range<usize>,
    columns: &Range<usize>,
) -> Strip<'a> {
    let rows = |tensor: &Tensor| {
        let start = tensor.start(units.start * tensor.rows) + columns.start;
        Rows::Plain { values: &slots[tensor.buffer][start..], stride: tensor.stride }
    };
    Strip { keys: rows(key), values: rows(value), count: units.len() * key.rows }
}

impl Memory {
    fn vector(&self, weight: Weight) -> &[f32] {
        self.owned[weight.id].as_deref().expect("vectors are loaded at start")
    }

    fn matrix(&self, weight: Weight) -> Result<Matrix<'_>> {
        let parts = match &self.owned[weight.id] {
            Some(values) => vec![(weight.rows, Values::of_f32(values))],
            None => {
                let parts = self.weights.parts(weight)?;
                let in_place = parts
                    .iter()
                    .map(|part| (part.rows(), in_place(part).expect("what is not in place was loaded at start")));
                in_place.collect()
            }
        };
        Ok(Matrix { parts, columns: weight.columns })
    }

    /// Runs one operation. The buffer it writes is taken out of the slots meanwhile.
    fn run(
        &mut self,
        op: &Op,
        batch: &Batch,
        counts: &Counts,
        sight: &Sight,
        slots: &mut [Vec<f32>],
        scratch: &mut Scratch,
    ) -> Result<()> {
        if let Op::Append { key, value, layer } = op {
            self.append(key, value, layer, batch, sight, slots);
            return Ok(());
        }
        let written = op.writes().expect("every operation but append writes a tensor");
        let rows = written.row_count(counts);
        // A step in the middle of prompts wants no logits.
        if rows == 0 {
            return Ok(());
        }
        let mut taken = std::mem::take(&mut slots[written.buffer]);
        let out = &mut taken[..rows / written.rows * written.row_pitch * written.stride];
        let result = match op {
            Op::Linear { x, weight, bias, epilogue, .. } => {
                let x: Vec<&[f32]> = (0..rows).map(|index| row(slots, x, index)).collect();
                self.linear(&x, *weight, *bias, epilogue, batch, &written, out, slots, scratch)
            }
            Op::Attention { query, source, heads, scale, .. } => {
                let group = if let KvSource::Pages(layer, _) = source { heads / layer.kv_heads } else { 1 };
                let heads = Heads { group, width: query.width / heads, scale: *scale, slopes: None };
                self.attention(query, source, heads, sight, slots, out);
                Ok(())
            }
            Op::Gather { table, index, add, .. } => self.gather(*table, *index, add.as_ref(), batch, slots, out),
            Op::Broadcast { rows, .. } => self.broadcast(*rows, &written, out),
            Op::Norm { x, kind, weight, bias, epsilon, group, .. } => {
                let (weight, bias) = (self.vector(*weight), bias.map(|bias| self.vector(bias)));
                let in_place = x.buffer == written.buffer;
                for_rows(out, written.stride, |index, out| {
                    if !in_place {
                        out.copy_from_slice(row(slots, x, index));
                    }
                    let columns = &mut out[written.offset..written.offset + written.width];
                    columns.chunks_exact_mut(*group).for_each(|row| normalise(row, *kind, weight, bias, *epsilon));
                });
                Ok(())
            }
            Op::Rope { x, head_width, frequencies } => {
                for_rows(out, x.stride, |index, out| {
                    let position = batch.positions[index];
                    rotate(&mut out[x.offset..x.offset + x.width], position, *head_width, frequencies);
                });
                Ok(())
            }
            Op::Select { x, .. } => {
                for_rows(out, x.width, |index, out| out.copy_from_slice(row(slots, x, batch.outputs[index] as usize)));
                Ok(())
            }
            Op::Patches { .. }
            | Op::ClassAndPosition { .. }
            | Op::FrameEmbedding { .. }
            | Op::TilePositions { .. }
            | Op::FillRows { .. }
            | Op::TileEmbedding { .. }
            | Op::Concatenate { .. } => self.run_on_frames(op, batch, &written, slots, out),
            Op::Append { .. } => unreachable!("handled above"),
        };
        slots[written.buffer] = taken;
        result
    }

    fn attention<'s>(
        &'s self,
        query: &Tensor,
        source: &KvSource,
        heads: Heads,
        sight: &Sight,
        slots: &'s [Vec<f32>],
        out: &mut [f32],
    ) {
        let query_row = |index| row(slots, query, index);
        match source {
            KvSource::Dense(sources) => {
                let starts = &sight.frame_starts;
                let units = |key: &Tensor, unit: usize| match key.axis == query.axis {
                    true => unit..unit + 1,
                    false => starts[unit] as usize..starts[unit + 1] as usize,
                };
                let columns = |head: usize| head * heads.width..(head + 1) * heads.width;
                // A row has all keys of its image in common with the other rows of its tile.
                let strips = |of: &Row, head: usize, keys: Range<usize>, strips: &mut Vec<Strip<'s>>| {
                    let unit = of.index / query.rows;
                    if !keys.is_empty() {
                        let strip =
                            |source: &(Tensor, Tensor)| strip(slots, source, units(&source.0, unit), &columns(head));
                        strips.extend(sources.iter().map(strip));
                    }
                };
                let keys = |unit: usize| sources.iter().map(|(key, _)| units(key, unit).len() * key.rows).sum();
                let images = 0..out.len() / (query.rows * query.width);
                Tiles::images(images.map(|unit| (query.rows, keys(unit)))).attend(heads, query_row, strips, out);
            }
            KvSource::Tiles { key, value, tile_rows } => {
                // Rows that are there see all rows; the others see those that are there.
                let blocks = |tiling: &Tiling| {
                    let there = tiling.tiles as usize * tile_rows;
                    [(there, query.rows), (query.rows - there, there)]
                };
                let strips = |of: &Row, head: usize, keys: Range<usize>, strips: &mut Vec<Strip<'s>>| {
                    if !keys.is_empty() {
                        let (unit, columns) = (of.index / query.rows, head * heads.width..(head + 1) * heads.width);
                        let all = strip(slots, &(*key, *value), unit..unit + 1, &columns);
                        strips.push(Strip { count: keys.end, ..all });
                    }
                };
                let blocks = sight.tilings.iter().flat_map(blocks);
                Tiles::images(blocks).attend(heads, query_row, strips, out);
            }
            KvSource::Pages(layer, Mask::Causal { slopes }) => {
                let pool = &self.text[layer.layer];
                let heads = Heads { slopes: slopes.as_deref(), ..heads };
                let strips = |row: &Row, head, keys, to: &mut Vec<_>| pool.strips(row.table, head, keys, to);
                sight.causal.attend(heads, query_row, strips, out);
            }
            KvSource::Pages(layer, Mask::Media) => {
                let pool = &self.media[layer.layer];
                // A row has all keys in common with the other rows of its tile.
                let strips = |row: &Row, head, keys: Range<usize>, to: &mut Vec<_>| {
                    let images = if keys.is_empty() { &[] } else { row.images };
                    images.iter().for_each(|image| pool.strips(image.pages, head, 0..image.rows as usize, to));
                };
                sight.media.attend(heads, query_row, strips, out);
            }
        }
    }

    fn append(
        &mut self,
        key: &Tensor,
        value: &Tensor,
        layer: &KvLayer,
        batch: &Batch,
        sight: &Sight,
        slots: &[Vec<f32>],
    ) {
        let rows = |index| (row(slots, key, index), row(slots, value, index));
        match layer.space {
            KvSpace::Text => {
                let pool = &mut self.text[layer.layer];
                for (index, (&position, &sequence)) in batch.positions.iter().zip(batch.sequences).enumerate() {
                    let (position, (key, value)) = (position as usize, rows(index));
                    let page = batch.tables[sequence as usize][position / PAGE_TOKENS];
                    pool.write(page, position % PAGE_TOKENS, key, value);
                }
            }
            KvSpace::Media => {
                let pool = &mut self.media[layer.layer];
                for (place, image) in batch.images.iter().enumerate() {
                    let unit = if key.axis == Axis::Frames { sight.frame_starts[place] as usize } else { place };
                    let places = image.filled().flat_map(|(page, rows)| (0..rows).map(move |row| (page, row)));
                    for (index, (page, row)) in (unit * key.rows..).zip(places) {
                        let (key, value) = rows(index);
                        pool.write(page, row, key, value);
                    }
                }
            }
        }
    }

    fn gather(
        &self,
        table: Weight,
        index: Index,
        add: Option<&Tensor>,
        batch: &Batch,
        slots: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let matrix = self.matrix(table)?;
        let mut scratch = Vec::new();
        for (token, out) in out.chunks_exact_mut(matrix.columns).enumerate() {
            let entry = match index {
                Index::TokenId => batch.ids[token] as usize,
                Index::Position { offset } => batch.positions[token] as usize + offset,
            };
            out.copy_from_slice(matrix.row(entry, &mut scratch));
            if let Some(tensor) = add {
                pointwise::add(out, row(slots, tensor, token));
            }
        }
        Ok(())
    }

    fn broadcast(&self, rows: Weight, written: &Tensor, out: &mut [f32]) -> Result<()> {
        let matrix = self.matrix(rows)?;
        let mut scratch = Vec::new();
        for (index, out) in out.chunks_exact_mut(written.width).enumerate() {
            out.copy_from_slice(matrix.row(index % written.rows, &mut scratch));
        }
        Ok(())
    }
}
