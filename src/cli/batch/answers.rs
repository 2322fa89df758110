//! The output of `flamant batch`: a line an answer, each appended in one write, so that a program that is killed leaves
//! whole lines and at most one torn one. That is cut when the program is started again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flamant::Error;
use serde::Deserialize;
use serde_json::Value;

use super::requests::{End, read_line};

/// How every line of the output begins.
const BEGIN: &str = "{\"line\":";
/// Longest line that is taken for an answer.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// Which lines of the input are answered, and the digest of each.
#[derive(Clone)]
pub struct Answered(Arc<Vec<(u64, u64)>>);

impl Answered {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The digest of a line that is answered.
    pub fn digest(&self, line: u64) -> Option<u64> {
        let place = self.0.binary_search_by_key(&line, |(line, _)| *line).ok()?;
        Some(self.0[place].1)
    }

    /// The first line answered after this one.
    pub fn first_after(&self, line: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|(answered, _)| *answered <= line)).map(|(answered, _)| *answered)
    }
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Head {
    line: u64,
    request: String,
}

/// The file of answers, open for more.
pub struct Answers {
    path: PathBuf,
    file: File,
    /// Bytes of its whole lines.
    length: u64,
}

impl Answers {
    /// Opens the file or makes it, and reads what is there; nothing is changed yet.
    ///
    /// # Errors
    /// A file that cannot be written, that another program is writing, or that holds anything but answers.
    pub fn open(path: &Path) -> Result<(Answers, Answered), Error> {
        let failed = |error| Error::file(path, error);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::file(path, "expected a file, found something else"));
        }
        // A file system without locks is no reason to stop.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::file(path, "another program is writing it"));
        }
        let wrong = |number: u64, found: &dyn std::fmt::Display| {
            Error::invalid(path, format!("line {number}"), "an answer of flamant batch", found)
        };
        let mut reader = BufReader::new(&file);
        let (mut answered, mut text, mut length) = (Vec::new(), Vec::new(), 0);
        for number in 1.. {
            match read_line(&mut reader, LINE_BYTES_MAX, &mut text).map_err(failed)? {
                End::Nothing => break,
                End::File if text.starts_with(BEGIN.as_bytes()) || BEGIN.as_bytes().starts_with(&text) => break,
                End::File => return Err(wrong(number, &"something else")),
                End::Line => {}
            }
            let head: Head = serde_json::from_slice(&text).map_err(|error| wrong(number, &error))?;
            let digest = u64::from_str_radix(&head.request, 16).map_err(|_| wrong(number, &"no request"))?;
            answered.push((head.line, digest));
            length += text.len() as u64 + 1;
        }
        answered.sort_unstable();
        if let Some(pair) = answered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let key = format!("answers to line {}", pair[0].0);
            return Err(Error::invalid(path, key, "one", "more"));
        }
        Ok((Answers { path: path.to_owned(), file, length }, Answered(Arc::new(answered))))
    }

    /// Cuts a torn line, if there is one.
    pub fn begin(self) -> Result<Answers, Error> {
        self.file.set_len(self.length).map_err(|error| Error::file(&self.path, error))?;
        Ok(self)
    }

    /// Appends an answer, in one write.
    pub fn add(&mut self, line: u64, digest: u64, id: Option<&str>, report: &Value) -> Result<(), Error> {
        let (id, report) = (Value::from(id), report.to_string());
        let rest = report.strip_prefix('{').expect("reports are objects with fields");
        let text = format!("{BEGIN}{line},\"id\":{id},\"request\":\"{digest:016x}\",{rest}\n");
        self.file.write_all(text.as_bytes()).map_err(|error| Error::file(&self.path, error))
    }
}
