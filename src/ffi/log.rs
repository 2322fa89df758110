//! What the library tells of itself, line by line, to a function of the program: a subscriber of `tracing` that hears
//! the library's own events.

use std::cell::Cell;
use std::ffi::{CString, c_void};
use std::fmt::{Debug, Write as _};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::layout::{LOG_DEBUG, LOG_ERROR, LOG_INFO, LOG_OFF, LOG_WARN, LogCallback, Status};
use super::{Failure, Outcome};
use crate::error::Error;

/// Who is told.
#[derive(Clone, Copy)]
struct Listener {
    callback: LogCallback,
    /// The address that is handed on.
    user: usize,
}

static LISTENER: RwLock<Option<Listener>> = RwLock::new(None);
/// The least important level that is told.
static LEVEL: AtomicU32 = AtomicU32::new(LOG_OFF);

thread_local! {
    /// Whether this thread is in the callback.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Has lines up to a level told from now on, or none. Afterwards nobody is in the callback from before.
pub(super) fn set(level: u32, callback: Option<LogCallback>, user: *mut c_void) -> Outcome {
    if level > LOG_DEBUG {
        return Err(Error::argument(format!("level: expected FLAMANT_LOG_OFF to _DEBUG, found {level}")).into());
    }
    if TELLS.get() {
        return Err(Failure::new(Status::Busy, "log: the callback may not set another"));
    }
    let listener =
        callback.filter(|_| level != LOG_OFF).map(|callback| Listener { callback, user: user.expose_provenance() });
    static SUBSCRIBED: OnceLock<bool> = OnceLock::new();
    let subscribe = || tracing::subscriber::set_global_default(Log).is_ok();
    if listener.is_some() && !SUBSCRIBED.get_or_init(subscribe) {
        return Err(Failure::new(Status::Busy, "log: the program has a subscriber of `tracing` already"));
    }
    LEVEL.store(if listener.is_some() { level } else { LOG_OFF }, Ordering::Relaxed);
    *LISTENER.write().unwrap_or_else(PoisonError::into_inner) = listener;
    Ok(Status::Ok)
}

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => LOG_ERROR,
        Level::WARN => LOG_WARN,
        Level::INFO => LOG_INFO,
        _ => LOG_DEBUG,
    }
}

/// Hears all events of the process, and passes on those of the library.
struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        ours && metadata.is_event() && number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    /// The level may change with every call.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        // One short line, as of errors.
        let text = Error::argument(message + &fields).to_string();
        let text = CString::new(text).unwrap_or_default();
        let listener = LISTENER.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Listener { callback, user }) = *listener {
            let level = number(*event.metadata().level());
            TELLS.set(true);
            callback(level, text.as_ptr(), ptr::with_exposed_provenance_mut(user));
            TELLS.set(false);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as a line: "request done request=3 prompt_tokens=25".
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Strings take all that is written.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
