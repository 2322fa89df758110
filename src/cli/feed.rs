//! Keeps an engine supplied: requests come prepared from other threads, run as many at a time as the engine takes, and
//! what happens to them is handed on.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flamant::{Engine, Error, EventKind, PreparedRequest, RequestId};

use super::{Failure, Outcome};

/// Where requests come from and what becomes of them.
pub trait Load {
    /// What is kept of a request while it runs.
    type Ticket;

    /// The next request; waits for it if told to.
    fn next(&mut self, wait: bool) -> Result<Supply<Self::Ticket>, Failure>;

    /// The request cannot be prepared, or the engine will not have it.
    fn refused(&mut self, ticket: Self::Ticket, error: Error) -> Outcome;

    /// Something happened to the request.
    fn happened(&mut self, ticket: &mut Self::Ticket, event: EventKind) -> Outcome;

    /// A step is over.
    fn stepped(&mut self, engine: &Engine);
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

/// Runs all requests, up to `most` at a time, running or waiting in the engine.
pub fn run<L: Load>(engine: &mut Engine, most: usize, load: &mut L) -> Outcome {
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

/// Threads that prepare requests: enough to keep a fast device busy.
const WORKERS_MAX: usize = 8;

/// Reads and prepares on a few threads, a few ahead: `next` gives what there is to prepare with its ticket, to which
/// `prepare` may add. A panic of `prepare` is that request's error. The threads end when there is nothing more, when
/// `next` fails, or when nobody listens any more.
pub fn prepare<I, R, T>(
    source: I,
    next: fn(&mut I) -> Next<T, R>,
    prepare: impl Fn(R, &mut T) -> Result<PreparedRequest, Error> + Clone + Send + 'static,
) -> (Receiver<Passed<T>>, Vec<JoinHandle<()>>)
where
    I: Send + 'static,
    R: 'static,
    T: Send + 'static,
{
    let count = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let (sender, waiting) = sync_channel(count);
    let source = Arc::new(Mutex::new(source));
    let worker = |_| {
        let (source, sender, prepare) = (source.clone(), sender.clone(), prepare.clone());
        thread::spawn(move || {
            loop {
                // A worker that panicked here is reported when all have ended.
                let taken = next(&mut source.lock().unwrap_or_else(PoisonError::into_inner));
                let passed = match taken {
                    Ok(Some((mut ticket, request))) => {
                        let prepared = Error::catch("preparing a request", || prepare(request, &mut ticket));
                        Ok((ticket, prepared.map(Box::new)))
                    }
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let failed = passed.is_err();
                if sender.send(passed).is_err() || failed {
                    return;
                }
            }
        })
    };
    (waiting, (0..count).map(worker).collect())
}

/// What there is to prepare, with its ticket; none: nothing more.
pub type Next<T, R> = Result<Option<(T, R)>, Error>;

/// What threads hand on: a request that is ready or refused, or why there are no more.
pub type Passed<T> = Result<(T, Result<Box<PreparedRequest>, Error>), Error>;

/// The next of what they hand on; waits for it if told to.
pub fn take<T>(waiting: &Receiver<Passed<T>>, wait: bool) -> Result<Supply<T>, Failure> {
    let passed = match wait {
        true => waiting.recv().map_err(|_| TryRecvError::Disconnected),
        false => waiting.try_recv(),
    };
    match passed {
        Ok(Ok((ticket, Ok(prepared)))) => Ok(Supply::Request(ticket, prepared)),
        Ok(Ok((ticket, Err(error)))) => Ok(Supply::Refused(ticket, error)),
        Ok(Err(error)) => Err(error.into()),
        Err(TryRecvError::Empty) => Ok(Supply::Later),
        Err(TryRecvError::Disconnected) => Ok(Supply::End),
    }
}

/// Waits for threads that have nothing more to do.
pub fn join(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        // Our own mistake, and requests that nobody has answered.
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[cfg(test)]
mod tests {
    use flamant::{Generation, Options, Prompt, Request};

    use super::*;

    /// Takes numbers as tickets; what became of each.
    struct Numbers {
        waiting: Receiver<Passed<u32>>,
        ended: HashMap<u32, String>,
    }

    impl Load for Numbers {
        type Ticket = u32;

        fn next(&mut self, wait: bool) -> Result<Supply<u32>, Failure> {
            take(&self.waiting, wait)
        }

        fn refused(&mut self, ticket: u32, error: Error) -> Outcome {
            self.ended.insert(ticket, error.to_string());
            Ok(())
        }

        fn happened(&mut self, ticket: &mut u32, event: EventKind) -> Outcome {
            if let EventKind::Written(answer) = event {
                self.ended.insert(*ticket, format!("{} tokens", answer.ids.len()));
            }
            Ok(())
        }

        fn stepped(&mut self, _: &Engine) {}
    }

    #[test]
    fn a_panic_while_preparing_is_that_requests_error() {
        const COUNT: u32 = 20;
        let mut engine = Engine::demo(&Options::default()).unwrap();
        let reader = engine.preparer().clone();
        let read = move |number: u32, ticket: &mut u32| {
            *ticket += 100;
            assert!(!number.is_multiple_of(3), "on purpose");
            let mut prompt = Prompt::new();
            prompt.text("kep.")?;
            let generation = Generation { max_new_tokens: 2, ignore_eos: true, ..Generation::default() };
            reader.prepare(Request::generate(prompt, generation))
        };
        let next = |numbers: &mut std::ops::Range<u32>| Ok(numbers.next().map(|number| (number, number)));
        let (waiting, workers) = prepare(0..COUNT, next, read);
        let mut numbers = Numbers { waiting, ended: HashMap::new() };
        assert!(run(&mut engine, 4, &mut numbers).is_ok());
        join(workers);
        for number in 0..COUNT {
            let want = match number % 3 {
                0 => "a fault of the library while preparing a request: on purpose",
                _ => "2 tokens",
            };
            assert_eq!(numbers.ended[&(number + 100)], want, "{number}");
        }
    }
}
