//! What a build of the kernels must pass: the small cases of the table, and what only mutants have asked for.

use std::cell::OnceCell;

use flamant::config::Norm;
use flamant::probe::emulated::{Schedule, Settings};
use flamant::probe::{
    Axis, Batch, Capacity, Device, Dtype, Epilogue, Graph, KvConfig, MediaSeen, Numbers, Place, Plan, PlanKind, Plans,
    Probe, Request,
};

use crate::support::cases::{self, Besides, Case, Order, PLAIN, Size};

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
    let heads = cases::heads(2, 128);
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
        case.compare(&found, want, place.dtype.unwrap())?;
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
        let place = &Place { dtype: Some(Dtype::F16), ..place.clone() };
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
    let plans = Plans { media: Graph::new().plan(&[], None), text, features: None, tiles: None };
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
    cases::similar(&run(place)?, &run(&processor())?, WIDTH, place.dtype)
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
    let sample = |temperature, top_k, top_p, uniform| Request::Sample { temperature, top_k, top_p, uniform };
    let requests = [
        sample(0.0, 0, 1.0, 0.0),
        sample(0.7, 0, 1.0, 0.31),
        sample(1.0, 5, 1.0, 0.86),
        sample(0.9, 0, 0.6, 0.72),
        sample(30.0, 0, 1.0, 0.93),
        sample(2.0, 900, 0.9, 0.995),
        sample(1.0, 0, 1.0, 0.9995),
    ];
    // Of the same rows, lists: in sums with a score so large, many log-probabilities are equal.
    let targets = |targets: &[u32]| Request::Targets(targets.to_vec());
    let lists = [
        Request::TopK { count: 40, score: -9000.0 },
        targets(&[1234, 0, 7]),
        Request::TopK { count: 3, score: 0.0 },
        targets(&[77]),
        Request::TopK { count: TOKENS + 1, score: -1.0 },
        targets(&[]),
        Request::TopK { count: 2, score: -1.0 },
    ];
    // The best of the first rows may not be chosen.
    let mut suppressed: Vec<u32> = rows[..3].iter().map(|row| ranked(row, &[])[0]).collect();
    suppressed.sort_unstable();
    suppressed.dedup();
    for requests in [requests, lists] {
        let (sampled, _) = batch(&x, ROWS, |batch| probe.sample(batch, &requests, &suppressed)).map_err(said)?;
        for (index, ((row, request), sampled)) in rows.iter().zip(&requests).zip(sampled).enumerate() {
            let total = row.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln() as f32;
            let want = expected(row, request, &suppressed, sampled.log_sum_exp);
            if sampled.tokens != want || (sampled.log_sum_exp - total).abs() > 1e-4 {
                return Err(format!("row {index}: {sampled:?}, wanted {want:?} of {total}"));
            }
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

/// What is to be found in a row, with logits. The order of likely tokens is that of sums in f32.
fn expected(row: &[f32], request: &Request, suppressed: &[u32], log_sum_exp: f32) -> Vec<(u32, f32)> {
    let listed = |tokens: &[u32]| tokens.iter().map(|&token| (token, row[token as usize])).collect();
    match request {
        Request::Sample { temperature, top_k, top_p, uniform } => {
            listed(&[sampled(row, [*temperature, *top_p], *top_k, *uniform, suppressed)])
        }
        Request::Targets(targets) => listed(targets),
        Request::TopK { count, score } => {
            let sum = |token: u32| match suppressed.contains(&token) {
                true => f32::NEG_INFINITY,
                false => score + (row[token as usize] - log_sum_exp),
            };
            let mut tokens: Vec<u32> = (0..row.len() as u32).collect();
            tokens.sort_by(|&a, &b| sum(b).total_cmp(&sum(a)).then(a.cmp(&b)));
            tokens.truncate(*count);
            listed(&tokens)
        }
    }
}

/// The token that a draw gives, in f64.
fn sampled(row: &[f32], [temperature, top_p]: [f32; 2], top_k: usize, uniform: f64, suppressed: &[u32]) -> u32 {
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
    if temperature > 0.0 {
        if top_k > 0 {
            tokens.truncate(top_k);
        }
        let mut sums = sum(&tokens, temperature.into());
        if top_p < 1.0 {
            sums.truncate(reaches(&sums, f64::from(top_p) * sums[sums.len() - 1]) + 1);
        }
        place = reaches(&sums, uniform * sums[sums.len() - 1]);
    }
    tokens[place]
}
