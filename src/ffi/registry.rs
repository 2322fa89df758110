//! Open engines by handle. A handle is a number that looks like a pointer: it is looked up, never followed, and none is
//! given twice, so one that is freed, made up or damaged is found out.
//!
//! An engine is visited by one call at a time, others are turned away. Which requests it has stands beside it, so that
//! one can be cancelled at any time: the visitor at work, or else the next one, passes that on to the engine.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::layout::{EventView, Handle, Status};
use super::show::Shown;
use super::{Failure, Outcome};
use crate::engine::{Engine, Event, Request, RequestId, Stats};

static SLOTS: Mutex<BTreeMap<usize, Arc<Slot>>> = Mutex::new(BTreeMap::new());
/// Handles count on from here. No memory is ever there, so a program that follows one faults at once.
static NEXT: AtomicUsize = AtomicUsize::new(0xF1A7_0000_0000_0001);

/// The place of an engine.
struct Slot {
    /// None once it was freed.
    desk: Mutex<Option<Desk>>,
    requests: Arc<Mutex<Requests>>,
}

/// Requests that can be cancelled, and those that were, but the engine does not know it yet.
#[derive(Default)]
struct Requests {
    live: HashSet<u64>,
    cancelled: Vec<u64>,
}

/// An engine and what its caller is being given.
pub(super) struct Desk {
    engine: Engine,
    /// Events that were not taken.
    events: VecDeque<Event>,
    /// The event that was taken last, while the caller may look at it.
    shown: Option<Box<Shown>>,
    requests: Arc<Mutex<Requests>>,
}

/// These locks are held for a moment in which nothing can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an engine a handle.
pub(super) fn add(engine: Engine) -> Handle {
    let requests = Arc::<Mutex<Requests>>::default();
    let desk = Desk { engine, events: VecDeque::new(), shown: None, requests: requests.clone() };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    lock(&SLOTS).insert(number, Arc::new(Slot { desk: Mutex::new(Some(desk)), requests }));
    Handle::new(number)
}

fn find(slots: &BTreeMap<usize, Arc<Slot>>, handle: Handle) -> Result<Arc<Slot>, Failure> {
    slots.get(&handle.number()).cloned().ok_or_else(Failure::no_engine)
}

/// Visits an engine. What its caller was shown before is dropped.
pub(super) fn visit(handle: Handle, work: impl FnOnce(&mut Desk) -> Outcome) -> Outcome {
    let slot = find(&lock(&SLOTS), handle)?;
    let mut desk = match slot.desk.try_lock() {
        Ok(desk) => desk,
        Err(TryLockError::WouldBlock) => return Err(Failure::busy()),
        Err(TryLockError::Poisoned(_)) => return Err(Failure::broken()),
    };
    // It may have been freed since it was found.
    let desk = desk.as_mut().ok_or_else(Failure::no_engine)?;
    desk.shown = None;
    desk.pass_on_cancelled();
    work(desk)
}

/// Takes an engine's handle away and drops the engine.
pub(super) fn remove(handle: Handle) -> Outcome {
    let mut slots = lock(&SLOTS);
    let slot = find(&slots, handle)?;
    let desk = match slot.desk.try_lock() {
        Ok(mut desk) => desk.take(),
        Err(TryLockError::WouldBlock) => return Err(Failure::busy()),
        Err(TryLockError::Poisoned(broken)) => broken.into_inner().take(),
    };
    slots.remove(&handle.number());
    // Others need not wait while memory is given back.
    drop(slots);
    drop(desk);
    Ok(Status::Ok)
}

/// Cancels a request, whoever visits its engine meanwhile.
pub(super) fn cancel(handle: Handle, request: u64) -> Outcome {
    let slot = find(&lock(&SLOTS), handle)?;
    let mut requests = lock(&slot.requests);
    if !requests.live.remove(&request) {
        return Err(Failure::no_request(request));
    }
    requests.cancelled.push(request);
    Ok(Status::Ok)
}

impl Desk {
    pub(super) fn submit(&mut self, request: Request) -> Result<RequestId, Failure> {
        let prepared = self.engine.preparer().prepare(request)?;
        let id = self.engine.submit_prepared(prepared)?;
        lock(&self.requests).live.insert(id.number());
        Ok(id)
    }

    /// Runs a step if there is something to do; whether there was, or an event is left. Then how many are left.
    pub(super) fn step(&mut self) -> (bool, usize) {
        self.pass_on_cancelled();
        let busy = !self.engine.is_idle();
        if busy {
            let events = self.engine.step();
            let mut requests = lock(&self.requests);
            for event in events.iter().filter(|event| event.kind.is_last()) {
                requests.live.remove(&event.id.number());
            }
            self.events.extend(events);
        }
        (busy || !self.events.is_empty(), self.events.len())
    }

    /// The next event, kept until the next visit.
    pub(super) fn next_event(&mut self) -> Option<&EventView> {
        self.shown = self.events.pop_front().map(Shown::new);
        self.shown.as_ref().map(|shown| shown.view())
    }

    /// Steps until nothing is left to do, or `stop` says so of an event.
    pub(super) fn run(&mut self, mut stop: impl FnMut(&EventView) -> bool) -> Status {
        loop {
            while let Some(event) = self.events.pop_front() {
                if stop(Shown::new(event).view()) {
                    return Status::Stopped;
                }
            }
            if let (false, _) = self.step() {
                return Status::Ok;
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn pass_on_cancelled(&mut self) {
        let cancelled = std::mem::take(&mut lock(&self.requests).cancelled);
        for request in cancelled {
            // One that a step has ended meanwhile is not there any more.
            self.engine.cancel(RequestId::from(request));
        }
    }
}
