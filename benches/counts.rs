//! Counts instead of times, for machines without a GPU: what the kernels ask of memory and of the matrix units against
//! the least possible, from the emulator's trace of every address, and what the compiler says of their occupancy.
//! Prints Markdown; fails where a kernel that is bound by memory asks for more than it may.
//!
//!     cargo bench --bench counts > benches/results/DATE-counts.md

#[allow(dead_code, reason = "only its table is wanted")]
#[path = "../examples/kernel_report.rs"]
mod kernel_report;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use flamant::config::{Activation, Norm};
use flamant::probe::emulated::Counters;
use flamant::probe::{
    Axis, Batch, Capacity, Cost, Device, Dtype, Epilogue, Graph, ImagePages, Index, KvConfig, KvLayer, KvSource,
    KvSpace, MEDIA_PAGE_ROWS, Mask, MediaSeen, Numbers, Op, PAGE_TOKENS, PageCount, Place, Plan, PlanKind, Plans,
    PoolShape, Probe, Tensor, Tiling, Weight,
};

/// Kernels that are bound by memory may ask for so many times the least bytes.
const BYTES_RATIO_MAX: f64 = 1.15;
/// Operations of one matrix instruction of a warp: 16 x 8 x 16 multiply-adds.
const INSTRUCTION_FLOPS: u64 = 4096;
/// Bytes of a stored number, and of a number in a vector of weights.
const STORED: usize = 2;
const VECTOR: usize = 4;

/// One operation, ready to be counted.
struct Trial {
    what: String,
    /// Whether memory bounds it, and the limit holds.
    by_memory: bool,
    plan: Plan,
    numbers: Numbers,
    lists: Lists,
    /// What fills the pages first.
    before: Option<(Plan, Lists)>,
    kv_config: KvConfig,
}

/// What a trial did.
struct Row {
    what: String,
    kernels: Vec<&'static str>,
    by_memory: bool,
    least: Cost,
    total: Counters,
}

/// The lists of a batch.
#[derive(Default)]
struct Lists {
    positions: Vec<u32>,
    sequences: Vec<u32>,
    tables: Vec<Vec<u32>>,
    media: Vec<MediaSeen>,
    /// Rows that each image keeps, in pages one after the other.
    images: Vec<u32>,
    /// How each is cut into tiles, and how many there is room for.
    tilings: Vec<Tiling>,
    tiles: usize,
}

impl Lists {
    /// So many images.
    fn images(count: usize) -> Lists {
        Lists { images: vec![0; count], ..Lists::default() }
    }

    /// Images in tiles, of which each has so many.
    fn tiles(images: &[u32], tiles: usize) -> Lists {
        let tilings = images.iter().map(|&tiles| Tiling { ratio: tiles, tiles }).collect();
        Lists { tilings, tiles, ..Lists::images(images.len()) }
    }

    /// New tokens of so many sequences, each from position `from` to `to`.
    fn text(sequences: usize, from: usize, to: usize) -> Lists {
        let each = || 0..sequences as u32;
        let pages = to.div_ceil(PAGE_TOKENS) as u32;
        Lists {
            positions: each().flat_map(|_| from as u32..to as u32).collect(),
            sequences: each().flat_map(|sequence| vec![sequence; to - from]).collect(),
            tables: each().map(|sequence| (sequence * pages..(sequence + 1) * pages).collect()).collect(),
            media: vec![MediaSeen::NOTHING; sequences * (to - from)],
            ..Lists::default()
        }
    }

    /// The last of `to` tokens of so many sequences, which have the pages of the first `common` tokens in common.
    fn forked(sequences: usize, common: usize, to: usize) -> Lists {
        let shared = (common / PAGE_TOKENS) as u32;
        let own = to.div_ceil(PAGE_TOKENS) as u32 - shared;
        let table = |sequence: u32| (0..shared).chain((0..own).map(|page| shared + sequence * own + page)).collect();
        Lists { tables: (0..sequences as u32).map(table).collect(), ..Lists::text(sequences, to - 1, to) }
    }

    /// As many tokens of one sequence, which see these many images of so many rows one after the other.
    fn seeing(tokens: usize, images: usize, rows: usize) -> Lists {
        let media = (0..tokens).map(|token| MediaSeen::one((token * images / tokens) as u32)).collect();
        Lists { media, images: vec![rows as u32; images], ..Lists::text(1, 0, tokens) }
    }
}

impl Lists {
    /// Pages of all images.
    fn media_pages(&self) -> usize {
        self.images.iter().map(|&rows| (rows as usize).div_ceil(MEDIA_PAGE_ROWS)).sum()
    }
}

/// Numbers between -1 and 1, always the same.
struct Random(u32);

impl Random {
    fn values(&mut self, count: usize) -> Vec<f32> {
        let next = |_| {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }
}

/// Calls `with` with the batch.
fn batch<R>(plan: &Plan, lists: &Lists, with: impl FnOnce(&Batch) -> R) -> R {
    let mut random = Random(1);
    let frames = vec![lists.tiles as u32; lists.tilings.len()];
    let units = |axis| match axis {
        Axis::Frames if lists.tiles > 0 => lists.images.len() * lists.tiles,
        Axis::Frames | Axis::Images => lists.images.len(),
        Axis::Tokens | Axis::Outputs => lists.positions.len(),
    };
    let inputs: Vec<Vec<f32>> =
        plan.inputs.iter().map(|input| random.values(units(input.axis) * input.rows * input.width)).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let tables: Vec<&[u32]> = lists.tables.iter().map(Vec::as_slice).collect();
    let side = plan.ops.iter().find_map(|op| if let Op::Patches { side, .. } = op { Some(*side) } else { None });
    let frame = vec![100; side.map_or(0, |side| 3 * side * side)];
    let pages: Vec<u32> = (0..lists.media_pages() as u32).collect();
    let mut rest = &pages[..];
    let images = lists.images.iter().map(|&rows| {
        let (pages, after) = rest.split_at((rows as usize).div_ceil(MEDIA_PAGE_ROWS));
        rest = after;
        ImagePages { pages, rows }
    });
    let images: Vec<ImagePages> = images.collect();
    // Images are encoded, or seen by tokens.
    let (images, seen_images) = if lists.media.is_empty() { (images, Vec::new()) } else { (Vec::new(), images) };
    with(&Batch {
        inputs: &inputs,
        pixels: &vec![&frame[..]; if side.is_some() { lists.images.len() } else { 0 }],
        images: &images,
        frames: &frames,
        tilings: &lists.tilings,
        ids: &lists.positions,
        positions: &lists.positions,
        sequences: &lists.sequences,
        tables: &tables,
        seen_images: &seen_images,
        media: &lists.media,
        outputs: &lists.positions,
    })
}

fn run(probe: &mut Probe, which: PlanKind, plan: &Plan, lists: &Lists) {
    batch(plan, lists, |batch| probe.run(which, batch)).expect("the emulator finds no fault");
}

impl Trial {
    fn new(what: String, plan: Plan, numbers: Numbers, lists: Lists) -> Trial {
        let kv_config = KvConfig { text: pool(1, 16, 1), media: pool(1, 16, 1) };
        Trial { what, by_memory: true, plan, numbers, lists, before: None, kv_config }
    }

    fn count(self) -> Row {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut place = Place::new(Device::Emulated, Some(Dtype::Bf16));
        place.emulated.counted = Some(log.clone());
        let (media, filled) = self.before.unwrap_or_else(|| (Graph::new().plan(&[], None), Lists::default()));
        let most = |units: fn(&Lists) -> usize| units(&self.lists).max(units(&filled)).max(1);
        let capacity =
            Capacity { images: most(|lists| lists.images.len()), tokens: most(|lists| lists.positions.len()) };
        let workload = batch(&self.plan, &self.lists, |batch| batch.workload());
        let least = Cost { bytes: self.plan.bytes(&workload), flops: self.plan.flops(&workload) };
        let plans = Plans {
            media: media.clone(),
            text: self.plan.clone(),
            features: None,
            tiles: (self.lists.tiles > 0).then_some(self.lists.tiles),
        };
        let mut probe = Probe::open(&place, self.numbers, plans, self.kv_config, capacity).expect("the emulator opens");
        run(&mut probe, PlanKind::Media, &media, &filled);
        log.lock().expect("no thread died").clear();
        run(&mut probe, PlanKind::Text, &self.plan, &self.lists);

        let launches = log.lock().expect("no thread died");
        let total = launches.iter().fold(Counters::default(), |sum, (_, launch)| Counters {
            matrix_products: sum.matrix_products + launch.matrix_products,
            global_load_bytes: sum.global_load_bytes + launch.global_load_bytes,
            global_store_bytes: sum.global_store_bytes + launch.global_store_bytes,
            global_sectors: sum.global_sectors + launch.global_sectors,
            global_sectors_ideal: sum.global_sectors_ideal + launch.global_sectors_ideal,
            shared_wavefronts: sum.shared_wavefronts + launch.shared_wavefronts,
            shared_wavefronts_ideal: sum.shared_wavefronts_ideal + launch.shared_wavefronts_ideal,
            ..sum
        });
        Row {
            what: self.what,
            kernels: launches.iter().map(|(kernel, _)| *kernel).collect(),
            by_memory: self.by_memory,
            least,
            total,
        }
    }
}

fn matrix(numbers: &mut Numbers, rows: usize, columns: usize) -> Weight {
    let values = Random(2).values(rows * columns);
    numbers.matrix(rows, columns, values)
}

fn vector(numbers: &mut Numbers, count: usize) -> Weight {
    numbers.vector(vec![1.0; count])
}

/// What surrounds a product.
#[derive(Clone, Copy, PartialEq)]
enum Around {
    Nothing,
    /// Bias and GELU.
    Gelu,
    /// Two products, one of them through SiLU.
    Paired,
    /// Gate and residual.
    Gated,
}

fn linear(count: usize, columns: usize, width: usize, around: Around) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Tokens, 1, columns);
    let residual = graph.input(Axis::Tokens, 1, width);
    let (mut inputs, mut bias, mut words) = (vec![x], None, "");
    let mut epilogue = Epilogue::default();
    match around {
        Around::Nothing => {}
        Around::Gelu => {
            words = ", bias and GELU";
            bias = Some(vector(&mut numbers, width));
            epilogue.activation = Some(Activation::Gelu);
        }
        Around::Paired => {
            words = ", SwiGLU";
            epilogue = Epilogue { activation: Some(Activation::Silu), paired: true, ..epilogue };
        }
        Around::Gated => {
            words = ", gate and residual";
            epilogue = Epilogue { gate: Some(vector(&mut numbers, 1)), residual: Some(residual), ..epilogue };
            inputs.push(residual);
        }
    }
    let weight = matrix(&mut numbers, epilogue.weight_rows(width), columns);
    graph.linear(x, weight, bias, epilogue);
    let what = format!("linear, {count} rows, {columns} to {width}{words}");
    Trial { by_memory: count <= 16, ..Trial::new(what, graph.plan(&inputs, None), numbers, Lists::text(1, 0, count)) }
}

fn norm(kind: Norm, count: usize, width: usize, group: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Tokens, 1, width);
    let weight = vector(&mut numbers, group);
    let bias = (kind == Norm::Layer).then(|| vector(&mut numbers, group));
    let what = if group == width {
        graph.norm(x, kind, weight, bias, 1e-5);
        format!("{kind:?} norm, {count} rows of {width}")
    } else {
        graph.norm_groups(x, kind, weight, bias, 1e-5);
        format!("{kind:?} norm of heads, {count} rows of {} x {group}", width / group)
    };
    Trial::new(what, graph.plan(&[x], None), numbers, Lists::text(1, 0, count))
}

fn gather(count: usize, width: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let table = matrix(&mut numbers, count, width);
    graph.gather(table, Index::TokenId, None);
    let what = format!("gather, {count} rows of {width}");
    Trial::new(what, graph.plan(&[], None), numbers, Lists::text(1, 0, count))
}

fn patches(images: usize) -> Trial {
    const SIDE: usize = 224;
    const PATCH: usize = 14;
    let mut graph = Graph::new();
    graph.patches(Random(3).values(3 * 256), SIDE, PATCH);
    let what = format!("patches, {images} images of {SIDE} pixels");
    Trial::new(what, graph.plan(&[], None), Numbers::default(), Lists::images(images))
}

fn class_and_position(images: usize, patches: usize, width: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Images, patches, width);
    let class = vector(&mut numbers, width);
    let position = matrix(&mut numbers, patches + 1, width);
    graph.class_and_position(x, class, position);
    let what = format!("class row and positions, {images} images, {} rows of {width}", patches + 1);
    Trial::new(what, graph.plan(&[x], None), numbers, Lists::images(images))
}

/// The most tiles of Llama-3.2-Vision, and its shapes of images.
const TILES: usize = 4;
const RATIOS: usize = 9;

fn tile_positions(images: &[u32], patches: usize, width: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Frames, patches, width);
    let table = matrix(&mut numbers, RATIOS * TILES * (patches + 1), width);
    graph.tile_positions(x, table, TILES);
    let what = format!("positions of tiles, {images:?} of {TILES}, {} rows of {width}", patches + 1);
    Trial::new(what, graph.plan(&[x], None), numbers, Lists::tiles(images, TILES))
}

/// To each row its tile's: the table is small, and read again from caches.
fn tile_embedding(images: &[u32], tile_rows: usize, fillers: usize, width: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Images, TILES * (tile_rows + fillers), width);
    let table = matrix(&mut numbers, RATIOS * TILES, width);
    graph.tile_embedding(x, table, TILES, tile_rows);
    let what = format!("embeddings of tiles, {images:?} of {TILES}, {tile_rows} + {fillers} rows of {width}");
    let trial = Trial::new(what, graph.plan(&[x], None), numbers, Lists::tiles(images, TILES));
    Trial { by_memory: false, ..trial }
}

fn fill_rows(images: usize, rows: usize, filled: usize, width: usize) -> Trial {
    let mut graph = Graph::new();
    let x = graph.input(Axis::Images, rows, width);
    graph.fill_rows(x, filled);
    let what = format!("zeros behind rows, {images} images, {rows} to {filled} rows of {width}");
    Trial::new(what, graph.plan(&[x], None), Numbers::default(), Lists::images(images))
}

fn concatenate(images: usize, rows: usize, parts: usize, width: usize) -> Trial {
    let mut graph = Graph::new();
    let inputs: Vec<Tensor> = (0..parts).map(|_| graph.input(Axis::Images, rows, width)).collect();
    graph.concatenate(inputs.clone());
    let what = format!("{parts} states side by side, {images} images, {rows} rows of {width}");
    Trial::new(what, graph.plan(&inputs, None), Numbers::default(), Lists::images(images))
}

/// Attention of tiles of which each image has some: all rows, one head.
fn tiles(images: &[u32], tile_rows: usize, fillers: usize, heads: usize, head_width: usize) -> Trial {
    let mut graph = Graph::new();
    let rows = TILES * (tile_rows + fillers);
    let qkv = graph.input(Axis::Images, rows, 3 * heads * head_width);
    let [query, key, value] = qkv.split();
    graph.attention(query, KvSource::Tiles { key, value, tile_rows }, heads, 1.0 / (head_width as f32).sqrt());
    let what = format!("attention, {images:?} of {TILES} tiles, {rows} rows, {heads} heads of {head_width}");
    let trial = Trial::new(what, graph.plan(&[qkv], None), Numbers::default(), Lists::tiles(images, TILES));
    Trial { by_memory: false, ..trial }
}

fn broadcast(images: usize, latents: usize, width: usize) -> Trial {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let rows = matrix(&mut numbers, latents, width);
    graph.broadcast(rows);
    let what = format!("broadcast, {latents} rows of {width} to {images} images");
    Trial::new(what, graph.plan(&[], None), numbers, Lists::images(images))
}

fn append(count: usize, heads: usize, head_width: usize, rotary: bool) -> Trial {
    let width = heads * head_width;
    let mut graph = Graph::new();
    let all = graph.input(Axis::Tokens, 1, 3 * width);
    let [query, key, value] = all.split();
    if rotary {
        let frequencies = vec![1.0; head_width / 2];
        graph.rope(query, head_width, frequencies.clone());
        graph.rope(key, head_width, frequencies);
    }
    graph.append(key, value, text_layer(width / head_width, head_width));
    let what = format!("append{}, {count} tokens of {width}", if rotary { " with rotary embedding" } else { "" });
    let trial = Trial::new(what, graph.plan(&[all], None), Numbers::default(), Lists::text(1, 0, count));
    let kv_config = KvConfig { text: text_pool(width / head_width, head_width, count), ..trial.kv_config };
    Trial { kv_config, ..trial }
}

fn text_layer(kv_heads: usize, head_width: usize) -> KvLayer {
    KvLayer { space: KvSpace::Text, layer: 0, kv_heads, head_width }
}

fn media_layer(kv_heads: usize, head_width: usize) -> KvLayer {
    KvLayer { space: KvSpace::Media, ..text_layer(kv_heads, head_width) }
}

/// One layer of so many pages.
fn pool(kv_heads: usize, head_width: usize, pages: usize) -> PoolShape {
    PoolShape { layers: 1, kv_heads, head_width, pages: PageCount { least: pages, most: pages } }
}

/// Pages for so many tokens.
fn text_pool(kv_heads: usize, head_width: usize, tokens: usize) -> PoolShape {
    pool(kv_heads, head_width, tokens.div_ceil(PAGE_TOKENS))
}

/// Attention of sequences to themselves: all tokens but the last `new` are in pages already.
fn causal(sequences: usize, tokens: usize, new: usize, heads: usize, head_width: usize, alibi: bool) -> Trial {
    let width = heads * head_width;
    let mut graph = Graph::new();
    let query = graph.input(Axis::Tokens, 1, width);
    let slopes = alibi.then(|| (0..heads).map(|head| 0.5f32.powi(head as i32 + 1)).collect());
    let source = KvSource::Pages(text_layer(heads, head_width), Mask::Causal { slopes });
    graph.attention(query, source, heads, 1.0 / (head_width as f32).sqrt());
    let bias = if alibi { ", ALiBi" } else { "" };
    let what = format!("causal attention, {sequences} x {new} tokens at {tokens}, {heads} heads of {head_width}{bias}");
    let lists = Lists::text(sequences, tokens - new, tokens);
    let trial = Trial::new(what, graph.plan(&[query], None), Numbers::default(), lists);
    let pages = sequences * tokens.next_multiple_of(PAGE_TOKENS);
    Trial {
        by_memory: new == 1,
        before: Some((filler(heads, head_width), Lists::text(sequences, 0, tokens))),
        kv_config: KvConfig { text: text_pool(heads, head_width, pages), ..trial.kv_config },
        ..trial
    }
}

/// Decoding of sequences that begin with the same pages: the least is to read these once.
fn forked(sequences: usize, common: usize, tokens: usize, heads: usize, head_width: usize) -> Trial {
    let own = tokens - common;
    let distinct = common + sequences * own;
    let heads_of = format!("{heads} heads of {head_width}");
    let what = format!("causal attention, {sequences} x 1 tokens at {tokens}, {common} in common, {heads_of}");
    let trial = causal(sequences, tokens, 1, heads, head_width, false);
    // Pages are numbered one after the other: what fills them may be one long sequence.
    Trial {
        what,
        lists: Lists::forked(sequences, common, tokens),
        before: Some((filler(heads, head_width), Lists::text(1, 0, distinct))),
        kv_config: KvConfig { text: text_pool(heads, head_width, distinct), ..trial.kv_config },
        ..trial
    }
}

/// A plan that fills text pages.
fn filler(kv_heads: usize, head_width: usize) -> Plan {
    let mut fill = Graph::new();
    let [key, value] = [(); 2].map(|()| fill.input(Axis::Tokens, 1, kv_heads * head_width));
    fill.append(key, value, text_layer(kv_heads, head_width));
    fill.plan(&[key, value], None)
}

/// Pages of so many images, and what fills them.
fn media_pages(images: usize, rows: usize, kv_heads: usize, head_width: usize) -> (KvConfig, Option<(Plan, Lists)>) {
    let mut fill = Graph::new();
    let [key, value] = [(); 2].map(|()| fill.input(Axis::Images, rows, kv_heads * head_width));
    fill.append(key, value, media_layer(kv_heads, head_width));
    let lists = Lists { images: vec![rows as u32; images], ..Lists::default() };
    let kv_config = KvConfig { text: text_pool(1, 16, 16), media: pool(kv_heads, head_width, lists.media_pages()) };
    (kv_config, Some((fill.plan(&[key, value], None), lists)))
}

const LATENTS: usize = 64;

/// Attention of tokens to the image before each, which has so many `rows`; heads of queries, and of keys and values.
fn image_attention(
    tokens: usize,
    images: usize,
    rows: usize,
    [heads, kv_heads]: [usize; 2],
    head_width: usize,
) -> Trial {
    let mut graph = Graph::new();
    let query = graph.input(Axis::Tokens, 1, heads * head_width);
    let source = KvSource::Pages(media_layer(kv_heads, head_width), Mask::Media);
    graph.attention(query, source, heads, 1.0 / (head_width as f32).sqrt());
    let (kv_config, before) = media_pages(images, rows, kv_heads, head_width);
    let of = if kv_heads == heads { String::new() } else { format!(" for {kv_heads} of keys") };
    let what = format!(
        "masked image attention, {tokens} tokens, {images} images of {rows} rows, {heads} heads of {head_width}{of}"
    );
    let lists = Lists::seeing(tokens, images, rows);
    Trial { kv_config, before, ..Trial::new(what, graph.plan(&[query], None), Numbers::default(), lists) }
}

/// Rows of an image of four tiles of Llama-3.2-Vision.
const TILED_ROWS: usize = 6404;

/// Attention of one token each of so many sequences to one such image. By count the keys are read again for every few
/// tokens, and each page gives each token and head a partial result: all of it from caches, which hold the image.
fn decoded_image_attention(sequences: usize, heads: [usize; 2]) -> Trial {
    let trial = image_attention(sequences, 1, TILED_ROWS, heads, 128);
    let seen = Lists { media: trial.lists.media, images: trial.lists.images, ..Lists::text(sequences, 0, 1) };
    Trial { what: format!("{}, decoded", trial.what), lists: seen, by_memory: false, ..trial }
}

/// The attention half of a gated block; in one launch, or in the four that it is composed of.
fn gated(tokens: usize, width: usize, heads: usize, head_width: usize, kind: Norm, fused: bool) -> Trial {
    let inner = heads * head_width;
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Tokens, 1, width);
    // What is added is a tensor of its own: then the operations are no gated block to the launch code.
    let residual = if fused { x } else { graph.input(Axis::Tokens, 1, width) };
    let weight = vector(&mut numbers, width);
    let bias = (kind == Norm::Layer).then(|| vector(&mut numbers, width));
    let y = graph.norm(x, kind, weight, bias, 1e-5);
    let weight = matrix(&mut numbers, inner, width);
    let query = graph.linear(y, weight, None, Epilogue::default());
    let source = KvSource::Pages(media_layer(heads, head_width), Mask::Media);
    let y = graph.attention(query, source, heads, 1.0 / (head_width as f32).sqrt());
    let weight = matrix(&mut numbers, width, inner);
    let gate = Some(vector(&mut numbers, 1));
    graph.linear(y, weight, None, Epilogue { gate, residual: Some(residual), ..Epilogue::default() });
    let inputs = if fused { vec![x] } else { vec![x, residual] };
    let (kv_config, before) = media_pages(1, LATENTS, heads, head_width);
    let form = if fused { "one launch" } else { "four launches" };
    let what = format!("gated attention, {tokens} tokens, width {width}, {heads} heads of {head_width}, {form}");
    Trial {
        by_memory: false,
        kv_config,
        before,
        ..Trial::new(what, graph.plan(&inputs, None), numbers, Lists::seeing(tokens, 1, LATENTS))
    }
}

/// Attention within images: a tower's, or with `latents` a resampler's.
fn image(images: usize, rows: usize, latents: usize, heads: usize, head_width: usize, norms: bool) -> Trial {
    let inner = heads * head_width;
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let mut source = |rows| [(); 2].map(|()| graph.input(Axis::Images, rows, inner));
    let [key, value] = source(rows);
    let (mut inputs, mut sources) = (vec![key, value], vec![(key, value)]);
    if latents > 0 {
        let [key, value] = source(latents);
        inputs.extend([key, value]);
        sources.push((key, value));
    }
    let queries = if latents > 0 { latents } else { rows };
    let query = graph.input(Axis::Images, queries, inner);
    inputs.push(query);
    if norms {
        let [weight, bias] = [(); 2].map(|()| vector(&mut numbers, head_width));
        for x in [query].into_iter().chain(sources.iter().map(|(key, _)| *key)) {
            graph.norm_groups(x, Norm::Layer, weight, Some(bias), 1e-5);
        }
    }
    graph.attention(query, KvSource::Dense(sources), heads, 1.0 / (head_width as f32).sqrt());
    let of = if latents > 0 { format!("resampler, {rows} + {latents} keys") } else { format!("vision, {rows} tokens") };
    let norms = if norms { ", norms of heads" } else { "" };
    let what = format!("attention, {of}, {images} images, {heads} heads of {head_width}{norms}");
    Trial { by_memory: false, ..Trial::new(what, graph.plan(&inputs, None), numbers, Lists::images(images)) }
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for count in [1, 2, 4, 8, 16] {
        trials.push(linear(count, 1024, 1024, Around::Nothing));
    }
    trials.extend([
        linear(1, 4096, 1024, Around::Gated),
        linear(1, 1024, 1024, Around::Paired),
        linear(8, 1024, 1024, Around::Paired),
        linear(16, 1024, 2048, Around::Gelu),
        linear(64, 1024, 1024, Around::Gelu),
        linear(1024, 256, 1024, Around::Gated),
        causal(1, 1024, 1, 8, 128, false),
        causal(4, 512, 1, 8, 64, true),
        forked(64, 896, 1024, 2, 128),
        causal(1, 256, 256, 2, 128, false),
        image_attention(1, 1, LATENTS, [8, 8], 64),
        image_attention(16, 16, LATENTS, [8, 8], 128),
        image_attention(256, 8, LATENTS, [8, 8], 64),
        // A token of Llama-3.2-Vision that sees an image of four tiles. Four heads of queries a head of keys have four
        // times the partial results, which caches hold: it asks for more than memory sees.
        Trial { by_memory: false, ..image_attention(1, 1, TILED_ROWS, [32, 8], 128) },
        Trial { by_memory: false, ..image_attention(1, 1, TILED_ROWS, [64, 8], 128) },
        // As many sequences that see the same such image, with a quarter of the heads.
        decoded_image_attention(16, [8, 2]),
        decoded_image_attention(64, [8, 2]),
        image(1, 257, 0, 4, 64, false),
        image(1, 257, 0, 4, 80, false),
        tiles(&[4], 1601, 7, 1, 80),
        tiles(&[1], 1601, 7, 1, 80),
        tile_positions(&[1, 4], 400, 256),
        tile_embedding(&[1, 4], 401, 7, 256),
        fill_rows(2, 1604, 1608, 256),
        concatenate(2, 400, 6, 256),
        image(1, 256, 64, 4, 64, false),
        image(1, 257, 64, 4, 96, true),
        norm(Norm::Layer, 256, 2048, 2048),
        norm(Norm::Rms, 256, 4096, 4096),
        norm(Norm::Rms, 64, 2048, 128),
        gather(64, 4096),
        patches(2),
        class_and_position(4, 256, 1024),
        broadcast(4, 64, 1024),
        append(64, 16, 128, true),
        append(64, 16, 128, false),
    ]);
    trials
}

impl Row {
    fn asked(&self) -> u64 {
        self.total.global_load_bytes + self.total.global_store_bytes
    }

    fn bytes_ratio(&self) -> f64 {
        self.asked() as f64 / self.least.bytes as f64
    }

    fn is_over(&self) -> bool {
        self.by_memory && self.bytes_ratio() > BYTES_RATIO_MAX
    }

    fn print(&self) {
        let ratio = |a: u64, b: u64| if b == 0 { "-".to_owned() } else { format!("{:.2}", a as f64 / b as f64) };
        let total = &self.total;
        println!(
            "| {} | {} | {:.2} | {:.2}{} | {} | {} | {} | {} | {} |",
            self.what,
            self.kernels.join(", ").replace("_bf16", ""),
            self.least.bytes as f64 / 1e6,
            self.bytes_ratio(),
            if self.is_over() { " over" } else { "" },
            ratio(total.global_sectors, total.global_sectors_ideal),
            ratio(total.shared_wavefronts, total.shared_wavefronts_ideal),
            ratio(total.matrix_products * INSTRUCTION_FLOPS, self.least.flops),
            ratio(total.shared_wavefronts, total.matrix_products),
            ratio(self.least.flops, self.asked()),
        );
    }
}

fn print_gated() {
    const HEAD: [&str; 2] = [
        "| block | tokens | least MB | one launch: asked / least | on 132 multiprocessors | four launches |",
        "|---|---|---|---|---|---|",
    ];
    println!("\n## The gated block's attention half: one launch or four\n\n{}\n{}", HEAD[0], HEAD[1]);
    // OpenFlamingo-3B's own sizes; IDEFICS' heads and norm, a quarter as wide.
    for (name, width, heads, head_width, kind) in
        [("OpenFlamingo-3B", 2048, 8, 64, Norm::Layer), ("IDEFICS, width 1024", 1024, 8, 128, Norm::Rms)]
    {
        for tokens in [1, 4, 8] {
            let [one, four] = [true, false].map(|fused| gated(tokens, width, heads, head_width, kind, fused).count());
            assert_eq!((one.kernels.len(), four.kernels.len()), (1, 4), "the forms are those that are meant");
            // Each block with a unit of 16 queries normalises all tokens; the emulator claims 3 multiprocessors.
            let vectors = if kind == Norm::Layer { 2 } else { 1 };
            let norm_bytes = tokens * width * (STORED + vectors * VECTOR);
            let more = (132.min(heads * head_width / 16) - 3) * norm_bytes;
            println!(
                "| {name} | {tokens} | {:.2} | {:.2} | {:.2} | {:.2} |",
                one.least.bytes as f64 / 1e6,
                one.bytes_ratio(),
                (one.asked() as usize + more) as f64 / one.least.bytes as f64,
                four.asked() as f64 / one.least.bytes as f64,
            );
        }
    }
}

fn main() -> ExitCode {
    println!("# Counts of the kernels, bf16, in the emulator\n");
    println!("Least bytes: each operand once. Asked: bytes of all loads and stores of global memory, whatever cache");
    println!("answers. Sectors and wavefronts against those without a wasted byte or a bank conflict. FLOPs: matrix");
    println!("instructions against the multiply-adds needed. Shared: wavefronts for each matrix instruction, that is,");
    println!("clocks of shared memory for each of an H200's matrix units at their best. Reuse: needed FLOPs for each");
    println!("byte asked.\n");
    println!("| operation | kernels | least MB | asked / least | sectors | wavefronts | FLOPs | shared | reuse |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let rows: Vec<Row> = trials().into_iter().map(Trial::count).inspect(Row::print).collect();
    print_gated();
    println!("\n## Registers and occupancy of the bf16 kernels on sm_90\n\n```");
    let table = kernel_report::table();
    let lines = table.lines().enumerate();
    lines.filter(|(at, line)| *at == 0 || line.contains(" sm_90") && !line.contains("_f16")).for_each(|(_, line)| {
        println!("{line}");
    });
    println!("```");
    let over: Vec<&Row> = rows.iter().filter(|row| row.is_over()).collect();
    for row in &over {
        eprintln!("{}: asks for {:.2} times the least bytes, {BYTES_RATIO_MAX} at most", row.what, row.bytes_ratio());
    }
    if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
