//! The thread that tells Python's event loops what has happened, so that no thread of an engine ever waits for the
//! interpreter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::request::Shared;

/// Most things that are looked at before the interpreter is asked for.
const AT_ONCE: usize = 1024;

/// A future of asyncio that somebody awaits.
pub struct Waiter {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
}

impl Waiter {
    pub fn new(event_loop: Py<PyAny>, future: Py<PyAny>) -> Waiter {
        Waiter { event_loop, future }
    }
}

/// Something to be looked at.
pub enum Due {
    /// Something came of a request.
    Request(Arc<Shared>),
    /// Somebody is to be woken.
    Waiter(Arc<Waiter>),
}

/// Where an engine sends what is due. The thread ends with the last of them.
#[derive(Clone)]
pub struct Notifier(Sender<Due>);

impl Notifier {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Notifier> {
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("flamant-notify".to_owned()).spawn(move || run(&receiver))?;
        Ok(Notifier(sender))
    }

    /// Has it looked at.
    pub fn send(&self, due: Due) {
        // The thread lives as long as this.
        let _ = self.0.send(due);
    }
}

/// Wakes somebody when there is something to take.
pub struct Waking {
    waiter: Arc<Waiter>,
    notifier: Notifier,
}

impl Waking {
    pub fn new(waiter: Waiter, notifier: Notifier) -> Waking {
        Waking { waiter: Arc::new(waiter), notifier }
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.notifier.send(Due::Waiter(self.waiter.clone()));
    }
}

fn run(receiver: &Receiver<Due>) {
    while let Ok(first) = receiver.recv() {
        let mut waiters = Vec::new();
        for due in std::iter::once(first).chain(receiver.try_iter()).take(AT_ONCE) {
            match due {
                Due::Request(shared) => shared.pump(&mut waiters),
                Due::Waiter(waiter) => waiters.push(waiter),
            }
        }
        if !waiters.is_empty() {
            tell(&waiters);
        }
    }
}

/// Whether the interpreter is about to end, and how many threads have asked for it.
static ENDING: AtomicBool = AtomicBool::new(false);
static ATTACHED: AtomicUsize = AtomicUsize::new(0);

/// A thread that asks for an interpreter which has ended is ended by it: nobody may ask from now on.
pub fn ending() {
    ENDING.store(true, Ordering::SeqCst);
    while ATTACHED.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whoever had asked for the interpreter is not there in the child of a fork.
pub fn forked() {
    ATTACHED.store(0, Ordering::SeqCst);
}

/// Sets the futures of all of them, a call for each loop.
fn tell(waiters: &[Arc<Waiter>]) {
    static WAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ATTACHED.fetch_add(1, Ordering::SeqCst);
    if !ENDING.load(Ordering::SeqCst) {
        Python::try_attach(|py| {
            let wake = WAKE.get_or_try_init(py, || py.import("flamant._request")?.getattr("wake").map(Bound::unbind));
            let Ok(wake) = wake else { return };
            let mut loops: Vec<(&Py<PyAny>, Vec<&Py<PyAny>>)> = Vec::new();
            for waiter in waiters {
                match loops.iter_mut().find(|(event_loop, _)| event_loop.is(&waiter.event_loop)) {
                    Some((_, futures)) => futures.push(&waiter.future),
                    None => loops.push((&waiter.event_loop, vec![&waiter.future])),
                }
            }
            for (event_loop, futures) in loops {
                // A loop that was closed has nobody who waits.
                let _ = event_loop.call_method1(py, "call_soon_threadsafe", (wake, futures));
            }
        });
    }
    ATTACHED.fetch_sub(1, Ordering::SeqCst);
}
