//! The C interface: the functions of `include/flamant.h`, which documents them.
//!
//! Each entry reads its arguments (`memory`, `ask`), finds the engine of a handle (`registry`), and shows what came of
//! it (`show`). What goes wrong is a status with a line of text for the thread; a panic is caught and becomes one.

#![allow(unsafe_code)]

mod ask;
mod layout;
mod log;
mod memory;
mod registry;
mod show;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Display;
use std::sync::{LazyLock, Once};
use std::time::Duration;

use serde_json::json;

use crate::backend::{ARCHITECTURES, devices};
use crate::engine::{Engine, json};
use crate::error::{Error, caught, said};
use layout::{
    ABI_VERSION, Callback, EngineOptions, EventView, FOREVER, Handle, LogCallback, RequestOptions, StatsView, Status,
};

#[cfg(panic = "abort")]
compile_error!("the C interface answers a fault of the library by a status, which needs panic = \"unwind\"");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("the structs of the C interface are laid out for machines of 64 bits");

/// What a call comes to.
type Outcome = Result<Status, Failure>;

/// Why a call came to nothing.
struct Failure {
    status: Status,
    /// One line.
    message: String,
}

impl Failure {
    /// A message of one line, whatever is in it.
    fn new(status: Status, message: impl Display) -> Failure {
        Failure { status, message: Error::argument(message).to_string() }
    }

    fn no_engine() -> Failure {
        Failure::new(Status::InvalidHandle, "engine: expected an open one, found null, one that is freed, or none")
    }

    fn no_event() -> Failure {
        Failure::new(Status::InvalidHandle, "event: expected one that was taken and not released, found another")
    }

    fn no_request(number: u64) -> Failure {
        let expected = "one of this engine that is neither over nor cancelled";
        Failure::new(Status::NotFound, format!("request: expected {expected}, found {number}"))
    }

    fn busy() -> Failure {
        Failure::new(Status::Busy, "engine: another call steps it")
    }

    fn broken() -> Failure {
        Failure::new(Status::Internal, "engine: an earlier call had a fault inside the library; it can only be freed")
    }

    fn panicked(reason: &(dyn Any + Send)) -> Failure {
        Failure::new(Status::Internal, format!("a fault of the library: {}", said(reason)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::File { .. } => Status::File,
            Error::Invalid { .. } => Status::InvalidFile,
            Error::Limit { .. } => Status::Limit,
            Error::QueueFull { .. } => Status::QueueFull,
            Error::Device { .. } => Status::Device,
            Error::Argument(_) => Status::InvalidArgument,
            Error::NotFinite { .. } | Error::FeaturesNotFinite { .. } => Status::NotFinite,
            Error::Internal { .. } => Status::Internal,
        };
        Failure { status, message: error.to_string() }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
    /// The last text that a call on this thread gave out.
    static LAST_TEXT: RefCell<CString> = RefCell::default();
}

/// A text that stays until the thread is given another.
fn keep(text: CString) -> *const c_char {
    let keep = |last: &RefCell<CString>| {
        *last.borrow_mut() = text;
        last.borrow().as_ptr()
    };
    LAST_TEXT.try_with(keep).unwrap_or(c"".as_ptr())
}

/// Does the work of an entry: nothing leaves it but a status, and what went wrong is kept for the thread.
fn answer(work: impl FnOnce() -> Outcome) -> Status {
    let outcome = caught(work).unwrap_or_else(|reason| Err(Failure::panicked(&*reason)));
    let (status, message) = match outcome {
        Ok(status) => (status, String::new()),
        Err(Failure { status, message }) => (status, message),
    };
    // A thread that is ending has nobody left who could ask.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = CString::new(message).unwrap_or_default());
    status
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no zeros"),
};

static BUILD_INFO: LazyLock<CString> = LazyLock::new(|| {
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi_version": ABI_VERSION,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "kernels": ARCHITECTURES,
        "emulated": cfg!(feature = "emulated"),
    });
    CString::new(info.to_string()).unwrap_or_default()
});

// SAFETY: names that begin with `flamant_` are ours in the whole program; so for all below.
#[unsafe(no_mangle)]
extern "C" fn flamant_abi_version() -> u32 {
    ABI_VERSION
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_version() -> *const c_char {
    VERSION.as_ptr()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_build_info_json() -> *const c_char {
    BUILD_INFO.as_ptr()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_status_name(status: i32) -> *const c_char {
    let known = Status::NAMES.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, name)| name).as_ptr()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_devices_json(json: *mut *const c_char) -> Status {
    answer(|| {
        let place = memory::place("json", json)?;
        let devices: serde_json::Value = devices().iter().map(json::device).collect();
        place.write(keep(CString::new(devices.to_string()).unwrap_or_default()));
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_set_log(level: u32, callback: Option<LogCallback>, user: *mut c_void) -> Status {
    answer(|| log::set(level, callback, user))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_options_init(options: *mut EngineOptions, struct_size: usize) -> Status {
    answer(|| {
        memory::fill(options, struct_size, ask::default_options())?;
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_request_init(request: *mut RequestOptions, struct_size: usize) -> Status {
    answer(|| {
        memory::fill(request, struct_size, ask::default_request())?;
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_open(options: *const EngineOptions, engine: *mut Handle) -> Status {
    answer(|| {
        // The library's own hook: a program in another language has none in it.
        static HOOK: Once = Once::new();
        HOOK.call_once(Error::hide_caught_panics);
        let place = memory::place("engine", engine)?;
        let asked = match options.is_null() {
            true => ask::default_options(),
            false => memory::read(options, ask::default_options())?,
        };
        let opened = match ask::options(&asked)? {
            (Some(folder), options) => Engine::open(folder, &options)?,
            (None, options) => Engine::demo(&options)?,
        };
        place.write(registry::add(opened));
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_free(engine: Handle) -> Status {
    answer(|| if engine.number() == 0 { Ok(Status::Ok) } else { registry::remove(engine) })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_info_json(engine: Handle, json: *mut *const c_char) -> Status {
    answer(|| {
        let place = memory::place("json", json)?;
        place.write(keep(registry::info(engine)?));
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_submit(engine: Handle, request: *const RequestOptions, id: *mut u64) -> Status {
    answer(|| {
        let place = memory::place("id", id)?;
        let asked = memory::read(request, ask::default_request())?;
        place.write(registry::submit(engine, || ask::request(&asked))?.number());
        Ok(Status::Ok)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_cancel(engine: Handle, id: u64) -> Status {
    answer(|| registry::cancel(engine, id))
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_step(engine: Handle, event_count: *mut usize) -> Status {
    answer(|| {
        let place = if event_count.is_null() { None } else { Some(memory::place("event_count", event_count)?) };
        let (status, events) = registry::step(engine)?;
        if let Some(place) = place {
            place.write(events);
        }
        Ok(status)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_wait(engine: Handle, what: u32, timeout_ms: u32) -> Status {
    answer(|| {
        let timeout = (timeout_ms != FOREVER).then(|| Duration::from_millis(timeout_ms.into()));
        registry::wait(engine, what, timeout)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_next_event(engine: Handle, event: *mut *const EventView) -> Status {
    answer(|| {
        let place = memory::place("event", event)?;
        let next = registry::next_event(engine)?;
        place.write(next);
        Ok(if next.is_null() { Status::NoEvent } else { Status::Ok })
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_event_release(event: *const EventView) -> Status {
    answer(|| if event.is_null() { Ok(Status::Ok) } else { registry::release(event) })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_run(engine: Handle, callback: Option<Callback>, user: *mut c_void) -> Status {
    answer(|| {
        let callback = callback.ok_or_else(|| Error::argument("callback: expected a function, found null"))?;
        registry::run(engine, |event| callback(event, user) != 0)
    })
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn flamant_engine_stats(engine: Handle, stats: *mut StatsView, struct_size: usize) -> Status {
    answer(|| {
        memory::fill(stats, struct_size, show::stats(&registry::stats(engine)?))?;
        Ok(Status::Ok)
    })
}
