//! An engine on a thread of its own, for programs whose requests come from many threads or tasks.
//!
//! The thread owns the [`Engine`] and steps it while there is something to do; everybody else has an [`EngineHandle`],
//! with which nothing waits for a step. What happens to a request comes out of its [`Events`], in a loop that waits or
//! as a stream that any runtime can poll. Whoever drops a request's events before the last has no more use for it: the
//! request is cancelled.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use async_channel::Receiver;
use futures_core::Stream;

use crate::backend::Device;
use crate::checkpoint::Dtype;
use crate::engine::{Engine, EngineHandle, EventKind, Limits, PreparedRequest, Preparer, Request, RequestId, Stats};
use crate::error::{Error, Result, said};
use crate::image::Image;
use crate::kv::KvDtype;
use crate::trace::event;

/// A handle to an engine that runs on a thread of its own; clones are handles to the same engine.
///
/// When all handles are gone, requests whose [`Events`] are still held run to their end; the thread ends, and the model
/// is closed, once nobody holds a handle, events or [`PendingFeatures`] any more.
#[derive(Clone)]
pub struct AsyncEngine {
    inner: Arc<Inner>,
}

struct Inner {
    handle: EngineHandle,
    senders: Arc<Senders>,
    device: Device,
    dtype: Option<Dtype>,
    kv_dtype: KvDtype,
    folder: Option<PathBuf>,
    limits: Limits,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.handle.desert();
    }
}

/// Where the events of each request go.
#[derive(Default)]
struct Senders(Mutex<HashMap<RequestId, async_channel::Sender<EventKind>>>);

impl Senders {
    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, async_channel::Sender<EventKind>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncEngine {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start one.
    pub fn new(engine: Engine) -> Result<AsyncEngine> {
        let senders = Arc::<Senders>::default();
        let inner = Inner {
            handle: engine.handle(),
            senders: senders.clone(),
            device: engine.device(),
            dtype: engine.dtype(),
            kv_dtype: engine.kv_dtype(),
            folder: engine.folder().map(Path::to_owned),
            limits: engine.limits().clone(),
        };
        thread::Builder::new()
            .name("flamant-engine".to_owned())
            .spawn(move || run(engine, &senders))
            .map_err(|error| Error::device("the engine", format!("its thread cannot be started: {error}")))?;
        Ok(AsyncEngine { inner: Arc::new(inner) })
    }

    /// Prepares a request on this thread and submits it, without waiting for a step.
    ///
    /// # Errors
    /// As for [`EngineHandle::submit`]. A panic while preparing harms nobody else.
    pub fn submit(&self, request: Request) -> Result<Events> {
        self.submit_prepared(self.preparer().prepare(request)?)
    }

    /// Submits a request that [`AsyncEngine::preparer`] has prepared, without waiting for a step.
    ///
    /// # Errors
    /// As for [`EngineHandle::submit_prepared`].
    pub fn submit_prepared(&self, prepared: PreparedRequest) -> Result<Events> {
        // Without a bound, so that a slow reader never holds up the engine; what waits is at most one answer.
        let (events, receiver) = async_channel::unbounded();
        let announce = |id| drop(self.inner.senders.lock().insert(id, events));
        let id = self.inner.handle.submit_announced(prepared, announce)?;
        Ok(Events { id, receiver: Box::pin(receiver), engine: self.clone(), ended: false })
    }

    /// Whether there is room for a request now; see [`EngineHandle::has_room`].
    pub fn has_room(&self, prepared: &PreparedRequest) -> bool {
        self.inner.handle.has_room(prepared)
    }

    /// Features of images and videos, as [`Engine::features`] finds them. They are prepared on this thread, and encoded
    /// between steps, in batches with those of other callers, while requests go on.
    ///
    /// # Errors
    /// As for [`EngineHandle::features`]; what else can go wrong comes as the result.
    pub fn features(&self, media: &[&[Image]]) -> Result<PendingFeatures> {
        let (sender, receiver) = async_channel::bounded(1);
        // Whoever has dropped the other end does not want them any more.
        let reply = move |found| drop(sender.try_send(found));
        self.inner.handle.features(media, reply)?;
        Ok(PendingFeatures { receiver: Box::pin(receiver), engine: self.clone() })
    }

    /// Counts since the engine was opened, and states as the last step began or ended. Waits for nothing.
    ///
    /// # Errors
    /// An engine that has failed.
    pub fn stats(&self) -> Result<Stats> {
        self.inner.handle.stats()
    }

    /// Prepares requests on any thread.
    pub fn preparer(&self) -> &Preparer {
        self.inner.handle.preparer()
    }

    /// Where it runs; see [`Engine::device`].
    pub fn device(&self) -> Device {
        self.inner.device
    }

    /// How its device was asked to store numbers; see [`Engine::dtype`].
    pub fn dtype(&self) -> Option<Dtype> {
        self.inner.dtype
    }

    /// How its pages store keys and values; see [`Engine::kv_dtype`].
    pub fn kv_dtype(&self) -> KvDtype {
        self.inner.kv_dtype
    }

    /// The model's folder; see [`Engine::folder`].
    pub fn folder(&self) -> Option<&Path> {
        self.inner.folder.as_deref()
    }

    /// What bounds it; see [`Engine::limits`].
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Why the thread has ended while somebody wanted something of it.
    fn reason(&self) -> Error {
        self.inner.handle.reason()
    }
}

/// What happens to one request, in order; nothing comes after the last event ([`EventKind::is_last`]).
///
/// A [`Stream`] for tasks; for threads, [`Events::wait`] and a loop over it. (It is no [`Iterator`] itself: both traits
/// have a `next` in programs that use them together.) Dropped before the last event was read, it cancels the request.
pub struct Events {
    id: RequestId,
    receiver: Pin<Box<Receiver<EventKind>>>,
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
        self.engine.inner.handle.cancel(self.id);
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

/// A unit vector for each image or video.
type FoundFeatures = Result<Vec<Vec<f32>>>;

/// Features on their way: a [`Future`] for tasks, and [`PendingFeatures::wait`] for threads.
pub struct PendingFeatures {
    receiver: Pin<Box<Receiver<FoundFeatures>>>,
    engine: AsyncEngine,
}

impl PendingFeatures {
    /// Waits for them: a unit vector for each image or video.
    ///
    /// # Errors
    /// [`Error::FeaturesNotFinite`]; a device, or an engine, that has failed.
    pub fn wait(self) -> Result<Vec<Vec<f32>>> {
        self.receiver.recv_blocking().unwrap_or_else(|_| Err(self.engine.reason()))
    }
}

impl Future for PendingFeatures {
    type Output = Result<Vec<Vec<f32>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let found = self.receiver.as_mut().poll_next(context);
        found.map(|found| found.unwrap_or_else(|| Err(self.engine.reason())))
    }
}

/// The thread: works until nobody is left who could want anything, or until it panics; then everybody is told why.
fn run(mut engine: Engine, senders: &Senders) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while engine.handle().wait(None) {
            hand_out(&mut engine, senders);
        }
    }));
    if let Err(panic) = outcome {
        // Said before the channels close: whoever waits at one of them reads it then.
        let why = format!("it has panicked: {}", said(panic.as_ref()));
        event!(ERROR, %why, "the engine has failed");
        engine.handle().close(Error::device("the engine", why));
        drop(engine);
        senders.lock().clear();
    }
}

/// Runs a step; its events go to those who wait for them.
fn hand_out(engine: &mut Engine, senders: &Senders) {
    let events = engine.step();
    let mut senders = senders.lock();
    for event in events {
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
        let mut engine = Engine::demo(&Options::default()).unwrap();
        let mut steps = 0;
        engine.before_run(Box::new(move || {
            steps += 1;
            assert!(steps < 20, "on purpose");
        }));
        let engine = AsyncEngine::new(engine).unwrap();
        let running: Vec<Events> = (0..3).map(|_| engine.submit(request(200)).unwrap()).collect();
        let error = "the engine: it has panicked: on purpose";
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
        let expected = "a fault of the library while preparing a request: on purpose";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind().as_str(), "internal");
        for events in [running, engine.submit(request(5)).unwrap()] {
            assert!(matches!(events.into_iter().last().unwrap(), EventKind::Written(_)));
        }
    }

    #[test]
    fn the_thread_ends_when_nobody_is_left() {
        let engine = Engine::demo(&Options::default()).unwrap();
        let (handle, senders) = (engine.handle(), Senders::default());
        let id = handle.submit(request(200)).unwrap();
        let (sender, receiver) = async_channel::unbounded();
        senders.lock().insert(id, sender);
        let thread = thread::spawn(move || run(engine, &senders));
        assert!(handle.cancel(id));
        handle.desert();
        thread.join().unwrap();
        let events: Vec<EventKind> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        assert_eq!(events.last(), Some(&EventKind::Cancelled));
        assert!(handle.stats().unwrap_err().to_string().ends_with("the engine was closed"));
    }
}
