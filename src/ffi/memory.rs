//! The caller's memory: everything that comes in by address is read here, and everything that goes out is written here.
//!
//! What the header asks of callers is what makes this sound: a pointer is null, or it is valid for the bytes that are
//! given with it and for as long as the call takes. Null, sizes that cannot be, and text that is not UTF-8 are refused.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use super::layout::{EngineOptions, RequestOptions, StatsView, Text};
use crate::error::{Error, Result};

/// No struct of this interface will ever be larger, in bytes.
const STRUCT_SIZE_MAX: usize = 4096;
/// Each field of a struct that grows takes so many bytes, or half of it beside another.
const FIELD_SIZE: usize = 8;

/// A struct that begins with its own size, of which callers may know more or less than we do.
///
/// # Safety
/// Begins with a `usize`, has no padding, and is valid whatever its bytes are.
// SAFETY: each type below says why it is so.
pub(super) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &'static str;
}

// SAFETY: a usize, then pointers and integers, each aligned where it stands.
unsafe impl Growing for EngineOptions {
    const NAME: &'static str = "flamant_engine_options";
}

// SAFETY: a usize, then pointers, integers and floats, each aligned where it stands.
unsafe impl Growing for RequestOptions {
    const NAME: &'static str = "flamant_request";
}

// SAFETY: a usize, then integers and floats of 8 bytes.
unsafe impl Growing for StatsView {
    const NAME: &'static str = "flamant_stats";
}

fn check_size<T: Growing>(size: usize) -> Result<()> {
    if (size_of::<usize>()..=STRUCT_SIZE_MAX).contains(&size) && size.is_multiple_of(FIELD_SIZE) {
        return Ok(());
    }
    let (name, own) = (T::NAME, size_of::<T>());
    Err(Error::argument(format!("{name}: expected sizeof({name}) as its size, {own} in this version, found {size}")))
}

fn not_null<T>(name: impl Display, pointer: *const T) -> Result<()> {
    match pointer {
        null if null.is_null() => Err(Error::argument(format!("{name}: expected an address, found null"))),
        odd if !odd.is_aligned() => Err(Error::argument(format!("{name}: expected an address that is aligned"))),
        _ => Ok(()),
    }
}

/// Reads a struct as its caller knows it: what it lacks is as in `defaults`, what is unknown here must be zero.
pub(super) fn read<T: Growing>(from: *const T, defaults: T) -> Result<T> {
    not_null(T::NAME, from)?;
    // SAFETY: not null, aligned, and as a T begins with a usize, at least that is there.
    let size = unsafe { from.cast::<usize>().read() };
    check_size::<T>(size)?;
    // SAFETY: the caller says that so many bytes are there, and any bytes are valid as u8.
    let given = unsafe { slice::from_raw_parts(from.cast::<u8>(), size) };
    let (known, unknown) = given.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|&byte| byte != 0) {
        let (name, own) = (T::NAME, size_of::<T>());
        return Err(Error::argument(format!(
            "{name}: expected nothing but zeros after the {own} bytes that this version knows, found a later setting"
        )));
    }
    let mut value = defaults;
    // SAFETY: `known` is at most as long as a T, which is valid whatever its bytes are.
    unsafe { ptr::copy_nonoverlapping(known.as_ptr(), (&raw mut value).cast::<u8>(), known.len()) };
    Ok(value)
}

/// Writes a struct as its caller knows it, of `size` bytes; what is unknown here becomes zero.
pub(super) fn fill<T: Growing>(to: *mut T, size: usize, value: T) -> Result<()> {
    not_null(T::NAME, to)?;
    check_size::<T>(size)?;
    // SAFETY: the caller says that so many bytes are there; no more than those of a T are copied from one. The size
    // that a T begins with fits into any that was accepted.
    unsafe {
        to.cast::<u8>().write_bytes(0, size);
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), to.cast::<u8>(), size.min(size_of::<T>()));
        to.cast::<usize>().write(size);
    }
    Ok(())
}

/// Where one value goes.
pub(super) fn place<'a, T>(name: &str, to: *mut T) -> Result<&'a mut MaybeUninit<T>> {
    not_null(name, to)?;
    // SAFETY: not null, aligned, and the caller says that a T fits there and nobody else uses it during the call.
    Ok(unsafe { &mut *to.cast::<MaybeUninit<T>>() })
}

/// An array; may be null if it is empty.
pub(super) fn array<'a, T>(name: impl Display, data: *const T, count: usize, most: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    let most = most.min(isize::MAX as usize / size_of::<T>());
    if count > most {
        return Err(Error::limit(format!("number of {name}"), most as u64, count as u64));
    }
    not_null(name, data)?;
    // SAFETY: not null, aligned, of a size that can be, and the caller says that so many are there.
    Ok(unsafe { slice::from_raw_parts(data, count) })
}

/// A text with its length.
pub(super) fn text<'a>(name: impl Display, text: Text, bytes_max: usize) -> Result<&'a str> {
    let bytes = array(format!("bytes of {name}"), text.data.cast::<u8>(), text.length, bytes_max)?;
    str::from_utf8(bytes).map_err(|reason| not_utf8(name, reason))
}

/// A text that ends with a zero; none if it is null.
pub(super) fn string<'a>(name: &str, from: *const c_char) -> Result<Option<&'a str>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller says that a zero ends it.
    let bytes = unsafe { CStr::from_ptr(from) };
    bytes.to_str().map(Some).map_err(|reason| not_utf8(name, reason))
}

fn not_utf8(name: impl Display, reason: impl Display) -> Error {
    Error::argument(format!("{name}: expected UTF-8, found {reason}"))
}
