//! A file of requests, answered line by line into another one. Started again, it goes on where it was stopped, even if
//! it was killed: each answer is written whole.
//!
//! A line of the input is a request as [`json::request`] reads it. The first line of the output is `{"batch": {...}}`,
//! what decides the answers: digests of the model's files and weights, the kind of device, the number format. A start
//! with anything else is refused. Every other line is `{"line": 1, "id": ...}` with what [`json`] makes of the answer,
//! or of the error of one request, in the order in which they are done; `notes` say what of its images the model does
//! not see, if there is something. Started again, requests that had an error are asked again, and there is one answer
//! to each line.
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
#[cfg(feature = "async")]
mod lines;
mod requests;

#[cfg(feature = "async")]
pub use lines::answer_lines;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::runner::{self, Load, Supply, Workers};
use crate::engine::{Engine, EventKind, Preparer, json};
use crate::error::{Error, Result};
use crate::files::Unchanged;
use crate::prompt::PromptLimits;
use answers::{Answered, Answers, Begun};
use requests::{Line, Requests};

/// A batch that can begin.
pub struct Batch {
    requests: Requests,
    /// The input, where it is a file.
    input: Option<Unchanged>,
    answers: Answers,
    before: u64,
    total: Option<u64>,
    limits: PromptLimits,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Requests that were answered.
    pub answered: u64,
    /// Those of them that were answered with an error.
    pub errors: u64,
    /// Those of them with notes: what their images hold and the model does not see.
    pub noted: u64,
}

/// Where requests come from.
#[non_exhaustive]
pub enum Input {
    /// A file, whose paths of images are relative to it; or a pipe, whose paths are relative to the working directory.
    Path(PathBuf),
    /// Something that is open, with its name in errors; paths are relative to the working directory.
    Reader(Box<dyn BufRead + Send>, String),
}

/// Where answers go.
#[non_exhaustive]
pub enum Output {
    /// A file, which is gone on with if it is there; or a pipe or device, which is written from the start.
    Path(PathBuf),
    /// Something that is open, with its name in errors; written from the start.
    Writer(Box<dyn Write + Send>, String),
}

impl Batch {
    /// Opens both files; the output is made if it is not there.
    ///
    /// # Errors
    /// Those of [`Batch::new`].
    pub fn open(input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Batch> {
        Self::new(Input::Path(input.as_ref().to_owned()), Output::Path(output.as_ref().to_owned()))
    }

    /// Opens an input and an output of any kind.
    ///
    /// # Errors
    /// Files that cannot be read or written; an output that holds something else than answers to these lines.
    pub fn new(input: Input, output: Output) -> Result<Batch> {
        let (name, (answers, answered)) = match output {
            Output::Path(path) => (path.clone(), Answers::open(&path)?),
            Output::Writer(writer, name) => {
                (PathBuf::from(&name), (Answers::stream(writer, name), Answered::default()))
            }
        };
        let before = answered.len() as u64;
        let (mut unchanged, mut total) = (None, None);
        let requests = match input {
            Input::Path(path) => {
                // A file is read once for its own sake, so that nothing is appended to the answers of another one. What
                // can be read only once is held to the answers as it comes.
                if std::fs::metadata(&path).is_ok_and(|input| input.is_file()) {
                    unchanged = Some(Unchanged::of(&path)?);
                    total = Some(Requests::open(&path, &name, answered.clone())?.count()?);
                }
                Requests::open(&path, &name, answered)?
            }
            Input::Reader(reader, source) => Requests::read(reader, source, Path::new(""), &name, answered),
        };
        Ok(Batch { requests, input: unchanged, answers, before, total, limits: PromptLimits::default() })
    }

    /// With other limits of what one prompt may hold.
    pub fn prompt_limits(mut self, limits: PromptLimits) -> Batch {
        self.limits = limits;
        self
    }

    /// Requests that were answered before; an error is no answer.
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
    /// Answers of another model, or by another kind of device or number format, which are left alone; files that cannot
    /// be read or written on; an input that is not the one of the answers, or not what it was any more when all is
    /// answered; an output that is not where it was any more; a device that has failed, whose requests are left for the
    /// next start.
    pub fn run(self, engine: &mut Engine, each: impl FnMut(u64)) -> Result<Summary> {
        let Batch { mut requests, input, answers, before, limits, .. } = self;
        let answers = answers.begin(engine.identity()?)?;
        let source = std::iter::from_fn(move || requests.next().transpose());
        let source = source.map(|line| line.map(|line| (Ticket::of(&line), line)));
        let preparer = engine.preparer().clone();
        let prepare = move |line: Line, ticket: &mut Ticket| {
            let request = line.request(limits.clone(), &mut ticket.labels)?;
            ticket.notes = request.prompt.notes().to_vec();
            preparer.prepare(request)
        };
        let workers = Workers::start(source, prepare);
        let preparer = engine.preparer().clone();
        let mut job = Job { workers, answers, preparer, summary: Summary::default(), before, each };
        runner::run(engine, runner::usual_concurrency(engine), &mut job)?;
        job.workers.join();
        job.answers.finish()?;
        if let Some(input) = input {
            input.check()?;
        }
        Ok(job.summary)
    }
}

/// A request that is not answered yet.
struct Ticket {
    line: u64,
    digest: u64,
    labels: json::Labels,
    notes: Vec<String>,
}

impl Ticket {
    fn of(line: &Line) -> Ticket {
        Ticket { line: line.number, digest: line.digest, labels: json::Labels::default(), notes: Vec::new() }
    }
}

/// Everything between the workers and the file of answers.
struct Job<E> {
    workers: Workers<Ticket>,
    answers: Begun,
    preparer: Preparer,
    summary: Summary,
    before: u64,
    each: E,
}

impl<E: FnMut(u64)> Job<E> {
    fn write(&mut self, ticket: &Ticket, report: &Value) -> Result<()> {
        self.answers.add(ticket.line, ticket.digest, ticket.labels.id.as_ref(), &ticket.notes, report)?;
        self.summary.answered += 1;
        self.summary.noted += u64::from(!ticket.notes.is_empty());
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
            EventKind::Failed(error @ Error::NotFinite { .. }) => return self.fault(ticket, &error),
            // No fault of the request: it is left for the next start.
            EventKind::Failed(error) => return Err(error),
            event => report(&event, &ticket.labels, &self.preparer),
        };
        report.map_or(Ok(()), |report| self.write(ticket, &report))
    }
}

/// The answer in an event; none where it holds none.
fn report(event: &EventKind, labels: &json::Labels, preparer: &Preparer) -> Option<Value> {
    Some(match event {
        EventKind::Written(answer) => json::answer(answer),
        EventKind::Classified(classification) => json::classification(classification, labels.mean),
        EventKind::Scored(score) => json::score(score, preparer.tokenizer()),
        _ => return None,
    })
}
