//! What callers of an engine on a thread wait for while it runs steps of 100 ms: submitting a text, submitting what was
//! prepared before, cancelling, reading counts. `cargo bench --bench submit` fails where the 99th percentile of any is
//! over 100 microseconds.
//!
//! The steps are the model in the program's, each behind a sleep, as a device that computes would let the host sleep. A
//! call begins at a moment of a step that has nothing to do with it.

use std::thread;
use std::time::{Duration, Instant};

use flamant::{AsyncEngine, Engine, Generation, Limits, Options, Prompt, Request, probe};
use serde_json::json;

const STEP: Duration = Duration::from_millis(100);
/// Rounds of calls, and the time between them.
const ROUNDS: usize = 2000;
const PAUSE: Duration = Duration::from_micros(1700);
/// The 99th percentile at most.
const MOST: Duration = Duration::from_micros(100);

fn request(number: usize) -> Request {
    let mut prompt = Prompt::new();
    prompt.text(format!("a question, the {number}th")).expect("few parts");
    let generation = Generation::default().max_new_tokens(200).ignore_eos(true);
    Request::generate(prompt, generation)
}

/// Seconds of a call.
struct Samples {
    name: &'static str,
    spent: Vec<Duration>,
}

impl Samples {
    fn new(name: &'static str) -> Samples {
        Samples { name, spent: Vec::with_capacity(ROUNDS) }
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let found = work();
        self.spent.push(begun.elapsed());
        found
    }

    /// Prints them; whether the 99th percentile is as it must be.
    fn report(mut self) -> bool {
        self.spent.sort_unstable();
        let micros = |permille: usize| {
            let place = (self.spent.len() * permille / 1000).min(self.spent.len() - 1);
            self.spent[place].as_secs_f64() * 1e6
        };
        let [half, most, longest] = [500, 990, 1000].map(micros);
        println!("{:32}{half:>12.1}{most:>12.1}{longest:>12.1}", self.name);
        println!("{}", json!({"name": self.name, "p50_us": half, "p99_us": most, "max_us": longest}));
        most <= MOST.as_secs_f64() * 1e6
    }
}

fn main() {
    let limits = Limits::default().max_sequences(8).queue(4 * ROUNDS);
    let options = Options::default().limits(limits).threads(1);
    let mut engine = Engine::demo(&options).expect("the model in the program opens");
    probe::before_run(&mut engine, || thread::sleep(STEP));
    let engine = AsyncEngine::new(engine).expect("a thread starts");
    let first = engine.submit(request(0)).expect("there is room");
    while engine.stats().expect("it runs").requests_running == 0 {
        thread::yield_now();
    }
    let mut submit = Samples::new("submit a text");
    let mut submit_prepared = Samples::new("submit what was prepared");
    let mut stats = Samples::new("stats");
    let mut cancel = Samples::new("cancel");
    let begun = Instant::now();
    for round in 0..ROUNDS {
        thread::sleep(PAUSE);
        let made = request(1 + round);
        let one = submit.time(|| engine.submit(made)).expect("there is room");
        let prepared = engine.preparer().prepare(request(10_000 + round)).expect("the prompt is right");
        let other = submit_prepared.time(|| engine.submit_prepared(prepared)).expect("there is room");
        stats.time(|| engine.stats()).expect("it runs");
        cancel.time(|| one.cancel());
        drop(other);
    }
    let (seconds, steps) = (begun.elapsed().as_secs_f64(), engine.stats().expect("it runs").steps);
    drop(first);
    println!("{ROUNDS} calls of each during {steps} steps of {:.0} ms", 1e3 * seconds / steps as f64);
    println!("{:32}{:>12}{:>12}{:>12}", "microseconds", "half", "99 %", "longest");
    let right = [submit, submit_prepared, stats, cancel].map(Samples::report);
    assert!(steps as f64 * STEP.as_secs_f64() > 0.9 * seconds, "steps ran all the time");
    assert!(right.iter().all(|right| *right), "99 % are done within {MOST:?}");
}
