//! The Python package's own module: what `flamant/*.py` stands on. It holds an engine behind its own thread, and tells
//! Python of what happens without ever having the engine wait for the interpreter.

mod asgi;
mod engine;
mod errors;
mod media;
mod notify;
mod outcome;
mod process;
mod request;
mod settings;
mod wait;

use pyo3::prelude::*;

/// The engine for Python.
#[pymodule]
mod _flamant {
    use super::*;

    #[pymodule_export]
    use asgi::{App, Call};
    #[pymodule_export]
    use engine::Engine;
    #[pymodule_export]
    use request::Events;

    /// The whole command line; the exit code.
    #[pyfunction]
    fn main(python: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
        python.detach(|| flamant::cli::main(&arguments))
    }

    /// A name of what stands before the last turn of the user.
    #[pyfunction]
    fn prefix_key(messages: &Bound<'_, PyAny>) -> PyResult<String> {
        let turns = media::turns(messages)?;
        let key = messages.py().detach(|| Ok(media::chat(turns)?.prefix_key()));
        key.map_err(|error| errors::from(&error, errors::Doing::Reading))
    }

    /// The interpreter is about to end: from now on nobody is told of anything.
    #[pyfunction]
    fn ending(python: Python<'_>) {
        python.detach(notify::ending);
    }

    /// In the child of a fork, where this thread is the only one.
    #[pyfunction]
    fn forked() {
        notify::forked();
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
