//! What lives in the process that made it: threads do not come along to the child of a fork.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value with threads behind it. In another process than its own it is never touched, not even to be dropped: a lock
/// in it may be held by a thread that is not there.
pub struct Owned<T> {
    value: Option<T>,
    process: u32,
}

impl<T> Owned<T> {
    /// A value of this process.
    pub fn new(value: T) -> Owned<T> {
        Owned { value: Some(value), process: std::process::id() }
    }

    /// The value, in its own process.
    pub fn get(&self) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.process == std::process::id() => Ok(value),
            _ => Err(PyRuntimeError::new_err("an engine does not come along to a forked process: open one after fork")),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
