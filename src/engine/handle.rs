//! What any thread may do with an engine while another steps it: submit, cancel, ask for features, read counts, wait.
//!
//! Handles and engine share an inbox, and the counts that each step publishes. Both stand behind one lock that nobody
//! holds for longer than it takes to move a few words, so nothing here waits for a step; only [`EngineHandle::wait`]
//! waits, until there is something to do. Each step begins with what came in since the last one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::budget::{Budget, Share};
use super::embed::Call;
use super::limits::Limits;
use super::preparer::{PreparedRequest, Preparer};
use super::request::{Event, Request, RequestId};
use super::stats::Stats;
use crate::error::{Error, Result};
use crate::image::Image;

/// A handle to an [`Engine`](super::Engine), for any thread; clones are handles to the same engine. It keeps no engine
/// alive: once that is gone, everything is answered by an error.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

struct Shared {
    preparer: Preparer,
    budget: Arc<Budget>,
    /// Why there are no features, if so.
    no_features: Option<Error>,
    state: Mutex<State>,
    /// There is something to do, or nobody is left.
    work: Condvar,
}

#[derive(Default)]
struct State {
    inbox: Inbox,
    /// Requests that can be cancelled.
    live: HashSet<RequestId>,
    /// The engine, as it was when it last published.
    stats: Stats,
    /// Whether it had work left then.
    busy: bool,
    /// Whether nobody will send anything any more.
    deserted: bool,
    /// Why the engine takes nothing any more.
    closed: Option<Error>,
}

/// What came in since the last step.
#[derive(Default)]
pub(super) struct Inbox {
    /// In order of their numbers.
    pub submitted: VecDeque<Submitted>,
    pub cancelled: Vec<Cancelled>,
    pub features: VecDeque<Call>,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.submitted.is_empty() && self.cancelled.is_empty() && self.features.is_empty()
    }
}

/// A request on its way to the engine.
pub(super) struct Submitted {
    pub id: RequestId,
    pub prepared: PreparedRequest,
    pub share: Share,
    pub at: Instant,
}

/// A request that was cancelled by a handle.
pub(super) enum Cancelled {
    /// On its way.
    Untaken(RequestId),
    /// In the engine, unless it has ended meanwhile.
    Taken(RequestId),
}

impl EngineHandle {
    pub(super) fn new(preparer: Preparer, limits: &Limits, no_features: Option<Error>) -> EngineHandle {
        let (state, work) = (Mutex::default(), Condvar::new());
        EngineHandle { shared: Arc::new(Shared { preparer, budget: Budget::new(limits), no_features, state, work }) }
    }

    /// Prepares requests on any thread.
    pub fn preparer(&self) -> &Preparer {
        &self.shared.preparer
    }

    /// Prepares a request on this thread and submits it; its events come with the next steps.
    ///
    /// # Errors
    /// As for [`Preparer::prepare`] and [`EngineHandle::submit_prepared`].
    pub fn submit(&self, request: Request) -> Result<RequestId> {
        self.submit_prepared(self.preparer().prepare(request)?)
    }

    /// Submits a request that was prepared by [`EngineHandle::preparer`].
    ///
    /// # Errors
    /// [`Error::QueueFull`] when too many requests wait or hold too much; [`Error::Limit`] of one that holds too much
    /// by itself; a request that another model prepared; an engine that is gone.
    pub fn submit_prepared(&self, prepared: PreparedRequest) -> Result<RequestId> {
        self.submit_announced(prepared, |_| {})
    }

    /// As [`EngineHandle::submit_prepared`]; `announce` is told the number before the engine can know of it.
    pub(crate) fn submit_announced(
        &self,
        mut prepared: PreparedRequest,
        announce: impl FnOnce(RequestId),
    ) -> Result<RequestId> {
        if !prepared.preparer.is_same(self.preparer()) {
            return Err(Error::argument("request: expected one prepared by this engine's reader, found another's"));
        }
        let budget = &self.shared.budget;
        let share = budget.admit(&prepared.prompt, std::mem::take(&mut prepared.pixels))?;
        let mut state = self.state();
        if let Some(reason) = state.closed.clone() {
            drop(state);
            budget.moved(1, 0);
            return Err(reason);
        }
        // Under the lock, so that requests arrive in the order of their numbers.
        let id = RequestId::next();
        announce(id);
        state.live.insert(id);
        state.inbox.submitted.push_back(Submitted { id, prepared, share, at: Instant::now() });
        self.shared.work.notify_all();
        Ok(id)
    }

    /// Whether there is room for a request now: whether [`EngineHandle::submit_prepared`] would not refuse it for a
    /// limit.
    pub fn has_room(&self, prepared: &PreparedRequest) -> bool {
        self.shared.budget.has_room(&prepared.prompt, &prepared.pixels)
    }

    /// Ends a request early; false if there is no such request, or not any more. Its last event still comes:
    /// [`EventKind::Cancelled`](super::EventKind::Cancelled), or how it ended if the step under way was faster.
    pub fn cancel(&self, id: RequestId) -> bool {
        let mut state = self.state();
        if !state.live.remove(&id) {
            return false;
        }
        let place = state.inbox.submitted.binary_search_by_key(&id, |submitted| submitted.id).ok();
        let untaken = place.and_then(|place| state.inbox.submitted.remove(place));
        state.inbox.cancelled.push(if untaken.is_some() { Cancelled::Untaken(id) } else { Cancelled::Taken(id) });
        self.shared.work.notify_all();
        drop(state);
        if untaken.is_some() {
            self.shared.budget.moved(1, 0);
        }
        true
    }

    /// Counts since the engine was opened, and what it held when the last step began or ended.
    ///
    /// # Errors
    /// An engine that is gone.
    pub fn stats(&self) -> Result<Stats> {
        let state = self.state();
        match &state.closed {
            Some(reason) => Err(reason.clone()),
            None => Ok(Stats { requests_waiting: self.shared.budget.waiting(), ..state.stats }),
        }
    }

    /// Waits until a step has something to do, at most so long; whether it has. False at once if it has not and nobody
    /// is left to change that.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let waits =
            |state: &mut State| !state.busy && state.inbox.is_empty() && !state.deserted && state.closed.is_none();
        let (state, work) = (self.state(), &self.shared.work);
        let state = match timeout {
            None => work.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => work.wait_timeout_while(state, timeout, waits).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.closed.is_none() && (state.busy || !state.inbox.is_empty())
    }

    /// Asks for what [`Engine::features`](super::Engine::features) says of images and videos; they are prepared on this
    /// thread, and encoded between steps, in batches with those of others. `reply` gets what is found on the thread
    /// that steps; it is dropped without a call if the engine is gone before.
    ///
    /// # Errors
    /// A checkpoint without features; a video without frames; [`Error::QueueFull`] and [`Error::Limit`] as for
    /// [`EngineHandle::submit_prepared`]; an engine that is gone.
    pub fn features(
        &self,
        media: &[&[Image]],
        reply: impl FnOnce(Result<Vec<Vec<f32>>>) + Send + 'static,
    ) -> Result<()> {
        if let Some(reason) = &self.shared.no_features {
            return Err(reason.clone());
        }
        let share = self.shared.budget.admit_call(self.preparer().media(media)?)?;
        let mut state = self.state();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        state.inbox.features.push_back(Call::new(share, Box::new(reply)));
        self.shared.work.notify_all();
        Ok(())
    }

    /// Nothing is taken from now on, for this reason, unless there was another before. What came in last is dropped.
    pub(crate) fn close(&self, reason: Error) {
        let mut state = self.state();
        state.closed.get_or_insert(reason);
        let dropped = std::mem::take(&mut state.inbox);
        self.shared.work.notify_all();
        // Not under the lock: whoever waits for one of them is woken by that.
        drop(state);
        drop(dropped);
    }

    /// Why the engine takes nothing any more: waits until it is said, where an engine is known to be going.
    #[cfg(feature = "async")]
    pub(crate) fn reason(&self) -> Error {
        let going = self.shared.work.wait_while(self.state(), |state| state.closed.is_none());
        going.unwrap_or_else(PoisonError::into_inner).closed.clone().expect("it was waited for")
    }

    /// Nobody will send anything any more.
    #[cfg(feature = "async")]
    pub(crate) fn desert(&self) {
        self.state().deserted = true;
        self.shared.work.notify_all();
    }

    pub(super) fn no_features(&self) -> Option<&Error> {
        self.shared.no_features.as_ref()
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// Whether something has come in.
    pub(super) fn has_mail(&self) -> bool {
        !self.state().inbox.is_empty()
    }

    /// What has come in, in exchange for an inbox that is empty.
    pub(super) fn collect(&self, inbox: &mut Inbox) {
        std::mem::swap(&mut self.state().inbox, inbox);
    }

    /// A request that the engine has ended itself cannot be cancelled any more.
    pub(super) fn ended(&self, id: RequestId) {
        self.state().live.remove(&id);
    }

    /// The engine as it is now, with the events that are about to be handed out.
    pub(super) fn publish(&self, stats: Stats, busy: bool, events: &[Event]) {
        let mut state = self.state();
        (state.stats, state.busy) = (stats, busy);
        for event in events.iter().filter(|event| event.kind.is_last()) {
            state.live.remove(&event.id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
