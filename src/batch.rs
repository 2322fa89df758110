//! A file of requests, answered line by line into another one. Started again, it goes on where it was stopped, even if
//! it was killed: each answer is written whole.
//!
//! A line of the input is a request as [`json::request`] reads it; a line of the output is `{"line": 1, "id": ...}`
//! with what [`json`] makes of the answer, or of the error of one request, in the order in which they are done.
//!
//! ```no_run
//! use flamant::batch::Batch;
//! use flamant::{Engine, Options};
//!
//! # fn main() -> flamant::Result<()> {
//! let batch = Batch::open("requests.jsonl", "answers.jsonl")?;
//! let mut engine = Engine::open("idefics-9b-instruct", &Options::default())?;
//! let summary = batch.run(&mut engine, |answered| println!("{answered} lines are answered"))?;
//! println!("{} of {} with an error", summary.errors, summary.answered);
//! # Ok(())
//! # }
//! ```

mod answers;
mod requests;

use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use crate::engine::runner::{self, Load, Supply, Workers};
use crate::engine::{Engine, EventKind, Preparer, json};
use crate::error::{Error, Result};
use answers::Answers;
use requests::{Line, Requests};

/// A batch that can begin.
pub struct Batch {
    requests: Requests,
    answers: Answers,
    before: u64,
    total: Option<u64>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Requests that were answered.
    pub answered: u64,
    /// Those of them that were answered with an error.
    pub errors: u64,
}

impl Batch {
    /// Opens both files; the output is made if it is not there. Paths of images are relative to the input.
    ///
    /// # Errors
    /// Files that cannot be read or written; an output that holds something else than answers to these lines.
    pub fn open(input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Batch> {
        let (input, output) = (input.as_ref(), output.as_ref());
        let (answers, answered) = Answers::open(output)?;
        // A file is read once for its own sake, so that nothing is appended to the answers of another one. What can be
        // read only once is held to the answers as it comes.
        let total = match std::fs::metadata(input).is_ok_and(|input| input.is_file()) {
            true => Some(Requests::open(input, output, answered.clone())?.count()?),
            false => None,
        };
        let before = answered.len() as u64;
        let requests = Requests::open(input, output, answered)?;
        Ok(Batch { requests, answers: answers.begin()?, before, total })
    }

    /// Reads the requests from something that is open; `name` is its name in errors. Paths of images are relative to
    /// the working directory.
    ///
    /// # Errors
    /// As for [`Batch::open`].
    pub fn read(input: Box<dyn BufRead + Send>, name: &str, output: impl AsRef<Path>) -> Result<Batch> {
        let output = output.as_ref();
        let (answers, answered) = Answers::open(output)?;
        let before = answered.len() as u64;
        let requests = Requests::read(input, name.to_owned(), Path::new(""), output, answered);
        Ok(Batch { requests, answers: answers.begin()?, before, total: None })
    }

    /// Requests that were answered before.
    pub fn answered_before(&self) -> u64 {
        self.before
    }

    /// All requests, where the input was a file.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Answers all requests that are not answered yet; `each` gets the number of answers there are after each new one.
    ///
    /// # Errors
    /// Files that cannot be read or written on; an input that is not the one of the answers; a device that has failed,
    /// whose requests are left for the next start.
    pub fn run(self, engine: &mut Engine, each: impl FnMut(u64)) -> Result<Summary> {
        let Batch { mut requests, answers, before, .. } = self;
        let source = std::iter::from_fn(move || requests.next().transpose());
        let source = source.map(|line| line.map(|line| (Ticket::of(&line), line)));
        let preparer = engine.preparer().clone();
        let prepare = move |line: Line, ticket: &mut Ticket| preparer.prepare(line.request(&mut ticket.labels)?);
        let workers = Workers::start(source, prepare);
        let preparer = engine.preparer().clone();
        let mut job = Job { workers, answers, preparer, summary: Summary::default(), before, each };
        runner::run(engine, runner::usual_concurrency(engine), &mut job)?;
        job.workers.join();
        Ok(job.summary)
    }
}

/// A request that is not answered yet.
struct Ticket {
    line: u64,
    digest: u64,
    labels: json::Labels,
}

impl Ticket {
    fn of(line: &Line) -> Ticket {
        Ticket { line: line.number, digest: line.digest, labels: json::Labels::default() }
    }
}

/// Everything between the workers and the file of answers.
struct Job<E> {
    workers: Workers<Ticket>,
    answers: Answers,
    preparer: Preparer,
    summary: Summary,
    before: u64,
    each: E,
}

impl<E: FnMut(u64)> Job<E> {
    fn write(&mut self, ticket: &Ticket, report: &Value) -> Result<()> {
        self.answers.add(ticket.line, ticket.digest, ticket.labels.id.as_deref(), report)?;
        self.summary.answered += 1;
        (self.each)(self.before + self.summary.answered);
        Ok(())
    }

    fn fault(&mut self, ticket: &Ticket, error: &Error) -> Result<()> {
        self.summary.errors += 1;
        self.write(ticket, &json::error(error))
    }
}

impl<E: FnMut(u64)> Load for Job<E> {
    type Ticket = Ticket;

    fn next(&mut self, wait: bool) -> Result<Supply<Ticket>> {
        self.workers.next(wait)
    }

    fn refused(&mut self, ticket: Ticket, error: Error) -> Result<()> {
        self.fault(&ticket, &error)
    }

    fn happened(&mut self, ticket: &mut Ticket, event: EventKind) -> Result<()> {
        let report = match event {
            EventKind::Written(answer) => json::answer(&answer),
            EventKind::Classified(classification) => json::classification(&classification, ticket.labels.mean),
            EventKind::Scored(score) => json::score(&score, self.preparer.tokenizer()),
            EventKind::Failed(error @ Error::NotFinite { .. }) => return self.fault(ticket, &error),
            // No fault of the request: it is left for the next start.
            EventKind::Failed(error) => return Err(error),
            _ => return Ok(()),
        };
        self.write(ticket, &report)
    }
}
