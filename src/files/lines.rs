//! A file of lines that is added to: each line in one write, so that a program that is killed leaves whole lines and at
//! most one torn one. What is torn is cut when the program is started again, and lines that no longer stand are left
//! out.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read as _, Result as IoResult, Write as _};
use std::path::{Path, PathBuf};

use super::output;
use crate::error::{Error, Result};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Longest line that is passed over. What goes on for longer, as a device of zeros does, has no lines.
const PASSED_BYTES_MAX: u64 = 1 << 30;

/// The file, open for more.
pub struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of its whole lines, and of the file as it was opened.
    length: u64,
    opened: u64,
    /// The lines that no longer stand: from which byte to which.
    stale: Vec<[u64; 2]>,
}

impl Lines {
    /// Opens the file or makes it, and hands each whole line to `each`, with its number from 1, which says whether it
    /// stands; nothing is changed yet. All lines are `what`, and line `number` begins with `begin(number)`. A line that
    /// holds a zero byte was torn by a failure of the system, which leaves such in place of what was not written: what
    /// follows it is no part of the file. Empty lines, as editors leave them at the end, do not count and do not stand.
    ///
    /// # Errors
    /// A file that cannot be written, that another program is writing, or that holds something else, which `each` says
    /// of a line.
    pub fn open<E: Display>(
        path: &Path,
        what: &str,
        begin: impl Fn(u64) -> &'static str,
        mut each: impl FnMut(u64, &[u8]) -> std::result::Result<bool, E>,
    ) -> Result<Lines> {
        let failed = |error| Error::file(path, error);
        let file = open(path)?;
        let wrong = |number: u64, found: &dyn Display| Error::invalid(path, format!("line {number}"), what, found);
        let opened = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::new(&file);
        let (mut text, mut length, mut stale) = (Vec::new(), 0, Vec::new());
        let mut number = 1;
        loop {
            let end = read_line(&mut reader, LINE_BYTES_MAX, &mut text).map_err(failed)?;
            if end == End::Nothing {
                break;
            }
            if text.trim_ascii().is_empty() {
                let begin = length;
                length += text.len() as u64 + u64::from(end == End::Line);
                stale.push([begin, length]);
                continue;
            }
            if end == End::File || text.contains(&0) {
                let (begun, begin) =
                    (text.split(|byte| *byte == 0).next().unwrap_or_default(), begin(number).as_bytes());
                if begun.starts_with(begin) || begin.starts_with(begun) {
                    break;
                }
                return Err(wrong(number, &"something else"));
            }
            let stands = each(number, &text).map_err(|found| wrong(number, &found))?;
            let begin = length;
            length += text.len() as u64 + 1;
            if !stands {
                stale.push([begin, length]);
            }
            number += 1;
        }
        Ok(Lines { path: path.to_owned(), file, length, opened, stale })
    }

    /// Cuts a torn line, if there is one, and leaves out lines that no longer stand.
    pub fn begin(mut self) -> Result<Lines> {
        self.check(self.opened)?;
        if self.stale.is_empty() {
            self.file.set_len(self.length).map_err(|error| Error::file(&self.path, error))?;
            return Ok(self);
        }
        output::write(&self.path, |output| {
            let mut file = &self.file;
            let mut at = 0;
            for [begin, end] in self.stale.iter().copied().chain([[self.length; 2]]) {
                io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
                io::copy(&mut file.take(begin - at), output)?;
                at = end;
            }
            Ok(())
        })?;
        self.length -= self.stale.drain(..).map(|[begin, end]| end - begin).sum::<u64>();
        self.file = open(&self.path)?;
        Ok(self)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Of the file system; a file that is not the one that was opened any more.
    pub fn add(&mut self, line: &str) -> Result<()> {
        self.check(self.length)?;
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).map_err(|error| Error::file(&self.path, error))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether all that was added is where the path leads to.
    ///
    /// # Errors
    /// As for [`Lines::add`].
    pub fn finish(&self) -> Result<()> {
        self.check(self.length)
    }

    fn check(&self, length: u64) -> Result<()> {
        let failed = |error| Error::file(&self.path, error);
        let there = match fs::metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let opened = self.file.metadata().map_err(failed)?;
        if there.is_some_and(|there| same_file(&there, &opened) && there.len() == length) {
            return Ok(());
        }
        Err(Error::file(&self.path, "it was replaced, removed or changed while it was being written"))
    }
}

/// Opens a file for more, and keeps other programs from it.
fn open(path: &Path) -> Result<File> {
    let failed = |error| Error::file(path, error);
    let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::file(path, "expected a file, found something else"));
    }
    // A file system without locks is no reason to stop.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::file(path, "another program is writing it")),
        _ => Ok(file),
    }
}

#[cfg(unix)]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Where files have no number, their length must do.
#[cfg(not(unix))]
fn same_file(_: &Metadata, _: &Metadata) -> bool {
    true
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
///
/// # Errors
/// Of the file system; a line that does not end.
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
    let mut rest = reader.take(PASSED_BYTES_MAX - most);
    let passed = rest.skip_until(b'\n')?;
    match (passed, rest.limit()) {
        (0, _) => Ok(End::File),
        (_, 0) => {
            Err(io::Error::other(format!("expected lines of at most {PASSED_BYTES_MAX} bytes, found a longer one")))
        }
        _ => Ok(End::Line),
    }
}
