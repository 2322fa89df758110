//! What lies where on a device: planned in full before anything is allocated, so that a model that does not fit is
//! refused with the sum by part.

use std::collections::HashMap;
use std::ops::Range;

use super::arguments::{PARTS_MAX, Pages, Rows, SampleRequest, SampleToken};
use super::batch::{CAPTURED_TOKENS_MAX, filled_up, words_most};
use super::driver::{Address, Driver};
use super::split::{ITEM_TILES, SPLIT_ROWS, Splitting, TILE_KEYS, slot_bytes};
use super::storage::{self, BYTES, padded};
use super::upload::{self, ALIGNMENT, Resident, allocate};
use crate::backend::{BackendOptions, Capacity, KvConfig, LISTED_MAX, PageCount, PoolShape};
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::graph::{Axis, Counts, Index, KvLayer, KvSource, KvSpace, Mask, Op, Plan, PlanKind, Plans, Tensor, Weight};
use crate::kv::{KvDtype, MEDIA_PAGE_ROWS, PAGE_TOKENS, media_pages};
use crate::sample::SUPPRESSED_MAX;
use crate::weights::{Format, Weights};

/// What a GPU's driver is left for code, captured launches and batches larger than usual.
const RESERVE_BYTES: u64 = 256 << 20;
/// Share of the free memory that pages may take after everything else, in hundredths.
const PAGES_SHARE: u64 = 90;
/// Sequences of full length that have room beside the first one before steps are larger than they must be.
const SEQUENCES_BESIDE: usize = 3;
/// Where memory is plentiful, pages still take no more than this many bytes on a device that guards every tensor: there
/// all of it is written with a pattern first.
const GUARDED_PAGES_BYTES: u64 = 128 << 20;
/// Rows of logits that tokens are drawn from at once; the most likely token needs no workspace. Half as many as an H100
/// has multiprocessors; 26 MB for 50,000 tokens.
pub const SAMPLED_ROWS: usize = 64;
/// Partial results of split attention at most: 256 tokens at 2048 of a model with 32 heads of 128.
const WORKSPACE_BYTES: u64 = 128 << 20;

/// Keys and values of one kind, all layers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pool {
    pub keys: Address,
    pub values: Address,
    pub layers: usize,
    /// Pages that are given out.
    pub pages: usize,
    /// Pages behind them, which nobody is given.
    pub reserved: usize,
    pub page_rows: usize,
    pub width: usize,
    /// Bytes of a row of keys, or of values.
    row_bytes: usize,
    /// Whether they are in 8 bits.
    pub int8: bool,
}

impl Pool {
    /// The fewest pages that are of use, and `reserved` more, in no memory yet.
    fn new(page_rows: usize, shape: &PoolShape, kv_dtype: KvDtype, reserved: usize) -> Pool {
        let &PoolShape { layers, kv_heads, head_width, pages: PageCount { least: pages, .. } } = shape;
        let (row_bytes, int8) = (kv_dtype.row_bytes(kv_heads, head_width, BYTES), kv_dtype == KvDtype::Int8);
        Pool { layers, pages, reserved, page_rows, width: shape.width(), row_bytes, int8, ..Pool::default() }
    }

    /// 16-bit words of one page of one layer.
    pub fn page_size(&self) -> usize {
        self.page_rows * self.row_bytes / BYTES
    }

    /// 16-bit words of all pages of one layer.
    pub fn layer_size(&self) -> usize {
        (self.pages + self.reserved) * self.page_size()
    }

    /// Keys or values of all pages.
    fn bytes(&self) -> u64 {
        (self.layers * self.layer_size() * BYTES) as u64
    }

    /// The first reserved page.
    pub fn nobody(&self) -> u32 {
        self.pages as u32
    }

    /// What one more page takes: keys and values of all layers.
    fn page_bytes(&self) -> u64 {
        (2 * self.layers * self.page_size() * BYTES) as u64
    }

    /// More pages, `most` at most, for so many bytes; the bytes they take.
    fn grow(&mut self, most: usize, bytes: u64) -> u64 {
        let more = (bytes / self.page_bytes().max(1)).min(most.saturating_sub(self.pages) as u64);
        self.pages += more as usize;
        more * self.page_bytes()
    }

    /// The pages of one layer.
    pub fn layer(&self, layer: usize) -> Pages {
        let start = (layer * self.layer_size() * BYTES) as u64;
        Pages {
            keys: self.keys.plus(start),
            values: self.values.plus(start),
            page_rows: self.page_rows as u32,
            width: self.width as u32,
            row_bytes: if self.int8 { self.row_bytes as u32 } else { 0 },
            unused: 0,
        }
    }
}

/// What batches there is room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Tokens, and outputs.
    pub tokens: usize,
    /// Frames of images and videos.
    pub frames: usize,
    /// Images and videos.
    pub images: usize,
    /// Words of the batch's lists.
    pub words: usize,
}

impl Room {
    /// Room for usual steps of images of so many frames each, and for any number of these tokens decoded at once, in
    /// groups of so many heads.
    fn of(capacity: Capacity, kv_config: &KvConfig, frames_each: usize, group: usize) -> Room {
        let decoded = capacity.tokens.min(CAPTURED_TOKENS_MAX);
        let tokens = capacity.tokens.max(filled_up(decoded.max(1)));
        // Each image, encoded or seen, has its pages once in a list, two words a page.
        let pages = decoded * kv_config.text.pages.least + 1 + 4 * kv_config.media.pages.most;
        let images = capacity.images.div_ceil(frames_each);
        let frames = images * frames_each;
        Room { tokens, frames, images, words: words_most(tokens, [frames, images], pages, group) }
    }

    /// The smallest that holds both; words by powers of two, since they grow a little with every step.
    fn grown(self, other: Room) -> Room {
        Room {
            tokens: self.tokens.max(other.tokens),
            frames: self.frames.max(other.frames),
            images: self.images.max(other.images),
            words: if other.words > self.words { other.words.next_power_of_two() } else { self.words },
        }
    }
}

/// Memory whose size follows the largest batch so far.
#[derive(Debug, Default)]
pub struct Activations {
    taken: Vec<Address>,
    room: Room,
    slots: HashMap<(PlanKind, usize), Address>,
    /// The batch's lists, [`Layout`](super::batch::Layout).
    pub batch: Address,
    /// Pixels of frames (side, side, 3), 8 bits.
    pub pixels: Address,
    /// f32 output of a linear layer that ends a plan.
    pub output: Address,
    /// Queries and results of attention inside the fused gated block.
    pub gated: [Address; 2],
    /// What is wanted of rows of logits, then suppressed tokens, then targets.
    pub requests: Address,
    /// Lists of what was found.
    pub found: Address,
    /// Workspace of draws, for [`DRAWN_ROWS`] rows.
    pub candidates: Address,
}

/// A device's memory, all of it.
pub struct Memory {
    pub dtype: Dtype,
    weights: Vec<Resident>,
    /// Lists of numbers that operations have with them, each once.
    constants: Vec<(Vec<f32>, Address)>,
    pub text: Pool,
    pub media: Pool,
    pub activations: Activations,
    /// Partial results of attention whose keys are split over blocks.
    pub partials: Address,
    pub partials_bytes: u64,
    /// Where the blocks of a cooperative launch count each other.
    pub barrier: Address,
    /// What a step usually holds at most: what was asked for, or less where that did not fit.
    pub capacity: Capacity,
    shapes: ActivationShapes,
}

/// A buffer of activations. Plans that never run together share them: those for images do.
struct SlotShape {
    /// The plans that use it, each with its own number for it.
    users: Vec<(PlanKind, usize)>,
    axis: Axis,
    /// Numbers for each unit of the axis.
    size: usize,
}

/// What activations need for each unit of a batch.
struct ActivationShapes {
    slots: Vec<SlotShape>,
    /// Bytes of the pixels that patches are cut from, for each frame.
    pixels: usize,
    /// f32 numbers for each unit, of the output that a linear layer writes.
    output: usize,
    /// Widest heads of a gated block, all together.
    inner: usize,
}

impl ActivationShapes {
    fn new(plans: &Plans) -> ActivationShapes {
        let mut shapes = ActivationShapes { slots: Vec::new(), pixels: 0, output: 0, inner: 0 };
        for (kind, plan) in plans.all() {
            let mut sizes = vec![0; plan.slots.len()];
            for tensor in plan.ops.iter().flat_map(|op| op.reads().into_iter().chain(op.writes())) {
                let size = tensor.row_pitch * padded(tensor.stride);
                sizes[tensor.buffer] = sizes[tensor.buffer].max(size);
            }
            for (slot, size) in sizes.into_iter().enumerate() {
                let axis = plan.slots[slot].axis;
                let free =
                    |users: &[(PlanKind, usize)]| kind == PlanKind::Features && matches!(users, [(PlanKind::Media, _)]);
                match shapes.slots.iter_mut().find(|shape| free(&shape.users) && shape.axis == axis) {
                    Some(shape) => {
                        shape.users.push((kind, slot));
                        shape.size = size.max(shape.size);
                    }
                    None => shapes.slots.push(SlotShape { users: vec![(kind, slot)], axis, size }),
                }
            }
            for op in &plan.ops {
                match op {
                    Op::Patches { side, .. } => shapes.pixels = shapes.pixels.max(3 * side * side),
                    Op::Linear { out, .. } if plan.output == Some(*out) => {
                        shapes.output = shapes.output.max(out.rows * out.width);
                    }
                    Op::Attention { query, source: KvSource::Pages(_, Mask::Media), .. } => {
                        shapes.inner = shapes.inner.max(query.width);
                    }
                    _ => {}
                }
            }
        }
        shapes
    }

    /// Sizes in bytes: each slot, then what [`Memory::resize`] names.
    fn bytes(&self, room: Room) -> Vec<u64> {
        let Room { tokens, frames, images, words } = room;
        let units = Counts { frames, images, tokens, outputs: tokens };
        let slots = self.slots.iter().map(|shape| units.units(shape.axis) * shape.size * BYTES);
        let scratch = SPLIT_ROWS * self.inner * BYTES;
        let others = [
            words * 4,
            frames * self.pixels,
            tokens.max(images) * self.output * 4,
            scratch,
            scratch,
            tokens * size_of::<SampleRequest>() + (SUPPRESSED_MAX + LISTED_MAX) * 4,
            LISTED_MAX * size_of::<SampleToken>(),
            SAMPLED_ROWS * self.output * 8,
        ];
        slots.chain(others).map(|bytes| bytes as u64).collect()
    }
}

/// How many bytes each part of a model takes.
struct Sum<'a> {
    device: &'a str,
    parts: Vec<(&'static str, u64)>,
}

impl Sum<'_> {
    fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }

    fn refuse(&self, free: u64) -> Error {
        let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
        let parts: Vec<String> =
            self.parts.iter().map(|(part, bytes)| format!("{part} {}", gigabytes(*bytes))).collect();
        Error::device(
            self.device,
            format!(
                "expected {} of free memory ({}), found {}",
                gigabytes(self.total()),
                parts.join(", "),
                gigabytes(free)
            ),
        )
    }
}

impl Memory {
    /// Plans, allocates and uploads.
    pub fn open(
        driver: &mut dyn Driver,
        device: &str,
        options: &BackendOptions,
        weights: &Weights,
        kv_config: &KvConfig,
        plans: &Plans,
    ) -> Result<Memory> {
        let dtype = options.dtype.unwrap_or_else(|| upload::suggested(weights));
        let shapes = ActivationShapes::new(plans);
        let mut text = Pool::new(PAGE_TOKENS, &kv_config.text, options.kv_dtype, 1);
        let mut media = Pool::new(MEDIA_PAGE_ROWS, &kv_config.media, options.kv_dtype, 0);
        let properties = driver.properties().clone();
        let reserve = if properties.guarded { 0 } else { RESERVE_BYTES };
        let free = properties.memory_free;
        let weights_bytes = upload::bytes(weights, dtype);
        let group = Splitting::new(&plans.text, 0, properties.multiprocessors).text.group;
        let planned = |capacity: Capacity| {
            let room = Room::of(capacity, kv_config, plans.frames_each(), group);
            let partials_bytes = WORKSPACE_BYTES.min(partials_most(plans, room.tokens, kv_config));
            let parts = vec![
                ("weights", weights_bytes),
                ("activations", shapes.bytes(room).iter().sum::<u64>() + partials_bytes),
                ("text pages", 2 * text.bytes()),
                ("media pages", 2 * media.bytes()),
                ("reserve", reserve),
            ];
            (room, partials_bytes, Sum { device, parts })
        };
        // Large steps that nobody asked for are not worth the pages of a few sequences more, nor a refused model.
        let PageCount { least, most } = kv_config.text.pages;
        let beside = text.page_bytes() * (SEQUENCES_BESIDE * least).min(most.saturating_sub(least)) as u64;
        let mut capacity = options.capacity;
        let (room, partials_bytes, sum) = loop {
            let (room, partials_bytes, sum) = planned(capacity);
            let smaller = capacity.halved(options.capacity_least);
            match smaller {
                Some(smaller) if sum.total() + beside > free => capacity = smaller,
                None if sum.total() > free => return Err(sum.refuse(free)),
                _ => break (room, partials_bytes, sum),
            }
        };
        // What is left goes to pages: a quarter to images, the rest to text, as far as either is of use.
        let spare_most = if properties.guarded { GUARDED_PAGES_BYTES } else { u64::MAX };
        let spare = spare_most.min((free - sum.total()) / 100 * PAGES_SHARE);
        let taken = media.grow(kv_config.media.pages.most, spare / 4);
        text.grow(kv_config.text.pages.most, spare - taken);

        let weights = upload::upload(driver, weights, dtype)?;
        for pool in [&mut text, &mut media] {
            pool.keys = driver.allocate(pool.bytes().max(1))?;
            pool.values = driver.allocate(pool.bytes().max(1))?;
        }
        let partials = driver.allocate(partials_bytes.max(1))?;
        let barrier = driver.allocate(ALIGNMENT)?;
        driver.clear(barrier, ALIGNMENT)?;
        let mut memory = Memory {
            dtype,
            weights,
            constants: upload_constants(driver, plans)?,
            text,
            media,
            activations: Activations::default(),
            partials,
            partials_bytes,
            barrier,
            capacity,
            shapes,
        };
        memory.resize(driver, room)?;
        driver.synchronize()?;
        Ok(memory)
    }

    /// Makes room for a batch; whether anything moved.
    pub fn make_room(&mut self, driver: &mut dyn Driver, needed: Room) -> Result<bool> {
        let room = self.activations.room;
        let grown = room.grown(needed);
        if grown == room {
            return Ok(false);
        }
        self.resize(driver, grown)?;
        Ok(true)
    }

    fn resize(&mut self, driver: &mut dyn Driver, room: Room) -> Result<()> {
        driver.synchronize()?;
        let old = std::mem::take(&mut self.activations);
        old.taken.into_iter().for_each(|address| driver.free(address));
        let sizes = self.shapes.bytes(room);
        let (taken, places) = allocate(driver, &sizes)?;
        let (slots, others) = places.split_at(self.shapes.slots.len());
        let used = self.shapes.slots.iter().zip(slots);
        let slots = used.flat_map(|(shape, &slot)| shape.users.iter().map(move |user| (*user, slot))).collect();
        let [batch, pixels, output, query, attended, requests, found, candidates] = others else {
            unreachable!("eight besides the slots")
        };
        self.activations = Activations {
            taken,
            room,
            slots,
            batch: *batch,
            pixels: *pixels,
            output: *output,
            gated: [*query, *attended],
            requests: *requests,
            found: *found,
            candidates: *candidates,
        };
        Ok(())
    }

    /// A list of the batch, by its word.
    pub fn list(&self, word: usize) -> Address {
        self.activations.batch.plus(word as u64 * 4)
    }

    /// A tensor of one of the plans.
    pub fn rows(&self, kind: PlanKind, tensor: &Tensor) -> Rows {
        let stride = padded(tensor.stride);
        let start = (tensor.row_offset * stride + tensor.offset) * BYTES;
        Rows {
            data: self.activations.slots[&(kind, tensor.buffer)].plus(start as u64),
            rows: tensor.rows as u32,
            row_pitch: tensor.row_pitch as u32,
            stride: stride as u32,
            unused: 0,
        }
    }

    /// A matrix of weights, rows of [`padded`] columns in the format of activations: what kernels multiply.
    pub fn matrix(&self, weight: Weight) -> Address {
        let Resident { address, format } = self.weights[weight.id];
        assert_eq!(format, self.dtype.into());
        address
    }

    /// A vector of f32.
    pub fn vector(&self, weight: Weight) -> Address {
        let Resident { address, format } = self.weights[weight.id];
        assert_eq!(format, Format::F32);
        address
    }

    /// The pages of a layer.
    pub fn pages(&self, layer: &KvLayer) -> Pages {
        match layer.space {
            KvSpace::Text => self.text.layer(layer.layer),
            KvSpace::Media => self.media.layer(layer.layer),
        }
    }

    /// Numbers that an operation has with it.
    pub fn constants(&self, numbers: &[f32]) -> Address {
        let same = |known: &&(Vec<f32>, Address)| known.0 == numbers;
        self.constants.iter().find(same).expect("all constants of all plans are uploaded").1
    }
}

/// Partial results of split attention for a usual batch that is decoded: of text, or of an image of several pages.
fn partials_most(plans: &Plans, tokens: usize, kv_config: &KvConfig) -> u64 {
    let slot_bytes = |space| slot_bytes(&plans.text, space);
    let key_tiles = (kv_config.text.pages.least * PAGE_TOKENS).div_ceil(TILE_KEYS);
    let rows = plans.media.ops.iter().map(|op| match op {
        Op::Append { key, layer, .. } if layer.space == KvSpace::Media => key.rows,
        _ => 0,
    });
    let pages = media_pages(rows.max().unwrap_or(0));
    let media_tiles = if pages > ITEM_TILES { pages } else { 0 };
    let bytes = (key_tiles * slot_bytes(KvSpace::Text)).max(media_tiles * slot_bytes(KvSpace::Media));
    (tokens.min(CAPTURED_TOKENS_MAX) * bytes) as u64
}

/// The numbers that operations of all plans have with them: levels of pixels, frequencies of rotary embeddings, ALiBi's
/// slopes. Layers have the same.
fn upload_constants(driver: &mut dyn Driver, plans: &Plans) -> Result<Vec<(Vec<f32>, Address)>> {
    let mut known: Vec<(Vec<f32>, Address)> = Vec::new();
    for op in plans.all().flat_map(|(_, plan)| &plan.ops) {
        let numbers = match op {
            Op::Patches { levels: numbers, .. }
            | Op::Rope { frequencies: numbers, .. }
            | Op::Attention { source: KvSource::Pages(_, Mask::Causal { slopes: Some(numbers) }), .. } => numbers,
            _ => continue,
        };
        if known.iter().all(|(others, _)| others != numbers) {
            let address = driver.allocate(size_of_val(&numbers[..]) as u64)?;
            driver.copy_in(address, bytemuck::cast_slice(numbers))?;
            known.push((numbers.clone(), address));
        }
    }
    Ok(known)
}

/// Refuses widths that the kernels do not serve.
///
/// # Errors
/// What is limited, the wanted and the found.
pub fn check_widths(device: &str, plans: &Plans, weights: &Weights) -> Result<()> {
    const UNIT: usize = 16;
    const HEAD_MAX: usize = 128;
    const NORM_MAX: usize = 16_384;
    let serves_heads = |width: usize| width.is_multiple_of(UNIT) && width <= HEAD_MAX;
    let refuse = |what: String, expected: String, found: usize| {
        Err(Error::device(device, format!("{what}: expected {expected}, found {found}")))
    };
    for (_, plan) in plans.all() {
        let patches =
            |tensor: &Tensor| plan.ops.iter().any(|op| matches!(op, Op::Patches { out, .. } if out == tensor));
        for op in &plan.ops {
            match op {
                Op::Linear { x, weight, .. } if !x.width.is_multiple_of(UNIT) && !patches(x) => {
                    let name = &weights.get(*weight).name;
                    return refuse(format!("width of the input of {name}"), format!("a multiple of {UNIT}"), x.width);
                }
                Op::Attention { query, heads, .. } if !serves_heads(query.width / heads) => {
                    let expected = format!("a multiple of {UNIT} up to {HEAD_MAX}");
                    return refuse("width of an attention head".to_owned(), expected, query.width / heads);
                }
                Op::Concatenate { parts, .. } => {
                    if parts.len() > PARTS_MAX as usize {
                        return refuse("states side by side".to_owned(), format!("at most {PARTS_MAX}"), parts.len());
                    }
                    if let Some(part) = parts.iter().find(|part| !part.width.is_multiple_of(UNIT)) {
                        let expected = format!("a multiple of {UNIT}");
                        return refuse("width of a state beside others".to_owned(), expected, part.width);
                    }
                }
                Op::Norm { group, .. } if *group > NORM_MAX => {
                    return refuse("width of a norm".to_owned(), format!("at most {NORM_MAX}"), *group);
                }
                Op::Gather { table, index: Index::Position { offset }, .. } if table.rows < PAGE_TOKENS + offset => {
                    let found = table.rows.saturating_sub(*offset);
                    return refuse("positions".to_owned(), format!("at least {PAGE_TOKENS}"), found);
                }
                Op::Gather { index: Index::TokenId, out, .. } if !out.width.is_multiple_of(UNIT) => {
                    return refuse("width of a token".to_owned(), format!("a multiple of {UNIT}"), out.width);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Appends `rows` of a plan's output to `out`, as f32: as a linear layer left them, or widened from storage.
pub fn fetch(
    driver: &mut dyn Driver,
    memory: &Memory,
    kind: PlanKind,
    plan: &Plan,
    rows: Range<usize>,
    out: &mut Vec<f32>,
) -> Result<()> {
    let output = plan.output.expect("what is fetched is there");
    if plan.ops.iter().any(|op| matches!(op, Op::Linear { out, .. } if *out == output)) {
        let from = memory.activations.output.plus((rows.start * output.width * 4) as u64);
        let end = out.len();
        out.resize(end + rows.len() * output.width, 0.0);
        return driver.copy_out(from, bytemuck::cast_slice_mut(&mut out[end..]));
    }
    assert!(output.is_whole(), "what is fetched is a whole buffer");
    let pitch = padded(output.stride);
    let mut bytes = vec![0u8; rows.len() * pitch * BYTES];
    driver.copy_out(memory.rows(kind, &output).data.plus((rows.start * pitch * BYTES) as u64), &mut bytes)?;
    let values = storage::load_values(memory.dtype, &bytes);
    out.extend(values.chunks_exact(pitch).flat_map(|row| &row[..output.width]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_an_image_come_together() {
        let room = |images, frames_each| {
            let room = Room::of(Capacity { images, tokens: 64 }, &KvConfig::default(), frames_each, 1);
            (room.frames, room.images)
        };
        assert_eq!([room(32, 1), room(32, 4), room(3, 4), room(0, 4)], [(32, 32), (32, 8), (4, 1), (0, 0)]);
    }
}
