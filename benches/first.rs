//! The first numbers to look at on a card, in the order in which one explains the next, each with what is expected and
//! what it means if it is not so. Expectations are reckoned from the kernels' instructions and a card that reads 4.3
//! TB/s (H200); no GPU has measured them.
//!
//!     bench-first [--out FOLDER]            on the first GPU; first.json and first.md go to FOLDER
//!     bench-first --tiny [--out FOLDER]     tiny shapes in the emulator: a check of this program, not of any speed
//!
//! A number is the median of [`Effort::samples`] samples by the device's own clock. A sample is as many runs back to
//! back as fill [`Effort::sample_seconds`], so that the start of the first is lost in them; a run goes through several
//! layers in one plan, each with weights or pages of its own, so that no second-level cache holds what it reads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flamant::probe::{
    Axis, Batch, Capacity, Device, Dtype, Epilogue, Graph, KvConfig, KvLayer, KvSource, KvSpace, Mask, MediaSeen,
    Numbers, PAGE_TOKENS, PageCount, Place, Plan, PlanKind, Plans, PoolShape, Probe,
};
use serde_json::{Value, json};

/// Bytes of a stored number.
const STORED: usize = 2;

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// So many linear layers of `rows` tokens, from `columns` to `width`.
    Linear { rows: usize, columns: usize, width: usize, layers: usize },
    /// One new token of each of several sequences that have `keys` keys with it, in so many layers: append, split
    /// attention and the sum of its parts.
    Attention { sequences: usize, keys: usize, heads: usize, head_width: usize, layers: usize },
    /// A captured sequence of so many launches that do nothing.
    Empty { launches: usize },
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 10^12 bytes of weights, or of keys and values, a second.
    Terabytes,
    /// 10^12 floating-point operations a second.
    Teraflops,
    /// Microseconds of one launch.
    Microseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Terabytes => "TB/s",
            Unit::Teraflops => "TFLOP/s",
            Unit::Microseconds => "us a launch",
        }
    }
}

/// One number of the map.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What it is called.
    pub name: &'static str,
    /// What is timed.
    pub work: Work,
    /// What is counted.
    pub unit: Unit,
    /// The reckoned range.
    pub expected: [f64; 2],
    /// The form of a kernel that the range presumes, as its name has it; any if empty.
    pub form: &'static str,
    /// What it means to be below the range, and where to look first.
    pub below: &'static str,
    /// What it means to be above.
    pub above: &'static str,
}

/// The lines, in the order in which they are to be read.
pub const LINES: [Line; 8] = [
    Line {
        name: "linear, 1 row, 4096 to 4096",
        work: Work::Linear { rows: 1, columns: 4096, width: 4096, layers: 16 },
        unit: Unit::Terabytes,
        expected: [3.2, 4.4],
        form: "16x8",
        below: "if the next line is as expected, it is the ramp of each launch: see the last line. Else bytes in flight \
                or clocks: registers of linear_rows (cargo run --example kernel_report), nvidia-smi -q -d CLOCK,PERFORMANCE",
        above: "more than memory gives: a cache serves a part. Rotate over more layers (benches/first.rs)",
    },
    Line {
        name: "linear, 1 row, 4096 to 22016",
        work: Work::Linear { rows: 1, columns: 4096, width: 22_016, layers: 4 },
        unit: Unit::Terabytes,
        expected: [3.4, 4.4],
        form: "32x8",
        below: "a launch of 180 MB hides its ramp, so bytes in flight or clocks: kernels/linear_rows.cuh; `read` in the \
                results of the stage ops says what the card gives at best",
        above: "more than memory gives: a cache serves a part. Rotate over more layers (benches/first.rs)",
    },
    Line {
        name: "linear, 2048 rows, 4096 to 12288",
        work: Work::Linear { rows: 2048, columns: 4096, width: 12_288, layers: 2 },
        unit: Unit::Teraflops,
        expected: [370.0, 400.0],
        form: "128x128",
        below: "waits, not shared memory, hold the large tile: registers and spills of linear_tile_128x128 in the \
                report, stages of kernels/linear.cu; then power and clocks (nvidia-smi -q -d PERFORMANCE)",
        above: "shared memory gives more than the 1024 multiply-adds a clock that were reckoned: correct the cost of a \
                tile in src/backend/gpu/tuning.rs before other forms are judged by it",
    },
    Line {
        name: "linear, 512 rows, 4096 to 4096",
        work: Work::Linear { rows: 512, columns: 4096, width: 4096, layers: 8 },
        unit: Unit::Teraflops,
        expected: [320.0, 400.0],
        form: "128x128",
        below: "128 large tiles are one wave on 132 multiprocessors and should have the rate of the line before; at two \
                thirds of it the 64x64 form was chosen: src/backend/gpu/tuning.rs",
        above: "one wave does better than many: look at the tail of the waves in the line before",
    },
    Line {
        name: "linear, 16 rows, 4096 to 4096",
        work: Work::Linear { rows: 16, columns: 4096, width: 4096, layers: 16 },
        unit: Unit::Terabytes,
        expected: [2.6, 3.5],
        form: "32x16",
        below: "too few blocks: one multiprocessor draws at most 64 bytes a clock (about 110 GB/s) from L2; 128 blocks of \
                32 features should have enough, 32 blocks of 128 would come to 2.3 TB/s. Look at L2_SHARE and the form \
                chosen for 9 to 16 rows in src/backend/gpu/tuning.rs",
        above: "reading x once a block costs less than reckoned: correct what L2 gives in src/backend/gpu/tuning.rs",
    },
    Line {
        name: "split attention, 1 sequence of 4096 keys",
        work: Work::Attention { sequences: 1, keys: 4096, heads: 32, head_width: 128, layers: 8 },
        unit: Unit::Terabytes,
        expected: [2.1, 2.6],
        form: "",
        below: "if the next line is as expected, it is append, the sum and their launches beside 25 us of reading: see \
                the last line. Else blocks a multiprocessor of flash_attention_split (two by its shared memory)",
        above: "the launches beside the split kernel cost less than the 5 us reckoned: expect as much of a whole token",
    },
    Line {
        name: "split attention, 16 sequences of 4096 keys",
        work: Work::Attention { sequences: 16, keys: 4096, heads: 32, head_width: 128, layers: 1 },
        unit: Unit::Terabytes,
        expected: [2.5, 3.1],
        form: "",
        below: "a block computes with nothing of its own under way: fewer than two blocks a multiprocessor (split of \
                shared memory and L1, 78 KB a block), or chains of products: kernels/flash_attention.cu",
        above: "two blocks a multiprocessor hide each other better than reckoned: a third one has less to give",
    },
    Line {
        name: "empty launch, in a captured sequence of 324",
        work: Work::Empty { launches: 324 },
        unit: Unit::Microseconds,
        expected: [1.0, 1.6],
        form: "",
        below: "launches cost less than reckoned: merging them, or overlapping one with the next, has less to give",
        above: "a token of IDEFICS-9B has 324 launches: look whether the sequence is replayed as one graph \
                (src/backend/gpu/cuda/context.rs), then let launches overlap, and merge them, before kernels",
    },
];

/// The same lines at sizes for the emulator.
pub fn tiny() -> [Line; 8] {
    LINES.map(|line| {
        let work = match line.work {
            Work::Linear { rows, columns, width, .. } => {
                Work::Linear { rows: rows.div_ceil(16), columns: columns / 64, width: width / 64, layers: 2 }
            }
            Work::Attention { sequences, .. } => {
                Work::Attention { sequences: sequences.div_ceil(8), keys: 130, heads: 2, head_width: 64, layers: 2 }
            }
            Work::Empty { .. } => Work::Empty { launches: 5 },
        };
        Line { work, ..line }
    })
}

/// How long a number is sought.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Samples of each number.
    pub samples: usize,
    /// Least length of a sample.
    pub sample_seconds: f64,
    /// What runs before the first sample: clocks of an idle card rise.
    pub warm_seconds: f64,
}

/// On a card: 8 numbers in some 10 seconds.
pub const FULL: Effort = Effort { samples: 51, sample_seconds: 4e-3, warm_seconds: 0.2 };
/// In the emulator.
pub const BRIEF: Effort = Effort { samples: 3, sample_seconds: 0.0, warm_seconds: 0.0 };

/// What was found.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Median seconds of one launch, or of one layer.
    pub seconds: f64,
    /// Those of the fastest and of the slowest sample.
    pub range: [f64; 2],
    /// Samples.
    pub samples: usize,
    /// The kernels of a layer.
    pub kernels: Vec<&'static str>,
}

/// A number beside what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    AsExpected,
    Below,
    Above,
}

impl Line {
    /// How a number compares.
    pub fn verdict(&self, value: f64) -> Verdict {
        let [least, most] = self.expected;
        match value {
            value if value < least => Verdict::Below,
            value if value > most => Verdict::Above,
            _ => Verdict::AsExpected,
        }
    }

    /// What it means not to be as expected, and where to look.
    pub fn meaning(&self, verdict: Verdict) -> Option<&'static str> {
        match verdict {
            Verdict::AsExpected => None,
            Verdict::Below => Some(self.below),
            Verdict::Above => Some(self.above),
        }
    }

    /// The number, from the seconds of one layer or launch.
    pub fn value(&self, seconds: f64) -> f64 {
        let amount = match (self.work, self.unit) {
            (Work::Linear { columns, width, .. }, Unit::Terabytes) => STORED * columns * width,
            (Work::Linear { rows, columns, width, .. }, Unit::Teraflops) => 2 * rows * columns * width,
            (Work::Attention { sequences, keys, heads, head_width, .. }, Unit::Terabytes) => {
                2 * STORED * sequences * keys * heads * head_width
            }
            (Work::Empty { .. }, Unit::Microseconds) => return seconds * 1e6,
            (work, unit) => unreachable!("{work:?} is not counted in {}", unit.name()),
        };
        amount as f64 / seconds / 1e12
    }

    /// A line of text, and one on what it means where something is not as expected.
    pub fn text(&self, measured: &Measured) -> String {
        let Measured { seconds, range: [fastest, slowest], samples, kernels } = measured;
        let (value, [least, most], unit) = (self.value(*seconds), self.expected, self.unit.name());
        let verdict = self.verdict(value);
        let told = match verdict {
            Verdict::AsExpected => "as expected",
            Verdict::Below => "BELOW",
            Verdict::Above => "ABOVE",
        };
        let [seconds, fastest, slowest] = [seconds, fastest, slowest].map(|seconds| 1e6 * seconds);
        let mut text = format!(
            "{}: {value:.2} {unit}, expected {least} to {most}: {told} ({seconds:.2} us, {fastest:.2} to {slowest:.2} in \
             {samples} samples; {})",
            self.name,
            if kernels.is_empty() { "nothing is computed".to_owned() } else { kernels.join(", ") },
        );
        if !self.has_form(kernels) {
            text += &format!("\n    another form than {}, which the expectation presumes", self.form);
        }
        if let Some(meaning) = self.meaning(verdict) {
            text += &format!("\n    {meaning}");
        }
        text
    }

    /// Whether the kernels are of the form that the range presumes, with any number of stages.
    fn has_form(&self, kernels: &[&str]) -> bool {
        let is = |part: &str| part.strip_prefix(self.form).is_some_and(|rest| rest.is_empty() || rest.starts_with('x'));
        self.form.is_empty() || kernels.iter().all(|kernel| kernel.split('_').any(is))
    }

    fn json(&self, outcome: &Result<Measured, String>) -> Value {
        let [least, most] = self.expected;
        let mut line = json!({
            "name": self.name, "unit": self.unit.name(), "expected": { "least": least, "most": most, "reckoned": true },
        });
        let found = match outcome {
            Err(error) => json!({ "error": error }),
            Ok(Measured { seconds, range, samples, kernels }) => {
                let value = self.value(*seconds);
                let verdict = self.verdict(value);
                json!({
                    "value": value, "verdict": format!("{verdict:?}"), "meaning": self.meaning(verdict),
                    "seconds": seconds, "fastest": range[0], "slowest": range[1], "samples": samples, "kernels": kernels,
                    "form_as_presumed": self.has_form(kernels),
                })
            }
        };
        let fields = found.as_object().expect("an object").clone();
        line.as_object_mut().expect("an object").extend(fields);
        line
    }
}

/// The lists of a batch.
#[derive(Default)]
struct Lists {
    inputs: Vec<Vec<f32>>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    tables: Vec<Vec<u32>>,
}

impl Lists {
    fn batch<R>(&self, outputs: &[u32], with: impl FnOnce(&Batch) -> R) -> R {
        let inputs: Vec<&[f32]> = self.inputs.iter().map(Vec::as_slice).collect();
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        let count = self.positions.len();
        with(&Batch {
            inputs: &inputs,
            ids: &vec![0; count],
            positions: &self.positions,
            sequences: &self.sequences,
            tables: &tables,
            media: &vec![MediaSeen::NOTHING; count],
            outputs,
            ..Batch::default()
        })
    }
}

/// Numbers between -1 and 1, always the same.
fn random(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Something that runs again and again; `layers` times what a number counts.
struct Opened {
    probe: Probe,
    lists: Lists,
    layers: usize,
    empty: bool,
}

fn open(place: &Place, work: Work) -> flamant::Result<Opened> {
    match work {
        Work::Linear { rows, columns, width, layers } => open_linear(place, [rows, columns, width], layers),
        Work::Attention { sequences, keys, heads, head_width, layers } => {
            open_attention(place, [sequences, keys], [heads, head_width], layers)
        }
        Work::Empty { launches } => {
            let nothing = || Graph::new().plan(&[], None);
            let mut probe = opened(place, Numbers::default(), nothing(), nothing(), KvConfig::default(), 16)?;
            probe.measure_empty(launches, 1)?;
            Ok(Opened { probe, lists: Lists::default(), layers: launches, empty: true })
        }
    }
}

fn opened(
    place: &Place,
    numbers: Numbers,
    media: Plan,
    text: Plan,
    kv_config: KvConfig,
    tokens: usize,
) -> flamant::Result<Probe> {
    let plans = Plans { media, text, features: None, tiles: None };
    Probe::open(place, numbers, plans, kv_config, Capacity { images: 0, tokens })
}

/// Layers side by side on one input: each launch waits for the one before it, as in a model.
fn open_linear(place: &Place, [rows, columns, width]: [usize; 3], layers: usize) -> flamant::Result<Opened> {
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let x = graph.input(Axis::Tokens, 1, columns);
    let mut layer = || {
        let weight = numbers.made_up(width, columns);
        graph.linear(x, weight, None, Epilogue::default())
    };
    let last = (0..layers).map(|_| layer()).last().expect("there is a layer");
    // Fetched once, to see that there are numbers; timed without.
    let fetched = graph.select(last);
    let text = graph.plan(&[x], Some(fetched));
    let probe = opened(place, numbers, Graph::new().plan(&[], None), text, KvConfig::default(), rows)?;
    let lists = Lists {
        inputs: vec![random(rows * columns)],
        positions: (0..rows as u32).collect(),
        sequences: vec![0; rows],
        tables: vec![Vec::new()],
    };
    Ok(Opened { probe, lists, layers, empty: false })
}

/// Layers with pages of their own, filled with the same keys and values.
fn open_attention(
    place: &Place,
    [sequences, keys]: [usize; 2],
    [heads, head_width]: [usize; 2],
    layers: usize,
) -> flamant::Result<Opened> {
    let width = heads * head_width;
    let of_layer = |layer| KvLayer { space: KvSpace::Text, layer, kv_heads: heads, head_width };
    let mut filler = Graph::new();
    let (key, value) = (filler.input(Axis::Tokens, 1, width), filler.input(Axis::Tokens, 1, width));
    (0..layers).for_each(|layer| filler.append(key, value, of_layer(layer)));
    let filler = filler.plan(&[key, value], None);

    let mut graph = Graph::new();
    let rows = graph.input(Axis::Tokens, 1, 3 * width);
    let [query, key, value] = rows.split();
    let mut layer = |layer| {
        let layer = of_layer(layer);
        graph.append(key, value, layer);
        let source = KvSource::Pages(layer, Mask::Causal { slopes: None });
        graph.attention(query, source, heads, 1.0 / (head_width as f32).sqrt())
    };
    let last = (0..layers).map(&mut layer).last().expect("there is a layer");
    let fetched = graph.select(last);
    let text = graph.plan(&[rows], Some(fetched));

    let pages = keys.div_ceil(PAGE_TOKENS);
    let count = PageCount { least: sequences * pages, most: sequences * pages };
    let text_pool = PoolShape { layers, kv_heads: heads, head_width, pages: count };
    let kv_config = KvConfig { text: text_pool, ..KvConfig::default() };
    let mut probe = opened(place, Numbers::default(), filler, text, kv_config, keys)?;
    let numbers = random(keys * width);
    let mut fill = Lists {
        inputs: vec![numbers.clone(), numbers],
        positions: (0..keys as u32).collect(),
        sequences: vec![0; keys],
        tables: Vec::new(),
    };
    let table = |sequence: usize| (sequence * pages..(sequence + 1) * pages).map(|page| page as u32).collect();
    for sequence in 0..sequences {
        fill.tables = vec![table(sequence)];
        fill.batch(&[], |batch| probe.run(PlanKind::Media, batch))?;
    }
    let lists = Lists {
        inputs: vec![random(sequences * 3 * width)],
        positions: vec![keys as u32 - 1; sequences],
        sequences: (0..sequences as u32).collect(),
        tables: (0..sequences).map(table).collect(),
    };
    Ok(Opened { probe, lists, layers, empty: false })
}

impl Opened {
    /// The kernels of a layer; fails where what they write is not numbers.
    fn kernels(&mut self) -> Result<Vec<&'static str>, String> {
        if self.empty {
            return Ok(Vec::new());
        }
        let (probe, last) = (&mut self.probe, self.lists.positions.len() as u32 - 1);
        let found = self.lists.batch(&[last], |batch| probe.run(PlanKind::Text, batch)).map_err(|e| e.to_string())?;
        if found.iter().any(|value| !value.is_finite()) || found.iter().all(|value| *value == found[0]) {
            return Err("expected numbers in its last row, found none or all the same".to_owned());
        }
        let started = self.lists.batch(&[], |batch| probe.kernels(PlanKind::Text, batch)).map_err(|e| e.to_string())?;
        Ok(started[..started.len() / self.layers].to_vec())
    }

    /// Seconds of a layer or launch, over so many runs.
    fn measure(&mut self, runs: usize) -> flamant::Result<f64> {
        let Opened { probe, lists, layers, empty } = self;
        let seconds = match empty {
            true => probe.measure_empty(*layers, runs),
            false => lists.batch(&[], |batch| probe.measure(PlanKind::Text, batch, runs)),
        };
        Ok(seconds? / *layers as f64)
    }
}

/// One number.
///
/// # Errors
/// Why it could not be measured, in a line.
pub fn measure(place: &Place, work: Work, effort: Effort) -> Result<Measured, String> {
    const RUNS_MAX: f64 = 10_000.0;
    let mut opened = open(place, work).map_err(|error| error.to_string())?;
    let layers = opened.layers as f64;
    let kernels = opened.kernels()?;
    let mut sample = |runs: usize| {
        let seconds = opened.measure(runs).map_err(|error| error.to_string())?;
        if seconds > 0.0 { Ok(seconds) } else { Err(format!("expected a clock that runs, found {seconds} s")) }
    };
    // The first runs capture; then as many as a sample takes.
    sample(3)?;
    let runs = |seconds: f64, each: f64| (seconds / (each * layers)).ceil().clamp(1.0, RUNS_MAX) as usize;
    let each = sample(3)?;
    let each = sample(runs(effort.warm_seconds, each))?;
    let runs = runs(effort.sample_seconds, each);
    let mut seconds = (0..effort.samples).map(|_| sample(runs)).collect::<Result<Vec<f64>, String>>()?;
    seconds.sort_by(f64::total_cmp);
    let (median, range) = (seconds[seconds.len() / 2], [seconds[0], seconds[seconds.len() - 1]]);
    Ok(Measured { seconds: median, range, samples: seconds.len(), kernels })
}

/// Measures all lines, each told as it is found; whether all could be. `name` is that of the device.
pub fn map(
    place: &Place,
    name: &str,
    lines: &[Line],
    effort: Effort,
    tell: &mut dyn FnMut(&str),
) -> Vec<(Line, Result<Measured, String>)> {
    tell(&format!("the first numbers on {name}; what is expected is reckoned for an H200, not measured"));
    let mut found = Vec::new();
    for line in lines {
        let outcome = measure(place, line.work, effort);
        match &outcome {
            Ok(measured) => tell(&line.text(measured)),
            Err(error) => tell(&format!("{}: NOT MEASURED: {error}", line.name)),
        }
        found.push((*line, outcome));
    }
    found
}

/// first.json and first.md in a folder.
///
/// # Errors
/// A folder that cannot be written to.
pub fn write(folder: &Path, name: &str, found: &[(Line, Result<Measured, String>)]) -> std::io::Result<()> {
    let lines: Vec<Value> = found.iter().map(|(line, outcome)| line.json(outcome)).collect();
    let text = serde_json::to_string_pretty(&json!({ "device": name, "lines": lines })).expect("plain values");
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("first.json"), text + "\n")?;
    let mut table =
        format!("# The first numbers on {name}\n\nExpectations are reckoned for an H200, not measured.\n\n");
    table += "| what | found | expected | |\n|---|---|---|---|\n";
    for (line, outcome) in found {
        let ([least, most], unit) = (line.expected, line.unit.name());
        let (value, told) = match outcome {
            Err(error) => ("-".to_owned(), format!("not measured: {error}")),
            Ok(Measured { seconds, .. }) => {
                let value = line.value(*seconds);
                let meaning = line.meaning(line.verdict(value));
                let told = meaning.map_or("as expected".to_owned(), |meaning| {
                    format!("{}: {meaning}", format!("{:?}", line.verdict(value)).to_lowercase())
                });
                (format!("{value:.2} {unit}"), told)
            }
        };
        table += &format!("| {} | {value} | {least} to {most} | {told} |\n", line.name);
    }
    std::fs::write(folder.join("first.md"), table)
}

/// The first usable GPU and its name.
fn gpu() -> Result<(Place, String), String> {
    let gpus = || flamant::devices().into_iter().filter(|info| matches!(info.device, Device::Cuda(_)));
    if let Some(info) = gpus().find(|info| info.problem.is_none()) {
        return Ok((Place::new(info.device, Some(Dtype::Bf16)), info.name.unwrap_or_default()));
    }
    let problem = gpus().find_map(|info| info.problem).unwrap_or_else(|| "there is none".to_owned());
    Err(format!("no GPU that can be used: {problem}; --tiny checks this program in the emulator"))
}

fn run() -> Result<bool, String> {
    let (mut tiny_sizes, mut out) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--tiny" => tiny_sizes = true,
            "--out" => out = Some(PathBuf::from(arguments.next().ok_or("--out: expected a folder, found nothing")?)),
            _ => return Err(format!("expected --tiny or --out FOLDER, found {argument}")),
        }
    }
    let (place, name, lines, effort) = if tiny_sizes {
        let place = Place::new(Device::Emulated, Some(Dtype::Bf16));
        (place, "the emulator (tiny, of no meaning)".to_owned(), tiny(), BRIEF)
    } else {
        let (place, name) = gpu()?;
        (place, name, LINES, FULL)
    };
    let found = map(&place, &name, &lines, effort, &mut |line| println!("{line}"));
    if let Some(folder) = out {
        write(&folder, &name, &found).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(found.iter().all(|(_, outcome)| outcome.is_ok()))
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
