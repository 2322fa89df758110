//! The input of a batch: lines, and the requests in them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::answers::Answered;
use crate::engine::{Request, json};
use crate::error::{Error, Result};
use crate::files::{End, open_input, read_line};
use crate::prompt::PromptLimits;

/// The requests that are not answered yet.
pub struct Requests {
    /// The input's name in errors.
    source: String,
    /// What paths of images are relative to.
    folder: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// Lines read.
    line: u64,
    answered: Answered,
    output: PathBuf,
}

/// One line of the input.
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Tells it from other lines.
    pub digest: u64,
    source: String,
    folder: PathBuf,
    text: Vec<u8>,
}

impl Requests {
    /// Opens a file. `answered` are the lines that `output` answers.
    pub fn open(input: &Path, output: &Path, answered: Answered) -> Result<Requests> {
        let file = open_input(input)?;
        // A pipe may have a name, but no files beside it.
        let is_file = file.metadata().is_ok_and(|input| input.is_file());
        let folder = input.parent().filter(|_| is_file).unwrap_or(Path::new(""));
        let reader = Box::new(BufReader::new(file));
        Ok(Self::read(reader, input.display().to_string(), folder, output, answered))
    }

    /// Reads from something that is open.
    pub fn read(
        reader: Box<dyn BufRead + Send>,
        source: String,
        folder: &Path,
        output: &Path,
        answered: Answered,
    ) -> Requests {
        Requests { source, folder: folder.to_owned(), reader, line: 0, answered, output: output.to_owned() }
    }

    /// Reads on to the end; the number of lines that hold a request.
    pub fn count(mut self) -> Result<u64> {
        let answered = self.answered.len() as u64;
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        Ok(answered + count)
    }

    /// The next line that is not answered; empty lines are passed over.
    ///
    /// # Errors
    /// An input that cannot be read; an answer that belongs to another input.
    pub fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let mut text = Vec::new();
            let most = PromptLimits::default().bytes_max;
            let read =
                read_line(&mut self.reader, most, &mut text).map_err(|error| Error::file(&self.source, error))?;
            if read == End::Nothing {
                return match self.answered.first_after(self.line) {
                    None => Ok(None),
                    Some(line) => {
                        let expected = format!("an answer to one of the {} lines of {}", self.line, self.source);
                        Err(Error::invalid(&self.output, "line", expected, line))
                    }
                };
            }
            self.line += 1;
            let number = self.line;
            let digest = digest(&text);
            match self.answered.digest(number) {
                Some(found) if found == digest => {}
                Some(_) => {
                    let expected = format!("an answer to line {number} of {} as it is now", self.source);
                    let key = format!("answer to line {number}");
                    return Err(Error::invalid(&self.output, key, expected, "one to another request"));
                }
                None if text.trim_ascii().is_empty() => {}
                None => {
                    let (source, folder) = (self.source.clone(), self.folder.clone());
                    return Ok(Some(Line { number, digest, source, folder, text }));
                }
            }
        }
    }
}

impl Line {
    /// Reads the request, with its images; see [`json::request`].
    pub fn request(&self, limits: PromptLimits, labels: &mut json::Labels) -> Result<Request> {
        let place = format!("{}: line {}", self.source, self.number);
        json::request(&self.text, &place, &self.folder, limits, labels)
    }
}

/// A number that tells a request from others.
fn digest(text: &[u8]) -> u64 {
    let hash = blake3::hash(text.trim_ascii());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}
