//! What the program says when a file that it has mapped is cut: the system answers a read behind the new end by the
//! signal SIGBUS, which would end the program without a word.
//!
//! The handler asks the system which file is mapped at the address, names it in one line, and ends the program as any
//! error does. It calls nothing but what a handler of signals may call, and allocates nothing. Only the program has it:
//! a library leaves signals to its host.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest line of the table of maps that is looked at: addresses, and a path.
const LINE_BYTES: usize = 4096 + 128;

/// Has a file that passes the limit of its size be an error of writing, as a full disk is.
pub fn outlive_limits_of_files() {
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Has the file named that a read faults in.
pub fn name_cut_files() {
    // SAFETY: a sigaction of zeros is one, with no flags and no signals blocked; it is complete before it is handed
    // over, and the handler is sound whenever the signal comes.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_bus as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

/// Several threads may fault at once: one of them speaks.
static SPEAKS: AtomicBool = AtomicBool::new(false);

extern "C" fn on_bus(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands over what it knows of the signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code == libc::BUS_ADRERR || code == libc::BUS_OBJERR {
        if SPEAKS.swap(true, Ordering::SeqCst) {
            loop {
                // SAFETY: it waits for a signal, or for the end of the process.
                unsafe { libc::pause() };
            }
        }
        let mut line = [0; LINE_BYTES];
        if let Some(path) = mapped_at(address, &mut line) {
            say(&[b"flamant: ", path, b": cut, or not readable any more, while it is in use\n"]);
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(1) };
        }
    }
    // No file of ours: the signal comes again, and does what it would have done.
    // SAFETY: the signal is the one that this is the handler of.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// The path of the file that is mapped at an address.
fn mapped_at(address: usize, line: &mut [u8; LINE_BYTES]) -> Option<&[u8]> {
    // SAFETY: the path ends with a zero.
    let table = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let (mut chunk, mut length) = ([0_u8; 1024], 0);
    loop {
        // SAFETY: so many bytes may be written there. A table that was not opened has none to read.
        let count = unsafe { libc::read(table, chunk.as_mut_ptr().cast(), chunk.len()) };
        let read = usize::try_from(count).ok().filter(|&count| count > 0)?;
        for &byte in chunk.get(..read)? {
            if byte != b'\n' {
                // What is too long for a path is left out.
                if let Some(place) = line.get_mut(length) {
                    (*place, length) = (byte, length + 1);
                }
            } else if let Some(path) = line.get(..length).and_then(|line| path_of(line, address)) {
                let start = length - path;
                // Nothing in it may do something to a terminal, as bytes beyond ASCII may, too.
                line.iter_mut().filter(|byte| !matches!(byte, b' '..=b'~')).for_each(|byte| *byte = b'?');
                return line.get(start..length);
            } else {
                length = 0;
            }
        }
    }
}

/// How many bytes at the end of a line of the table are a path, if the line is of a file that is mapped at the address:
/// "7f0c00000000-7f0c00021000 r--s 00000000 08:01 1234    /models/a".
fn path_of(line: &[u8], address: usize) -> Option<usize> {
    let dash = line.iter().position(|&byte| byte == b'-')?;
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (start, end) = (number(line.get(..dash)?)?, number(line.get(dash + 1..space)?)?);
    let path = line.iter().position(|&byte| byte == b'/')?;
    (start..end).contains(&address).then(|| line.len() - path)
}

fn number(digits: &[u8]) -> Option<usize> {
    digits
        .iter()
        .try_fold(0_usize, |number, &digit| Some(number.checked_mul(16)? + (digit as char).to_digit(16)? as usize))
}

fn say(pieces: &[&[u8]]) {
    for piece in pieces {
        // SAFETY: so many bytes are there. Nobody is left to tell if this fails.
        unsafe { libc::write(libc::STDERR_FILENO, piece.as_ptr().cast(), piece.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_maps_names_files() {
        let line = b"7f0c00000000-7f0c00021000 r--s 00000000 08:01 1234    /models/a b";
        assert_eq!(path_of(line, 0x7f0c_0000_0000), Some(11));
        assert_eq!(path_of(line, 0x7f0c_0002_0fff), Some(11));
        assert_eq!(path_of(line, 0x7f0c_0002_1000), None);
        assert_eq!(path_of(b"7f0c00000000-7f0c00021000 rw-p 00000000 00:00 0", 0x7f0c_0000_0000), None);
        assert_eq!([path_of(b"", 1), path_of(b"x-y z /", 1), path_of(b"1-2", 1)], [None; 3]);
    }

    #[test]
    fn a_file_is_found_by_an_address_in_it() {
        let here = std::env::current_exe().unwrap();
        let mut line = [0; LINE_BYTES];
        assert_eq!(mapped_at(path_of as *const () as usize, &mut line), Some(here.as_os_str().as_encoded_bytes()));
        assert_eq!(mapped_at(0, &mut line), None);
    }
}
