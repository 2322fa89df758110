//! Waiting on a thread of Python's, which may be interrupted.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use pyo3::prelude::*;

/// How long a thread waits before it looks for signals.
pub const SIGNALS: Duration = Duration::from_millis(100);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for what `poll` comes to, without the interpreter.
pub fn wait<T: Send>(py: Python<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send) -> PyResult<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        let found = py.detach(|| match poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                thread::park_timeout(SIGNALS);
                None
            }
            Poll::Ready(found) => Some(found),
        });
        match found {
            Some(found) => return Ok(found),
            None => py.check_signals()?,
        }
    }
}
