//! Open engines and events by handle. A handle is a number that looks like a pointer: it is looked up, never followed,
//! and no engine's is given twice, so one that is freed, made up or damaged is found out.
//!
//! One call at a time steps an engine, others that would are turned away. Everything else goes through the engine's
//! [`EngineHandle`] and the queue of its events, and waits for no step. An engine that is freed cannot be found from
//! then on; who is at work in it drops it on the way out.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::ask::Asked;
use super::layout::{EventView, Handle, Status, WAIT_EVENT, WAIT_WORK};
use super::show::{Shown, Told};
use super::{Failure, Outcome};
use crate::engine::{Engine, EngineHandle, RequestId, Stats, json};
use crate::error::Error;
use crate::image::Image;
use crate::prompt::Prompt;

static SLOTS: Mutex<BTreeMap<usize, Arc<Slot>>> = Mutex::new(BTreeMap::new());
/// Handles count on from here. No memory is ever there, so a program that follows one faults at once.
static NEXT: AtomicUsize = AtomicUsize::new(0xF1A7_0000_0000_0001);
/// Events that callers hold, by the address of what they see.
static SHOWN: Mutex<BTreeMap<usize, Box<Shown>>> = Mutex::new(BTreeMap::new());

/// The place of an engine.
struct Slot {
    handle: EngineHandle,
    /// What the engine is, as JSON.
    info: CString,
    /// Whoever steps it has the lock. None once it was freed.
    engine: Mutex<Option<Engine>>,
    outbox: Mutex<Outbox>,
    /// There is an event, or there will be none.
    arrived: Condvar,
}

#[derive(Default)]
struct Outbox {
    /// Events that were not taken.
    events: VecDeque<Told>,
    over: Option<Over>,
}

/// Why an engine answers no more.
#[derive(Clone, Copy)]
enum Over {
    Freed,
    Broken,
}

/// These locks are held for a moment in which nothing can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an engine a handle.
pub(super) fn add(engine: Engine) -> Handle {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let slot = Slot {
        handle: engine.handle(),
        info: CString::new(json::engine(&engine).to_string()).unwrap_or_default(),
        engine: Mutex::new(Some(engine)),
        outbox: Mutex::default(),
        arrived: Condvar::new(),
    };
    lock(&SLOTS).insert(number, Arc::new(slot));
    Handle::new(number)
}

/// Takes an engine's handle away and drops the engine, at once or when the step at work is over.
pub(super) fn remove(handle: Handle) -> Outcome {
    let slot = lock(&SLOTS).remove(&handle.number()).ok_or_else(Failure::no_engine)?;
    slot.end(Over::Freed);
    let engine = slot.engine.try_lock().ok().and_then(|mut engine| engine.take());
    drop(engine);
    Ok(Status::Ok)
}

fn find(handle: Handle) -> Result<Arc<Slot>, Failure> {
    let slot = lock(&SLOTS).get(&handle.number()).cloned().ok_or_else(Failure::no_engine)?;
    slot.check()?;
    Ok(slot)
}

/// Submits what `read` makes of a request; the number of the request.
pub(super) fn submit(handle: Handle, read: impl FnOnce() -> Result<Asked, Error>) -> Result<RequestId, Failure> {
    let slot = find(handle)?;
    // A panic on the way is this request's failure, not the engine's.
    let submitted = match Error::catch("reading a request", read)? {
        Asked::Request(request) => slot.handle.submit(request),
        Asked::Features(prompt) => Error::catch("preparing images", || features(&slot, &prompt)),
    };
    submitted.map_err(|error| slot.failure(error))
}

/// Asks for features, which come as an event.
fn features(slot: &Arc<Slot>, prompt: &Prompt) -> Result<RequestId, Error> {
    let (id, told) = (RequestId::next(), Arc::downgrade(slot));
    let media: Vec<&[Image]> = prompt.media().collect();
    if media.is_empty() {
        return Err(Error::argument("parts: expected at least one image or video, found none"));
    }
    slot.handle.features(&media, move |found| {
        if let Some(slot) = told.upgrade() {
            slot.post([Told::Features(id, found)]);
        }
    })?;
    Ok(id)
}

/// What an engine is, as JSON.
pub(super) fn info(handle: Handle) -> Result<CString, Failure> {
    Ok(find(handle)?.info.clone())
}

pub(super) fn cancel(handle: Handle, request: u64) -> Outcome {
    let slot = find(handle)?;
    match slot.handle.cancel(RequestId::from(request)) {
        true => Ok(Status::Ok),
        false => Err(Failure::no_request(request)),
    }
}

pub(super) fn stats(handle: Handle) -> Result<Stats, Failure> {
    let slot = find(handle)?;
    slot.handle.stats().map_err(|error| slot.failure(error))
}

/// Waits for something to do or an event to take, for ever if no time is given.
pub(super) fn wait(handle: Handle, what: u32, timeout: Option<Duration>) -> Outcome {
    let slot = find(handle)?;
    let found = match what {
        WAIT_WORK => slot.handle.wait(timeout),
        WAIT_EVENT => slot.wait_for_event(timeout),
        other => {
            let expected = "FLAMANT_WAIT_WORK or FLAMANT_WAIT_EVENT";
            return Err(Error::argument(format!("what: expected {expected}, found {other}")).into());
        }
    };
    // It may have been freed meanwhile.
    slot.check()?;
    Ok(if found { Status::Ok } else { Status::Timeout })
}

/// The next event, from now on its caller's until [`release`]; null if there is none.
pub(super) fn next_event(handle: Handle) -> Result<*const EventView, Failure> {
    let slot = find(handle)?;
    let Some(event) = slot.pop() else { return Ok(std::ptr::null()) };
    let shown = Shown::new(event);
    let address = std::ptr::from_ref(shown.view()).addr();
    let mut all = lock(&SHOWN);
    let shown = all.entry(address).or_insert(shown);
    Ok(shown.view())
}

/// Takes back an event that a caller had.
pub(super) fn release(event: *const EventView) -> Outcome {
    let shown = lock(&SHOWN).remove(&event.addr());
    shown.map(|_| Status::Ok).ok_or_else(Failure::no_event)
}

/// Runs a step if there is something to do; how many events are not taken after it.
pub(super) fn step(handle: Handle) -> Result<(Status, usize), Failure> {
    visit(handle, |slot, engine| {
        let idle = engine.is_idle();
        if !idle {
            slot.post(engine.step().into_iter().filter_map(Told::of));
        }
        Ok((if idle { Status::Idle } else { Status::Ok }, lock(&slot.outbox).events.len()))
    })
}

/// Steps until nothing is left to do, or `stop` says so of an event.
pub(super) fn run(handle: Handle, mut stop: impl FnMut(&EventView) -> bool) -> Outcome {
    visit(handle, |slot, engine| {
        loop {
            while let Some(event) = slot.pop() {
                if stop(Shown::new(event).view()) {
                    return Ok(Status::Stopped);
                }
            }
            slot.check()?;
            if engine.is_idle() {
                return Ok(Status::Ok);
            }
            slot.post(engine.step().into_iter().filter_map(Told::of));
        }
    })
}

/// Works with an engine that nobody else works with. If that has a fault, the engine can only be freed.
fn visit<T>(handle: Handle, work: impl FnOnce(&Slot, &mut Engine) -> Result<T, Failure>) -> Result<T, Failure> {
    let slot = find(handle)?;
    let mut place = match slot.engine.try_lock() {
        Ok(engine) => engine,
        Err(TryLockError::WouldBlock) => return Err(Failure::busy()),
        Err(TryLockError::Poisoned(_)) => return Err(Failure::broken()),
    };
    let engine = place.as_mut().ok_or_else(Failure::no_engine)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&slot, engine)));
    match outcome {
        Ok(outcome) => match slot.check() {
            Ok(()) => outcome,
            Err(over) => {
                drop(place.take());
                Err(over)
            }
        },
        Err(panic) => {
            slot.end(Over::Broken);
            Err(Failure::panicked(&*panic))
        }
    }
}

impl Slot {
    fn check(&self) -> Result<(), Failure> {
        match lock(&self.outbox).over {
            None => Ok(()),
            Some(Over::Freed) => Err(Failure::no_engine()),
            Some(Over::Broken) => Err(Failure::broken()),
        }
    }

    /// What to say of an error, which an engine that is gone explains.
    fn failure(&self, error: Error) -> Failure {
        self.check().err().unwrap_or_else(|| error.into())
    }

    /// Nothing is answered from now on; those who wait are woken.
    fn end(&self, over: Over) {
        let mut outbox = lock(&self.outbox);
        outbox.over = Some(over);
        let events = std::mem::take(&mut outbox.events);
        self.arrived.notify_all();
        drop(outbox);
        drop(events);
        self.handle.close(Error::argument("engine: expected an open one"));
    }

    /// Events for those who take them.
    fn post(&self, told: impl IntoIterator<Item = Told>) {
        let mut outbox = lock(&self.outbox);
        if outbox.over.is_none() {
            outbox.events.extend(told);
            self.arrived.notify_all();
        }
    }

    fn pop(&self) -> Option<Told> {
        lock(&self.outbox).events.pop_front()
    }

    fn wait_for_event(&self, timeout: Option<Duration>) -> bool {
        let none = |outbox: &mut Outbox| outbox.events.is_empty() && outbox.over.is_none();
        let outbox = lock(&self.outbox);
        let outbox = match timeout {
            None => self.arrived.wait_while(outbox, none).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.arrived.wait_timeout_while(outbox, timeout, none);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        !outbox.events.is_empty()
    }
}
