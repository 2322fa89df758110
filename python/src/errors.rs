//! The library's errors as exceptions of `flamant`.

use flamant::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What was being done; it decides what the fault of a file or an argument is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Opening,
    Reading,
    Running,
}

/// An exception of `flamant._errors` with the parameter at fault.
pub fn raise(class: &str, message: &str, param: Option<&str>) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Python::attach(|py| {
        let made = MODULE
            .get_or_try_init(py, || py.import("flamant._errors").map(Bound::unbind))
            .and_then(|module| module.bind(py).getattr(class)?.call1((message, param)));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}

/// An error of the library.
pub fn from(error: &Error, doing: Doing) -> PyErr {
    let at_fault = if doing == Doing::Reading { Some("prompt") } else { None };
    let (class, param) = match error.kind() {
        ErrorKind::QueueFull => ("QueueFull", None),
        ErrorKind::Limit => ("LimitError", at_fault),
        ErrorKind::Device => ("DeviceError", None),
        ErrorKind::File | ErrorKind::InvalidFile | ErrorKind::Argument if doing == Doing::Reading => {
            ("PromptError", at_fault)
        }
        ErrorKind::Argument if doing == Doing::Opening => return opening(error),
        ErrorKind::File | ErrorKind::InvalidFile => ("ModelError", Some("model")),
        ErrorKind::NotFinite => ("ModelError", None),
        _ => ("FlamantError", None),
    };
    raise(class, &error.to_string(), param)
}

/// An argument that does not suit the model: a setting, or the model's own name.
fn opening(error: &Error) -> PyErr {
    const SETTINGS: [&str; 6] =
        ["context: ", "text-pages: ", "media-pages: ", "chat-template: ", "dtype: ", "kv-dtype: "];
    match SETTINGS.iter().any(|name| error.to_string().starts_with(name)) {
        true => setting(error),
        false => raise("ModelError", &error.to_string(), Some("model")),
    }
}

/// An error of settings, which names the one at fault before a colon.
pub fn setting(error: &Error) -> PyErr {
    let message = error.to_string();
    let name = message.split_once(": ").map(|(name, _)| name.replace('-', "_"));
    // The program's flag is shorter.
    let name = name.map(|name| if name == "context" { "context_max".to_owned() } else { name });
    let name = name.filter(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()));
    raise("SettingError", &message, name.as_deref())
}
