//! What can go wrong from outside: files, prompts, images, arguments.
//!
//! Every message is one line that names the file, the key or the limit, with what was expected and what was found.
//! Our own mistakes are asserts, never errors.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// The result of everything that touches the outside world.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in something that came from outside; its text is one line. [`Error::kind`] tells kinds apart, and
/// [`source`](StdError::source) has the error of the system or of a parser beneath, if there is one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[non_exhaustive]
    File {
        /// The path as the user gave it.
        file: String,
        /// The operating system's reason.
        message: String,
        /// The operating system's error, or that of writing JSON.
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
    /// A file's content is not what it must be.
    #[non_exhaustive]
    Invalid {
        /// The path as the user gave it.
        file: String,
        /// The tensor, JSON key or field.
        key: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
        /// The parser's error.
        source: Option<Arc<dyn StdError + Send + Sync>>,
    },
    /// A stated limit would be passed.
    #[non_exhaustive]
    Limit {
        /// What is limited, with its unit.
        what: String,
        /// The limit.
        limit: u64,
        /// What was asked for.
        found: u64,
    },
    /// An engine has too much to do: what was asked for would be taken if others were over.
    #[non_exhaustive]
    QueueFull {
        /// What is limited, with its unit.
        what: String,
        /// The limit.
        limit: u64,
        /// What it would come to.
        found: u64,
    },
    /// A device is not there, is full, or has failed.
    #[non_exhaustive]
    Device {
        /// The device's name on the command line.
        device: String,
        /// What it wanted and what it found.
        message: String,
    },
    /// An argument or a prompt is not usable.
    Argument(String),
    /// What a model made of one request is not finite. Other requests go on.
    #[non_exhaustive]
    NotFinite {
        /// The number of the request.
        request: u64,
        /// The position of the token they follow.
        token: usize,
    },
    /// What a model makes of an image, for comparing it, is not finite. Other images may be compared.
    #[non_exhaustive]
    FeaturesNotFinite {
        /// Which of the images and videos asked about, from 0.
        image: usize,
    },
    /// A fault of this library at its work for one request: a panic that was caught. Other requests go on.
    #[non_exhaustive]
    Internal {
        /// What was being done.
        doing: String,
        /// What the panic said.
        message: String,
    },
}

/// What kind of fault an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::File`]
    File,
    /// [`Error::Invalid`]
    InvalidFile,
    /// [`Error::Limit`]
    Limit,
    /// [`Error::QueueFull`]
    QueueFull,
    /// [`Error::Device`]
    Device,
    /// [`Error::Argument`]
    Argument,
    /// [`Error::NotFinite`], [`Error::FeaturesNotFinite`]
    NotFinite,
    /// [`Error::Internal`]
    Internal,
}

impl ErrorKind {
    /// In one word for programs, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::File => "file",
            ErrorKind::InvalidFile => "invalid_file",
            ErrorKind::Limit => "limit",
            ErrorKind::QueueFull => "queue_full",
            ErrorKind::Device => "device",
            ErrorKind::Argument => "argument",
            ErrorKind::NotFinite => "not_finite",
            ErrorKind::Internal => "internal",
        }
    }
}

impl Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { file, message, .. } => write!(formatter, "{file}: {message}"),
            Error::Invalid { file, key, expected, found, .. } => {
                write!(formatter, "{file}: {key}: expected {expected}, found {found}")
            }
            Error::Limit { what, limit, found } | Error::QueueFull { what, limit, found } => {
                write!(formatter, "{what}: {found} is over the limit of {limit}")
            }
            Error::Device { device, message } => write!(formatter, "{device}: {message}"),
            Error::Argument(message) => formatter.write_str(message),
            Error::NotFinite { request, token } => write!(
                formatter,
                "logits of request {request} at token {token} are not finite: weights that are not usable, or numbers \
                 beyond the range of the precision"
            ),
            Error::FeaturesNotFinite { image } => write!(
                formatter,
                "features of image {image} are not finite: weights that are not usable, or numbers beyond the range of the \
                 precision"
            ),
            Error::Internal { doing, message } => {
                write!(formatter, "a fault of the library while {doing}: {message}")
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::File { source, .. } | Error::Invalid { source, .. } => {
                source.as_deref().map(|source| source as &(dyn StdError + 'static))
            }
            _ => None,
        }
    }
}

/// Two are equal that are of one kind and say the same.
impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        self.kind() == other.kind() && self.to_string() == other.to_string()
    }
}

impl Eq for Error {}

impl Error {
    /// What kind of fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::File { .. } => ErrorKind::File,
            Error::Invalid { .. } => ErrorKind::InvalidFile,
            Error::Limit { .. } => ErrorKind::Limit,
            Error::QueueFull { .. } => ErrorKind::QueueFull,
            Error::Device { .. } => ErrorKind::Device,
            Error::Argument(_) => ErrorKind::Argument,
            Error::NotFinite { .. } | Error::FeaturesNotFinite { .. } => ErrorKind::NotFinite,
            Error::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// What `work` comes to for one request; a panic of it is [`Error::Internal`]. What `work` changes must be of use
    /// after a panic, or belong to this request alone.
    pub fn catch<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        caught(work).unwrap_or_else(|panic| {
            if let Some(NoMemory(bytes)) = panic.downcast_ref() {
                let found = format!("memory: expected {bytes} bytes more for {doing}, found none left");
                return Err(Error::argument(found));
            }
            let message = one_line(said(panic.as_ref()) + &PLACE.take());
            Err(Error::Internal { doing: doing.to_owned(), message })
        })
    }

    /// Has panics that [`Error::catch`] makes errors of print nothing; the error says where they were. It sets the
    /// process's hook, which is a program's matter and not a library's; other panics go to the hook that was there.
    pub fn hide_caught_panics() {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match CATCHING.get() {
            0 => hook(panic),
            _ => PLACE.set(panic.location().map_or(String::new(), |place| format!(" ({place})"))),
        }));
    }

    /// A failed operation on a file, with the operating system's reason.
    pub fn file(file: impl AsRef<Path>, reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let reason: Box<dyn StdError + Send + Sync> = reason.into();
        let message = one_line(&reason);
        // A text has nothing beneath.
        let is_source = reason.is::<io::Error>() || reason.is::<serde_json::Error>();
        let source = is_source.then(|| Arc::from(reason));
        Error::File { file: escaped(file.as_ref().display()), message, source }
    }

    /// A file whose `key` holds something other than `expected`.
    pub fn invalid(file: impl AsRef<Path>, key: impl Display, expected: impl Display, found: impl Display) -> Self {
        Error::Invalid {
            file: escaped(file.as_ref().display()),
            key: one_line(key),
            expected: one_line(expected),
            found: one_line(found),
            source: None,
        }
    }

    /// As [`Error::invalid`], where a parser says what it found.
    pub fn malformed(
        file: impl AsRef<Path>,
        key: impl Display,
        expected: impl Display,
        reason: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Error::invalid(file, key, expected, &reason).with_source(reason)
    }

    /// The same with what is beneath, where its kind has that.
    pub fn with_source(mut self, beneath: impl StdError + Send + Sync + 'static) -> Self {
        if let Error::File { source, .. } | Error::Invalid { source, .. } = &mut self {
            *source = Some(Arc::new(beneath));
        }
        self
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

    /// As [`Error::limit`], of what would be within the limit if others were over.
    pub fn queue_full(what: impl Display, limit: u64, found: u64) -> Self {
        Error::QueueFull { what: one_line(what), limit, found }
    }
}

thread_local! {
    /// How many callers on this thread wait to catch a panic.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic was that was not printed.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What `work` comes to, or the panic that ended it.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Box<dyn Any + Send>> {
    CATCHING.set(CATCHING.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(CATCHING.get() - 1);
    outcome
}

/// Unwinds where the system has not so many bytes, and nothing can return an error; see [`Error::catch`].
pub(crate) struct NoMemory(pub usize);

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

/// A path, made safe for one line of a terminal; it is cut only where it is longer than systems let a path be.
fn escaped(path: impl Display) -> String {
    const PATH_MAX: usize = 4096;
    let escape = |character: char| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    };
    let path = path.to_string();
    let mut line: String = path.chars().take(PATH_MAX).map(escape).collect();
    if path.chars().nth(PATH_MAX).is_some() {
        line.push('…');
    }
    line
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
        // Where the process hides such panics, as tests of the C interface do, it says where they were.
        let begins = error.to_string().starts_with("a fault of the library while testing: one\\ntwo 3");
        assert!(begins && error.kind() == ErrorKind::Internal, "{error}");
        let error = Error::catch("testing", || -> Result<()> { std::panic::panic_any(4) }).unwrap_err();
        assert!(error.to_string().contains(": without a word"));
        assert_eq!(Error::catch("testing", || Ok(4)), Ok(4));
        let error = Error::catch("testing", || -> Result<()> { panic::resume_unwind(Box::new(NoMemory(5))) });
        assert_eq!(error.unwrap_err().to_string(), "memory: expected 5 bytes more for testing, found none left");
    }

    #[test]
    fn a_message_is_one_short_line() {
        let error = Error::invalid("a.json", "x\ny", "a number", "z".repeat(1000));
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("x\\ny") && text.chars().count() < 400, "{text}");
    }
    #[test]
    fn what_is_beneath_can_be_asked() {
        let missing = std::fs::read("no/such/file").map_err(|error| Error::file("no/such/file", error)).unwrap_err();
        assert_eq!(missing.kind().as_str(), "file");
        let beneath = missing.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(beneath.kind(), io::ErrorKind::NotFound);
        let json = serde_json::from_str::<u32>("{").unwrap_err();
        let (line, error) = (json.line(), Error::malformed("a.json", "text", "JSON", json));
        assert_eq!(error.kind(), ErrorKind::InvalidFile);
        assert_eq!(error.source().unwrap().downcast_ref::<serde_json::Error>().unwrap().line(), line);
        for error in [Error::file("a", "empty"), Error::invalid("a", "b", "c", "d"), Error::argument("e")] {
            assert!(error.source().is_none(), "{error}");
        }
        assert_eq!(missing, missing.clone());
        assert_ne!(missing, Error::argument(&missing));
    }
}
