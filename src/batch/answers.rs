//! The output of a batch: a line an answer.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::Lines;

/// How every line of the output begins.
const BEGIN: &str = "{\"line\":";

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
pub struct Answers(Lines);

impl Answers {
    /// Opens the file or makes it, and reads what is there; nothing is changed yet.
    ///
    /// # Errors
    /// Those of [`Lines::open`]; two answers to one line.
    pub fn open(path: &Path) -> Result<(Answers, Answered)> {
        let mut answered = Vec::new();
        let lines = Lines::open(
            path,
            "an answer of flamant batch",
            |_| BEGIN,
            |_, text| {
                let head: Head = serde_json::from_slice(text).map_err(|error| error.to_string())?;
                let digest = u64::from_str_radix(&head.request, 16).map_err(|_| "no request")?;
                answered.push((head.line, digest));
                Ok::<_, String>(())
            },
        )?;
        answered.sort_unstable();
        if let Some(pair) = answered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let key = format!("answers to line {}", pair[0].0);
            return Err(Error::invalid(path, key, "one", "more"));
        }
        Ok((Answers(lines), Answered(Arc::new(answered))))
    }

    /// Cuts a torn line, if there is one.
    pub fn begin(self) -> Result<Answers> {
        self.0.begin().map(Answers)
    }

    /// Appends an answer, in one write.
    pub fn add(&mut self, line: u64, digest: u64, id: Option<&str>, report: &Value) -> Result<()> {
        let (id, report) = (Value::from(id), report.to_string());
        let rest = report.strip_prefix('{').expect("reports are objects with fields");
        self.0.add(&format!("{BEGIN}{line},\"id\":{id},\"request\":\"{digest:016x}\",{rest}"))
    }
}
