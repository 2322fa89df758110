//! From steps of a plan to launches: names, grids, shared memory and arguments. The only place that knows how a kernel
//! is started; tests, benches and both devices go through it. Each kernel's own file says what is written here.

use bytemuck::NoUninit;

use super::arguments::{self as args, Kernel, KernelOf};
use super::batch::{Layout, Shape, TILE_ROWS};
use super::driver::{Address, Launch, launch};
use super::fuse::{Attention, Gated, HeadNorm, Step};
use super::memory::{Memory, SAMPLED_ROWS};
use super::split::TILE_KEYS;
use super::storage::{BYTES, padded};
use super::tuning::{LinearShape, Machine, block_heads, linear_form};
use crate::backend::Request;
use crate::checkpoint::Dtype;
use crate::graph::{
    Activation, Axis, Counts, Index, KvLayer, KvSource, KvSpace, Mask, Norm, Op, Plan, PlanKind, Tensor, Weight,
};
use crate::kv::PageCopy;

/// Threads of a block of most kernels.
const THREADS: u32 = 256;
/// Threads of an attention block: four warps of 16 queries.
const ATTENTION_THREADS: u32 = 128;
/// Columns that one thread reads at once.
const VECTOR: u32 = 8;
const LANES: u32 = 32;
/// Warps of a block of split attention.
const SPLIT_WARPS: u32 = 2;
/// Bytes of shared memory of such a block for each padded column: two tiles of keys and values, and queries.
const SPLIT_SHARED_ROWS: u32 = 576;
/// Rows that one block folds after it, one a warp.
const COMBINE_WARPS: u32 = 4;
/// Rows that share a block of a norm at most: weight and bias are read once for them.
const NORM_ROWS_MAX: u32 = 16;
/// Widest group that `norm_heads` serves.
const HEAD_GROUP_MAX: u32 = 256;

/// Makes the launches of a plan for one shape of batch.
pub struct Launcher<'a> {
    pub memory: &'a Memory,
    pub multiprocessors: u32,
    pub shared_bytes_max: u32,
    /// Whether blocks may wait for each other.
    pub cooperative: bool,
    pub kind: PlanKind,
    pub plan: &'a Plan,
    pub shape: Shape,
}

/// The width that an attention kernel is compiled for.
fn compiled_width(head_width: usize) -> u32 {
    [64, 80, 96, 128].into_iter().find(|&width| width as usize >= head_width).expect("head widths are checked at open")
}

fn stored_activation(activation: Option<Activation>) -> args::Activation {
    match activation {
        None => args::Activation::None,
        Some(Activation::Gelu) => args::Activation::Gelu,
        Some(Activation::GeluTanh) => args::Activation::GeluTanh,
        Some(Activation::QuickGelu) => args::Activation::QuickGelu,
        Some(Activation::Relu) => args::Activation::Relu,
        Some(Activation::Silu) => args::Activation::Silu,
        Some(Activation::SquaredRelu) => args::Activation::SquaredRelu,
    }
}

impl Launcher<'_> {
    /// All launches of the steps.
    pub fn launches(&self, steps: &[Step]) -> Vec<Launch> {
        let mut launches = Vec::new();
        steps.iter().for_each(|step| self.step(step, &mut launches));
        launches
    }

    fn step(&self, step: &Step, launches: &mut Vec<Launch>) {
        match step {
            Step::Single(op) => launches.extend(self.single(op)),
            Step::Append { .. } => launches.extend(self.append(step)),
            Step::Attention(attention) => self.attention(attention, launches),
            Step::Gated { whole, parts } => match self.gated(whole) {
                Some(launch) => launches.push(launch),
                None => parts.iter().for_each(|part| self.step(part, launches)),
            },
        }
    }

    fn counts(&self) -> Counts {
        let Shape { frames, images, tokens, outputs, .. } = self.shape;
        Counts { frames, images, tokens, outputs }
    }

    fn count(&self, tensor: &Tensor) -> u32 {
        tensor.row_count(&self.counts()) as u32
    }

    /// Images or frames, as a tensor's rows are counted.
    fn units(&self, tensor: &Tensor) -> u32 {
        self.counts().units(tensor.axis) as u32
    }

    fn rows(&self, tensor: &Tensor) -> args::Rows {
        self.memory.rows(self.kind, tensor)
    }

    fn list(&self, at: impl Fn(&Layout) -> usize) -> Address {
        self.memory.list(at(&Layout(self.shape)))
    }

    fn vector(&self, weight: Option<Weight>) -> Address {
        weight.map_or(Address::NULL, |weight| self.memory.vector(weight))
    }

    /// The list of which tokens see an image, where that is asked.
    fn seeing(&self, asked: bool) -> Address {
        if asked { self.list(Layout::seeing) } else { Address::NULL }
    }

    /// The type of stored numbers.
    fn dtype(&self) -> Dtype {
        self.memory.dtype
    }

    /// A matrix of weights as rows.
    fn table(&self, weight: Weight) -> args::Rows {
        let stride = padded(weight.columns) as u32;
        args::Rows { data: self.memory.matrix(weight), rows: 1, row_pitch: 1, stride, unused: 0 }
    }

    /// A launch of one thread for each vector of columns.
    fn by_vector<A: NoUninit>(&self, kernel: KernelOf<A>, rows: u32, width: u32, arguments: &A) -> Option<Launch> {
        let vectors = u64::from(rows) * u64::from(width / VECTOR);
        let blocks = u32::try_from(vectors.div_ceil(u64::from(THREADS))).expect("a batch is bounded");
        launch(kernel, [blocks, 1, 1], THREADS, 0, arguments)
    }

    fn single(&self, op: &Op) -> Option<Launch> {
        match op {
            Op::Patches { levels, out, side, patch } => {
                let (side, patch) = (*side as u32, *patch as u32);
                let arguments = args::Patches {
                    pixels: self.memory.activations.pixels,
                    pixel_places: self.list(Layout::pixel_places),
                    levels: self.memory.constants(levels),
                    out: self.rows(out),
                    side,
                    patch,
                    width: padded(out.stride) as u32,
                    unused: 0,
                };
                let lines = self.units(out) * (side / patch);
                let shared_bytes = size_of_val(&levels[..]) as u32;
                launch(Kernel::patches(self.dtype()), [lines, 1, 1], THREADS, shared_bytes, &arguments)
            }
            Op::ClassAndPosition { patches, class, position, out } => {
                self.positions(patches, Some(*class), *position, None, out)
            }
            Op::TilePositions { patches, table, tiles, out } => {
                self.positions(patches, None, *table, Some(*tiles), out)
            }
            Op::TileEmbedding { .. } => self.tile_embedding(op),
            Op::FillRows { x, out } => self.concatenate(std::slice::from_ref(x), out),
            Op::Broadcast { rows, out } => {
                let arguments = args::Gather {
                    table: self.table(*rows),
                    out: self.rows(out),
                    count: self.count(out),
                    width: padded(out.width) as u32,
                    table_rows: out.rows as u32,
                    ..args::Gather::default()
                };
                self.by_vector(Kernel::repeat(self.dtype()), arguments.table_rows, arguments.width, &arguments)
            }
            Op::FrameEmbedding { x, table, out } => {
                let arguments = args::FrameEmbedding {
                    x: self.rows(x),
                    table: self.table(*table),
                    out: self.rows(out),
                    places: self.list(Layout::frame_places),
                    count: self.count(out),
                    width: padded(out.width) as u32,
                    table_rows: table.rows as u32,
                    unused: 0,
                };
                self.by_vector(Kernel::frame_embedding(self.dtype()), arguments.count, arguments.width, &arguments)
            }
            Op::Gather { table, index, add, out } => {
                let (list, offset) = match index {
                    Index::TokenId => (self.list(Layout::ids), 0),
                    Index::Position { offset } => (self.list(Layout::positions), *offset),
                };
                self.gather(self.table(*table), out, add.as_ref(), list, offset)
            }
            Op::Select { x, out } => self.gather(self.rows(x), out, None, self.list(Layout::outputs), 0),
            Op::Norm { x, kind, weight, bias, epsilon, group, out } => {
                let norm = HeadNorm { kind: *kind, weight: *weight, bias: *bias, epsilon: *epsilon };
                self.norm(x, out, &norm, *group)
            }
            Op::Concatenate { parts, out } => self.concatenate(parts, out),
            Op::Linear { .. } => self.linear(op),
            Op::Rope { .. } | Op::Append { .. } | Op::Attention { .. } => unreachable!("never by itself"),
        }
    }

    /// Class rows and embeddings of places; of frames that are `tiles` of an image each.
    fn positions(
        &self,
        patches: &Tensor,
        class: Option<Weight>,
        position: Weight,
        tiles: Option<usize>,
        out: &Tensor,
    ) -> Option<Launch> {
        let arguments = args::ClassAndPosition {
            patches: self.rows(patches),
            out: self.rows(out),
            class_row: self.vector(class),
            position: self.memory.matrix(position),
            tilings: tiles.map_or(Address::NULL, |_| self.list(Layout::tilings)),
            frames: self.units(patches),
            tiles: tiles.unwrap_or(1) as u32,
            patches_count: patches.rows as u32,
            width: patches.width as u32,
        };
        let rows = arguments.patches_count + 1;
        self.by_vector(Kernel::class_and_position(self.dtype()), rows, arguments.width, &arguments)
    }

    fn tile_embedding(&self, op: &Op) -> Option<Launch> {
        let Op::TileEmbedding { x, table, tiles, tile_rows, out } = op else { unreachable!("called for these") };
        let arguments = args::TileEmbedding {
            x: self.rows(x),
            table: self.table(*table),
            out: self.rows(out),
            tilings: self.list(Layout::tilings),
            count: self.count(out),
            width: padded(out.width) as u32,
            tiles: *tiles as u32,
            tile_rows: *tile_rows as u32,
        };
        self.by_vector(Kernel::tile_embedding(self.dtype()), arguments.count, arguments.width, &arguments)
    }

    /// Columns of several tensors side by side, zeros behind their rows.
    fn concatenate(&self, parts: &[Tensor], out: &Tensor) -> Option<Launch> {
        let mut arguments = args::Concatenate {
            out: self.rows(out),
            count: self.count(out),
            width: padded(out.width) as u32,
            ..args::Concatenate::default()
        };
        for (place, part) in parts.iter().enumerate() {
            arguments.parts[place] = self.rows(part);
            arguments.widths[place] = padded(part.width) as u32;
        }
        self.by_vector(Kernel::concatenate(self.dtype()), arguments.count, arguments.width, &arguments)
    }

    fn gather(
        &self,
        table: args::Rows,
        out: &Tensor,
        add: Option<&Tensor>,
        index: Address,
        offset: usize,
    ) -> Option<Launch> {
        let arguments = args::Gather {
            table,
            out: self.rows(out),
            add: add.map_or(args::Rows::default(), |add| self.rows(add)),
            index,
            count: self.count(out),
            width: padded(out.width) as u32,
            offset: offset as u32,
            table_rows: 0,
        };
        self.by_vector(Kernel::gather(self.dtype()), arguments.count, arguments.width, &arguments)
    }

    fn norm_arguments(&self, x: &Tensor, out: &Tensor, norm: &HeadNorm, group: usize) -> args::Norm {
        args::Norm {
            x: self.rows(x),
            out: self.rows(out),
            weight: self.memory.vector(norm.weight),
            bias: self.vector(norm.bias),
            count: self.count(x),
            width: x.width as u32,
            group: group as u32,
            layer: u32::from(norm.kind == Norm::Layer),
            epsilon: norm.epsilon,
            rows_a_block: 1,
        }
    }

    fn norm(&self, x: &Tensor, out: &Tensor, norm: &HeadNorm, group: usize) -> Option<Launch> {
        let mut arguments = self.norm_arguments(x, out, norm, group);
        let groups = arguments.width / arguments.group;
        // Rows share a block where there are more than fill the device.
        let shared = |units: u32| (units / (2 * self.multiprocessors)).clamp(1, NORM_ROWS_MAX);
        if arguments.group <= HEAD_GROUP_MAX && groups > 1 {
            let lanes = (arguments.group / VECTOR).next_power_of_two();
            let turns = (arguments.count * groups).div_ceil(THREADS / lanes);
            arguments.rows_a_block = shared(turns);
            let blocks = turns.div_ceil(arguments.rows_a_block);
            return launch(Kernel::norm_heads(self.dtype()), [blocks, 1, 1], THREADS, 0, &arguments);
        }
        let vectors = arguments.group.div_ceil(VECTOR * THREADS).next_power_of_two();
        let threads = THREADS.min((arguments.group / VECTOR).next_multiple_of(32));
        let kernel = Kernel::norm(self.dtype(), [vectors]);
        arguments.rows_a_block = shared(arguments.count * groups);
        launch(kernel, [arguments.count.div_ceil(arguments.rows_a_block), groups, 1], threads, 32, &arguments)
    }

    fn linear(&self, op: &Op) -> Option<Launch> {
        let Op::Linear { x, weight, bias, epilogue, out } = op else { unreachable!("called for linear layers") };
        let is_output = self.plan.output == Some(*out);
        let mut out_rows = self.rows(out);
        if is_output {
            out_rows = args::Rows {
                data: self.memory.activations.output,
                rows: 1,
                row_pitch: 1,
                stride: out.width as u32,
                unused: 0,
            };
        }
        let gates = epilogue.gate.map_or(0, |gate| gate.columns);
        let arguments = args::Linear {
            x: self.rows(x),
            out: out_rows,
            residual: epilogue.residual.map_or(args::Rows::default(), |residual| self.rows(&residual)),
            weight: self.memory.matrix(*weight),
            bias: self.vector(*bias),
            gate: self.vector(epilogue.gate),
            seeing: self.seeing(epilogue.seeing_only),
            count: self.count(x),
            columns: padded(x.width) as u32,
            width: out.width as u32,
            gate_stride: u32::from(gates > 1),
            activation: stored_activation(epilogue.activation),
            paired: u32::from(epilogue.paired),
            out_f32: u32::from(is_output),
            clip: epilogue.clip.unwrap_or(f32::INFINITY),
        };
        let args::Linear { count: rows, columns, width, .. } = arguments;
        let shape = LinearShape { rows, columns, width, paired: epilogue.paired };
        let form = linear_form(&Machine::new(self.multiprocessors, self.shared_bytes_max), &shape);
        let kernel = form.kernel(self.dtype());
        launch(kernel, [form.blocks(&shape), 1, 1], form.threads(), form.shared_bytes(), &arguments)
    }

    fn append(&self, step: &Step) -> Option<Launch> {
        let Step::Append { key, value, layer, rotary } = step else { unreachable!("called for appends") };
        let mut arguments = args::Append {
            query: rotary.as_ref().map_or(args::Rows::default(), |rotary| self.rows(&rotary.query)),
            key: self.rows(key),
            value: self.rows(value),
            pages: self.memory.pages(layer),
            tables: self.list(Layout::tables),
            count: self.count(key),
            query_width: rotary.as_ref().map_or(0, |rotary| rotary.query.width) as u32,
            width: key.width as u32,
            unit_rows: key.rows as u32,
            head_width: layer.head_width as u32,
            rotary_width: rotary.as_ref().map_or(0, |rotary| 2 * rotary.frequencies.len() as u32),
            frequencies: rotary.as_ref().map_or(Address::NULL, |rotary| self.memory.constants(&rotary.frequencies)),
            ..args::Append::default()
        };
        match layer.space {
            KvSpace::Text => {
                (arguments.positions, arguments.table_of) = (self.list(Layout::positions), self.list(Layout::table_of));
            }
            KvSpace::Media => {
                arguments.image_pages = self.list(Layout::image_pages);
                if key.axis == Axis::Frames {
                    arguments.places = self.list(Layout::frame_places);
                }
            }
        }
        let widest = arguments.query_width.max(arguments.width);
        let threads = THREADS.min((widest / VECTOR).next_multiple_of(32));
        launch(Kernel::append(self.dtype()), [arguments.count, 1, 1], threads, 4 * arguments.rotary_width, &arguments)
    }

    fn head_norm(&self, norm: Option<HeadNorm>) -> args::HeadNorm {
        norm.map_or(args::HeadNorm::default(), |norm| args::HeadNorm {
            weight: self.memory.vector(norm.weight),
            bias: self.vector(norm.bias),
            epsilon: norm.epsilon,
            layer: u32::from(norm.kind == Norm::Layer),
        })
    }

    fn attention(&self, attention: &Attention, launches: &mut Vec<Launch>) {
        match &attention.source {
            KvSource::Dense(sources) => launches.extend(self.image_attention(attention, sources, None)),
            KvSource::Tiles { key, value, tile_rows } => {
                launches.extend(self.image_attention(attention, &[(*key, *value)], Some(*tile_rows)));
            }
            KvSource::Pages(layer, Mask::Causal { slopes }) => {
                let slopes = slopes.as_ref().map_or(Address::NULL, |slopes| self.memory.constants(slopes));
                self.causal_attention(attention, layer, slopes, launches);
            }
            KvSource::Pages(layer, Mask::Media) => self.media_attention(attention, layer, launches),
        }
    }

    /// `tile_rows`: rows of a tile, where images have tiles that may be absent.
    fn image_attention(
        &self,
        attention: &Attention,
        sources: &[(Tensor, Tensor)],
        tile_rows: Option<usize>,
    ) -> Option<Launch> {
        assert!(sources.len() <= 2, "kernels read two sources of keys at most");
        let mut arguments = args::ImageAttention {
            query: self.rows(&attention.query),
            out: self.rows(&attention.out),
            query_norm: self.head_norm(attention.query_norm),
            key_norm: self.head_norm(attention.key_norm),
            query_rows: attention.query.rows as u32,
            images: self.units(&attention.query),
            heads: attention.heads as u32,
            head_width: attention.head_width() as u32,
            scale: attention.scale,
            tilings: tile_rows.map_or(Address::NULL, |_| self.list(Layout::tilings)),
            tile_rows: tile_rows.unwrap_or(0) as u32,
            ..args::ImageAttention::default()
        };
        if sources[0].0.axis != attention.query.axis {
            arguments.frame_starts = self.list(Layout::frame_starts);
        }
        for (place, (key, value)) in sources.iter().enumerate() {
            arguments.key[place] = self.rows(key);
            arguments.value[place] = self.rows(value);
            arguments.key_rows[place] = key.rows as u32;
        }
        let plain = sources.len() == 1 && attention.query_norm.is_none() && attention.key_norm.is_none();
        let width = compiled_width(attention.head_width());
        let kernel = match plain {
            true => Kernel::flash_attention_full(self.dtype(), [width]),
            false => Kernel::perceiver_attention(self.dtype(), [width]),
        };
        let (rows, shared_bytes) = if plain { full_form(width) } else { (TILE_ROWS as u32, attention_shared(width)) };
        let grid = [arguments.query_rows.div_ceil(rows), arguments.heads, arguments.images];
        launch(kernel, grid, ATTENTION_THREADS, shared_bytes, &arguments)
    }

    /// Tiles of queries, then rows whose keys are split: each token is in one of them.
    fn causal_attention(&self, attention: &Attention, layer: &KvLayer, slopes: Address, launches: &mut Vec<Launch>) {
        let (group, sharing) = groups(attention.heads, layer);
        let width = compiled_width(layer.head_width);
        let arguments = args::CausalAttention {
            query: self.rows(&attention.query),
            out: self.rows(&attention.out),
            pages: self.memory.pages(layer),
            tables: self.list(Layout::tables),
            tiles: self.list(Layout::query_tiles),
            slopes,
            tile_count: self.shape.query_tiles as u32,
            group,
            sharing,
            head_width: layer.head_width as u32,
            scale: attention.scale,
            ..args::CausalAttention::default()
        };
        let kernel = Kernel::flash_attention_causal(self.dtype(), [width]);
        let grid = [arguments.tile_count, attention.heads as u32 / group, 1];
        launches.extend(launch(kernel, grid, ATTENTION_THREADS, attention_shared(width), &arguments));
        self.split_attention(attention, layer, slopes, launches);
    }

    /// Rows whose keys are split over blocks, of text or of images.
    fn split_attention(&self, attention: &Attention, layer: &KvLayer, slopes: Address, launches: &mut Vec<Launch>) {
        let (group, sharing) = groups(attention.heads, layer);
        let heads = attention.heads as u32;
        let Shape { split_rows, split_items, media_split_rows, media_split_items, .. } = self.shape;
        let (row_count, item_count, rows, items) = match layer.space {
            KvSpace::Text => (split_rows, split_items, self.list(Layout::split_rows), self.list(Layout::split_items)),
            KvSpace::Media => (
                media_split_rows,
                media_split_items,
                self.list(Layout::media_split_rows),
                self.list(Layout::media_split_items),
            ),
        };
        let arguments = args::SplitAttention {
            query: self.rows(&attention.query),
            out: self.rows(&attention.out),
            pages: self.memory.pages(layer),
            tables: self.list(Layout::tables),
            rows,
            items,
            query_norm: self.head_norm(attention.query_norm),
            slopes,
            partials: self.memory.partials,
            row_count: row_count as u32,
            heads,
            group,
            sharing,
            head_width: layer.head_width as u32,
            scale: attention.scale,
        };
        let width = compiled_width(layer.head_width);
        let kernel = Kernel::flash_attention_split(self.dtype(), [width]);
        let shared_bytes = SPLIT_SHARED_ROWS * (width + VECTOR);
        let grid = [heads / group, item_count as u32, 1];
        launches.extend(launch(kernel, grid, LANES * SPLIT_WARPS, shared_bytes, &arguments));
        let kernel = Kernel::flash_attention_combine(self.dtype());
        let grid = [heads.div_ceil(COMBINE_WARPS), arguments.row_count, 1];
        launches.extend(launch(kernel, grid, LANES * COMBINE_WARPS, 0, &arguments));
    }

    /// Tiles of tokens that see the same images, then tokens whose images' pages are split.
    fn media_attention(&self, attention: &Attention, layer: &KvLayer, launches: &mut Vec<Launch>) {
        let (group, sharing) = groups(attention.heads, layer);
        let arguments = args::MaskedImageAttention {
            query: self.rows(&attention.query),
            out: self.rows(&attention.out),
            pages: self.memory.pages(layer),
            tables: self.list(Layout::tables),
            order: self.list(Layout::order),
            tiles: self.list(Layout::media_tiles),
            query_norm: self.head_norm(attention.query_norm),
            tile_count: self.shape.media_tiles as u32,
            group,
            sharing,
            head_width: layer.head_width as u32,
            scale: attention.scale,
            ..args::MaskedImageAttention::default()
        };
        let width = compiled_width(layer.head_width);
        let kernel = Kernel::masked_image_attention(self.dtype(), [width]);
        let grid = [arguments.tile_count, attention.heads as u32 / group, 1];
        launches.extend(launch(kernel, grid, ATTENTION_THREADS, attention_shared(width), &arguments));
        self.split_attention(attention, layer, Address::NULL, launches);
    }

    /// The whole attention half of a gated block in one launch, where blocks may wait for each other, its rows fit a
    /// block's shared memory, and images' pages are neither split nor in 8 bits.
    fn gated(&self, gated: &Gated) -> Option<Launch> {
        let (attention, layer) = (&gated.attention, &gated.layer);
        let count = self.count(&gated.x);
        let (width, inner) = (gated.x.width as u32, attention.query.width as u32);
        let others = self.shape.media_split_rows > 0 || self.memory.media.int8;
        if !self.cooperative || count == 0 || count > args::GATED_TOKENS_MAX || others {
            return None;
        }
        let shared_bytes = gated_shared(count, width, compiled_width(layer.head_width));
        if shared_bytes > self.shared_bytes_max {
            return None;
        }
        let [query, attended] = self.memory.activations.gated;
        let (group, sharing) = groups(attention.heads, layer);
        let arguments = args::GatedCrossAttention {
            x: self.rows(&gated.x),
            out: self.rows(&gated.out),
            norm: self.norm_arguments(&gated.x, &gated.x, &gated.norm, gated.x.width),
            query_norm: self.head_norm(attention.query_norm),
            pages: self.memory.pages(layer),
            tables: self.list(Layout::tables),
            order: self.list(Layout::order),
            tiles: self.list(Layout::media_tiles),
            query_weight: self.memory.matrix(gated.query_weight),
            out_weight: self.memory.matrix(gated.out_weight),
            gate: self.memory.vector(gated.gate),
            seeing: self.seeing(gated.seeing_only),
            query,
            attended,
            barrier: self.memory.barrier,
            tile_count: self.shape.media_tiles as u32,
            count,
            width,
            inner,
            heads: attention.heads as u32,
            group,
            sharing,
            head_width: layer.head_width as u32,
            gate_stride: u32::from(gated.gate.columns > 1),
            scale: attention.scale,
        };
        let kernel = Kernel::gated_cross_attention(self.dtype(), [compiled_width(layer.head_width)]);
        let mut launch = launch(kernel, [self.multiprocessors, 1, 1], THREADS, shared_bytes, &arguments)?;
        launch.cooperative = true;
        Some(launch)
    }
}

/// Heads of queries that a block takes, and that share a head of keys.
fn groups(heads: usize, layer: &KvLayer) -> (u32, u32) {
    (block_heads(heads, layer.kv_heads) as u32, (heads / layer.kv_heads) as u32)
}

/// Two tiles of keys and values (`attention.cuh`).
fn attention_shared(width: u32) -> u32 {
    2 * 2 * (TILE_KEYS * BYTES) as u32 * (width + VECTOR)
}

/// Rows of queries of a block of `flash_attention_full`, and its shared memory.
fn full_form(width: u32) -> (u32, u32) {
    const TWO_STRIPES_MAX: u32 = 80;
    let rows = TILE_ROWS as u32;
    if width > TWO_STRIPES_MAX {
        return (rows, attention_shared(width));
    }
    (2 * rows, attention_shared(width) + 2 * rows * BYTES as u32 * (width + VECTOR))
}

/// The normed rows, beside what attention and the rows form of a linear layer need (`gated_cross_attention.cu`).
fn gated_shared(count: u32, width: u32, head_width: u32) -> u32 {
    const LINEAR_BYTES: u32 = 32 * args::GATED_TOKENS_MAX * (16 + 4);
    let stride = (width + 31) / 64 * 64 + 32;
    (BYTES as u32 * count * stride + LINEAR_BYTES).max(attention_shared(head_width))
}

/// Finds what is wanted of rows of logits of `width` from `first` on, one for each request; stored requests, forbidden
/// tokens and targets are in place. If any is drawn, so many rows a launch as there is workspace for.
pub fn sample(
    memory: &Memory,
    first: usize,
    requests: &[Request],
    width: usize,
    suppressed_count: usize,
) -> Vec<Launch> {
    const SAMPLE_THREADS: u32 = 1024;
    let activations = &memory.activations;
    let sampled = |request: &Request| matches!(request, Request::Sample { temperature, .. } if *temperature > 0.0);
    let rows_at_once = if requests.iter().any(sampled) { SAMPLED_ROWS } else { requests.len().max(1) };
    let suppressed = activations.requests.plus((requests.len() * size_of::<args::SampleRequest>()) as u64);
    let groups = (0..requests.len()).step_by(rows_at_once).filter_map(|begin| {
        let arguments = args::Sample {
            logits: activations.output.plus(((first + begin) * width * 4) as u64),
            requests: activations.requests.plus((begin * size_of::<args::SampleRequest>()) as u64),
            suppressed,
            targets: suppressed.plus((suppressed_count * 4) as u64),
            found: activations.found,
            scratch: activations.candidates,
            count: rows_at_once.min(requests.len() - begin) as u32,
            width: width as u32,
            stride: width as u32,
            suppressed_count: suppressed_count as u32,
        };
        launch(Kernel::sample(), [arguments.count, 1, 1], SAMPLE_THREADS, 512, &arguments)
    });
    groups.collect()
}

/// Copies one text page of all layers.
pub fn copy_text_page(memory: &Memory, copy: PageCopy) -> Option<Launch> {
    let pool = &memory.text;
    let arguments = args::CopyPage {
        keys: pool.keys,
        values: pool.values,
        layer_pitch: pool.layer_size() as u64,
        page_size: pool.page_size() as u64,
        from: copy.from,
        to: copy.to,
        layers: pool.layers as u32,
        unused: 0,
    };
    let blocks = (pool.page_size() as u32).div_ceil(VECTOR * THREADS);
    launch(Kernel::copy_page(), [blocks, arguments.layers, 1], THREADS, 0, &arguments)
}
