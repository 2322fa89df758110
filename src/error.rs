//! What can go wrong from outside: files, prompts, images, arguments.
//!
//! Every message is one line that names the file, the key or the limit, with what was expected and what was found.
//! Our own mistakes are asserts, never errors.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The result of everything that touches the outside world.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in something that came from outside; its text is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{file}: {message}")]
    File {
        /// The path as the user gave it.
        file: String,
        /// The operating system's reason.
        message: String,
    },
    /// A file's content is not what it must be.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Invalid {
        /// The path as the user gave it.
        file: String,
        /// The tensor, JSON key or field.
        key: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A stated limit would be passed.
    #[error("{what}: {found} is over the limit of {limit}")]
    Limit {
        /// What is limited, with its unit.
        what: String,
        /// The limit.
        limit: u64,
        /// What was asked for.
        found: u64,
    },
    /// A device is not there, is full, or has failed.
    #[error("{device}: {message}")]
    Device {
        /// The device's name on the command line.
        device: String,
        /// What it wanted and what it found.
        message: String,
    },
    /// An argument or a prompt is not usable.
    #[error("{0}")]
    Argument(String),
    /// What a model made of one request is not finite. Other requests go on.
    #[error(
        "logits of request {request} at token {token} are not finite: weights that are not usable, or numbers beyond \
        the range of the precision"
    )]
    NotFinite {
        /// The number of the request.
        request: u64,
        /// The position of the token they follow.
        token: usize,
    },
    /// A fault of this library at its work for one request: a panic that was caught. Other requests go on.
    #[error("a fault of the library while {doing}: {message}")]
    Internal {
        /// What was being done.
        doing: String,
        /// What the panic said.
        message: String,
    },
}

impl Error {
    /// What kind of fault it is, in one word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::File { .. } => "file",
            Error::Invalid { .. } => "invalid_file",
            Error::Limit { .. } => "limit",
            Error::Device { .. } => "device",
            Error::Argument(_) => "argument",
            Error::NotFinite { .. } => "not_finite",
            Error::Internal { .. } => "internal",
        }
    }

    /// What `work` comes to for one request; a panic of it is [`Error::Internal`]. What `work` changes must be of use
    /// after a panic, or belong to this request alone.
    pub fn catch<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let (doing, message) = (doing.to_owned(), one_line(said(panic.as_ref())));
            Err(Error::Internal { doing, message })
        })
    }

    /// A failed operation on a file, with the operating system's reason.
    pub fn file(file: impl AsRef<Path>, reason: impl Display) -> Self {
        Error::File { file: escaped(file.as_ref().display()), message: one_line(reason) }
    }

    /// A file whose `key` holds something other than `expected`.
    pub fn invalid(file: impl AsRef<Path>, key: impl Display, expected: impl Display, found: impl Display) -> Self {
        Error::Invalid {
            file: escaped(file.as_ref().display()),
            key: one_line(key),
            expected: one_line(expected),
            found: one_line(found),
        }
    }

    /// An unusable argument or prompt.
    pub fn argument(message: impl Display) -> Self {
        Error::Argument(one_line(message))
    }

    /// A device that cannot do what it was asked to.
    pub fn device(device: impl Display, message: impl Display) -> Self {
        Error::Device { device: one_line(device), message: one_line(message) }
    }

    /// `found` of `what` where at most `limit` is allowed.
    pub fn limit(what: impl Display, limit: u64, found: u64) -> Self {
        Error::Limit { what: one_line(what), limit, found }
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// A path, made safe for one line of a terminal; it is never cut.
fn escaped(path: impl Display) -> String {
    let escape = |character: char| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    };
    path.to_string().chars().map(escape).collect()
}

/// Text from outside, made safe for one line of a terminal: control characters are escaped, and it is cut at 300
/// characters.
fn one_line(text: impl Display) -> String {
    let text = text.to_string();
    let mut line = String::with_capacity(text.len());
    for (count, character) in text.chars().enumerate() {
        if count == 300 {
            line.push('…');
            break;
        }
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        let error = Error::catch("testing", || -> Result<()> { panic!("one\ntwo {}", 3) }).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("a fault of the library while testing: one\\ntwo 3", "internal",)
        );
        let error = Error::catch("testing", || -> Result<()> { std::panic::panic_any(4) }).unwrap_err();
        assert!(error.to_string().ends_with(": without a word"));
        assert_eq!(Error::catch("testing", || Ok(4)), Ok(4));
    }

    #[test]
    fn a_message_is_one_short_line() {
        let error = Error::invalid("a.json", "x\ny", "a number", "z".repeat(1000));
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("x\\ny") && text.chars().count() < 400, "{text}");
    }
}
