//! Which form of a kernel serves a shape: pure functions of numbers, without a device. All forms of a kernel give the
//! same bits, so the choice is one of time alone. Times are reckoned: no GPU has run a kernel yet. `cargo bench --bench
//! forms` prints the choices, `tests/kernels/forms.rs` holds them to the shapes of the real models.

use super::arguments::{self as args, Kernel, KernelOf};
use crate::checkpoint::Dtype;

/// Bytes of a stored number.
const BYTES: f64 = 2.0;
/// Columns of a chunk, two matrix instructions deep, and segments that the chunks fall into (`linear_rows.cuh`).
const CHUNK: u32 = 32;
const SEGMENTS: u32 = 8;
/// Columns of a stage of the tile form, and the bytes of a row of it (`linear.cu`).
const STAGE_COLUMNS: u32 = 64;
const STAGE_ROW_BYTES: u32 = 128;
const LANES: u32 = 32;
/// A multiprocessor has so many parts, each with matrix units of its own that a warp keeps to.
const PARTS: f64 = 4.0;

// Assumed alike on all devices: from vendors' documents and from the compiled code, each with a cautious share of it
// that is reached. Not measured.

/// Bytes that a multiprocessor can take from L2 a clock, and the share of it that loads come to.
const L2_BYTES_A_CLOCK: f64 = 64.0;
const L2_SHARE: f64 = 0.7;
/// Bytes that L2 gives all multiprocessors together a clock (white papers of A100 and H100), and the share of it.
const L2_BYTES_A_CLOCK_ALL: f64 = 5120.0;
const L2_SHARE_ALL: f64 = 0.85;
/// Bytes that shared memory gives or takes a clock, and the share of it.
const SHARED_BYTES_A_CLOCK: f64 = 128.0;
const SHARED_SHARE: f64 = 0.95;
/// What bounds a kernel is added up with this power: two equal bounds take 1.12 times the time of one.
const BOUNDS_POWER: i32 = 6;
/// Seconds from a load to its arrival while memory is busy.
const LATENCY: f64 = 0.9e-6;
/// Seconds between two launches.
const LAUNCH: f64 = 1.0e-6;
/// Seconds from the last product of a block to its last store.
const BLOCK_END: f64 = 0.3e-6;
/// Clocks of a stage in which a warp of the tile form multiplies nothing: barrier, first loads from shared memory.
const STAGE_CLOCKS: f64 = 250.0;
/// Shared memory that the system keeps of each block.
const RESERVED_BYTES: u32 = 1024;

/// Times so near to each other are alike to a reckoning like this one.
const NEAR: f64 = 1.03;
/// A form asks for little if it is at most so many times the least bytes; `benches/counts.rs` holds the same bound.
const ASKED_MAX: f64 = 1.15;

/// A device, as far as the reckoning goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Blocks run on so many at once.
    pub multiprocessors: u32,
    /// Most shared memory of one block, bytes.
    pub shared_bytes_max: u32,
    /// Clocks a second under load.
    clock: f64,
    /// Bytes read from memory a second.
    pub memory_rate: f64,
    /// Multiply-adds of one multiprocessor a clock, by the instruction that the kernels use.
    products: f64,
}

impl Machine {
    /// The class of a device is guessed from its shared memory: from 200 KB on it is taken for an H200 (H100 and B200
    /// too), from 130 KB on for an A100, else for an RTX PRO 6000.
    ///
    /// H200 (227 KB): 1.75 GHz under load; 4.3 of 4.8 TB/s can be read; `mma.sync` reaches 62 % of the 2048
    /// multiply-adds a clock that `wgmma` has. A100 (163 KB): 1.41 GHz, nine tenths of 2.04 TB/s, all 1024
    /// multiply-adds. RTX PRO 6000 (99 KB): 2.3 GHz, nine tenths of 1.79 TB/s, all 512.
    pub fn new(multiprocessors: u32, shared_bytes_max: u32) -> Machine {
        let (clock, memory_rate, products) = match shared_bytes_max >> 10 {
            200.. => (1.75e9, 4.3e12, 0.62 * 2048.0),
            130.. => (1.41e9, 1.84e12, 1024.0),
            _ => (2.3e9, 1.61e12, 512.0),
        };
        Machine { multiprocessors, shared_bytes_max, clock, memory_rate, products }
    }
}

/// Sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinearShape {
    /// Rows of x: tokens.
    pub rows: u32,
    /// Columns of x.
    pub columns: u32,
    /// Columns of out.
    pub width: u32,
    /// Whether the weight has twice as many rows: a gated linear unit.
    pub paired: bool,
}

impl LinearShape {
    fn weight_rows(&self) -> f64 {
        f64::from(self.width) * if self.paired { 2.0 } else { 1.0 }
    }

    /// The least bytes to read: weight and x once.
    pub fn bytes(&self) -> f64 {
        BYTES * f64::from(self.columns) * (self.weight_rows() + f64::from(self.rows))
    }

    /// Multiply-adds, each counted as two operations.
    pub fn flops(&self) -> f64 {
        2.0 * f64::from(self.rows) * f64::from(self.columns) * self.weight_rows()
    }
}

/// How a form walks the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// A warp a segment; weights go from memory to registers, `ahead` chunks at a time.
    Rows { ahead: u32 },
    /// All warps together, through a ring of `stages` in shared memory.
    Tile { stages: u32 },
}

/// An instantiation of the kernel of linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearForm {
    walk: Walk,
    /// Tokens of a block.
    pub tokens: u32,
    /// Rows of the weight of a block.
    pub features: u32,
    /// Blocks that the registers of a multiprocessor hold at once, by what nvcc reports.
    registers_hold: u32,
}

/// All that are compiled.
pub const LINEAR_FORMS: [LinearForm; 12] = [
    LinearForm::rows(16, 8, 8, 2),
    LinearForm::rows(32, 8, 4, 2),
    LinearForm::rows(16, 16, 8, 1),
    LinearForm::rows(32, 16, 8, 1),
    LinearForm::rows(64, 16, 4, 1),
    LinearForm::rows(128, 16, 2, 1),
    LinearForm::rows(32, 32, 4, 1),
    LinearForm::rows(32, 64, 2, 1),
    LinearForm::tile(64, 64, 6, 4),
    LinearForm::tile(64, 64, 3, 4),
    LinearForm::tile(128, 64, 4, 2),
    LinearForm::tile(128, 128, 3, 1),
];

impl LinearForm {
    /// A rows form that asks for `ahead` chunks before it uses the first (`AHEAD` of `linear_rows.cuh`).
    const fn rows(features: u32, tokens: u32, ahead: u32, registers_hold: u32) -> LinearForm {
        LinearForm { walk: Walk::Rows { ahead }, tokens, features, registers_hold }
    }

    /// A tile form.
    const fn tile(tokens: u32, features: u32, stages: u32, registers_hold: u32) -> LinearForm {
        LinearForm { walk: Walk::Tile { stages }, tokens, features, registers_hold }
    }

    /// The kernel's name without storage type, and its variant.
    pub fn name(&self) -> (&'static str, String) {
        let LinearForm { tokens, features, .. } = self;
        match self.walk {
            Walk::Rows { .. } => ("linear_rows", format!("{features}x{tokens}")),
            Walk::Tile { stages } => ("linear_tile", format!("{tokens}x{features}x{stages}")),
        }
    }

    /// The kernel.
    pub(super) fn kernel(&self, storage: Dtype) -> KernelOf<args::Linear> {
        let LinearForm { tokens, features, .. } = *self;
        match self.walk {
            Walk::Rows { .. } => Kernel::linear_rows(storage, [features, tokens]),
            Walk::Tile { stages } => Kernel::linear_tile(storage, [tokens, features, stages]),
        }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        match self.walk {
            Walk::Rows { .. } => SEGMENTS * LANES,
            Walk::Tile { .. } => 2 * self.features,
        }
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> u32 {
        match self.walk {
            Walk::Rows { .. } => 4 * SEGMENTS * self.tokens * (self.features + 4),
            Walk::Tile { stages } => stages * (self.tokens + self.features) * STAGE_ROW_BYTES,
        }
    }

    /// Blocks of a launch.
    pub fn blocks(&self, shape: &LinearShape) -> u32 {
        let columns = if shape.paired { self.features / 2 } else { self.features };
        shape.rows.div_ceil(self.tokens) * shape.width.div_ceil(columns)
    }

    /// Blocks that a multiprocessor holds at once. Its shared memory is a kilobyte more than one block may have.
    pub fn resident(&self, machine: &Machine) -> u32 {
        let shared_holds = (machine.shared_bytes_max + RESERVED_BYTES) / (self.shared_bytes() + RESERVED_BYTES);
        self.registers_hold.min(shared_holds)
    }

    /// Whether it can compute a shape: a block of the rows form takes all tokens, and both halves of a pair whole tiles
    /// of 16 rows of the weight.
    pub fn serves(&self, machine: &Machine, shape: &LinearShape) -> bool {
        let fits = match self.walk {
            Walk::Rows { .. } => shape.rows <= self.tokens && (!shape.paired || self.features >= 32),
            Walk::Tile { .. } => true,
        };
        fits && self.shared_bytes() <= machine.shared_bytes_max
    }

    /// Bytes that all blocks together ask for: each reads its part of the weight, and its tokens.
    pub fn asked_bytes(&self, shape: &LinearShape) -> f64 {
        let token_tiles = f64::from(shape.rows.div_ceil(self.tokens));
        let feature_tiles = f64::from(self.blocks(shape)) / token_tiles.max(1.0);
        let rows = shape.weight_rows() * token_tiles + f64::from(shape.rows) * feature_tiles;
        BYTES * f64::from(shape.columns) * rows
    }

    /// Seconds of a launch, reckoned. Blocks run in waves of as many as the device holds at once; a wave takes its
    /// tightest bound. Begins and ends of blocks that share a multiprocessor overlap, but for the first.
    ///
    /// # Panics
    /// A form that does not fit the device.
    pub fn seconds(&self, machine: &Machine, shape: &LinearShape) -> f64 {
        let blocks = self.blocks(shape);
        if blocks == 0 {
            return 0.0;
        }
        let resident = self.resident(machine);
        assert!(resident > 0, "a form that fits the device");
        let held = machine.multiprocessors * resident;
        let (whole_waves, rest) = (blocks / held, blocks % held);
        let block = Block::new(self, machine, shape);
        let running = f64::from(whole_waves) * block.wave(machine, held) + block.wave(machine, rest);
        let later_waves = whole_waves + rest.min(1) - 1;
        let beginnings = 1.0 + f64::from(later_waves) / f64::from(resident);
        LAUNCH + beginnings * (LATENCY + BLOCK_END) + running
    }
}

/// What a block does.
struct Block {
    /// Bytes that it asks L2 for, if it is not at an edge.
    asked_bytes: f64,
    /// Its part of what must come from memory.
    memory_bytes: f64,
    /// Seconds of a multiprocessor's matrix units.
    products: f64,
    /// Seconds of a multiprocessor's shared memory.
    shared: f64,
    /// Seconds that its own steps take one after the other, though nothing else runs, without the first arrival.
    steps: f64,
}

impl Block {
    fn new(form: &LinearForm, machine: &Machine, shape: &LinearShape) -> Block {
        let LinearForm { tokens, features, .. } = *form;
        let blocks = f64::from(form.blocks(shape));
        let chunks = shape.columns.div_ceil(CHUNK);
        let product_seconds = |products: u32| f64::from(products) / machine.products / machine.clock;
        let chunk_products = tokens * features * CHUNK;
        let (shared_bytes, steps) = match form.walk {
            Walk::Rows { ahead } => {
                let turns = f64::from(chunks.div_ceil(SEGMENTS).div_ceil(ahead));
                let turn = PARTS * product_seconds(ahead * chunk_products);
                (0.0, turns * turn + (turns - 1.0) * LATENCY)
            }
            Walk::Tile { stages } => {
                let turns = f64::from(shape.columns.div_ceil(STAGE_COLUMNS));
                let warps = form.threads() / LANES;
                // A warp loads 32 features and half of the tokens; all rows were stored before.
                let rows = warps * (32 + tokens / 2) + tokens + features;
                let products = PARTS / f64::from(warps) * product_seconds(2 * chunk_products);
                // All stages but the one in use are on their way.
                let arrival = LATENCY / f64::from(stages - 1);
                (
                    turns * f64::from(rows * STAGE_ROW_BYTES),
                    turns * arrival.max(products + STAGE_CLOCKS / machine.clock),
                )
            }
        };
        Block {
            asked_bytes: BYTES * f64::from(shape.columns) * f64::from(features + shape.rows.min(tokens)),
            memory_bytes: shape.bytes() / blocks,
            products: f64::from(chunks) * product_seconds(chunk_products),
            shared: shared_bytes / (SHARED_SHARE * SHARED_BYTES_A_CLOCK * machine.clock),
            steps,
        }
    }

    /// Seconds of so many of them at once.
    fn wave(&self, machine: &Machine, blocks: u32) -> f64 {
        if blocks == 0 {
            return 0.0;
        }
        let all = f64::from(blocks);
        let on_one = f64::from(blocks.div_ceil(machine.multiprocessors));
        let bounds = [
            self.steps,
            on_one * self.products,
            on_one * self.shared,
            on_one * self.asked_bytes / (L2_SHARE * L2_BYTES_A_CLOCK * machine.clock),
            all * self.asked_bytes / (L2_SHARE_ALL * L2_BYTES_A_CLOCK_ALL * machine.clock),
            all * self.memory_bytes / machine.memory_rate,
        ];
        bounds.map(|bound| bound.powi(BOUNDS_POWER)).iter().sum::<f64>().powf(1.0 / f64::from(BOUNDS_POWER))
    }
}

/// The form that a linear layer takes: the first of [`LINEAR_FORMS`] that is reckoned within 3 % of the fastest and
/// asks for at most 1.15 times the least bytes, else the fastest.
pub fn linear_form(machine: &Machine, shape: &LinearShape) -> LinearForm {
    let timed = LINEAR_FORMS.map(|form| {
        let seconds = if form.serves(machine, shape) { form.seconds(machine, shape) } else { f64::INFINITY };
        (form, seconds)
    });
    let (fastest, least) = timed.into_iter().min_by(|one, other| one.1.total_cmp(&other.1)).expect("there are forms");
    assert!(least.is_finite(), "a form serves any number of rows on any device");
    let is_little = |form: &LinearForm| form.asked_bytes(shape) <= ASKED_MAX * shape.bytes();
    let little = timed.into_iter().find(|(form, seconds)| *seconds <= NEAR * least && is_little(form));
    little.map_or(fastest, |(form, _)| form)
}

/// Heads of queries that a block of attention takes, of those that share a head of keys: as many as a stripe of rows
/// holds, in equal parts.
pub fn block_heads(heads: usize, kv_heads: usize) -> usize {
    const STRIPE: usize = 16;
    let sharing = heads / kv_heads;
    (1..=sharing.min(STRIPE)).rev().find(|count| sharing.is_multiple_of(*count)).expect("one divides all numbers")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SHARED: u32 = 227 << 10;

    fn h200() -> Machine {
        Machine::new(132, SHARED)
    }

    fn shape(rows: u32, columns: u32, width: u32) -> LinearShape {
        LinearShape { rows, columns, width, paired: false }
    }

    fn form(name: &str) -> LinearForm {
        let named = LINEAR_FORMS.into_iter().find(|form| form.name().1 == name);
        named.unwrap_or_else(|| panic!("no form is called {name}"))
    }

    fn chosen(machine: &Machine, shape: LinearShape) -> String {
        linear_form(machine, &shape).name().1
    }

    /// What is known of the kernels without the reckoning: by counting clocks of shared memory and bytes under way.
    #[test]
    fn the_reckoning_agrees_with_what_was_counted_by_hand() {
        let machine = h200();
        let seconds = |name: &str, shape| form(name).seconds(&machine, &shape);
        // Bound by memory: four fifths of its rate, and what launch and first arrival take.
        let one = shape(1, 4096, 4096);
        let share = one.bytes() / machine.memory_rate / seconds("16x8", one);
        assert!((0.7..0.85).contains(&share), "{share}");
        // Large tiles: shared memory allows half of the units' peak, latency four fifths of that.
        let large = shape(2048, 4096, 12_288);
        let rate = large.flops() / seconds("128x128x3", large) / 1e12;
        assert!((350.0..400.0).contains(&rate), "{rate}");
        // A small tile costs more than its quarter of the large one.
        let ratio = seconds("64x64x3", large) / seconds("128x128x3", large);
        assert!((1.4..1.8).contains(&ratio), "{ratio}");
        // 32 blocks on 132 multiprocessors: each takes 110 GB/s from L2 at most, or two thirds of it.
        let few = shape(16, 4096, 4096);
        let rate = few.bytes() / seconds("128x16", few) / 1e12;
        assert!((1.7..2.5).contains(&rate), "{rate}");
        // 64 blocks with two stages of weights, 16 KB, under way.
        let rate = 2.0 * 4096.0 * 4096.0 / seconds("64x64x3", shape(64, 4096, 4096)) / 1e12;
        assert!((0.8..1.3).contains(&rate), "{rate}");
    }

    #[test]
    fn forms_are_the_kernels_that_are_compiled() {
        let storage = [Dtype::Bf16, Dtype::F16];
        let forms = LINEAR_FORMS.iter().flat_map(|form| storage.map(|storage| form.kernel(storage).kernel));
        let kernels = Kernel::ALL.iter().filter(|kernel| kernel.name().starts_with("linear_"));
        assert_eq!(forms.collect::<BTreeSet<_>>(), kernels.copied().collect());
    }

    #[test]
    fn many_rows_take_large_tiles_though_they_do_not_fill_the_device() {
        // 128 tiles for 132 multiprocessors; a rule that wants one for each would take small ones.
        assert_eq!(chosen(&h200(), shape(512, 4096, 4096)), "128x128x3");
        assert_eq!(chosen(&h200(), shape(4096, 4096, 4096)), "128x128x3");
        let small = form("64x64x3").seconds(&h200(), &shape(512, 4096, 4096));
        let large = form("128x128x3").seconds(&h200(), &shape(512, 4096, 4096));
        assert!(small > 1.5 * large, "{small} {large}");
    }

    #[test]
    fn few_rows_have_blocks_for_most_multiprocessors() {
        for rows in [1, 2] {
            assert_eq!(chosen(&h200(), shape(rows, 4096, 4096)), "16x8");
            assert_eq!(chosen(&h200(), shape(rows, 11_008, 4096)), "16x8");
        }
        for rows in 1..=64 {
            let shape = shape(rows, 4096, 4096);
            let blocks = linear_form(&h200(), &shape).blocks(&shape);
            assert!(blocks >= 128, "{rows} rows: {blocks} blocks");
        }
        // A device of few multiprocessors has enough with larger blocks, which ask for less.
        let shape = shape(16, 1024, 1024);
        let form = linear_form(&Machine::new(3, SHARED), &shape);
        assert!(form.asked_bytes(&shape) <= ASKED_MAX * shape.bytes(), "{form:?}");
    }

    /// Forms alike are not told apart: a row more saves no more than that.
    #[test]
    fn more_rows_never_take_less_time() {
        for multiprocessors in [3, 108, 132, 188] {
            let machine = Machine::new(multiprocessors, SHARED);
            for (columns, width) in [(4096, 4096), (4096, 22_016), (1280, 5120), (16, 48)] {
                let mut longest = 0.0f64;
                for rows in 1..=4096 {
                    let shape = shape(rows, columns, width);
                    let seconds = linear_form(&machine, &shape).seconds(&machine, &shape);
                    assert!(seconds >= longest / NEAR, "{shape:?} on {multiprocessors}: {seconds} after {longest}");
                    longest = longest.max(seconds);
                }
            }
        }
    }

    /// Bounds of a wave add up otherwise than those of its halves: a hundredth is theirs.
    #[test]
    fn more_multiprocessors_never_take_longer_with_one_form() {
        for form in LINEAR_FORMS {
            for rows in [1, 8, 100, 1000].into_iter().filter(|&rows| form.serves(&h200(), &shape(rows, 64, 64))) {
                let shape = shape(rows, 4096, 4096);
                let seconds = |count| form.seconds(&Machine::new(count, SHARED), &shape);
                assert!((2..=256).all(|count| seconds(count) <= seconds(count - 1) * 1.01), "{form:?} {rows}");
            }
        }
    }

    #[test]
    fn pairs_take_forms_with_a_tile_for_each_half() {
        for rows in 1..=64 {
            let shape = LinearShape { paired: true, ..shape(rows, 80, 33) };
            assert!(linear_form(&h200(), &shape).features >= 32, "{rows} rows");
        }
    }

    #[test]
    fn nothing_is_launched_for_no_rows() {
        let shape = shape(0, 64, 64);
        assert_eq!(linear_form(&h200(), &shape).blocks(&shape), 0);
    }

    #[test]
    fn blocks_take_whole_groups_or_equal_parts_of_them() {
        let found = [(32, 32), (32, 8), (8, 1), (12, 4), (64, 2), (71, 1)].map(|(heads, kv)| block_heads(heads, kv));
        assert_eq!(found, [1, 4, 8, 3, 16, 1]);
    }
}
