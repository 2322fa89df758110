//! One table of cases for tests and benches: every operation, at ragged shapes that find a kernel's edges and at those
//! of the real models. A case says what runs in which order; its numbers follow from who a row belongs to (a sequence
//! and a position, a page and a row), so that the same token has the same numbers in any batch.
//!
//! All numbers have 8 significant bits and a size that both storage types hold: nothing is lost when they are stored,
//! and the processor's results in f32 are those of the very same numbers.

#![allow(dead_code, unused_imports, reason = "each program that includes the table uses a part of it")]

mod build;
mod copies;
mod int8;
#[path = "naive.rs"]
mod naive;
mod numbers;
mod similar;

use std::sync::{Arc, Mutex};

use flamant::config::{Activation, Norm};
use flamant::probe::{
    Axis, Batch, Capacity, Counts, Dtype, ImagePages, Kind, KvConfig, KvDtype, MediaSeen, Numbers, Op, PageCopy, Place,
    Plan, PlanKind, Plans, Probe, Tiling, Weight, Workload,
};

pub use build::*;
use naive::Naive;
use numbers::{fill, levels, seed_of};
pub use similar::{distance, similar};

/// For which runs a case is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Ragged and few: every scheduler of the emulator.
    Small,
    /// As in a real model: most are too much for the emulator.
    Real,
}

/// One operation, or a few in a row, with all that a device needs to run it.
#[derive(Clone)]
pub struct Case {
    /// Unique.
    pub name: String,
    /// See [`Size`].
    pub size: Size,
    weights: Vec<Recipe>,
    media: Plan,
    text: Plan,
    kv_config: KvConfig,
    steps: Vec<Step>,
    /// Rows of tokens that see no image must be exactly as the processor has them.
    exact_without_image: bool,
    /// Keys and values are those of so few heads, each repeated for its group.
    repeats: Option<Heads>,
    /// How pages store keys and values.
    kv_dtype: KvDtype,
    /// Inputs are numbers that 8 bits hold exactly, in heads of this width.
    codes: Option<usize>,
    /// The plan's last operation is there only to fetch what the one before it stored.
    fetches: bool,
    /// What the emulator claims to be, if it matters.
    shared_bytes: Option<u32>,
}

/// Numbers of a weight.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    kind: Kind,
    rows: usize,
    columns: usize,
    mean: f32,
    deviation: f32,
}

/// What a case does, one after the other.
#[derive(Debug, Clone)]
enum Step {
    Run(Run),
    Copy(PageCopy),
}

/// One run of a plan.
#[derive(Debug, Clone)]
struct Run {
    which: PlanKind,
    /// Images to encode.
    images: Vec<Image>,
    /// Frames of each; one each if empty.
    frames: Vec<u32>,
    /// How each is cut into tiles, which are its frames; empty where they are none.
    tilings: Vec<Tiling>,
    pieces: Vec<Piece>,
    /// Images that tokens see.
    seen: Vec<Image>,
    /// For each token which of them; nothing at all if empty.
    media: Vec<MediaSeen>,
    outputs: Vec<u32>,
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Who it is: decides its numbers.
    pub who: u32,
    /// Its media pages.
    pub pages: Vec<u32>,
    /// Rows that it keeps.
    pub rows: u32,
}

impl Image {
    fn pages(&self) -> ImagePages<'_> {
        ImagePages { pages: &self.pages, rows: self.rows }
    }
}

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Who it is: decides its numbers.
    pub sequence: u32,
    /// Its pages.
    pub table: Vec<u32>,
    /// First token.
    pub from: u32,
    /// Tokens.
    pub count: u32,
}

/// The lists of a batch.
struct Lists {
    inputs: Vec<Vec<f32>>,
    /// Of each frame.
    pixels: Vec<Vec<u8>>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    media: Vec<MediaSeen>,
}

/// Entries of the tables that token ids point into.
const VOCABULARY: usize = 300;

/// A case on a device.
pub struct Opened<'a> {
    case: &'a Case,
    probe: Probe,
}

impl Case {
    /// Opens a device for the case.
    ///
    /// # Errors
    /// As [`Probe::open`].
    pub fn open(&self, place: &Place) -> flamant::Result<Opened<'_>> {
        let mut numbers = Numbers::default();
        for (index, Recipe { kind, rows, columns, .. }) in self.weights.iter().enumerate() {
            assert_eq!(numbers.weight(*kind, *rows, *columns, self.values(index)).id, index);
        }
        let (media, text) = (self.media.clone(), self.text.clone());
        let plans = Plans { media, text, features: None, tiles: self.tiles() };
        let most = |count: fn(&Run) -> usize| self.runs().map(count).max().unwrap_or(0);
        let capacity = Capacity { images: most(|run| run.counts().frames), tokens: most(|run| run.tokens()).max(64) };
        let mut place = place.clone();
        place.emulated.shared_bytes = self.shared_bytes;
        place.kv_dtype = self.kv_dtype;
        Ok(Opened { case: self, probe: Probe::open(&place, numbers, plans, self.kv_config, capacity)? })
    }

    /// Rows of all outputs, one run after the other.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn run(&self, place: &Place) -> flamant::Result<Vec<f32>> {
        self.open(place)?.run()
    }

    /// The same as [`Case::run`], by the oracle.
    pub fn oracle(&self) -> Vec<f32> {
        let weight = |(index, recipe): (usize, &Recipe)| naive::Weight {
            rows: recipe.rows,
            columns: recipe.columns,
            values: self.values(index).into_iter().map(f64::from).collect(),
        };
        let mut oracle = Naive::new(self.weights.iter().enumerate().map(weight).collect(), self.kv_dtype);
        let mut found = Vec::new();
        for step in &self.steps {
            match step {
                Step::Copy(copy) => oracle.copy_text_page(*copy),
                Step::Run(run) => {
                    let plan = self.plan(run.which);
                    found.extend(run.batch(&self.lists(run), &run.outputs, |batch| oracle.run(plan, batch)));
                }
            }
        }
        found
    }

    /// Numbers of a weight.
    fn values(&self, index: usize) -> Vec<f32> {
        let Recipe { rows, columns, mean, deviation, .. } = self.weights[index];
        let mut values = Vec::with_capacity(rows * columns);
        fill(&mut values, rows * columns, seed_of([1, index as u64, 0, 0]), mean, deviation);
        values
    }

    fn plan(&self, which: PlanKind) -> &Plan {
        match which {
            PlanKind::Media => &self.media,
            PlanKind::Features => unreachable!("a case has none"),
            PlanKind::Text => &self.text,
        }
    }

    /// Whether what a device found is what is wanted.
    ///
    /// # Errors
    /// What differs, in a line.
    pub fn compare(&self, found: &[f32], want: &[f32], dtype: impl Into<Option<Dtype>>) -> Result<(), String> {
        let width = self.width();
        if self.exact_without_image {
            let media = self.runs().filter(|run| run.which == PlanKind::Text).flat_map(|run| &run.media);
            let rows = media.zip(found.chunks_exact(width)).zip(want.chunks_exact(width));
            for (index, ((_, found), want)) in rows.enumerate().filter(|(_, ((media, _), _))| media.images == 0) {
                if found.iter().map(|x| x.to_bits()).ne(want.iter().map(|x| x.to_bits())) {
                    return Err(format!("row {index} sees no image and is not exactly as without it"));
                }
            }
        }
        let tolerance = match self.kv_dtype {
            KvDtype::Int8 => similar::tolerance_int8(dtype.into()),
            _ => similar::tolerance(dtype.into()),
        };
        similar::within(found, want, width, tolerance)
    }

    /// Whether last bits of `tanhf` show in the result, which are others in C's library than in CUDA's: in an output of
    /// f32, and in f16 here and there.
    pub fn shows_a_library(&self) -> bool {
        const TANH: &str = "+bias+silu+paired+clip+gate-vector+residual+seeing+f32";
        const GATE: &str = "gated/idefics/7x80to[9,70,128,1]/2x64";
        self.name.ends_with(TANH) || self.name == GATE
    }

    /// Columns of the output.
    pub fn width(&self) -> usize {
        self.text.output.expect("a case has an output").width
    }

    /// Least bytes that the last run must move, in storage type.
    pub fn bytes(&self) -> u64 {
        let mut measured = self.text.clone();
        if self.fetches {
            measured.ops.pop();
            measured.output = None;
        }
        measured.bytes(&self.workload())
    }

    /// Floating-point operations of the matrix products of the last run.
    pub fn flops(&self) -> u64 {
        self.text.flops(&self.workload())
    }

    fn workload(&self) -> Workload {
        let run = self.last();
        run.batch(&self.indices(run), &run.outputs, |batch| batch.workload())
    }

    /// Bytes that the kernels of the last run ask memory for, after all runs, in the emulator.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn asked_bytes(&self, place: &Place) -> flamant::Result<u64> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut place = place.clone();
        place.emulated.counted = Some(log.clone());
        let mut opened = self.open(&place)?;
        opened.run()?;
        log.lock().expect("no thread died").clear();
        let (run, outputs) = self.measured();
        run.batch(&self.lists(run), outputs, |batch| opened.probe.run(run.which, batch))?;
        let launches = log.lock().expect("no thread died");
        Ok(launches.iter().map(|(_, launch)| launch.global_load_bytes + launch.global_store_bytes).sum())
    }

    /// Seconds of the last run, over several, after all before it.
    ///
    /// # Errors
    /// As [`Probe::measure`].
    pub fn measure(&self, place: &Place, runs: usize) -> flamant::Result<f64> {
        let mut opened = self.open(place)?;
        opened.run()?;
        opened.measure(runs)
    }

    /// On an emulator that claims an H200's shared memory, for which forms are chosen otherwise.
    pub fn on_hopper(mut self) -> Case {
        self.name += "/hopper";
        self.shared_bytes = Some(227 << 10);
        self
    }

    /// With the keys and values of grouped heads, each repeated for all heads of its group: the case has as many heads
    /// of keys as of queries.
    pub fn repeating(mut self, grouped: Heads) -> Case {
        self.name += &format!("/heads of {} repeated", grouped.kv);
        self.repeats = Some(grouped);
        self
    }

    /// The last step once more, `times` times.
    pub fn repeated(mut self, times: usize) -> Case {
        let last = self.steps.last().expect("a case has a step").clone();
        self.steps.extend(std::iter::repeat_n(last, times));
        self
    }

    /// Frames of an image whose frames are tiles.
    fn tiles(&self) -> Option<usize> {
        let tiled = self.runs().filter(|run| !run.tilings.is_empty()).flat_map(|run| run.frames.first());
        tiled.max().map(|&frames| frames as usize)
    }

    /// Whether some tokens' rows are left as they are.
    fn is_for_seeing_only(&self) -> bool {
        self.text.ops.iter().any(|op| matches!(op, Op::Linear { epilogue, .. } if epilogue.seeing_only))
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.steps.iter().filter_map(|step| match step {
            Step::Run(run) => Some(run),
            Step::Copy(_) => None,
        })
    }

    fn last(&self) -> &Run {
        self.runs().last().expect("a case runs")
    }

    /// The last run, and the outputs of it that are not there only to fetch.
    fn measured(&self) -> (&Run, &[u32]) {
        let run = self.last();
        (run, if self.fetches { &[] } else { &run.outputs })
    }

    fn lists(&self, run: &Run) -> Lists {
        let plan = self.plan(run.which);
        let frames: Vec<(u32, u32)> = (0..run.counts().frames as u32).map(|frame| (2000 + frame, 0)).collect();
        let sides = plan.ops.iter().find_map(|op| if let Op::Patches { side, .. } = op { Some(*side) } else { None });
        let pixels = sides.into_iter().flat_map(|side| {
            let of = move |(frame, (who, _)): (usize, &(u32, u32))| match run.is_absent(frame) {
                true => Vec::new(),
                false => levels(3 * side * side, seed_of([4, 0, u64::from(*who), 0])),
            };
            frames.iter().enumerate().map(of)
        });
        let pixels = pixels.collect();
        let mut inputs = Vec::new();
        for (place, input) in plan.inputs.iter().enumerate() {
            // Who a row belongs to.
            let units: Vec<(u32, u32)> = match input.axis {
                Axis::Frames => frames.clone(),
                Axis::Images => run.images.iter().map(|image| (1000 + image.who, 0)).collect(),
                Axis::Tokens | Axis::Outputs => run.each_token().collect(),
            };
            // Queries come first, and only where tokens attend.
            let queries = self.repeats.map_or(input.width, |heads| match run.which {
                PlanKind::Text => input.width.min(heads.all()),
                _ => 0,
            });
            let group = self.repeats.map_or(1, |heads| heads.count / heads.kv);
            let width = queries + (input.width - queries) / group;
            let mut values = Vec::with_capacity(units.len() * input.rows * width);
            for (who, position) in units {
                let seed = seed_of([2, place as u64, u64::from(who), u64::from(position)]);
                let start = values.len();
                fill(&mut values, input.rows * width, seed, 0.0, 1.0);
                if run.which == PlanKind::Text && self.is_for_seeing_only() {
                    // What no sum with zero is.
                    values[start..].iter_mut().step_by(13).for_each(|value| *value = -0.0);
                }
            }
            if let Some(head_width) = self.codes.filter(|head_width| input.width.is_multiple_of(*head_width)) {
                values.chunks_exact_mut(head_width).for_each(int8::make_codes);
            }
            if let Some(heads) = self.repeats {
                values = values.chunks_exact(width).flat_map(|row| heads.repeat(row, queries)).collect();
            }
            inputs.push(values);
        }
        Lists { inputs, pixels, ..self.indices(run) }
    }

    /// The lists without inputs and pixels.
    fn indices(&self, run: &Run) -> Lists {
        let id = |(who, position): (u32, u32)| {
            (seed_of([3, 0, u64::from(who), u64::from(position)]) % VOCABULARY as u64) as u32
        };
        let places = (0..).zip(&run.pieces);
        Lists {
            inputs: Vec::new(),
            pixels: Vec::new(),
            ids: run.each_token().map(id).collect(),
            positions: run.each_token().map(|(_, position)| position).collect(),
            sequences: places.flat_map(|(place, piece)| std::iter::repeat_n(place, piece.count as usize)).collect(),
            media: if run.media.is_empty() { vec![MediaSeen::NOTHING; run.tokens()] } else { run.media.clone() },
        }
    }
}

impl Run {
    /// The sequence and position of each token.
    fn each_token(&self) -> impl Iterator<Item = (u32, u32)> {
        self.pieces.iter().flat_map(|piece| (0..piece.count).map(|i| (piece.sequence, piece.from + i)))
    }

    /// Whether a frame is a tile that its image does not have.
    fn is_absent(&self, frame: usize) -> bool {
        let Some(&tiles) = self.frames.first().filter(|_| !self.tilings.is_empty()) else { return false };
        frame % tiles as usize >= self.tilings[frame / tiles as usize].tiles as usize
    }

    fn tokens(&self) -> usize {
        self.pieces.iter().map(|piece| piece.count as usize).sum()
    }

    fn counts(&self) -> Counts {
        let images = self.images.len();
        let frames = if self.frames.is_empty() { images } else { self.frames.iter().sum::<u32>() as usize };
        Counts { frames, images, tokens: self.tokens(), outputs: self.outputs.len() }
    }

    /// Calls `with` with the batch.
    fn batch<R>(&self, lists: &Lists, outputs: &[u32], with: impl FnOnce(&Batch) -> R) -> R {
        let inputs: Vec<&[f32]> = lists.inputs.iter().map(Vec::as_slice).collect();
        let pixels: Vec<&[u8]> = lists.pixels.iter().map(Vec::as_slice).collect();
        let tables: Vec<&[u32]> = self.pieces.iter().map(|piece| piece.table.as_slice()).collect();
        let [images, seen_images]: [Vec<ImagePages>; 2] =
            [&self.images, &self.seen].map(|images| images.iter().map(Image::pages).collect());
        with(&Batch {
            inputs: &inputs,
            pixels: &pixels,
            images: &images,
            frames: &self.frames,
            tilings: &self.tilings,
            ids: &lists.ids,
            positions: &lists.positions,
            sequences: &lists.sequences,
            tables: &tables,
            seen_images: &seen_images,
            media: &lists.media,
            outputs,
        })
    }
}

impl Opened<'_> {
    /// All steps; rows of all outputs, one run after the other.
    ///
    /// # Errors
    /// As [`Probe::run`].
    pub fn run(&mut self) -> flamant::Result<Vec<f32>> {
        let mut found = Vec::new();
        for step in &self.case.steps {
            match step {
                Step::Copy(copy) => self.probe.copy_text_page(*copy)?,
                Step::Run(run) => {
                    let lists = self.case.lists(run);
                    found.extend(run.batch(&lists, &run.outputs, |batch| self.probe.run(run.which, batch))?);
                }
            }
        }
        Ok(found)
    }

    /// Seconds of the last run, over several; without what only fetches.
    ///
    /// # Errors
    /// As [`Probe::measure`].
    pub fn measure(&mut self, runs: usize) -> flamant::Result<f64> {
        let (run, outputs) = self.case.measured();
        let lists = self.case.lists(run);
        run.batch(&lists, outputs, |batch| self.probe.measure(run.which, batch, runs))
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = small();
    cases.extend(real());
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names are unique");
    cases
}

pub const fn heads(count: usize, width: usize) -> Heads {
    Heads { count, kv: count, width }
}

/// Images in tiles: ratio and tiles of each, and the most there is room for.
pub const fn tiled(images: &[(u32, u32)], most: usize) -> Tiled<'_> {
    Tiled { images, most }
}

/// Heads that share fewer heads of keys in groups.
pub const fn grouped(count: usize, kv: usize, width: usize) -> Heads {
    Heads { count, kv, width }
}

/// Ragged shapes.
pub fn small() -> Vec<Case> {
    use Size::Small;
    let mut cases = vec![
        patches(Small, 2, 28, 14, 0),
        patches(Small, 1, 24, 8, 0),
        patches(Small, 3, 28, 14, 40),
        class_and_position(Small, 2, 5, 24),
        broadcast(Small, 3, 5, 48),
        // As many frames as the table has rows, fewer, and more, over which it is stretched.
        frame_embedding(Small, &[4, 1, 9, 3], 5, 48, 4),
        frame_embedding(Small, &[1, 2], 3, 272, 1),
        gather(Small, 7, 48, false),
        gather(Small, 19, 272, true),
        select(Small, 23, 40),
        rows_from(Small, 2, 6, 48, 48),
        rows_from(Small, 3, 18, 32, 70),
        perceptron(Small, 5, 48, 208, Activation::Gelu),
        perceptron(Small, 18, 80, 144, Activation::Relu),
        copied_page(Small, heads(2, 48)),
    ];
    for (count, width) in [(3, 16), (5, 272), (2, 2064), (2, 4112), (1, 8208)] {
        cases.push(norm(Small, Norm::Layer, true, count, width));
        cases.push(norm(Small, Norm::Rms, false, count, width));
    }
    cases.push(norm(Small, Norm::Layer, false, 2, 144));
    cases.extend([
        norm_heads(Small, Norm::Layer, true, 5, 3, 16),
        norm_heads(Small, Norm::Rms, false, 3, 2, 80),
        norm_heads(Small, Norm::Layer, true, 2, 3, 128),
        norm_heads(Small, Norm::Layer, false, 3, 1, 96),
        norm_heads(Small, Norm::Rms, false, 2, 2, 272),
    ]);
    cases.extend(small_linear());
    cases.extend(small_attention());
    cases.extend(small_tiles());
    cases.extend(small_grouped());
    cases.extend(small_media());
    cases.extend(int8::small());
    cases
}

fn small_linear() -> Vec<Case> {
    use Size::Small;
    let mut cases = Vec::new();
    // Each form of the kernel (`tuning.rs`), with widths that fill no tile.
    for (count, columns, width) in [
        (1, 16, 1),
        (2, 48, 19),
        (3, 80, 33),
        (4, 272, 40),
        (5, 272, 70),
        (8, 144, 64),
        (9, 144, 130),
        (15, 272, 40),
        (16, 272, 70),
        (16, 272, 203),
        (16, 1040, 131),
        (17, 48, 65),
        (31, 1040, 70),
        (64, 112, 64),
        (63, 1040, 33),
        (70, 272, 33),
        (70, 1040, 40),
        (130, 144, 131),
        (65, 80, 195),
    ] {
        cases.push(linear(Small, count, columns, width, PLAIN));
    }
    cases.push(linear(Small, 129, 272, 70, PLAIN).on_hopper());
    for (count, columns, width) in [(1, 80, 33), (3, 48, 37), (7, 48, 39), (12, 48, 70), (33, 80, 45)] {
        let silu = Besides { activation: Some(Activation::Silu), paired: true, ..PLAIN };
        cases.push(linear(Small, count, columns, width, silu));
        cases.push(linear(Small, count, columns, width, Besides { logits: true, ..PLAIN }));
    }
    let epilogues = [
        Besides { bias: true, ..PLAIN },
        Besides { bias: true, activation: Some(Activation::Gelu), ..PLAIN },
        Besides { activation: Some(Activation::GeluTanh), ..PLAIN },
        Besides { bias: true, activation: Some(Activation::QuickGelu), ..PLAIN },
        Besides { activation: Some(Activation::Relu), ..PLAIN },
        Besides { bias: true, activation: Some(Activation::SquaredRelu), ..PLAIN },
        Besides { activation: Some(Activation::Silu), ..PLAIN },
        Besides { bias: true, activation: Some(Activation::Gelu), paired: true, ..PLAIN },
        Besides { clip: Some(0.75), ..PLAIN },
        Besides { gate: Gated::Scalar, residual: true, ..PLAIN },
        Besides { bias: true, gate: Gated::Vector, residual: true, ..PLAIN },
        Besides { bias: true, residual: true, ..PLAIN },
        Besides {
            bias: true,
            activation: Some(Activation::Silu),
            paired: true,
            clip: Some(1.5),
            gate: Gated::Vector,
            residual: true,
            seeing_only: true,
            logits: true,
        },
        Besides { gate: Gated::Scalar, residual: true, seeing_only: true, ..PLAIN },
        Besides { bias: true, gate: Gated::Vector, residual: true, seeing_only: true, ..PLAIN },
    ];
    for besides in epilogues {
        cases.push(linear(Small, 3, 48, 21, besides));
        cases.push(linear(Small, 19, 80, 67, besides));
    }
    // Pairs in tiles of every size.
    let paired = Besides { bias: true, paired: true, ..PLAIN };
    cases.push(linear(Small, 66, 48, 99, paired));
    cases.push(linear(Small, 66, 272, 33, paired).on_hopper());
    cases
}

fn small_attention() -> Vec<Case> {
    use Size::Small;
    let prefills: &[&[(usize, u32)]] = &[&[(0, 5)]];
    let chunks: &[&[(usize, u32)]] = &[&[(0, 66), (1, 3), (2, 17)], &[(1, 70), (0, 2)], &[(2, 1), (1, 1), (0, 1)]];
    let decodes: &[&[(usize, u32)]] = &[&[(0, 1), (1, 1), (2, 1), (3, 1)], &[(2, 16), (0, 3), (1, 1)]];
    let filled = [130, 63, 5, 64];
    let mut cases = vec![
        causal(Small, "prefill", heads(2, 16), Order::Rotary(16), &[0], prefills),
        causal(Small, "one token", heads(1, 48), Order::Rotary(16), &[0], &[&[(0, 1)]]),
        causal(Small, "prefill", heads(3, 64), Order::Alibi, &[0], &[&[(0, 70)]]),
        causal(Small, "prefill", heads(1, 80), Order::Rotary(32), &[0], &[&[(0, 65)]]),
        causal(Small, "prefill", heads(2, 96), Order::None, &[0], &[&[(0, 33)]]),
        causal(Small, "prefill", heads(2, 80), Order::Rotary(20), &[0], &[&[(0, 19)]]),
        causal(Small, "prefill", heads(3, 32), Order::Rotary(6), &[7], &[&[(0, 4)], &[(0, 1)]]),
        causal(Small, "prefill", heads(1, 128), Order::Rotary(128), &[0], &[&[(0, 79)]]),
        causal(Small, "chunks", heads(2, 32), Order::Rotary(32), &[0, 0, 0], chunks),
        causal(Small, "chunks", heads(3, 48), Order::Alibi, &[0, 9, 0], chunks),
    ];
    for (heads, order) in [
        (heads(2, 64), Order::Rotary(64)),
        (heads(3, 80), Order::Rotary(16)),
        (heads(1, 96), Order::None),
        (heads(2, 112), Order::Alibi),
        (heads(1, 128), Order::Rotary(128)),
    ] {
        cases.push(causal(Small, "decode", heads, order, &filled, decodes));
    }
    // More sequences than are decoded by kept launches, and more than linear layers call few.
    let lengths: Vec<u32> = (0..66).map(|sequence| sequence * 37 % 150).collect();
    let steps: Vec<(usize, u32)> = (0..66).map(|sequence| (sequence, 1)).collect();
    cases.push(causal(Small, "decode66", heads(1, 64), Order::Alibi, &lengths, &[&steps]));
    cases.push(causal(Small, "decode17", heads(2, 80), Order::Rotary(80), &lengths[..17], &[&steps[..17]]));
    for (heads, order) in [
        (heads(2, 64), Order::Rotary(64)),
        (heads(3, 80), Order::Alibi),
        (heads(1, 96), Order::None),
        (heads(2, 128), Order::Alibi),
    ] {
        cases.push(forked_few(heads, order, true));
    }
    cases.push(forked_many(heads(2, 48), Order::Alibi, true));
    cases.push(sharp(causal(Small, "prefill", heads(2, 64), Order::None, &[0], &[&[(0, 150)]])));
    cases.push(sharp(causal(Small, "decode", heads(2, 128), Order::Alibi, &filled, decodes)));
    cases.push(sharp(vision(Small, 1, 200, heads(2, 80))));
    cases.push(sharp(image(Small, 1, heads(1, 96), 9, &[150, 9], false)));
    cases.push(sharp(masked(Small, heads(1, 64), &[130; 2], &Seen::Mixed.list(9, 2), false)));
    cases.extend([
        vision(Small, 2, 17, heads(2, 16)),
        vision(Small, 1, 257, heads(1, 64)),
        vision(Small, 2, 65, heads(3, 80)),
        vision(Small, 2, 33, heads(1, 96)),
        vision(Small, 1, 70, heads(1, 112)),
        image(Small, 2, heads(2, 48), 5, &[21], false),
        image(Small, 1, heads(2, 64), 7, &[50, 7], false),
        image(Small, 2, heads(2, 96), 65, &[70, 65], true),
        image(Small, 2, heads(1, 32), 9, &[64, 9], true),
        image(Small, 1, heads(1, 128), 3, &[17, 3], true),
        image(Small, 1, heads(1, 80), 4, &[33, 4], false),
        video(Small, &[3, 1, 2], heads(2, 64), 7, [50, 7], false),
        video(Small, &[1, 5], heads(1, 96), 65, [33, 65], true),
        video(Small, &[4], heads(2, 48), 5, [16, 5], true),
    ]);
    cases
}

/// Images in tiles, and tokens that see no image.
fn small_tiles() -> Vec<Case> {
    use Size::Small;
    let mut cases = vec![
        tile_patches(Small, tiled(&[(1, 1), (5, 4), (2, 2)], 4), 28, 14, 40),
        tile_positions(Small, tiled(&[(5, 4), (1, 1), (8, 4)], 4), 5, 24),
        tile_positions(Small, tiled(&[(2, 2), (0, 3)], 3), 4, 272),
        tile_embedding(Small, tiled(&[(5, 4), (1, 1), (8, 2)], 4), 5, 3, 48),
        tile_embedding(Small, tiled(&[(7, 3), (2, 1)], 3), 6, 0, 272),
        fill_rows(Small, 2, 6, 8, 48),
        fill_rows(Small, 3, 20, 29, 272),
        concatenate(Small, 2, 9, 7, &[48, 16, 80]),
        concatenate(Small, 3, 5, 5, &[16; 16]),
    ];
    // Tokens that see no image, in forms of every kind.
    let seeing = Besides { residual: true, seeing_only: true, ..PLAIN };
    for (count, columns, width) in [(1, 80, 33), (8, 144, 64), (33, 80, 45), (70, 272, 33), (130, 144, 131)] {
        cases.push(linear(Small, count, columns, width, seeing));
    }
    cases.push(sharp(tiles(Small, tiled(&[(1, 1), (5, 4), (6, 2)], 4), 37, 3, heads(2, 80))));
    // The limit in any stripe of any tile of queries and of keys, and at their ends.
    cases.extend([
        tiles(Small, tiled(&[(1, 1), (6, 2), (5, 4)], 4), 5, 3, heads(3, 16)),
        tiles(Small, tiled(&[(1, 1), (7, 3)], 4), 17, 7, heads(2, 80)),
        tiles(Small, tiled(&[(2, 2)], 3), 70, 2, heads(1, 64)),
        tiles(Small, tiled(&[(1, 1), (1, 1), (8, 2)], 2), 64, 0, heads(2, 16)),
        tiles(Small, tiled(&[(1, 1), (8, 4)], 4), 10, 6, heads(1, 96)),
        tiles(Small, tiled(&[(3, 3)], 4), 48, 8, heads(1, 128)),
    ]);
    cases
}

/// Heads of queries that share heads of keys.
fn small_grouped() -> Vec<Case> {
    use Size::Small;
    let chunks: &[&[(usize, u32)]] = &[&[(0, 66), (1, 3), (2, 17)], &[(1, 70), (0, 2)], &[(2, 1), (1, 1), (0, 1)]];
    let decodes: &[&[(usize, u32)]] = &[&[(0, 1), (1, 1), (2, 1), (3, 1)], &[(2, 16), (0, 3), (1, 1)]];
    let filled = [130, 63, 5, 64];
    let mut cases = Vec::new();
    for (heads, order) in
        [(grouped(32, 8, 16), Order::Rotary(16)), (grouped(8, 1, 64), Order::Alibi), (grouped(12, 4, 80), Order::Alibi)]
    {
        cases.push(causal(Small, "prefill", heads, order, &[0], &[&[(0, 70)]]));
        cases.push(causal(Small, "chunks", heads, order, &[0, 0, 0], chunks));
        cases.push(causal(Small, "decode", heads, order, &filled, decodes));
        cases.push(forked_few(heads, order, true));
    }
    cases.push(forked_many(grouped(6, 2, 48), Order::Alibi, true));
    cases
}

fn small_media() -> Vec<Case> {
    use Size::Small;
    let mut cases = Vec::new();
    for (heads, media_tokens, images, count, seen, normed) in [
        (heads(2, 64), 9, 3, 22, Seen::Interleaved, false),
        (heads(2, 96), 64, 2, 5, Seen::Mixed, true),
        (heads(1, 128), 65, 2, 1, Seen::Last, true),
        (heads(2, 32), 4, 4, 70, Seen::Last, false),
        (heads(1, 80), 70, 3, 80, Seen::Mixed, true),
        (heads(2, 16), 3, 1, 6, Seen::Nothing, false),
        (heads(1, 112), 1, 2, 20, Seen::Interleaved, true),
    ] {
        cases.push(masked(Small, heads, &vec![media_tokens; images], &seen.list(count, images), normed));
    }
    // Images of some pages, the last of each partly full; a token sees up to three.
    for (heads, rows, count, normed) in [
        (heads(2, 64), &[9u32, 70, 128, 1][..], 30, true),
        (heads(1, 80), &[64, 200, 65], 9, false),
        (heads(2, 96), &[150, 3, 64, 70, 129], 80, false),
    ] {
        cases.push(masked(Small, heads, rows, &Seen::Neighbours.list(count, rows.len()), normed));
    }
    for (heads, rows, count, normed) in [
        (grouped(32, 8, 16), &[9u32, 70, 333][..], 5, true),
        (grouped(8, 1, 64), &[200, 64, 65, 1], 40, true),
        (grouped(12, 4, 80), &[400, 3], 1, false),
        (grouped(6, 2, 128), &[130, 450], 70, true),
    ] {
        let seen = if count == 1 { Seen::Last } else { Seen::Neighbours };
        cases.push(masked(Small, heads, rows, &seen.list(count, rows.len()), normed));
    }
    // Four tiles of 1601 rows.
    cases.push(sharp(masked(Small, grouped(4, 1, 16), &[6404], &Seen::Last.list(1, 1), false)));
    for (family, width, heads, rows, count) in [
        (Family::Idefics, 80, grouped(12, 4, 16), &[9u32, 64, 3][..], 7),
        (Family::Idefics, 80, heads(2, 64), &[9u32, 70, 128, 1][..], 7),
        (Family::OpenFlamingo, 48, heads(1, 128), &[65, 3, 64], 19),
        (Family::Llama, 80, grouped(12, 4, 16), &[9, 64, 3], 7),
        (Family::Llama, 64, grouped(4, 1, 64), &[9, 70, 128, 1], 21),
        (Family::Llama, 48, grouped(4, 2, 128), &[9, 330], 3),
    ] {
        cases.push(gated(Small, family, width, heads, rows, &Seen::Neighbours.list(count, rows.len())));
    }
    for (family, width, heads, media_tokens, count, seen) in [
        (Family::OpenFlamingo, 48, heads(2, 64), 9, 1, Seen::Last),
        (Family::OpenFlamingo, 80, heads(3, 16), 66, 7, Seen::Mixed),
        (Family::OpenFlamingo, 144, heads(1, 64), 4, 16, Seen::Interleaved),
        (Family::OpenFlamingo, 48, heads(2, 64), 5, 19, Seen::Interleaved),
        (Family::Idefics, 112, heads(2, 96), 9, 1, Seen::Last),
        (Family::Idefics, 96, heads(3, 32), 5, 11, Seen::Interleaved),
        (Family::Idefics, 64, heads(1, 128), 65, 3, Seen::Mixed),
        (Family::Idefics, 272, heads(2, 80), 3, 2, Seen::Nothing),
        (Family::Idefics, 48, heads(2, 48), 7, 23, Seen::Mixed),
        (Family::Llama, 112, grouped(6, 2, 32), 9, 7, Seen::Mixed),
        (Family::Llama, 48, grouped(4, 1, 16), 5, 6, Seen::Nothing),
    ] {
        cases.push(gated(Small, family, width, heads, &[media_tokens; 3], &seen.list(count, 3)));
    }
    cases
}

/// Two families and one that is alone; decoding, some of several tokens that see different tiles, and a chunk beside.
pub fn forked_few(heads: Heads, order: Order, in_common: bool) -> Case {
    let past = |family, common, filled| Past { common, family, filled };
    let pasts =
        [past(0, 144, 150), past(1, 64, 64), past(0, 144, 182), Past::own(70), past(1, 64, 130), past(0, 80, 97)];
    let steps: &[(usize, u32)] = &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
    let several: &[(usize, u32)] = &[(4, 2), (2, 16), (3, 5), (1, 1), (0, 7)];
    let mixed: &[(usize, u32)] = &[(1, 1), (3, 20), (0, 1), (4, 3)];
    forked(Size::Small, "few", heads, order, &pasts, in_common, &[steps, several, mixed])
}

/// More sequences of one past than a block holds.
pub fn forked_many(heads: Heads, order: Order, in_common: bool) -> Case {
    let pasts: Vec<Past> = (0..35).map(|i| Past { common: 128, family: 0, filled: 128 + i * 29 % 70 }).collect();
    let steps: Vec<(usize, u32)> = (0..35).map(|sequence| (sequence, 1)).collect();
    forked(Size::Small, "many", heads, order, &pasts, in_common, &[&steps])
}

/// Shapes of CLIP ViT-L/14 and ViT-H/14, MPT-1B, RedPajama 3B, MPT-7B and LLaMA-7B with their gated blocks.
pub fn real() -> Vec<Case> {
    use Size::Real;
    let mut cases = vec![
        patches(Real, 8, 224, 14, 0),
        patches(Real, 8, 224, 14, 1024),
        class_and_position(Real, 8, 256, 1024),
        class_and_position(Real, 8, 256, 1280),
        broadcast(Real, 8, 64, 1280),
        frame_embedding(Real, &[8, 8], 256, 1024, 8),
        tile_patches(Real, tiled(&[(1, 1), (6, 4)], 4), 560, 14, 1280),
        tile_positions(Real, tiled(&[(1, 1), (6, 4)], 4), 1600, 1280),
        tile_embedding(Real, tiled(&[(1, 1), (6, 4)], 4), 1601, 7, 1280),
        fill_rows(Real, 2, 6404, 6432, 1280),
        concatenate(Real, 2, 6432, 6404, &[1280; 6]),
        gather(Real, 512, 4096, false),
        gather(Real, 512, 2048, true),
        select(Real, 512, 4096),
        norm(Real, Norm::Layer, true, 8 * 257, 1024),
        norm(Real, Norm::Layer, true, 16, 2048),
        norm(Real, Norm::Rms, false, 1, 4096),
        norm(Real, Norm::Rms, false, 512, 4096),
        norm_heads(Real, Norm::Rms, false, 512, 32, 128),
        norm_heads(Real, Norm::Layer, true, 8 * 64, 16, 96),
        copied_page(Real, heads(32, 128)),
    ];
    let gelu = Besides { bias: true, activation: Some(Activation::Gelu), ..PLAIN };
    let quick = Besides { bias: true, activation: Some(Activation::QuickGelu), ..PLAIN };
    let bias = Besides { bias: true, ..PLAIN };
    let added = Besides { residual: true, ..PLAIN };
    let biased_added = Besides { bias: true, residual: true, ..PLAIN };
    let swiglu = Besides { activation: Some(Activation::Silu), paired: true, ..PLAIN };
    let logits = Besides { logits: true, ..PLAIN };
    let gate = Besides { gate: Gated::Vector, residual: true, ..PLAIN };
    for (columns, width, besides) in [
        (1024, 3072, bias),
        (1024, 4096, quick),
        (4096, 1024, biased_added),
        (1280, 3840, bias),
        (1280, 5120, gelu),
        (5120, 1280, biased_added),
    ] {
        cases.push(linear(Real, 8 * 257, columns, width, besides));
    }
    for count in [1, 2, 4, 8, 16, 64, 512] {
        for (columns, width, besides) in
            [(4096, 12_288, PLAIN), (4096, 4096, added), (4096, 11_008, swiglu), (11_008, 4096, added)]
        {
            cases.push(linear(Real, count, columns, width, besides));
        }
    }
    for count in [1, 16, 512] {
        let gelu = Besides { activation: Some(Activation::Gelu), ..PLAIN };
        for (columns, width, besides) in [
            (2048, 6144, Besides { clip: Some(6.0), ..PLAIN }),
            (2048, 8192, gelu),
            (8192, 2048, added),
            (4096, 4096, gate),
        ] {
            cases.push(linear(Real, count, columns, width, besides));
        }
    }
    for count in [1, 16] {
        cases.push(linear(Real, count, 2048, 50_434, logits));
        cases.push(linear(Real, count, 4096, 32_003, logits));
    }
    cases.extend(real_attention());
    cases
}

fn real_attention() -> Vec<Case> {
    use Size::Real;
    let (llama, mpt_1b, red_pajama) = (heads(32, 128), heads(16, 128), heads(32, 80));
    let mut cases = vec![
        vision(Real, 8, 257, heads(16, 64)),
        vision(Real, 8, 257, heads(16, 80)),
        tiles(Real, tiled(&[(1, 1), (6, 4)], 4), 1601, 7, heads(16, 80)),
        image(Real, 8, heads(8, 64), 64, &[256, 64], false),
        image(Real, 8, heads(16, 96), 64, &[257, 64], true),
        video(Real, &[8, 8], heads(8, 64), 64, [256, 64], false),
    ];
    for (what, heads, order) in [
        ("llama", llama, Order::Rotary(128)),
        ("mpt-1b", mpt_1b, Order::Alibi),
        ("red-pajama", red_pajama, Order::Rotary(80)),
    ] {
        cases.push(causal(Real, &format!("{what}/prefill512"), heads, order, &[0], &[&[(0, 512)]]));
        cases.push(causal(Real, &format!("{what}/chunk256at1024"), heads, order, &[1024], &[&[(0, 256)]]));
        cases.push(causal(Real, &format!("{what}/decode1at512"), heads, order, &[511], &[&[(0, 1)]]));
        cases.push(causal(Real, &format!("{what}/decode1at2048"), heads, order, &[2047], &[&[(0, 1)]]));
        let all: Vec<(usize, u32)> = (0..16).map(|sequence| (sequence, 1)).collect();
        cases.push(causal(Real, &format!("{what}/decode16at512"), heads, order, &[511; 16], &[&all]));
        let all: Vec<(usize, u32)> = (0..64).map(|sequence| (sequence, 1)).collect();
        let pasts = [Past { common: 896, family: 0, filled: 1023 }; 64];
        for in_common in [true, false] {
            cases.push(forked(Real, &format!("{what}/decode64at1024"), heads, order, &pasts, in_common, &[&all]));
        }
    }
    let open_flamingo = heads(8, 64);
    for (heads, normed) in [(open_flamingo, false), (llama, true)] {
        for (images, count, seen) in
            [(1, 1, Seen::Last), (32, 16, Seen::Mixed), (1, 512, Seen::Last), (32, 1024, Seen::Interleaved)]
        {
            cases.push(masked(Real, heads, &vec![64; images], &seen.list(count, images), normed));
        }
    }
    // Llama-3.2-Vision 11B and 90B: images of one to four tiles.
    for heads in [grouped(32, 8, 128), grouped(64, 8, 128)] {
        cases.extend([
            masked(Real, heads, &[1601], &Seen::Last.list(1, 1), true),
            masked(Real, heads, &[6404], &Seen::Last.list(1, 1), true),
            masked(Real, heads, &[6404], &Seen::Last.list(64, 1), true),
            masked(Real, heads, &[1601, 3202, 6404], &Seen::Neighbours.list(8, 3), true),
            masked(Real, heads, &[1601, 3202, 6404], &Seen::Interleaved.list(1024, 3), true),
        ]);
    }
    for (family, width, heads) in [
        (Family::OpenFlamingo, 2048, open_flamingo),
        (Family::OpenFlamingo, 4096, open_flamingo),
        (Family::Idefics, 4096, llama),
    ] {
        for (count, seen) in
            [(1, Seen::Last), (4, Seen::Mixed), (16, Seen::Mixed), (17, Seen::Mixed), (512, Seen::Interleaved)]
        {
            cases.push(gated(Real, family, width, heads, &[64; 5], &seen.list(count, 5)));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_must_be_exact_are() {
        let case = masked(Size::Small, heads(1, 16), &[2], &[MediaSeen::NOTHING; 3], false);
        let zeros = vec![0.0; 3 * 16];
        let mut found = zeros.clone();
        assert_eq!(case.compare(&found, &zeros, Dtype::Bf16), Ok(()));
        found[17] = 1e-30;
        assert!(case.compare(&found, &zeros, Dtype::Bf16).is_err());
    }
}
