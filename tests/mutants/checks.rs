//! What a build of the kernels must pass: the small cases of the table, and what only mutants have asked for.

use std::cell::OnceCell;

use flamant::config::Norm;
use flamant::probe::emulated::{Schedule, Settings};
use flamant::probe::{
    Axis, Batch, Capacity, Device, Epilogue, Graph, KvConfig, MediaSeen, Numbers, Place, Plan, PlanKind, Plans,
    Precision, Probe, Request, Sampled,
};

use crate::support::cases::{self, Besides, Case, Heads, Order, PLAIN, Size};

/// The emulator's modes: how threads take turns, and whether asynchronous copies land early.
pub const MODES: [(Schedule, bool); 2] = [(Schedule::Warps, false), (Schedule::Lanes, true)];

/// Runs on a device; what is wrong, in a line.
type Run = dyn Fn(&Place) -> Result<(), String>;

/// One check of a device.
pub struct Check {
    /// What it is about; a few share one.
    pub name: String,
    /// See [`Run`].
    pub run: Box<Run>,
}

/// All of them; with `bits`, a case must also have the bits of the emulator in this program.
pub fn all(bits: bool) -> Vec<Check> {
    let mut checks: Vec<Check> = cases::small().into_iter().map(|case| against_the_processor(case, bits)).collect();
    let heads = Heads { count: 2, width: 128 };
    let whole = cases::causal(Size::Small, "whole", heads, Order::None, &[0], &[&[(0, 656)]]);
    let split = cases::causal(Size::Small, "split", heads, Order::None, &[0], &[&[(0, 640)], &[(0, 16)]]);
    let logits = Besides { logits: true, ..PLAIN };
    let linear = |count| cases::linear(Size::Small, count, 272, 40, logits);
    checks.extend([
        same_bits("same/causal", whole, split),
        same_bits("same/linear", linear(16), linear(70)),
        same_bits("same/linear", linear(2), linear(12)),
    ]);
    for kind in [Norm::Layer, Norm::Rms] {
        let run = move |place: &Place| faint_rows(kind, place);
        checks.push(Check { name: format!("faint/{kind:?}").to_lowercase(), run: Box::new(run) });
    }
    checks.push(Check { name: "choose".to_owned(), run: Box::new(tokens_are_chosen) });
    checks
}

fn said(error: flamant::Error) -> String {
    error.to_string()
}

fn processor() -> Place {
    Place { threads: 1, ..Place::new(Device::Cpu, None) }
}

fn against_the_processor(case: Case, bits: bool) -> Check {
    let want = OnceCell::new();
    let name = case.name.clone();
    let bits = bits && !case.shows_a_library();
    let run = move |place: &Place| {
        let want = want.get_or_init(|| case.run(&processor()).unwrap());
        let found = case.run(place).map_err(said)?;
        case.compare(&found, want, place.precision.unwrap())?;
        let emulator = Settings { workers: 1, ..Settings::default() };
        let same = |other: Vec<f32>| found.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
        match bits && !same(case.run(&Place { emulated: emulator, ..place.clone() }).map_err(said)?) {
            true => Err("other bits than the emulator's".to_owned()),
            false => Ok(()),
        }
    };
    Check { name, run: Box::new(run) }
}

/// Both cases have the same first rows, to the last bit, however they come about. In f16: of what differs before it is
/// stored, bf16 hides most.
fn same_bits(name: &str, one: Case, other: Case) -> Check {
    let run = move |place: &Place| {
        let place = &Place { precision: Some(Precision::F16), ..place.clone() };
        let (found, other) = (one.run(place).map_err(said)?, other.run(place).map_err(said)?);
        match found.iter().zip(&other).position(|(a, b)| a.to_bits() != b.to_bits()) {
            Some(at) => Err(format!("number {at}: {} and {} in two forms", found[at], other[at])),
            None => Ok(()),
        }
    };
    Check { name: name.to_owned(), run: Box::new(run) }
}

/// A plan of one input of tokens, on a device of its own.
fn open(place: &Place, numbers: Numbers, text: Plan) -> Result<Probe, String> {
    let plans = Plans { media: Graph::new().plan(&[], None), text, features: None };
    Probe::open(place, numbers, plans, KvConfig::default(), Capacity { images: 0, tokens: 8 }).map_err(said)
}

/// Gives `with` the batch of so many tokens whose rows are `input`, all of them wanted.
fn batch<R>(input: &[f32], count: usize, with: impl FnOnce(&Batch) -> R) -> R {
    let (ids, positions): (Vec<u32>, Vec<u32>) = (vec![0; count], (0..count as u32).collect());
    with(&Batch {
        inputs: &[input],
        ids: &ids,
        positions: &positions,
        sequences: &ids,
        tables: &[&[]],
        media: &vec![MediaSeen::NOTHING; count],
        outputs: &positions,
        ..Batch::default()
    })
}

/// Multiples of `unit` around zero that both storage types hold.
fn scattered(count: usize, unit: f32) -> Vec<f32> {
    (0..count as u32).map(|index| unit * ((index.wrapping_mul(2_654_435_761) >> 24) as f32 - 127.0)).collect()
}

/// Rows whose variance is about epsilon: what is added to it shows.
fn faint_rows(kind: Norm, place: &Place) -> Result<(), String> {
    const ROWS: usize = 3;
    const WIDTH: usize = 48;
    let x = scattered(ROWS * WIDTH, 1.0 / 65_536.0);
    let run = |place: &Place| {
        let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
        let input = graph.input(Axis::Tokens, 1, WIDTH);
        let out = graph.norm(input, kind, numbers.vector(vec![1.0; WIDTH]), None, 1e-6);
        let mut probe = open(place, numbers, graph.plan(&[input], Some(out)))?;
        batch(&x, ROWS, |batch| probe.run(PlanKind::Text, batch)).map_err(said)
    };
    cases::similar(&run(place)?, &run(&processor())?, WIDTH, place.precision)
}

/// Draws of all kinds from rows of logits, as sorting them finds them.
fn tokens_are_chosen(place: &Place) -> Result<(), String> {
    const ROWS: usize = 7;
    const COLUMNS: usize = 16;
    const TOKENS: usize = 1500;
    let (mut graph, mut numbers) = (Graph::new(), Numbers::default());
    let input = graph.input(Axis::Tokens, 1, COLUMNS);
    let wanted = graph.select(input);
    // The last row makes one token e^12.5 times as likely as each other.
    let mut matrix = scattered(TOKENS * COLUMNS, 1.0 / 512.0);
    matrix[77 * COLUMNS] = 16.0;
    let matrix = numbers.matrix(TOKENS, COLUMNS, matrix);
    let logits = graph.linear(wanted, matrix, None, Epilogue::default());
    let mut probe = open(place, numbers, graph.plan(&[input], Some(logits)))?;

    let mut x = scattered(ROWS * COLUMNS, 1.0 / 16.0);
    x.chunks_exact_mut(COLUMNS).for_each(|row| row[0] = 0.0);
    x[(ROWS - 1) * COLUMNS..].fill(0.0);
    x[(ROWS - 1) * COLUMNS] = 12.5 / 16.0;
    let found = batch(&x, ROWS, |batch| probe.run(PlanKind::Text, batch)).map_err(said)?;
    let rows: Vec<&[f32]> = found.chunks_exact(TOKENS).collect();
    let greedy = Request { temperature: 0.0, top_k: 0, top_p: 1.0, uniform: 0.0, target: None };
    let requests = [
        Request { target: Some(1234), ..greedy },
        Request { temperature: 0.7, uniform: 0.31, ..greedy },
        Request { temperature: 1.0, top_k: 5, uniform: 0.86, ..greedy },
        Request { temperature: 0.9, top_p: 0.6, uniform: 0.72, target: Some(7), ..greedy },
        Request { temperature: 30.0, uniform: 0.93, ..greedy },
        Request { temperature: 2.0, top_k: 900, top_p: 0.9, uniform: 0.995, ..greedy },
        Request { temperature: 1.0, uniform: 0.9995, ..greedy },
    ];
    // The best of the first rows may not be chosen.
    let mut suppressed: Vec<u32> = rows[..3].iter().map(|row| ranked(row, &[])[0]).collect();
    suppressed.sort_unstable();
    suppressed.dedup();
    let (sampled, _) = batch(&x, ROWS, |batch| probe.sample(batch, &requests, &suppressed)).map_err(said)?;
    for (index, ((row, request), sampled)) in rows.iter().zip(&requests).zip(sampled).enumerate() {
        let want = expected(row, request, &suppressed);
        let far = (sampled.log_sum_exp - want.log_sum_exp).abs() > 1e-4;
        let target_differs = request.target.is_some() && sampled.target_logit != want.target_logit;
        if (sampled.token, sampled.logit) != (want.token, want.logit) || far || target_differs {
            return Err(format!("row {index}: {sampled:?}, wanted {want:?}"));
        }
    }
    Ok(())
}

/// Tokens that may be chosen, most likely first.
fn ranked(row: &[f32], suppressed: &[u32]) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..row.len() as u32).filter(|token| !suppressed.contains(token)).collect();
    tokens.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
    tokens
}

/// What is to be chosen from a row, in f64.
fn expected(row: &[f32], request: &Request, suppressed: &[u32]) -> Sampled {
    let sum = |tokens: &[u32], temperature: f64| -> Vec<f64> {
        let terms = tokens.iter().map(|&token| (f64::from(row[token as usize]) / temperature).exp());
        terms
            .scan(0.0, |sum, term| {
                *sum += term;
                Some(*sum)
            })
            .collect()
    };
    let reaches = |sums: &[f64], goal: f64| sums.iter().position(|&sum| sum >= goal).unwrap_or(sums.len() - 1);
    let mut tokens = ranked(row, suppressed);
    let mut place = 0;
    if request.temperature > 0.0 {
        if request.top_k > 0 {
            tokens.truncate(request.top_k);
        }
        let mut sums = sum(&tokens, request.temperature.into());
        if request.top_p < 1.0 {
            sums.truncate(reaches(&sums, f64::from(request.top_p) * sums[sums.len() - 1]) + 1);
        }
        place = reaches(&sums, request.uniform * sums[sums.len() - 1]);
    }
    let everything: Vec<u32> = (0..row.len() as u32).collect();
    let whole = sum(&everything, 1.0);
    Sampled {
        token: tokens[place],
        logit: row[tokens[place] as usize],
        log_sum_exp: whole[whole.len() - 1].ln() as f32,
        target_logit: request.target.map_or(0.0, |target| row[target as usize]),
    }
}
