//! An engine on a thread of its own, for programs whose requests come from many threads or tasks.
//!
//! The thread owns the [`Engine`]. Between two steps it takes all commands that wait; without requests it sleeps. What
//! happens to a request comes out of its [`Events`], in a loop that waits or as a stream that any runtime can poll.
//! Whoever drops a request's events before the last has no more use for it: the request is cancelled.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread;

use futures_core::Stream;

use crate::engine::{Engine, EventKind, PreparedRequest, Preparer, Request, RequestId, Stats};
use crate::error::{Error, Result, said};

/// A handle to an engine that runs on a thread of its own; clones are handles to the same engine.
///
/// When all handles are gone, requests whose [`Events`] are still held run to their end; the thread ends, and the model
/// is closed, once nobody holds a handle or events any more.
#[derive(Clone)]
pub struct AsyncEngine {
    commands: Sender<Command>,
    failure: Arc<OnceLock<Error>>,
    preparer: Preparer,
}

enum Command {
    Submit { prepared: Box<PreparedRequest>, events: EventSender, reply: Reply<Result<RequestId>> },
    Cancel(RequestId),
    Ask(Box<dyn FnOnce(&Engine) + Send>),
}

/// Takes one answer, and is dropped without one if the thread ends.
type Reply<T> = SyncSender<T>;

impl AsyncEngine {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start one.
    pub fn new(engine: Engine) -> Result<AsyncEngine> {
        let (commands, waiting) = channel();
        let failure = Arc::new(OnceLock::new());
        let preparer = engine.preparer().clone();
        let told = failure.clone();
        thread::Builder::new()
            .name("flamant-engine".to_owned())
            .spawn(move || run(engine, waiting, &told))
            .map_err(|error| Error::device("the engine", format!("its thread cannot be started: {error}")))?;
        Ok(AsyncEngine { commands, failure, preparer })
    }

    /// Prepares a request on this thread, submits it and waits until the engine has taken it: up to one step.
    ///
    /// # Errors
    /// What [`Engine::submit`] refuses; a panic while preparing, which harms nobody else; an engine that has failed.
    pub fn submit(&self, request: Request) -> Result<Events> {
        self.submit_prepared(self.preparer.prepare(request)?)
    }

    /// Submits a request that [`AsyncEngine::reader`] has prepared; waits as [`AsyncEngine::submit`] does.
    ///
    /// # Errors
    /// A full queue; an engine that has failed.
    pub fn submit_prepared(&self, prepared: PreparedRequest) -> Result<Events> {
        // Without a bound, so that a slow reader never holds up the engine; what waits is at most one answer.
        let (events, receiver) = async_channel::unbounded();
        let prepared = Box::new(prepared);
        let id = self.request(|reply| Command::Submit { prepared, events, reply })??;
        Ok(Events { id, receiver: Box::pin(receiver), engine: self.clone(), ended: false })
    }

    /// Counters since the engine was opened, and states now. Waits for the end of a step.
    ///
    /// # Errors
    /// An engine that has failed.
    pub fn stats(&self) -> Result<Stats> {
        self.ask(Engine::stats)
    }

    /// Prepares requests on any thread.
    pub fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// What `question` finds when it looks at the engine between two steps.
    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Engine) -> T + Send + 'static) -> Result<T> {
        self.request(|reply| {
            Command::Ask(Box::new(move |engine| {
                // Whoever asked is waiting.
                let _ = reply.send(question(engine));
            }))
        })
    }

    /// Sends a command and waits for the reply to it.
    fn request<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        // A thread that has failed takes nothing and drops what waits; it has said why before.
        let _ = self.commands.send(command(reply));
        answer.recv().map_err(|_| self.reason())
    }

    /// Why the thread has ended while somebody wanted something of it.
    fn reason(&self) -> Error {
        // It ends early by a panic only; what it held goes first, and what it says of it comes then.
        self.failure.wait().clone()
    }
}

/// What happens to one request, in order; nothing comes after the last event ([`EventKind::is_last`]).
///
/// A [`Stream`] for tasks; for threads, [`Events::wait`] and a loop over it. (It is no [`Iterator`] itself: both traits
/// have a `next` in programs that use them together.) Dropped before the last event was read, it cancels the request.
pub struct Events {
    id: RequestId,
    receiver: Pin<Box<async_channel::Receiver<EventKind>>>,
    engine: AsyncEngine,
    ended: bool,
}

impl Events {
    /// The request.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Waits for the next event; none after the last.
    pub fn wait(&mut self) -> Option<EventKind> {
        if self.ended {
            return None;
        }
        let event = self.receiver.recv_blocking().ok();
        Some(self.pass(event))
    }

    /// Asks for the request to be cancelled. Unless it ends before that, its last event is [`EventKind::Cancelled`].
    pub fn cancel(&self) {
        // An engine that has failed has told so by an event.
        let _ = self.engine.commands.send(Command::Cancel(self.id));
    }

    /// Passes on what has come. Every request has a last event: a channel that was closed before means a failure.
    fn pass(&mut self, event: Option<EventKind>) -> EventKind {
        let event = event.unwrap_or_else(|| EventKind::Failed(self.engine.reason()));
        self.ended = event.is_last();
        event
    }
}

impl Stream for Events {
    type Item = EventKind;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<EventKind>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.as_mut().poll_next(context).map(|event| Some(self.pass(event)))
    }
}

impl IntoIterator for Events {
    type Item = EventKind;
    type IntoIter = Blocking;

    fn into_iter(self) -> Blocking {
        Blocking(self)
    }
}

/// The events of a request, each waited for.
pub struct Blocking(Events);

impl Iterator for Blocking {
    type Item = EventKind;

    fn next(&mut self) -> Option<EventKind> {
        self.0.wait()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}

type Senders = HashMap<RequestId, EventSender>;

/// Where a request's events go.
type EventSender = async_channel::Sender<EventKind>;

/// The thread: works until nobody can send commands any more, or until it panics; then everybody is told why.
fn run(engine: Engine, commands: Receiver<Command>, failure: &OnceLock<Error>) {
    let mut senders = Senders::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| work(engine, &commands, &mut senders)));
    if let Err(panic) = outcome {
        // Said before the channels close: whoever waits at one of them reads it then.
        let why = format!("it has panicked: {}", said(panic.as_ref()));
        failure.set(Error::device("the engine", why)).expect("a thread ends once");
    }
}

fn work(mut engine: Engine, commands: &Receiver<Command>, senders: &mut Senders) {
    loop {
        if engine.is_idle() {
            let Ok(command) = commands.recv() else { return };
            obey(command, &mut engine, senders);
        }
        // If nobody is left to send more, what they cancelled as they went still has to end.
        while let Ok(command) = commands.try_recv() {
            obey(command, &mut engine, senders);
        }
        for event in engine.step() {
            let last = event.kind.is_last();
            if let Some(sender) = senders.get(&event.id) {
                // Whoever dropped the other end has cancelled the request.
                let _ = sender.try_send(event.kind);
            }
            if last {
                senders.remove(&event.id);
            }
        }
    }
}

fn obey(command: Command, engine: &mut Engine, senders: &mut Senders) {
    match command {
        Command::Submit { prepared, events, reply } => {
            let submitted = engine.submit_prepared(*prepared);
            if let Ok(id) = submitted {
                senders.insert(id, events);
            }
            // Whoever submitted is waiting.
            let _ = reply.send(submitted);
        }
        Command::Cancel(id) => {
            // One that has ended meanwhile is not there any more.
            engine.cancel(id);
        }
        Command::Ask(question) => question(engine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Generation, Options, panicking};
    use crate::prompt::Prompt;

    fn request(max_new_tokens: usize) -> Request {
        let mut prompt = Prompt::new();
        prompt.text("kep.").unwrap();
        Request::generate(prompt, Generation { max_new_tokens, ignore_eos: true, ..Generation::default() })
    }

    /// Those that run, those that wait and those that come later all hear of it.
    #[test]
    fn a_panic_of_the_thread_is_an_error_for_all() {
        let engine = AsyncEngine::new(Engine::demo(&Options::default()).unwrap()).unwrap();
        let running: Vec<Events> = (0..3).map(|_| engine.submit(request(200)).unwrap()).collect();
        let other = engine.clone();
        let waiting = thread::spawn(move || other.ask(|_| -> () { panic!("on purpose") }));
        let error = waiting.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("the engine: it has panicked: on purpose"), "{error}");
        for events in running {
            let last = events.into_iter().last().unwrap();
            assert!(matches!(&last, EventKind::Failed(found) if found.to_string() == error), "{last:?}");
        }
        assert_eq!(engine.submit(request(1)).err().unwrap().to_string(), error);
        assert_eq!(engine.stats().unwrap_err().to_string(), error);
    }

    #[test]
    fn a_panic_while_preparing_is_that_requests_error() {
        let engine = AsyncEngine::new(Engine::demo(&Options::default()).unwrap()).unwrap();
        let running = engine.submit(request(5)).unwrap();
        let error = panicking(|| engine.submit(request(5))).err().unwrap();
        assert_eq!(error.to_string(), "a fault of the library while preparing a request: on purpose");
        assert_eq!(error.kind().as_str(), "internal");
        for events in [running, engine.submit(request(5)).unwrap()] {
            assert!(matches!(events.into_iter().last().unwrap(), EventKind::Written(_)));
        }
    }

    #[test]
    fn the_thread_ends_when_nobody_is_left() {
        let engine = Engine::demo(&Options::default()).unwrap();
        let prepared = Box::new(engine.preparer().prepare(request(200)).unwrap());
        let (commands, waiting) = channel();
        let (events, receiver) = async_channel::unbounded();
        let (reply, answer) = sync_channel(1);
        commands.send(Command::Submit { prepared, events, reply }).unwrap();
        let thread = thread::spawn(move || run(engine, waiting, &OnceLock::new()));
        commands.send(Command::Cancel(answer.recv().unwrap().unwrap())).unwrap();
        drop(commands);
        thread.join().unwrap();
        let events: Vec<EventKind> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        assert_eq!(events.last(), Some(&EventKind::Cancelled));
    }
}
