//! Standard streams: one that is closed is an error as soon as it is of use, and a terminal gets no control characters.
//!
//! Before `main`, Rust's runtime puts `/dev/null` in the place of a stream that is closed, and what is written there
//! seems to be written. So the program looks at its streams earlier, when the loader starts it.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Stdin, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;

use super::Failure;

/// Whether standard input and output were closed when the program began.
static CLOSED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

#[cfg(target_os = "linux")]
#[used]
// SAFETY: the section holds functions that the loader calls once, without arguments of any use to this one, which asks
// the system about two numbers and needs nothing that `main` sets up.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        for (number, closed) in (0..).zip(&CLOSED) {
            // SAFETY: any number can be asked about.
            closed.store(unsafe { libc::fcntl(number, libc::F_GETFD) } == -1, Ordering::Relaxed);
        }
    }
    look
};

fn check(number: usize) -> io::Result<()> {
    match CLOSED[number].load(Ordering::Relaxed) {
        true => Err(io::Error::from_raw_os_error(libc::EBADF)),
        false => Ok(()),
    }
}

/// Standard input.
pub fn input() -> Result<Stdin, Error> {
    check(0).map_err(|error| Error::file("standard input", error))?;
    Ok(io::stdin())
}

/// Standard output, for results.
pub fn output() -> Result<Output, Failure> {
    check(1)?;
    let stream = io::stdout();
    Ok(Output { is_terminal: stream.is_terminal(), stream })
}

/// Whoever reads what is written; see [`escaped`].
pub struct Output {
    stream: Stdout,
    is_terminal: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.stream.write(bytes);
        }
        // Whole characters come, as texts are written.
        self.stream.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Tells people something, in a line.
pub fn say(line: impl Display) {
    // Nobody is left to tell if this fails.
    let _ = io::stderr().write_all(format!("flamant: {}\n", escaped(&line.to_string())).as_bytes());
}

/// A text without control characters but those of lines, which may move the cursor of a terminal, change its title or
/// more. In their place stand escapes that JSON has too.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let plain = |character| match is_harmful(character) {
        true => format!("\\u{:04x}", u32::from(character)),
        false => String::from(character),
    };
    Cow::Owned(text.chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_both_sets_are_escaped() {
        assert_eq!(escaped("a\n\tb é"), "a\n\tb é");
        assert_eq!(escaped("\u{1b}[2J \u{7f} \u{9b}31m\r"), "\\u001b[2J \\u007f \\u009b31m\\u000d");
    }
}
