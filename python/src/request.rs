//! What comes of one request, for threads and for tasks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use flamant::EventKind;
use futures_core::Stream as _;
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;

use crate::notify::{Due, Notifier, Waiter};
use crate::outcome::{self, Asked};
use crate::process::Owned;
use crate::wait::SIGNALS;

/// A request, whoever waits for it.
pub struct Shared {
    state: Mutex<State>,
    /// Something has come.
    changed: Condvar,
    notifier: Notifier,
    /// Whether the notifier knows that something has come.
    ringing: AtomicBool,
    waker: Waker,
}

struct State {
    events: flamant::Events,
    /// Whether tokens are kept until somebody takes them.
    keeps_tokens: bool,
    tokens: VecDeque<outcome::Token>,
    /// Rows of logits of a prompt that is scored.
    logits: Vec<f32>,
    end: Option<EventKind>,
    /// Tasks that wait, and whether it is for the end.
    waiters: Vec<(Arc<Waiter>, bool)>,
}

/// Rings when something comes of a request.
struct Bell(Weak<Shared>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade()
            && !shared.ringing.swap(true, Ordering::AcqRel)
        {
            shared.notifier.send(Due::Request(shared.clone()));
        }
    }
}

impl Shared {
    fn new(events: flamant::Events, notifier: Notifier, keeps_tokens: bool) -> Arc<Shared> {
        let (tokens, logits, waiters) = (VecDeque::new(), Vec::new(), Vec::new());
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            state: Mutex::new(State { events, keeps_tokens, tokens, logits, end: None, waiters }),
            changed: Condvar::new(),
            notifier,
            ringing: AtomicBool::new(false),
            waker: Waker::from(Arc::new(Bell(shared.clone()))),
        });
        // Has the bell hung.
        shared.pump(&mut Vec::new());
        shared
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has come, and adds those who waited for it to `due`.
    pub fn pump(&self, due: &mut Vec<Arc<Waiter>>) {
        self.ringing.store(false, Ordering::Release);
        let mut state = self.state();
        state.take(&mut Context::from_waker(&self.waker));
        let (ended, written) = (state.end.is_some(), !state.tokens.is_empty());
        let is_due = |for_end: bool| ended || written && !for_end;
        due.extend(state.waiters.extract_if(.., |(_, for_end)| is_due(*for_end)).map(|(waiter, _)| waiter));
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until `ready` finds something, and looks for signals meanwhile.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        mut ready: impl FnMut(&mut State) -> Option<T> + Send,
    ) -> PyResult<T> {
        let deadline = timeout.map(|seconds| Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default());
        loop {
            let found = py.detach(|| {
                let mut state = self.state();
                let until = Instant::now() + SIGNALS;
                let until = deadline.map_or(until, |deadline| deadline.min(until));
                loop {
                    if let Some(found) = ready(&mut state) {
                        return Some(found);
                    }
                    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            });
            if let Some(found) = found {
                return Ok(found);
            }
            py.check_signals()?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(PyTimeoutError::new_err("the request has not ended yet"));
            }
        }
    }
}

impl State {
    fn take(&mut self, context: &mut Context<'_>) {
        while self.end.is_none()
            && let Poll::Ready(Some(event)) = Pin::new(&mut self.events).poll_next(context)
        {
            match event {
                EventKind::Token { id, logprob, text, top, .. } if self.keeps_tokens => {
                    self.tokens.push_back(outcome::Token { id, logprob, text, top });
                }
                EventKind::Logits { logits, .. } => self.logits.extend(logits),
                event if event.is_last() => self.end = Some(event),
                _ => {}
            }
        }
    }
}

/// What comes of one request.
#[pyclass(frozen, module = "flamant._flamant")]
pub struct Events {
    shared: Owned<Arc<Shared>>,
    asked: Asked,
    #[pyo3(get)]
    id: u64,
}

impl Events {
    pub fn new(events: flamant::Events, asked: Asked, notifier: Notifier, keeps_tokens: bool) -> Events {
        let id = events.id().number();
        Events { shared: Owned::new(Shared::new(events, notifier, keeps_tokens)), asked, id }
    }
}

#[pymethods]
impl Events {
    /// Whether it has ended.
    #[getter]
    fn done(&self) -> PyResult<bool> {
        Ok(self.shared.get()?.state().end.is_some())
    }

    /// Waits for the next token; none when the request has ended.
    #[pyo3(signature = (timeout=None))]
    fn token(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let found = self.shared.get()?.wait(py, timeout, |state| match state.tokens.pop_front() {
            Some(token) => Some(Some(token)),
            None => state.end.is_some().then_some(None),
        })?;
        found.map(|token| token.to_python(py)).transpose()
    }

    /// Waits for the end; tokens that nobody has taken stay.
    #[pyo3(signature = (timeout=None))]
    fn end(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let ended = |state: &mut State| Some((state.end.clone()?, state.logits.clone()));
        let (end, logits) = self.shared.get()?.wait(py, timeout, ended)?;
        outcome::to_python(py, end, &logits, &self.asked)
    }

    /// Whether there is a token or the end, or the end alone; else the future's result is set when there is.
    fn poll(&self, event_loop: Py<PyAny>, future: Py<PyAny>, for_end: bool) -> PyResult<bool> {
        let mut state = self.shared.get()?.state();
        let ready = state.end.is_some() || !for_end && !state.tokens.is_empty();
        if !ready {
            state.waiters.push((Arc::new(Waiter::new(event_loop, future)), for_end));
        }
        Ok(ready)
    }

    /// Asks for it to be cancelled.
    fn cancel(&self) -> PyResult<()> {
        self.shared.get()?.state().events.cancel();
        Ok(())
    }
}
