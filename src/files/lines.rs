//! A file of lines that is added to: each line in one write, so that a program that is killed leaves whole lines and at
//! most one torn one. That is cut when the program is started again.

use std::fmt::Display;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read as _, Result as IoResult, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// The file, open for more.
pub struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of its whole lines.
    length: u64,
}

impl Lines {
    /// Opens the file or makes it, and hands each whole line to `each`, with its number from 1; nothing is changed yet.
    /// All lines are `what`, and line `number` begins with `begin(number)`.
    ///
    /// # Errors
    /// A file that cannot be written, that another program is writing, or that holds something else, which `each` says
    /// of a line.
    pub fn open<E: Display>(
        path: &Path,
        what: &str,
        begin: impl Fn(u64) -> &'static str,
        mut each: impl FnMut(u64, &[u8]) -> std::result::Result<(), E>,
    ) -> Result<Lines> {
        let failed = |error| Error::file(path, error);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::file(path, "expected a file, found something else"));
        }
        // A file system without locks is no reason to stop.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::file(path, "another program is writing it"));
        }
        let wrong = |number: u64, found: &dyn Display| Error::invalid(path, format!("line {number}"), what, found);
        let mut reader = BufReader::new(&file);
        let (mut text, mut length) = (Vec::new(), 0);
        for number in 1.. {
            match read_line(&mut reader, LINE_BYTES_MAX, &mut text).map_err(failed)? {
                End::Nothing => break,
                End::File => {
                    let begin = begin(number).as_bytes();
                    if text.starts_with(begin) || begin.starts_with(&text) {
                        break;
                    }
                    return Err(wrong(number, &"something else"));
                }
                End::Line => {}
            }
            each(number, &text).map_err(|found| wrong(number, &found))?;
            length += text.len() as u64 + 1;
        }
        Ok(Lines { path: path.to_owned(), file, length })
    }

    /// Cuts a torn line, if there is one.
    pub fn begin(self) -> Result<Lines> {
        self.file.set_len(self.length).map_err(|error| Error::file(&self.path, error))?;
        Ok(self)
    }

    /// Adds a line.
    pub fn add(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).map_err(|error| Error::file(&self.path, error))
    }
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There was none: the file is at its end.
    Nothing,
    /// With the file.
    File,
    /// With a line feed, which is not part of it.
    Line,
}

/// Reads one line. Of one that is longer than `most`, one byte more is given, and the rest is passed over.
pub fn read_line(reader: &mut dyn BufRead, most: u64, line: &mut Vec<u8>) -> IoResult<End> {
    line.clear();
    let mut bounded = reader.take(most + 1);
    bounded.read_until(b'\n', line)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(End::Line);
    }
    if line.is_empty() {
        return Ok(End::Nothing);
    }
    if line.len() as u64 <= most {
        return Ok(End::File);
    }
    Ok(if reader.skip_until(b'\n')? > 0 { End::Line } else { End::File })
}
