//! `flamant batch`: answers a file of requests, and goes on where it was stopped.

mod answers;
mod requests;

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use clap::Args;
use flamant::{Engine, Error, EventKind, PreparedRequest, Preparer, Stats, Tokenizer};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::feed::{self, Load, Next, Passed, Supply};
use super::input::{LimitArguments, ModelArguments};
use super::{Failure, Outcome, progress, report};
use answers::Answers;
use requests::{Line, Requests};

/// Answer a file of requests, one a line; started again, it goes on where it was stopped
#[derive(Args)]
#[command(
    after_help = "A line of the input: {\"prompt\": [{\"text\": ...} or {\"image\": ...}, ...]}, and as one likes \
    \"id\", \"task\" (\"generate\", \"classify\" with \"choices\" and \"mean\", \"score\") and the settings of \
    generate: \"max_new_tokens\", \"num_beams\", \"length_penalty\", \"temperature\", \"top_k\", \"top_p\", \"min_p\", \
    \"repetition_penalty\", \"seed\", \"stop\", \"ignore_eos\". Images are data URIs, or paths relative to the input \
    (from a pipe: to the working directory). \
    A line of the output: \"line\", \"id\", and what --json of the task prints, or \"error\" with its \"kind\"; in the \
    order in which they are done."
)]
pub struct Batch {
    #[command(flatten)]
    model: ModelArguments,
    /// Requests, one JSON object a line; - reads standard input
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Answers, one JSON object a line, appended as they are done
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    #[command(flatten)]
    limits: LimitArguments,
}

impl Batch {
    pub fn run(self) -> Outcome {
        let (answers, answered) = Answers::open(&self.output)?;
        let before = answered.len();
        // A file is read once for its own sake, so that nothing is appended to the answers of another one. What can be
        // read only once is held to the answers as it comes.
        let total = match std::fs::metadata(&self.input).is_ok_and(|input| input.is_file()) {
            true => Some(Requests::open(&self.input, &self.output, answered.clone())?.count()?),
            false => None,
        };
        let requests = Requests::open(&self.input, &self.output, answered)?;
        let answers = answers.begin()?;
        if total == Some(before as u64) {
            eprintln!("flamant: all {before} requests were answered before");
            return Ok(());
        }
        let mut engine = self.model.engine(&self.limits)?;
        let begun = Instant::now();
        let bar = match total {
            Some(total) => progress(total, "{bar:40} {pos}/{len} requests, {eta} left"),
            None => progress(u64::MAX, "{spinner} {pos} requests, {per_sec}"),
        };
        bar.set_position(before as u64);
        let preparer = engine.preparer().clone();
        let (waiting, workers) = feed::prepare(requests, next, move |line, ticket| read(&line, ticket, &preparer));
        // As many wait in the engine as run, so that a step is never short of work.
        let most = (2 * engine.limits().max_sequences).min(engine.limits().queue);
        let tokenizer = engine.preparer().clone();
        let mut job = Job { waiting, answers, bar, tokenizer, answered: 0, errors: 0 };
        let outcome = feed::run(&mut engine, most, &mut job);
        job.bar.finish_and_clear();
        outcome?;
        feed::join(workers);
        summary(&job, before, begun.elapsed().as_secs_f64(), &engine.stats());
        Ok(())
    }
}

fn next(requests: &mut Requests) -> Next<Ticket, Line> {
    let ticket = |line: &Line| Ticket { line: line.number, digest: line.digest, id: None, mean: false };
    Ok(requests.next()?.map(|line| (ticket(&line), line)))
}

fn read(line: &Line, ticket: &mut Ticket, preparer: &Preparer) -> Result<PreparedRequest, Error> {
    preparer.prepare(line.request(&mut ticket.id, &mut ticket.mean)?)
}

/// A request that is not answered yet.
struct Ticket {
    line: u64,
    digest: u64,
    id: Option<String>,
    mean: bool,
}

/// Everything between the workers and the file of answers.
struct Job {
    waiting: Receiver<Passed<Ticket>>,
    answers: Answers,
    bar: ProgressBar,
    tokenizer: Preparer,
    answered: u64,
    errors: u64,
}

impl Job {
    fn write(&mut self, ticket: &Ticket, report: &Value) -> Outcome {
        self.answers.add(ticket.line, ticket.digest, ticket.id.as_deref(), report)?;
        self.answered += 1;
        self.bar.inc(1);
        Ok(())
    }

    fn fault(&mut self, ticket: &Ticket, error: &Error) -> Outcome {
        self.errors += 1;
        self.write(ticket, &json!({"error": error.to_string(), "kind": error.kind()}))
    }
}

impl Load for Job {
    type Ticket = Ticket;

    fn next(&mut self, wait: bool) -> Result<Supply<Ticket>, Failure> {
        feed::take(&self.waiting, wait)
    }

    fn refused(&mut self, ticket: Ticket, error: Error) -> Outcome {
        self.fault(&ticket, &error)
    }

    fn happened(&mut self, ticket: &mut Ticket, event: EventKind) -> Outcome {
        let tokenizer: &Tokenizer = self.tokenizer.tokenizer();
        let report = match event {
            EventKind::Written(answer) => report::answer(&answer),
            EventKind::Classified(classification) => report::classification(&classification, ticket.mean),
            EventKind::Scored(score) => report::score(&score, tokenizer),
            EventKind::Failed(error @ Error::NotFinite { .. }) => return self.fault(ticket, &error),
            // No fault of the request: it is left for the next start.
            EventKind::Failed(error) => return Err(error.into()),
            _ => return Ok(()),
        };
        self.write(ticket, &report)
    }

    fn stepped(&mut self, _: &Engine) {}
}

/// What was done, for people.
fn summary(job: &Job, before: usize, seconds: f64, stats: &Stats) {
    let percent = |part: u64, rest: u64| 100.0 * part as f64 / (part + rest).max(1) as f64;
    let resumed = if before > 0 { format!(", {before} before") } else { String::new() };
    eprintln!(
        "flamant: {} requests answered in {seconds:.1} s{resumed}, {} of them with an error; {:.1} tokens/s written; \
         {:.0} % of prompt tokens and {:.0} % of images were there already",
        job.answered,
        job.errors,
        stats.tokens_written as f64 / seconds,
        percent(stats.tokens_cached, stats.tokens_computed),
        percent(stats.images_cached, stats.images_encoded),
    );
}
