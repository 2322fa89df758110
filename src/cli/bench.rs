//! `flamant bench`: a synthetic load, and how fast it is answered.

mod figures;
mod synthetic;

use std::time::Instant;

use crate::runner::{self, Load, Supply, Workers};
use crate::{Engine, Error, EventKind, PRESETS};
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::input::{DeviceArguments, LimitArguments, ModelOrDemo};
use super::{Failure, Outcome, Run, print_json};
use figures::{Figures, Sample};
use synthetic::{Shape, Synthetic};

/// Run a synthetic load: throughput, time to first token, cache hits
#[derive(Args)]
#[command(
    next_help_heading = "Load",
    after_help = "\
Examples:
  flamant bench MODEL --shots 8 --shared-prefix --device cuda
  flamant bench --demo --requests 256 --concurrency 16 --json
  flamant bench --preset flamingo-80b --device cuda"
)]
pub struct Bench {
    #[command(flatten)]
    model: ModelOrDemo,
    /// Take a size of the Flamingo paper with weights that the device makes up (not cpu): published widths, but a
    /// transformer in the NFNet's place and rotary positions in place of relative ones
    #[arg(
        help_heading = "Model",
        long,
        value_name = "NAME",
        group = "ModelOrDemo",
        value_parser = PossibleValuesParser::new(PRESETS)
    )]
    preset: Option<String>,
    /// Requests to run
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,
    /// Requests that are in the engine at a time; as many as it runs, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    concurrency: Option<u64>,
    /// Images with text in a prompt, before the image that is asked about
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=255))]
    shots: u64,
    /// Tokens of text after each image, roughly
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    prompt_tokens: u64,
    /// Tokens to write for each request
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_new_tokens: u64,
    /// Begin all prompts with the same shots
    #[arg(long)]
    shared_prefix: bool,
    /// Requests in a row that ask about the same image
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    image_reuse: u64,
    /// Seed of images and texts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    limits: LimitArguments,
    /// Print one line of JSON instead of a table
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Run for Bench {
    fn check(&self) -> Result<(), Error> {
        self.device.check(self.limits.limits())
    }

    fn run(self) -> Outcome {
        let mut engine = match &self.preset {
            Some(name) => self.device.engine(&self.limits, |options| Engine::preset(name, options))?,
            None => self.model.engine(&self.device, &self.limits)?,
        };
        let shape = Shape {
            shots: self.shots as usize,
            tokens: self.prompt_tokens as usize,
            max_new_tokens: self.max_new_tokens as usize,
            shared: self.shared_prefix,
            reuse: self.image_reuse,
        };
        // One request that has nothing in common with the others: weights are read for the first time.
        let warm_up = Synthetic::new(&engine, Shape { shared: false, ..shape }, self.seed.wrapping_add(1))?;
        run(&mut engine, &warm_up, 1, 1)?;
        let synthetic = Synthetic::new(&engine, shape, self.seed)?;
        let concurrency = self.concurrency.unwrap_or(engine.limits().max_sequences as u64);
        let figures = run(&mut engine, &synthetic, self.requests, concurrency)?;
        match self.json {
            true => print_json(&figures.json()),
            false => figures.print(),
        }
    }
}

/// Runs so many requests, prepared on a thread of their own.
fn run(engine: &mut Engine, synthetic: &Synthetic, requests: u64, concurrency: u64) -> Result<Figures, Failure> {
    let before = engine.stats();
    let (preparer, maker) = (engine.preparer().clone(), synthetic.clone());
    let prepare = move |number: u64, (): &mut ()| preparer.prepare(maker.request(number)?);
    let workers = Workers::with_threads(1, (0..requests).map(|number| Ok(((), number))), prepare);
    let mut job = Job { workers, figures: Figures::new(requests, concurrency) };
    let begun = Instant::now();
    runner::run(engine, usize::try_from(concurrency).unwrap_or(usize::MAX), &mut job)?;
    job.workers.join();
    job.figures.finish(begun.elapsed().as_secs_f64(), &before, &engine.stats());
    Ok(job.figures)
}

/// Measures what goes by.
struct Job {
    workers: Workers<()>,
    figures: Figures,
}

/// Of a request that runs: when it was submitted, and when its last token came.
struct Ticket {
    submitted: Instant,
    token: Option<Instant>,
}

impl Load for Job {
    type Ticket = Ticket;

    fn next(&mut self, wait: bool) -> Result<Supply<Ticket>, Error> {
        let ticket = || Ticket { submitted: Instant::now(), token: None };
        Ok(match self.workers.next(wait)? {
            Supply::Request((), prepared) => Supply::Request(ticket(), prepared),
            Supply::Refused((), error) => Supply::Refused(ticket(), error),
            Supply::Later => Supply::Later,
            Supply::End => Supply::End,
        })
    }

    fn refused(&mut self, _: Ticket, error: Error) -> Result<(), Error> {
        Err(error)
    }

    fn happened(&mut self, ticket: &mut Ticket, event: EventKind) -> Result<(), Error> {
        match event {
            EventKind::Token { .. } => {
                let now = Instant::now();
                match ticket.token.replace(now) {
                    None => self.figures.add(Sample::First(now - ticket.submitted)),
                    Some(before) => self.figures.add(Sample::Between(now - before)),
                }
            }
            EventKind::Written(answer) => self.figures.answered(&answer),
            EventKind::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(())
    }

    fn stepped(&mut self, engine: &Engine) {
        self.figures.stepped(&engine.stats());
    }
}
