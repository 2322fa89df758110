//! Keeps an engine supplied: requests come prepared from other threads, run as many at a time as the engine takes, and
//! what happens to them is handed on.
//!
//! [`run_all`] is for programs that have their requests at hand; a [`Load`] of one's own decides what comes when, and
//! takes its requests from [`Workers`].
//!
//! ```
//! use flamant::{Engine, EventKind, Generation, Options, Prompt, Request, runner};
//!
//! # fn main() -> flamant::Result<()> {
//! let mut engine = Engine::demo(&Options::default())?;
//! let requests = ["kep.", "mul."].map(|text| {
//!     let mut prompt = Prompt::new();
//!     prompt.text(text).expect("it is short");
//!     (text, Request::generate(prompt, Generation::default()))
//! });
//! runner::run_all(&mut engine, requests.into_iter(), |text, event| {
//!     if let EventKind::Written(answer) = event {
//!         println!("{text} {}", answer.text);
//!     }
//!     Ok(())
//! })?;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Engine, EventKind, PreparedRequest, Request, RequestId};
use crate::error::{Error, Result};
use crate::image::memory;

/// Where requests come from and what becomes of them. An error that it returns ends the run.
pub trait Load {
    /// What is kept of a request while it runs.
    type Ticket;

    /// The next request; waits for it if told to.
    ///
    /// # Errors
    /// Requests that cannot be read on.
    fn next(&mut self, wait: bool) -> Result<Supply<Self::Ticket>>;

    /// The request cannot be prepared, or the engine will not have it.
    ///
    /// # Errors
    /// What ends the run.
    fn refused(&mut self, ticket: Self::Ticket, error: Error) -> Result<()>;

    /// Something happened to the request.
    ///
    /// # Errors
    /// What ends the run.
    fn happened(&mut self, ticket: &mut Self::Ticket, event: EventKind) -> Result<()>;

    /// A step is over.
    fn stepped(&mut self, _: &Engine) {}
}

/// What there is to run.
pub enum Supply<T> {
    /// A request.
    Request(T, Box<PreparedRequest>),
    /// One that could not be prepared, and why.
    Refused(T, Error),
    /// Nothing yet.
    Later,
    /// Nothing more.
    End,
}

/// How many requests keep an engine busy: as many wait in it as run, so that a step is never short of work.
pub fn usual_concurrency(engine: &Engine) -> usize {
    (2 * engine.limits().max_sequences).min(engine.limits().queue)
}

/// Runs all requests, up to `most` at a time, running or waiting in the engine.
///
/// # Errors
/// What the load returns; the engine's own failures are events of its requests.
pub fn run<L: Load>(engine: &mut Engine, most: usize, load: &mut L) -> Result<()> {
    let mut open: HashMap<RequestId, L::Ticket> = HashMap::new();
    let mut held: Option<(L::Ticket, Box<PreparedRequest>)> = None;
    let mut ended = false;
    loop {
        while open.len() < most {
            let (ticket, prepared) = match held.take() {
                Some(request) => request,
                None if ended => break,
                None => match load.next(engine.is_idle())? {
                    Supply::Request(ticket, prepared) => (ticket, prepared),
                    Supply::Refused(ticket, error) => {
                        load.refused(ticket, error)?;
                        continue;
                    }
                    Supply::Later => break,
                    Supply::End => {
                        ended = true;
                        break;
                    }
                },
            };
            // What is too much now has room once others have ended; alone it is too much for ever.
            if !open.is_empty() && !engine.has_room(&prepared) {
                held = Some((ticket, prepared));
                break;
            }
            match engine.submit_prepared(*prepared) {
                Ok(id) => drop(open.insert(id, ticket)),
                Err(error) => load.refused(ticket, error)?,
            }
        }
        if engine.is_idle() {
            if ended {
                return Ok(());
            }
            continue;
        }
        for event in engine.step() {
            let Some(ticket) = open.get_mut(&event.id) else { continue };
            let last = event.kind.is_last();
            load.happened(ticket, event.kind)?;
            if last {
                open.remove(&event.id);
            }
        }
        load.stepped(engine);
    }
}

/// Runs all requests, each with what the caller keeps of it, and hands on what happens to each, in any order. They are
/// prepared on a few threads. One that cannot be prepared, or that the engine will not have, has one event:
/// [`EventKind::Failed`].
///
/// # Errors
/// What `each` returns, which ends the run.
pub fn run_all<T: Send + 'static>(
    engine: &mut Engine,
    requests: impl Iterator<Item = (T, Request)> + Send + 'static,
    each: impl FnMut(&mut T, EventKind) -> Result<()>,
) -> Result<()> {
    let preparer = engine.preparer().clone();
    let workers = Workers::start(requests.map(Ok), move |request, _: &mut T| preparer.prepare(request));
    let mut load = All { workers, each };
    run(engine, usual_concurrency(engine), &mut load)?;
    load.workers.join();
    Ok(())
}

/// The load of [`run_all`].
struct All<T, E> {
    workers: Workers<T>,
    each: E,
}

impl<T, E: FnMut(&mut T, EventKind) -> Result<()>> Load for All<T, E> {
    type Ticket = T;

    fn next(&mut self, wait: bool) -> Result<Supply<T>> {
        self.workers.next(wait)
    }

    fn refused(&mut self, mut ticket: T, error: Error) -> Result<()> {
        (self.each)(&mut ticket, EventKind::Failed(error))
    }

    fn happened(&mut self, ticket: &mut T, event: EventKind) -> Result<()> {
        (self.each)(ticket, event)
    }
}

/// Threads that prepare requests: enough to keep a fast device busy.
const WORKERS_MAX: usize = 8;
/// Requests that are prepared ahead, at least.
const AHEAD: usize = 4;

/// What threads hand on: a request that is ready or refused, or why there are no more.
type Passed<T> = Result<(T, Result<Box<PreparedRequest>>)>;

/// A few threads that prepare requests, a few ahead. They end when there is nothing more, when the source fails, or
/// when this is dropped.
pub struct Workers<T> {
    waiting: Receiver<Passed<T>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts them. The source gives what there is to prepare with its ticket, to which `prepare` may add. An error of
    /// the source ends all; a panic of `prepare` is that request's error.
    pub fn start<R: 'static>(
        source: impl Iterator<Item = Result<(T, R)>> + Send + 'static,
        prepare: impl Fn(R, &mut T) -> Result<PreparedRequest> + Clone + Send + 'static,
    ) -> Workers<T> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        Self::with_threads(count, source, prepare)
    }

    /// As [`Workers::start`], so many; one keeps the order of the source.
    pub fn with_threads<R: 'static>(
        count: usize,
        source: impl Iterator<Item = Result<(T, R)>> + Send + 'static,
        prepare: impl Fn(R, &mut T) -> Result<PreparedRequest> + Clone + Send + 'static,
    ) -> Workers<T> {
        let (sender, waiting) = sync_channel(count.max(AHEAD));
        let source = Arc::new(Mutex::new(source));
        let worker = |_| {
            let (source, sender, prepare) = (source.clone(), sender.clone(), prepare.clone());
            thread::spawn(move || {
                loop {
                    // A worker that panicked here is reported when all have ended.
                    let taken = source.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let passed = match taken {
                        Some(Ok((mut ticket, request))) => {
                            let prepare = || Error::catch("preparing a request", || prepare(request, &mut ticket));
                            let prepared = memory::of_one_request(prepare);
                            Ok((ticket, prepared.map(Box::new)))
                        }
                        Some(Err(error)) => Err(error),
                        None => return,
                    };
                    let failed = passed.is_err();
                    if sender.send(passed).is_err() || failed {
                        return;
                    }
                }
            })
        };
        Workers { waiting, threads: (0..count).map(worker).collect() }
    }
}

impl<T> Workers<T> {
    /// The next of what they hand on; waits for it if told to.
    ///
    /// # Errors
    /// The source's.
    pub fn next(&self, wait: bool) -> Result<Supply<T>> {
        let passed = match wait {
            true => self.waiting.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.waiting.try_recv(),
        };
        match passed {
            Ok(Ok((ticket, Ok(prepared)))) => Ok(Supply::Request(ticket, prepared)),
            Ok(Ok((ticket, Err(error)))) => Ok(Supply::Refused(ticket, error)),
            Ok(Err(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(Supply::Later),
            Err(TryRecvError::Disconnected) => Ok(Supply::End),
        }
    }

    /// Waits for them to end, as they do when there is nothing more.
    ///
    /// # Panics
    /// Where the source has panicked: there may be requests that nobody has answered.
    pub fn join(self) {
        drop(self.waiting);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Generation, Options};
    use crate::prompt::Prompt;

    /// What became of each request, by its number.
    #[derive(Default)]
    struct Numbers {
        ended: HashMap<u32, String>,
    }

    impl Numbers {
        fn take(&mut self, number: u32, event: EventKind) {
            let found = match event {
                EventKind::Written(answer) => format!("{} tokens", answer.ids.len()),
                EventKind::Failed(error) => error.to_string(),
                _ => return,
            };
            assert_eq!(self.ended.insert(number, found), None);
        }
    }

    /// Takes numbers as tickets.
    struct Counting {
        workers: Workers<u32>,
        numbers: Numbers,
    }

    impl Load for Counting {
        type Ticket = u32;

        fn next(&mut self, wait: bool) -> Result<Supply<u32>> {
            self.workers.next(wait)
        }

        fn refused(&mut self, ticket: u32, error: Error) -> Result<()> {
            self.numbers.take(ticket, EventKind::Failed(error));
            Ok(())
        }

        fn happened(&mut self, ticket: &mut u32, event: EventKind) -> Result<()> {
            self.numbers.take(*ticket, event);
            Ok(())
        }
    }

    const COUNT: u32 = 20;

    fn request(max_new_tokens: usize) -> Request {
        let mut prompt = Prompt::new();
        prompt.text("kep.").unwrap();
        Request::generate(prompt, Generation { max_new_tokens, ignore_eos: true, ..Generation::default() })
    }

    #[test]
    fn a_panic_while_preparing_is_that_requests_error() {
        let mut engine = Engine::demo(&Options::default()).unwrap();
        let preparer = engine.preparer().clone();
        let prepare = move |number: u32, ticket: &mut u32| {
            *ticket += 100;
            assert!(!number.is_multiple_of(3), "on purpose");
            preparer.prepare(request(2))
        };
        let workers = Workers::start((0..COUNT).map(|number| Ok((number, number))), prepare);
        let mut load = Counting { workers, numbers: Numbers::default() };
        run(&mut engine, 4, &mut load).unwrap();
        load.workers.join();
        for number in 0..COUNT {
            let want = match number % 3 {
                0 => "a fault of the library while preparing a request: on purpose",
                _ => "2 tokens",
            };
            assert!(load.numbers.ended[&(number + 100)].starts_with(want), "{number}");
        }
    }

    #[test]
    fn an_error_of_the_source_ends_all() {
        let mut engine = Engine::demo(&Options::default()).unwrap();
        let preparer = engine.preparer().clone();
        let source = (0..COUNT).map(|number| match number {
            10 => Err(Error::argument("on purpose")),
            _ => Ok((number, request(2))),
        });
        let workers = Workers::with_threads(1, source, move |request, _: &mut u32| preparer.prepare(request));
        let mut load = Counting { workers, numbers: Numbers::default() };
        let error = run(&mut engine, 4, &mut load).unwrap_err();
        assert_eq!(error.to_string(), "on purpose");
        assert!(load.numbers.ended.len() <= 10);
        load.workers.join();
    }

    #[test]
    fn every_request_has_its_events() {
        let mut engine = Engine::demo(&Options::default()).unwrap();
        // The last one's setting is out of range.
        let requests = (0..COUNT).map(|number| (number, number as usize));
        let requests = requests.map(|(number, max_new_tokens)| {
            let mut request = request(max_new_tokens);
            if let (super::super::Task::Generate(generation), true) = (&mut request.task, number + 1 == COUNT) {
                generation.num_beams = 1000;
            }
            (number, request)
        });
        let mut numbers = Numbers::default();
        let each = |number: &mut u32, event| {
            numbers.take(*number, event);
            Ok(())
        };
        run_all(&mut engine, requests, each).unwrap();
        assert_eq!(numbers.ended.len(), COUNT as usize);
        for number in 0..COUNT - 1 {
            assert_eq!(numbers.ended[&number], format!("{number} tokens"));
        }
        assert!(numbers.ended[&(COUNT - 1)].starts_with("num-beams: "), "{:?}", numbers.ended);
        // What the caller says ends the run.
        let requests = (0..COUNT).map(|number| (number, request(2)));
        let error = run_all(&mut engine, requests, |_, _| Err(Error::argument("enough"))).unwrap_err();
        assert_eq!(error.to_string(), "enough");
    }
}
